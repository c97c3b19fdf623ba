//! What options out of range, and options that cannot go together, get: INVALID_ARGUMENT with the field's path and a word
//! about what to do instead. Each row of a table is a request that would be fine without what the row says.

use std::collections::BTreeSet;

use epochd::rpc::pb;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

use crate::support::*;

/// The models that are asked, each with one input: its layers, and targets for four rows.
fn models() -> Vec<(&'static str, Value, Value)> {
    let one = |activation: &str| json!([{"units": 1, "activation": format!("ACTIVATION_{activation}")}]);
    let three = |activation: &str| json!([{"units": 3, "activation": format!("ACTIVATION_{activation}")}]);
    let after = |hidden: Value| json!([hidden, {"units": 1}]);
    let (numbers, bits, classes) = (json!([0.5, 1, 2, 3]), json!([0, 1, 1, 0]), json!([0, 1, 2, 0]));
    vec![
        ("identity", one("IDENTITY"), numbers.clone()),
        ("tanh", one("TANH"), bits.clone()),
        ("sigmoid", one("SIGMOID"), bits.clone()),
        ("labels", three("SIGMOID"), json!([0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1, 0])),
        ("softmax", three("SOFTMAX"), classes.clone()),
        ("logs", three("LOG_SOFTMAX"), classes),
        ("sign", one("SIGN"), bits),
        ("dropped", after(json!({"units": 2, "dropout": 0.5})), numbers.clone()),
        ("bounded", after(json!({"units": 2, "max_norm": 1})), numbers.clone()),
        ("normalized", after(json!({"units": 2, "batch_normalization": {}})), numbers.clone()),
        ("frozen", json!([{"units": 2, "frozen": true}, {"units": 1, "frozen": true}]), numbers),
    ]
}

pub async fn create_models(api: &Api) {
    for (model_id, layers, _) in models() {
        let architecture = json!({"input_width": 1, "layers": layers});
        let weights = json!([{"weights": {"values": [1]}, "bias": {"values": [0]}}]);
        let initial = if model_id == "identity" { weights } else { json!([]) };
        let request = json!({"model_id": model_id, "architecture": architecture, "initial_weights": initial});
        api.create(from_json(&request)).await;
    }
}

/// A training of a model that would be accepted, but for `change`.
pub fn training(model_id: &str, change: Value) -> pb::TrainRequest {
    let (_, _, targets) = models().into_iter().find(|(name, ..)| *name == model_id).unwrap();
    let mut request = json!({"model_id": model_id, "epochs": 2});
    request["inputs"] = json!({"values": [1, 2, -1, 3]});
    request["targets"] = json!({"values": targets});
    change.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
    from_json(&request)
}

/// Numbers of a training out of their range: model, path, values, a word of the answer.
fn ranges() -> Vec<(&'static str, String, Value, &'static str)> {
    let mut rows = Vec::new();
    let mut add = |model, path: &str, bad, word| rows.push((model, path.to_owned(), bad, word));
    let share = json!([-0.1, 1, "NaN"]);
    let open = json!([0, 1, "NaN"]);
    let negative = json!([-0.1, "NaN", "Infinity"]);
    let positive = json!([0, -1, "NaN", "Infinity"]);
    for (name, shares, others) in [
        ("sgd", vec!["momentum"], vec!["weight_decay"]),
        ("adam", vec!["beta1", "beta2"], vec!["weight_decay"]),
        ("adamw", vec!["beta1", "beta2"], vec!["weight_decay"]),
        ("rmsprop", vec!["decay", "momentum"], vec!["weight_decay"]),
        ("adagrad", vec![], vec!["learning_rate_decay", "initial_accumulator", "weight_decay"]),
        ("adadelta", vec!["decay"], vec!["weight_decay"]),
        ("nadam", vec!["beta1", "beta2"], vec!["momentum_decay", "weight_decay"]),
        ("rprop", vec![], vec![]),
        ("lbfgs", vec![], vec!["tolerance_gradient", "tolerance_change"]),
    ] {
        let at = |number: &str| format!("optimizer.{name}.{number}");
        add("identity", &at("learning_rate"), json!([0, -1, 1_000_001, "NaN", "Infinity"]), "at most 1000000");
        shares.into_iter().for_each(|number| add("identity", &at(number), share.clone(), "less than 1"));
        others.into_iter().for_each(|number| add("identity", &at(number), negative.clone(), "at least 0"));
        if !["sgd", "rprop", "lbfgs"].contains(&name) {
            add("identity", &at("epsilon"), json!([0, 1.5, "NaN"]), "at most 1");
        }
    }
    add("identity", "optimizer.sgd.dampening", json!([-0.1, 1.1, "NaN"]), "at most 1");
    add("identity", "optimizer.rprop.eta_minus", open.clone(), "less than 1");
    add("identity", "optimizer.rprop.eta_plus", json!([1, 101, "NaN"]), "more than 1");
    add("identity", "optimizer.rprop.step_min", positive.clone(), "at least 1e-30");
    add("identity", "optimizer.rprop.step_max", positive.clone(), "at least 1e-30");
    add("identity", "optimizer.lbfgs.history_size", json!([0, -1, 101]), "between 1 and 100");
    add("identity", "optimizer.lbfgs.max_evaluations", json!([0, 1_001]), "between 1 and 1000");
    add("identity", "loss.huber.delta", positive.clone(), "at least 1e-30");
    add("identity", "loss.quantile.q", open.clone(), "at most 0.999999");
    add("identity", "loss.tweedie_deviance.power", json!([1, 2, 0, "NaN"]), "at most 1.999");
    add("softmax", "loss.softmax_cross_entropy.label_smoothing", share.clone(), "less than 1");
    add("sigmoid", "loss.focal.gamma", json!([-1, 101, "NaN"]), "at most 100");
    add("sigmoid", "loss.focal.alpha", json!([-0.1, 1.1, "NaN"]), "at most 1");
    add("labels", "loss.binary_cross_entropy.positive_weights", json!([[1, 1]]), "each of the 3");
    let epochs = "between 1 and 20000000";
    add("identity", "schedule.warm_up_epochs", json!([-1, 20_000_001]), "between 0 and 20000000");
    add("identity", "schedule.warm_up_start_factor", json!([-0.1, 1.1, "NaN"]), "at most 1");
    add("identity", "schedule.step.step_size", json!([0, -1, 20_000_001]), epochs);
    add("identity", "schedule.exponential.gamma", json!([0, 1.1, "NaN"]), "at most 1");
    add("identity", "schedule.cosine.t_0", json!([0, 20_000_001]), epochs);
    add("identity", "schedule.cosine.t_mult", json!([0, 1_001]), "between 1 and 1000");
    add("identity", "schedule.cosine.eta_min", json!([-1, 0.002, "NaN"]), "at most 0.001");
    add("identity", "schedule.one_cycle.epochs", json!([0, 20_000_001]), epochs);
    add("identity", "schedule.one_cycle.pct_start", open.clone(), "less than 1");
    add("identity", "schedule.one_cycle.div_factor", json!([0.9, "NaN", "Infinity"]), "at least 1");
    add("identity", "schedule.one_cycle.final_div_factor", json!([0.9, "NaN"]), "at least 1");
    add("identity", "schedule.inverse_time.decay", positive.clone(), "more than 0");
    add("identity", "schedule.reduce_on_plateau.factor", open.clone(), "less than 1");
    add("identity", "schedule.reduce_on_plateau.patience", json!([-1, 20_000_001]), "between 0 and 20000000");
    add("identity", "schedule.reduce_on_plateau.threshold", share.clone(), "less than 1");
    add("identity", "schedule.reduce_on_plateau.cooldown", json!([-1, 20_000_001]), "between 0 and 20000000");
    add("identity", "schedule.reduce_on_plateau.min_lr", json!([-1, 0.002]), "at most 0.001");
    add("identity", "epochs", json!([0, -1, 20_000_001]), epochs);
    add("identity", "batch_size", json!([0, -1]), "between 1 and 2147483647");
    add("identity", "report_every", json!([0, -1, 20_000_001]), epochs);
    add("identity", "validation_fraction", open, "less than 1");
    add("identity", "l1", negative.clone(), "at least 0");
    add("identity", "l2", negative.clone(), "at least 0");
    add("identity", "max_gradient_norm", positive.clone(), "at least 1e-30");
    add("identity", "max_gradient_value", positive, "at least 1e-30");
    add("identity", "early_stopping.patience", json!([0, 20_000_001]), epochs);
    add("identity", "early_stopping.min_delta", negative, "at least 0");
    add("identity", "stop_at.value", json!(["NaN", "-Infinity"]), "finite");
    add("softmax", "top_k", json!([0, -1, 4]), "between 1 and 3");
    add("identity", "max_duration", json!(["0s", "-1s", "-0.000000001s"]), "60s");
    add("identity", "checkpoint_interval", json!(["0s", "-1s"]), "60s");
    add("softmax", "class_weights.weights", json!([[1, 1], [1, 1, 1, 1]]), "3 weights");
    add("identity", "frozen_layers", json!([[0, 0], [0]]), "");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_training_out_of_their_range_are_refused_by_path_with_the_range() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let mut failures = Failures::default();
    for (model, path, bad, word) in ranges() {
        for value in bad.as_array().unwrap() {
            let mut change = nested(&path, value.clone());
            if path.starts_with("schedule.step") {
                change["schedule"]["step"]["gamma"] = json!(0.5);
            }
            let answer = api.models.clone().train(training(model, change)).await.map(drop);
            failures.look(format!("{path} = {value} on {model}"), answer, &path, word);
        }
    }
    let step = json!({"schedule": {"step": {"step_size": 1, "gamma": 1.5}}});
    let answer = api.models.clone().train(training("identity", step)).await.map(drop);
    failures.look("γ of step".into(), answer, "schedule.step.gamma", "at most 1");
    failures.check();
}

/// What cannot go together, or does not fit the model: model, change, path, a word of what to do.
fn combinations() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let matrix = |values: Value| json!({"values": values});
    let lbfgs = |name: &str, value: Value| json!({"optimizer": {"lbfgs": {}}, name: value});
    let metric = |name: &str| json!({"metrics": [format!("METRIC_{name}")]});
    let validation = |name: &str, value: Value| json!({"validation_data": {"inputs": {"values": [1, 2]}, "targets": {"values": [1, 2]}, name: {"values": value}}});
    let mut rows = vec![
        // Optimizers.
        ("identity", json!({"optimizer": {"sgd": {"nesterov": true}}}), "optimizer.sgd.nesterov", "0.9"),
        (
            "identity",
            json!({"optimizer": {"sgd": {"nesterov": true, "momentum": 0.9, "dampening": 0.1}}}),
            "optimizer.sgd.dampening",
            "leave nesterov out",
        ),
        (
            "identity",
            json!({"optimizer": {"rprop": {"step_min": 2, "step_max": 1}}}),
            "optimizer.rprop.step_max",
            "step_min",
        ),
        ("identity", json!({"optimizer": {"rprop": {}}, "batch_size": 2}), "batch_size", "leave it out"),
        (
            "identity",
            json!({"optimizer": {"rprop": {}}, "schedule": {"exponential": {"gamma": 0.9}}}),
            "schedule",
            "adam",
        ),
        ("identity", lbfgs("batch_size", json!(2)), "batch_size", "adam or sgd"),
        ("identity", lbfgs("l1", json!(0.1)), "l1", "l2"),
        ("identity", lbfgs("max_gradient_norm", json!(1)), "max_gradient_norm", "leave it out"),
        ("identity", lbfgs("max_gradient_value", json!(1)), "max_gradient_value", "adam or sgd"),
        ("identity", lbfgs("schedule", json!({"inverse_time": {"decay": 1}})), "schedule", "leave it out"),
        ("identity", lbfgs("schedule", json!({"warm_up_epochs": 1})), "schedule", "leave it out"),
        ("dropped", lbfgs("epochs", json!(1)), "optimizer.lbfgs", "adam or sgd"),
        ("bounded", lbfgs("epochs", json!(1)), "optimizer.lbfgs", "l2"),
        ("sign", lbfgs("epochs", json!(1)), "optimizer.lbfgs", "use sgd"),
        ("normalized", json!({"batch_size": 1}), "batch_size", "at least 2"),
        ("normalized", json!({"inputs": {"values": [1]}, "targets": {"values": [1]}}), "inputs", "two training rows"),
        // What is required.
        ("identity", json!({"schedule": {"exponential": {}}}), "schedule.exponential.gamma", "required"),
        ("identity", json!({"schedule": {"inverse_time": {}}}), "schedule.inverse_time.decay", "required"),
        ("identity", json!({"stop_at": {"metric": "METRIC_R2"}}), "stop_at.value", "required"),
        ("identity", json!({"loss": {"custom": {}}}), "loss.custom.expression", "empty"),
        // Losses' options, and targets of each kind.
        (
            "labels",
            json!({"loss": {"binary_cross_entropy": {"positive_weights": [1, 0, 1]}}}),
            "loss.binary_cross_entropy.positive_weights[1]",
            "at least 1e-30",
        ),
        ("softmax", json!({"loss": {"focal": {"alpha": 0.5}}}), "loss.focal.alpha", "class_weights"),
        ("softmax", json!({"targets": matrix(json!([0.5, 0.4, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]))}), "targets", "not 1"),
        (
            "softmax",
            json!({"targets": matrix(json!([1.5, -0.5, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]))}),
            "targets",
            "at least 0",
        ),
        ("softmax", json!({"targets": matrix(json!([0, 3, 1, 1]))}), "targets", "0 to 2"),
        (
            "logs",
            json!({"targets": matrix(json!([0.5, 0.5, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0]))}),
            "targets",
            "class indices",
        ),
        ("sigmoid", json!({"targets": matrix(json!([0, 0.5, 1, 0]))}), "targets", "0 or 1"),
        ("labels", json!({"loss": {"focal": {}}, "targets": matrix(json!(vec![2; 12]))}), "targets", "0 or 1"),
        ("identity", json!({"loss": {"poisson": {}}, "targets": matrix(json!([1, 2, -1, 0]))}), "targets", "row 2"),
        (
            "identity",
            json!({"loss": {"tweedie_deviance": {}}, "targets": matrix(json!([1, 2, -1, 0]))}),
            "targets",
            "0 or more",
        ),
        (
            "identity",
            json!({"loss": {"gamma_deviance": {}}, "targets": matrix(json!([1, 2, 0, 1]))}),
            "targets",
            "more than 0",
        ),
        ("tanh", json!({"loss": {"hinge": {}}, "targets": matrix(json!([1, 2, 0, 1]))}), "targets", "0 and 1"),
        (
            "identity",
            json!({"loss": {"squared_hinge": {}}, "targets": matrix(json!([1, -1, 0, 1]))}),
            "targets",
            "−1 and 1",
        ),
        // Weights of rows and classes, and targets that are missing.
        ("identity", json!({"class_weights": {"balanced": true}}), "class_weights", "sample_weights"),
        ("labels", json!({"class_weights": {"weights": [1, 1, 1]}}), "class_weights", "positive_weights"),
        ("sigmoid", json!({"class_weights": {"weights": [1, 1], "balanced": true}}), "class_weights", "one of them"),
        ("sigmoid", json!({"class_weights": {"weights": [1]}}), "class_weights.weights", "2 weights"),
        ("sigmoid", json!({"class_weights": {"weights": [1, -1]}}), "class_weights.weights[1]", "at least 1e-30"),
        ("sigmoid", json!({"class_weights": {"weights": [0, 0]}}), "class_weights.weights", "no row"),
        ("softmax", json!({"class_weights": {"weights": ["NaN", 1, 1]}}), "class_weights.weights[0]", "finite"),
        ("identity", json!({"sample_weights": matrix(json!([1, 1, 1]))}), "sample_weights", "3 rows"),
        ("identity", json!({"sample_weights": matrix(json!([1, 1, -1, 1]))}), "sample_weights", "at least 0"),
        ("identity", json!({"sample_weights": matrix(json!([0, 0, 0, 0]))}), "sample_weights", "no row"),
        ("identity", json!({"sample_weights": matrix(json!([1, "NaN", 0, 0]))}), "sample_weights", "finite"),
        ("identity", json!({"sample_weights": {"values": [1, 1, 1, 1], "columns": 4}}), "sample_weights.columns", "1"),
        ("identity", validation("sample_weights", json!([1, -1])), "validation_data.sample_weights", "at least 0"),
        ("identity", validation("target_mask", json!([1])), "validation_data.target_mask", "rows"),
        ("identity", json!({"target_mask": matrix(json!([1, 1, 1]))}), "target_mask", "3 rows"),
        ("labels", json!({"target_mask": matrix(json!([1, 1, 1, 1]))}), "target_mask", "3"),
        ("identity", json!({"target_mask": matrix(json!([1, 1, 0.5, 1]))}), "target_mask", "0 (missing) or 1"),
        ("identity", json!({"target_mask": matrix(json!([0, 0, 0, 0]))}), "target_mask", "all 0"),
        ("softmax", json!({"target_mask": matrix(json!(vec![1; 12]))}), "target_mask", "sample_weights"),
        (
            "identity",
            json!({"loss": {"custom": {"expression": "sum(y_pred)"}}, "target_mask": matrix(json!(vec![1; 4]))}),
            "target_mask",
            "sample_weights",
        ),
        // Measures.
        ("identity", json!({"stop_at": {"metric": "METRIC_ACCURACY", "value": 1}}), "stop_at.metric", "r2"),
        (
            "softmax",
            json!({"early_stopping": {"metric": "METRIC_PRECISION"}}),
            "early_stopping.metric",
            "precision_macro",
        ),
        ("identity", json!({"metrics": ["METRIC_UNSPECIFIED"]}), "metrics[0]", "name"),
        ("identity", json!({"metrics": ["METRIC_R2", 99]}), "metrics[1]", "METRIC_R2"),
        // Layers.
        ("dropped", json!({"frozen_layers": [2]}), "frozen_layers[0]", "between 0 and 1"),
        ("dropped", json!({"frozen_layers": [0, -1]}), "frozen_layers[1]", "between 0 and 1"),
        ("dropped", json!({"frozen_layers": [0, 1]}), "frozen_layers", "free one"),
        ("frozen", json!({}), "frozen_layers", "by the model"),
    ];
    // Metrics, each on a model that it does not fit.
    rows.push(("identity", metric("LOSS"), "metrics[0]", "leave it out"));
    for name in [
        "ACCURACY",
        "MISCLASSIFIED_ROWS",
        "ROC_AUC",
        "LOG_LOSS",
        "PRECISION_MACRO",
        "RECALL_MACRO",
        "F1_MACRO",
        "PRECISION_WEIGHTED",
        "RECALL_WEIGHTED",
        "F1_WEIGHTED",
    ] {
        rows.push(("identity", metric(name), "metrics[0]", "root_mean_squared_error"));
    }
    for name in ["PRECISION", "RECALL", "F1"] {
        rows.push(("softmax", metric(name), "metrics[0]", "f1_macro"));
        rows.push(("labels", metric(name), "metrics[0]", "f1_weighted"));
    }
    for name in ["MEAN_ABSOLUTE_ERROR", "ROOT_MEAN_SQUARED_ERROR", "R2", "TOP_K_ACCURACY"] {
        rows.push(("sigmoid", metric(name), "metrics[0]", "roc_auc"));
    }
    rows.push(("sign", metric("LOG_LOSS"), "metrics[0]", "misclassified_rows"));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_go_together_are_refused_naming_what_can() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let mut failures = Failures::default();
    for (model, change, path, word) in combinations() {
        let answer = api.models.clone().train(training(model, change.clone())).await.map(drop);
        failures.look(format!("{change} on {model}"), answer, path, word);
    }
    for (model_id, ..) in models().into_iter().filter(|(name, ..)| *name != "frozen") {
        api.train(training(model_id, json!({}))).await;
    }
    failures.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_does_not_fit_the_output_is_refused_naming_those_that_do() {
    let server = Server::start();
    let api = server.api().await;
    create_models(&api).await;
    let mut failures = Failures::default();
    let kinds = contract().get_message_by_name("epochd.v1.Loss").unwrap().oneofs().next().unwrap();
    for kind in kinds.fields() {
        let options = if kind.name() == "custom" { json!({"expression": "y_pred"}) } else { json!({}) };
        for (model, right) in [("logs", "negative_log_likelihood"), ("sign", "perceptron")] {
            let change = json!({"loss": {kind.name(): options}});
            let answer = api.models.clone().train(training(model, change)).await.map(drop);
            if kind.name() == right {
                assert!(answer.is_ok(), "{right} on {model}");
            } else {
                failures.look(format!("{} on {model}", kind.name()), answer, "loss", &format!("use {right}"));
            }
        }
    }
    failures.check();
}

/// Options of layers out of range: the layer, the path in it, a word of the answer. The layer stands before another.
fn layers() -> Vec<(Value, &'static str, &'static str)> {
    let mut rows = Vec::new();
    for (path, bad, word) in [
        ("units", json!([0, -1, 65_537]), "65536"),
        ("activation_alpha", json!([-0.1, 1_001, "NaN"]), "at most 1000"),
        ("dropout", json!([-0.1, 1, "NaN"]), "less than 1"),
        ("max_norm", json!([0, -1, "NaN", "Infinity"]), "at least 1e-30"),
        ("batch_normalization.momentum", json!([0, 1.1, "NaN"]), "at most 1"),
        ("batch_normalization.epsilon", json!([0, 1.1, "NaN"]), "at most 1"),
        ("initializer.constant.value", json!(["NaN", "Infinity", 1e300]), "finite"),
        ("initializer.uniform.minimum", json!(["NaN", -1e300]), "finite"),
        ("initializer.uniform.maximum", json!(["NaN", "Infinity"]), "finite"),
        ("initializer.uniform.maximum", json!([-0.06]), "at least the minimum"),
        ("initializer.normal.mean", json!(["NaN", "Infinity"]), "finite"),
        ("initializer.normal.deviation", json!([-1, "NaN"]), "at least 0"),
        ("initializer.orthogonal.gain", json!([0, -1, 1_001, "NaN"]), "at most 1000"),
    ] {
        rows.extend(bad.as_array().unwrap().iter().map(|value| (nested(path, value.clone()), path, word)));
    }
    rows.push((json!({"initializer": {"constant": {}}}), "initializer.constant.value", "required"));
    rows.push((json!({"batch_normalization": {}, "bias": true}), "bias", "leave it out"));
    rows.push((json!({"activation": "ACTIVATION_TANH", "activation_alpha": 1}), "activation_alpha", "ELU"));
    rows.push((json!({"activation": "ACTIVATION_SOFTMAX"}), "activation", "tanh in hidden"));
    rows.push((json!({"activation": "ACTIVATION_LOG_SOFTMAX"}), "activation", "tanh in hidden"));
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_out_of_range_are_refused_by_path() {
    let server = Server::start();
    let api = server.api().await;
    let mut failures = Failures::default();
    let create = |layers: Value| from_json::<pb::CreateModelRequest>(&json!({"architecture": layers}));
    for (change, path, word) in layers() {
        let mut layer = json!({"units": 2, "activation": "ACTIVATION_ELU"});
        change.as_object().unwrap().iter().for_each(|(name, value)| layer[name] = value.clone());
        let request = create(json!({"input_width": 1, "layers": [layer, {"units": 1}]}));
        let answer = api.models.clone().create_model(request).await.map(drop);
        failures.look(change.to_string(), answer, &format!("architecture.layers[0].{path}"), word);
    }
    for (layer, path, word) in [
        (json!({"units": 1, "dropout": 0.1}), "layers[0].dropout", "hidden"),
        (json!({"units": 1, "activation": "ACTIVATION_SOFTMAX"}), "layers[0].units", "sigmoid"),
        (json!({"units": 1, "activation": "ACTIVATION_LOG_SOFTMAX"}), "layers[0].units", "sigmoid"),
    ] {
        let answer = api.models.clone().create_model(create(json!({"input_width": 1, "layers": [layer]}))).await;
        failures.look(layer.to_string(), answer.map(drop), &format!("architecture.{path}"), word);
    }
    for share in [json!(-0.1), json!(1), json!("NaN")] {
        let request = create(json!({"input_width": 1, "layers": [{"units": 1}], "input_dropout": share}));
        let answer = api.models.clone().create_model(request).await.map(drop);
        failures.look("input_dropout".into(), answer, "architecture.input_dropout", "less than 1");
    }
    failures.check();
}

/// The paths of the numbers below a message, those of matrices apart.
fn numbers(message: &MessageDescriptor, before: &str, found: &mut BTreeSet<String>) {
    for field in message.fields() {
        let path = if before.is_empty() { field.name().to_owned() } else { format!("{before}.{}", field.name()) };
        match field.kind() {
            Kind::Double | Kind::Int32 => drop(found.insert(path)),
            Kind::Message(inner) if inner.full_name() == "google.protobuf.Duration" => drop(found.insert(path)),
            Kind::Message(inner) if has_numbers(&field) => numbers(&inner, &path, found),
            _ => {}
        }
    }
}

/// Matrices, and what holds them, are looked at in errors.rs and weights.rs.
fn has_numbers(field: &FieldDescriptor) -> bool {
    !["inputs", "targets", "validation_data", "sample_weights", "target_mask"].contains(&field.name())
}

#[test]
fn every_number_metric_and_oneof_arm_with_a_range_is_in_the_tables() {
    let message = |name: &str| contract().get_message_by_name(&format!("epochd.v1.{name}")).unwrap();
    let mut expected = BTreeSet::new();
    numbers(&message("TrainRequest"), "", &mut expected);
    let mut of_layers = BTreeSet::new();
    numbers(&message("Layer"), "", &mut of_layers);
    let mut covered: BTreeSet<String> = ranges().into_iter().map(|(_, path, ..)| path).collect();
    covered.insert("schedule.step.gamma".to_owned());
    let layers: BTreeSet<String> = layers().into_iter().map(|(_, path, _)| path.to_owned()).collect();
    assert_eq!(expected.difference(&covered).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(of_layers.difference(&layers).collect::<Vec<_>>(), Vec::<&String>::new());

    let told: Vec<String> = combinations().into_iter().map(|(_, change, ..)| change.to_string()).collect();
    let metrics = contract().get_enum_by_name("epochd.v1.Metric").unwrap();
    for metric in metrics.values() {
        assert!(told.iter().any(|change| change.contains(&format!("{:?}", metric.name()))), "{}", metric.name());
    }
}
