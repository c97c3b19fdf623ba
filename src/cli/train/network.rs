//! What the command line says of the network, and the shape that comes of it.

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::dataset::Task;
use super::regularization::RegularizationArgs;
use super::words::{self, Activation};
use crate::rpc::{json, pb};

/// The network.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// Units of the hidden layers, first to last.
    #[arg(long, value_name = "UNITS", value_delimiter = ',', default_value = "64")]
    hidden: Vec<i32>,

    /// No hidden layers: a linear model, or a perceptron.
    #[arg(long, conflicts_with_all = ["hidden", "activation", "batch_normalization", "dropout", "max_norm"])]
    no_hidden: bool,

    /// What hidden layers apply, such as tanh or leaky_relu:alpha=0.1.
    #[arg(long, value_name = "NAME", default_value = "relu", value_parser = words::activation)]
    #[arg(long_help = words::words_help::<pb::Activation>("What hidden layers apply, such as tanh or leaky_relu:alpha=0.1."))]
    activation: Activation,

    /// What the output applies [default: softmax for classes, identity for numbers].
    ///
    /// For two classes any but softmax and log_softmax takes one unit.
    #[arg(long, value_name = "NAME", value_parser = words::activation)]
    output_activation: Option<Activation>,

    /// What initial weights are drawn from, such as orthogonal:gain=1.4 [default: by the activation].
    #[arg(long, value_name = "INITIALIZER", value_parser = words::choice::<pb::Initializer>)]
    #[arg(long_help = words::choices_help::<pb::Initializer>("What the initial weights of every layer are drawn from [default: by the activation]."))]
    initializer: Option<pb::Initializer>,

    /// Normalize each batch in the hidden layers; may say how: momentum=0.2,epsilon=1e-3.
    #[arg(long, value_name = "SETTINGS", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(value_parser = words::settings::<pb::BatchNormalization>)]
    batch_normalization: Option<pb::BatchNormalization>,

    /// The type in which the network computes: float32 or float64.
    #[arg(long, value_name = "TYPE", default_value = "float32", value_parser = words::word::<pb::ElementType>)]
    element_type: pb::ElementType,

    /// How input columns are scaled: standard, min_max or none.
    #[arg(long, value_name = "SCALING", default_value = "standard", value_parser = words::choice::<pb::Scaling>)]
    pub(super) scale_inputs: pb::Scaling,

    /// How a numeric target is scaled [default: standard, or none where output or loss need it as it is].
    #[arg(long, value_name = "SCALING", value_parser = words::choice::<pb::Scaling>)]
    pub(super) scale_target: Option<pb::Scaling>,

    /// Anything else of the architecture: JSON of an epochd.v1.Architecture, laid over it.
    ///
    /// A list takes the place of the one before, and null takes a field away.
    #[arg(long, value_name = "JSON", value_parser = words::patch::<pb::Architecture>)]
    architecture: Option<Value>,
}

impl NetworkArgs {
    /// The shape of the network for a task.
    pub fn architecture(
        &self,
        input_width: i32,
        task: &Task,
        regularization: &RegularizationArgs,
    ) -> anyhow::Result<pb::Architecture> {
        let hidden = if self.no_hidden { &[] } else { self.hidden.as_slice() };
        let mut layers: Vec<pb::Layer> = hidden.iter().map(|&units| self.hidden_layer(units, regularization)).collect();
        layers.push(self.output_layer(task)?);
        let mut architecture = pb::Architecture {
            input_width,
            element_type: self.element_type.into(),
            layers,
            input_dropout: regularization.input_dropout,
        };
        if let Some(patch) = &self.architecture {
            json::merge(&mut architecture, patch).context("--architecture does not fit")?;
        }
        Ok(architecture)
    }

    fn hidden_layer(&self, units: i32, regularization: &RegularizationArgs) -> pb::Layer {
        pb::Layer {
            units,
            activation: self.activation.kind.into(),
            activation_alpha: self.activation.alpha,
            initializer: self.initializer,
            dropout: regularization.dropout,
            batch_normalization: self.batch_normalization,
            max_norm: regularization.max_norm,
            ..pb::Layer::default()
        }
    }

    fn output_layer(&self, task: &Task) -> anyhow::Result<pb::Layer> {
        let usual = match task {
            Task::Regression => pb::Activation::Identity,
            Task::Classification(_) => pb::Activation::Softmax,
        };
        let Activation { kind, alpha } = self.output_activation.unwrap_or(Activation { kind: usual, alpha: None });
        Ok(pb::Layer {
            units: output_units(task, kind)?,
            activation: kind.into(),
            activation_alpha: alpha,
            initializer: self.initializer,
            ..pb::Layer::default()
        })
    }
}

fn output_units(task: &Task, activation: pb::Activation) -> anyhow::Result<i32> {
    match task {
        Task::Regression => Ok(1),
        Task::Classification(classes) if is_softmax(activation) => Ok(classes.len() as i32),
        Task::Classification(classes) if classes.len() == 2 => Ok(1),
        Task::Classification(classes) => bail!(
            "--output-activation {} tells two classes apart, but there are {}; use softmax or log_softmax",
            words::word_of::<pb::Activation>(activation.into()),
            classes.len()
        ),
    }
}

fn is_softmax(activation: pb::Activation) -> bool {
    matches!(activation, pb::Activation::Softmax | pb::Activation::LogSoftmax)
}

/// What the last layer applies.
pub fn output_activation(architecture: &pb::Architecture) -> pb::Activation {
    match architecture.layers.last().map(pb::Layer::activation) {
        None | Some(pb::Activation::Unspecified) => pb::Activation::Identity,
        Some(activation) => activation,
    }
}

/// Whether the server says classes, by their names, of what comes out.
pub fn tells_classes(activation: pb::Activation) -> bool {
    use pb::Activation::{Sigmoid, Sign, Step};
    is_softmax(activation) || matches!(activation, Sigmoid | Sign | Step)
}
