//! Models, versions and what networks say, to the wire.

use super::{layer_weights, matrix, timestamp};
use crate::app::{BatchGradients, ModelView, ModelWeights, Prediction};
use crate::domain::{
    Activation, Architecture, ElementType, Initializer, Layer, Preprocessing, Scaler, Scaling, Version, VersionSource,
};
use crate::rpc::decode::Encoding;
use crate::rpc::pb;

/// A model.
pub(in crate::rpc) fn model(view: &ModelView) -> pb::Model {
    let model = &view.model;
    pb::Model {
        model_id: model.model_id.to_string(),
        uid: model.uid.to_string(),
        architecture: Some(architecture(&model.architecture)),
        seed: model.seed,
        latest_version: model.latest_version as i32,
        serving_version: model.serving_version.map(|version| version as i32),
        pinned_versions: model.pinned_versions.iter().map(|&version| version as i32).collect(),
        parameter_count: model.architecture.trainable_count() as i32,
        class_labels: model.class_labels.clone(),
        preprocessing: Some(preprocessing(model.preprocessing)),
        labels: model.labels.clone().into_iter().collect(),
        create_time: Some(timestamp(model.create_time)),
        update_time: Some(timestamp(model.update_time)),
        active_job_id: view.active_job.map(|job_id| job_id.to_string()).unwrap_or_default(),
    }
}

/// The shape of a network.
pub(super) fn architecture(architecture: &Architecture) -> pb::Architecture {
    let element_type = match architecture.element_type() {
        ElementType::Float32 => pb::ElementType::Float32,
        ElementType::Float64 => pb::ElementType::Float64,
    };
    pb::Architecture {
        input_width: architecture.input_width() as i32,
        element_type: element_type.into(),
        layers: architecture.layers().iter().map(layer).collect(),
        input_dropout: Some(architecture.input_dropout()),
    }
}

fn layer(layer: &Layer) -> pb::Layer {
    let (activation, activation_alpha) = match layer.activation {
        Activation::Identity => (pb::Activation::Identity, None),
        Activation::Sign => (pb::Activation::Sign, None),
        Activation::Step => (pb::Activation::Step, None),
        Activation::Sigmoid => (pb::Activation::Sigmoid, None),
        Activation::Tanh => (pb::Activation::Tanh, None),
        Activation::Relu => (pb::Activation::Relu, None),
        Activation::LeakyRelu { alpha } => (pb::Activation::LeakyRelu, Some(alpha)),
        Activation::Elu { alpha } => (pb::Activation::Elu, Some(alpha)),
        Activation::Selu => (pb::Activation::Selu, None),
        Activation::Softplus => (pb::Activation::Softplus, None),
        Activation::Softsign => (pb::Activation::Softsign, None),
        Activation::Exponential => (pb::Activation::Exponential, None),
        Activation::HardSigmoid => (pb::Activation::HardSigmoid, None),
        Activation::Softmax => (pb::Activation::Softmax, None),
        Activation::Gelu => (pb::Activation::Gelu, None),
        Activation::GeluTanh => (pb::Activation::GeluTanh, None),
        Activation::Silu => (pb::Activation::Silu, None),
        Activation::Mish => (pb::Activation::Mish, None),
        Activation::LogSoftmax => (pb::Activation::LogSoftmax, None),
    };
    pb::Layer {
        units: layer.units as i32,
        activation: activation.into(),
        activation_alpha,
        bias: Some(layer.bias),
        initializer: Some(initializer(layer.initializer())),
        dropout: Some(layer.dropout),
        batch_normalization: layer
            .batch_normalization
            .map(|it| pb::BatchNormalization { momentum: Some(it.momentum), epsilon: Some(it.epsilon) }),
        max_norm: layer.max_norm,
        frozen: layer.frozen,
    }
}

fn initializer(initializer: Initializer) -> pb::Initializer {
    use pb::initializer::Method;
    let method = match initializer {
        Initializer::Zeros => Method::Zeros(pb::ZerosInitializer {}),
        Initializer::Constant { value } => Method::Constant(pb::ConstantInitializer { value: Some(value) }),
        Initializer::Uniform { minimum, maximum } => {
            Method::Uniform(pb::UniformInitializer { minimum: Some(minimum), maximum: Some(maximum) })
        }
        Initializer::Normal { mean, deviation } => {
            Method::Normal(pb::NormalInitializer { mean: Some(mean), deviation: Some(deviation) })
        }
        Initializer::GlorotUniform => Method::GlorotUniform(pb::GlorotUniformInitializer {}),
        Initializer::GlorotNormal => Method::GlorotNormal(pb::GlorotNormalInitializer {}),
        Initializer::HeUniform => Method::HeUniform(pb::HeUniformInitializer {}),
        Initializer::HeNormal => Method::HeNormal(pb::HeNormalInitializer {}),
        Initializer::LecunUniform => Method::LecunUniform(pb::LecunUniformInitializer {}),
        Initializer::LecunNormal => Method::LecunNormal(pb::LecunNormalInitializer {}),
        Initializer::Orthogonal { gain } => Method::Orthogonal(pb::OrthogonalInitializer { gain: Some(gain) }),
    };
    pb::Initializer { method: Some(method) }
}

fn preprocessing(preprocessing: Preprocessing) -> pb::Preprocessing {
    let scaling = |scaling: Scaling| pb::Scaling {
        method: Some(match scaling {
            Scaling::None => pb::scaling::Method::None(pb::NoScaling {}),
            Scaling::Standard => pb::scaling::Method::Standard(pb::StandardScaling {}),
            Scaling::MinMax => pb::scaling::Method::MinMax(pb::MinMaxScaling {}),
        }),
    };
    pb::Preprocessing { inputs: Some(scaling(preprocessing.inputs)), targets: Some(scaling(preprocessing.targets)) }
}

/// A fitted scaling.
pub(super) fn scaler(scaler: &Scaler) -> pb::Scaler {
    pb::Scaler { shift: scaler.shift.clone(), scale: scaler.scale.clone() }
}

/// A version.
pub(in crate::rpc) fn version(version: &Version) -> pb::Version {
    let (source, job_id, report) = match &version.source {
        VersionSource::Initial => (pb::VersionSource::Initial, String::new(), None),
        VersionSource::Set => (pb::VersionSource::Set, String::new(), None),
        VersionSource::Training { job_id, report } => {
            (pb::VersionSource::Trained, job_id.to_string(), Some(super::training::epoch_report(report)))
        }
    };
    let preprocessing = version.preprocessing.as_ref();
    pb::Version {
        version: version.version as i32,
        base_version: version.base_version.unwrap_or(0) as i32,
        source: source.into(),
        job_id,
        report,
        input_scaler: preprocessing.and_then(|fitted| fitted.inputs.as_ref()).map(scaler),
        target_scaler: preprocessing.and_then(|fitted| fitted.targets.as_ref()).map(scaler),
        create_time: Some(timestamp(version.create_time)),
    }
}

/// The weights of a version.
pub(in crate::rpc) fn weights(weights: &ModelWeights, encoding: Encoding) -> pb::Weights {
    pb::Weights {
        model_id: weights.model_id.to_string(),
        version: weights.version as i32,
        layers: weights.layers.iter().map(|layer| layer_weights(layer, encoding)).collect(),
    }
}

/// A prediction.
pub(in crate::rpc) fn prediction(prediction: Prediction, encoding: Encoding) -> pb::PredictResponse {
    let (job_id, epoch) = prediction.live.unzip();
    pb::PredictResponse {
        outputs: Some(matrix(&prediction.outputs, encoding)),
        classes: prediction
            .classes
            .into_iter()
            .map(|class| pb::ClassPrediction {
                index: Some(class.index as i32),
                label: class.label,
                probability: class.probability,
            })
            .collect(),
        version: prediction.version as i32,
        job_id: job_id.map(|job_id| job_id.to_string()).unwrap_or_default(),
        epoch: epoch.map(|epoch| epoch as i32),
        layers: (prediction.layers.iter())
            .map(|(layer, values)| pb::LayerOutputs {
                layer: Some(*layer as i32),
                values: Some(matrix(values, encoding)),
            })
            .collect(),
    }
}

/// The gradients of a batch.
pub(in crate::rpc) fn gradients(gradients: &BatchGradients, encoding: Encoding) -> pb::ComputeGradientsResponse {
    let layers = gradients.deltas.iter().zip(&gradients.layers).map(|(delta, layer)| pb::LayerGradients {
        delta: Some(matrix(delta, encoding)),
        weights: Some(matrix(&layer.weights, encoding)),
        bias: layer.bias.as_ref().map(|bias| matrix(bias, encoding)),
        scale: layer.normalization.as_ref().map(|it| matrix(&it.scale, encoding)),
        shift: layer.normalization.as_ref().map(|it| matrix(&it.shift, encoding)),
    });
    pb::ComputeGradientsResponse {
        loss: gradients.loss,
        layers: layers.collect(),
        inputs: Some(matrix(&gradients.inputs, encoding)),
        version: gradients.version as i32,
        row_losses: gradients.row_losses.clone(),
    }
}
