//! Buffers of a training, made once for its largest tile of rows: a step allocates nothing.

use super::element::Element;
use super::loss::TargetRows;
use super::network::Plan;
use super::product::PADDED_ROWS;

/// What a forward pass reads and writes. Every buffer has room for at least [`PADDED_ROWS`] rows (see `product`).
#[derive(Clone, Debug)]
pub struct Activations<T> {
    /// The rows that go in, `[rows, input_width]`.
    pub inputs: Vec<T>,
    /// What each layer made of them, `[rows, units]`.
    pub layers: Vec<Vec<T>>,
}

impl<T: Element> Activations<T> {
    /// Buffers for `rows` rows.
    pub fn new(plan: &Plan, rows: usize) -> Self {
        let rows = rows.max(PADDED_ROWS);
        let layers = plan.layers.iter().map(|layer| vec![T::ZERO; rows * layer.layout.units]).collect();
        Self { inputs: vec![T::ZERO; rows * plan.input_width], layers }
    }

    /// What the last layer made.
    pub fn outputs_mut(&mut self) -> &mut [T] {
        let last = self.layers.len() - 1;
        &mut self.layers[last]
    }
}

/// What a training step reads and writes beside parameters.
#[derive(Clone, Debug)]
pub struct Workspace<T> {
    /// The forward pass.
    pub activations: Activations<T>,
    /// δ of each layer: the gradient with respect to its pre-activations, `[rows, units]`.
    pub deltas: Vec<Vec<T>>,
    /// Targets of the rows, where they are classes.
    pub classes: Vec<u32>,
    /// Targets of the rows, where they are values, `[rows, units]`.
    pub values: Vec<T>,
}

impl<T: Element> Workspace<T> {
    /// Buffers for `rows` rows.
    pub fn new(plan: &Plan, rows: usize) -> Self {
        let deltas: Vec<Vec<T>> = plan.layers.iter().map(|layer| vec![T::ZERO; rows * layer.layout.units]).collect();
        let units = plan.output_layer().layout.units;
        Self {
            activations: Activations::new(plan, rows),
            deltas,
            classes: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows * units),
        }
    }

    /// What a loss needs of the first `rows` rows: targets, the last layer's outputs and its δ.
    pub fn output_parts(&mut self, rows: usize, units: usize) -> (TargetRows<'_, T>, &mut [T], &mut [T]) {
        let targets =
            if self.classes.is_empty() { TargetRows::Values(&self.values) } else { TargetRows::Classes(&self.classes) };
        let last = self.deltas.len() - 1;
        (targets, &mut self.activations.outputs_mut()[..rows * units], &mut self.deltas[last][..rows * units])
    }
}
