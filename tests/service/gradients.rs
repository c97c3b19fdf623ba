//! `ComputeGradients` against central finite differences of its own losses: every activation, every loss, every parameter
//! and every input, in float64. The bound is that of the numerics page.

use std::collections::BTreeSet;

use epochd::config::RawConfig;
use epochd::rpc::pb;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::*;

/// How far a number is moved to each side.
const STEP: f64 = 1e-5;

/// Nothing lies nearer to a kink than this, which a step cannot cross.
const KINK_DISTANCE_MIN: f64 = 100.0 * STEP;

/// Numbers between −1 and 1 without a pattern.
fn numbers(count: usize, seed: f64) -> Vec<f64> {
    (0..count).map(|index| (index as f64 * 1.7 + seed).sin()).collect()
}

/// A float64 network under test, and a version of it for each parameter moved to each side.
struct Network {
    api: Api,
    model_id: String,
    layers: Vec<pb::LayerWeights>,
    moved: Vec<[i32; 2]>,
    inputs: Vec<f64>,
}

/// What a network is asked beside its inputs.
#[derive(Clone)]
struct Question {
    loss: Option<pb::Loss>,
    targets: Vec<f64>,
    reduction: pb::Reduction,
}

/// Everything of a layer that a training changes.
fn parameters(layer: &mut pb::LayerWeights) -> Vec<&mut f64> {
    let normalization = layer.batch_normalization.as_mut();
    let (scale, shift) = normalization.map_or((None, None), |it| (it.scale.as_mut(), it.shift.as_mut()));
    let matrices = [layer.weights.as_mut(), layer.bias.as_mut(), scale, shift];
    matrices.into_iter().flatten().flat_map(|matrix| matrix.values.iter_mut()).collect()
}

/// The gradients of [`parameters`], in their order.
fn gradients(layer: &pb::LayerGradients) -> Vec<f64> {
    let matrices = [&layer.weights, &layer.bias, &layer.scale, &layer.shift];
    matrices.into_iter().flatten().flat_map(|matrix| matrix.values.clone()).collect()
}

impl Network {
    /// Two inputs, three rows. The weights are no random ones, so that what lies where does not change with a generator.
    async fn create(api: &Api, model_id: &str, layers: Value) -> Result<Self, Status> {
        let architecture = json!({"input_width": 2, "element_type": "ELEMENT_TYPE_FLOAT64", "layers": layers});
        Self::create_from(api, json!({"model_id": model_id, "architecture": architecture, "seed": 1})).await
    }

    async fn create_from(api: &Api, request: Value) -> Result<Self, Status> {
        let request: pb::CreateModelRequest = from_json(&request);
        let model_id = request.model_id.clone();
        api.models.clone().create_model(request).await?;
        let mut layers = api.models.clone().get_weights(get_weights(&model_id)).await?.into_inner().layers;
        for (index, layer) in layers.iter_mut().enumerate() {
            let places = parameters(layer);
            let drawn = numbers(places.len(), 0.4 + index as f64);
            places.into_iter().zip(drawn).for_each(|(place, value)| *place = value);
        }
        let mut network = Self { api: api.clone(), model_id, layers, moved: Vec::new(), inputs: numbers(6, 2.0) };
        network.commit_moved().await;
        Ok(network)
    }

    /// Commits a version for each parameter and side, then the network itself.
    async fn commit_moved(&mut self) {
        let mut layers = self.layers.clone();
        let mut moved = Vec::new();
        for index in 0..layers.len() {
            for place in 0..parameters(&mut layers[index]).len() {
                let value = *parameters(&mut layers[index])[place];
                let mut versions = [0; 2];
                for (version, step) in versions.iter_mut().zip([STEP, -STEP]) {
                    *parameters(&mut layers[index])[place] = value + step;
                    *version = self.commit(layers.clone()).await;
                }
                *parameters(&mut layers[index])[place] = value;
                moved.push(versions);
            }
        }
        self.moved = moved;
        self.commit(layers).await;
    }

    async fn commit(&self, layers: Vec<pb::LayerWeights>) -> i32 {
        let request = pb::SetWeightsRequest { model_id: self.model_id.clone(), layers };
        self.api.models.clone().set_weights(request).await.unwrap().into_inner().version
    }

    async fn ask(
        &self,
        question: &Question,
        inputs: Vec<f64>,
        version: Option<i32>,
    ) -> Result<pb::ComputeGradientsResponse, Status> {
        let request = pb::ComputeGradientsRequest {
            model_id: self.model_id.clone(),
            inputs: Some(values(&inputs)),
            targets: Some(values(&question.targets)),
            version,
            loss: question.loss.clone(),
            reduction: question.reduction.into(),
        };
        Ok(self.api.models.clone().compute_gradients(request).await?.into_inner())
    }

    /// The gradients that do not agree with the differences of the loss; the status where the question is refused.
    async fn disagreements(&self, question: &Question) -> Result<Vec<String>, Status> {
        let answer = self.ask(question, self.inputs.clone(), None).await?;
        let mut pairs = Vec::new();
        let names = answer.layers.iter().enumerate();
        let analytic: Vec<(String, f64)> = names
            .flat_map(|(layer, it)| {
                let named = gradients(it).into_iter().enumerate();
                named.map(move |(place, value)| (format!("layer {layer} [{place}]"), value))
            })
            .collect();
        assert_eq!(analytic.len(), self.moved.len(), "{}", self.model_id);
        for ((name, analytic), versions) in analytic.into_iter().zip(&self.moved) {
            let mut losses = [0.0; 2];
            for (loss, version) in losses.iter_mut().zip(versions) {
                *loss = self.ask(question, self.inputs.clone(), Some(*version)).await?.loss;
            }
            pairs.push((name, (losses[0] - losses[1]) / (2.0 * STEP), analytic));
        }
        let analytic = answer.inputs.unwrap().values;
        assert_eq!(analytic.len(), self.inputs.len());
        for (place, analytic) in analytic.into_iter().enumerate() {
            let mut losses = [0.0; 2];
            for (loss, step) in losses.iter_mut().zip([STEP, -STEP]) {
                let mut inputs = self.inputs.clone();
                inputs[place] += step;
                *loss = self.ask(question, inputs, None).await?.loss;
            }
            pairs.push((format!("input [{place}]"), (losses[0] - losses[1]) / (2.0 * STEP), analytic));
        }
        check_delta(&answer.layers);
        let is_far = |&(_, numeric, analytic): &(String, f64, f64)| {
            let bound = 1e-9 * answer.loss.abs().max(1.0) + 1e-6 * f64::abs(numeric).max(f64::abs(analytic));
            (numeric - analytic).abs() > bound || (numeric - analytic).is_nan()
        };
        let told = |(name, numeric, analytic)| format!("{name}: {numeric:e} by differences, {analytic:e} told");
        Ok(pairs.into_iter().filter(is_far).map(told).collect())
    }

    /// Whether a kink of an activation (0, and ±3 of HARD_SIGMOID) is as far away as it must be.
    async fn check_kinks(&self) {
        let layers = (0..self.layers.len() as i32).collect();
        let request =
            pb::PredictRequest { layers, before_activation: true, ..predict(&self.model_id, values(&self.inputs)) };
        let answer = self.api.models.clone().predict(request).await.unwrap().into_inner();
        for values in answer.layers.into_iter().flat_map(|layer| layer.values.unwrap().values) {
            let distance = [0.0, 3.0, -3.0].map(|kink| f64::abs(values - kink)).into_iter().fold(9.0, f64::min);
            assert!(distance > KINK_DISTANCE_MIN, "{}: {values} is near a kink", self.model_id);
        }
    }
}

/// The gradient by b, or by β, is the sum of δ over the rows.
#[track_caller]
fn check_delta(layers: &[pb::LayerGradients]) {
    for layer in layers {
        let Some(sums) = layer.bias.as_ref().or(layer.shift.as_ref()) else { continue };
        let units = sums.values.len();
        for (unit, sum) in sums.values.iter().enumerate() {
            let delta = &layer.delta.as_ref().unwrap().values;
            let expected: f64 = delta.iter().skip(unit).step_by(units).sum();
            assert!((expected - sum).abs() <= 1e-12 * delta.iter().fold(1.0, |most, it| it.abs().max(most)));
        }
    }
}

/// The activations of the contract by name, the unspecified one apart.
fn activations() -> Vec<String> {
    let activations = contract().get_enum_by_name("epochd.v1.Activation").unwrap();
    let specified = activations.values().filter(|value| value.number() != 0);
    specified.map(|value| value.name().to_owned()).collect()
}

/// The losses of the contract by the name of their field.
fn loss_names() -> Vec<String> {
    let loss = contract().get_message_by_name("epochd.v1.Loss").unwrap();
    let kind = loss.oneofs().find(|oneof| oneof.name() == "kind").unwrap();
    kind.fields().map(|field| field.name().to_owned()).collect()
}

/// The options that a loss is tried with.
fn options(loss: &str) -> Vec<Value> {
    let custom = |expression: &str| json!({"expression": expression});
    match loss {
        "huber" => vec![json!({}), json!({"delta": 0.3})],
        "quantile" => vec![json!({}), json!({"q": 0.2})],
        "softmax_cross_entropy" => vec![json!({}), json!({"label_smoothing": 0.2})],
        "binary_cross_entropy" => vec![json!({}), json!({"positive_weights": [3.0, 0.5]})],
        "focal" => vec![json!({}), json!({"gamma": 0.5}), json!({"gamma": 3, "alpha": 0.3})],
        "tweedie_deviance" => vec![json!({}), json!({"power": 1.2})],
        "custom" => vec![
            custom("abs(y_pred - y_true)^1.5"),
            custom("where(y_pred > y_true, 2*(y_pred - y_true)**2, log1p((y_true - y_pred)^2)) + max(y_pred, 0)"),
            custom("sum(sqrt(1 + (y_pred - y_true)^2)) + max(y_pred)*mean(tanh(y_pred)) - 2^-softplus(sum(y_pred))"),
            custom("exp(clip(y_pred, -5, 0.9)) * sigmoid(y_true - y_pred) + expm1(min(y_pred, y_true)/3)"),
        ],
        "squared_error"
        | "perceptron"
        | "absolute_error"
        | "log_cosh"
        | "poisson"
        | "negative_log_likelihood"
        | "kl_divergence"
        | "hinge"
        | "squared_hinge"
        | "gamma_deviance" => vec![json!({})],
        other => panic!("the loss {other} has no options to be tried with: add them here"),
    }
}

/// Targets of every kind for three rows of two outputs: numbers, amounts, bits, class indices and probabilities.
fn targets() -> [Vec<f64>; 5] {
    [
        vec![0.31, -0.72, 1.23, 0.44, -0.27, 0.91],
        vec![0.31, 0.72, 1.23, 2.44, 3.27, 0.91],
        vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        vec![1.0, 0.0, 1.0],
        vec![0.2, 0.8, 0.5, 0.5, 0.9, 0.1],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn gradients_of_every_output_with_every_loss_that_fits_are_the_differences_of_the_loss() {
    let server = server();
    let api = server.api().await;
    let (mut failures, mut used) = (Vec::new(), BTreeSet::new());
    for activation in activations() {
        let model_id = activation.to_lowercase().replace('_', "-");
        let layers = json!([{"units": 2, "activation": "ACTIVATION_TANH"}, {"units": 2, "activation": activation}]);
        let network = Network::create(&api, &model_id, layers).await.unwrap();
        network.check_kinks().await;
        let mut fitting = 0;
        for name in loss_names() {
            for options in options(&name) {
                let what = format!("{name} {options} on {activation}");
                let loss: pb::Loss = from_json(&json!({name.clone(): options}));
                let mut targets_refused = 0;
                for targets in targets() {
                    let question = Question { loss: Some(loss.clone()), targets, reduction: pb::Reduction::Mean };
                    match network.disagreements(&question).await {
                        Ok(found) => {
                            fitting += 1;
                            used.insert(name.clone());
                            failures.extend(found.into_iter().map(|it| format!("{what}: {it}")));
                        }
                        Err(status) => {
                            assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
                            let fields = fields(&status);
                            let is_loss = fields.iter().all(|it| it == "loss" || it.starts_with("loss."));
                            let is_targets = fields == ["targets"];
                            assert!(is_loss || is_targets, "{what}: {fields:?}");
                            targets_refused += usize::from(is_targets);
                        }
                    }
                }
                assert!(targets_refused < targets().len(), "{what}: no targets fit");
            }
        }
        assert!(fitting > 0, "no loss fits {activation}");
    }
    assert!(failures.is_empty(), "{} gradients are wrong:\n{}", failures.len(), failures.join("\n"));
    let unused: Vec<_> = loss_names().into_iter().filter(|name| !used.contains(name)).collect();
    assert!(unused.is_empty(), "no output takes {unused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gradients_through_every_hidden_activation_are_the_differences_of_the_loss() {
    let server = server();
    let api = server.api().await;
    let mut failures = Vec::new();
    for activation in activations() {
        for (loss, output) in
            [("squared_error", "ACTIVATION_IDENTITY"), ("softmax_cross_entropy", "ACTIVATION_SOFTMAX")]
        {
            for alpha in [None, Some(0.3)] {
                if alpha.is_some() && !["ACTIVATION_LEAKY_RELU", "ACTIVATION_ELU"].contains(&activation.as_str()) {
                    continue;
                }
                let hidden = json!({"units": 2, "activation": activation, "activation_alpha": alpha});
                let model_id = format!("{activation}-{output}-{}", alpha.is_some()).to_lowercase().replace('_', "-");
                let layers = json!([hidden, {"units": 2, "activation": output}]);
                let network = match Network::create(&api, &model_id, layers).await {
                    Ok(network) => network,
                    Err(status) => {
                        assert!(activation.ends_with("SOFTMAX"), "{activation}: {status:?}");
                        assert_eq!(fields(&status), ["architecture.layers[0].activation"]);
                        continue;
                    }
                };
                network.check_kinks().await;
                let loss = Some(from_json(&json!({loss: {}})));
                let [.., probabilities] = targets();
                let question = Question { loss, targets: probabilities, reduction: pb::Reduction::Sum };
                match network.disagreements(&question).await {
                    Ok(found) => failures.extend(found.into_iter().map(|it| format!("{model_id}: {it}"))),
                    Err(status) => {
                        let is_flat = ["ACTIVATION_SIGN", "ACTIVATION_STEP"].contains(&activation.as_str());
                        assert!(is_flat && status.code() == Code::FailedPrecondition, "{activation}: {status:?}");
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} gradients are wrong:\n{}", failures.len(), failures.join("\n"));
}

/// Differences take a version each, and all of them are asked after the last is set.
fn server() -> Server {
    Server::with(RawConfig { versions_per_model: 100_000, ephemeral: true, ..Server::raw() })
}

/// One network, with what stands in its layers beside their activations.
async fn check(model_id: &str, layers: Value, loss: Value, reduction: pb::Reduction) {
    let server = server();
    let network = Network::create(&server.api().await, model_id, layers).await.unwrap();
    network.check_kinks().await;
    let [numbers, ..] = targets();
    let question = Question { loss: Some(from_json(&loss)), targets: numbers, reduction };
    assert_eq!(network.disagreements(&question).await.unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn gradients_through_batch_normalization_go_by_the_batch_and_tell_those_of_scale_and_shift() {
    let layers = json!([
        {"units": 3, "activation": "ACTIVATION_TANH", "batch_normalization": {"epsilon": 1e-3}},
        {"units": 2, "activation": "ACTIVATION_SOFTPLUS", "batch_normalization": {}},
        {"units": 2, "batch_normalization": {"momentum": 0.5}}
    ]);
    check("normalized", layers.clone(), json!({"squared_error": {}}), pb::Reduction::Mean).await;
    check("normalized", layers, json!({"huber": {"delta": 0.4}}), pb::Reduction::Sum).await;
}

/// As a training of one row is: its own mean is all that there is of it, so every gradient before would be 0.
#[tokio::test(flavor = "multi_thread")]
async fn one_row_is_too_few_for_the_gradients_of_batch_normalization() {
    let server = server();
    let layers = json!([{"units": 2, "batch_normalization": {}}, {"units": 2}]);
    let network = Network::create(&server.api().await, "m", layers).await.unwrap();
    let question = Question { loss: None, targets: vec![0.5, 1.0], reduction: pb::Reduction::Mean };
    let answer = network.ask(&question, vec![1.0, 2.0], None).await.map(drop);
    let mut failures = Failures::default();
    failures.look("one row".into(), answer, "inputs", "two");
    failures.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn gradients_of_layers_without_bias_and_of_frozen_ones_are_told_like_others() {
    let layers = json!([
        {"units": 3, "activation": "ACTIVATION_SILU", "bias": false, "dropout": 0.5, "max_norm": 0.1},
        {"units": 3, "activation": "ACTIVATION_SIGMOID", "frozen": true},
        {"units": 2, "bias": false}
    ]);
    check("frozen", layers, json!({"log_cosh": {}}), pb::Reduction::Mean).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gradients_by_the_inputs_are_in_the_callers_own_units_of_inputs_and_targets() {
    let server = server();
    let api = server.api().await;
    let layers = json!([{"units": 3, "activation": "ACTIVATION_GELU"}, {"units": 2}]);
    let architecture = json!({"input_width": 2, "element_type": "ELEMENT_TYPE_FLOAT64", "layers": layers});
    let preprocessing = json!({"inputs": {"standard": {}}, "targets": {"min_max": {}}});
    let request = json!({"model_id": "m", "architecture": architecture, "preprocessing": preprocessing});
    let mut network = Network::create_from(&api, request).await.unwrap();
    let [numbers, ..] = targets();
    // What is fitted stays with every later version.
    let fit = json!({"model_id": "m", "inputs": {"values": [1, -2, 3, 5, 6, 7]}, "targets": {"values": numbers}, "epochs": 1});
    api.train(from_json(&fit)).await;
    network.commit_moved().await;
    let question = Question { loss: None, targets: numbers, reduction: pb::Reduction::Mean };
    assert_eq!(network.disagreements(&question).await.unwrap(), Vec::<String>::new());
}

/// As a training with that loss is; and every number of a matrix is finite, says the contract.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_no_number_on_the_batch_is_refused_instead_of_told_with_gradients() {
    let server = server();
    let network = Network::create(&server.api().await, "m", json!([{"units": 2}])).await.unwrap();
    let [numbers, ..] = targets();
    let mut failures = Failures::default();
    for expression in ["log(y_pred - 100)", "1/(y_pred - y_pred)"] {
        let loss = Some(from_json(&json!({"custom": {"expression": expression}})));
        let question = Question { loss, targets: numbers.clone(), reduction: pb::Reduction::Mean };
        let answer = network.ask(&question, network.inputs.clone(), None).await.map(drop);
        failures.look(expression.into(), answer, "loss.custom.expression", "row 0");
    }
    let question = Question { loss: None, targets: numbers, reduction: pb::Reduction::Mean };
    let answer = network.ask(&question, vec![1.0, 1.0, 1e300, 1.0, 1.0, 1.0], None).await.map(drop);
    failures.look("an input of 1e300".into(), answer, "inputs", "row 1");
    failures.check();
}

/// The names that [`options`] knows are those of the contract: a new loss fails here and not only above.
#[test]
fn every_loss_of_the_contract_can_be_written_with_the_options_tried() {
    for name in loss_names() {
        for options in options(&name) {
            let message: DynamicMessage = dynamic_from_json::<pb::Loss>(&json!({name.clone(): options}));
            assert_eq!(message.fields().count(), 1, "{name}");
        }
    }
}
