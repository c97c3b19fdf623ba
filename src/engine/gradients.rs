//! The gradients of a loss on a given batch, changing nothing: what a training step would follow, made visible.

use super::backward::{backward, input_gradient};
use super::element::{Element, all_finite};
use super::loss::{LossBatch, Objective, TargetRows};
use super::network::{Pass, Plan, forward};
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
    /// The loss, or its gradient, is no finite number.
    #[error("row {row} (from 0) leads to a loss or a gradient that is no finite number")]
    NotFinite {
        /// The first row where it is none.
        row: usize,
    },
}

/// The gradients of a reduced loss on one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    /// The loss, reduced as asked.
    pub loss: f64,
    /// δ of each layer, first to last: ∂loss/∂z, `[rows, units]`, z being what goes into the layer's activation.
    pub deltas: Vec<Vec<T>>,
    /// ∂loss/∂W, ∂loss/∂b and, for batch normalization, ∂loss/∂γ and ∂loss/∂β of all layers, flat in the order of
    /// [`Architecture::layout`]; 0 in the place of running values.
    pub parameters: Vec<T>,
    /// ∂loss/∂x, `[rows, input_width]`.
    pub inputs: Vec<T>,
}

/// The gradients of `loss` on a batch of `rows` rows: `inputs` is `[rows, input_width]`. As in a training step, batch
/// normalization goes by the batch; nothing is dropped.
pub fn compute<T: Element>(
    architecture: &Architecture,
    parameters: &[T],
    inputs: &[T],
    targets: &Targets,
    loss: &Loss,
    reduction: Reduction,
) -> Result<Gradients<T>, GradientError> {
    refuse_flat_layers(architecture)?;
    let rows = targets.rows();
    let plan = Plan::new(architecture);
    let objective = Objective::new(architecture, loss, reduction);
    let mut workspace = Workspace::new(&plan, &objective, rows);
    workspace.activations.inputs[..inputs.len()].copy_from_slice(inputs);
    match targets {
        Targets::Classes(classes) => workspace.classes.extend_from_slice(classes),
        Targets::Values(matrix) => workspace.values.extend(matrix.values().iter().map(T::from_f64)),
    }
    forward(&plan, parameters, &mut workspace.activations, rows, Pass::Gradients);
    let divisor = objective.divisor(rows as f64 * objective.count_of_row());
    let sum = objective.evaluate(T::from_f64(1.0 / divisor), &mut workspace.loss_batch(rows, objective.units()));

    let mut gradients = vec![T::ZERO; parameters.len()];
    backward(&plan, parameters, &mut workspace, rows, &mut gradients, Pass::Gradients);
    let inputs = input_gradient(&plan, parameters, &mut workspace, rows);
    if !(sum.is_finite() && all_finite(&gradients) && all_finite(&inputs)) {
        let row = first_faulty_row(&plan, &objective, parameters, &mut workspace, rows);
        return Err(GradientError::NotFinite { row });
    }
    Ok(Gradients { loss: sum / divisor, deltas: workspace.deltas, parameters: gradients, inputs })
}

/// The first row whose own loss, or δ of the last layer, is not finite; 0 where it takes several rows to leave the range of
/// numbers.
fn first_faulty_row<T: Element>(
    plan: &Plan,
    objective: &Objective,
    parameters: &[T],
    workspace: &mut Workspace<T>,
    rows: usize,
) -> usize {
    let units = objective.units();
    forward(plan, parameters, &mut workspace.activations, rows, Pass::Gradients);
    let LossBatch { targets, outputs, pre_activations, gradient, scratch, .. } = workspace.loss_batch(rows, units);
    let faulty = (0..rows).find(|&row| {
        let range = row * units..(row + 1) * units;
        let kept = pre_activations.len().min(units);
        let mut alone = LossBatch {
            targets: match targets {
                TargetRows::Classes(classes) => TargetRows::Classes(&classes[row..=row]),
                TargetRows::Values(values) => TargetRows::Values(&values[range.clone()]),
            },
            weights: None,
            mask: None,
            outputs: &mut outputs[range.clone()],
            pre_activations: &mut pre_activations[..kept],
            gradient: &mut gradient[range.clone()],
            scratch,
        };
        let loss = objective.evaluate(T::ONE, &mut alone);
        !(loss.is_finite() && all_finite(&gradient[range]))
    });
    faulty.unwrap_or(0)
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
mod tests;
