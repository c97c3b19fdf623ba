//! Backpropagation.

use super::activation::multiply_by_derivative;
use super::element::Element;
use super::network::{Plan, PlanLayer, view, view_mut};
use super::product::{add_transposed_product, product_with_transposed};
use super::workspace::Activations;

/// Adds the gradient of the first `rows` rows to `gradients`, which is flat in the order of the parameters.
///
/// On entry the last of `deltas` holds δ = ∂L/∂z of the last layer, from the loss; on return every layer's is there. With
/// a₀ the inputs, for each layer l from the last to the first:
///
/// - ∂L/∂W_l += a_{l−1}ᵀ·δ_l
/// - ∂L/∂b_l += Σ over rows of δ_l
/// - δ_{l−1} = (δ_l·W_lᵀ) ∘ f′(z_{l−1})
pub fn backward<T: Element>(
    plan: &Plan,
    parameters: &[T],
    activations: &Activations<T>,
    deltas: &mut [Vec<T>],
    rows: usize,
    gradients: &mut [T],
) {
    for (index, layer) in plan.layers.iter().enumerate().rev() {
        let (before, from) = deltas.split_at_mut(index);
        let delta = &from[0];
        let below = index.checked_sub(1);
        let inputs = below.map_or(&activations.inputs, |below| &activations.layers[below]);
        add_layer_gradient(layer, inputs, delta, rows, gradients);
        if let Some(below) = below {
            let PlanLayer { layout, activation } = &plan.layers[below];
            let delta_below = &mut before[below][..rows * layout.units];
            pass_back(layer, parameters, delta, rows, delta_below);
            multiply_by_derivative(*activation, layout.units, &inputs[..rows * layout.units], delta_below);
        }
    }
}

/// δ·Wᵀ: the gradient with respect to what goes into a layer, `[rows, inputs]`. A training step has no use for that of the
/// first layer, the widest product of many networks, so it is asked for apart.
pub fn pass_back<T: Element>(layer: &PlanLayer, parameters: &[T], delta: &[T], rows: usize, to: &mut [T]) {
    let (inputs, units) = (layer.layout.inputs, layer.layout.units);
    product_with_transposed(view(rows, units, delta), layer.weights(parameters), view_mut(rows, inputs, to));
}

fn add_layer_gradient<T: Element>(layer: &PlanLayer, inputs: &[T], delta: &[T], rows: usize, gradients: &mut [T]) {
    let layout = &layer.layout;
    let (width, units) = (layout.inputs, layout.units);
    let weights = view_mut(width, units, &mut gradients[layout.weights.clone()]);
    add_transposed_product(view(rows, width, inputs), view(rows, units, delta), weights);
    if let Some(bias) = &layout.bias {
        let bias = &mut gradients[bias.clone()];
        for row in delta[..rows * units].chunks_exact(units) {
            bias.iter_mut().zip(row).for_each(|(sum, &delta)| *sum += delta);
        }
    }
}
