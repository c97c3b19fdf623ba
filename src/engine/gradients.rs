//! The gradients of a loss on a given batch, changing nothing: what a training step would follow, made visible.

use super::backward::{backward, pass_back};
use super::element::Element;
use super::loss::Objective;
use super::network::{Plan, forward};
use super::workspace::Workspace;
use crate::domain::{Activation, Architecture, Loss, Reduction, Targets};

/// Why gradients cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GradientError {
    /// A hidden layer is flat.
    #[error("layer {layer} is {activation}, which is flat: no gradient passes through it to the layers before")]
    Flat {
        /// Its index, from 0.
        layer: usize,
        /// What it applies.
        activation: Activation,
    },
}

/// The gradients of a reduced loss on one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    /// The loss, reduced as asked.
    pub loss: f64,
    /// δ of each layer, first to last: ∂loss/∂z, `[rows, units]`, z being the layer's x·W + b.
    pub deltas: Vec<Vec<T>>,
    /// ∂loss/∂W and ∂loss/∂b of all layers, flat in the order of [`Architecture::layout`].
    pub parameters: Vec<T>,
    /// ∂loss/∂x, `[rows, input_width]`.
    pub inputs: Vec<T>,
}

/// The gradients of `loss` on a batch of `rows` rows: `inputs` is `[rows, input_width]`.
pub fn compute<T: Element>(
    architecture: &Architecture,
    parameters: &[T],
    inputs: &[T],
    targets: &Targets,
    loss: Loss,
    reduction: Reduction,
) -> Result<Gradients<T>, GradientError> {
    refuse_flat_layers(architecture)?;
    let rows = targets.rows();
    let plan = Plan::new(architecture);
    let objective = Objective::new(architecture, loss, reduction);
    let mut workspace = Workspace::new(&plan, rows);
    workspace.activations.inputs[..inputs.len()].copy_from_slice(inputs);
    match targets {
        Targets::Classes(classes) => workspace.classes.extend_from_slice(classes),
        Targets::Values(matrix) => workspace.values.extend(matrix.values().iter().map(T::from_f64)),
    }
    forward(&plan, parameters, &mut workspace.activations, rows);
    let divisor = objective.divisor(rows);
    let (targets, outputs, delta) = workspace.output_parts(rows, objective.units());
    let sum = objective.evaluate(targets, T::from_f64(1.0 / divisor), outputs, delta);

    let Workspace { activations, mut deltas, .. } = workspace;
    let mut gradients = vec![T::ZERO; parameters.len()];
    backward(&plan, parameters, &activations, &mut deltas, rows, &mut gradients);
    let mut input_gradient = vec![T::ZERO; rows * plan.input_width];
    pass_back(&plan.layers[0], parameters, &deltas[0], rows, &mut input_gradient);
    Ok(Gradients { loss: sum / divisor, deltas, parameters: gradients, inputs: input_gradient })
}

fn refuse_flat_layers(architecture: &Architecture) -> Result<(), GradientError> {
    let layers = architecture.layers();
    let hidden = layers[..layers.len() - 1].iter().enumerate();
    match hidden.into_iter().find(|(_, layer)| !layer.activation.has_gradient()) {
        Some((layer, found)) => Err(GradientError::Flat { layer, activation: found.activation }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{ElementType, Matrix, Values};
    use crate::engine::Network;
    use crate::engine::testing::{ACTIVATIONS, LOSSES, network, uniform};

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
            let Self { architecture, parameters, inputs, targets, loss, reduction } = self;
            compute(architecture, parameters, inputs, targets, *loss, *reduction).unwrap()
        }

        fn loss_at(&self, parameters: &[f64], inputs: &[f64]) -> f64 {
            compute(&self.architecture, parameters, inputs, &self.targets, self.loss, self.reduction).unwrap().loss
        }

        /// The smallest distance of a pre-activation from a kink: some activations and the perceptron have theirs at 0, the
        /// hard sigmoid at −3 and 3.
        fn kink_distance(&self) -> f64 {
            let plan = Plan::new(&self.architecture);
            let rows = self.targets.rows();
            let mut smallest = f64::INFINITY;
            for depth in 1..=plan.layers.len() {
                let mut plan = plan.clone();
                plan.layers.truncate(depth);
                let mut buffers = crate::engine::workspace::Activations::new(&plan, rows);
                buffers.inputs[..self.inputs.len()].copy_from_slice(&self.inputs);
                forward(&plan, &self.parameters, &mut buffers, rows);
                let units = plan.output_layer().layout.units;
                smallest = buffers.outputs_mut()[..rows * units]
                    .iter()
                    .fold(smallest, |least, z| least.min(z.abs()).min((z.abs() - 3.0).abs()));
            }
            smallest.min(self.residual_kink_distance())
        }

        /// The smallest distance of a residual from a kink of the loss: of |r| at 0, of Huber's slope at δ.
        fn residual_kink_distance(&self) -> f64 {
            let kink = match self.loss {
                Loss::AbsoluteError => 0.0,
                Loss::Huber { delta } => delta,
                _ => return f64::INFINITY,
            };
            let Targets::Values(targets) = &self.targets else { return f64::INFINITY };
            let network = Network::new(&self.architecture, self.parameters.clone());
            let outputs = network.predict(&self.inputs, self.targets.rows());
            let distance = |(output, target): (&f64, f64)| ((output - target).abs() - kink).abs();
            outputs.iter().zip(targets.values().iter()).map(distance).fold(f64::INFINITY, f64::min)
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

    fn check(case: &Case) -> Result<(), String> {
        let gradients = case.gradients();
        check_slopes(&case.parameters, &gradients.parameters, gradients.loss, |parameters| {
            case.loss_at(parameters, &case.inputs)
        })?;
        check_slopes(&case.inputs, &gradients.inputs, gradients.loss, |inputs| case.loss_at(&case.parameters, inputs))
    }

    fn targets(loss: Loss, last: Activation, rows: usize, units: usize, seed: u64) -> Targets {
        let draws: Vec<f64> = uniform(rows * units, seed);
        if last == Activation::Softmax {
            let class = |row: usize| ((draws[row] + 1.0) / 2.0 * units as f64) as u32;
            return Targets::Classes((0..rows).map(class).collect());
        }
        let value = |x: f64| match loss {
            Loss::SquaredError | Loss::AbsoluteError | Loss::Huber { .. } | Loss::LogCosh => x,
            Loss::BinaryCrossEntropy => f64::from(x > 0.0),
            Loss::Perceptron => x.signum(),
            Loss::SoftmaxCrossEntropy => unreachable!("only on softmax"),
        };
        Targets::Values(Matrix::from_values(rows, units, Values::F64(draws.into_iter().map(value).collect())))
    }

    fn case(hidden: &[(usize, Activation)], last: Activation, loss: Loss, reduction: Reduction, seed: u64) -> Case {
        let (input_width, rows, units) = (3, 4, 3);
        let layers: Vec<_> = hidden.iter().copied().chain([(units, last)]).collect();
        let architecture = network(ElementType::Float64, input_width, &layers);
        Case {
            parameters: uniform(architecture.parameter_count(), seed),
            inputs: uniform(rows * input_width, seed + 1),
            targets: targets(loss, last, rows, units, seed + 2),
            architecture,
            loss,
            reduction,
        }
    }

    const REDUCTIONS: [Reduction; 2] = [Reduction::Mean, Reduction::Sum];

    fn can_be_hidden(activation: Activation) -> bool {
        activation.has_gradient() && activation != Activation::Softmax
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// Every hidden activation × every output activation × each of its losses × each reduction.
        #[test]
        fn gradients_are_the_slopes_of_the_loss(seed in 0_u64..1_000_000, width in 1_usize..5, depth in 0_usize..3) {
            for last in ACTIVATIONS {
                for &loss in Loss::fitting(last) {
                    for reduction in REDUCTIONS {
                        for hidden in ACTIVATIONS.into_iter().filter(|&it| can_be_hidden(it)) {
                            let case = case(&vec![(width, hidden); depth], last, loss, reduction, seed);
                            // e^e^z bends so much that a difference of 1e-5 tells its slope no longer.
                            let is_steep =
                                hidden == Activation::Exponential && (depth > 1 || last == Activation::Exponential);
                            if case.kink_distance() > 1e-3 && !is_steep {
                                let result = check(&case);
                                prop_assert!(result.is_ok(), "{hidden} {last} {loss:?} {reduction:?}: {result:?}");
                            }
                        }
                    }
                }
            }
        }
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
            Activation::Softmax => 13,
            Activation::Selu => 8,
            Activation::Softplus => 9,
            Activation::Softsign => 10,
            Activation::Exponential => 11,
            Activation::HardSigmoid => 12,
        };
        let loss_index = |loss| match loss {
            Loss::SquaredError => 0,
            Loss::BinaryCrossEntropy => 1,
            Loss::SoftmaxCrossEntropy => 2,
            Loss::Perceptron => 3,
            Loss::AbsoluteError => 4,
            Loss::Huber { .. } => 5,
            Loss::LogCosh => 6,
        };
        assert_eq!(ACTIVATIONS.map(activation_index), std::array::from_fn(|index| index));
        assert_eq!(LOSSES.map(loss_index), std::array::from_fn(|index| index));
    }

    #[test]
    fn wide_layers_go_through_other_kernels_to_the_same_slopes() {
        let hidden = [(40, Activation::Tanh), (20, Activation::Sigmoid)];
        let case = case(&hidden, Activation::Softmax, Loss::SoftmaxCrossEntropy, Reduction::Mean, 3);
        check(&case).unwrap();
    }

    #[test]
    fn a_hidden_layer_that_is_flat_is_refused_by_its_index() {
        for flat in [Activation::Sign, Activation::Step] {
            let layers = [(2, Activation::Tanh), (2, flat), (1, Activation::Sign)];
            let architecture = network(ElementType::Float64, 1, &layers);
            let parameters: Vec<f64> = uniform(architecture.parameter_count(), 1);
            let targets = Targets::Values(Matrix::from_values(1, 1, Values::F64(vec![1.0])));
            let result = compute(&architecture, &parameters, &[1.0], &targets, Loss::Perceptron, Reduction::Mean);
            assert_eq!(result, Err(GradientError::Flat { layer: 1, activation: flat }));
        }
    }
}
