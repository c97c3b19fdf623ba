//! The shape of a network: its layers, checked, and where their parameters lie.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::fault::{At, Faults, RealRange};
use super::initializer::Initializer;
use super::matrix::ElementType;
use crate::limits;

/// Batch normalization between x·W and the activation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchNormalization {
    /// Share of a batch in the running values.
    pub momentum: f64,
    /// Added to the variance.
    pub epsilon: f64,
}

impl BatchNormalization {
    const MOMENTUM_RANGE: RealRange = RealRange::above(0.0, 1.0);
    const EPSILON_RANGE: RealRange = RealRange::closed(1e-30, 1.0);
}

/// Batch normalization as a request brings it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RawBatchNormalization {
    /// Default 0.1.
    pub momentum: Option<f64>,
    /// Default 1e-5.
    pub epsilon: Option<f64>,
}

/// One dense layer: activation(x·W + b).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Outputs of the layer.
    pub units: usize,
    /// What is applied to each of them (softmax: to all of them together).
    pub activation: Activation,
    /// Whether b is there.
    pub bias: bool,
    /// What the weights are drawn from; `None`, by the activation, in records of models that were made before there was a choice.
    #[serde(default)]
    pub initializer: Option<Initializer>,
    /// Share of its outputs that a training step drops.
    #[serde(default)]
    pub dropout: f64,
    /// Between x·W and the activation.
    #[serde(default)]
    pub batch_normalization: Option<BatchNormalization>,
    /// The largest norm of a unit's incoming weights.
    #[serde(default)]
    pub max_norm: Option<f64>,
    /// Whether no training changes it.
    #[serde(default)]
    pub frozen: bool,
}

impl Layer {
    /// What the weights are drawn from.
    pub fn initializer(&self) -> Initializer {
        self.initializer.unwrap_or(Initializer::default_for(self.activation))
    }
}

/// A layer as a request brings it.
#[derive(Clone, Debug, Default)]
pub struct RawLayer {
    /// Outputs of the layer.
    pub units: i64,
    /// Leaky ReLU and ELU with their default α, which `activation_alpha` may replace.
    pub activation: Activation,
    /// α, where it was given.
    pub activation_alpha: Option<f64>,
    /// Whether b is there. Default: unless there is batch normalization.
    pub bias: Option<bool>,
    /// Default by the activation.
    pub initializer: Option<Initializer>,
    /// Default 0.
    pub dropout: Option<f64>,
    /// Default none.
    pub batch_normalization: Option<RawBatchNormalization>,
    /// Default none.
    pub max_norm: Option<f64>,
    /// Whether no training changes it.
    pub frozen: bool,
}

/// A network as a request describes it.
#[derive(Clone, Debug, Default)]
pub struct RawArchitecture {
    /// Columns of the input.
    pub input_width: i64,
    /// The type to compute in.
    pub element_type: ElementType,
    /// The layers, first to last; `None` where one could not be read (its fault is told already).
    pub layers: Vec<Option<RawLayer>>,
    /// Default 0.
    pub input_dropout: Option<f64>,
}

/// The shape of a network: at least one layer, each width and the number of parameters within bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    input_width: usize,
    element_type: ElementType,
    layers: Vec<Layer>,
    #[serde(default)]
    input_dropout: f64,
}

/// Where a layer's parameters lie in the network's flat buffer. What a training changes comes first, layer after layer: W
/// row-major, b, γ, β; the running values of all layers' batch normalizations come last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerLayout {
    /// Rows of W.
    pub inputs: usize,
    /// Columns of W, and elements of b.
    pub units: usize,
    /// W, as a `[inputs, units]` matrix.
    pub weights: Range<usize>,
    /// b, where the layer has one.
    pub bias: Option<Range<usize>>,
    /// Batch normalization, where the layer has one.
    pub normalization: Option<NormalizationLayout>,
}

/// Where the four vectors of a batch normalization lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalizationLayout {
    /// γ.
    pub scale: Range<usize>,
    /// β.
    pub shift: Range<usize>,
    /// The running mean.
    pub mean: Range<usize>,
    /// The running variance.
    pub variance: Range<usize>,
}

impl LayerLayout {
    /// Everything that a training changes: one run of the buffer.
    pub fn trainable(&self) -> Range<usize> {
        let end = match (&self.normalization, &self.bias) {
            (Some(normalization), _) => normalization.shift.end,
            (None, Some(bias)) => bias.end,
            (None, None) => self.weights.end,
        };
        self.weights.start..end
    }
}

impl RawArchitecture {
    /// Checks widths, the number of parameters, and that each activation stands where it can.
    pub fn check(&self, at: At<'_>, faults: &mut Faults) -> Option<Architecture> {
        let width = 1..=limits::WIDTH_MAX as i64;
        let layers_at = at.field("layers");
        let input_width = faults.whole(at.field("input_width"), self.input_width, width.clone());
        if self.layers.is_empty() || self.layers.len() > limits::LAYERS_MAX {
            let (count, max) = (self.layers.len(), limits::LAYERS_MAX);
            faults.add(layers_at, format!("needs between 1 and {max} layers, but has {count}"));
            return None;
        }
        let last = self.layers.len() - 1;
        let layers: Vec<Option<Layer>> = (self.layers.iter().enumerate())
            .map(|(index, layer)| layer.as_ref()?.check(index == last, layers_at.index(index), faults))
            .collect();
        let input_dropout = check_dropout(self.input_dropout, at.field("input_dropout"), faults);
        let layers = layers.into_iter().collect::<Option<Vec<Layer>>>()?;
        let architecture = Architecture {
            input_width: input_width? as usize,
            element_type: self.element_type,
            layers,
            input_dropout: input_dropout?,
        };
        let (count, max) = (architecture.parameter_count(), limits::PARAMETERS_MAX);
        if count > max {
            faults.add(layers_at, format!("make {count} parameters, more than the {max} that a model may have"));
            return None;
        }
        Some(architecture)
    }
}

impl RawLayer {
    fn check(&self, is_last: bool, at: At<'_>, faults: &mut Faults) -> Option<Layer> {
        let units = faults.whole(at.field("units"), self.units, 1..=limits::WIDTH_MAX as i64);
        let activation = self.check_activation(at, faults);
        let initializer = match self.initializer {
            None => activation.map(Initializer::default_for),
            Some(initializer) => initializer.check(at.field("initializer"), faults),
        };
        let dropout = self.check_dropout(is_last, at, faults);
        let normalization = self.check_normalization(at, faults);
        let max_norm = match self.max_norm {
            None => Some(None),
            Some(bound) => faults.real(at.field("max_norm"), bound, RealRange::MAGNITUDE).map(Some),
        };
        let (units, activation) = (units? as usize, activation?);
        Self::check_place(units, activation, is_last, at, faults)?;
        let batch_normalization = normalization?;
        Some(Layer {
            units,
            activation,
            bias: self.bias.unwrap_or(batch_normalization.is_none()),
            initializer: Some(initializer?),
            dropout: dropout?,
            batch_normalization,
            max_norm: max_norm?,
            frozen: self.frozen,
        })
    }

    /// Softmax and its logarithm go over two classes or more, in the last layer.
    fn check_place(units: usize, activation: Activation, is_last: bool, at: At<'_>, faults: &mut Faults) -> Option<()> {
        if activation.is_over_rows() && !is_last {
            let message = format!("{activation} can only be the last layer's; use ReLU or tanh in hidden layers");
            faults.add(at.field("activation"), message);
            return None;
        }
        if activation.is_over_rows() && units < 2 {
            let message = format!("must be at least 2 with {activation}: one unit would always say 1; use sigmoid");
            faults.add(at.field("units"), message);
            return None;
        }
        Some(())
    }

    fn check_dropout(&self, is_last: bool, at: At<'_>, faults: &mut Faults) -> Option<f64> {
        let at = at.field("dropout");
        let dropout = check_dropout(self.dropout, at, faults)?;
        if is_last && dropout > 0.0 {
            faults
                .add(at, "would drop what the network says: leave it out in the last layer, and use it in hidden ones");
            return None;
        }
        Some(dropout)
    }

    fn check_normalization(&self, at: At<'_>, faults: &mut Faults) -> Option<Option<BatchNormalization>> {
        let Some(raw) = self.batch_normalization else { return Some(None) };
        if self.bias == Some(true) {
            faults.add(
                at.field("bias"),
                "does nothing before batch normalization, which takes the mean out: leave it out",
            );
            return None;
        }
        let at = at.field("batch_normalization");
        let momentum = raw.momentum.unwrap_or(0.1);
        let momentum = faults.real(at.field("momentum"), momentum, BatchNormalization::MOMENTUM_RANGE);
        let epsilon = raw.epsilon.unwrap_or(1e-5);
        let epsilon = faults.real(at.field("epsilon"), epsilon, BatchNormalization::EPSILON_RANGE);
        Some(Some(BatchNormalization { momentum: momentum?, epsilon: epsilon? }))
    }

    fn check_activation(&self, at: At<'_>, faults: &mut Faults) -> Option<Activation> {
        let at = at.field("activation_alpha");
        let Some(alpha) = self.activation_alpha else { return Some(self.activation) };
        match self.activation {
            Activation::LeakyRelu { .. } => {
                faults.real(at, alpha, Activation::ALPHA_RANGE).map(|alpha| Activation::LeakyRelu { alpha })
            }
            Activation::Elu { .. } => {
                faults.real(at, alpha, Activation::ALPHA_RANGE).map(|alpha| Activation::Elu { alpha })
            }
            other => {
                faults.add(at, format!("has no meaning for {other}: leave it out, or use Leaky ReLU or ELU"));
                None
            }
        }
    }
}

fn check_dropout(share: Option<f64>, at: At<'_>, faults: &mut Faults) -> Option<f64> {
    faults.real(at, share.unwrap_or(0.0), RealRange::below(0.0, 1.0))
}

impl Architecture {
    /// Columns of the input.
    pub fn input_width(&self) -> usize {
        self.input_width
    }

    /// The type to compute in.
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// The layers, first to last; at least one.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The last layer.
    pub fn output_layer(&self) -> Layer {
        self.layers[self.layers.len() - 1]
    }

    /// Columns of the output.
    pub fn output_width(&self) -> usize {
        self.output_layer().units
    }

    /// Inputs and units of each layer.
    fn widths(&self) -> impl Iterator<Item = (usize, Layer)> + '_ {
        let inputs = std::iter::once(self.input_width).chain(self.layers.iter().map(|layer| layer.units));
        inputs.zip(self.layers.iter().copied())
    }

    /// Share of the inputs that a training step drops.
    pub fn input_dropout(&self) -> f64 {
        self.input_dropout
    }

    /// Whether a training step drops anything.
    pub fn has_dropout(&self) -> bool {
        self.input_dropout > 0.0 || self.layers.iter().any(|layer| layer.dropout > 0.0)
    }

    /// Whether any layer normalizes its batches.
    pub fn has_batch_normalization(&self) -> bool {
        self.layers.iter().any(|layer| layer.batch_normalization.is_some())
    }

    /// Weights, biases, γ and β: what a training changes. Cannot overflow: at most 256 layers of 65,536².
    pub fn trainable_count(&self) -> usize {
        let vectors = |layer: Layer| usize::from(layer.bias) + 2 * usize::from(layer.batch_normalization.is_some());
        self.widths().map(|(inputs, layer)| (inputs + vectors(layer)) * layer.units).sum()
    }

    /// Numbers in the flat buffer: what a training changes, and the running values of batch normalizations.
    pub fn parameter_count(&self) -> usize {
        let normalized = self.layers.iter().filter(|layer| layer.batch_normalization.is_some());
        self.trainable_count() + normalized.map(|layer| 2 * layer.units).sum::<usize>()
    }

    /// Where each layer's parameters lie in the flat buffer, in layer order.
    pub fn layout(&self) -> Vec<LayerLayout> {
        let take = |next: &mut usize, count: usize| {
            let range = *next..*next + count;
            *next += count;
            range
        };
        let (mut next, mut next_statistic) = (0, self.trainable_count());
        self.widths()
            .map(|(inputs, layer)| {
                let units = layer.units;
                let weights = take(&mut next, inputs * units);
                let bias = layer.bias.then(|| take(&mut next, units));
                let normalization = layer.batch_normalization.map(|_| NormalizationLayout {
                    scale: take(&mut next, units),
                    shift: take(&mut next, units),
                    mean: take(&mut next_statistic, units),
                    variance: take(&mut next_statistic, units),
                });
                LayerLayout { inputs, units, weights, bias, normalization }
            })
            .collect()
    }

    /// The runs of the flat buffer that a training changes: those of layers that are not frozen, neither by the architecture nor
    /// by being named. Neighbours are joined, so that a network without frozen layers is one run.
    pub fn trainable_segments(&self, frozen: &[u32]) -> Vec<Range<usize>> {
        let mut segments: Vec<Range<usize>> = Vec::new();
        for (index, (layer, layout)) in self.layers.iter().zip(self.layout()).enumerate() {
            if layer.frozen || frozen.contains(&(index as u32)) {
                continue;
            }
            let run = layout.trainable();
            match segments.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => segments.push(run),
            }
        }
        segments
    }

    /// How many classes the output tells apart; `None` for a regressor or several independent labels.
    pub fn class_count(&self) -> Option<usize> {
        let Layer { units, activation, .. } = self.output_layer();
        activation.is_classifier(units).then_some(units.max(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(input_width: i64, layers: &[(i64, Activation)]) -> RawArchitecture {
        let layer = |&(units, activation): &(i64, Activation)| RawLayer { units, activation, ..RawLayer::default() };
        let layers = layers.iter().map(|it| Some(layer(it))).collect();
        RawArchitecture { input_width, layers, ..RawArchitecture::default() }
    }

    fn fault_path(raw: &RawArchitecture) -> String {
        let mut faults = Faults::new();
        assert_eq!(raw.check(At::ROOT.field("architecture"), &mut faults), None);
        faults.as_slice()[0].path.clone()
    }

    #[test]
    fn parameters_lie_layer_after_layer_weights_before_bias() {
        let mut raw = raw(2, &[(3, Activation::Relu), (1, Activation::Sigmoid)]);
        raw.layers[1].as_mut().unwrap().bias = Some(false);
        let architecture = raw.check(At::ROOT, &mut Faults::new()).unwrap();
        let layout = architecture.layout();
        assert_eq!((layout[0].weights.clone(), layout[0].bias.clone()), (0..6, Some(6..9)));
        assert_eq!((layout[1].weights.clone(), layout[1].bias.clone()), (9..12, None));
        assert_eq!(architecture.parameter_count(), 12);
    }

    #[test]
    fn what_cannot_be_built_is_refused_with_its_path() {
        use Activation::{Identity, Relu, Sigmoid, Softmax};
        assert_eq!(fault_path(&raw(0, &[(1, Identity)])), "architecture.input_width");
        assert_eq!(fault_path(&raw(2, &[])), "architecture.layers");
        assert_eq!(fault_path(&raw(2, &[(4, Relu), (0, Sigmoid)])), "architecture.layers[1].units");
        assert_eq!(fault_path(&raw(2, &[(65_537, Relu)])), "architecture.layers[0].units");
        assert_eq!(fault_path(&raw(2, &[(3, Softmax), (1, Sigmoid)])), "architecture.layers[0].activation");
        assert_eq!(fault_path(&raw(2, &[(1, Softmax)])), "architecture.layers[0].units");
        assert_eq!(fault_path(&raw(65_536, &[(65_536, Relu), (65_536, Relu)])), "architecture.layers");
        let mut sloped = raw(2, &[(1, Relu)]);
        sloped.layers[0].as_mut().unwrap().activation_alpha = Some(0.1);
        assert_eq!(fault_path(&sloped), "architecture.layers[0].activation_alpha");
    }

    #[test]
    fn running_values_lie_behind_all_that_is_trained() {
        let mut raw = raw(2, &[(3, Activation::Relu), (2, Activation::Relu), (1, Activation::Sigmoid)]);
        raw.layers[0].as_mut().unwrap().batch_normalization = Some(RawBatchNormalization::default());
        raw.layers[1].as_mut().unwrap().frozen = true;
        let architecture = raw.check(At::ROOT, &mut Faults::new()).unwrap();
        let layout = architecture.layout();
        let normalization = layout[0].normalization.clone().unwrap();
        assert_eq!((layout[0].weights.clone(), layout[0].bias.clone()), (0..6, None));
        assert_eq!((normalization.scale, normalization.shift), (6..9, 9..12));
        assert_eq!((layout[1].trainable(), layout[2].trainable()), (12..20, 20..23));
        assert_eq!((normalization.mean, normalization.variance), (23..26, 26..29));
        assert_eq!((architecture.trainable_count(), architecture.parameter_count()), (23, 29));
        assert_eq!(architecture.trainable_segments(&[]), [0..12, 20..23]);
        assert!(architecture.trainable_segments(&[0, 2]).is_empty());
    }

    #[test]
    fn options_of_layers_are_checked_where_they_stand() {
        let with = |change: &dyn Fn(&mut RawLayer)| {
            let mut raw = raw(2, &[(3, Activation::Relu), (2, Activation::Softmax)]);
            change(raw.layers[0].as_mut().unwrap());
            fault_path(&raw)
        };
        let first = "architecture.layers[0]";
        assert_eq!(with(&|layer| layer.dropout = Some(1.0)), format!("{first}.dropout"));
        assert_eq!(with(&|layer| layer.max_norm = Some(0.0)), format!("{first}.max_norm"));
        let gain = Initializer::Orthogonal { gain: 0.0 };
        assert_eq!(with(&|layer| layer.initializer = Some(gain)), format!("{first}.initializer.orthogonal.gain"));
        let bounds = Initializer::Uniform { minimum: 1.0, maximum: 0.0 };
        assert_eq!(with(&|layer| layer.initializer = Some(bounds)), format!("{first}.initializer.uniform.maximum"));
        let normalized = |layer: &mut RawLayer| layer.batch_normalization = Some(RawBatchNormalization::default());
        let biased = |layer: &mut RawLayer| {
            normalized(layer);
            layer.bias = Some(true);
        };
        assert_eq!(with(&biased), format!("{first}.bias"));
        let momentum = RawBatchNormalization { momentum: Some(0.0), epsilon: None };
        let wrong = |layer: &mut RawLayer| layer.batch_normalization = Some(momentum);
        assert_eq!(with(&wrong), format!("{first}.batch_normalization.momentum"));
        let mut dropped = raw(2, &[(1, Activation::Sigmoid)]);
        dropped.layers[0].as_mut().unwrap().dropout = Some(0.5);
        assert_eq!(fault_path(&dropped), format!("{first}.dropout"));
        dropped.layers[0].as_mut().unwrap().dropout = None;
        dropped.input_dropout = Some(-0.1);
        assert_eq!(fault_path(&dropped), "architecture.input_dropout");
    }
}
