//! The gradients of a loss on a given batch, changing nothing: what a training step would follow, made visible.

use super::backward::{Parameters, backward, input_gradient};
use super::element::{Element, all_finite};
use super::loss::{LossBatch, Objective, TargetRows};
use super::network::{Pass, Plan, forward};
use super::product::Onto;
use super::workspace::{Tile, Workspace};
use crate::domain::{Activation, Architecture, Loss, Reduction, Targets};

/// Why gradients cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum GradientError {
    /// A hidden layer is flat.
    #[error(
        "architecture.layers[{layer}].activation is {activation}, which is flat, so no gradient passes it to the layers before; ask a \
         model with sigmoid, tanh or ReLU there"
    )]
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
    /// The loss of each row alone, reduced likewise.
    pub row_losses: Vec<f64>,
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
    match targets {
        Targets::Classes(classes) => workspace.classes.extend_from_slice(classes),
        Targets::Values(matrix) => workspace.values.extend(matrix.values().iter().map(T::from_f64)),
    }
    let row_divisor = objective.divisor(objective.count_of_row());
    let tile = Tile { rows, inputs: Some(inputs) };
    let row_losses = each_row_alone(&plan, &objective, parameters, &mut workspace, tile, |loss, _| loss / row_divisor);
    forward(&plan, parameters, &mut workspace.activations, tile, Pass::Gradients);
    let divisor = objective.divisor(rows as f64 * objective.count_of_row());
    let sum = objective.evaluate(T::from_f64(1.0 / divisor), &mut workspace.loss_batch(rows, objective.units()));

    let mut gradients = vec![T::ZERO; parameters.len()];
    backward(
        &plan,
        Parameters::Still(parameters),
        &mut workspace,
        tile,
        &mut gradients,
        Onto::Nothing,
        Pass::Gradients,
    );
    let inputs = input_gradient(&plan, parameters, &mut workspace, rows);
    if !(sum.is_finite() && all_finite(&gradients) && all_finite(&inputs)) {
        let is_faulty = |loss: f64, delta: &[T]| !(loss.is_finite() && all_finite(delta));
        let faulty = each_row_alone(&plan, &objective, parameters, &mut workspace, tile, is_faulty);
        // It may take several rows to leave the range of numbers.
        return Err(GradientError::NotFinite { row: faulty.iter().position(|is_faulty| *is_faulty).unwrap_or(0) });
    }
    let deltas = workspace.deltas.into_iter().map(Vec::from).collect();
    Ok(Gradients { loss: sum / divisor, row_losses, deltas, parameters: gradients, inputs })
}

/// What `look` says of the loss of each row alone, not divided, and of the δ of the last layer that it alone leads to.
fn each_row_alone<T: Element, R>(
    plan: &Plan,
    objective: &Objective,
    parameters: &[T],
    workspace: &mut Workspace<T>,
    tile: Tile<'_, T>,
    look: impl Fn(f64, &[T]) -> R,
) -> Vec<R> {
    let (rows, units) = (tile.rows, objective.units());
    forward(plan, parameters, &mut workspace.activations, tile, Pass::Gradients);
    let LossBatch { targets, outputs, pre_activations, gradient, scratch, .. } = workspace.loss_batch(rows, units);
    let alone = (0..rows).map(|row| {
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
        look(loss, &gradient[range])
    });
    alone.collect()
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
