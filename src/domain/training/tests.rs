use super::*;
use crate::domain::activation::Activation;
use crate::domain::architecture::{RawArchitecture, RawBatchNormalization, RawLayer};
use crate::domain::matrix::Values;
use crate::domain::metric::{Metric, Task};
use crate::domain::optimizer::examples::{default_of, raw_of, with_defaults};
use crate::domain::schedule::{RawSchedule, RawScheduleKind};

fn architecture(layers: &[RawLayer]) -> Architecture {
    let layers = layers.iter().cloned().map(Some).collect();
    let raw = RawArchitecture { input_width: 1, layers, ..RawArchitecture::default() };
    raw.check(At::ROOT, &mut Faults::new()).unwrap()
}

fn network(units: i64, activation: Activation) -> Architecture {
    architecture(&[RawLayer { units, activation, ..RawLayer::default() }])
}

fn column(values: &[f64]) -> RawMatrix {
    RawMatrix { values: Values::F64(values.to_vec()), rows: None, columns: None }
}

fn training(rows: usize) -> RawTraining {
    RawTraining::new(column(&vec![1.0; rows]), column(&vec![1.0; rows]))
}

/// The paths of all faults.
fn paths(raw: RawTraining, architecture: &Architecture) -> Vec<String> {
    let faults = raw.check(architecture, 7).expect_err("nothing is wrong with it");
    faults.as_slice().iter().map(|fault| fault.path.clone()).collect()
}

#[test]
fn defaults_follow_from_the_output_and_the_rows() {
    let (settings, _) = training(100).check(&network(1, Activation::Sigmoid), 7).unwrap();
    assert_eq!(settings.loss.name(), "binary_cross_entropy");
    assert_eq!((settings.optimizer.name(), settings.optimizer), ("adam", default_of(&settings.optimizer)));
    assert_eq!((settings.batch_size, settings.epochs, settings.seed), (32, 500, 7));
    assert_eq!((settings.task, settings.metrics), (Task::Bits, vec![Metric::Accuracy, Metric::MisclassifiedRows]));
    let (settings, _) = training(100_000).check(&network(1, Activation::Identity), 7).unwrap();
    assert_eq!((settings.loss.name(), settings.epochs), ("squared_error", 20));
    assert_eq!(settings.task, Task::Numbers);
    let (settings, _) = training(4).check(&network(1, Activation::Sign), 7).unwrap();
    assert_eq!((settings.loss, settings.batch_size, settings.epochs), (Loss::Perceptron, 1, 500));
    assert_eq!((settings.optimizer.name(), settings.optimizer.learning_rate()), ("sgd", 1.0));
}

#[test]
fn every_fault_is_told_at_once() {
    let mut raw = training(1);
    raw.epochs = Some(0);
    raw.batch_size = Some(-1);
    raw.l2 = Some(-1.0);
    raw.max_gradient_norm = Some(0.0);
    raw.frozen_layers = vec![1];
    raw.max_duration_micros = Some(0);
    raw.validation = RawValidation::Fraction(0.5);
    let paths = paths(raw, &network(1, Activation::Identity));
    let expected =
        ["epochs", "batch_size", "max_duration", "l2", "max_gradient_norm", "frozen_layers[0]", "validation_fraction"];
    assert_eq!(paths, expected);
}

#[test]
fn measures_are_checked_with_their_paths() {
    let wrong = |change: &dyn Fn(&mut RawTraining)| {
        let mut raw = training(3);
        change(&mut raw);
        paths(raw, &network(1, Activation::Identity))[0].clone()
    };
    let stopping = RawEarlyStopping { patience: None, min_delta: None, metric: None, restore_best: None };
    let stop = |stopping| move |raw: &mut RawTraining| raw.early_stopping = Some(stopping);
    assert_eq!(wrong(&stop(RawEarlyStopping { patience: Some(0), ..stopping })), "early_stopping.patience");
    assert_eq!(wrong(&stop(RawEarlyStopping { min_delta: Some(f64::NAN), ..stopping })), "early_stopping.min_delta");
    let accuracy = Some(Metric::Accuracy);
    assert_eq!(wrong(&stop(RawEarlyStopping { metric: accuracy, ..stopping })), "early_stopping.metric");
    assert_eq!(wrong(&|raw| raw.stop_at = Some(RawStopAt { metric: None, value: None })), "stop_at.value");
    assert_eq!(wrong(&|raw| raw.metrics = vec![Metric::RocAuc]), "metrics[0]");
    assert_eq!(wrong(&|raw| raw.top_k = Some(2)), "top_k");
    let class_weights = RawClassWeights { weights: vec![1.0, 2.0], balanced: false };
    assert_eq!(paths_of_weights(class_weights, Activation::Identity, 2.0), ["class_weights"]);
}

fn paths_of_weights(weights: RawClassWeights, activation: Activation, target: f64) -> Vec<String> {
    let mut raw = RawTraining::new(column(&[1.0, 1.0]), column(&[0.0, target]));
    raw.class_weights = Some(weights);
    paths(raw, &network(1, activation))
}

#[test]
fn class_weights_are_one_a_class() {
    let wrong = |weights: &[f64], balanced| {
        let weights = RawClassWeights { weights: weights.to_vec(), balanced };
        paths_of_weights(weights, Activation::Sigmoid, 1.0)
    };
    assert_eq!(wrong(&[1.0], false), ["class_weights.weights"]);
    assert_eq!(wrong(&[1.0, -1.0], false), ["class_weights.weights[1]"]);
    assert_eq!(wrong(&[0.0, 0.0], false), ["class_weights.weights"]);
    assert_eq!(wrong(&[1.0, 2.0], true), ["class_weights"]);
    let mut raw = training(2);
    raw.class_weights = Some(RawClassWeights { weights: vec![], balanced: true });
    let (settings, _) = raw.check(&network(1, Activation::Sigmoid), 7).unwrap();
    assert_eq!(settings.class_weights, Some(ClassWeights::Balanced));
}

/// Rows of probabilities have no class whose weight they could take, those that only validate neither.
#[test]
fn class_weights_want_a_class_of_validation_rows_as_well() {
    let softmax = network(2, Activation::Softmax);
    let validated = |targets: [f64; 4]| {
        let mut raw = RawTraining::new(column(&[1.0, 2.0]), column(&[1.0, 0.0, 0.0, 1.0]));
        raw.class_weights = Some(RawClassWeights { weights: vec![1.0, 5.0], balanced: false });
        let rows = RawRows { inputs: column(&[1.0, 2.0]), targets: column(&targets), weights: None, mask: None };
        raw.validation = RawValidation::Given(Box::new(rows));
        raw
    };
    assert_eq!(paths(validated([0.5, 0.5, 0.25, 0.75]), &softmax), ["class_weights"]);
    assert!(validated([0.0, 1.0, 1.0, 0.0]).check(&softmax, 7).is_ok());
}

#[test]
fn weights_and_masks_fit_the_rows() {
    let wrong = |change: &dyn Fn(&mut RawTraining), activation| {
        let mut raw = training(2);
        change(&mut raw);
        paths(raw, &network(if activation == Activation::Softmax { 2 } else { 1 }, activation))
    };
    let weigh = |weights: &'static [f64]| move |raw: &mut RawTraining| raw.rows.weights = Some(column(weights));
    let mask = |mask: &'static [f64]| move |raw: &mut RawTraining| raw.rows.mask = Some(column(mask));
    use Activation::{Identity, Softmax};
    assert_eq!(wrong(&weigh(&[1.0]), Identity), ["sample_weights"]);
    assert_eq!(wrong(&weigh(&[1.0, -1.0]), Identity), ["sample_weights"]);
    assert_eq!(wrong(&weigh(&[0.0, 0.0]), Identity), ["sample_weights"]);
    assert_eq!(wrong(&mask(&[1.0, 0.5]), Identity), ["target_mask"]);
    assert_eq!(wrong(&mask(&[0.0, 0.0]), Identity), ["target_mask"]);
    assert_eq!(wrong(&mask(&[1.0, 1.0, 1.0, 0.0]), Softmax), ["target_mask"]);
}

/// Every combination that makes no sense, with the field that is told.
#[test]
fn what_makes_no_sense_together_is_refused() {
    let plain = || network(1, Activation::Identity);
    let wrong = |architecture: &Architecture, optimizer: &str, change: &dyn Fn(&mut RawTraining)| {
        let mut raw = training(5);
        raw.optimizer = with_defaults().iter().find(|it| it.name() == optimizer).map(raw_of);
        change(&mut raw);
        paths(raw, architecture)
    };
    for optimizer in ["lbfgs", "rprop"] {
        assert_eq!(wrong(&plain(), optimizer, &|raw| raw.batch_size = Some(4)), ["batch_size"]);
        let schedule = RawSchedule { warm_up_epochs: Some(2), ..RawSchedule::default() };
        assert_eq!(wrong(&plain(), optimizer, &|raw| raw.schedule = schedule), ["schedule"]);
    }
    assert_eq!(wrong(&plain(), "lbfgs", &|raw| raw.l1 = Some(0.1)), ["l1"]);
    assert_eq!(wrong(&plain(), "lbfgs", &|raw| raw.max_gradient_norm = Some(1.0)), ["max_gradient_norm"]);
    assert_eq!(wrong(&plain(), "lbfgs", &|raw| raw.max_gradient_value = Some(1.0)), ["max_gradient_value"]);
    assert_eq!(wrong(&network(1, Activation::Sign), "lbfgs", &|_| {}), ["optimizer.lbfgs"]);
    let hidden = RawLayer { units: 2, activation: Activation::Relu, ..RawLayer::default() };
    let output = RawLayer { units: 1, ..RawLayer::default() };
    let dropping = architecture(&[RawLayer { dropout: Some(0.5), ..hidden.clone() }, output.clone()]);
    assert_eq!(wrong(&dropping, "lbfgs", &|_| {}), ["optimizer.lbfgs"]);
    let bounded = architecture(&[RawLayer { max_norm: Some(1.0), ..hidden.clone() }, output.clone()]);
    assert_eq!(wrong(&bounded, "lbfgs", &|_| {}), ["optimizer.lbfgs"]);
    let normalization = Some(RawBatchNormalization::default());
    let normalized = architecture(&[RawLayer { batch_normalization: normalization, ..hidden }, output]);
    assert_eq!(wrong(&normalized, "adam", &|raw| raw.batch_size = Some(1)), ["batch_size"]);
    let lone = |raw: &mut RawTraining| *raw = training(1);
    assert_eq!(wrong(&normalized, "adam", &lone), ["inputs"]);
    assert_eq!(wrong(&normalized, "adam", &|raw| raw.frozen_layers = vec![0, 1]), ["frozen_layers"]);
}

#[test]
fn a_schedule_is_filled_in_from_the_epochs() {
    let mut raw = training(4);
    raw.epochs = Some(50);
    let cosine = RawScheduleKind::Cosine { t_0: None, t_mult: None, eta_min: None };
    raw.schedule = RawSchedule { warm_up_epochs: Some(10), kind: cosine, ..RawSchedule::default() };
    let (settings, _) = raw.check(&network(1, Activation::Identity), 7).unwrap();
    let crate::domain::ScheduleKind::Cosine { t_0, .. } = settings.schedule.kind else { panic!("another schedule") };
    assert_eq!((settings.schedule.warm_up_epochs, t_0), (10, 40));
}
