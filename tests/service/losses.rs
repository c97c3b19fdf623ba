//! What a training reports as its loss, what its settings are said to be, and that both come again.

use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::MatrixEncoding;
use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::*;

/// A float64 model of one input.
async fn create(api: &Api, model_id: &str, layers: Value) {
    let architecture = json!({"input_width": 1, "element_type": "ELEMENT_TYPE_FLOAT64", "layers": layers});
    api.create(from_json(&json!({"model_id": model_id, "architecture": architecture, "seed": 1}))).await;
}

/// Four rows of one number.
const ROWS: [f64; 4] = [0.5, -1.0, 2.0, 1.5];

fn training(model_id: &str, inputs: &[f64], targets: &[f64], options: &Value) -> pb::TrainRequest {
    let mut request = json!({"model_id": model_id, "seed": 3, "epochs": 1});
    request["inputs"] = json!({"values": inputs});
    request["targets"] = json!({"values": targets});
    options.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
    from_json(&request)
}

/// The first loss of a unit that passes its input on to an activation: that of weights 1 and 0, in one full batch.
async fn first_loss(activation: &str, targets: &[f64], options: Value) -> f64 {
    let server = Server::start();
    let api = server.api().await;
    let layers = json!([{"units": 1, "activation": format!("ACTIVATION_{activation}")}]);
    create(&api, "m", layers).await;
    let set = json!({"model_id": "m", "layers": [{"weights": {"values": [1]}, "bias": {"values": [0]}}]});
    api.models.clone().set_weights(from_json::<pb::SetWeightsRequest>(&set)).await.unwrap();
    api.train(training("m", &ROWS, targets, &options)).await.reports[0].loss
}

#[track_caller]
fn assert_near(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {actual}, not {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_of_rows_and_classes_make_the_loss_a_weighted_mean_or_sum() {
    let targets = [1.0, 1.0, 1.0, 1.0];
    let losses: Vec<f64> = ROWS.iter().zip(targets).map(|(x, y)| (x - y) * (x - y)).collect();
    let weights = [0.5, 2.0, 0.0, 3.0];
    let weighted = |losses: &[f64], weights: &[f64]| losses.iter().zip(weights).map(|(l, w)| l * w).sum::<f64>();
    let total = weights.iter().sum::<f64>();
    let rows = json!({"sample_weights": {"values": weights}});
    assert_near(first_loss("IDENTITY", &targets, rows.clone()).await, weighted(&losses, &weights) / total, "rows");
    // Whatever the batches, also those in which no row counts; weights that do not move.
    for batch_size in [1, 3] {
        let mut batches = rows.clone();
        batches["batch_size"] = json!(batch_size);
        batches["optimizer"] = json!({"sgd": {"learning_rate": 1e-300}});
        assert_near(first_loss("IDENTITY", &targets, batches).await, weighted(&losses, &weights) / total, "batches");
    }
    let mask = json!({"target_mask": {"values": [1, 0, 1, 0]}});
    assert_near(first_loss("IDENTITY", &targets, mask).await, (losses[0] + losses[2]) / 2.0, "mask");

    let bits = [1.0, 0.0, 0.0, 0.0];
    let entropy = |(x, y): (&f64, f64)| (if y == 1.0 { -x } else { *x }).exp().ln_1p();
    let losses: Vec<f64> = ROWS.iter().zip(bits).map(entropy).collect();
    let classes = json!({"class_weights": {"weights": [0.5, 4]}});
    let by_class = [4.0, 0.5, 0.5, 0.5];
    assert_near(first_loss("SIGMOID", &bits, classes).await, weighted(&losses, &by_class) / 5.5, "classes");
    // rows / (classes · rows of the class): 4 / (2·1) and 4 / (2·3)
    let balanced = json!({"class_weights": {"balanced": true}});
    let by_class = [2.0, 2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0];
    assert_near(first_loss("SIGMOID", &bits, balanced).await, weighted(&losses, &by_class) / 4.0, "balanced");
    let both = json!({"class_weights": {"weights": [0.5, 4]}, "sample_weights": {"values": weights}});
    let product = [2.0, 1.0, 0.0, 1.5];
    assert_near(first_loss("SIGMOID", &bits, both).await, weighted(&losses, &product) / 4.5, "both");
}

/// w − rate·Σ s·2·(ŷ − y)·x, divided by Σ s or by nothing.
#[tokio::test(flavor = "multi_thread")]
async fn weights_of_rows_and_the_reduction_make_the_step() {
    let server = Server::start();
    let api = server.api().await;
    let weights = [0.5, 2.0, 0.0, 3.0];
    let slope: f64 = ROWS.iter().zip(weights).map(|(x, weight)| weight * 2.0 * (x - 1.0) * x).sum();
    for (reduction, divisor) in [("REDUCTION_MEAN", 5.5), ("REDUCTION_SUM", 1.0)] {
        let model_id = reduction.to_lowercase().replace('_', "-");
        create(&api, &model_id, json!([{"units": 1, "bias": false}])).await;
        let set = json!({"model_id": model_id, "layers": [{"weights": {"values": [1]}}]});
        api.models.clone().set_weights(from_json::<pb::SetWeightsRequest>(&set)).await.unwrap();
        let options = json!({"sample_weights": {"values": weights}, "reduction": reduction,
            "optimizer": {"sgd": {"learning_rate": 0.1}}});
        api.train(training(&model_id, &ROWS, &[1.0; 4], &options)).await;
        let layers = api.models.clone().get_weights(get_weights(&model_id)).await.unwrap().into_inner().layers;
        assert_near(layers[0].weights.as_ref().unwrap().values[0], 1.0 - 0.1 * slope / divisor, reduction);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_weighs_two_is_a_row_that_comes_twice() {
    let server = Server::start();
    let api = server.api().await;
    let layers = json!([{"units": 3, "activation": "ACTIVATION_TANH"}, {"units": 1}]);
    create(&api, "weighted", layers.clone()).await;
    create(&api, "twice", layers).await;
    let options =
        json!({"sample_weights": {"values": [2, 1, 0, 1]}, "epochs": 20, "optimizer": {"sgd": {"learning_rate": 0.1}}});
    let weighted = api.train(training("weighted", &ROWS, &[1.0, 2.0, 3.0, 0.0], &options)).await;
    let options = json!({"epochs": 20, "optimizer": {"sgd": {"learning_rate": 0.1}}});
    let twice = api.train(training("twice", &[0.5, 0.5, -1.0, 1.5], &[1.0, 1.0, 2.0, 0.0], &options)).await;
    for (weighted, twice) in weighted.losses().into_iter().zip(twice.losses()) {
        assert_near(weighted, twice, "loss");
    }
}

/// A built-in loss, and the same as an expression; the activation of the output, and targets for the four rows.
fn equals() -> Vec<(Value, &'static str, &'static str, Vec<f64>)> {
    let (numbers, amounts, bits) = (vec![1.0, -2.0, 0.3, 0.5], vec![1.0, 2.0, 0.3, 0.5], vec![1.0, 0.0, 0.0, 1.0]);
    let signs = vec![1.0, -1.0, -1.0, 1.0];
    let classes = vec![2.0, 0.0, 1.0, 0.0];
    vec![
        (json!({"squared_error": {}}), "(y_pred - y_true)^2", "IDENTITY", numbers.clone()),
        (json!({"absolute_error": {}}), "abs(y_pred - y_true)", "IDENTITY", numbers.clone()),
        (
            json!({"huber": {"delta": 0.7}}),
            "where(abs(y_pred-y_true) <= 0.7, 0.5*(y_pred-y_true)**2, 0.7*(abs(y_pred-y_true) - 0.35))",
            "TANH",
            numbers.clone(),
        ),
        (json!({"log_cosh": {}}), "log((exp(y_pred-y_true) + exp(y_true-y_pred))/2)", "IDENTITY", numbers.clone()),
        (json!({"quantile": {"q": 0.2}}), "max(0.2*(y_true-y_pred), 0.8*(y_pred-y_true))", "IDENTITY", numbers),
        (json!({"poisson": {}}), "exp(y_pred) - y_true*y_pred", "IDENTITY", amounts.clone()),
        (json!({"poisson": {}}), "y_pred - y_true*log(y_pred + 1e-8)", "SOFTPLUS", amounts.clone()),
        (json!({"gamma_deviance": {}}), "2*(log(y_pred/y_true) + y_true/y_pred - 1)", "EXPONENTIAL", amounts.clone()),
        (
            json!({"tweedie_deviance": {"power": 1.5}}),
            "2*(y_true^0.5/(-0.5*0.5) - y_true*y_pred^-0.5/(-0.5) + y_pred^0.5/0.5)",
            "SOFTPLUS",
            amounts,
        ),
        (json!({"hinge": {}}), "max(0, 1 - y_true*y_pred)", "IDENTITY", signs.clone()),
        (json!({"squared_hinge": {}}), "max(0, 1 - y_true*y_pred)^2", "TANH", signs),
        (
            json!({"binary_cross_entropy": {"positive_weights": [3]}}),
            "-3*y_true*log(y_pred) - (1-y_true)*log(1-y_pred)",
            "SIGMOID",
            bits.clone(),
        ),
        (
            json!({"focal": {"gamma": 2, "alpha": 0.3}}),
            "-where(y_true == 1, 0.3*(1-y_pred)^2*log(y_pred), 0.7*y_pred^2*log(1-y_pred))",
            "SIGMOID",
            bits,
        ),
        (json!({"softmax_cross_entropy": {}}), "-sum(y_true*log(y_pred))", "SOFTMAX", classes.clone()),
        (
            json!({"softmax_cross_entropy": {"label_smoothing": 0.3}}),
            "-sum((0.7*y_true + 0.1)*log(y_pred))",
            "SOFTMAX",
            classes.clone(),
        ),
        (json!({"focal": {}}), "-sum(y_true*(1-y_pred)^2*log(y_pred))", "SOFTMAX", classes.clone()),
        (json!({"squared_error": {}}), "sum((y_true-y_pred)^2)", "SOFTMAX", classes),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_loss_trains_as_the_built_in_one_of_the_same_formula() {
    let server = Server::start();
    let api = server.api().await;
    let mut failures = Vec::new();
    for (number, (built_in, expression, activation, targets)) in equals().into_iter().enumerate() {
        for (reduction, validation) in [("MEAN", 0.5), ("SUM", 0.3)] {
            let custom = json!({"custom": {"expression": expression}});
            let mut told = Vec::new();
            for (name, loss) in [("built-in", &built_in), ("custom", &custom)] {
                let model_id = format!("{name}-{number}-{reduction}").to_lowercase();
                let units = if activation == "SOFTMAX" { 3 } else { 1 };
                create(
                    &api,
                    &model_id,
                    json!([
                        {"units": 3, "activation": "ACTIVATION_TANH"},
                        {"units": units, "activation": format!("ACTIVATION_{activation}")}
                    ]),
                )
                .await;
                let options = json!({"loss": loss, "epochs": 10, "batch_size": 3, "reduction": format!("REDUCTION_{reduction}"),
                    "validation_fraction": validation, "optimizer": {"sgd": {"learning_rate": 0.05}}});
                told.push(api.train(training(&model_id, &ROWS, &targets, &options)).await.reports);
            }
            for (a, b) in told[0].iter().zip(&told[1]) {
                let is_near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
                if !is_near(a.loss, b.loss) || !is_near(a.validation_loss.unwrap(), b.validation_loss.unwrap()) {
                    failures.push(format!(
                        "{built_in} on {activation}, {reduction}, epoch {}: {} and {}",
                        a.epoch, a.loss, b.loss
                    ));
                    break;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Options of every kind, each of which leaves something to its default.
fn sparse() -> Vec<Value> {
    let names = |message: &str, oneof: &str| {
        let message = contract().get_message_by_name(&format!("epochd.v1.{message}")).unwrap();
        let oneof = message.oneofs().find(|it| it.name() == oneof).unwrap();
        oneof.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>()
    };
    let mut options = vec![
        json!({}),
        json!({"early_stopping": {}, "validation_fraction": 0.5}),
        json!({"stop_at": {"value": 0.01}, "max_duration": "60s"}),
        json!({"loss": {"huber": {}}, "l1": 0.01, "l2": 0.1, "max_gradient_norm": 1, "max_gradient_value": 0.5}),
        json!({"loss": {"quantile": {}}, "frozen_layers": [0], "diagnostics": true, "report_every": 2}),
        json!({"loss": {"tweedie_deviance": {}}, "reduction": "REDUCTION_SUM", "shuffle": false, "metrics": ["METRIC_R2"]}),
        json!({"loss": {"custom": {"expression": "abs(y_pred - y_true)^1.5"}}, "cancel_on_disconnect": true}),
    ];
    options.extend(names("Optimizer", "method").into_iter().map(|name| json!({"optimizer": {name: {}}})));
    options.extend(names("Schedule", "kind").into_iter().map(|name| {
        let required = match name.as_str() {
            "step" => json!({"step_size": 2}),
            "exponential" => json!({"gamma": 0.9}),
            "inverse_time" => json!({"decay": 0.1}),
            _ => json!({}),
        };
        json!({"schedule": {name: required}})
    }));
    options
}

/// The fields with a presence, of a message and of those within it, that are not set.
fn unset(message: &DynamicMessage) -> Vec<String> {
    let mut unset = Vec::new();
    for field in message.descriptor().fields() {
        let is_choice = field.containing_oneof().is_some_and(|oneof| oneof.fields().count() > 1);
        match field.kind() {
            Kind::Message(_) if message.has_field(&field) && !field.is_list() => {
                unset.extend(self::unset(message.get_field(&field).as_message().unwrap()));
            }
            _ if field.supports_presence() && !is_choice && !message.has_field(&field) => {
                unset.push(field.full_name().to_owned())
            }
            _ => {}
        }
    }
    unset
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_in_force_have_every_default_filled_in_and_repeat_the_run() {
    let server = Server::start();
    let api = server.api().await;
    let targets = [1.0, 2.0, 0.3, 0.5];
    for (number, options) in sparse().into_iter().enumerate() {
        for model_id in [format!("first-{number}"), format!("second-{number}")] {
            create(&api, &model_id, json!([{"units": 3, "activation": "ACTIVATION_TANH"}, {"units": 1}])).await;
        }
        let mut request = training(&format!("first-{number}"), &ROWS, &targets, &options);
        (request.seed, request.epochs) = (None, if number % 2 == 0 { Some(12) } else { None });
        let first = api.train(request.clone()).await;
        let settings = first.started.clone().unwrap().settings.unwrap();
        for message in [
            dynamic(settings.loss.as_ref().unwrap()),
            dynamic(settings.optimizer.as_ref().unwrap()),
            dynamic(settings.schedule.as_ref().unwrap()),
        ] {
            // What has no weights by default says so by being unset.
            let unset: Vec<_> = unset(&message).into_iter().filter(|name| !name.ends_with("FocalLoss.alpha")).collect();
            assert!(unset.is_empty() && message.fields().count() > 0, "{options}: {unset:?} of {message:?}");
        }
        assert!(settings.schedule.as_ref().unwrap().kind.is_some(), "{options}: {:?}", settings.schedule);
        assert!(settings.batch_size > 0 && settings.epochs > 0 && settings.top_k > 0 && !settings.metrics.is_empty());
        for message in [settings.early_stopping.as_ref().map(dynamic), settings.stop_at.as_ref().map(dynamic)] {
            assert_eq!(message.as_ref().map(unset).unwrap_or_default(), Vec::<String>::new(), "{options}");
        }

        // The fields of the settings that a request has, too, into a request.
        let repeated = pb::TrainRequest {
            model_id: format!("second-{number}"),
            inputs: request.inputs,
            targets: request.targets,
            ..Default::default()
        };
        let (mut repeated, told) = (dynamic(&repeated), dynamic(&settings));
        for field in told.descriptor().fields().filter(|field| !field.supports_presence() || told.has_field(field)) {
            if repeated.descriptor().get_field_by_name(field.name()).is_some() {
                repeated.set_field_by_name(field.name(), told.get_field(&field).into_owned());
            }
        }
        let second = api.train(repeated.transcode_to().unwrap()).await;
        assert_eq!(second.losses(), first.losses(), "{options}");
        assert_eq!(second.started.unwrap().settings, Some(settings), "{options}");
    }
}

/// What a rich training leaves behind: every loss, and every bit of the weights.
async fn trace(api: &Api, model_id: &str, options: &Value) -> (Vec<f64>, Vec<pb::LayerWeights>) {
    create(
        api,
        model_id,
        json!([
            {"units": 33, "activation": "ACTIVATION_SILU", "batch_normalization": {}, "dropout": 0.2},
            {"units": 17, "activation": "ACTIVATION_SELU", "max_norm": 1.5},
            {"units": 1, "activation": "ACTIVATION_SIGMOID"}
        ]),
    )
    .await;
    let inputs: Vec<f64> = (0..301).map(|index| f64::from(index * 37 % 301) / 100.0 - 1.5).collect();
    let targets: Vec<f64> = inputs.iter().map(|x| f64::from(u8::from((x * 4.0).sin() > 0.2))).collect();
    let told = api.train(training(model_id, &inputs, &targets, options)).await;
    let request = pb::GetWeightsRequest { encoding: MatrixEncoding::Packed.into(), ..get_weights(model_id) };
    (told.losses(), api.models.clone().get_weights(request).await.unwrap().into_inner().layers)
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_are_the_same_whatever_the_threads_and_the_other_jobs_and_every_time() {
    let options = json!({"epochs": 15, "batch_size": 50, "optimizer": {"nadam": {}}, "schedule": {"one_cycle": {}}, "l1": 1e-4,
        "class_weights": {"balanced": true}, "validation_fraction": 0.2, "early_stopping": {"metric": "METRIC_ROC_AUC"}});
    let mut traces = Vec::new();
    for train_threads in [1, 2, 4] {
        let server = Server::with(RawConfig { ephemeral: true, train_threads: Some(train_threads), ..Server::raw() });
        let api = server.api().await;
        traces.push(trace(&api, "alone", &options).await);
        traces.push(trace(&api, "again", &options).await);
        let mut others = Vec::new();
        for other in 0..4 {
            let model_id = format!("other-{other}");
            api.create(xor_model(&model_id, 16)).await;
            others.push(api.start(endless(&model_id)).await.1);
        }
        let mut together = JoinSet::new();
        for number in 0..2 {
            let (api, options) = (api.clone(), options.clone());
            together.spawn(async move { trace(&api, &format!("together-{number}"), &options).await });
        }
        traces.extend(together.join_all().await);
        drop(others);
    }
    assert_eq!(traces.len(), 12);
    for trace in &traces {
        assert_eq!(trace, &traces[0]);
    }
}
