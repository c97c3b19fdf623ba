//! Networks that compute: the forward pass over flat parameters.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use super::activation::activate;
use super::aligned::Aligned;
use super::element::Element;
use super::normalization;
use super::product::{self, Shape};
use super::unchecked::team::Workers;
use super::workspace::{Activations, Dropped, Tile};
use crate::domain::{Activation, Architecture, BatchNormalization, LayerLayout};

/// Most rows that go through a network at once.
const TILE_ROWS_MAX: usize = 1_024;
/// They are a multiple of it.
const TILE_ROWS_UNIT: usize = 16;

/// Numbers that one tile of rows may take in the inputs and all layers together: 16 MB of float32.
const TILE_ELEMENTS_MAX: usize = 1 << 22;

/// What a pass over a network needs of its architecture, in the form it needs it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Columns of the input.
    pub input_width: usize,
    /// Share of the inputs that a training step drops.
    pub input_dropout: f64,
    /// The layers, first to last.
    pub layers: Vec<PlanLayer>,
}

/// A layer of a [`Plan`].
#[derive(Clone, Debug)]
pub struct PlanLayer {
    /// Where its parameters lie.
    pub layout: LayerLayout,
    /// What it applies to x·W + b.
    pub activation: Activation,
    /// What lies between the two.
    pub normalization: Option<BatchNormalization>,
    /// Share of its outputs that a training step drops.
    pub dropout: f64,
    /// The largest norm of a unit's incoming weights.
    pub max_norm: Option<f64>,
    /// Whether this training leaves it as it is.
    pub is_frozen: bool,
}

impl Plan {
    /// The plan of an architecture.
    pub fn new(architecture: &Architecture) -> Self {
        Self::for_training(architecture, &[])
    }

    /// The plan of an architecture in a training that leaves some more layers as they are.
    pub fn for_training(architecture: &Architecture, frozen: &[u32]) -> Self {
        let layers = architecture.layers().iter().zip(architecture.layout()).enumerate();
        let layers = layers.map(|(index, (layer, layout))| PlanLayer {
            layout,
            activation: layer.activation,
            normalization: layer.batch_normalization,
            dropout: layer.dropout,
            max_norm: layer.max_norm,
            is_frozen: layer.frozen || frozen.contains(&(index as u32)),
        });
        Self {
            input_width: architecture.input_width(),
            input_dropout: architecture.input_dropout(),
            layers: layers.collect(),
        }
    }

    /// The last layer.
    pub fn output_layer(&self) -> &PlanLayer {
        &self.layers[self.layers.len() - 1]
    }

    /// Whether a training step goes by the mean and variance of its batch, so that the batch must go through as one.
    pub fn has_batch_statistics(&self) -> bool {
        self.layers.iter().any(PlanLayer::has_batch_statistics)
    }

    /// Rows that go through the network at once, so that memory is bounded whatever the number of rows. It follows from
    /// the shape alone: the sums of a gradient are kept tile by tile, so it is part of what decides their bits.
    pub fn tile_rows(&self) -> usize {
        let widths: usize = self.input_width + self.layers.iter().map(|layer| layer.layout.units).sum::<usize>();
        let rows = (TILE_ELEMENTS_MAX / widths).clamp(TILE_ROWS_UNIT, TILE_ROWS_MAX);
        rows / TILE_ROWS_UNIT * TILE_ROWS_UNIT
    }
}

impl PlanLayer {
    /// W in a flat buffer of parameters, `[inputs, units]`.
    pub fn weights<'a, T>(&self, parameters: &'a [T]) -> &'a [T] {
        &parameters[self.layout.weights.clone()]
    }

    /// The shape of its products with some rows.
    pub fn shape(&self, rows: usize) -> Shape {
        Shape { rows, inputs: self.layout.inputs, units: self.layout.units }
    }

    /// Whether a training step normalizes it by the batch: a frozen layer keeps to its running values.
    pub fn has_batch_statistics(&self) -> bool {
        self.normalization.is_some() && !self.is_frozen
    }
}

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// A training step: batches are normalized by their own mean and variance, and what the masks say is dropped.
    Training,
    /// The gradients of a batch as it is: as a training step, but nothing is dropped.
    Gradients,
    /// Predictions and validation: running values, nothing dropped.
    Inference,
}

/// The forward pass of a tile: every layer's outputs f(x·W + b), but for the last layer
/// what goes into its activation, from which the losses start. In a training step what the masks drop is dropped.
pub fn forward<T: Element>(plan: &Plan, parameters: &[T], buffers: &mut Activations<T>, tile: Tile<'_, T>, pass: Pass) {
    let (rows, last) = (tile.rows, plan.layers.len() - 1);
    drop_some(buffers, 0, tile, rows * plan.input_width, pass);
    for (index, layer) in plan.layers.iter().enumerate() {
        let (count, units) = (rows * layer.layout.units, layer.layout.units);
        let keeps_z = !buffers.pre_activations[index].is_empty() && pass != Pass::Inference;
        if index < last && !keeps_z && layer.normalization.is_none() {
            pre_activate(plan, parameters, buffers, index, tile, pass, &|z| activate(layer.activation, units, z));
            drop_some(buffers, index + 1, tile, count, pass);
            continue;
        }
        pre_activate(plan, parameters, buffers, index, tile, pass, &|_| {});
        if index < last {
            if keeps_z {
                buffers.pre_activations[index][..count].copy_from_slice(&buffers.layers[index][..count]);
            }
            let Activations { layers, workers, .. } = &mut *buffers;
            let outputs = &mut layers[index][..count];
            workers.for_each_piece(outputs, units, |_, values| activate(layer.activation, units, values));
            drop_some(buffers, index + 1, tile, count, pass);
        }
    }
}

/// What goes into the activation of a layer: x·W + b, or what batch normalization makes of x·W. Without one, `then` goes over pieces of
/// it, whole rows.
fn pre_activate<T: Element>(
    plan: &Plan,
    parameters: &[T],
    buffers: &mut Activations<T>,
    index: usize,
    tile: Tile<'_, T>,
    pass: Pass,
    then: &(dyn Fn(&mut [T]) + Sync),
) {
    let (layer, rows) = (&plan.layers[index], tile.rows);
    let Activations { inputs, layers, normalizations, drops, workers, room, .. } = buffers;
    let inputs = tile.inputs.unwrap_or(inputs);
    let (before, from) = layers.split_at_mut(index);
    let dropped = &drops[index];
    let is_dropped = pass == Pass::Training && !dropped.values.is_empty();
    let inputs = if is_dropped { &dropped.values } else { before.last().map_or(inputs, |outputs| &**outputs) };
    affine(workers, layer, parameters, inputs, &mut from[0], room, rows, then);
    let outputs = &mut from[0][..rows * layer.layout.units];
    match pass {
        Pass::Inference => normalization::by_running_values(layer, parameters, outputs, None),
        Pass::Training | Pass::Gradients if layer.has_batch_statistics() => {
            normalization::by_batch(layer, parameters, outputs, &mut normalizations[index]);
        }
        Pass::Training | Pass::Gradients => {
            normalization::by_running_values(layer, parameters, outputs, Some(&mut normalizations[index]));
        }
    }
}

/// Applies a mask, where there is one: 0 is that of the inputs, `index + 1` that of a layer.
fn drop_some<T: Element>(buffers: &mut Activations<T>, place: usize, tile: Tile<'_, T>, count: usize, pass: Pass) {
    let Activations { inputs, layers, drops, .. } = buffers;
    let Dropped { mask, values } = &mut drops[place];
    if values.is_empty() || pass != Pass::Training {
        return;
    }
    let from = place.checked_sub(1).map_or(tile.inputs.unwrap_or(inputs), |below| &layers[below]);
    let pairs = from[..count].iter().zip(&mask[..count]);
    values[..count].iter_mut().zip(pairs).for_each(|(value, (&from, &mask))| *value = from * mask);
}

/// z = x·W + b, and then what `then` makes of it.
#[expect(clippy::too_many_arguments)]
fn affine<T: Element>(
    workers: &Workers,
    layer: &PlanLayer,
    parameters: &[T],
    inputs: &[T],
    outputs: &mut [T],
    room: &mut [T],
    rows: usize,
    then: &(dyn Fn(&mut [T]) + Sync),
) {
    let bias = layer.layout.bias.as_ref().map(|bias| &parameters[bias.clone()]);
    product::affine(workers, layer.shape(rows), inputs, layer.weights(parameters), bias, outputs, room, then);
}

/// A network with its weights, ready to predict. Cheap to clone and to share.
#[derive(Clone, Debug)]
pub struct Network<T> {
    plan: Arc<Plan>,
    parameters: Arc<Aligned<T>>,
}

impl<T: Element> Network<T> {
    /// A network of `architecture` with `parameters` in the order of [`Architecture::layout`].
    ///
    /// # Panics
    /// Where there are more or fewer parameters than the architecture has: a bug of ours.
    pub fn new(architecture: &Architecture, parameters: impl Into<Aligned<T>>) -> Self {
        let parameters = Arc::new(parameters.into());
        assert_eq!(parameters.len(), architecture.parameter_count(), "parameters of another architecture");
        Self { plan: Arc::new(Plan::new(architecture)), parameters }
    }

    /// The parameters, flat.
    pub fn parameters(&self) -> &[T] {
        &self.parameters
    }

    /// Columns of what it predicts.
    pub fn output_width(&self) -> usize {
        self.plan.output_layer().layout.units
    }

    /// The outputs `[rows, units]` for `inputs` `[rows, input_width]`. A row's bits depend on no other row, nor on their
    /// number. Rows go through in tiles, so that what it takes beside inputs and outputs is bounded.
    pub fn predict(&self, inputs: &[T], rows: usize) -> Vec<T> {
        self.predict_with_layers(inputs, rows, &[], false).0
    }

    /// The same, with what some layers (by index) made of the rows, `[rows, units]` each: before their activation, or after.
    pub fn predict_with_layers(
        &self,
        inputs: &[T],
        rows: usize,
        wanted: &[usize],
        before_activation: bool,
    ) -> (Vec<T>, Vec<Vec<T>>) {
        let width = self.plan.input_width;
        let tile_rows = self.plan.tile_rows();
        let mut buffers = self.buffers(rows.min(tile_rows));
        let units = |layer: usize| self.plan.layers[layer].layout.units;
        let mut outputs = Vec::with_capacity(rows * self.output_width());
        let mut layers: Vec<Vec<T>> = wanted.iter().map(|&layer| Vec::with_capacity(rows * units(layer))).collect();
        for inputs in inputs[..rows * width].chunks(tile_rows * width) {
            let rows = inputs.len() / width;
            let tile = Tile { rows, inputs: Some(inputs) };
            for (index, layer) in self.plan.layers.iter().enumerate() {
                let (plan, parameters) = (&self.plan, &self.parameters);
                pre_activate(plan, parameters, &mut buffers, index, tile, Pass::Inference, &|_| {});
                let values = &mut buffers.layers[index][..rows * layer.layout.units];
                let mut tell = |is_before: bool, values: &[T]| {
                    let places = wanted.iter().zip(&mut layers).filter(|(wanted, _)| **wanted == index);
                    places.filter(|_| is_before == before_activation).for_each(|(_, to)| to.extend_from_slice(values));
                };
                tell(true, values);
                activate(layer.activation, layer.layout.units, values);
                tell(false, values);
            }
            outputs.extend_from_slice(&buffers.outputs_mut()[..rows * self.output_width()]);
        }
        self.keep(buffers, rows);
        (outputs, layers)
    }

    /// Buffers for so many rows: those that this thread kept, where it has kept any of this network.
    fn buffers(&self, rows: usize) -> Activations<T> {
        let kept = if rows <= SPARE_ROWS { SPARE.take() } else { None };
        let kept =
            kept.filter(|spare| Arc::ptr_eq(&spare.plan, &self.plan)).and_then(|spare| spare.buffers.downcast().ok());
        kept.map_or_else(|| Activations::for_predictions(&self.plan, rows.max(SPARE_ROWS)), |buffers| *buffers)
    }

    /// Keeps the buffers for the next few rows, where they are small.
    fn keep(&self, buffers: Activations<T>, rows: usize) {
        let widths: usize = self.plan.layers.iter().map(|layer| layer.layout.units).sum();
        if rows <= SPARE_ROWS && widths <= SPARE_WIDTHS_MAX {
            SPARE.set(Some(Spare { plan: self.plan.clone(), buffers: Box::new(buffers) }));
        }
    }
}

/// Rows for which buffers that a thread keeps have room.
const SPARE_ROWS: usize = 16;
/// Numbers of a row in all layers whose buffers a thread keeps: 64 KB of float32.
const SPARE_WIDTHS_MAX: usize = 1_024;

/// Buffers of a network for [`SPARE_ROWS`].
struct Spare {
    plan: Arc<Plan>,
    /// [`Activations`] in the network's type.
    buffers: Box<dyn Any>,
}

thread_local! {
    /// Of the last network that predicted a few rows on this thread: to make them takes as long as the prediction.
    static SPARE: Cell<Option<Spare>> = const { Cell::new(None) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ElementType;
    use crate::engine::initializer::draw_parameters;
    use crate::engine::testing::{ACTIVATIONS, network, uniform};

    #[test]
    fn a_pass_is_layer_after_layer_x_w_plus_b() {
        let architecture = network(ElementType::Float64, 2, &[(2, Activation::Relu), (1, Activation::Identity)]);
        // W₁ = [[1, −1], [2, 1]], b₁ = [0.5, −0.5], W₂ = [3, −2], b₂ = 0.25
        let network = Network::new(&architecture, vec![1.0, -1.0, 2.0, 1.0, 0.5, -0.5, 3.0, -2.0, 0.25]);
        // x = (1, 2): z₁ = (5.5, 0.5), z₂ = 16.5 − 1 + 0.25; x = (−1, 0): z₁ = (−0.5, 0.5)
        assert_eq!(network.predict(&[1.0, 2.0, -1.0, 0.0], 2), [15.75, -0.75]);
    }

    #[test]
    fn a_row_predicted_alone_has_the_bits_of_the_same_row_in_a_batch() {
        for (input_width, hidden) in [(2, 8), (8, 20), (40, 60), (1_100, 30), (784, 128)] {
            for last in ACTIVATIONS {
                let layers = [(hidden, Activation::Tanh), (hidden, Activation::Relu), (3, last)];
                let architecture = network(ElementType::Float32, input_width, &layers);
                let parameters = f32::vec_from(draw_parameters(&architecture, 1));
                let network = Network::new(&architecture, parameters);
                let inputs: Vec<f32> = uniform(50 * input_width, 2);
                let together = network.predict(&inputs, 50);
                for (row, expected) in inputs.chunks(input_width).zip(together.chunks(3)) {
                    assert_eq!(network.predict(row, 1), expected, "{input_width}-{hidden}-{hidden}-3 {last}");
                }
            }
        }
    }

    #[test]
    fn rows_past_one_tile_are_predicted_like_the_first() {
        let architecture = network(ElementType::Float32, 3, &[(2, Activation::Tanh)]);
        let network = Network::new(&architecture, uniform::<f32>(8, 1));
        let inputs: Vec<f32> = uniform::<f32>(3, 2).into_iter().cycle().take(3 * 2_500).collect();
        let outputs = network.predict(&inputs, 2_500);
        assert!(outputs.chunks(2).all(|row| row == &outputs[..2]) && outputs.len() == 5_000);
    }

    #[test]
    fn tiles_are_bounded_and_never_empty() {
        let rows = |width, units| Plan::new(&network(ElementType::Float32, width, &[(units, Activation::Relu)]));
        assert_eq!(rows(2, 8).tile_rows(), 1_024);
        assert_eq!(rows(60_000, 1_000).tile_rows(), 64);
    }
}
