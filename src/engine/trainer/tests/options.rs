//! What the options of layers and trainings do, and the corners of the numbers.

use super::*;
use crate::domain::{ClassWeights, RawBatchNormalization, StopAt};
use crate::engine::testing::losses_of;

/// Two layers on twelve random rows, with two outputs.
fn regressor(
    change: impl FnOnce(&mut crate::domain::RawArchitecture),
    configure: impl FnOnce(&mut Settings),
) -> TrainerInput {
    let layers = [(4, Activation::Tanh), (3, Activation::Relu), (2, Activation::Identity)];
    let architecture = network_with(ElementType::Float64, 3, &layers, change);
    let data = data(ElementType::Float64, [3, 2], &uniform::<f64>(36, 1), &uniform::<f64>(24, 2));
    let mut settings = settings(Loss::SquaredError, adam(0.05), 12);
    settings.batch_size = 5;
    configure(&mut settings);
    input(architecture, settings, data)
}

fn normalize(raw: &mut crate::domain::RawArchitecture) {
    for layer in raw.layers[..2].iter_mut().flatten() {
        layer.batch_normalization = Some(RawBatchNormalization::default());
    }
}

#[test]
fn frozen_layers_keep_every_bit_their_running_values_too() {
    let by_model = |raw: &mut crate::domain::RawArchitecture| {
        normalize(raw);
        raw.layers[0].as_mut().unwrap().frozen = true;
    };
    let penalties = |settings: &mut Settings| {
        (settings.l1, settings.l2) = (0.1, 0.1);
        settings.optimizer = Optimizer::AdamW {
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.1,
            amsgrad: false,
        };
    };
    let by_training = |settings: &mut Settings| {
        penalties(settings);
        settings.frozen_layers = vec![0];
    };
    let mut ends = Vec::new();
    for input in [regressor(by_model, penalties), regressor(normalize, by_training)] {
        let layout = input.architecture.layout()[0].clone();
        let before = f64::vec_from(input.parameters.clone());
        let mut trainer = Trainer::<f64>::new(input);
        run(&mut trainer);
        let after = trainer.parameters();
        let normalization = layout.normalization.clone().unwrap();
        for range in [layout.trainable(), normalization.mean, normalization.variance] {
            assert_eq!(after[range.clone()], before[range]);
        }
        let next = layout.trainable().end;
        assert!(after[next..next + 10].iter().zip(&before[next..]).all(|(a, b)| a != b));
        ends.push(after.to_vec());
    }
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_last_batch_of_one_row_joins_the_one_before_where_it_has_to() {
    let batches = |batch_size, is_normalized: bool| {
        let change = |raw: &mut _| {
            if is_normalized {
                normalize(raw)
            }
        };
        let trainer = Trainer::<f64>::new(regressor(change, |settings| settings.batch_size = batch_size));
        (0..trainer.batches_per_epoch()).map(|batch| trainer.batch_rows(batch)).collect::<Vec<_>>()
    };
    assert_eq!(batches(11, false), [0..11, 11..12]);
    assert_eq!(batches(11, true), vec![0..12; 1]);
    assert_eq!(batches(5, true), [0..5, 5..10, 10..12]);
    assert_eq!(batches(12, true), vec![0..12; 1]);
    let mut trainer = Trainer::<f64>::new(regressor(normalize, |settings| settings.batch_size = 11));
    assert_eq!(reason(&run(&mut trainer)), StopReason::EpochsDone);
}

#[test]
fn no_unit_s_weights_grow_past_their_bound() {
    let bound = |raw: &mut crate::domain::RawArchitecture| raw.layers[0].as_mut().unwrap().max_norm = Some(0.7);
    let mut trainer = Trainer::<f64>::new(regressor(bound, |_| {}));
    run(&mut trainer);
    let weights = &trainer.parameters()[..12];
    let norms: Vec<f64> =
        (0..4).map(|unit| weights[unit..].iter().step_by(4).map(|w| w * w).sum::<f64>().sqrt()).collect();
    assert!(norms.iter().all(|&norm| norm <= 0.7 + 1e-15), "{norms:?}");
    assert!(norms.iter().any(|&norm| (norm - 0.7).abs() < 1e-15), "{norms:?}");
}

#[test]
fn a_weight_of_two_is_the_row_twice() {
    let plain = |settings: &mut Settings| (settings.batch_size, settings.optimizer) = (13, sgd(0.1, 0.0));
    let mut twice = regressor(|_| {}, plain);
    let rows = &mut twice.data.training;
    let (mut inputs, mut targets) = (uniform::<f64>(36, 1), uniform::<f64>(24, 2));
    inputs.extend_from_within(..3);
    targets.extend_from_within(..2);
    rows.inputs = matrix(ElementType::Float64, 3, &inputs);
    rows.targets = Targets::Values(matrix(ElementType::Float64, 2, &targets));
    twice.settings.rows = 13;
    let mut weighted = regressor(|_| {}, plain);
    let mut weights = [1.0; 12];
    weights[0] = 2.0;
    weighted.data.training.weights = Some(matrix(ElementType::Float64, 1, &weights));
    let (mut twice, mut weighted) = (Trainer::<f64>::new(twice), Trainer::<f64>::new(weighted));
    let (a, b) = (run(&mut twice), run(&mut weighted));
    assert!(a.iter().zip(b).all(|(a, b)| (a.report.loss - b.report.loss).abs() < 1e-13));
    assert!(twice.parameters().iter().zip(weighted.parameters()).all(|(a, b)| (a - b).abs() < 1e-13));
}

#[test]
fn what_stands_in_the_place_of_a_missing_target_does_not_matter() {
    let masked = |junk: f64| {
        let mut input = regressor(|_| {}, |_| {});
        let mut targets = uniform::<f64>(24, 2);
        let mut mask = vec![1.0; 24];
        for index in [0, 5, 9] {
            (targets[index], mask[index]) = (junk, 0.0);
        }
        input.data.training.targets = Targets::Values(matrix(ElementType::Float64, 2, &targets));
        input.data.training.mask = Some(matrix(ElementType::Float64, 2, &mask));
        input.preprocessing.targets = Scaling::Standard;
        let mut trainer = Trainer::<f64>::new(input);
        let ends = run(&mut trainer);
        (trainer.parameters().to_vec(), trainer.preprocessing().cloned(), ends)
    };
    assert_eq!(masked(0.0), masked(1e6));
}

#[test]
fn balanced_classes_weigh_the_same_together() {
    let input = classifier::<f64>(20, adam(0.1), |settings| settings.class_weights = Some(ClassWeights::Balanced));
    let Targets::Classes(classes) = input.data.training.targets.clone() else { panic!("classes") };
    let ones = classes.iter().filter(|&&class| class == 1).count() as f64;
    let given = ClassWeights::Given(vec![20.0 / (2.0 * (20.0 - ones)), 20.0 / (2.0 * ones)]);
    let mut same = input.clone();
    same.settings.class_weights = Some(given);
    // With a sum the weights stand in the loss as they are; with a mean only their ratio does.
    let by_sum = |mut input: TrainerInput| {
        input.settings.reduction = Reduction::Sum;
        input.settings.optimizer = sgd(0.01, 0.0);
        Trainer::<f64>::new(input)
    };
    let (mut first, mut second) = (by_sum(input.clone()), by_sum(same.clone()));
    assert_eq!(run(&mut first), run(&mut second));
    let (mut balanced, mut given) = (Trainer::<f64>::new(input), Trainer::<f64>::new(same));
    assert_eq!(run(&mut balanced), run(&mut given));
    assert_eq!(balanced.parameters(), given.parameters());
}

#[test]
fn a_metric_that_is_reached_ends_the_training() {
    let target = |metric, value| move |settings: &mut Settings| settings.stop_at = Some(StopAt { metric, value });
    for (metric, value) in [(Metric::Accuracy, 0.9), (Metric::Loss, 0.3), (Metric::MisclassifiedRows, 2.0)] {
        let mut input = classifier::<f64>(30, adam(0.05), target(metric, value));
        input.settings.epochs = 1_000;
        let mut trainer = Trainer::<f64>::new(input);
        let ends = run(&mut trainer);
        assert_eq!(reason(&ends), StopReason::TargetReached, "{metric:?}");
        let reached = |end: &LastEpoch| {
            let told = end.report.monitored(metric).unwrap();
            if metric.lower_is_better() { told <= value } else { told >= value }
        };
        let (last, before) = ends.split_last().unwrap();
        assert!(reached(last) && !before.iter().any(reached), "{metric:?}");
        assert_eq!(trainer.result_report(), Some(&last.report));
    }
}

#[test]
fn a_monitored_metric_decides_which_epoch_is_the_best() {
    let monitored = |settings: &mut Settings| {
        settings.early_stopping = Some(EarlyStopping { metric: Metric::Accuracy, ..stopping(50, 0.0) });
        settings.epochs = 30;
    };
    let mut trainer = Trainer::<f64>::new(classifier::<f64>(30, adam(0.2), monitored));
    let ends = run(&mut trainer);
    let accuracy = |end: &LastEpoch| end.report.metrics.accuracy.unwrap();
    let best = ends.iter().map(accuracy).fold(0.0, f64::max);
    let first = ends.iter().find(|end| accuracy(end) == best).unwrap();
    assert_eq!(trainer.result_report(), Some(&first.report));
    let mut last = classifier::<f64>(30, adam(0.2), monitored);
    last.settings.early_stopping = last.settings.early_stopping.map(|it| EarlyStopping { restore_best: false, ..it });
    let mut last = Trainer::<f64>::new(last);
    let ends = run(&mut last);
    assert_eq!(last.result_report(), Some(&ends.last().unwrap().report));
}

/// Least squares with a penalty has one minimum; there the gradient of both is 0, and frozen weights stand where they stood.
#[test]
fn lbfgs_minimizes_loss_and_penalty_together_and_leaves_frozen_layers() {
    for frozen_layers in [vec![], vec![0]] {
        let layers = [(2, Activation::Identity), (2, Activation::Identity)];
        let architecture = network(ElementType::Float64, 3, &layers);
        let lbfgs = |settings: &mut Settings| {
            let is_lbfgs = |it: &Optimizer| matches!(it, Optimizer::Lbfgs(_));
            settings.optimizer =
                crate::engine::optimizer::examples::with_defaults().into_iter().find(is_lbfgs).unwrap();
            (settings.batch_size, settings.epochs, settings.l2) = (12, 1_000, 0.05);
            settings.frozen_layers = frozen_layers.clone();
        };
        let mut input = regressor(|_| {}, lbfgs);
        input.parameters = draw_parameters(&architecture, 1);
        input.architecture = architecture.clone();
        let rows = input.data.training.clone();
        let before = f64::vec_from(input.parameters.clone());
        let mut trainer = Trainer::<f64>::new(input);
        assert_eq!(reason(&run(&mut trainer)), StopReason::Converged);
        let parameters = trainer.parameters();
        let inputs = f64::vec_from(rows.inputs.into_values());
        let (loss, targets) = (Loss::SquaredError, &rows.targets);
        let found =
            crate::engine::gradients::compute(&architecture, parameters, &inputs, targets, &loss, Reduction::Mean);
        let found = found.unwrap().parameters;
        for (index, layout) in architecture.layout().into_iter().enumerate() {
            let is_frozen = frozen_layers.contains(&(index as u32));
            assert_eq!(parameters[layout.trainable()] == before[layout.trainable()], is_frozen);
            let slope = |place: usize| found[place] + 0.05 * parameters[place];
            // It ends where the loss changes by less than 1e-9.
            let flat = layout.weights.clone().map(slope).all(|slope| slope.abs() < 1e-5);
            assert!(flat || is_frozen, "layer {index}: {:?}", layout.weights.map(slope).collect::<Vec<_>>());
        }
    }
}

#[test]
fn lbfgs_ends_where_nothing_is_left_to_improve() {
    let lbfgs = |settings: &mut Settings| {
        let is_lbfgs = |it: &Optimizer| matches!(it, Optimizer::Lbfgs(_));
        settings.optimizer = crate::engine::optimizer::examples::with_defaults().into_iter().find(is_lbfgs).unwrap();
        settings.batch_size = 12;
        settings.epochs = 10_000;
        settings.l2 = 0.1;
    };
    let architecture = network(ElementType::Float64, 3, &[(2, Activation::Identity)]);
    let mut input = regressor(|_| {}, lbfgs);
    input.parameters = draw_parameters(&architecture, 1);
    input.architecture = architecture;
    let mut trainer = Trainer::<f64>::new(input);
    let ends = run(&mut trainer);
    assert_eq!(reason(&ends), StopReason::Converged);
    assert!(ends.len() < 50, "{} iterations for least squares", ends.len());
}

/// By a network whose gradients are easy: y = w·x, one row, squared error.
#[test]
fn diagnostics_are_what_they_say() {
    let architecture = network(ElementType::Float64, 2, &[(2, Activation::Relu), (1, Activation::Identity)]);
    let data = data(ElementType::Float64, [2, 1], &[1.0, 2.0, -1.0, 0.5], &[1.0, 0.0]);
    let mut settings = settings(Loss::SquaredError, sgd(0.1, 0.0), 2);
    (settings.diagnostics, settings.epochs) = (true, 1);
    let mut input = input(architecture, settings, data);
    // The second unit is below 0 for both rows: dead.
    let before = vec![0.5, -1.0, 0.25, -1.0, 0.0, -5.0, 2.0, 1.0, 0.5];
    input.parameters = Values::F64(before.clone());
    let mut trainer = Trainer::<f64>::new(input);
    let report = run(&mut trainer)[0].report.clone();
    // z₁ = (1, −0.375) of the first unit: a = (1, 0), ŷ = (2.5, 0.5), δ = (2.5 − 1, 0.5)·2/2.
    let norm = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    let last = report.diagnostics[1];
    let gradients = [1.5 * 1.0, 0.0, 2.0];
    assert!((last.gradient_norm - norm(&gradients)).abs() < 1e-14, "{last:?}");
    assert!((last.update_ratio - 0.1 * norm(&gradients) / norm(&before[6..])).abs() < 1e-14, "{last:?}");
    assert!((last.weight_norm - norm(&trainer.parameters()[6..8])).abs() < 1e-15, "{last:?}");
    assert_eq!((last.dead_units, report.diagnostics[0].dead_units), (0.0, 0.5));
}

// --- Corners ----------------------------------------------------------------------------------------------------------

/// One row, one column, constant targets, and both together: no NaN.
#[test]
fn the_smallest_trainings_have_finite_numbers() {
    for activation in ACTIVATIONS {
        for loss in losses_of(activation) {
            let targets: &[f64] = match loss {
                Loss::Perceptron | Loss::Hinge | Loss::SquaredHinge => &[-1.0, 1.0, 1.0],
                _ => &[1.0, 1.0, 1.0],
            };
            let targets = match activation.is_over_rows() {
                true => Targets::Classes(vec![1]),
                false => Targets::Values(matrix(ElementType::Float32, 3, targets)),
            };
            let architecture = network(ElementType::Float32, 1, &[(3, activation)]);
            let data = training_data(matrix(ElementType::Float32, 1, &[0.5]), targets);
            let settings = settings_on(activation, loss.clone(), adam(0.01), 1);
            let mut trainer = Trainer::<f32>::new(input(architecture, settings, data));
            let ends = run(&mut trainer);
            let all_finite = ends.iter().all(|end| end.report.loss.is_finite()) && all_finite(trainer.parameters());
            assert!(all_finite && reason(&ends) != StopReason::Diverged, "{activation} {loss:?}");
        }
    }
}

#[test]
fn classes_without_rows_and_without_weight_leave_no_nan() {
    let mut input = classifier::<f64>(12, adam(0.05), |settings| settings.class_weights = Some(ClassWeights::Balanced));
    input.data.training.targets = Targets::Classes(vec![0; 12]);
    input.settings.metrics = Metric::ALL.into_iter().filter(|it| *it != Metric::Loss).collect();
    let mut trainer = Trainer::<f64>::new(input);
    let ends = run(&mut trainer);
    assert_eq!(reason(&ends), StopReason::EpochsDone);
    let report = &ends.last().unwrap().report;
    assert!(
        report.loss.is_finite() && report.metrics.roc_auc.is_none() && report.metrics.f1_macro.unwrap().is_finite()
    );
    // A batch in which no row counts moves nothing.
    let mut input = classifier::<f64>(8, sgd(0.1, 0.0), |settings| settings.shuffle = false);
    input.data.training.weights = Some(matrix(ElementType::Float64, 1, &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]));
    let mut trainer = Trainer::<f64>::new(input);
    let before = trainer.parameters().to_vec();
    trainer.step_batch();
    assert_eq!(trainer.parameters(), before);
    trainer.step_batch();
    assert!(trainer.parameters() != before && all_finite(trainer.parameters()));
}

#[test]
fn two_hundred_layers_train_without_nan() {
    for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Relu, Activation::Elu { alpha: 1.0 }] {
        for is_normalized in [false, true] {
            let mut layers = vec![(4, activation); 199];
            layers.push((2, Activation::Softmax));
            let architecture = network_with(ElementType::Float32, 3, &layers, |raw| {
                for layer in raw.layers[..199].iter_mut().flatten().filter(|_| is_normalized) {
                    layer.batch_normalization = Some(RawBatchNormalization::default());
                }
            });
            let mut input = classifier::<f32>(20, adam(1e-3), |_| {});
            input.parameters = draw_parameters(&architecture, 1);
            input.architecture = architecture;
            let mut trainer = Trainer::<f32>::new(input);
            assert_eq!(reason(&run(&mut trainer)), StopReason::EpochsDone, "{activation} {is_normalized}");
            assert!(all_finite(trainer.parameters()));
        }
    }
}

/// Dropout with given masks, against steps worked out with the masked units taken out by hand.
#[test]
fn what_is_dropped_neither_speaks_nor_learns() {
    let dropping = |raw: &mut crate::domain::RawArchitecture| raw.layers[0].as_mut().unwrap().dropout = Some(0.5);
    let plain = |settings: &mut Settings| {
        (settings.optimizer, settings.batch_size, settings.epochs) = (sgd(0.1, 0.0), 12, 1);
    };
    let mut trainer = Trainer::<f64>::new(regressor(dropping, plain));
    // Units 1 and 3 of four are dropped in every row, the others doubled.
    let mask: Vec<f64> = [2.0, 0.0, 2.0, 0.0].repeat(12);
    trainer.given_masks = Some(vec![vec![], mask, vec![], vec![]]);
    let before = trainer.parameters().to_vec();
    trainer.step_batch();
    let after = trainer.parameters();
    let layout = trainer.architecture.layout();
    for row in 0..3 {
        for unit in 0..4 {
            let index = layout[0].weights.start + row * 4 + unit;
            assert_eq!(after[index] == before[index], unit % 2 == 1, "weight {row} {unit}");
        }
    }
    // The layer behind does not learn from units that were silent.
    for unit in 0..4 {
        let weights = layout[1].weights.start + unit * 3..layout[1].weights.start + unit * 3 + 3;
        let is_same = after[weights.clone()] == before[weights];
        assert_eq!(is_same, unit % 2 == 1, "unit {unit}");
    }
}
