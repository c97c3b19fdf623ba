//! The two element types behind one face, in the domain's matrices.

use std::ops::Range;

use super::aligned::copy_with_room;
use super::element::Element;
use super::gradients::{self, GradientError, Gradients};
use super::loss::Objective;
use super::network::Network;
use super::scaler;
use super::state::{StateError, Step, TrainerEnd, TrainerState};
use super::trainer::{Trainer, TrainerInput};
use super::unchecked::team::Workers;
use crate::domain::{
    Architecture, ElementType, EpochReport, FittedPreprocessing, Loss, Matrix, Reduction, Scaler, Targets, Values,
    ValuesRef,
};

/// A training in the element type of its network.
pub enum AnyTrainer {
    /// In float32.
    F32(Trainer<f32>),
    /// In float64.
    F64(Trainer<f64>),
}

macro_rules! each {
    ($any:expr, $it:ident => $result:expr) => {
        match $any {
            Self::F32($it) => $result,
            Self::F64($it) => $result,
        }
    };
}

impl AnyTrainer {
    /// See [`Trainer::new`].
    pub fn new(input: TrainerInput) -> Self {
        match input.architecture.element_type() {
            ElementType::Float32 => Self::F32(Trainer::new(input)),
            ElementType::Float64 => Self::F64(Trainer::new(input)),
        }
    }

    /// See [`Trainer::step_batch`].
    pub fn step_batch(&mut self) -> Step {
        each!(self, it => it.step_batch())
    }

    /// See [`Trainer::epoch`].
    pub fn epoch(&self) -> u32 {
        each!(self, it => it.epoch())
    }

    /// See [`Trainer::last_epoch`].
    pub fn last_epoch(&self) -> u32 {
        each!(self, it => it.last_epoch())
    }

    /// See [`Trainer::rows_done_in_epoch`].
    pub fn rows_done_in_epoch(&self) -> u64 {
        each!(self, it => it.rows_done_in_epoch())
    }

    /// See [`Trainer::training_rows`].
    pub fn training_rows(&self) -> u64 {
        each!(self, it => it.training_rows())
    }

    /// See [`Trainer::set_workers`].
    pub fn set_workers(&mut self, workers: Workers) {
        each!(self, it => it.set_workers(workers));
    }

    /// See [`Trainer::parameters`].
    pub fn parameters(&self) -> Values {
        each!(self, it => values(it.parameters()))
    }

    /// See [`Trainer::last_whole_epoch`].
    pub fn last_whole_epoch(&self) -> Option<(Values, EpochReport)> {
        each!(self, it => it.last_whole_epoch().map(|(parameters, report)| (values(parameters), report.clone())))
    }

    /// Whether there is a [last whole epoch](Trainer::last_whole_epoch).
    pub fn has_whole_epoch(&self) -> bool {
        each!(self, it => it.last_whole_epoch().is_some())
    }

    /// See [`Trainer::result_parameters`] and [`Trainer::result_report`]; before the first epoch's end an empty report.
    pub fn result(&self) -> (Values, EpochReport) {
        each!(self, it => (values(it.result_parameters()), it.result_report().cloned().unwrap_or_default()))
    }

    /// See [`Trainer::report`].
    pub fn report(&self) -> Option<&EpochReport> {
        each!(self, it => it.report())
    }

    /// See [`Trainer::best_report`].
    pub fn best_report(&self) -> Option<EpochReport> {
        each!(self, it => it.best_report().cloned())
    }

    /// The network after the last whole epoch; before the first, as it is. For live predictions.
    pub fn network(&self) -> AnyNetwork {
        let network = match self {
            Self::F32(it) => Typed::F32(Network::new(it.architecture(), it.whole_parameters())),
            Self::F64(it) => Typed::F64(Network::new(it.architecture(), it.whole_parameters())),
        };
        AnyNetwork { architecture: each!(self, it => it.architecture().clone()), network }
    }

    /// See [`Trainer::stamp`].
    pub fn stamp(&mut self, elapsed_micros: u64, samples_per_second: f64) {
        each!(self, it => it.stamp(elapsed_micros, samples_per_second));
    }

    /// See [`Trainer::stamp_new`].
    pub fn stamp_new(&mut self, elapsed_micros: u64, samples_per_second: f64) {
        each!(self, it => it.stamp_new(elapsed_micros, samples_per_second));
    }

    /// See [`Trainer::preprocessing`].
    pub fn preprocessing(&self) -> Option<FittedPreprocessing> {
        each!(self, it => it.preprocessing().cloned())
    }

    /// See [`Trainer::first_faulty_row`].
    pub fn first_faulty_row(&mut self) -> Option<(u32, &'static str)> {
        each!(self, it => it.first_faulty_row())
    }

    /// See [`Trainer::state`].
    pub fn state(&self) -> TrainerState {
        each!(self, it => it.state())
    }

    /// See [`Trainer::state_without_vectors`].
    pub fn state_without_vectors(&self) -> TrainerState {
        each!(self, it => it.state_without_vectors())
    }

    /// See [`Trainer::vectors`].
    pub fn vectors(&self) -> Vec<ValuesRef<'_>> {
        match self {
            Self::F32(it) => it.vectors().into_iter().map(ValuesRef::F32).collect(),
            Self::F64(it) => it.vectors().into_iter().map(ValuesRef::F64).collect(),
        }
    }

    /// See [`Trainer::into_end`].
    pub fn into_end(self) -> TrainerEnd {
        each!(self, it => it.into_end())
    }

    /// See [`Trainer::restore`].
    pub fn restore(&mut self, state: TrainerState) -> Result<(), StateError> {
        each!(self, it => it.restore(state))
    }

    /// See [`Trainer::continue_from`].
    pub fn continue_from(
        &mut self,
        state: TrainerState,
        is_same_measure: bool,
        is_same_order: bool,
    ) -> Result<(), StateError> {
        each!(self, it => it.continue_from(state, is_same_measure, is_same_order))
    }
}

/// Bytes of the buffers that a caller's own loss takes on a network; 0 for other losses.
pub fn expression_bytes(architecture: &Architecture, loss: &Loss) -> usize {
    Objective::new(architecture, loss, Reduction::Mean).expression_bytes()
}

fn values<T: Element>(values: &[T]) -> Values {
    T::values_from(copy_with_room(values))
}

/// A network, with its weights, in its element type. Cheap to clone and to share.
#[derive(Clone, Debug)]
pub struct AnyNetwork {
    architecture: Architecture,
    network: Typed,
}

#[derive(Clone, Debug)]
enum Typed {
    F32(Network<f32>),
    F64(Network<f64>),
}

impl AnyNetwork {
    /// A network with its parameters, flat in the order of [`Architecture::layout`].
    ///
    /// # Panics
    /// Where there are more or fewer of them than the architecture has: a bug of ours.
    pub fn new(architecture: &Architecture, parameters: Values) -> Self {
        let network = match architecture.element_type() {
            ElementType::Float32 => Typed::F32(Network::new(architecture, f32::vec_from(parameters))),
            ElementType::Float64 => Typed::F64(Network::new(architecture, f64::vec_from(parameters))),
        };
        Self { architecture: architecture.clone(), network }
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Bytes of its parameters.
    pub fn size_bytes(&self) -> usize {
        self.architecture.parameter_count() * self.architecture.element_type().size_bytes()
    }

    /// The parameters, copied.
    pub fn parameters(&self) -> Values {
        match &self.network {
            Typed::F32(network) => values(network.parameters()),
            Typed::F64(network) => values(network.parameters()),
        }
    }

    /// The outputs `[rows, units]` for `inputs` `[rows, input_width]`, both in the caller's units: `fitted` scales what goes
    /// in and undoes the scaling of what comes out. A row's bits do not depend on the other rows.
    pub fn predict(&self, inputs: &Matrix, fitted: Option<&FittedPreprocessing>) -> Matrix {
        self.predict_with_layers(inputs, 0..inputs.rows(), fitted, &[], false).0
    }

    /// The same for a range of the rows, with what some layers (by index) made of them: before their activation, or after. The last layer's
    /// are as the network computes them, not in the caller's units.
    pub fn predict_with_layers(
        &self,
        inputs: &Matrix,
        rows: Range<usize>,
        fitted: Option<&FittedPreprocessing>,
        layers: &[usize],
        before_activation: bool,
    ) -> (Matrix, Vec<Matrix>) {
        match &self.network {
            Typed::F32(network) => predict(network, inputs, rows, fitted, layers, before_activation),
            Typed::F64(network) => predict(network, inputs, rows, fitted, layers, before_activation),
        }
    }

    /// The loss of a batch and its gradients, as a training step would follow them: the batch is scaled by `fitted`, and the
    /// loss is that of the scaled targets. The gradient of the inputs is with respect to the inputs as they were given.
    pub fn gradients(
        &self,
        inputs: &Matrix,
        targets: &Targets,
        loss: &Loss,
        reduction: Reduction,
        fitted: Option<&FittedPreprocessing>,
    ) -> Result<BatchGradients, GradientError> {
        let objective = (loss, reduction);
        match &self.network {
            Typed::F32(network) => batch_gradients(&self.architecture, network, inputs, targets, objective, fitted),
            Typed::F64(network) => batch_gradients(&self.architecture, network, inputs, targets, objective, fitted),
        }
    }
}

/// What ComputeGradients tells: see [`Gradients`].
#[derive(Clone, Debug, PartialEq)]
pub struct BatchGradients {
    /// The loss, reduced as asked.
    pub loss: f64,
    /// The loss of each row alone, reduced likewise.
    pub row_losses: Vec<f64>,
    /// δ of each layer, first to last: ∂loss/∂z, `[rows, units]`, z being what goes into its activation.
    pub deltas: Vec<Matrix>,
    /// ∂loss/∂W and ∂loss/∂b of all layers, flat in the order of [`Architecture::layout`].
    pub parameters: Values,
    /// ∂loss/∂x, `[rows, input_width]`.
    pub inputs: Matrix,
}

fn predict<T: Element>(
    network: &Network<T>,
    inputs: &Matrix,
    rows: Range<usize>,
    fitted: Option<&FittedPreprocessing>,
    wanted: &[usize],
    before_activation: bool,
) -> (Matrix, Vec<Matrix>) {
    let places = rows.start * inputs.columns()..rows.end * inputs.columns();
    let rows = rows.len();
    let run = |values: &[T]| network.predict_with_layers(values, rows, wanted, before_activation);
    let (mut outputs, layers) = match (fitted.and_then(|it| it.inputs.as_ref()), T::slice_of(inputs.values())) {
        (None, Some(values)) => run(&values[places]),
        (scaler, _) => run(&scaled(inputs.values().slice(places), scaler)),
    };
    if let Some(scaler) = fitted.and_then(|it| it.targets.as_ref()) {
        scaler::invert(scaler, &mut outputs);
    }
    let matrix = |values: Vec<T>| Matrix::from_values(rows, values.len() / rows, T::values_from(values));
    (matrix(outputs), layers.into_iter().map(matrix).collect())
}

fn scaled<T: Element>(values: Values, scaler: Option<&Scaler>) -> Vec<T> {
    let mut values = T::vec_from(values);
    if let Some(scaler) = scaler {
        scaler::apply(scaler, &mut values);
    }
    values
}

fn batch_gradients<T: Element>(
    architecture: &Architecture,
    network: &Network<T>,
    inputs: &Matrix,
    targets: &Targets,
    (loss, reduction): (&Loss, Reduction),
    fitted: Option<&FittedPreprocessing>,
) -> Result<BatchGradients, GradientError> {
    let rows = inputs.rows();
    let input_scaler = fitted.and_then(|it| it.inputs.as_ref());
    let scaled_targets = match (targets, fitted.and_then(|it| it.targets.as_ref())) {
        (Targets::Values(matrix), Some(scaler)) => {
            let values = T::values_from(scaled(matrix.values().clone(), Some(scaler)));
            Some(Targets::Values(Matrix::from_values(matrix.rows(), matrix.columns(), values)))
        }
        (Targets::Values(_), None) | (Targets::Classes(_), _) => None,
    };
    let targets = scaled_targets.as_ref().unwrap_or(targets);
    let inputs = scaled(inputs.values().clone(), input_scaler);
    let gradients = gradients::compute(architecture, network.parameters(), &inputs, targets, loss, reduction)?;
    let Gradients { loss, row_losses, deltas, parameters, inputs: mut input_gradient } = gradients;
    if let Some(scaler) = input_scaler {
        scaler::apply_to_gradient(scaler, &mut input_gradient);
    }
    let deltas = deltas.into_iter().zip(architecture.layers());
    Ok(BatchGradients {
        loss,
        row_losses,
        deltas: deltas.map(|(delta, layer)| Matrix::from_values(rows, layer.units, T::values_from(delta))).collect(),
        parameters: T::values_from(parameters),
        inputs: Matrix::from_values(rows, architecture.input_width(), T::values_from(input_gradient)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Activation;
    use crate::engine::testing::{network, uniform};

    fn regressor(element_type: ElementType) -> AnyNetwork {
        let architecture = network(element_type, 2, &[(3, Activation::Tanh), (1, Activation::Identity)]);
        let parameters = Values::F64(uniform(architecture.parameter_count(), 4));
        AnyNetwork::new(&architecture, parameters.into_element_type(element_type))
    }

    fn scalers() -> FittedPreprocessing {
        let inputs = Scaler { shift: vec![1.0, -2.0], scale: vec![2.0, 4.0] };
        FittedPreprocessing { inputs: Some(inputs), targets: Some(Scaler { shift: vec![10.0], scale: vec![5.0] }) }
    }

    fn column(values: Vec<f64>) -> Matrix {
        Matrix::from_values(values.len(), 1, Values::F64(values))
    }

    #[test]
    fn predictions_come_back_in_the_targets_own_unit() {
        for element_type in [ElementType::Float32, ElementType::Float64] {
            let network = regressor(element_type);
            let matrix =
                |values: Vec<f64>| Matrix::from_values(1, 2, Values::F64(values).into_element_type(element_type));
            let plain = network.predict(&matrix(vec![0.5, 0.25]), None);
            let scaled = network.predict(&matrix(vec![2.0, -1.0]), Some(&scalers()));
            assert_eq!(plain.values().element_type(), element_type);
            assert!((scaled.get(0, 0) - (plain.get(0, 0) * 5.0 + 10.0)).abs() < 1e-5);
        }
    }

    #[test]
    fn the_inputs_gradient_is_that_of_the_inputs_as_given() {
        let network = regressor(ElementType::Float64);
        let gradients = |x: f64| {
            let inputs = Matrix::from_values(1, 2, Values::F64(vec![x, 3.0]));
            let targets = Targets::Values(column(vec![7.0]));
            network.gradients(&inputs, &targets, &Loss::SquaredError, Reduction::Sum, Some(&scalers())).unwrap()
        };
        let slope = (gradients(0.5 + 1e-5).loss - gradients(0.5 - 1e-5).loss) / 2e-5;
        let result = gradients(0.5);
        assert!((slope - result.inputs.get(0, 0)).abs() < 1e-8);
        assert_eq!(result.deltas.iter().map(Matrix::columns).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(result.parameters.len(), 13);
    }

    #[test]
    fn a_network_knows_its_size() {
        assert_eq!(regressor(ElementType::Float32).size_bytes(), 13 * 4);
        assert_eq!(regressor(ElementType::Float64).size_bytes(), 13 * 8);
    }
}
