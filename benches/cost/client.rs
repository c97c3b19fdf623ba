//! What a caller of the server sends.

use epochd::rpc::pb;
use epochd::rpc::pb::model_service_client::ModelServiceClient;
use epochd::rpc::pb::{Activation, ElementType, train_event};
use tonic::transport::Channel;

use crate::server::Server;
use crate::training::Network;

/// The most that is sent in one message.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

pub async fn connect(server: &Server) -> anyhow::Result<ModelServiceClient<Channel>> {
    let client = ModelServiceClient::connect(format!("http://{}", server.address)).await?;
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// Makes the model of a network.
pub async fn create(client: &mut ModelServiceClient<Channel>, model_id: &str, network: &Network) -> anyhow::Result<()> {
    let last = if network.outputs() > 1 { Activation::Softmax } else { Activation::Identity };
    let count = network.widths.len() - 1;
    let layer = |(index, &units): (usize, &usize)| {
        let activation = if index + 1 == count { last } else { Activation::Relu };
        pb::Layer { units: units as i32, activation: activation.into(), ..Default::default() }
    };
    let architecture = pb::Architecture {
        input_width: network.widths[0] as i32,
        layers: network.widths[1..].iter().enumerate().map(layer).collect(),
        ..Default::default()
    };
    let request = pb::CreateModelRequest {
        model_id: model_id.into(),
        architecture: Some(architecture),
        seed: Some(1),
        ..Default::default()
    };
    client.create_model(request).await?;
    Ok(())
}

/// A training of a network on its rows.
pub fn training(model_id: &str, network: &Network, epochs: i32) -> pb::TrainRequest {
    let matrix = |values: Vec<f32>| pb::Matrix {
        packed: bytemuck::cast_slice::<_, u8>(&values).to_vec().into(),
        packed_type: ElementType::Float32.into(),
        ..Default::default()
    };
    pb::TrainRequest {
        model_id: model_id.into(),
        inputs: Some(matrix(network.inputs())),
        targets: Some(matrix(network.targets())),
        batch_size: Some(network.batch as i32),
        epochs: Some(epochs),
        seed: Some(1),
        ..Default::default()
    }
}

/// Has it trained, to its end.
pub async fn train(client: &mut ModelServiceClient<Channel>, request: pb::TrainRequest) -> anyhow::Result<()> {
    let mut events = client.train(request).await?.into_inner();
    let mut is_finished = false;
    while let Some(event) = events.message().await? {
        is_finished |= matches!(event.event, Some(train_event::Event::Finished(_)));
    }
    anyhow::ensure!(is_finished, "the stream ended before the training");
    Ok(())
}
