//! What a server process holds in one training: its rows once, and its parameters as often as is promised.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType};
use tempfile::tempdir;

use crate::support::*;

/// Beside rows and parameters: buffers of a batch, threads that begin, and what an allocator keeps.
const REST_BYTES_MAX: u64 = 16 << 20;

fn floats(count: usize) -> Option<pb::Matrix> {
    let packed: Vec<u8> = (0..count).flat_map(|index| ((index % 97) as f32 / 97.0).to_le_bytes()).collect();
    Some(pb::Matrix { packed: packed.into(), packed_type: ElementType::Float32.into(), ..Default::default() })
}

/// What a process held at most in a training, beyond what it held before.
async fn held(arguments: &[&str], model: pb::CreateModelRequest, training: pb::TrainRequest) -> u64 {
    let folder = tempdir().unwrap();
    let process = Process::serve(folder.path(), arguments);
    let api = process.api().await;
    api.create(model).await;
    let idle = Held::by(process.id()).resident;
    api.train(training).await;
    Held::by(process.id()).peak - idle
}

#[tokio::test]
async fn a_training_holds_its_rows_once() {
    let (rows, width) = (150_000, 100);
    let data_bytes = (rows * (width + 1) * 4) as u64;
    for (place, request_id) in [("--drain-seconds=1", ""), ("--drain-seconds=1", "once"), ("--ephemeral", "")] {
        let model = model("much-data", width as i32, &[(2, Activation::Tanh), (1, Activation::Identity)]);
        let training = pb::TrainRequest {
            model_id: "much-data".into(),
            inputs: floats(rows * width),
            targets: floats(rows),
            batch_size: Some(1_000),
            epochs: Some(1),
            request_id: request_id.into(),
            ..Default::default()
        };
        let held = held(&[place], model, training).await;
        assert!(held < data_bytes + REST_BYTES_MAX, "{place} {request_id}: {held} bytes for {data_bytes} of rows");
    }
}

#[tokio::test]
async fn a_training_holds_its_parameters_no_more_often_than_is_promised() {
    /// With Adam: parameters, gradients, two moments; one that is served, and two more.
    const COPIES: u64 = 4 + 1 + 2;
    let parameters_bytes = 4 * (1_025 * 2_048 + 2_049 * 2_048 + 2_049);
    for place in ["--drain-seconds=1", "--ephemeral"] {
        let layers = [(2_048, Activation::Relu), (2_048, Activation::Relu), (1, Activation::Identity)];
        let training = pb::TrainRequest {
            model_id: "large".into(),
            inputs: floats(64 * 1_024),
            targets: floats(64),
            optimizer: adam(1e-4),
            batch_size: Some(32),
            epochs: Some(3),
            // In a folder a checkpoint is taken at every chance: it copies nothing.
            checkpoint_interval: Some(prost_types::Duration { seconds: 0, nanos: 1_000 }),
            ..Default::default()
        };
        let held = held(&[place], model("large", 1_024, &layers), training).await;
        let bound = COPIES * parameters_bytes + REST_BYTES_MAX;
        assert!(held < bound, "{place}: {held} bytes for {parameters_bytes} of parameters, {bound} at most");
    }
}
