//! A small training with every option that has a state of its own: what goes on must come to the same bits.

use epochd::rpc::pb;
use epochd::rpc::pb::{JobState, MatrixEncoding};
use serde_json::{Value, json};

use super::{Api, Told, from_json, get_weights};

/// Thirteen rows of two numbers, and whether they lie within a circle: with batches of four, the last one has a single row.
pub fn training(model_id: &str, options: &Value) -> Value {
    let at = |index: i32, step: f64| (f64::from(index) * step).fract() * 2.0 - 1.0;
    let rows: Vec<(f64, f64)> = (0..13).map(|index| (at(index, 0.618_034), at(index, 0.414_214))).collect();
    let inputs: Vec<f64> = rows.iter().flat_map(|&(x, y)| [x, y]).collect();
    let targets: Vec<f64> = rows.iter().map(|&(x, y)| f64::from(u8::from(x * x + y * y < 0.6))).collect();
    let mut request = json!({"model_id": model_id, "seed": 7});
    request["inputs"] = json!({"values": inputs});
    request["targets"] = json!({"values": targets});
    options.as_object().unwrap().iter().for_each(|(name, value)| request[name] = value.clone());
    request
}

pub fn with(mut request: Value, name: &str, value: Value) -> Value {
    request[name] = value;
    request
}

pub async fn create(api: &Api, model_id: &str, hidden: &Value) {
    let layers = json!([hidden, {"units": 1, "activation": "ACTIVATION_SIGMOID"}]);
    let architecture = json!({"input_width": 2, "layers": layers});
    let preprocessing = json!({"inputs": {"standard": {}}});
    let request =
        json!({"model_id": model_id, "architecture": architecture, "preprocessing": preprocessing, "seed": 1});
    api.create(from_json(&request)).await;
}

pub async fn train(api: &Api, request: &Value) -> Told {
    let told = api.train(from_json(request)).await;
    assert_eq!(told.finished.state(), JobState::Succeeded, "{:?}", told.finished);
    told
}

/// Every bit of a model's weights.
pub async fn bits(api: &Api, model_id: &str) -> Vec<pb::LayerWeights> {
    let request = pb::GetWeightsRequest { encoding: MatrixEncoding::Packed.into(), ..get_weights(model_id) };
    api.models.clone().get_weights(request).await.unwrap().into_inner().layers
}

/// What does not depend on the clock.
pub fn untimed(told: &Told) -> Vec<pb::EpochReport> {
    untimed_reports(&told.reports)
}

/// The same of reports.
pub fn untimed_reports(reports: &[pb::EpochReport]) -> Vec<pb::EpochReport> {
    let untimed =
        |report: &pb::EpochReport| pb::EpochReport { elapsed: None, samples_per_second: 0.0, ..report.clone() };
    reports.iter().map(untimed).collect()
}

/// A plain hidden layer, and one with all that has a state of its own.
pub fn hidden() -> [Value; 2] {
    let plain = json!({"units": 5, "activation": "ACTIVATION_TANH"});
    let rich =
        json!({"units": 5, "activation": "ACTIVATION_GELU", "batch_normalization": {}, "dropout": 0.3, "max_norm": 2});
    [plain, rich]
}

/// Optimizers and schedules, and whether they go with dropout and max_norm.
pub fn options() -> Vec<(Value, bool)> {
    let scheduled = |schedule: Value| json!({"optimizer": {"adam": {"learning_rate": 0.05}}, "schedule": schedule, "batch_size": 4});
    let optimizers = [
        json!({"adam": {"learning_rate": 0.05}}),
        json!({"adam": {"learning_rate": 0.05, "amsgrad": true, "weight_decay": 0.01}}),
        json!({"sgd": {"learning_rate": 0.1, "momentum": 0.9}}),
        json!({"sgd": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": true}}),
        json!({"adamw": {}}),
        json!({"rmsprop": {"momentum": 0.5, "centered": true}}),
        json!({"adagrad": {"learning_rate_decay": 0.1, "initial_accumulator": 0.1}}),
        json!({"adadelta": {}}),
        json!({"nadam": {"momentum_decay": 0.1}}),
    ];
    let mut options: Vec<(Value, bool)> =
        optimizers.into_iter().map(|optimizer| (json!({"optimizer": optimizer, "batch_size": 4}), true)).collect();
    options.push((json!({"optimizer": {"rprop": {}}}), true));
    options.push((json!({"optimizer": {"lbfgs": {}}, "l2": 0.01}), false));
    options.extend(
        [
            json!({"step": {"step_size": 3, "gamma": 0.5}}),
            json!({"exponential": {"gamma": 0.9}}),
            json!({"cosine": {"t_0": 4, "t_mult": 2}}),
            json!({"one_cycle": {"epochs": 20}}),
            json!({"inverse_time": {"decay": 0.3}}),
            json!({"reduce_on_plateau": {"patience": 1, "threshold": 0.3, "cooldown": 1}}),
            json!({"warm_up_epochs": 14, "exponential": {"gamma": 0.8}}),
        ]
        .map(|schedule| (scheduled(schedule), true)),
    );
    options
}
