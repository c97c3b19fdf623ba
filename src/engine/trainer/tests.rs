//! What a training promises.

mod continuation;
mod memory;
mod options;
mod workers;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::{
    Activation, EarlyStopping, ElementType, Loss, Matrix, Metric, Optimizer, Reduction, Rows, Scaling, StopReason,
    Targets, Validation,
};
use crate::engine::draw_parameters;
use crate::engine::element::all_finite;
use crate::engine::state::EpochEnd;
use crate::engine::testing::{
    ACTIVATIONS, adam, losses_of, network, network_with, settings, settings_on, sgd, uniform,
};

const BITS: [f64; 8] = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
const AND: [f64; 4] = [0.0, 0.0, 0.0, 1.0];
const OR: [f64; 4] = [0.0, 1.0, 1.0, 1.0];
const XOR: [f64; 4] = [0.0, 1.0, 1.0, 0.0];

fn momentum() -> Optimizer {
    sgd(0.05, 0.9)
}

fn matrix(element_type: ElementType, columns: usize, values: &[f64]) -> Matrix {
    let rows = values.len() / columns;
    Matrix::from_values(rows, columns, Values::F64(values.to_vec()).into_element_type(element_type))
}

fn training_data(inputs: Matrix, targets: Targets) -> TrainingData {
    TrainingData { training: Rows { inputs, targets, weights: None, mask: None }, validation: None }
}

fn data(element_type: ElementType, columns: [usize; 2], inputs: &[f64], targets: &[f64]) -> TrainingData {
    let inputs = matrix(element_type, columns[0], inputs);
    training_data(inputs, Targets::Values(matrix(element_type, columns[1], targets)))
}

fn input(architecture: Architecture, settings: Settings, data: TrainingData) -> TrainerInput {
    let parameters = draw_parameters(&architecture, settings.seed);
    let preprocessing = Preprocessing::default();
    TrainerInput { architecture, settings, data, preprocessing, fitted: None, parameters }
}

fn monitored_loss(report: &EpochReport) -> f64 {
    report.monitored(Metric::Loss).unwrap()
}

fn stopping(patience: u32, min_delta: f64) -> EarlyStopping {
    EarlyStopping { patience, min_delta, metric: Metric::Loss, restore_best: true }
}

fn bce() -> Loss {
    Loss::BinaryCrossEntropy { positive_weights: Vec::new() }
}

fn cross_entropy() -> Loss {
    Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 }
}

/// How an epoch ended, with its report.
fn told<T: Element>(trainer: &Trainer<T>, end: EpochEnd) -> LastEpoch {
    LastEpoch { report: trainer.report().unwrap().clone(), is_reported: end.is_reported, stop: end.stop }
}

/// Trains to the end, and tells every epoch's.
fn run<T: Element>(trainer: &mut Trainer<T>) -> Vec<LastEpoch> {
    let mut ends = Vec::new();
    loop {
        if let Step::Epoch(end) = trainer.step_batch() {
            let is_last = end.stop.is_some();
            ends.push(told(trainer, end));
            if is_last {
                return ends;
            }
        }
    }
}

fn reason(ends: &[LastEpoch]) -> StopReason {
    ends.last().unwrap().stop.as_ref().unwrap().reason
}

// --- The perceptron ---------------------------------------------------------------------------------------------------

/// The epoch in which a perceptron converges from Glorot weights, or from zero weights; by Rosenblatt's rule.
fn perceptron_epochs(targets: &[f64], seed: u64, is_zero: bool, activation: Activation) -> (StopReason, EpochReport) {
    let architecture = network(ElementType::Float32, 2, &[(1, activation)]);
    let plain = sgd(1.0, 0.0);
    let signs: Vec<f64> = targets.iter().map(|y| 2.0 * y - 1.0).collect();
    let settings = Settings { batch_size: 1, shuffle: true, seed, epochs: 100, ..settings(Loss::Perceptron, plain, 4) };
    let mut input = input(architecture, settings, data(ElementType::Float32, [2, 1], &BITS, &signs));
    if is_zero {
        input.parameters = Values::F32(vec![0.0; 3]);
    }
    let ends = run(&mut Trainer::<f32>::new(input));
    (reason(&ends), ends.last().unwrap().report.clone())
}

/// The most epochs that any of 20,000 seeds took, the last one without an update among them, is 14 for AND and 10 for OR
/// from Glorot weights (OR more than 8: 53 seeds), 17 and 8 from zero weights (AND more than 14: 68 seeds).
#[test]
fn and_and_or_converge_within_a_few_epochs_from_every_seed_and_xor_never() {
    for (name, targets, is_zero, epochs_max) in
        [("AND", AND, false, 14), ("OR", OR, false, 10), ("AND", AND, true, 17), ("OR", OR, true, 8)]
    {
        for seed in 0..1_000 {
            let (reason, report) = perceptron_epochs(&targets, seed, is_zero, Activation::Sign);
            assert_eq!((reason, report.metrics.misclassified_rows), (StopReason::Converged, Some(0)));
            assert!(report.epoch <= epochs_max, "{name} took {} epochs from seed {seed}", report.epoch);
        }
    }
    for seed in 0..100 {
        for activation in [Activation::Sign, Activation::Step] {
            let (reason, report) = perceptron_epochs(&XOR, seed, seed % 2 == 0, activation);
            assert_eq!(reason, StopReason::EpochsDone);
            assert!(report.metrics.misclassified_rows >= Some(1));
        }
    }
}

#[test]
fn xor_from_zero_weights_is_not_taken_for_done_though_its_loss_is_zero() {
    let architecture = network(ElementType::Float64, 2, &[(1, Activation::Sign)]);
    let plain = sgd(1.0, 0.0);
    let signs = XOR.map(|y| 2.0 * y - 1.0);
    let settings = Settings { reduction: Reduction::Sum, ..settings(Loss::Perceptron, plain, 4) };
    let mut input = input(architecture, settings, data(ElementType::Float64, [2, 1], &BITS, &signs));
    input.parameters = Values::F64(vec![0.0; 3]);
    let ends = run(&mut Trainer::<f64>::new(input));
    assert_eq!(reason(&ends), StopReason::EpochsDone);
    assert!(ends.iter().all(|end| end.report.loss == 0.0 && end.report.metrics.misclassified_rows == Some(4)));
}

#[test]
fn a_wrong_row_that_does_not_count_keeps_no_perceptron_from_converging() {
    let architecture = network(ElementType::Float64, 2, &[(1, Activation::Sign)]);
    let signs = XOR.map(|y| 2.0 * y - 1.0);
    let settings = Settings { batch_size: 1, epochs: 100, ..settings(Loss::Perceptron, sgd(1.0, 0.0), 4) };
    let mut input = input(architecture, settings, data(ElementType::Float64, [2, 1], &BITS, &signs));
    input.data.training.weights = Some(matrix(ElementType::Float64, 1, &[1.0, 1.0, 1.0, 0.0]));
    let ends = run(&mut Trainer::<f64>::new(input));
    assert_eq!(reason(&ends), StopReason::Converged);
    assert_eq!(ends.last().unwrap().report.metrics.misclassified_rows, Some(1));
}

// --- Learning ---------------------------------------------------------------------------------------------------------

/// Whether a 2-`hidden`-1 network has learned XOR (all four rows right) after 500 epochs.
fn learns_xor(hidden: usize, activation: Activation, seed: u64) -> bool {
    let architecture = network(ElementType::Float32, 2, &[(hidden, activation), (1, Activation::Sigmoid)]);
    let settings = Settings { epochs: 500, seed, ..settings(bce(), adam(0.05), 4) };
    let mut trainer =
        Trainer::<f32>::new(input(architecture.clone(), settings, data(ElementType::Float32, [2, 1], &BITS, &XOR)));
    run(&mut trainer);
    let network = crate::engine::Network::new(&architecture, trainer.result_parameters());
    let outputs = network.predict(&BITS.map(|x| x as f32), 4);
    outputs.iter().zip(XOR).all(|(&p, y)| (p >= 0.5) == (y == 1.0))
}

fn xor_count(hidden: usize, activation: Activation) -> usize {
    (1..=100).filter(|&seed| learns_xor(hidden, activation, seed)).count()
}

#[test]
fn eight_tanh_units_learn_xor_from_every_seed() {
    assert_eq!(xor_count(8, Activation::Tanh), 100);
}

/// Of 20,000 seeds tried with another framework, 97.5 % and 48 % learn it; within three standard deviations of 100 (seen: 96 and 50).
#[test]
fn fewer_units_learn_xor_as_often_as_they_should() {
    let counts = [xor_count(4, Activation::Tanh), xor_count(2, Activation::Tanh)];
    assert!(counts[0] >= 92 && (33..=63).contains(&counts[1]), "{counts:?}");
}

#[test]
fn scaled_regression_finds_the_line_in_the_targets_own_unit() {
    let inputs: Vec<f64> = (0..40).map(|i| 1_000.0 + 10.0 * f64::from(i)).collect();
    let targets: Vec<f64> = inputs.iter().map(|x| 5_000.0 - 3.0 * x).collect();
    let architecture = network(ElementType::Float64, 1, &[(1, Activation::Identity)]);
    let settings = Settings { epochs: 400, ..settings(Loss::SquaredError, adam(0.05), 40) };
    let mut input = input(architecture.clone(), settings, data(ElementType::Float64, [1, 1], &inputs, &targets));
    input.preprocessing = Preprocessing { inputs: Scaling::Standard, targets: Scaling::MinMax };
    let mut trainer = Trainer::<f64>::new(input);
    let report = run(&mut trainer).last().unwrap().report.clone();
    assert!(report.metrics.r2 > Some(0.999_999) && report.metrics.mean_absolute_error < Some(0.5), "{report:?}");
    assert!(report.metrics.accuracy.is_none());

    let network = crate::engine::AnyNetwork::new(&architecture, Values::F64(trainer.result_parameters().to_vec()));
    let prediction = network.predict(&matrix(ElementType::Float64, 1, &[2_000.0]), trainer.preprocessing());
    assert!((prediction.get(0, 0) + 1_000.0).abs() < 2.0, "{prediction:?}");
}

#[test]
fn scalers_are_learned_from_the_training_rows_alone_and_kept_when_given() {
    let inputs: Vec<f64> = (0..20).map(f64::from).collect();
    let architecture = network(ElementType::Float64, 1, &[(1, Activation::Identity)]);
    let mut settings = settings(Loss::SquaredError, adam(0.05), 20);
    settings.validation = Validation::Fraction(0.5);
    let mut input = input(architecture, settings, data(ElementType::Float64, [1, 1], &inputs, &inputs));
    input.preprocessing.inputs = Scaling::Standard;
    let trainer = Trainer::<f64>::new(input.clone());
    let fitted = trainer.preprocessing().unwrap().clone();
    let (kept, _) = crate::engine::split(20, 10, None, 1, Purpose::Validation);
    let mean = kept.iter().map(|&row| f64::from(row)).sum::<f64>() / 10.0;
    assert!((fitted.inputs.as_ref().unwrap().shift[0] - mean).abs() < 1e-12 && fitted.targets.is_none());

    let given = FittedPreprocessing {
        inputs: Some(crate::domain::Scaler { shift: vec![1.0], scale: vec![2.0] }),
        targets: None,
    };
    input.fitted = Some(given.clone());
    assert_eq!(Trainer::<f64>::new(input.clone()).preprocessing(), Some(&given));
    input.fitted = None;
    input.preprocessing = Preprocessing::default();
    assert_eq!(Trainer::<f64>::new(input).preprocessing(), None);
}

// --- Reports ----------------------------------------------------------------------------------------------------------

/// A classifier of two classes on `rows` random rows, with everything that a state holds.
fn classifier<T: Element>(rows: usize, optimizer: Optimizer, change: impl Fn(&mut Settings)) -> TrainerInput {
    let element_type = T::ELEMENT_TYPE;
    let architecture = network(element_type, 3, &[(6, Activation::Tanh), (2, Activation::Softmax)]);
    let inputs: Vec<f64> = uniform(rows * 3, 11);
    let classes = inputs.chunks(3).map(|x| u32::from(x[0] * x[1] > 0.1 * x[2])).collect();
    let inputs = matrix(element_type, 3, &inputs);
    let data = training_data(inputs, Targets::Classes(classes));
    let mut settings = settings(cross_entropy(), optimizer, rows);
    settings.shuffle = true;
    settings.batch_size = 4;
    change(&mut settings);
    input(architecture, settings, data)
}

#[test]
fn the_loss_of_an_epoch_is_the_mean_over_rows_before_each_update() {
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let architecture = network(ElementType::Float64, 1, &[(2, Activation::Identity)]);
        let plain = sgd(0.1, 0.0);
        let settings = Settings { batch_size: 2, epochs: 1, reduction, ..settings(Loss::SquaredError, plain, 3) };
        let data = data(ElementType::Float64, [1, 2], &[1.0, -1.0, 2.0], &[1.0, 0.0, 0.0, 2.0, 1.0, 1.0]);
        let mut input = input(architecture, settings, data);
        input.parameters = Values::F64(vec![0.0; 4]);
        let mut trainer = Trainer::<f64>::new(input);
        assert_eq!(trainer.step_batch(), Step::Batch);
        // From zeros the first batch has the residuals (−1, 0) and (0, −2); ∂Σ/∂W = 2·(−1, 2), ∂Σ/∂b = 2·(−1, −2).
        let rate = if reduction == Reduction::Sum { 0.1 } else { 0.1 / 4.0 };
        let expected = [2.0 * rate, -4.0 * rate, 2.0 * rate, 4.0 * rate];
        assert!(trainer.parameters().iter().zip(expected).all(|(w, e)| (w - e).abs() < 1e-15));
        assert!(matches!(trainer.step_batch(), Step::Epoch(_)), "an epoch has two batches");
        let residuals = [2.0 * expected[0] + expected[2] - 1.0, 2.0 * expected[1] + expected[3] - 1.0];
        let last: f64 = residuals.iter().map(|r| r * r).sum();
        let divisor = if reduction == Reduction::Sum { 3.0 } else { 6.0 };
        assert!((trainer.report().unwrap().loss - (1.0 + 4.0 + last) / divisor).abs() < 1e-12, "{reduction:?}");
    }
}

#[test]
fn validation_is_that_of_the_epoch_s_last_weights_whatever_the_tile() {
    let input = classifier::<f64>(40, adam(0.01), |settings| settings.validation = Validation::Fraction(0.25));
    let mut trainer = Trainer::<f64>::new(input.clone());
    assert_eq!((trainer.training_rows(), trainer.rows_done_in_epoch()), (30, 0));
    let report = run(&mut trainer).last().unwrap().report.clone();
    let mut validation = trainer.validation.clone().unwrap();
    assert_eq!(validation.rows, 10);
    let targets = match &validation.targets {
        crate::engine::data::TargetData::Classes(classes) => Targets::Classes(classes.clone()),
        crate::engine::data::TargetData::Values(_) => unreachable!("a classifier"),
    };
    let loss = crate::engine::gradients::compute(
        &input.architecture,
        trainer.parameters(),
        validation.inputs.own(),
        &targets,
        &cross_entropy(),
        Reduction::Mean,
    );
    assert!((loss.unwrap().loss - report.validation_loss.unwrap()).abs() < 1e-14);
    assert!(report.validation_metrics.unwrap().accuracy.is_some());
}

#[test]
fn every_few_epochs_are_reported_and_always_the_last() {
    let input = classifier::<f32>(10, adam(0.01), |settings| settings.report_every = 4);
    let ends = run(&mut Trainer::<f32>::new(input));
    let reported: Vec<u32> = ends.iter().filter(|end| end.is_reported).map(|end| end.report.epoch).collect();
    assert_eq!(reported, [4, 8, 10]);
    assert_eq!(reason(&ends), StopReason::EpochsDone);
}

// --- Ends -------------------------------------------------------------------------------------------------------------

#[test]
fn early_stopping_brings_back_the_weights_of_the_best_epoch() {
    let input = classifier::<f64>(30, adam(0.1), |settings| {
        settings.validation = Validation::Fraction(0.3);
        settings.epochs = 1_000;
        settings.early_stopping = Some(stopping(5, 0.0));
    });
    let mut trainer = Trainer::<f64>::new(input.clone());
    let ends = run(&mut trainer);
    assert_eq!(reason(&ends), StopReason::EarlyStopped);
    let best =
        ends.iter().map(|end| &end.report).min_by(|a, b| monitored_loss(a).total_cmp(&monitored_loss(b))).unwrap();
    assert_eq!(ends.len(), best.epoch as usize + 5);
    assert_eq!(trainer.result_report(), Some(best));

    let mut again = Trainer::<f64>::new(input);
    while again.epoch() < best.epoch {
        again.step_batch();
    }
    assert_eq!(trainer.result_parameters(), again.parameters());
    assert_ne!(trainer.result_parameters(), trainer.parameters());
}

#[test]
fn a_loss_that_is_not_finite_ends_the_training_and_keeps_the_last_good_weights() {
    let inputs: Vec<f64> = uniform(20, 1);
    let architecture = network(ElementType::Float32, 1, &[(1, Activation::Identity)]);
    let plain = sgd(1e6, 0.0);
    for batch_size in [5, 20] {
        let settings = Settings { batch_size, epochs: 1_000, ..settings(Loss::SquaredError, plain, 20) };
        let data = data(ElementType::Float32, [1, 1], &inputs, &inputs);
        let mut trainer = Trainer::<f32>::new(input(architecture.clone(), settings, data));
        let ends = run(&mut trainer);
        let last = ends.last().unwrap();
        assert_eq!((reason(&ends), last.is_reported), (StopReason::Diverged, false));
        assert!(last.stop.as_ref().unwrap().message.contains(&format!("epoch {}", ends.len())));
        assert_eq!(trainer.epoch() as usize, ends.len() - 1);
        if let Some((parameters, report)) = trainer.last_whole_epoch() {
            assert!(all_finite(parameters) && report.epoch == trainer.epoch());
        }
        assert!(matches!(trainer.step_batch(), Step::Epoch(EpochEnd { stop: Some(_), .. })), "it stays ended");
    }
}

#[test]
fn huge_inputs_give_no_nan() {
    for activation in ACTIVATIONS.into_iter().filter(|it| !it.is_over_rows() && *it != Activation::Exponential) {
        let architecture = network(ElementType::Float64, 2, &[(3, activation), (2, Activation::Softmax)]);
        let inputs = matrix(ElementType::Float64, 2, &[1e4, -1e4, -1e4, 1e4]);
        let data = training_data(inputs, Targets::Classes(vec![0, 1]));
        let settings = settings(cross_entropy(), adam(1e-3), 2);
        let ends = run(&mut Trainer::<f64>::new(input(architecture, settings, data)));
        assert_eq!(reason(&ends), StopReason::EpochsDone, "{activation}");
    }
}

// --- The same bits ----------------------------------------------------------------------------------------------------

fn everything(settings: &mut Settings) {
    settings.validation = Validation::Fraction(0.3);
    settings.epochs = 4;
    settings.early_stopping = Some(stopping(3, 0.0));
}

fn check_restore<T: Element>(optimizer: Optimizer, change: impl Fn(&mut Settings)) {
    check_restore_of(&classifier::<T>(20, optimizer, change), Trainer::<T>::new);
}

/// From a state at any batch, through bytes, a new trainer goes on to the same steps and states.
fn check_restore_of<T: Element>(input: &TrainerInput, new: impl Fn(TrainerInput) -> Trainer<T>) {
    let mut reference = new(input.clone());
    let mut steps = Vec::new();
    let mut states = vec![reference.state()];
    loop {
        steps.push(reference.step_batch());
        states.push(reference.state());
        if matches!(steps.last(), Some(Step::Epoch(EpochEnd { stop: Some(_), .. }))) {
            break;
        }
    }
    for (taken, state) in states.iter().enumerate() {
        let bytes = rmp_serde::to_vec_named(state).unwrap();
        let mut trainer = new(input.clone());
        trainer.restore(rmp_serde::from_slice(&bytes).unwrap()).unwrap();
        assert_eq!(&trainer.state(), state);
        for (step, state) in steps[taken..].iter().zip(&states[taken + 1..]) {
            assert_eq!(&trainer.step_batch(), step, "after {taken} steps");
            assert_eq!(&trainer.state(), state, "after {taken} steps");
        }
        assert_eq!(trainer.result_parameters(), reference.result_parameters());
        assert_eq!(trainer.last_whole_epoch(), reference.last_whole_epoch());
    }
}

#[test]
fn going_on_from_any_batch_gives_the_bits_of_never_stopping() {
    for optimizer in [adam(0.05), momentum(), sgd(0.1, 0.0)] {
        check_restore::<f32>(optimizer, everything);
        check_restore::<f64>(optimizer, everything);
        check_restore::<f32>(optimizer, |settings| settings.epochs = 3);
        check_restore::<f32>(optimizer, |settings| settings.batch_size = 20);
        check_restore::<f64>(optimizer, |settings| settings.shuffle = false);
    }
}

#[test]
fn a_state_of_another_training_is_refused_and_changes_nothing() {
    let trainer = |rows, optimizer| Trainer::<f32>::new(classifier::<f32>(rows, optimizer, |_| {}));
    let mut state = trainer(20, adam(0.1)).state();
    let mut other = trainer(20, momentum());
    let before = other.state();
    assert!(other.restore(state.clone()).is_err());
    assert_eq!(other.state(), before);
    state.next_batch = 5;
    assert!(trainer(20, adam(0.1)).restore(state.clone()).is_err());
    state.next_batch = 1;
    state.parameters = state.parameters.into_element_type(ElementType::Float64);
    assert!(trainer(20, adam(0.1)).restore(state).is_err());
}

#[test]
fn the_last_whole_epoch_is_at_hand_in_the_midst_of_the_next() {
    let mut trainer = Trainer::<f32>::new(classifier::<f32>(10, adam(0.1), |_| {}));
    assert!(trainer.last_whole_epoch().is_none());
    while trainer.epoch() < 2 {
        trainer.step_batch();
    }
    let parameters = trainer.parameters().to_vec();
    trainer.stamp(77, 5.0);
    trainer.step_batch();
    assert_eq!(trainer.rows_done_in_epoch(), 4);
    let (last, report) = trainer.last_whole_epoch().unwrap();
    assert_eq!((last, report.epoch, report.elapsed_micros), (&parameters[..], 2, 77));
    assert_ne!(trainer.parameters(), parameters);
    assert_eq!(trainer.result_parameters(), parameters);
}

#[test]
fn every_epoch_visits_every_row_once_in_an_order_of_its_own() {
    let mut trainer = Trainer::<f32>::new(classifier::<f32>(30, adam(0.1), |_| {}));
    let mut orders = BTreeSet::new();
    for epoch in 0..5 {
        while trainer.epoch() < epoch {
            trainer.step_batch();
        }
        let mut rows = trainer.order.clone();
        rows.sort_unstable();
        assert!(rows.iter().copied().eq(0..30));
        orders.insert(trainer.order.clone());
    }
    assert_eq!(orders.len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_over_several_tiles_is_the_batch_in_one(rows in 17_usize..80, seed: u64) {
        let input = classifier::<f64>(rows, adam(0.01), |settings| {
            settings.batch_size = rows as u32;
            settings.seed = seed;
        });
        let mut whole = Trainer::<f64>::new(input.clone());
        let mut tiled = Trainer::<f64>::new(input);
        tiled.tile_rows = 16;
        let (whole, tiled) = (run(&mut whole), run(&mut tiled));
        for (whole, tiled) in whole.iter().zip(&tiled) {
            prop_assert!((whole.report.loss - tiled.report.loss).abs() < 1e-9);
        }
    }
}

/// An overflow in the update itself, where the loss before it was still finite.
#[test]
fn an_update_out_of_range_does_not_count_as_an_epoch() {
    let architecture = network(ElementType::Float32, 1, &[(1, Activation::Identity)]);
    let plain = sgd(1e6, 0.0);
    let settings = Settings { batch_size: 1, ..settings(Loss::SquaredError, plain, 1) };
    let data = data(ElementType::Float32, [1, 1], &[1e17], &[1e17]);
    let mut input = input(architecture, settings, data);
    input.parameters = Values::F32(vec![2.0, 0.0]);
    let mut trainer = Trainer::<f32>::new(input);
    let ends = run(&mut trainer);
    assert_eq!((ends.len(), reason(&ends)), (1, StopReason::Diverged));
    assert_eq!((trainer.epoch(), trainer.last_whole_epoch()), (0, None));
}
