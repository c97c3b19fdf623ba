//! What the options of a training, of a layer and of a prediction do.

use std::collections::BTreeSet;

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, JobState, MatrixEncoding, StopReason};
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::*;

/// A float64 model: inputs and layers.
async fn create(api: &Api, model_id: &str, input_width: i32, layers: Value) {
    let architecture = json!({"input_width": input_width, "element_type": "ELEMENT_TYPE_FLOAT64", "layers": layers});
    api.create(from_json(&json!({"model_id": model_id, "architecture": architecture, "seed": 1}))).await;
}

/// Twenty rows of one number each.
fn column() -> Vec<f64> {
    (0..20).map(|index| f64::from(index * 7 % 20) / 8.0 - 1.2).collect()
}

fn training(model_id: &str, inputs: &[f64], targets: &[f64], options: Value) -> pb::TrainRequest {
    let mut request = json!({"model_id": model_id, "seed": 3});
    request["inputs"] = json!({"values": inputs});
    request["targets"] = json!({"values": targets});
    options.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
    from_json(&request)
}

async fn weights(api: &Api, model_id: &str, encoding: MatrixEncoding) -> Vec<pb::LayerWeights> {
    let request = pb::GetWeightsRequest { encoding: encoding.into(), ..get_weights(model_id) };
    api.models.clone().get_weights(request).await.unwrap().into_inner().layers
}

#[track_caller]
fn assert_near(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {actual}, not {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_tell_what_goes_into_an_activation_and_what_comes_out() {
    let server = Server::start();
    let api = server.api().await;
    create(
        &api,
        "m",
        2,
        json!([{"units": 2, "activation": "ACTIVATION_RELU"}, {"units": 1, "activation": "ACTIVATION_SOFTSIGN"}]),
    )
    .await;
    let layers = json!([
        {"weights": {"values": [1, -1, 2, 0.5]}, "bias": {"values": [0, 1]}},
        {"weights": {"values": [1, -2]}, "bias": {"values": [0.5]}}
    ]);
    api.models
        .clone()
        .set_weights(from_json::<pb::SetWeightsRequest>(&json!({"model_id": "m", "layers": layers})))
        .await
        .unwrap();
    // By hand: (1, 1) → (3, 0.5) → 2.5; (2, −1.5) → (−1, −1.75) → 0.5; (0, 3) → (6, 2.5) → 1.5.
    let inputs = [1.0, 1.0, 2.0, -1.5, 0.0, 3.0];
    for (before_activation, hidden, output) in [
        (false, [3.0, 0.5, 0.0, 0.0, 6.0, 2.5], [2.5 / 3.5, 0.5 / 1.5, 1.5 / 2.5]),
        (true, [3.0, 0.5, -1.0, -1.75, 6.0, 2.5], [2.5, 0.5, 1.5]),
    ] {
        let request = pb::PredictRequest { layers: vec![1, 0], before_activation, ..predict("m", values(&inputs)) };
        let answer = api.models.clone().predict(request).await.unwrap().into_inner();
        assert_eq!(answer.layers.iter().map(|it| it.layer).collect::<Vec<_>>(), [Some(1), Some(0)]);
        assert_eq!(answer.layers[0].values.as_ref().unwrap().values, output);
        assert_eq!(answer.layers[1].values.as_ref().unwrap().values, hidden);
        assert_eq!(answer.outputs.unwrap().values, [2.5 / 3.5, 0.5 / 1.5, 1.5 / 2.5]);
    }
    let request = pb::PredictRequest { layers: vec![0], ..predict("m", packed(&inputs)) };
    let answer = api.models.clone().predict(request).await.unwrap().into_inner();
    assert_eq!(answer.layers[0].values.as_ref().unwrap().packed.len(), 6 * 8);
    assert!(api.models.clone().predict(predict("m", values(&inputs))).await.unwrap().into_inner().layers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_to_be_told_that_are_not_there_are_refused() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", 1, json!([{"units": 2}, {"units": 1}])).await;
    for (layers, field) in [(vec![2], "layers[0]"), (vec![0, -1], "layers[1]"), (vec![0, 0, 1], "layers")] {
        let request = pb::PredictRequest { layers: layers.clone(), ..predict("m", values(&[1.0])) };
        let status = api.models.clone().predict(request).await.expect_err(&format!("{layers:?}"));
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]));
    }
}

/// "may name each of the 2 layers once", as the answer to three of them says.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_named_twice_is_refused() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", 1, json!([{"units": 2}, {"units": 1}])).await;
    let layers = vec![0, 0];
    let weights = pb::GetWeightsRequest { layers: layers.clone(), ..get_weights("m") };
    let weights = api.models.clone().get_weights(weights).await.map(drop);
    let outputs = pb::PredictRequest { layers, ..predict("m", values(&[1.0])) };
    let outputs = api.models.clone().predict(outputs).await.map(drop);
    let frozen = training("m", &[1.0], &[1.0], json!({"frozen_layers": [0, 0]}));
    let frozen = api.models.clone().train(frozen).await.map(drop);
    let mut failures = Failures::default();
    failures.look("Predict".into(), outputs, "layers[1]", "");
    failures.look("GetWeights".into(), weights, "layers[1]", "");
    failures.look("Train".into(), frozen, "frozen_layers[1]", "");
    failures.check();
}

/// Its running values are used, so a batch has nothing to say.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_batch_normalization_takes_batches_of_one_row() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", 1, json!([{"units": 2, "batch_normalization": {}, "frozen": true}, {"units": 1}])).await;
    let request = training("m", &column(), &column(), json!({"batch_size": 1, "epochs": 2}));
    let events = api.models.clone().train(request).await.unwrap().into_inner();
    assert_eq!(read(events).await.finished.state(), JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_into_an_activation_comes_after_batch_normalization() {
    let server = Server::start();
    let api = server.api().await;
    create(
        &api,
        "m",
        1,
        json!([{"units": 1, "activation": "ACTIVATION_RELU", "batch_normalization": {"epsilon": 0.5}}]),
    )
    .await;
    let row = |value: f64| json!({"values": [value]});
    // 2·(x·3 − 1) / √(3.5 + 0.5) − 4 = 3·x − 5
    let normalization = json!({"scale": row(2.0), "shift": row(-4.0), "mean": row(1.0), "variance": row(3.5)});
    let layers = json!([{"weights": row(3.0), "batch_normalization": normalization}]);
    api.models
        .clone()
        .set_weights(from_json::<pb::SetWeightsRequest>(&json!({"model_id": "m", "layers": layers})))
        .await
        .unwrap();
    let request = pb::PredictRequest { layers: vec![0], before_activation: true, ..predict("m", values(&[1.0, 2.0])) };
    let answer = api.models.clone().predict(request).await.unwrap().into_inner();
    assert_eq!(answer.layers[0].values.as_ref().unwrap().values, [-2.0, 1.0]);
    assert_eq!(answer.outputs.unwrap().values, [0.0, 1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_softmax_answers_logarithms_and_tells_the_probability_of_the_winner() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", 1, json!([{"units": 3, "activation": "ACTIVATION_LOG_SOFTMAX"}])).await;
    let layers = json!([{"weights": {"values": [-5, 0, 5]}, "bias": {"values": [0, 1, 0]}}]);
    api.models
        .clone()
        .set_weights(from_json::<pb::SetWeightsRequest>(&json!({"model_id": "m", "layers": layers})))
        .await
        .unwrap();
    let answer = api.models.clone().predict(predict("m", values(&[-1.0, 0.0]))).await.unwrap().into_inner();
    let sum = 5_f64.exp() + 1_f64.exp() + (-5_f64).exp();
    let outputs = answer.outputs.unwrap().values;
    assert_near(outputs[0], 5.0 - sum.ln(), "ln p");
    assert_near(outputs[..3].iter().map(|it| it.exp()).sum(), 1.0, "sum");
    assert_eq!(answer.classes.iter().map(|it| it.index).collect::<Vec<_>>(), [Some(0), Some(1)]);
    assert_near(answer.classes[0].probability.unwrap(), 5_f64.exp() / sum, "p");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_batch_normalization_go_out_and_in_without_a_change_of_a_bit() {
    let server = Server::start();
    let api = server.api().await;
    let inputs = column();
    for element_type in ["ELEMENT_TYPE_FLOAT32", "ELEMENT_TYPE_FLOAT64"] {
        for encoding in [MatrixEncoding::Values, MatrixEncoding::Packed] {
            let model_id = format!("{element_type}-{encoding:?}").to_lowercase().replace('_', "-");
            let layers = json!([{"units": 4, "activation": "ACTIVATION_RELU", "batch_normalization": {}}, {"units": 1, "bias": false}]);
            let architecture = json!({"input_width": 1, "element_type": element_type, "layers": layers});
            let mut request: pb::CreateModelRequest =
                from_json(&json!({"model_id": model_id, "architecture": architecture}));
            api.create(request.clone()).await;
            api.train(training(&model_id, &inputs, &inputs, json!({"epochs": 3, "batch_size": 8}))).await;
            let outputs = api.outputs(&model_id, values(&inputs)).await;
            let out = weights(&api, &model_id, encoding).await;
            let normalization = out[0].batch_normalization.clone().unwrap();
            assert!(normalization.mean != normalization.shift && normalization.variance != normalization.scale);
            assert!(out[0].bias.is_none() && out[1].bias.is_none() && out[1].batch_normalization.is_none());

            let back = pb::SetWeightsRequest { model_id: model_id.clone(), layers: out.clone() };
            assert_eq!(api.models.clone().set_weights(back).await.unwrap().into_inner().version, 3);
            assert_eq!(weights(&api, &model_id, encoding).await, out);
            assert_eq!(api.outputs(&model_id, values(&inputs)).await, outputs);
            request.model_id.push_str("-copy");
            request.initial_weights = out.clone();
            let copy = api.create(request).await.model_id;
            assert_eq!(weights(&api, &copy, encoding).await, out);
            assert_eq!(api.outputs(&copy, values(&inputs)).await, outputs);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_batch_normalization_that_are_missing_or_negative_are_refused_by_path() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", 1, json!([{"units": 2, "batch_normalization": {}}, {"units": 1}])).await;
    let row = |value: f64| json!({"values": [value, value]});
    let all = json!({"scale": row(1.0), "shift": row(0.0), "mean": row(0.0), "variance": row(1.0)});
    let but = |name: &str, value: Value| {
        let mut changed = all.clone();
        changed[name] = value;
        json!({"layer": 0, "weights": row(1.0), "batch_normalization": changed})
    };
    let biased = json!({"layer": 0, "weights": row(1.0), "bias": row(0.0), "batch_normalization": all});
    let plain = json!({"layer": 1, "weights": row(1.0), "bias": {"values": [0]}, "batch_normalization": all});
    let normalization = |name: &str| format!("layers[0].batch_normalization{name}");
    for (layer, field, word) in [
        (json!({"layer": 0, "weights": row(1.0)}), normalization(""), "scale, shift, mean and variance"),
        (but("variance", json!({"values": [1, -1e-3]})), normalization(".variance"), "unit 1"),
        (but("variance", Value::Null), normalization(".variance"), "required"),
        (but("scale", Value::Null), normalization(".scale"), "required"),
        (but("shift", json!({"values": [1]})), normalization(".shift"), "2"),
        (but("mean", json!({"values": [1, "NaN"]})), normalization(".mean"), "finite"),
        (biased, "layers[0].bias".to_owned(), "left out"),
        (plain, normalization(""), "left out"),
    ] {
        let request: pb::SetWeightsRequest = from_json(&json!({"model_id": "m", "layers": [layer]}));
        let status = api.models.clone().set_weights(request).await.expect_err(&field);
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.clone()]), "{status:?}");
        assert!(status.message().contains(word), "{field}: {}", status.message());
    }
    let sound: pb::SetWeightsRequest = from_json(&json!({"model_id": "m", "layers": [but("variance", row(0.0))]}));
    api.models.clone().set_weights(sound).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_layers_keep_every_bit_and_the_others_learn() {
    let server = Server::start();
    let api = server.api().await;
    let inputs = column();
    for (number, (by_model, by_request)) in
        [(vec![0], vec![]), (vec![], vec![0]), (vec![], vec![1]), (vec![2], vec![0])].into_iter().enumerate()
    {
        for optimizer in ["adamw", "sgd", "lbfgs"] {
            let model_id = format!("{number}-{optimizer}");
            let frozen = |layer: usize| by_model.contains(&layer);
            create(
                &api,
                &model_id,
                1,
                json!([
                    {"units": 3, "activation": "ACTIVATION_TANH", "batch_normalization": {}, "frozen": frozen(0)},
                    {"units": 3, "activation": "ACTIVATION_TANH", "frozen": frozen(1)},
                    {"units": 1, "frozen": frozen(2)}
                ]),
            )
            .await;
            let before = weights(&api, &model_id, MatrixEncoding::Packed).await;
            let options = json!({"frozen_layers": by_request, "epochs": 3, "optimizer": {optimizer: {}}, "l2": 0.1});
            let told = api.train(training(&model_id, &inputs, &inputs, options)).await;
            assert_eq!(
                told.started.unwrap().settings.unwrap().frozen_layers,
                by_request.iter().map(|&it| it as i32).collect::<Vec<_>>()
            );
            let after = weights(&api, &model_id, MatrixEncoding::Packed).await;
            for layer in 0..3 {
                let is_frozen = by_model.contains(&layer) || by_request.contains(&layer);
                assert_eq!(before[layer] == after[layer], is_frozen, "layer {layer} of {model_id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_whose_time_is_over_gives_its_last_whole_epoch_or_fails_without_one() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let bounded = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let told = api.train(pb::TrainRequest { max_duration: bounded(0, 500_000_000), ..endless("xor") }).await;
    assert_eq!((told.finished.state(), told.finished.stop_reason()), (JobState::Succeeded, StopReason::MaxDuration));
    assert_eq!((told.finished.version, told.finished.failure), (2, None));
    let last = told.finished.last_report.unwrap();
    assert!(last.elapsed.unwrap().nanos <= 900_000_000 && last.epoch == told.reports.last().unwrap().epoch);
    // What is told of each epoch's speed and of the time of all is of the same unit: the one comes to the other, but for pauses.
    let of_epochs: f64 = told.reports.iter().map(|report| 4_096.0 / report.samples_per_second).sum();
    let of_all = f64::from(last.elapsed.unwrap().nanos) / 1e9;
    assert!((of_all / 2.0..of_all * 2.0).contains(&of_epochs), "{of_epochs} s of {of_all} s");
    let told = api.train(pb::TrainRequest { max_duration: bounded(0, 1), ..endless("xor") }).await;
    assert_eq!((told.finished.state(), told.finished.stop_reason()), (JobState::Failed, StopReason::MaxDuration));
    assert_eq!((told.finished.version, told.reports.len()), (0, 0));
    let failure = told.finished.failure.unwrap();
    assert_eq!(failure.code, Code::DeadlineExceeded as i32);
    assert!(failure.message.contains("allow more time"), "{}", failure.message);
    assert_eq!(api.model("xor").await.latest_version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_whose_time_is_over_commits_the_weights_of_the_epoch_it_reports() {
    let server = Server::start();
    let api = server.api().await;
    for model_id in ["bounded", "whole"] {
        api.create(xor_model(model_id, 4)).await;
    }
    let max_duration = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    let told = api.train(pb::TrainRequest { max_duration, ..endless("bounded") }).await;
    let epochs = Some(told.finished.last_report.unwrap().epoch);
    api.train(pb::TrainRequest { epochs, ..endless("whole") }).await;
    let encoding = MatrixEncoding::Packed;
    assert_eq!(weights(&api, "bounded", encoding).await, weights(&api, "whole", encoding).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_ends_once_the_metric_it_is_to_reach_is_there() {
    let server = Server::start();
    let api = server.api().await;
    for (number, (metric, value)) in [
        ("ACCURACY", 1.0),
        ("MISCLASSIFIED_ROWS", 0.0),
        ("LOSS", 0.3),
        ("UNSPECIFIED", 0.3),
        ("ROC_AUC", 0.99),
        ("LOG_LOSS", 0.3),
    ]
    .into_iter()
    .enumerate()
    {
        let model_id = format!("xor-{number}");
        api.create(xor_model(&model_id, 8)).await;
        let stop_at = json!({"metric": format!("METRIC_{metric}"), "value": value});
        let options = json!({"stop_at": stop_at, "epochs": 5_000, "optimizer": {"adam": {"learning_rate": 0.05}}});
        let told = api.train(training(&model_id, &corners().values, &XOR, options)).await;
        assert_eq!(told.finished.stop_reason(), StopReason::TargetReached, "{metric}");
        assert_eq!((told.finished.state(), told.finished.version), (JobState::Succeeded, 2));
        let reached = |report: &pb::EpochReport| {
            let metrics = report.metrics.unwrap();
            match metric {
                "ACCURACY" => metrics.accuracy.unwrap() >= value,
                "MISCLASSIFIED_ROWS" => metrics.misclassified_rows.unwrap() == 0,
                "ROC_AUC" => metrics.roc_auc.unwrap() >= value,
                "LOG_LOSS" => metrics.log_loss.unwrap() <= value,
                _ => report.loss <= value,
            }
        };
        let epochs: Vec<bool> = told.reports.iter().map(reached).collect();
        assert_eq!(epochs.iter().position(|&it| it), Some(epochs.len() - 1), "{metric}");
    }
}

/// The names of the fields that a message sets.
fn set_fields(message: &DynamicMessage) -> BTreeSet<String> {
    message.fields().map(|(field, _)| field.name().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_asked_for_are_told_and_no_others() {
    let server = Server::start();
    let api = server.api().await;
    let inputs = column();
    let classes: Vec<f64> = (0..20).map(|index| f64::from(index % 3)).collect();
    let bits: Vec<f64> = (0..20).map(|index| f64::from(index % 2)).collect();
    create(&api, "softmax", 1, json!([{"units": 3, "activation": "ACTIVATION_SOFTMAX"}])).await;
    create(&api, "sigmoid", 1, json!([{"units": 1, "activation": "ACTIVATION_SIGMOID"}])).await;
    create(&api, "identity", 1, json!([{"units": 1}])).await;
    let metrics = contract().get_enum_by_name("epochd.v1.Metric").unwrap();
    let names: Vec<String> = metrics.values().filter(|it| it.number() > 1).map(|it| it.name().to_owned()).collect();
    let mut told = BTreeSet::new();
    for (model_id, targets) in [("softmax", &classes), ("sigmoid", &bits), ("identity", &inputs)] {
        for name in &names {
            let options =
                json!({"metrics": [name, name], "epochs": 1, "validation_fraction": 0.5, "diagnostics": false});
            let Ok(answer) = api.models.clone().train(training(model_id, &inputs, targets, options)).await else {
                continue;
            };
            let report = read(answer.into_inner()).await.reports.remove(0);
            let expected = BTreeSet::from([name.trim_start_matches("METRIC_").to_lowercase()]);
            assert_eq!(set_fields(&dynamic(&report.metrics.unwrap())), expected, "{model_id}");
            assert_eq!(set_fields(&dynamic(&report.validation_metrics.unwrap())), expected, "{model_id}");
            told.extend(expected);
        }
    }
    assert_eq!(told.len(), names.len(), "some metric fits nothing: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn diagnostics_tell_of_each_layer_when_asked_for_and_only_then() {
    let server = Server::start();
    let api = server.api().await;
    let inputs = column();
    create(&api, "m", 1, json!([{"units": 4, "activation": "ACTIVATION_RELU"}, {"units": 3, "activation": "ACTIVATION_TANH"}, {"units": 1}])).await;
    for diagnostics in [false, true] {
        let options = json!({"diagnostics": diagnostics, "epochs": 3, "optimizer": {"sgd": {}}});
        let told = api.train(training("m", &inputs, &inputs, options)).await;
        for report in told.reports {
            assert_eq!(report.diagnostics.len(), if diagnostics { 3 } else { 0 });
            for layer in report.diagnostics {
                assert!(layer.gradient_norm > 0.0 && layer.weight_norm > 0.0 && layer.update_ratio > 0.0, "{layer:?}");
                assert!((0.0..=1.0).contains(&layer.dead_units), "{layer:?}");
            }
        }
    }
    // In one full batch from known weights, the norm is that of the gradients; SGD moves by rate times the gradient.
    let options = json!({"diagnostics": true, "epochs": 1, "optimizer": {"sgd": {"learning_rate": 0.1}}});
    let question = json!({"model_id": "m", "inputs": {"values": inputs}, "targets": {"values": inputs}});
    let gradients = api
        .models
        .clone()
        .compute_gradients(from_json::<pb::ComputeGradientsRequest>(&question))
        .await
        .unwrap()
        .into_inner();
    let norm = |values: Vec<f64>| values.iter().map(|it| it * it).sum::<f64>().sqrt();
    let before = weights(&api, "m", MatrixEncoding::Values).await;
    let report = api.train(training("m", &inputs, &inputs, options)).await.reports.remove(0);
    let after = weights(&api, "m", MatrixEncoding::Values).await;
    for (layer, told) in report.diagnostics.iter().enumerate() {
        let join = |weights: &Option<pb::Matrix>, bias: &Option<pb::Matrix>| {
            [&weights.as_ref().unwrap().values[..], &bias.as_ref().unwrap().values].concat()
        };
        let gradient = norm(join(&gradients.layers[layer].weights, &gradients.layers[layer].bias));
        assert_near(told.gradient_norm, gradient, "gradient");
        assert_near(
            told.update_ratio,
            0.1 * gradient / norm(join(&before[layer].weights, &before[layer].bias)),
            "update",
        );
        assert_near(told.weight_norm, norm(after[layer].weights.clone().unwrap().values), "weights");
    }
}

/// Weights set by hand, as in the third lesson of the course: what they make of the rows is learned from, they are not.
#[tokio::test(flavor = "multi_thread")]
async fn layers_behind_a_flat_one_are_trained_where_all_before_are_frozen() {
    let server = Server::start();
    let api = server.api().await;
    let layers = [(2, Activation::Step), (2, Activation::Tanh), (1, Activation::Step)];
    for (model_id, layers) in [("two", &[layers[0], layers[2]][..]), ("three", &layers[..])] {
        api.create(model(model_id, 2, layers)).await;
        let by_hand = pb::LayerWeights {
            layer: Some(0),
            weights: Some(values(&[1.0, -1.0, -1.0, 1.0])),
            bias: Some(values(&[-0.5, -0.5])),
            ..Default::default()
        };
        let request = pb::SetWeightsRequest { model_id: model_id.into(), layers: vec![by_hand] };
        api.models.clone().set_weights(request).await.unwrap();
    }
    for (model_id, frozen, told) in
        [("two", vec![], "freeze layer 0"), ("three", vec![1], "freeze layer 0"), ("two", vec![0, 1], "free one")]
    {
        let request = pb::TrainRequest { frozen_layers: frozen.clone(), ..truth_table(model_id, XOR) };
        let status = api.models.clone().train(request).await.unwrap_err();
        assert!(status.message().contains(told), "{frozen:?}: {status:?}");
    }
    let before = api.models.clone().get_weights(get_weights("two")).await.unwrap().into_inner();
    let request = pb::TrainRequest { frozen_layers: vec![0], ..truth_table("two", XOR) };
    let told = api.train(request).await;
    assert_eq!(told.finished.stop_reason(), StopReason::Converged);
    let after = api.models.clone().get_weights(get_weights("two")).await.unwrap().into_inner();
    assert_eq!(after.layers[0], before.layers[0]);
    assert_ne!(after.layers[1], before.layers[1]);
    assert_eq!(api.outputs("two", corners()).await, XOR);
}
