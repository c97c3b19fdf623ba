//! A training as it is asked for, and as it is run: every range and default in one place.

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults, RealRange};
use super::matrix::{Matrix, RawMatrix};
use super::model::{Activation, Architecture};
use super::optimizer::{Optimizer, RawOptimizer};
use super::targets::Targets;
use crate::limits;

/// What is minimized.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Loss {
    /// (ŷ − y)², without ½.
    SquaredError,
    /// −y·ln p − (1 − y)·ln(1 − p), from the logit.
    BinaryCrossEntropy,
    /// −ln p of the right class, from the logits.
    SoftmaxCrossEntropy,
    /// −y·z over the misclassified rows, those with y·z ≤ 0.
    Perceptron,
    /// |ŷ − y|
    AbsoluteError,
    /// ½·(ŷ − y)² where |ŷ − y| ≤ δ, else δ·(|ŷ − y| − ½·δ)
    Huber {
        /// Where the parabola ends.
        delta: f64,
    },
    /// ln cosh(ŷ − y)
    LogCosh,
}

impl Loss {
    /// Default δ of Huber's loss.
    pub const HUBER_DELTA_DEFAULT: f64 = 1.0;
    const HUBER: Self = Self::Huber { delta: Self::HUBER_DELTA_DEFAULT };
    const HUBER_DELTA_RANGE: RealRange = RealRange::above(0.0, f64::MAX);

    /// The losses that fit an output, the default first, with the defaults of their options.
    pub fn fitting(activation: Activation) -> &'static [Loss] {
        match activation {
            Activation::Sigmoid => &[Self::BinaryCrossEntropy, Self::SquaredError, Self::AbsoluteError, Self::HUBER],
            Activation::Softmax => &[Self::SoftmaxCrossEntropy, Self::SquaredError],
            Activation::Sign | Activation::Step => &[Self::Perceptron],
            Activation::Identity | Activation::Tanh => {
                &[Self::SquaredError, Self::AbsoluteError, Self::HUBER, Self::LogCosh]
            }
            Activation::Relu
            | Activation::LeakyRelu { .. }
            | Activation::Elu { .. }
            | Activation::Selu
            | Activation::Softplus
            | Activation::Softsign
            | Activation::Exponential
            | Activation::HardSigmoid => &[Self::SquaredError, Self::AbsoluteError, Self::HUBER],
        }
    }

    /// The loss for an output: the one asked for, where it fits, or the default.
    pub fn choose(asked: Option<Self>, activation: Activation, at: At<'_>, faults: &mut Faults) -> Option<Self> {
        let fitting = Self::fitting(activation);
        let loss = asked.unwrap_or(fitting[0]);
        if let Self::Huber { delta } = loss {
            faults.real(at.field("huber").field("delta"), delta, Self::HUBER_DELTA_RANGE)?;
        }
        let is_same = |fitting: &Self| std::mem::discriminant(fitting) == std::mem::discriminant(&loss);
        if fitting.iter().any(is_same) {
            return Some(loss);
        }
        let names: Vec<&str> = fitting.iter().map(|loss| loss.name()).collect();
        let message = format!("{} does not fit the output {activation}; use {}", loss.name(), names.join(" or "));
        faults.add(at, message);
        None
    }

    /// The name of its field in a request.
    pub fn name(self) -> &'static str {
        match self {
            Self::SquaredError => "squared_error",
            Self::BinaryCrossEntropy => "binary_cross_entropy",
            Self::SoftmaxCrossEntropy => "softmax_cross_entropy",
            Self::Perceptron => "perceptron",
            Self::AbsoluteError => "absolute_error",
            Self::Huber { .. } => "huber",
            Self::LogCosh => "log_cosh",
        }
    }
}

/// How the losses of a batch become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    /// Divided by rows × outputs; by rows for softmax cross-entropy and for squared error on softmax.
    #[default]
    Mean,
    /// Divided by nothing: the textbook's.
    Sum,
}

/// Stops when the monitored loss (validation's, or training's where there is none) has not fallen by more than `min_delta`
/// below its best for `patience` epochs; the best epoch's weights are restored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// Epochs to wait.
    pub patience: u32,
    /// What counts as an improvement.
    pub min_delta: f64,
}

/// Early stopping as a request brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawEarlyStopping {
    /// Default 10.
    pub patience: Option<i64>,
    /// Default 0.
    pub min_delta: Option<f64>,
}

/// Which weights a training starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// The latest version's, when the job starts.
    #[default]
    Latest,
    /// Version 1's.
    Initial,
}

/// What a training is validated on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Validation {
    /// Nothing.
    #[default]
    None,
    /// A part of the rows, drawn by the seed, stratified where rows have a class.
    Fraction(f64),
    /// Rows of their own.
    Given {
        /// How many.
        rows: u64,
    },
}

/// Validation as a request brings it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RawValidation {
    /// Nothing.
    #[default]
    None,
    /// A part of the rows.
    Fraction(f64),
    /// Rows of their own.
    Given {
        /// As the training's inputs.
        inputs: RawMatrix,
        /// As the training's targets.
        targets: RawMatrix,
    },
}

/// Every setting of a training, none left open: a run can be repeated from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is minimized.
    pub loss: Loss,
    /// How a batch's losses become one number.
    pub reduction: Reduction,
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// Visits to every training row, at most.
    pub epochs: u32,
    /// Rows of a mini-batch; as many as the training rows or more mean the full batch.
    pub batch_size: u32,
    /// Whether rows are visited in a new order every epoch.
    pub shuffle: bool,
    /// What the split and the order of rows are drawn from.
    pub seed: u64,
    /// When to stop before the last epoch.
    pub early_stopping: Option<EarlyStopping>,
    /// Epochs from one report to the next; the last is always reported.
    pub report_every: u32,
    /// Which weights it starts from.
    pub start: Start,
    /// What it is validated on.
    pub validation: Validation,
    /// Rows that were sent, the validation fraction among them.
    pub rows: u64,
    /// Whether the job is cancelled when the client that started it goes away.
    pub cancel_on_disconnect: bool,
}

impl Settings {
    /// Rows that the weights learn from.
    pub fn training_rows(&self) -> u64 {
        match self.validation {
            Validation::Fraction(fraction) => self.rows - validation_rows(self.rows, fraction),
            Validation::None | Validation::Given { .. } => self.rows,
        }
    }
}

/// How many of `rows` a fraction holds out: the nearest whole number, at least one, leaving at least one.
pub fn validation_rows(rows: u64, fraction: f64) -> u64 {
    ((rows as f64 * fraction).round() as u64).clamp(1, rows.saturating_sub(1).max(1))
}

/// The rows of a training, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingData {
    /// What the network is shown.
    pub inputs: Matrix,
    /// What it is to say.
    pub targets: Targets,
    /// Validation rows of their own, where they were given.
    pub validation: Option<(Matrix, Targets)>,
}

/// A training as a request brings it: numbers not checked yet, `None` where the default is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTraining {
    /// What the network is shown.
    pub inputs: RawMatrix,
    /// What it is to say.
    pub targets: RawMatrix,
    /// What it is validated on.
    pub validation: RawValidation,
    /// Default by the last activation.
    pub loss: Option<Loss>,
    /// How a batch's losses become one number.
    pub reduction: Reduction,
    /// Default by the loss.
    pub optimizer: Option<RawOptimizer>,
    /// Default max(20, ⌈2000 ÷ steps an epoch⌉).
    pub epochs: Option<i64>,
    /// Default 32; 1 with the perceptron criterion.
    pub batch_size: Option<i64>,
    /// Default true.
    pub shuffle: Option<bool>,
    /// Drawn where there is none.
    pub seed: Option<u64>,
    /// None by default.
    pub early_stopping: Option<RawEarlyStopping>,
    /// Default 1.
    pub report_every: Option<i64>,
    /// Which weights it starts from.
    pub start: Start,
    /// Whether the job is cancelled when the client that started it goes away.
    pub cancel_on_disconnect: bool,
}

impl RawTraining {
    /// Checks everything against the network that will be trained, and fills in every default. `drawn_seed` is used where
    /// the request has none.
    pub fn check(self, architecture: &Architecture, drawn_seed: u64) -> Result<(Settings, TrainingData), Faults> {
        let mut faults = Faults::new();
        let at = At::ROOT;
        let activation = architecture.output_layer().activation;
        let loss = Loss::choose(self.loss, activation, at.field("loss"), &mut faults);
        let element_type = architecture.element_type();
        let inputs = self.inputs.check(architecture.input_width(), element_type, at.field("inputs"), &mut faults);
        let numbers = check_numbers(&self.epochs, &self.batch_size, &self.report_every, &mut faults);
        let early_stopping = check_early_stopping(self.early_stopping, at.field("early_stopping"), &mut faults);
        // Without a loss nothing more can be judged, and its fault is told.
        let Some(loss) = loss else { return Err(faults) };
        let raw_optimizer = self.optimizer.unwrap_or(RawOptimizer::default_for(loss));
        let optimizer = raw_optimizer.check(loss, at.field("optimizer"), &mut faults);
        let rows = inputs.as_ref().map(Matrix::rows);
        let targets = rows
            .and_then(|rows| Targets::check(self.targets, rows, loss, architecture, at.field("targets"), &mut faults));
        let validation = check_validation(self.validation, rows, loss, architecture, &mut faults);
        let checked = (|| {
            let (inputs, targets, numbers) = (inputs?, targets?, numbers?);
            let (validation, validation_data) = validation?;
            let mut settings = Settings {
                loss,
                reduction: self.reduction,
                optimizer: optimizer?,
                epochs: 0,
                batch_size: numbers.batch_size.unwrap_or(default_batch_size(loss)),
                shuffle: self.shuffle.unwrap_or(true),
                seed: self.seed.unwrap_or(drawn_seed),
                early_stopping: early_stopping?,
                report_every: numbers.report_every,
                start: self.start,
                validation,
                rows: inputs.rows() as u64,
                cancel_on_disconnect: self.cancel_on_disconnect,
            };
            settings.epochs = numbers.epochs.unwrap_or_else(|| default_epochs(&settings));
            Some((settings, TrainingData { inputs, targets, validation: validation_data }))
        })();
        faults.finish(checked)
    }
}

struct Numbers {
    epochs: Option<u32>,
    batch_size: Option<u32>,
    report_every: u32,
}

fn check_numbers(
    epochs: &Option<i64>,
    batch_size: &Option<i64>,
    report_every: &Option<i64>,
    faults: &mut Faults,
) -> Option<Numbers> {
    let mut check = |name: &'static str, value: Option<i64>, max: u32| match value {
        None => Some(None),
        Some(value) => faults.whole(At::ROOT.field(name), value, 1..=i64::from(max)).map(|value| Some(value as u32)),
    };
    let epochs = check("epochs", *epochs, limits::EPOCHS_MAX);
    let batch_size = check("batch_size", *batch_size, limits::BATCH_ROWS_MAX);
    let report_every = check("report_every", *report_every, limits::EPOCHS_MAX);
    Some(Numbers { epochs: epochs?, batch_size: batch_size?, report_every: report_every?.unwrap_or(1) })
}

fn check_early_stopping(
    raw: Option<RawEarlyStopping>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Option<EarlyStopping>> {
    let Some(raw) = raw else { return Some(None) };
    let patience = raw.patience.unwrap_or(i64::from(limits::PATIENCE_DEFAULT));
    let patience = faults.whole(at.field("patience"), patience, 1..=i64::from(limits::PATIENCE_MAX));
    let min_delta = raw.min_delta.unwrap_or(0.0);
    let min_delta = faults.real(at.field("min_delta"), min_delta, RealRange::closed(0.0, f64::MAX));
    Some(Some(EarlyStopping { patience: patience? as u32, min_delta: min_delta? }))
}

type CheckedValidation = (Validation, Option<(Matrix, Targets)>);

fn check_validation(
    raw: RawValidation,
    rows: Option<usize>,
    loss: Loss,
    architecture: &Architecture,
    faults: &mut Faults,
) -> Option<CheckedValidation> {
    match raw {
        RawValidation::None => Some((Validation::None, None)),
        RawValidation::Fraction(fraction) => {
            let at = At::ROOT.field("validation_fraction");
            let fraction = faults.real(at, fraction, RealRange::open(0.0, 1.0))?;
            if rows? < 2 {
                faults.add(at, "needs at least two rows: one to learn from and one to validate on");
                return None;
            }
            Some((Validation::Fraction(fraction), None))
        }
        RawValidation::Given { inputs, targets } => {
            let at = At::ROOT.field("validation_data");
            let element_type = architecture.element_type();
            let inputs = inputs.check(architecture.input_width(), element_type, at.field("inputs"), faults)?;
            let rows = inputs.rows();
            let targets = Targets::check(targets, rows, loss, architecture, at.field("targets"), faults)?;
            Some((Validation::Given { rows: rows as u64 }, Some((inputs, targets))))
        }
    }
}

/// Rosenblatt's rule goes row by row.
fn default_batch_size(loss: Loss) -> u32 {
    match loss {
        Loss::Perceptron => 1,
        Loss::SquaredError
        | Loss::BinaryCrossEntropy
        | Loss::SoftmaxCrossEntropy
        | Loss::AbsoluteError
        | Loss::Huber { .. }
        | Loss::LogCosh => limits::BATCH_ROWS_DEFAULT,
    }
}

/// max(20, ⌈2000 ÷ steps an epoch⌉)
fn default_epochs(settings: &Settings) -> u32 {
    let steps = settings.training_rows().div_ceil(u64::from(settings.batch_size));
    let epochs = u64::from(limits::STEPS_DEFAULT).div_ceil(steps);
    limits::EPOCHS_DEFAULT_MIN.max(epochs as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::matrix::{ElementType, Values};
    use crate::domain::model::{RawArchitecture, RawLayer};

    fn network(units: i64, activation: Activation) -> Architecture {
        let layer = RawLayer { units, activation, activation_alpha: None, bias: true };
        let raw = RawArchitecture { input_width: 1, element_type: ElementType::Float32, layers: vec![Some(layer)] };
        raw.check(At::ROOT, &mut Faults::new()).unwrap()
    }

    fn column(values: &[f64]) -> RawMatrix {
        RawMatrix { values: Values::F64(values.to_vec()), rows: None, columns: None }
    }

    fn training(rows: usize) -> RawTraining {
        RawTraining {
            inputs: column(&vec![1.0; rows]),
            targets: column(&vec![1.0; rows]),
            validation: RawValidation::None,
            loss: None,
            reduction: Reduction::Mean,
            optimizer: None,
            epochs: None,
            batch_size: None,
            shuffle: None,
            seed: None,
            early_stopping: None,
            report_every: None,
            start: Start::Latest,
            cancel_on_disconnect: false,
        }
    }

    #[test]
    fn defaults_follow_from_the_output_and_the_rows() {
        let (settings, _) = training(100).check(&network(1, Activation::Sigmoid), 7).unwrap();
        assert_eq!(settings.loss, Loss::BinaryCrossEntropy);
        assert_eq!(
            settings.optimizer,
            Optimizer::Adam { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
        );
        assert_eq!((settings.batch_size, settings.epochs, settings.seed), (32, 500, 7));
        let (settings, _) = training(100_000).check(&network(1, Activation::Identity), 7).unwrap();
        assert_eq!((settings.loss, settings.epochs), (Loss::SquaredError, 20));
        let (settings, _) = training(4).check(&network(1, Activation::Sign), 7).unwrap();
        assert_eq!((settings.loss, settings.batch_size, settings.epochs), (Loss::Perceptron, 1, 500));
        assert_eq!(settings.optimizer, Optimizer::Sgd { learning_rate: 1.0, momentum: 0.0 });
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut raw = training(1);
        raw.epochs = Some(0);
        raw.batch_size = Some(-1);
        raw.optimizer = Some(RawOptimizer::Sgd { learning_rate: Some(0.0), momentum: Some(1.0) });
        raw.validation = RawValidation::Fraction(0.5);
        raw.early_stopping = Some(RawEarlyStopping { patience: Some(0), min_delta: Some(f64::NAN) });
        let faults = raw.check(&network(1, Activation::Identity), 7).unwrap_err();
        let paths: Vec<&str> = faults.as_slice().iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "epochs",
                "batch_size",
                "early_stopping.patience",
                "early_stopping.min_delta",
                "optimizer.sgd.learning_rate",
                "optimizer.sgd.momentum",
                "validation_fraction",
            ]
        );
    }

    #[test]
    fn a_loss_that_does_not_fit_is_refused_naming_what_does() {
        let mut raw = training(1);
        raw.loss = Some(Loss::BinaryCrossEntropy);
        let faults = raw.check(&network(2, Activation::Softmax), 7).unwrap_err();
        assert_eq!(
            faults.to_string(),
            "loss: binary_cross_entropy does not fit the output softmax; use softmax_cross_entropy or squared_error"
        );
    }

    #[test]
    fn a_fraction_leaves_a_row_on_each_side() {
        assert_eq!(validation_rows(150, 0.2), 30);
        assert_eq!(validation_rows(2, 0.01), 1);
        assert_eq!(validation_rows(2, 0.99), 1);
    }
}
