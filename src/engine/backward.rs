//! Backpropagation.

use super::activation::multiply_by_derivative;
use super::element::Element;
use super::network::{Pass, Plan, PlanLayer};
use super::normalization;
use super::optimizer::{Begun, OptimizerState, Weights};
use super::product::{Onto, can_be_seen, product_with_transposed, transposed_product};
use super::simd::vectorized;
use super::unchecked::team::{Workers, piece_length};
use super::workspace::{Activations, Tile, Workspace};
use crate::domain::Optimizer;

/// Columns of a piece: whole vectors.
const LANES: usize = 16;

/// The gradient of a tile of rows, in the place of what is in `gradients` or added to it, flat in the order of the parameters.
/// Where nothing is learned, and where weights moved along their gradient, `gradients` stays as it is.
///
/// On entry the last of `deltas` holds δ = ∂L/∂z of the last layer, from the loss; on return every layer's is there, z being
/// what goes into its activation. With a₀ the inputs, ε_l = ∂L/∂(a_{l−1}·W_l + b_l), which is δ_l but behind a batch
/// normalization, and m the mask of what is dropped (1 where nothing is), for each layer l from the last to the first:
///
/// - ∂L/∂W_l += (a_{l−1} ∘ m_{l−1})ᵀ·ε_l
/// - ∂L/∂b_l += Σ over rows of ε_l
/// - δ_{l−1} = (ε_l·W_lᵀ) ∘ m_{l−1} ∘ f′(z_{l−1})
///
/// A training step ends at the first layer that learns: what is frozen before it has no use for its δ.
pub fn backward<T: Element>(
    plan: &Plan,
    mut parameters: Parameters<'_, T>,
    workspace: &mut Workspace<T>,
    tile: Tile<'_, T>,
    gradients: &mut [T],
    onto: Onto,
    pass: Pass,
) {
    let rows = tile.rows;
    let Workspace { activations, deltas, affine_delta, .. } = workspace;
    let first = match pass {
        Pass::Training => plan.layers.iter().position(|layer| !layer.is_frozen).unwrap_or(0),
        Pass::Gradients | Pass::Inference => 0,
    };
    for (index, layer) in plan.layers.iter().enumerate().skip(first).rev() {
        let (before, from) = deltas.split_at_mut(index);
        if onto == Onto::Nothing {
            // What is summed row by row.
            gradients[layer.layout.weights.end..layer.layout.trainable().end].fill(T::ZERO);
        }
        let delta = affine(layer, parameters.values(), activations, index, &from[0], affine_delta, rows, gradients);
        let inputs = match pass {
            Pass::Training => activations.kept_inputs_of(index, tile),
            Pass::Gradients | Pass::Inference => activations.inputs_of(index, tile),
        };
        let workers = &activations.workers;
        if let Some(below) = index.checked_sub(1).filter(|_| index > first) {
            let PlanLayer { layout, activation, .. } = &plan.layers[below];
            let count = rows * layout.units;
            let delta_below = &mut before[below][..count];
            pass_back(workers, layer, parameters.values(), delta, rows, delta_below);
            let mask = &activations.drops[index].mask;
            if pass == Pass::Training && !mask.is_empty() {
                delta_below.iter_mut().zip(mask.iter()).for_each(|(delta, &mask)| *delta *= mask);
            }
            let pre_activations = &activations.pre_activations[below];
            let outputs = &activations.layers[below][..count];
            workers.for_each_piece(delta_below, layout.units, |first, delta| {
                let kept = pre_activations.get(first..).unwrap_or_default();
                multiply_by_derivative(*activation, layout.units, &outputs[first..], kept, delta);
            });
        }
        // Last, since these weights may move now.
        bias_gradient(workers, layer, delta, rows, gradients);
        match &mut parameters {
            Parameters::Moving(moving) if moves_at_once(layer) => moving.go_on(workers, layer, inputs, delta, rows),
            _ => {
                let gradient = &mut gradients[layer.layout.weights.clone()];
                transposed_product(workers, onto, layer.shape(rows), inputs, delta, gradient);
            }
        }
    }
}

/// What a network's parameters do while their gradients are computed.
pub enum Parameters<'a, T> {
    /// They stay.
    Still(&'a [T]),
    /// The weights of large layers move as soon as their gradient is known, which is kept nowhere.
    Moving(Moving<'a, T>),
}

impl<T> Parameters<'_, T> {
    /// What is lent for a part of the step.
    pub fn reborrow(&mut self) -> Parameters<'_, T> {
        match self {
            Self::Still(parameters) => Parameters::Still(parameters),
            Self::Moving(Moving { parameters, state, begun, optimizer, learning_rate }) => {
                Parameters::Moving(Moving { parameters, state, begun, optimizer, learning_rate: *learning_rate })
            }
        }
    }

    /// As they are now.
    pub fn values(&self) -> &[T] {
        match self {
            Self::Still(parameters) => parameters,
            Self::Moving(moving) => moving.parameters,
        }
    }
}

/// A step of an optimizer that begins while gradients are computed. It has 2 to [`SEEN_ROWS_MAX`](super::product::SEEN_ROWS_MAX) rows, which go through at once.
pub struct Moving<'a, T> {
    /// All of them.
    pub parameters: &'a mut [T],
    /// What the optimizer remembers.
    pub state: &'a mut OptimizerState<T>,
    /// The step, once a weight has moved.
    pub begun: &'a mut Option<Begun>,
    /// The optimizer's numbers.
    pub optimizer: &'a Optimizer,
    /// That of the step.
    pub learning_rate: f64,
}

/// Whether the weights of a layer move in a step that [`Moving`] tells of.
pub fn moves_at_once(layer: &PlanLayer) -> bool {
    can_be_seen(layer.layout.inputs, layer.layout.units) && !layer.is_frozen
}

impl<T: Element> Moving<'_, T> {
    fn go_on(&mut self, workers: &Workers, layer: &PlanLayer, inputs: &[T], delta: &[T], rows: usize) {
        let (shape, range) = (layer.shape(rows), layer.layout.weights.clone());
        let target = Weights { workers, shape, inputs, delta, parameters: self.parameters, range };
        let begun = self.begun.get_or_insert_with(|| self.state.begin(self.optimizer));
        self.state.go_on(begun, self.optimizer, self.learning_rate, target);
    }
}

/// ε: δ, or what comes back through the batch normalization behind x·W.
#[expect(clippy::too_many_arguments)]
fn affine<'a, T: Element>(
    layer: &PlanLayer,
    parameters: &[T],
    activations: &Activations<T>,
    index: usize,
    delta: &'a [T],
    behind: &'a mut [T],
    rows: usize,
    gradients: &mut [T],
) -> &'a [T] {
    if layer.normalization.is_none() {
        return delta;
    }
    let count = rows * layer.layout.units;
    let kept = &activations.normalizations[index];
    normalization::backward(layer, parameters, kept, &delta[..count], &mut behind[..count], gradients);
    behind
}

/// The gradient with respect to the inputs, `[rows, input_width]`, from what [`backward`] left in the workspace. A training step has
/// no use for it, and it is the widest product of many networks, so it is asked for apart.
pub fn input_gradient<T: Element>(plan: &Plan, parameters: &[T], workspace: &mut Workspace<T>, rows: usize) -> Vec<T> {
    let first = &plan.layers[0];
    let mut gradient = vec![T::ZERO; rows * plan.input_width];
    // Of the layers behind a batch normalization the first comes last, so its ε is still there.
    let delta = if first.normalization.is_some() { &workspace.affine_delta } else { &workspace.deltas[0] };
    pass_back(&workspace.activations.workers, first, parameters, delta, rows, &mut gradient);
    gradient
}

/// ε·Wᵀ: the gradient with respect to what goes into a layer, `[rows, inputs]`.
fn pass_back<T: Element>(
    workers: &Workers,
    layer: &PlanLayer,
    parameters: &[T],
    delta: &[T],
    rows: usize,
    to: &mut [T],
) {
    product_with_transposed(workers, layer.shape(rows), delta, layer.weights(parameters), to);
}

fn bias_gradient<T: Element>(workers: &Workers, layer: &PlanLayer, delta: &[T], rows: usize, gradients: &mut [T]) {
    let Some(bias) = &layer.layout.bias else { return };
    let units = layer.layout.units;
    let delta = &delta[..rows * units];
    // Columns, so that each sum runs over the rows in order.
    let piece = (piece_length(delta.len(), units) / rows).next_multiple_of(LANES).max(LANES);
    let pieces = gradients[bias.clone()].chunks_mut(piece).enumerate();
    workers.for_each(pieces, |(index, sums)| {
        vectorized!(for row in delta.chunks_exact(units) {
            sums.iter_mut().zip(&row[index * piece..]).for_each(|(sum, &delta)| *sum += delta);
        });
    });
}
