//! Networks as they are described, before any mathematics.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::fault::{At, Faults, RealRange};
use super::matrix::ElementType;
use super::name::ModelId;
use super::preprocessing::{FittedPreprocessing, Preprocessing};
use super::report::EpochReport;
use super::time::Timestamp;
use crate::limits;

/// What a layer applies to x·W + b.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// z
    Identity,
    /// −1, 0 or 1 by the sign of z; sign(0) = 0
    Sign,
    /// 1 where z > 0, else 0
    Step,
    /// 1 / (1 + e^−z)
    Sigmoid,
    /// tanh z
    Tanh,
    /// max(0, z)
    Relu,
    /// z where z > 0, else α·z
    LeakyRelu {
        /// Slope for z ≤ 0.
        alpha: f64,
    },
    /// z where z > 0, else α·(e^z − 1)
    Elu {
        /// What −z saturates to.
        alpha: f64,
    },
    /// λ·z where z > 0, else λ·α·(e^z − 1), with fixed λ and α
    Selu,
    /// ln(1 + e^z)
    Softplus,
    /// z / (1 + |z|)
    Softsign,
    /// e^z
    Exponential,
    /// min(max(z + 3, 0), 6) / 6
    HardSigmoid,
    /// e^z over the sum of e^z of the row; in the last layer only
    Softmax,
}

impl Activation {
    /// Default slope of Leaky ReLU.
    pub const LEAKY_RELU_ALPHA_DEFAULT: f64 = 0.01;
    /// Default α of ELU.
    pub const ELU_ALPHA_DEFAULT: f64 = 1.0;
    /// Range of both.
    pub const ALPHA_RANGE: RealRange = RealRange::closed(0.0, 1_000.0);

    /// Whether backpropagation can pass through it: sign and step are flat, so no gradient comes back.
    pub fn has_gradient(self) -> bool {
        !matches!(self, Self::Sign | Self::Step)
    }

    /// Whether an output layer of `units` of it names a class.
    pub fn is_classifier(self, units: usize) -> bool {
        match self {
            Self::Softmax => true,
            Self::Sigmoid | Self::Sign | Self::Step => units == 1,
            Self::Identity
            | Self::Tanh
            | Self::Relu
            | Self::LeakyRelu { .. }
            | Self::Elu { .. }
            | Self::Selu
            | Self::Softplus
            | Self::Softsign
            | Self::Exponential
            | Self::HardSigmoid => false,
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Sign => "sign",
            Self::Step => "step",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Relu => "ReLU",
            Self::LeakyRelu { .. } => "Leaky ReLU",
            Self::Elu { .. } => "ELU",
            Self::Selu => "SELU",
            Self::Softplus => "softplus",
            Self::Softsign => "softsign",
            Self::Exponential => "exponential",
            Self::HardSigmoid => "hard sigmoid",
            Self::Softmax => "softmax",
        })
    }
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
}

/// A layer as a request brings it.
#[derive(Clone, Debug)]
pub struct RawLayer {
    /// Outputs of the layer.
    pub units: i64,
    /// Leaky ReLU and ELU with their default α, which `activation_alpha` may replace.
    pub activation: Activation,
    /// α, where it was given.
    pub activation_alpha: Option<f64>,
    /// Whether b is there.
    pub bias: bool,
}

/// A network as a request describes it.
#[derive(Clone, Debug)]
pub struct RawArchitecture {
    /// Columns of the input.
    pub input_width: i64,
    /// The type to compute in.
    pub element_type: ElementType,
    /// The layers, first to last; `None` where one could not be read (its fault is told already).
    pub layers: Vec<Option<RawLayer>>,
}

/// The shape of a network: at least one layer, each width and the number of parameters within bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    input_width: usize,
    element_type: ElementType,
    layers: Vec<Layer>,
}

/// Where a layer's parameters lie in the network's flat buffer: W row-major, then b.
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
        let layers = layers.into_iter().collect::<Option<Vec<Layer>>>()?;
        let architecture = Architecture { input_width: input_width? as usize, element_type: self.element_type, layers };
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
        let (units, activation) = (units? as usize, activation?);
        if activation == Activation::Softmax && !is_last {
            faults
                .add(at.field("activation"), "softmax can only be the last layer's; use ReLU or tanh in hidden layers");
            return None;
        }
        if activation == Activation::Softmax && units < 2 {
            faults.add(at.field("units"), "must be at least 2 with softmax: one unit would always say 1; use sigmoid");
            return None;
        }
        Some(Layer { units, activation, bias: self.bias })
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

    /// Weights and biases. Cannot overflow: at most 256 layers of 65,536².
    pub fn parameter_count(&self) -> usize {
        self.widths().map(|(inputs, layer)| (inputs + usize::from(layer.bias)) * layer.units).sum()
    }

    /// Where each layer's parameters lie in the flat buffer, in layer order.
    pub fn layout(&self) -> Vec<LayerLayout> {
        let mut next = 0;
        let mut take = |count: usize| {
            let range = next..next + count;
            next += count;
            range
        };
        self.widths()
            .map(|(inputs, layer)| LayerLayout {
                inputs,
                units: layer.units,
                weights: take(inputs * layer.units),
                bias: layer.bias.then(|| take(layer.units)),
            })
            .collect()
    }

    /// How many classes the output tells apart; `None` for a regressor or several independent labels.
    pub fn class_count(&self) -> Option<usize> {
        let Layer { units, activation, .. } = self.output_layer();
        activation.is_classifier(units).then_some(units.max(2))
    }
}

/// A model: an architecture and its versions, under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The caller's name for it.
    pub model_id: ModelId,
    /// Ours: a name may be used again after a deletion, a uid never.
    pub uid: Uuid,
    /// The network's shape.
    pub architecture: Architecture,
    /// What the initial weights were drawn from.
    pub seed: u64,
    /// The newest version; 1 is the initial weights.
    pub latest_version: u32,
    /// Names of the classes, in the order of their indices; empty where none were given.
    pub class_labels: Vec<String>,
    /// How inputs and targets are scaled.
    pub preprocessing: Preprocessing,
    /// The caller's own notes.
    pub labels: BTreeMap<String, String>,
    /// When it was created.
    pub create_time: Timestamp,
    /// When its latest version was committed.
    pub update_time: Timestamp,
}

/// Where a version's weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum VersionSource {
    /// Drawn, or given, at creation.
    Initial,
    /// Given by `SetWeights`.
    Set,
    /// Trained.
    Training {
        /// By this job.
        job_id: Uuid,
        /// The report of the epoch whose weights these are.
        report: Box<EpochReport>,
    },
}

/// An immutable set of weights with its preprocessing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its number, from 1.
    pub version: u32,
    /// The version that it started from; `None` for the first.
    pub base_version: Option<u32>,
    /// Where the weights come from.
    pub source: VersionSource,
    /// What was learned of the data before the weights; `None` before the first training.
    pub preprocessing: Option<FittedPreprocessing>,
    /// When it was committed.
    pub create_time: Timestamp,
}

/// Checks the names of classes against what the output tells apart.
pub fn check_class_labels(labels: &[String], architecture: &Architecture, at: At<'_>, faults: &mut Faults) {
    if labels.is_empty() {
        return;
    }
    match architecture.class_count() {
        None => faults.add(at, "has no meaning for this output: leave it out, or end in softmax or one sigmoid unit"),
        Some(count) if count != labels.len() => {
            faults.add(at, format!("needs {count} labels, one a class, but has {}", labels.len()));
        }
        Some(_) => {
            let mut seen = HashSet::new();
            for (index, label) in labels.iter().enumerate() {
                if label.is_empty() || label.len() > limits::LABEL_BYTES_MAX {
                    faults.add(at.index(index), format!("must have 1 to {} bytes", limits::LABEL_BYTES_MAX));
                } else if !seen.insert(label) {
                    faults.add(at.index(index), format!("repeats the label {label:?}"));
                }
            }
        }
    }
}

/// Checks the caller's own notes.
pub fn check_labels(labels: &BTreeMap<String, String>, at: At<'_>, faults: &mut Faults) {
    if labels.len() > limits::LABELS_MAX {
        faults.add(at, format!("may hold {} entries at most, but has {}", limits::LABELS_MAX, labels.len()));
    }
    let too_long = |text: &String| text.len() > limits::LABEL_BYTES_MAX;
    if labels.iter().any(|(key, value)| key.is_empty() || too_long(key) || too_long(value)) {
        faults.add(at, format!("keys must have 1 to {0} bytes, values at most {0}", limits::LABEL_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(input_width: i64, layers: &[(i64, Activation)]) -> RawArchitecture {
        let layer = |&(units, activation): &(i64, Activation)| RawLayer {
            units,
            activation,
            activation_alpha: None,
            bias: true,
        };
        let layers = layers.iter().map(|it| Some(layer(it))).collect();
        RawArchitecture { input_width, element_type: ElementType::Float32, layers }
    }

    fn fault_path(raw: &RawArchitecture) -> String {
        let mut faults = Faults::new();
        assert_eq!(raw.check(At::ROOT.field("architecture"), &mut faults), None);
        faults.as_slice()[0].path.clone()
    }

    #[test]
    fn parameters_lie_layer_after_layer_weights_before_bias() {
        let mut raw = raw(2, &[(3, Activation::Relu), (1, Activation::Sigmoid)]);
        raw.layers[1].as_mut().unwrap().bias = false;
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
}
