//! Models and weights from the wire.

use super::known;
use super::matrix::{Encoding, element_type, raw_matrix, required_matrix};
use crate::app::{CreateModel, PredictRequest, RawLayerParameters, RawNormalizationParameters};
use crate::domain::{
    Activation, At, Faults, Initializer, ModelId, Preprocessing, RawArchitecture, RawBatchNormalization, RawLayer,
    Scaling,
};
use crate::rpc::pb;

/// The name of a model.
pub(in crate::rpc) fn model_id(name: &str) -> Result<ModelId, Faults> {
    let mut faults = Faults::new();
    let model_id = ModelId::new(name, At::ROOT.field("model_id"), &mut faults);
    faults.finish(model_id)
}

/// A model to create.
pub(in crate::rpc) fn create_model(request: pb::CreateModelRequest) -> Result<CreateModel, Faults> {
    let mut faults = Faults::new();
    let at = At::ROOT;
    let model_id = match request.model_id.as_str() {
        "" => Some(None),
        name => ModelId::new(name, at.field("model_id"), &mut faults).map(Some),
    };
    let architecture = architecture(request.architecture, at.field("architecture"), &mut faults);
    if let (Some(architecture), false) = (&architecture, faults.is_empty()) {
        // What the domain would find wrong is told in the same answer. Unreadable layers keep their places in it.
        architecture.check(at.field("architecture"), &mut faults);
    }
    let initial_weights = layer_parameters(request.initial_weights, at.field("initial_weights"), &mut faults);
    let preprocessing = preprocessing(request.preprocessing.unwrap_or_default());
    let labels = request.labels.into_iter().collect();
    let created = model_id.zip(architecture).zip(initial_weights).map(|((model_id, architecture), initial_weights)| {
        let (seed, class_labels) = (request.seed, request.class_labels);
        CreateModel { model_id, architecture, seed, initial_weights, class_labels, preprocessing, labels }
    });
    faults.finish(created)
}

fn architecture(message: Option<pb::Architecture>, at: At<'_>, faults: &mut Faults) -> Option<RawArchitecture> {
    if message.is_none() {
        faults.add(at, "is required: an input_width and layers");
    }
    let message = message?;
    let element_type = element_type(message.element_type, at.field("element_type"), faults);
    let layers_at = at.field("layers");
    let layers =
        message.layers.iter().enumerate().map(|(index, it)| layer(it, layers_at.index(index), faults)).collect();
    Some(RawArchitecture {
        input_width: message.input_width.into(),
        element_type: element_type?,
        layers,
        input_dropout: message.input_dropout,
    })
}

fn layer(message: &pb::Layer, at: At<'_>, faults: &mut Faults) -> Option<RawLayer> {
    let activation = match known(message.activation, at.field("activation"), faults)? {
        pb::Activation::Unspecified | pb::Activation::Identity => Activation::Identity,
        pb::Activation::Sign => Activation::Sign,
        pb::Activation::Step => Activation::Step,
        pb::Activation::Sigmoid => Activation::Sigmoid,
        pb::Activation::Tanh => Activation::Tanh,
        pb::Activation::Relu => Activation::Relu,
        pb::Activation::LeakyRelu => Activation::LeakyRelu { alpha: Activation::LEAKY_RELU_ALPHA_DEFAULT },
        pb::Activation::Elu => Activation::Elu { alpha: Activation::ELU_ALPHA_DEFAULT },
        pb::Activation::Selu => Activation::Selu,
        pb::Activation::Softplus => Activation::Softplus,
        pb::Activation::Softsign => Activation::Softsign,
        pb::Activation::Exponential => Activation::Exponential,
        pb::Activation::HardSigmoid => Activation::HardSigmoid,
        pb::Activation::Softmax => Activation::Softmax,
        pb::Activation::Gelu => Activation::Gelu,
        pb::Activation::GeluTanh => Activation::GeluTanh,
        pb::Activation::Silu => Activation::Silu,
        pb::Activation::Mish => Activation::Mish,
        pb::Activation::LogSoftmax => Activation::LogSoftmax,
    };
    let initializer = match message.initializer.as_ref().and_then(|it| it.method.as_ref()) {
        None => None,
        Some(method) => Some(initializer(method, at.field("initializer"), faults)?),
    };
    let normalization = message.batch_normalization.as_ref();
    Some(RawLayer {
        units: message.units.into(),
        activation,
        activation_alpha: message.activation_alpha,
        bias: message.bias,
        initializer,
        dropout: message.dropout,
        batch_normalization: normalization
            .map(|&pb::BatchNormalization { momentum, epsilon }| RawBatchNormalization { momentum, epsilon }),
        max_norm: message.max_norm,
        frozen: message.frozen,
    })
}

fn initializer(method: &pb::initializer::Method, at: At<'_>, faults: &mut Faults) -> Option<Initializer> {
    use pb::initializer::Method;
    Some(match method {
        Method::Zeros(_) => Initializer::Zeros,
        Method::Constant(pb::ConstantInitializer { value: Some(value) }) => Initializer::Constant { value: *value },
        Method::Constant(_) => {
            faults.add(at.field("constant").field("value"), "is required: what every weight is to be");
            return None;
        }
        Method::Uniform(uniform) => {
            Initializer::Uniform { minimum: uniform.minimum.unwrap_or(-0.05), maximum: uniform.maximum.unwrap_or(0.05) }
        }
        Method::Normal(normal) => {
            Initializer::Normal { mean: normal.mean.unwrap_or(0.0), deviation: normal.deviation.unwrap_or(0.05) }
        }
        Method::GlorotUniform(_) => Initializer::GlorotUniform,
        Method::GlorotNormal(_) => Initializer::GlorotNormal,
        Method::HeUniform(_) => Initializer::HeUniform,
        Method::HeNormal(_) => Initializer::HeNormal,
        Method::LecunUniform(_) => Initializer::LecunUniform,
        Method::LecunNormal(_) => Initializer::LecunNormal,
        Method::Orthogonal(orthogonal) => Initializer::Orthogonal { gain: orthogonal.gain.unwrap_or(1.0) },
    })
}

fn preprocessing(message: pb::Preprocessing) -> Preprocessing {
    let scaling = |message: Option<pb::Scaling>| match message.and_then(|scaling| scaling.method) {
        None | Some(pb::scaling::Method::None(_)) => Scaling::None,
        Some(pb::scaling::Method::Standard(_)) => Scaling::Standard,
        Some(pb::scaling::Method::MinMax(_)) => Scaling::MinMax,
    };
    Preprocessing { inputs: scaling(message.inputs), targets: scaling(message.targets) }
}

/// The weights of some layers.
pub(in crate::rpc) fn layer_parameters(
    messages: Vec<pb::LayerWeights>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Vec<RawLayerParameters>> {
    let layers = messages.into_iter().enumerate().map(|(index, message)| {
        let at = at.index(index);
        let weights = message.weights.map(|matrix| raw_matrix(matrix, at.field("weights"), faults));
        let bias = message.bias.map(|matrix| raw_matrix(matrix, at.field("bias"), faults));
        let normalization = message
            .batch_normalization
            .map(|message| normalization_parameters(message, at.field("batch_normalization"), faults));
        let (weights, bias, normalization) = (transposed(weights)?, transposed(bias)?, transposed(normalization)?);
        Some(RawLayerParameters { layer: message.layer.map(i64::from), weights, bias, normalization })
    });
    // All of them are read, so that all their faults are told.
    let layers: Vec<Option<RawLayerParameters>> = layers.collect();
    layers.into_iter().collect()
}

fn normalization_parameters(
    message: pb::BatchNormalizationWeights,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<RawNormalizationParameters> {
    let mut read =
        |matrix: Option<pb::Matrix>, name| transposed(matrix.map(|matrix| raw_matrix(matrix, at.field(name), faults)));
    let (scale, shift) = (read(message.scale, "scale"), read(message.shift, "shift"));
    let (mean, variance) = (read(message.mean, "mean"), read(message.variance, "variance"));
    Some(RawNormalizationParameters { scale: scale?, shift: shift?, mean: mean?, variance: variance? })
}

/// Not there: fine. There and unreadable: `None`.
fn transposed<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

/// What a network is asked, and how the answer is to be written.
pub(in crate::rpc) fn predict_request(request: pb::PredictRequest) -> Result<(PredictRequest, Encoding), Faults> {
    let encoding = Encoding::of(request.inputs.as_ref());
    let model_id = model_id(&request.model_id)?;
    let mut faults = Faults::new();
    let inputs = required_matrix(request.inputs, At::ROOT.field("inputs"), &mut faults);
    let request = PredictRequest {
        model_id,
        inputs: faults.finish(inputs)?,
        version: request.version.map(i64::from),
        live: request.live,
        layers: request.layers.into_iter().map(i64::from).collect(),
        before_activation: request.before_activation,
    };
    Ok((request, encoding))
}
