//! Short ways to write requests.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType};

pub const AND: [f64; 4] = [0.0, 0.0, 0.0, 1.0];
pub const OR: [f64; 4] = [0.0, 1.0, 1.0, 1.0];
pub const XOR: [f64; 4] = [0.0, 1.0, 1.0, 0.0];

/// The four rows of a truth table.
pub fn corners() -> pb::Matrix {
    values(&[0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
}

pub fn values(values: &[f64]) -> pb::Matrix {
    pb::Matrix { values: values.to_vec(), ..Default::default() }
}

pub fn packed(values: &[f64]) -> pb::Matrix {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    pb::Matrix { packed: bytes.into(), packed_type: ElementType::Float64.into(), ..Default::default() }
}

pub fn layer(units: i32, activation: Activation) -> pb::Layer {
    pb::Layer { units, activation: activation.into(), ..Default::default() }
}

pub fn architecture(input_width: i32, layers: &[(i32, Activation)]) -> pb::Architecture {
    let layers = layers.iter().map(|&(units, activation)| layer(units, activation)).collect();
    pb::Architecture { input_width, layers, ..Default::default() }
}

/// A model's creation.
pub fn model(model_id: &str, input_width: i32, layers: &[(i32, Activation)]) -> pb::CreateModelRequest {
    let architecture = Some(architecture(input_width, layers));
    pb::CreateModelRequest { model_id: model_id.into(), architecture, seed: Some(1), ..Default::default() }
}

/// 2-`hidden`-1, tanh and sigmoid.
pub fn xor_model(model_id: &str, hidden: i32) -> pb::CreateModelRequest {
    model(model_id, 2, &[(hidden, Activation::Tanh), (1, Activation::Sigmoid)])
}

/// A training on a truth table.
pub fn truth_table(model_id: &str, targets: [f64; 4]) -> pb::TrainRequest {
    pb::TrainRequest {
        model_id: model_id.into(),
        inputs: Some(corners()),
        targets: Some(values(&targets)),
        seed: Some(1),
        ..Default::default()
    }
}

/// A training on a truth table that takes longer than any test waits for it, unless it is cancelled.
pub fn endless(model_id: &str) -> pb::TrainRequest {
    let rows = 4_096;
    let inputs: Vec<f64> = (0..rows * 2).map(|index| f64::from(index % 7) / 7.0).collect();
    let targets: Vec<f64> = (0..rows).map(|index| f64::from(index % 2)).collect();
    pb::TrainRequest {
        inputs: Some(values(&inputs)),
        targets: Some(values(&targets)),
        epochs: Some(1_000_000),
        ..truth_table(model_id, XOR)
    }
}

pub fn adam(learning_rate: f64) -> Option<pb::Optimizer> {
    let adam = pb::Adam { learning_rate: Some(learning_rate), ..Default::default() };
    Some(pb::Optimizer { method: Some(pb::optimizer::Method::Adam(adam)) })
}

pub fn sgd(learning_rate: f64, momentum: f64) -> Option<pb::Optimizer> {
    let sgd = pb::Sgd { learning_rate: Some(learning_rate), momentum: Some(momentum), ..Default::default() };
    Some(pb::Optimizer { method: Some(pb::optimizer::Method::Sgd(sgd)) })
}

pub fn predict(model_id: &str, inputs: pb::Matrix) -> pb::PredictRequest {
    pb::PredictRequest { model_id: model_id.into(), inputs: Some(inputs), ..Default::default() }
}

pub fn get_weights(model_id: &str) -> pb::GetWeightsRequest {
    pb::GetWeightsRequest { model_id: model_id.into(), ..Default::default() }
}

pub fn get_model(model_id: &str) -> pb::GetModelRequest {
    pb::GetModelRequest { model_id: model_id.into() }
}

pub fn get_job(job_id: &str) -> pb::GetJobRequest {
    pb::GetJobRequest { job_id: job_id.into() }
}

pub fn cancel(job_id: &str, commit: bool) -> pb::CancelJobRequest {
    pb::CancelJobRequest { job_id: job_id.into(), commit }
}

pub fn watch(job_id: &str, from_epoch: Option<i32>) -> pb::WatchJobRequest {
    pb::WatchJobRequest { job_id: job_id.into(), from_epoch }
}
