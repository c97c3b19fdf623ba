//! Stopping and going on: to the same bits, at any batch, and from one training to the next.

use super::*;
use crate::domain::{RawBatchNormalization, Schedule, ScheduleKind, StopAt};
use crate::engine::optimizer::examples::optimizers;
use crate::engine::state::TrainerEnd;

/// A classifier with dropout, batch normalization, bounded norms, penalties, clipping, weights, every metric and diagnostics: as
/// much of it as the optimizer takes.
fn with_options<T: Element>(optimizer: Optimizer, change: impl Fn(&mut Settings)) -> TrainerInput {
    let rows = 17;
    let is_lbfgs = matches!(optimizer, Optimizer::Lbfgs(_));
    let layers = [(6, Activation::Tanh), (5, Activation::Silu), (2, Activation::Softmax)];
    let architecture = network_with(T::ELEMENT_TYPE, 3, &layers, |raw| {
        raw.input_dropout = (!is_lbfgs).then_some(0.1);
        for layer in raw.layers[..2].iter_mut().flatten() {
            layer.batch_normalization = Some(RawBatchNormalization::default());
            layer.dropout = (!is_lbfgs).then_some(0.2);
            layer.max_norm = (!is_lbfgs).then_some(2.0);
        }
    });
    let inputs: Vec<f64> = uniform(rows * 3, 11);
    let classes = inputs.chunks(3).map(|x| u32::from(x[0] * x[1] > 0.1 * x[2])).collect();
    let mut data = training_data(matrix(T::ELEMENT_TYPE, 3, &inputs), Targets::Classes(classes));
    let weights: Vec<f64> = uniform(rows, 12).iter().map(|x: &f64| x.abs() + 0.1).collect();
    data.training.weights = Some(matrix(T::ELEMENT_TYPE, 1, &weights));
    let mut settings = settings(cross_entropy(), optimizer, rows);
    settings.has_sample_weights = true;
    settings.shuffle = true;
    settings.epochs = 4;
    settings.l2 = 1e-3;
    settings.diagnostics = true;
    settings.class_weights = Some(crate::domain::ClassWeights::Balanced);
    settings.metrics = Metric::ALL.into_iter().filter(|it| it.fits(settings.task, 2, true).is_ok()).collect();
    settings.batch_size = if optimizer.is_full_batch_only() { 17 } else { 4 };
    if !is_lbfgs {
        settings.l1 = 1e-3;
        settings.max_gradient_norm = Some(1.0);
        settings.max_gradient_value = Some(0.5);
    }
    change(&mut settings);
    input(architecture, settings, data)
}

fn schedules(epochs: u32) -> Vec<ScheduleKind> {
    vec![
        ScheduleKind::Constant,
        ScheduleKind::Step { step_size: 2, gamma: 0.5 },
        ScheduleKind::Exponential { gamma: 0.9 },
        ScheduleKind::Cosine { t_0: 3, t_mult: 2, eta_min: 1e-4 },
        ScheduleKind::OneCycle { epochs, pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 },
        ScheduleKind::InverseTime { decay: 0.1 },
        ScheduleKind::ReduceOnPlateau { factor: 0.5, patience: 0, threshold: 0.01, cooldown: 1, min_lr: 1e-5 },
    ]
}

#[test]
fn every_optimizer_goes_on_from_any_batch_to_the_same_bits() {
    for optimizer in optimizers() {
        let validated = |settings: &mut Settings| {
            settings.validation = Validation::Fraction(0.3);
            settings.early_stopping = Some(stopping(3, 0.0));
        };
        check_restore_of(&with_options::<f64>(optimizer, validated), Trainer::<f64>::new);
        check_restore_of(&with_options::<f32>(optimizer, |_| {}), Trainer::<f32>::new);
    }
}

#[test]
fn every_schedule_goes_on_from_any_batch_to_the_same_bits() {
    for kind in schedules(4) {
        let schedule = Schedule { warm_up_epochs: 1, warm_up_start_factor: 0.2, kind };
        let scheduled = |settings: &mut Settings| settings.schedule = schedule;
        check_restore_of(&with_options::<f32>(adam(0.05), scheduled), Trainer::<f32>::new);
    }
}

#[test]
fn the_end_of_a_training_is_its_state_and_what_it_has_to_show() {
    let target = StopAt { metric: Metric::Loss, value: 1e3 };
    let changes: [&dyn Fn(&mut Settings); 3] =
        [&|_| {}, &|settings| settings.early_stopping = Some(stopping(1, 0.5)), &|settings| {
            (settings.early_stopping, settings.stop_at) = (Some(stopping(3, 0.0)), Some(target))
        }];
    for (optimizer, change) in optimizers().into_iter().flat_map(|optimizer| changes.map(|change| (optimizer, change)))
    {
        let input = with_options::<f32>(optimizer, change);
        for steps in 0..22 {
            let mut trainer = Trainer::<f32>::new(input.clone());
            (0..steps).for_each(|_| drop(trainer.step_batch()));
            let expected = (trainer.state(), trainer.result_parameters().to_vec(), trainer.result_report().cloned());
            let TrainerEnd { mut state, result, report } = trainer.into_end();
            assert_eq!(state, expected.0);
            assert_eq!(*state.vectors_mut()[result], Values::F32(expected.1), "{optimizer:?} after {steps} steps");
            assert_eq!(report, expected.2.unwrap_or_default());
        }
    }
}

/// Trains for so many epochs, where an earlier training ended if there is one. Returns the trainer and the reports' losses.
fn train<T: Element>(input: &TrainerInput, epochs: u32, before: Option<&Trainer<T>>) -> (Trainer<T>, Vec<EpochReport>) {
    let mut input = input.clone();
    input.settings.epochs = epochs;
    if let Some(before) = before {
        // As a version is: the weights that the training had to show.
        input.parameters = T::values_from(before.result_parameters().to_vec());
    }
    let mut trainer = Trainer::<T>::new(input);
    if let Some(before) = before {
        let bytes = rmp_serde::to_vec_named(&before.state()).unwrap();
        trainer.continue_from(rmp_serde::from_slice(&bytes).unwrap(), true, true).unwrap();
    }
    let reports = run(&mut trainer).into_iter().map(|end| end.report).collect();
    (trainer, reports)
}

/// So many epochs and then so many more are as many as both, to the bit.
fn check_continuation<T: Element>(input: &TrainerInput, epochs: [u32; 2]) {
    let (first, mut reports) = train::<T>(input, epochs[0], None);
    let (second, more) = train(input, epochs[1], Some(&first));
    reports.extend(more);
    let (whole, expected) = train::<T>(input, epochs[0] + epochs[1], None);
    assert_eq!(reports, expected);
    assert_eq!(second.parameters(), whole.parameters());
    assert_eq!(second.result_parameters(), whole.result_parameters());
    assert_eq!(second.best_report(), whole.best_report());
    assert_eq!(second.state().optimizer, whole.state().optimizer);
}

#[test]
fn ten_epochs_and_ten_more_are_twenty_for_every_optimizer() {
    for optimizer in optimizers() {
        check_continuation::<f32>(&with_options::<f32>(optimizer, |_| {}), [10, 10]);
        let best = |settings: &mut Settings| {
            settings.validation = Validation::Fraction(0.3);
            settings.early_stopping = Some(stopping(30, 0.0));
        };
        check_continuation::<f64>(&with_options::<f64>(optimizer, best), [10, 10]);
    }
}

#[test]
fn ten_epochs_and_ten_more_are_twenty_for_every_schedule() {
    for kind in schedules(17) {
        for warm_up_epochs in [0, 3, 12] {
            let schedule = Schedule { warm_up_epochs, warm_up_start_factor: 0.2, kind };
            let scheduled = |settings: &mut Settings| settings.schedule = schedule;
            check_continuation::<f32>(&with_options::<f32>(adam(0.02), scheduled), [10, 10]);
        }
    }
}

#[test]
fn an_epoch_that_was_under_way_is_finished() {
    let input = with_options::<f32>(adam(0.02), |_| {});
    let mut first = Trainer::<f32>::new(input.clone());
    (0..6).for_each(|_| drop(first.step_batch()));
    let (second, _) = train(&input, 4, Some(&first));
    let (whole, _) = train::<f32>(&input, second.epoch(), None);
    assert_eq!((second.epoch(), second.parameters()), (5, whole.parameters()));
    // With other batches the epoch begins anew.
    let mut other = Trainer::<f32>::new(input);
    other.continue_from(first.state(), true, false).unwrap();
    assert_eq!((other.epoch(), other.rows_done_in_epoch(), other.last_epoch()), (1, 0, 5));
}

#[test]
fn patience_that_was_at_its_end_begins_anew() {
    let stopped = |settings: &mut Settings| {
        settings.early_stopping = Some(EarlyStopping { min_delta: 100.0, ..stopping(2, 0.0) });
        settings.epochs = 50;
    };
    let input = with_options::<f32>(adam(0.02), stopped);
    let (first, reports) = train::<f32>(&input, 50, None);
    assert_eq!(reports.len(), 3);
    let (second, more) = train(&input, 50, Some(&first));
    assert_eq!((more.len(), second.epoch()), (2, 5));
}

#[test]
fn another_optimizer_cannot_go_on_and_changes_nothing() {
    let (first, _) = train::<f32>(&with_options::<f32>(adam(0.02), |_| {}), 2, None);
    let mut second = Trainer::<f32>::new(with_options::<f32>(momentum(), |_| {}));
    let before = second.state();
    assert!(second.continue_from(first.state(), true, true).is_err());
    assert_eq!(second.state(), before);
}
