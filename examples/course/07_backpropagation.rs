//! Lesson 7 in Rust: backpropagation by hand, beside `ComputeGradients`. The page is docs/course/07_backpropagation.md.
//!
//! Start a server with `cargo run --release -- serve --ephemeral`, then: `cargo run --example 07_backpropagation`. A server
//! elsewhere is named by `EPOCHD_SERVER`.

use std::array::from_fn;
use std::error::Error;

use epochd::rpc::client::Client;
use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType, Reduction};

type Table = [[f64; 2]; 2];

const X: Table = [[1.0, 2.0], [-1.0, 1.0]];
const Y: [f64; 2] = [1.0, 0.0];
const W1: Table = [[1.0, -1.0], [0.5, 1.0]];
const B1: [f64; 2] = [0.0, -1.0];
const W2: [f64; 2] = [1.0, -2.0];
const B2: f64 = 0.5;
const RATE: f64 = 0.5;

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn show(name: &str, columns: usize, numbers: &[f64]) {
    for (row, numbers) in numbers.chunks(columns).enumerate() {
        let numbers: String = numbers.iter().map(|number| format!("{number:10.6}")).collect();
        println!("{:4}{numbers}", if row == 0 { name } else { "" });
    }
}

fn matrix(values: &[f64]) -> Option<pb::Matrix> {
    Some(pb::Matrix { values: values.to_vec(), ..Default::default() })
}

fn weights_and_bias(weights: &[f64], bias: &[f64]) -> pb::LayerWeights {
    pb::LayerWeights { weights: matrix(weights), bias: matrix(bias), ..Default::default() }
}

/// What the server says must be what was computed by hand.
fn assert_same(theirs: Option<pb::Matrix>, ours: &[f64]) {
    let theirs = theirs.unwrap_or_default().values;
    assert_eq!(theirs.len(), ours.len());
    for (theirs, ours) in theirs.iter().zip(ours) {
        assert!((theirs - ours).abs() < 1e-12, "the server says {theirs}, by hand it is {ours}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Forward: row by row, a of the two hidden units, then the output.
    let z1: Table = X.map(|x| from_fn(|unit| x[0] * W1[0][unit] + x[1] * W1[1][unit] + B1[unit]));
    let a1 = z1.map(|z| z.map(sigmoid));
    let z2 = a1.map(|a| a[0] * W2[0] + a[1] * W2[1] + B2);
    let y_hat = z2.map(sigmoid);
    let loss: f64 = Y.iter().zip(y_hat).map(|(y, y_hat)| (y - y_hat).powi(2)).sum();

    // Backward: δ of the output, δ of the hidden units, and what they make of the inputs of their layers.
    let delta2: [f64; 2] = from_fn(|row| 2.0 * (y_hat[row] - Y[row]) * y_hat[row] * (1.0 - y_hat[row]));
    let slope1: Table = a1.map(|a| a.map(|a| a * (1.0 - a)));
    let delta1: Table = from_fn(|row| from_fn(|unit| delta2[row] * W2[unit] * slope1[row][unit]));
    let w2_gradient: [f64; 2] = from_fn(|unit| a1[0][unit] * delta2[0] + a1[1][unit] * delta2[1]);
    let b2_gradient = delta2[0] + delta2[1];
    let w1_gradient: Table = from_fn(|x| from_fn(|unit| X[0][x] * delta1[0][unit] + X[1][x] * delta1[1][unit]));
    let b1_gradient: [f64; 2] = from_fn(|unit| delta1[0][unit] + delta1[1][unit]);

    show("z1", 2, z1.as_flattened());
    show("a1", 2, a1.as_flattened());
    show("z2", 1, &z2);
    show("ŷ", 1, &y_hat);
    show("L", 1, &[loss]);
    show("δ2", 1, &delta2);
    show("δ1", 2, delta1.as_flattened());
    show("∂W2", 1, &w2_gradient);
    show("∂b2", 1, &[b2_gradient]);
    show("∂W1", 2, w1_gradient.as_flattened());
    show("∂b1", 2, &b1_gradient);

    // The same network on the server, and its gradients.
    let server = std::env::var("EPOCHD_SERVER").unwrap_or_else(|_| "http://127.0.0.1:50051".to_owned());
    let mut client = Client::connect(&server).await?;
    let layer = |units| pb::Layer { units, activation: Activation::Sigmoid.into(), ..Default::default() };
    let architecture = Some(pb::Architecture {
        input_width: 2,
        element_type: ElementType::Float64.into(),
        layers: vec![layer(2), layer(1)],
        ..Default::default()
    });
    let initial_weights = vec![weights_and_bias(W1.as_flattened(), &B1), weights_and_bias(&W2, &[B2])];
    let request = pb::CreateModelRequest { architecture, initial_weights, ..Default::default() };
    let model_id = client.create_model(request).await?.model_id;

    let squared_error = Some(pb::Loss { kind: Some(pb::loss::Kind::SquaredError(pb::SquaredErrorLoss {})) });
    let question = pb::ComputeGradientsRequest {
        model_id: model_id.clone(),
        inputs: matrix(X.as_flattened()),
        targets: matrix(&Y),
        loss: squared_error.clone(),
        reduction: Reduction::Sum.into(),
        ..Default::default()
    };
    let answer = client.compute_gradients(question.clone()).await?;
    assert!((answer.loss - loss).abs() < 1e-12);
    let [first, second]: [pb::LayerGradients; 2] = answer.layers.try_into().map_err(|_| "not two layers")?;
    assert_same(second.delta, &delta2);
    assert_same(second.weights, &w2_gradient);
    assert_same(second.bias, &[b2_gradient]);
    assert_same(first.delta, delta1.as_flattened());
    assert_same(first.weights, w1_gradient.as_flattened());
    assert_same(first.bias, &b1_gradient);

    // One step, by hand and by the server.
    let step = |weights: &[f64], gradient: &[f64]| -> Vec<f64> {
        weights.iter().zip(gradient).map(|(weight, slope)| weight - RATE * slope).collect()
    };
    let (w1, b1) = (step(W1.as_flattened(), w1_gradient.as_flattened()), step(&B1, &b1_gradient));
    let (w2, b2) = (step(&W2, &w2_gradient), step(&[B2], &[b2_gradient]));
    show("W1", 2, &w1);
    show("b1", 2, &b1);
    show("W2", 1, &w2);
    show("b2", 1, &b2);

    let sgd = pb::Sgd { learning_rate: Some(RATE), ..Default::default() };
    let request = pb::TrainRequest {
        model_id: model_id.clone(),
        inputs: question.inputs.clone(),
        targets: question.targets.clone(),
        loss: squared_error,
        reduction: Reduction::Sum.into(),
        optimizer: Some(pb::Optimizer { method: Some(pb::optimizer::Method::Sgd(sgd)) }),
        epochs: Some(1),
        batch_size: Some(2),
        seed: Some(7),
        ..Default::default()
    };
    let mut events = client.train(request).await?;
    while events.next().await?.is_some() {}

    let weights = client.weights(pb::GetWeightsRequest { model_id, ..Default::default() }).await?;
    let [first, second]: [pb::LayerWeights; 2] = weights.layers.try_into().map_err(|_| "not two layers")?;
    assert_same(first.weights, &w1);
    assert_same(first.bias, &b1);
    assert_same(second.weights, &w2);
    assert_same(second.bias, &b2);

    let after = client.compute_gradients(question).await?.loss;
    println!("loss: {loss:.6}, after one step: {after:.6}");
    assert!(after < loss);
    Ok(())
}
