use proptest::prelude::*;

use super::*;
use crate::domain::{ElementType, Matrix, RawArchitecture, RawBatchNormalization, TargetKind, Values};
use crate::engine::Network;
use crate::engine::dropout::{self, Moment};
use crate::engine::testing::{ACTIVATIONS, losses, losses_of, network, network_with, uniform};

#[derive(Clone)]
struct Case {
    architecture: Architecture,
    parameters: Vec<f64>,
    inputs: Vec<f64>,
    targets: Targets,
    loss: Loss,
    reduction: Reduction,
}

impl Case {
    fn gradients(&self) -> Gradients<f64> {
        self.gradients_at(&self.parameters, &self.inputs)
    }

    fn gradients_at(&self, parameters: &[f64], inputs: &[f64]) -> Gradients<f64> {
        compute(&self.architecture, parameters, inputs, &self.targets, &self.loss, self.reduction).unwrap()
    }

    /// Where the derivatives have kinks, and differences tell no slope: pre-activations at 0 (and ±3 for the hard sigmoid),
    /// outputs where the loss has one. Losses with a logarithm bend too much near 0.
    fn is_smooth(&self) -> bool {
        self.pre_activations().iter().all(|z| z.abs() > 1e-3 && (z.abs() - 3.0).abs() > 1e-3)
            && self.outputs().iter().enumerate().all(|(index, &output)| self.is_smooth_at(index, output))
    }

    fn pre_activations(&self) -> Vec<f64> {
        let plan = Plan::new(&self.architecture);
        let rows = self.targets.rows();
        let objective = Objective::new(&self.architecture, &self.loss, self.reduction);
        let mut all = Vec::new();
        for depth in 1..=plan.layers.len() {
            let mut plan = plan.clone();
            plan.layers.truncate(depth);
            let mut workspace = Workspace::new(&plan, &objective, rows);
            let tile = Tile { rows, inputs: Some(&self.inputs) };
            forward(&plan, &self.parameters, &mut workspace.activations, tile, Pass::Gradients);
            all.extend_from_slice(workspace.outputs(rows, plan.output_layer().layout.units));
        }
        all
    }

    fn outputs(&self) -> Vec<f64> {
        let rows = self.targets.rows();
        let mut outputs = self.pre_activations();
        let last = outputs.split_off(outputs.len() - rows * self.architecture.output_width());
        let mut last = last;
        let layer = self.architecture.output_layer();
        crate::engine::activation::activate(layer.activation, layer.units, &mut last);
        last
    }

    fn is_smooth_at(&self, index: usize, output: f64) -> bool {
        let Targets::Values(targets) = &self.targets else { return true };
        let y = targets.values().get(index);
        let distance = match &self.loss {
            Loss::AbsoluteError | Loss::Quantile { .. } => (output - y).abs(),
            Loss::Huber { delta } => ((output - y).abs() - delta).abs(),
            Loss::Hinge => (1.0 - y * output).abs(),
            Loss::SquaredHinge => (1.0 - y * output).abs() * 100.0,
            Loss::Poisson | Loss::GammaDeviance | Loss::TweedieDeviance { .. } | Loss::Custom { .. } => {
                output.abs() / 100.0
            }
            _ => f64::INFINITY,
        };
        distance > 1e-3
    }
}

/// How closely to agree: |numeric − analytic| ≤ 1e-9·max(1, |L|) + 1e-6·max(|numeric|, |analytic|), h = 1e-5.
fn check_slopes(at: &[f64], analytic: &[f64], loss: f64, loss_at: impl Fn(&[f64]) -> f64) -> Result<(), String> {
    let h = 1e-5;
    let mut moved = at.to_vec();
    for (index, &analytic) in analytic.iter().enumerate() {
        moved[index] = at[index] + h;
        let above = loss_at(&moved);
        moved[index] = at[index] - h;
        let numeric = (above - loss_at(&moved)) / (2.0 * h);
        moved[index] = at[index];
        let bound = 1e-9 * loss.abs().max(1.0) + 1e-6 * numeric.abs().max(analytic.abs());
        if (numeric - analytic).abs() > bound {
            return Err(format!("element {index}: numeric {numeric:e}, analytic {analytic:e}"));
        }
    }
    Ok(())
}

/// The loss is the mean, or the sum, of the rows' own.
fn check_row_losses(case: &Case, gradients: &Gradients<f64>) -> Result<(), String> {
    let sum: f64 = gradients.row_losses.iter().sum();
    let reduced = if case.reduction == Reduction::Mean { sum / gradients.row_losses.len() as f64 } else { sum };
    let is_close = (reduced - gradients.loss).abs() <= 1e-12 * gradients.loss.abs().max(1.0);
    let is_whole = gradients.row_losses.len() == case.targets.rows();
    if is_close && is_whole { Ok(()) } else { Err(format!("{:?} of {}", gradients.row_losses, gradients.loss)) }
}

fn check(case: &Case) -> Result<(), String> {
    let gradients = case.gradients();
    check_row_losses(case, &gradients)?;
    let trainable = case.architecture.trainable_count();
    let statistics = &case.parameters[trainable..];
    check_slopes(&case.parameters[..trainable], &gradients.parameters[..trainable], gradients.loss, |parameters| {
        case.gradients_at(&[parameters, statistics].concat(), &case.inputs).loss
    })?;
    check_slopes(&case.inputs, &gradients.inputs, gradients.loss, |inputs| {
        case.gradients_at(&case.parameters, inputs).loss
    })
}

fn targets(loss: &Loss, last: Activation, rows: usize, units: usize, seed: u64) -> Targets {
    let draws: Vec<f64> = uniform(rows * units, seed);
    let class = |row: usize| ((draws[row] + 1.0) / 2.0 * units as f64) as u32;
    let classes = || Targets::Classes((0..rows).map(class).collect());
    let values = |value: &dyn Fn(f64) -> f64| {
        Targets::Values(Matrix::from_values(rows, units, Values::F64(draws.iter().map(|&x| value(x)).collect())))
    };
    match loss.target_kind(last) {
        TargetKind::Classes => classes(),
        TargetKind::Distributions | TargetKind::ClassesOrNumbers if seed.is_multiple_of(2) => classes(),
        TargetKind::Distributions => {
            let rows_of = |row: &[f64]| {
                let sum: f64 = row.iter().map(|x| x.abs()).sum();
                row.iter().map(|x| x.abs() / sum).collect::<Vec<f64>>()
            };
            let values = draws.chunks(units).flat_map(rows_of).collect();
            Targets::Values(Matrix::from_values(rows, units, Values::F64(values)))
        }
        TargetKind::Numbers | TargetKind::ClassesOrNumbers => values(&|x| x),
        TargetKind::Bits => values(&|x| f64::from(x > 0.0)),
        TargetKind::Signs => values(&f64::signum),
        TargetKind::NonNegative => values(&f64::abs),
        TargetKind::Positive => values(&|x| x.abs() + 0.1),
    }
}

const ROWS: usize = 4;
const UNITS: usize = 3;
const WIDTH: usize = 3;

fn case_with(
    hidden: &[(usize, Activation)],
    last: Activation,
    loss: &Loss,
    reduction: Reduction,
    seed: u64,
    change: impl FnOnce(&mut RawArchitecture),
) -> Case {
    let layers: Vec<_> = hidden.iter().copied().chain([(UNITS, last)]).collect();
    let architecture = network_with(ElementType::Float64, WIDTH, &layers, change);
    let mut parameters: Vec<f64> = uniform(architecture.parameter_count(), seed);
    // Variances are positive.
    parameters[architecture.trainable_count()..].iter_mut().for_each(|statistic| *statistic = statistic.abs() + 0.1);
    Case {
        parameters,
        inputs: uniform(ROWS * WIDTH, seed + 1),
        targets: targets(loss, last, ROWS, UNITS, seed + 2),
        architecture,
        loss: loss.clone(),
        reduction,
    }
}

fn case(hidden: &[(usize, Activation)], last: Activation, loss: &Loss, reduction: Reduction, seed: u64) -> Case {
    case_with(hidden, last, loss, reduction, seed, |_| {})
}

fn can_be_hidden(activation: Activation) -> bool {
    activation.has_gradient() && !activation.is_over_rows()
}

/// e^e^z bends so much that a difference of 1e-5 tells its slope no longer.
fn is_steep(hidden: Activation, last: Activation, loss: &Loss, depth: usize) -> bool {
    let is_log = matches!(loss, Loss::Poisson | Loss::GammaDeviance | Loss::TweedieDeviance { .. });
    hidden == Activation::Exponential && depth > 0 && (depth > 1 || last == Activation::Exponential || is_log)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]

    /// Every hidden activation × every output activation × each of its losses; the reductions take turns.
    #[test]
    fn gradients_are_the_slopes_of_the_loss(seed in 0_u64..1_000_000, width in 1_usize..5, depth in 0_usize..3) {
        let mut checked = 0;
        for last in ACTIVATIONS {
            for (index, loss) in losses_of(last).iter().enumerate() {
                for hidden in ACTIVATIONS.into_iter().filter(|&it| can_be_hidden(it)) {
                    let reduction =
                        if (seed as usize + index).is_multiple_of(2) { Reduction::Mean } else { Reduction::Sum };
                    let case = case(&vec![(width, hidden); depth], last, loss, reduction, seed);
                    if case.is_smooth() && !is_steep(hidden, last, loss, depth) {
                        let result = check(&case);
                        prop_assert!(result.is_ok(), "{hidden} {last} {loss:?} {reduction:?}: {result:?}");
                        checked += 1;
                    }
                }
            }
        }
        // What goes into the first layer's activations is the same for all of them: one kink there leaves none to check.
        prop_assume!(checked > 300);
    }

    /// Tile normalization in every layer and behind every activation, layers without bias, and frozen layers.
    #[test]
    fn gradients_pass_batch_normalization(seed in 0_u64..1_000_000, width in 1_usize..5) {
        for activation in ACTIVATIONS.into_iter().filter(|&it| can_be_hidden(it) && it != Activation::Exponential) {
            for frozen in [None, Some(0), Some(1)] {
                let hidden = [(width, activation), (4, activation)];
                let loss = Loss::SquaredError;
                let case = case_with(&hidden, Activation::Identity, &loss, Reduction::Mean, seed, |raw| {
                    for (index, layer) in raw.layers.iter_mut().flatten().enumerate() {
                        layer.batch_normalization = Some(RawBatchNormalization { momentum: None, epsilon: Some(0.1) });
                        layer.frozen = frozen == Some(index);
                    }
                    raw.layers[2].as_mut().unwrap().batch_normalization = None;
                    raw.layers[2].as_mut().unwrap().bias = Some(false);
                });
                if case.is_smooth() {
                    let result = check(&case);
                    prop_assert!(result.is_ok(), "{activation} frozen {frozen:?}: {result:?}");
                }
            }
        }
    }

    /// With the masks held, dropped inputs and outputs are a function like any other.
    #[test]
    fn gradients_pass_dropout(seed in 0_u64..1_000_000) {
        for activation in ACTIVATIONS.into_iter().filter(|&it| can_be_hidden(it)) {
            let case = case_with_dropout(activation, seed);
            if !is_smooth_when_dropped(&case, seed) {
                continue;
            }
            let (loss, gradients) = dropped_gradients(&case, &case.parameters, seed);
            let loss_at = |parameters: &[f64]| dropped_gradients(&case, parameters, seed).0;
            let result = check_slopes(&case.parameters, &gradients, loss, loss_at);
            prop_assert!(result.is_ok(), "{activation}: {result:?}");
        }
    }
}

/// Dropped inputs, and dropped outputs of two hidden layers, the second of which is smooth.
fn case_with_dropout(activation: Activation, seed: u64) -> Case {
    let hidden = [(5, activation), (4, Activation::Tanh)];
    case_with(&hidden, Activation::Identity, &Loss::SquaredError, Reduction::Mean, seed, |raw| {
        raw.input_dropout = Some(0.3);
        raw.layers[0].as_mut().unwrap().dropout = Some(0.5);
        raw.layers[1].as_mut().unwrap().dropout = Some(0.2);
    })
}

fn whole(case: &Case) -> Tile<'_, f64> {
    Tile { rows: ROWS, inputs: Some(&case.inputs) }
}

/// A forward pass of a training step with the masks of a seed.
fn dropped_pass(case: &Case, parameters: &[f64], seed: u64) -> (Plan, Objective, Workspace<f64>) {
    let plan = Plan::new(&case.architecture);
    let objective = Objective::new(&case.architecture, &case.loss, case.reduction);
    let mut workspace = Workspace::new(&plan, &objective, ROWS);
    let Targets::Values(targets) = &case.targets else { panic!("values") };
    workspace.values.extend(targets.values().iter());
    dropout::draw_masks(&plan, &mut workspace.activations, ROWS, Moment { seed, epoch: 0, batch: 0, tile: 0 });
    forward(&plan, parameters, &mut workspace.activations, whole(case), Pass::Training);
    (plan, objective, workspace)
}

/// Whether the first layer, the only one with kinks, is smooth for the inputs that the masks leave.
fn is_smooth_when_dropped(case: &Case, seed: u64) -> bool {
    let (_, _, workspace) = dropped_pass(case, &case.parameters, seed);
    let left = &workspace.activations.drops[0].values[..case.inputs.len()];
    Case { inputs: left.to_vec(), ..case.clone() }.is_smooth()
}

/// Loss and parameter gradients of a training step with the masks of a seed.
fn dropped_gradients(case: &Case, parameters: &[f64], seed: u64) -> (f64, Vec<f64>) {
    let (plan, objective, mut workspace) = dropped_pass(case, parameters, seed);
    let divisor = objective.divisor(ROWS as f64 * objective.count_of_row());
    let sum = objective.evaluate(1.0 / divisor, &mut workspace.loss_batch(ROWS, UNITS));
    let mut gradients = vec![0.0; parameters.len()];
    backward(
        &plan,
        Parameters::Still(parameters),
        &mut workspace,
        whole(case),
        &mut gradients,
        Onto::Nothing,
        Pass::Training,
    );
    (sum / divisor, gradients)
}

#[test]
fn every_activation_and_every_loss_is_among_those_that_are_checked() {
    // A new one makes these matches, and so the lists in `testing`, incomplete: it fails to compile or fails here.
    let activation_index = |activation| match activation {
        Activation::Identity => 0,
        Activation::Sign => 1,
        Activation::Step => 2,
        Activation::Sigmoid => 3,
        Activation::Tanh => 4,
        Activation::Relu => 5,
        Activation::LeakyRelu { .. } => 6,
        Activation::Elu { .. } => 7,
        Activation::Selu => 8,
        Activation::Softplus => 9,
        Activation::Softsign => 10,
        Activation::Exponential => 11,
        Activation::HardSigmoid => 12,
        Activation::Gelu => 13,
        Activation::GeluTanh => 14,
        Activation::Silu => 15,
        Activation::Mish => 16,
        Activation::Softmax => 17,
        Activation::LogSoftmax => 18,
    };
    let loss_index = |loss: &Loss| match loss {
        Loss::SquaredError => 0,
        Loss::BinaryCrossEntropy { .. } => 1,
        Loss::SoftmaxCrossEntropy { .. } => 2,
        Loss::Perceptron => 3,
        Loss::AbsoluteError => 4,
        Loss::Huber { .. } => 5,
        Loss::LogCosh => 6,
        Loss::Quantile { .. } => 7,
        Loss::Poisson => 8,
        Loss::NegativeLogLikelihood => 9,
        Loss::KlDivergence => 10,
        Loss::Hinge => 11,
        Loss::SquaredHinge => 12,
        Loss::Focal { .. } => 13,
        Loss::GammaDeviance => 14,
        Loss::TweedieDeviance { .. } => 15,
        Loss::Custom { .. } => 16,
    };
    assert_eq!(ACTIVATIONS.map(activation_index), std::array::from_fn(|index| index));
    let listed: std::collections::BTreeSet<i32> = losses().iter().map(loss_index).collect();
    assert_eq!(listed, (0..17).collect());
}

#[test]
fn wide_layers_go_through_other_kernels_to_the_same_slopes() {
    let hidden = [(40, Activation::Tanh), (20, Activation::Sigmoid)];
    let loss = Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 };
    check(&case(&hidden, Activation::Softmax, &loss, Reduction::Mean, 3)).unwrap();
}

#[test]
fn two_hundred_layers_have_slopes() {
    let hidden = [(2, Activation::Tanh); 199];
    check(&case(&hidden, Activation::Identity, &Loss::SquaredError, Reduction::Mean, 5)).unwrap();
}

#[test]
fn predictions_are_what_the_loss_judges() {
    let case = case(&[(4, Activation::Mish)], Activation::Gelu, &Loss::SquaredError, Reduction::Sum, 3);
    let network = Network::new(&case.architecture, case.parameters.clone());
    let outputs = network.predict(&case.inputs, ROWS);
    assert_eq!(outputs, case.outputs());
    let Targets::Values(targets) = &case.targets else { panic!("values") };
    let sum: f64 = outputs.iter().zip(targets.values().iter()).map(|(p, y)| (p - y) * (p - y)).sum();
    assert!((sum - case.gradients().loss).abs() < 1e-14);
}

#[test]
fn a_hidden_layer_that_is_flat_is_refused_by_its_index() {
    for flat in [Activation::Sign, Activation::Step] {
        let layers = [(2, Activation::Tanh), (2, flat), (1, Activation::Sign)];
        let architecture = network(ElementType::Float64, 1, &layers);
        let parameters: Vec<f64> = uniform(architecture.parameter_count(), 1);
        let targets = Targets::Values(Matrix::from_values(1, 1, Values::F64(vec![1.0])));
        let result = compute(&architecture, &parameters, &[1.0], &targets, &Loss::Perceptron, Reduction::Mean);
        assert_eq!(result, Err(GradientError::Flat { layer: 1, activation: flat }));
    }
}

/// Of this seed a ReLU's z is 0 to five digits where the masks are applied, and far from it where they are not.
#[test]
fn a_kink_that_the_masks_bring_is_seen() {
    let case = case_with_dropout(Activation::Relu, 96_051);
    assert!(case.is_smooth() && !is_smooth_when_dropped(&case, 96_051));
}

/// More rows than a tile has: a batch goes through as one here, and with batch normalization.
#[test]
fn a_narrow_layer_has_gradients_of_very_many_rows() {
    let rows = 40_000;
    for units in 1..10 {
        let architecture = network(ElementType::Float32, 1, &[(units, Activation::Identity)]);
        let targets = Targets::Values(Matrix::from_values(rows, units, Values::F32(vec![1.0; rows * units])));
        let (parameters, inputs) = (vec![0.0_f32; 2 * units], vec![1.0_f32; rows]);
        let loss = Loss::SquaredError;
        let gradients = compute(&architecture, &parameters, &inputs, &targets, &loss, Reduction::Sum).unwrap();
        // Of (0 − 1)² each.
        assert_eq!(gradients.parameters, vec![-2.0 * rows as f32; 2 * units]);
    }
}
