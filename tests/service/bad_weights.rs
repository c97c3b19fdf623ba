//! What weights of classes and of rows get that are out of range, or leave nothing that counts.

use serde_json::json;

use crate::bad_options::{create_models, training};
use crate::support::*;

/// By the contract class weights are for SOFTMAX, LOG_SOFTMAX and one SIGMOID unit.
#[tokio::test(flavor = "multi_thread")]
async fn class_weights_of_a_regression_are_refused_also_where_its_targets_are_bits() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let mut failures = Failures::default();
    for model in ["identity", "tanh"] {
        let change = json!({"class_weights": {"weights": [1, 5]}, "targets": {"values": [0, 1, 1, 0]}});
        let answer = api.models.clone().train(training(model, change)).await.map(drop);
        failures.look(format!("class weights on {model}"), answer, "class_weights", "sample_weights");
    }
    failures.check();
}

/// As `sample_weights` that are all 0: the loss would be 0 and nothing be learned.
#[tokio::test(flavor = "multi_thread")]
async fn class_weights_that_leave_no_row_are_refused() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let mut failures = Failures::default();
    for (name, weights, targets, sample_weights, path, word) in [
        ("no row of class 0", [1, 0], [1, 1, 1, 1], [1, 1, 1, 1], "class_weights.weights", "no row"),
        ("no row of class 0 that counts", [1, 0], [0, 1, 1, 1], [0, 1, 1, 1], "class_weights.weights", "no row"),
        ("a negative weight", [-1, 1], [0, 1, 1, 1], [1, 1, 1, 1], "class_weights.weights[0]", "0 or a finite"),
    ] {
        let change = json!({
            "class_weights": {"weights": weights}, "targets": {"values": targets}, "sample_weights": {"values": sample_weights},
        });
        let answer = api.models.clone().train(training("sigmoid", change)).await.map(drop);
        failures.look(name.into(), answer, path, word);
    }
    failures.check();
}

/// Their loss would be 0 in every epoch, whatever the network says, and the first would be taken for the best.
#[tokio::test(flavor = "multi_thread")]
async fn class_weights_that_leave_no_validation_row_are_refused() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let train = async |targets: [u32; 2], sample_weights: [u32; 2]| {
        let change = json!({
            "class_weights": {"weights": [1, 0]},
            "validation_data": {
                "inputs": {"values": [1, 2]}, "targets": {"values": targets}, "sample_weights": {"values": sample_weights},
            },
        });
        api.models.clone().train(training("sigmoid", change)).await.map(drop)
    };
    train([0, 1], [1, 1]).await.unwrap();
    let mut failures = Failures::default();
    for (targets, sample_weights) in [([1, 1], [1, 1]), ([0, 1], [0, 1])] {
        let answer = train(targets, sample_weights).await;
        failures.look(format!("{targets:?} {sample_weights:?}"), answer, "class_weights.weights", "validation rows");
    }
    failures.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_and_the_least_sample_weight_are_what_the_message_says() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let train = async |weight: f64| {
        let change = json!({"sample_weights": {"values": [weight, 1, 1, 1]}});
        api.models.clone().train(training("sigmoid", change)).await.map(drop)
    };
    train(1e30).await.unwrap();
    train(1e-30).await.unwrap();
    let mut failures = Failures::default();
    for weight in [1.01e30, 0.99e-30, -1.0] {
        failures.look(
            format!("a sample weight of {weight:e}"),
            train(weight).await,
            "sample_weights",
            "from 1e-30 to 1e30",
        );
    }
    failures.check();
}
