//! A client in Rust: creates a model, trains it on XOR with the loss shown, and asks it.
//!
//! Start a server with `cargo run --release -- serve --ephemeral`, then: `cargo run --release --example xor`.

use std::error::Error;

use epochd::rpc::client::Client;
use epochd::rpc::pb;
use epochd::rpc::pb::Activation;
use epochd::rpc::pb::train_event::Event;

fn matrix(values: &[f64]) -> Option<pb::Matrix> {
    Some(pb::Matrix { values: values.to_vec(), ..Default::default() })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let mut client = Client::connect(&url).await?;

    let layer =
        |units, activation: Activation| pb::Layer { units, activation: activation.into(), ..Default::default() };
    let layers = vec![layer(8, Activation::Tanh), layer(1, Activation::Sigmoid)];
    let architecture = Some(pb::Architecture { input_width: 2, layers, ..Default::default() });
    let model = client.create_model(pb::CreateModelRequest { architecture, ..Default::default() }).await?;

    let corners = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let request = pb::TrainRequest {
        model_id: model.model_id.clone(),
        inputs: matrix(&corners),
        targets: matrix(&[0.0, 1.0, 1.0, 0.0]),
        report_every: Some(200),
        ..Default::default()
    };
    let mut events = client.train(request).await?;
    while let Some(event) = events.next().await? {
        if let Some(Event::Epochs(batch)) = event.event {
            for report in batch.reports {
                println!("epoch {:4}  loss {:.4}", report.epoch, report.loss);
            }
        }
    }

    let request = pb::PredictRequest { model_id: model.model_id, inputs: matrix(&corners), ..Default::default() };
    let answer = client.predict(request).await?;
    for (row, class) in corners.chunks(2).zip(answer.classes) {
        println!("{row:?} -> {}", class.index());
    }
    Ok(())
}
