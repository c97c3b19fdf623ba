//! The models and the training of the clients, and what the training comes to where nothing interrupts it.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, TrainingStart};
use prost::Message;
use tonic::Status;

use crate::support::*;

/// Each layer as it is told.
pub type Bits = Vec<Vec<u8>>;

const EPOCHS: i32 = 12_000;
/// So that a history is more than one chunk.
pub const REPORT_EVERY: i32 = 10;
pub const REPORTS: usize = (EPOCHS / REPORT_EVERY) as usize;
/// With names that make the model's record half a megabyte: a few dozen changes of it are enough for a compaction.
const CLASSES: i32 = 4_000;

/// A training that nothing interrupted.
pub struct Whole {
    pub weights: Bits,
    reports: Vec<Vec<u8>>,
}

impl Whole {
    pub async fn train() -> Self {
        let server = Server::start();
        let api = server.api().await;
        api.create(creation("whole")).await;
        let told = api.train(training("whole", "")).await;
        let weights = bits(&layers(&api, "whole", 2).await.unwrap());
        server.stop().await;
        assert_eq!(told.reports.len(), REPORTS);
        Self { weights, reports: told.reports.iter().map(untimed).collect() }
    }

    /// Whether this is what the training reports at that place.
    pub fn is_report(&self, place: usize, report: &pb::EpochReport) -> bool {
        self.reports.get(place).is_some_and(|whole| *whole == untimed(report))
    }
}

/// The first epoch that is not told yet.
pub fn epoch_after(reports: usize) -> i32 {
    reports as i32 * REPORT_EVERY + 1
}

fn untimed(report: &pb::EpochReport) -> Vec<u8> {
    pb::EpochReport { elapsed: None, samples_per_second: 0.0, ..report.clone() }.encode_to_vec()
}

pub fn creation(model_id: &str) -> pb::CreateModelRequest {
    xor_model(model_id, 4)
}

/// A model with a large record.
pub fn large_creation(model_id: &str) -> pb::CreateModelRequest {
    let class_labels = (0..CLASSES).map(|class| format!("{class:0>120}")).collect();
    pb::CreateModelRequest { class_labels, ..model(model_id, 1, &[(CLASSES, Activation::Softmax)]) }
}

/// From the initial weights: whichever version it makes, its bits are known.
pub fn training(model_id: &str, request_id: &str) -> pb::TrainRequest {
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    pb::TrainRequest {
        epochs: Some(EPOCHS),
        report_every: Some(REPORT_EVERY),
        start: TrainingStart::Initial.into(),
        checkpoint_interval: interval,
        request_id: request_id.into(),
        ..truth_table(model_id, XOR)
    }
}

pub async fn layers(api: &Api, model_id: &str, version: i32) -> Result<Vec<pb::LayerWeights>, Status> {
    let request = pb::GetWeightsRequest { version: Some(version), ..get_weights(model_id) };
    Ok(api.models.clone().get_weights(request).await?.into_inner().layers)
}

pub fn bits(layers: &[pb::LayerWeights]) -> Bits {
    layers.iter().map(Message::encode_to_vec).collect()
}

/// The same layers with another bias of the last unit, which tells one call from another.
pub fn marked(mut layers: Vec<pb::LayerWeights>, mark: u64) -> Vec<pb::LayerWeights> {
    let bias = layers.last_mut().and_then(|layer| layer.bias.as_mut()).and_then(|bias| bias.values.last_mut());
    *bias.expect("the last layer has a bias") = mark as f64;
    layers
}
