//! The digits are PyTorch's: the same training there and here, from the same weights, gives the same losses, rates,
//! weights and outputs. `tests/fixtures/pytorch/generate.py` writes the cases.

use std::collections::BTreeSet;
use std::path::Path;

use epochd::rpc::pb;
use epochd::rpc::pb::ElementType;
use prost_reflect::{DynamicMessage, Kind, Value};
use serde::Deserialize;
use tonic::Status;

use crate::support::*;

/// What PyTorch made of a training.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// A CreateModelRequest.
    create: serde_json::Value,
    /// A TrainRequest.
    train: serde_json::Value,
    losses: Vec<f64>,
    validation_losses: Option<Vec<f64>>,
    learning_rates: Option<Vec<f64>>,
    /// LayerWeights, after the training.
    weights: Vec<serde_json::Value>,
    /// A Matrix.
    predict_inputs: serde_json::Value,
    outputs: Vec<Vec<f64>>,
}

/// Numbers that are compared as one, by the norm of their difference.
struct Tensor {
    what: String,
    expected: Vec<f64>,
    actual: Vec<f64>,
}

impl Tensor {
    fn new(what: &str, expected: &[f64], actual: Vec<f64>) -> Self {
        Self { what: what.to_owned(), expected: expected.to_vec(), actual }
    }

    /// Norm of the difference over the norm.
    fn difference(&self) -> f64 {
        if self.actual.len() != self.expected.len() {
            return f64::INFINITY;
        }
        let pairs = self.actual.iter().zip(&self.expected);
        let difference = norm(pairs.map(|(actual, expected)| actual - expected));
        let expected = norm(self.expected.iter().copied());
        if expected > 0.0 { difference / expected } else { difference }
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// The cases by name.
fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pytorch/cases");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let case = serde_json::from_slice(&std::fs::read(path).unwrap());
        (name.clone(), case.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    paths.iter().map(|path| read(path)).collect()
}

/// A network's tensors, by name.
fn tensors(layers: Vec<pb::LayerWeights>) -> Vec<(String, Vec<f64>)> {
    let mut tensors = Vec::new();
    for (index, layer) in layers.into_iter().enumerate() {
        let normalization = layer.batch_normalization.unwrap_or_default();
        let matrices = [
            ("weights", layer.weights),
            ("bias", layer.bias),
            ("scale", normalization.scale),
            ("shift", normalization.shift),
            ("mean", normalization.mean),
            ("variance", normalization.variance),
        ];
        let there = matrices.into_iter().filter_map(|(name, matrix)| Some((name, matrix?.values)));
        tensors.extend(there.map(|(name, values)| (format!("layer {index} {name}"), values)));
    }
    tensors
}

/// Trains as the case asks: all that is compared.
async fn train(api: &Api, case: &Case) -> Result<Vec<Tensor>, Status> {
    let create: pb::CreateModelRequest = from_json(&case.create);
    let model_id = create.model_id.clone();
    api.models.clone().create_model(create).await?;
    let events = api.models.clone().train(from_json::<pb::TrainRequest>(&case.train)).await?;
    let told = read(events.into_inner()).await;
    let mut compared = vec![Tensor::new("losses", &case.losses, told.losses())];
    if let Some(expected) = &case.validation_losses {
        let actual = told.reports.iter().filter_map(|report| report.validation_loss).collect();
        compared.push(Tensor::new("validation losses", expected, actual));
    }
    if let Some(expected) = &case.learning_rates {
        let actual = told.reports.iter().map(|report| report.learning_rate).collect();
        compared.push(Tensor::new("learning rates", expected, actual));
    }

    let actual = api.models.clone().get_weights(get_weights(&model_id)).await?.into_inner().layers;
    let expected = tensors(case.weights.iter().map(from_json).collect());
    let mut actual = tensors(actual);
    for (what, expected) in &expected {
        let at = actual.iter().position(|(name, _)| name == what);
        compared.push(Tensor::new(what, expected, at.map(|at| actual.remove(at).1).unwrap_or_default()));
    }
    compared.extend(actual.into_iter().map(|(what, values)| Tensor::new(&format!("{what}, not there"), &[], values)));

    let inputs = from_json(&case.predict_inputs);
    let outputs = api.models.clone().predict(predict(&model_id, inputs)).await?.into_inner().outputs;
    compared.push(Tensor::new("outputs", &case.outputs.concat(), outputs.unwrap_or_default().values));
    Ok(compared)
}

#[tokio::test(flavor = "multi_thread")]
async fn trainings_give_the_losses_rates_weights_and_outputs_of_pytorch() {
    let server = Server::start();
    let api = server.api().await;
    let (mut failures, mut largest) = (Vec::new(), [0.0_f64; 2]);
    let cases = cases();
    for (name, case) in &cases {
        let create: pb::CreateModelRequest = from_json(&case.create);
        let is_double = create.architecture.unwrap().element_type() == ElementType::Float64;
        let tolerance = if is_double { 1e-8 } else { 1e-3 };
        let compared = match train(&api, case).await {
            Ok(compared) => compared,
            Err(status) => {
                failures.push(format!("{name:36} {:?}: {}", status.code(), status.message()));
                continue;
            }
        };
        for tensor in compared {
            let difference = tensor.difference();
            if difference <= tolerance {
                let largest = &mut largest[usize::from(is_double)];
                *largest = largest.max(difference);
            } else {
                failures.push(format!("{name:36} {:24} {difference:.1e}", tensor.what));
            }
        }
    }
    println!("{} cases; largest difference {:.1e} in float32, {:.1e} in float64", cases.len(), largest[0], largest[1]);
    assert!(failures.is_empty(), "case, what, difference:\n{}", failures.join("\n"));
}

/// The full names of the fields and enum values that a message sets.
fn collect_used(message: &DynamicMessage, used: &mut BTreeSet<String>) {
    for (field, value) in message.fields() {
        used.insert(field.full_name().to_owned());
        let values = if let Value::List(values) = value { values.as_slice() } else { std::slice::from_ref(value) };
        for value in values {
            match (value, field.kind()) {
                (Value::Message(message), _) => collect_used(message, used),
                (Value::EnumNumber(number), Kind::Enum(descriptor)) => {
                    used.extend(descriptor.get_value(*number).map(|value| value.full_name().to_owned()));
                }
                _ => {}
            }
        }
    }
}

#[test]
fn every_activation_loss_optimizer_and_schedule_has_a_case_against_pytorch() {
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut used = BTreeSet::new();
    for (_, case) in &cases {
        collect_used(&dynamic_from_json::<pb::CreateModelRequest>(&case.create), &mut used);
        collect_used(&dynamic_from_json::<pb::TrainRequest>(&case.train), &mut used);
    }

    let mut expected = Vec::new();
    for (message, oneof) in [("Loss", "kind"), ("Optimizer", "method"), ("Schedule", "kind")] {
        let message = contract().get_message_by_name(&format!("epochd.v1.{message}")).unwrap();
        let oneof = message.oneofs().find(|it| it.name() == oneof).unwrap();
        expected.extend(oneof.fields().map(|field| field.full_name().to_owned()));
    }
    let activations = contract().get_enum_by_name("epochd.v1.Activation").unwrap();
    let activations = activations.values().filter(|value| value.number() != 0);
    expected.extend(activations.map(|value| value.full_name().to_owned()));
    // L-BFGS has its own tests, beside its line search: the Wolfe conditions, PyTorch's iterations, SciPy's minima.
    expected.retain(|name| name != "epochd.v1.Optimizer.lbfgs");

    let missing: Vec<_> = expected.into_iter().filter(|name| !used.contains(name)).collect();
    assert!(missing.is_empty(), "no case has {missing:#?}");
}
