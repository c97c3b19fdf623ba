//! Buffers of a training, made once for its largest tile of rows: a step allocates nothing.

use super::aligned::Aligned;
use super::element::Element;
use super::loss::{LossBatch, Objective, Scratch, TargetRows};
use super::network::{Plan, PlanLayer};
use super::product::room_len;
use super::unchecked::team::Workers;

/// Rows that go through a network together: a batch, or a part of one.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a, T> {
    /// How many.
    pub rows: usize,
    /// Their inputs, `[rows, input_width]`, where they lie; `None`: in [`Activations::inputs`].
    pub inputs: Option<&'a [T]>,
}

/// What a forward pass reads and writes.
#[derive(Debug)]
pub struct Activations<T> {
    /// The rows that go in, `[rows, input_width]`, where they were copied together; empty for predictions, and left as they are where the tile lies elsewhere.
    pub inputs: Aligned<T>,
    /// What each layer made of them, `[rows, units]`.
    pub layers: Vec<Aligned<T>>,
    /// z of the layers whose derivative needs it, `[rows, units]`; empty for the others.
    pub pre_activations: Vec<Aligned<T>>,
    /// Tile normalization's part; empty for layers without.
    pub normalizations: Vec<Normalized<T>>,
    /// What is dropped of the inputs; then of each layer's outputs. Empty where nothing is.
    pub drops: Vec<Dropped<T>>,
    /// Sums of products of which two threads share the terms: see [`affine`](super::product::affine).
    pub room: Aligned<T>,
    /// Units of the first layer.
    pub first_units: usize,
    /// Who computes.
    pub workers: Workers,
}

/// What backpropagation needs of a batch normalization.
#[derive(Debug, Default)]
pub struct Normalized<T> {
    /// (z − mean) ÷ √(variance + ε), `[rows, units]`.
    pub values: Aligned<T>,
    /// 1 ÷ √(variance + ε), `[units]`.
    pub inverse_deviations: Aligned<T>,
    /// The batch's mean, `[units]`.
    pub means: Vec<f64>,
    /// The batch's biased variance, `[units]`.
    pub variances: Vec<f64>,
}

/// What a layer, or the input, is after some of it was dropped.
#[derive(Debug, Default)]
pub struct Dropped<T> {
    /// 0, or 1 ÷ (1 − share), `[rows, units]`.
    pub mask: Aligned<T>,
    /// Outputs times mask, `[rows, units]`.
    pub values: Aligned<T>,
}

impl<T: Element> Activations<T> {
    /// Buffers for predictions of `rows` rows.
    pub fn for_predictions(plan: &Plan, rows: usize) -> Self {
        Self::new(plan, rows, false)
    }

    /// Buffers for training steps of `rows` rows.
    pub fn for_training(plan: &Plan, rows: usize) -> Self {
        Self::new(plan, rows, true)
    }

    fn new(plan: &Plan, rows: usize, is_training: bool) -> Self {
        let zeros = |is_needed: bool, units: usize| Aligned::zeros(if is_needed { rows * units } else { 0 });
        let layers = || plan.layers.iter();
        let dropped = |share: f64, units: usize| {
            let is_needed = is_training && share > 0.0;
            Dropped { mask: zeros(is_needed, units), values: zeros(is_needed, units) }
        };
        let inputs = std::iter::once(dropped(plan.input_dropout, plan.input_width));
        let room = if is_training { layers().map(|layer| room_len(layer.shape(rows))).max() } else { None };
        Self {
            inputs: zeros(is_training, plan.input_width),
            layers: layers().map(|layer| zeros(true, layer.layout.units)).collect(),
            pre_activations: layers()
                .map(|layer| zeros(is_training && layer.activation.needs_pre_activation(), layer.layout.units))
                .collect(),
            normalizations: layers().map(|layer| Normalized::new(layer, rows, is_training)).collect(),
            drops: inputs.chain(layers().map(|layer| dropped(layer.dropout, layer.layout.units))).collect(),
            room: Aligned::zeros(room.unwrap_or(0)),
            first_units: plan.layers[0].layout.units,
            workers: Workers::default(),
        }
    }

    /// What the last layer made.
    pub fn outputs_mut(&mut self) -> &mut [T] {
        let last = self.layers.len() - 1;
        &mut self.layers[last]
    }

    /// What goes into a layer: the tile's inputs, or what the layer before made.
    pub fn inputs_of<'a>(&'a self, layer: usize, tile: Tile<'a, T>) -> &'a [T] {
        let inputs = tile.inputs.unwrap_or(&self.inputs);
        layer.checked_sub(1).map_or(inputs, |below| &self.layers[below])
    }

    /// What goes into a layer in a training step: the same, less what was dropped.
    pub fn kept_inputs_of<'a>(&'a self, layer: usize, tile: Tile<'a, T>) -> &'a [T] {
        let dropped = &self.drops[layer].values;
        if dropped.is_empty() { self.inputs_of(layer, tile) } else { dropped }
    }
}

impl<T: Element> Normalized<T> {
    fn new(layer: &PlanLayer, rows: usize, is_training: bool) -> Self {
        let units = layer.layout.units;
        if layer.normalization.is_none() || !is_training {
            return Self::default();
        }
        Self {
            values: Aligned::zeros(rows * units),
            inverse_deviations: Aligned::zeros(units),
            means: vec![0.0; units],
            variances: vec![0.0; units],
        }
    }
}

/// What a training step reads and writes beside parameters.
#[derive(Debug)]
pub struct Workspace<T> {
    /// The forward pass.
    pub activations: Activations<T>,
    /// δ of each layer: the gradient with respect to what goes into its activation, `[rows, units]`.
    pub deltas: Vec<Aligned<T>>,
    /// δ behind a batch normalization: the gradient with respect to x·W, for the widest layer that has one.
    pub affine_delta: Aligned<T>,
    /// Targets of the rows, where they are classes.
    pub classes: Vec<u32>,
    /// Targets of the rows, where they are values, `[rows, units]`.
    pub values: Vec<T>,
    /// How much each row counts; empty where all count alike.
    pub weights: Vec<T>,
    /// Which targets are there, `[rows, units]`; empty where all are.
    pub mask: Vec<T>,
    /// Of the loss.
    pub scratch: Scratch<T>,
}

impl<T: Element> Workspace<T> {
    /// Buffers for `rows` rows.
    pub fn new(plan: &Plan, objective: &Objective, rows: usize) -> Self {
        let deltas = plan.layers.iter().map(|layer| Aligned::zeros(rows * layer.layout.units)).collect();
        let normalized = plan.layers.iter().filter(|layer| layer.normalization.is_some());
        let widest = normalized.map(|layer| layer.layout.units).max().unwrap_or(0);
        let units = plan.output_layer().layout.units;
        Self {
            activations: Activations::for_training(plan, rows),
            deltas,
            affine_delta: Aligned::zeros(rows * widest),
            classes: Vec::with_capacity(rows),
            values: Vec::with_capacity(rows * units),
            weights: Vec::with_capacity(rows),
            mask: Vec::new(),
            scratch: objective.scratch(rows),
        }
    }

    /// Targets of the rows that are loaded.
    pub fn targets(&self) -> TargetRows<'_, T> {
        if self.classes.is_empty() { TargetRows::Values(&self.values) } else { TargetRows::Classes(&self.classes) }
    }

    /// Which targets of the rows that are loaded are there; `None`: all.
    pub fn mask(&self) -> Option<&[T]> {
        (!self.mask.is_empty()).then_some(&self.mask)
    }

    /// What the last layer made of the first `rows` rows.
    pub fn outputs(&self, rows: usize, units: usize) -> &[T] {
        let last = self.activations.layers.len() - 1;
        &self.activations.layers[last][..rows * units]
    }

    /// δ of the last layer for the first `rows` rows.
    pub fn output_delta(&self, rows: usize, units: usize) -> &[T] {
        let last = self.deltas.len() - 1;
        &self.deltas[last][..rows * units]
    }

    /// What a loss needs of the first `rows` rows.
    pub fn loss_batch(&mut self, rows: usize, units: usize) -> LossBatch<'_, T> {
        let count = rows * units;
        let last = self.deltas.len() - 1;
        let Activations { layers, pre_activations, .. } = &mut self.activations;
        let pre_activations = &mut pre_activations[last];
        let kept = pre_activations.len().min(count);
        LossBatch {
            targets: if self.classes.is_empty() {
                TargetRows::Values(&self.values)
            } else {
                TargetRows::Classes(&self.classes)
            },
            weights: (!self.weights.is_empty()).then_some(&self.weights),
            mask: (!self.mask.is_empty()).then_some(&self.mask),
            outputs: &mut layers[last][..count],
            pre_activations: &mut pre_activations[..kept],
            gradient: &mut self.deltas[last][..count],
            scratch: &mut self.scratch,
        }
    }
}
