//! A training as it is asked for: every range and default in one place, and what cannot go together.

use std::mem;

use super::architecture::Architecture;
use super::fault::{At, Faults, RealRange, short};
use super::loss::Loss;
use super::matrix::RawMatrix;
use super::metric::{Metric, Task};
use super::optimizer::{Optimizer, RawOptimizer};
use super::rows::{RawRows, Rows, TrainingData};
use super::schedule::RawSchedule;
use super::settings::{ClassWeights, Reduction, Settings, Start, Validation};
use crate::limits;

mod combinations;
mod measures;

pub use measures::{RawEarlyStopping, RawStopAt};

/// Validation as a request brings it.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RawValidation {
    /// Nothing.
    #[default]
    None,
    /// A part of the rows.
    Fraction(f64),
    /// Rows of their own.
    Given(Box<RawRows>),
}

/// Class weights as a request brings them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawClassWeights {
    /// A weight a class.
    pub weights: Vec<f64>,
    /// Whether they follow from the rows.
    pub balanced: bool,
}

/// A training as a request brings it: numbers not checked yet, `None` where the default is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct RawTraining {
    /// What it learns from.
    pub rows: RawRows,
    /// What it is validated on.
    pub validation: RawValidation,
    /// Default by the last activation.
    pub loss: Option<Loss>,
    /// How a batch's losses become one number.
    pub reduction: Reduction,
    /// Default by the loss.
    pub optimizer: Option<RawOptimizer>,
    /// Default constant.
    pub schedule: RawSchedule,
    /// Default max(20, ⌈2000 ÷ steps an epoch⌉).
    pub epochs: Option<i64>,
    /// Default 32; 1 with the perceptron criterion; all rows with an optimizer of the full batch.
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
    /// Default 0.
    pub l1: Option<f64>,
    /// Default 0.
    pub l2: Option<f64>,
    /// Default none.
    pub max_gradient_norm: Option<f64>,
    /// Default none.
    pub max_gradient_value: Option<f64>,
    /// Default all alike.
    pub class_weights: Option<RawClassWeights>,
    /// Default by the task.
    pub metrics: Vec<Metric>,
    /// Default 5, or the classes.
    pub top_k: Option<i64>,
    /// Whether layers are told of.
    pub diagnostics: bool,
    /// None by default.
    pub stop_at: Option<RawStopAt>,
    /// In microseconds; none by default.
    pub max_duration_micros: Option<i64>,
    /// From one checkpoint to the next, in microseconds; `None`: ten seconds.
    pub checkpoint_interval_micros: Option<i64>,
    /// None by default.
    pub frozen_layers: Vec<i64>,
}

impl RawTraining {
    /// A training with every default.
    pub fn new(inputs: RawMatrix, targets: RawMatrix) -> Self {
        Self {
            rows: RawRows { inputs, targets, weights: None, mask: None },
            validation: RawValidation::None,
            loss: None,
            reduction: Reduction::Mean,
            optimizer: None,
            schedule: RawSchedule::default(),
            epochs: None,
            batch_size: None,
            shuffle: None,
            seed: None,
            early_stopping: None,
            report_every: None,
            start: Start::Latest,
            cancel_on_disconnect: false,
            l1: None,
            l2: None,
            max_gradient_norm: None,
            max_gradient_value: None,
            class_weights: None,
            metrics: Vec::new(),
            top_k: None,
            diagnostics: false,
            stop_at: None,
            max_duration_micros: None,
            checkpoint_interval_micros: None,
            frozen_layers: Vec::new(),
        }
    }

    /// Checks everything against the network that will be trained, and fills in every default. `drawn_seed` is used where
    /// the request has none.
    pub fn check(mut self, architecture: &Architecture, drawn_seed: u64) -> Result<(Settings, TrainingData), Faults> {
        let mut faults = Faults::new();
        let at = At::ROOT;
        let output = architecture.output_layer();
        let loss = Loss::choose(self.loss.clone(), output.activation, output.units, at.field("loss"), &mut faults);
        let numbers = self.check_numbers(&mut faults);
        let regularization = self.check_regularization(architecture, &mut faults);
        // Without a loss nothing more can be judged, and its fault is told.
        let Some(loss) = loss else { return Err(faults) };
        let is_perceptron = loss == Loss::Perceptron;
        let raw_optimizer = self.optimizer.unwrap_or(RawOptimizer::default_for(is_perceptron));
        let optimizer = raw_optimizer.check(is_perceptron, at.field("optimizer"), &mut faults);
        // Taken out: they may be most of the memory, and nothing below looks at them as they came.
        let raw_rows = mem::replace(&mut self.rows, RawRows::empty());
        let raw_validation = mem::replace(&mut self.validation, RawValidation::None);
        let rows = raw_rows.check(&loss, architecture, at, &mut faults);
        let validation = check_validation(raw_validation, rows.as_ref(), &loss, architecture, &mut faults);
        let checked = (|| {
            let (rows, numbers, optimizer) = (rows?, numbers?, optimizer?);
            let (validation, validation_rows) = validation?;
            let regularization = regularization?;
            let data = TrainingData { training: rows, validation: validation_rows };
            let measures = self.check_measures(&loss, &data, architecture, &mut faults);
            let class_weights = match &measures {
                None => Some(None),
                Some(it) => self.check_class_weights(&data, it.task, architecture, &mut faults),
            };
            let count = data.training.inputs.rows();
            let batch_size = numbers.batch_size.unwrap_or_else(|| default_batch_size(&loss, &optimizer, count));
            let (measures, class_weights) = (measures?, class_weights?);
            let mut settings = Settings {
                loss,
                reduction: self.reduction,
                optimizer,
                epochs: 0,
                batch_size,
                shuffle: self.shuffle.unwrap_or(true),
                seed: self.seed.unwrap_or(drawn_seed),
                early_stopping: measures.early_stopping,
                report_every: numbers.report_every,
                start: self.start,
                validation,
                rows: count as u64,
                cancel_on_disconnect: self.cancel_on_disconnect,
                is_seed_drawn: self.seed.is_none(),
                schedule: Default::default(),
                l1: regularization.l1,
                l2: regularization.l2,
                max_gradient_norm: regularization.max_gradient_norm,
                max_gradient_value: regularization.max_gradient_value,
                class_weights,
                has_sample_weights: data.training.weights.is_some(),
                has_target_mask: data.training.mask.is_some(),
                metrics: measures.metrics,
                top_k: measures.top_k,
                diagnostics: self.diagnostics,
                stop_at: measures.stop_at,
                max_duration_micros: numbers.max_duration_micros,
                checkpoint_interval_micros: numbers.checkpoint_interval_micros,
                frozen_layers: regularization.frozen_layers,
                task: measures.task,
            };
            settings.epochs = numbers.epochs.unwrap_or_else(|| default_epochs(&settings));
            let (epochs, rate) = (settings.epochs, optimizer.learning_rate());
            settings.schedule = self.schedule.check(epochs, rate, at.field("schedule"), &mut faults)?;
            combinations::check(&settings, architecture, self.batch_size.is_some(), &mut faults)?;
            Some((settings, data))
        })();
        faults.finish(checked)
    }

    fn check_numbers(&self, faults: &mut Faults) -> Option<Numbers> {
        let mut check = |name: &'static str, value: Option<i64>, max: u32| match value {
            None => Some(None),
            Some(value) => {
                faults.whole(At::ROOT.field(name), value, 1..=i64::from(max)).map(|value| Some(value as u32))
            }
        };
        let epochs = check("epochs", self.epochs, limits::EPOCHS_MAX);
        let batch_size = check("batch_size", self.batch_size, limits::BATCH_ROWS_MAX);
        let report_every = check("report_every", self.report_every, limits::EPOCHS_MAX);
        let mut time = |name, micros: Option<i64>| match micros {
            Some(micros) if micros <= 0 => {
                faults.add(At::ROOT.field(name), "must be longer than nothing, such as \"60s\"");
                None
            }
            other => Some(other.map(|micros| micros as u64)),
        };
        let max_duration_micros = time("max_duration", self.max_duration_micros);
        let interval = time("checkpoint_interval", self.checkpoint_interval_micros);
        Some(Numbers {
            epochs: epochs?,
            batch_size: batch_size?,
            report_every: report_every?.unwrap_or(1),
            max_duration_micros: max_duration_micros?,
            checkpoint_interval_micros: interval?.unwrap_or(limits::CHECKPOINT_INTERVAL_MICROS),
        })
    }

    fn check_regularization(&self, architecture: &Architecture, faults: &mut Faults) -> Option<Regularization> {
        let mut penalty = |name, value: Option<f64>| {
            faults.real(At::ROOT.field(name), value.unwrap_or(0.0), RealRange::closed(0.0, 1e30))
        };
        let (l1, l2) = (penalty("l1", self.l1), penalty("l2", self.l2));
        let mut bound = |name, value: Option<f64>| match value {
            None => Some(None),
            Some(value) => faults.real(At::ROOT.field(name), value, RealRange::MAGNITUDE).map(Some),
        };
        let max_gradient_norm = bound("max_gradient_norm", self.max_gradient_norm);
        let max_gradient_value = bound("max_gradient_value", self.max_gradient_value);
        let frozen_layers = self.check_frozen_layers(architecture, faults);
        Some(Regularization {
            l1: l1?,
            l2: l2?,
            max_gradient_norm: max_gradient_norm?,
            max_gradient_value: max_gradient_value?,
            frozen_layers: frozen_layers?,
        })
    }

    fn check_frozen_layers(&self, architecture: &Architecture, faults: &mut Faults) -> Option<Vec<u32>> {
        let at = At::ROOT.field("frozen_layers");
        let last = architecture.layers().len() - 1;
        if self.frozen_layers.len() > last + 1 {
            let count = self.frozen_layers.len();
            faults.add(at, format!("may name each of the {} layers once, but has {count}", last + 1));
            return None;
        }
        let checked: Vec<Option<i64>> = (self.frozen_layers.iter().enumerate())
            .map(|(place, &layer)| faults.whole(at.index(place), layer, 0..=last as i64))
            .collect();
        let frozen: Vec<u32> = checked.into_iter().map(|layer| layer.map(|it| it as u32)).collect::<Option<_>>()?;
        for (place, layer) in frozen.iter().enumerate() {
            if frozen[..place].contains(layer) {
                faults.add(at.index(place), format!("names layer {layer} a second time"));
                return None;
            }
        }
        if architecture.trainable_segments(&frozen).is_empty() {
            faults.add(at, "leaves nothing to train: every layer is frozen, by this or by the model; free one of them");
            return None;
        }
        Some(frozen)
    }

    /// `Some(None)` where none were asked for.
    fn check_class_weights(
        &self,
        data: &TrainingData,
        task: Task,
        architecture: &Architecture,
        faults: &mut Faults,
    ) -> Option<Option<ClassWeights>> {
        let Some(raw) = &self.class_weights else { return Some(None) };
        let at = At::ROOT.field("class_weights");
        let classes_of = |rows: &Rows| rows.targets.class_count(architecture.output_width(), task);
        // The loss of validation rows is weighted, too.
        let are_validated = data.validation.as_ref().is_none_or(|rows| classes_of(rows).is_some());
        let Some(classes) = classes_of(&data.training).filter(|_| are_validated) else {
            faults.add(
                at,
                "are for rows of one class each: softmax with class indices, or one unit that tells two classes apart; use \
                 sample_weights instead (for several sigmoid units, positive_weights of binary_cross_entropy)",
            );
            return None;
        };
        if raw.balanced && !raw.weights.is_empty() {
            faults.add(at, "has both `weights` and `balanced`; send one of them");
            return None;
        }
        if raw.balanced {
            return Some(Some(ClassWeights::Balanced));
        }
        let at = at.field("weights");
        if raw.weights.len() != classes {
            faults.add(at, format!("needs {classes} weights, one a class, but has {}", raw.weights.len()));
            return None;
        }
        let mut check = |(index, &weight): (usize, &f64)| {
            let is_sound = weight == 0.0 || RealRange::MAGNITUDE.contains(weight);
            if !is_sound {
                let message = format!("must be 0 or {}, but is {}", RealRange::MAGNITUDE, short(weight));
                faults.add(at.index(index), message);
            }
            // −0 is 0.
            is_sound.then_some(weight.abs())
        };
        let sound: Vec<Option<f64>> = raw.weights.iter().enumerate().map(&mut check).collect();
        let weights: Vec<f64> = sound.into_iter().collect::<Option<_>>()?;
        let sets = [("rows", Some(&data.training)), ("validation rows", data.validation.as_ref())];
        for (name, rows) in sets.into_iter().filter_map(|(name, rows)| Some((name, rows?))) {
            if !has_counting_row(rows, &weights) {
                let which = if rows.weights.is_some() { ", but for those with a sample weight of 0" } else { "" };
                let message = format!("are 0 for every class that there are {name} of{which}: no row would count");
                faults.add(at, message);
                return None;
            }
        }
        Some(Some(ClassWeights::Given(weights)))
    }
}

/// Whether a row of some class counts: neither its class's weight nor its own is 0.
fn has_counting_row(rows: &Rows, class_weights: &[f64]) -> bool {
    let counts = |row: usize| rows.weights.as_ref().is_none_or(|weights| weights.get(row, 0) > 0.0);
    rows.targets.classes().enumerate().any(|(row, class)| class_weights[class] > 0.0 && counts(row))
}

struct Numbers {
    epochs: Option<u32>,
    batch_size: Option<u32>,
    report_every: u32,
    max_duration_micros: Option<u64>,
    checkpoint_interval_micros: u64,
}

struct Regularization {
    l1: f64,
    l2: f64,
    max_gradient_norm: Option<f64>,
    max_gradient_value: Option<f64>,
    frozen_layers: Vec<u32>,
}

fn check_validation(
    raw: RawValidation,
    rows: Option<&Rows>,
    loss: &Loss,
    architecture: &Architecture,
    faults: &mut Faults,
) -> Option<(Validation, Option<Rows>)> {
    match raw {
        RawValidation::None => Some((Validation::None, None)),
        RawValidation::Fraction(fraction) => {
            let at = At::ROOT.field("validation_fraction");
            let fraction = faults.real(at, fraction, RealRange::open(0.0, 1.0))?;
            if rows?.inputs.rows() < 2 {
                faults.add(at, "needs at least two rows: one to learn from and one to validate on");
                return None;
            }
            Some((Validation::Fraction(fraction), None))
        }
        RawValidation::Given(raw) => {
            let rows = raw.check(loss, architecture, At::ROOT.field("validation_data"), faults)?;
            Some((Validation::Given { rows: rows.inputs.rows() as u64 }, Some(rows)))
        }
    }
}

/// Rosenblatt's rule goes row by row; some optimizers take all rows at once.
fn default_batch_size(loss: &Loss, optimizer: &Optimizer, rows: usize) -> u32 {
    if optimizer.is_full_batch_only() {
        rows as u32
    } else if *loss == Loss::Perceptron {
        1
    } else {
        limits::BATCH_ROWS_DEFAULT
    }
}

/// max(20, ⌈2000 ÷ steps an epoch⌉)
fn default_epochs(settings: &Settings) -> u32 {
    let steps = settings.training_rows().div_ceil(u64::from(settings.batch_size));
    let epochs = u64::from(limits::STEPS_DEFAULT).div_ceil(steps);
    limits::EPOCHS_DEFAULT_MIN.max(epochs as u32)
}

#[cfg(test)]
mod tests;
