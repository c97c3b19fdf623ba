//! What a step takes from the allocator: nothing.

use super::*;
use crate::domain::{Expression, RawArchitecture, RawBatchNormalization, TargetKind};
use crate::engine::optimizer::examples::optimizers;
use crate::engine::testing::begins_at_a_line;

/// Allocations of steps and epochs after a first epoch.
fn allocations<T: Element>(
    activation: Activation,
    loss: &Loss,
    change: impl FnOnce(&mut RawArchitecture),
    configure: impl FnOnce(&mut Settings),
) -> u64 {
    let (rows, units) = (12, 3);
    let layers = [(40, Activation::Tanh), (20, Activation::Relu), (units, activation)];
    let architecture = network_with(T::ELEMENT_TYPE, 3, &layers, change);
    let bits = uniform(rows * units, 5).into_iter().map(|x: f64| f64::from(x > 0.0));
    let targets = match loss.target_kind(activation) {
        TargetKind::Classes | TargetKind::Distributions | TargetKind::ClassesOrNumbers => {
            Targets::Classes((0..rows as u32).map(|row| row % 3).collect())
        }
        TargetKind::Signs => {
            Targets::Values(matrix(T::ELEMENT_TYPE, units, &bits.map(|bit| 2.0 * bit - 1.0).collect::<Vec<_>>()))
        }
        TargetKind::Positive => {
            Targets::Values(matrix(T::ELEMENT_TYPE, units, &bits.map(|bit| bit + 0.5).collect::<Vec<_>>()))
        }
        TargetKind::Bits | TargetKind::Numbers | TargetKind::NonNegative => {
            Targets::Values(matrix(T::ELEMENT_TYPE, units, &bits.collect::<Vec<_>>()))
        }
    };
    let inputs = matrix(T::ELEMENT_TYPE, 3, &uniform(rows * 3, 6));
    let mut settings = Settings {
        batch_size: 4,
        epochs: 1_000,
        shuffle: true,
        ..settings_on(activation, loss.clone(), adam(1e-3), rows)
    };
    settings.early_stopping = Some(stopping(1_000, 0.0));
    settings.validation = Validation::Fraction(0.25);
    configure(&mut settings);
    let mut trainer = Trainer::<T>::new(input(architecture, settings, training_data(inputs, targets)));
    while trainer.epoch() < 1 {
        trainer.step_batch();
    }
    let counted = allocation_counter::measure(|| {
        while trainer.epoch() < 3 && trainer.end.is_none() {
            trainer.step_batch();
        }
    });
    counted.count_total
}

#[test]
fn a_step_allocates_nothing_whatever_the_loss() {
    for activation in ACTIVATIONS {
        for loss in losses_of(activation) {
            for batch_size in [1, 4, 100] {
                let batch = |settings: &mut Settings| settings.batch_size = batch_size;
                let counts = [
                    allocations::<f32>(activation, &loss, |_| {}, batch),
                    allocations::<f64>(activation, &loss, |_| {}, batch),
                ];
                assert_eq!(counts, [0, 0], "{activation} {loss:?} {batch_size}");
            }
        }
    }
}

#[test]
fn a_step_allocates_nothing_whatever_the_optimizer() {
    for optimizer in optimizers() {
        for batch_size in [4, 100] {
            let configure = |settings: &mut Settings| {
                settings.optimizer = optimizer;
                settings.batch_size = if optimizer.is_full_batch_only() { 100 } else { batch_size };
            };
            let (activation, loss) = (Activation::Identity, Loss::SquaredError);
            let counts = [
                allocations::<f32>(activation, &loss, |_| {}, configure),
                allocations::<f64>(activation, &loss, |_| {}, configure),
            ];
            assert_eq!(counts, [0, 0], "{optimizer:?} {batch_size}");
        }
    }
}

#[test]
fn a_step_allocates_nothing_with_every_option_on() {
    let options = |raw: &mut RawArchitecture| {
        raw.input_dropout = Some(0.1);
        for layer in raw.layers[..2].iter_mut().flatten() {
            layer.dropout = Some(0.2);
            layer.batch_normalization = Some(RawBatchNormalization::default());
            layer.max_norm = Some(1.0);
        }
    };
    let expression = Expression::parse("where(y_pred > 0.1, -y_true*log(y_pred), abs(y_true-y_pred)^1.5)").unwrap();
    for loss in [cross_entropy(), Loss::Custom { expression }] {
        let configure = |settings: &mut Settings| {
            (settings.l1, settings.l2) = (1e-3, 1e-3);
            settings.max_gradient_norm = Some(0.1);
            settings.max_gradient_value = Some(0.1);
            settings.class_weights = Some(crate::domain::ClassWeights::Balanced);
            settings.metrics = Metric::ALL.into_iter().filter(|it| it.fits(settings.task, 3, true).is_ok()).collect();
        };
        let activation = Activation::Softmax;
        let counts = [
            allocations::<f32>(activation, &loss, options, configure),
            allocations::<f64>(activation, &loss, options, configure),
        ];
        assert_eq!(counts, [0, 0], "{loss:?}");
    }
}

const ROWS: usize = 4_000;
const WIDTH: usize = 50;
const INPUT_BYTES: u64 = (ROWS * WIDTH * size_of::<f32>()) as u64;

/// A small network over rows that are most of the memory.
fn many_rows(validation: Validation) -> TrainerInput {
    let architecture = network(ElementType::Float32, WIDTH, &[(2, Activation::Tanh), (1, Activation::Identity)]);
    let settings = Settings {
        batch_size: 8,
        epochs: 2,
        shuffle: true,
        validation,
        ..settings(Loss::SquaredError, adam(1e-3), ROWS)
    };
    let rows = data(ElementType::Float32, [WIDTH, 1], &uniform(ROWS * WIDTH, 3), &uniform(ROWS, 4));
    input(architecture, settings, rows)
}

/// A trainer, and the most that it had allocated in its making.
fn made<T: Element>(input: TrainerInput) -> (Trainer<T>, u64) {
    let mut trainer = None;
    let counted = allocation_counter::measure(|| trainer = Some(Trainer::new(input)));
    (trainer.unwrap(), counted.bytes_max)
}

#[test]
fn rows_are_not_copied() {
    let (_, bytes) = made::<f32>(many_rows(Validation::None));
    assert!(bytes < INPUT_BYTES / 4, "{bytes} bytes beside {INPUT_BYTES} of inputs");
}

#[test]
fn packed_rows_are_trained_on_where_they_lie_to_the_same_bits() {
    let packed = |input: TrainerInput| TrainerInput { data: input.data.into_packed(), ..input };
    let (_, bytes) = made::<f32>(packed(many_rows(Validation::None)));
    assert!(bytes < INPUT_BYTES / 4, "{bytes} bytes for {INPUT_BYTES} of inputs");
    for (validation, scaling) in [
        (Validation::None, Scaling::None),
        (Validation::Fraction(0.25), Scaling::None),
        (Validation::None, Scaling::Standard),
    ] {
        let preprocessing = Preprocessing { inputs: scaling, targets: scaling };
        let input = TrainerInput { preprocessing, ..many_rows(validation) };
        let (mut one, mut other) = (made::<f32>(packed(input.clone())).0, made::<f32>(input).0);
        assert_eq!(run(&mut one), run(&mut other));
        assert_eq!(one.parameters(), other.parameters());
    }
}

#[test]
fn what_a_training_comes_to_is_not_copied() {
    let architecture = network(ElementType::Float32, 50, &[(500, Activation::Tanh), (1, Activation::Identity)]);
    let bytes = (architecture.parameter_count() * size_of::<f32>()) as u64;
    let settings = Settings { batch_size: 2, epochs: 2, ..settings(Loss::SquaredError, adam(1e-3), 4) };
    let rows = data(ElementType::Float32, [50, 1], &uniform(200, 3), &uniform(4, 4));
    let (mut trainer, _) = made::<f32>(input(architecture, settings, rows));
    run(&mut trainer);
    let stored = allocation_counter::measure(|| {
        trainer.state_without_vectors();
        trainer.vectors();
    });
    let ended = allocation_counter::measure(|| drop(trainer.into_end()));
    assert!(stored.bytes_total < bytes / 10, "{stored:?} for {bytes} of parameters");
    assert!(ended.bytes_total < bytes / 10, "{ended:?} for {bytes} of parameters");
}

#[test]
fn what_a_step_reads_in_vectors_begins_at_a_line() {
    let trainer = || {
        let architecture = network(ElementType::Float32, 7, &[(33, Activation::Gelu), (5, Activation::Softmax)]);
        let inputs = matrix(ElementType::Float32, 7, &uniform(24 * 7, 1));
        let targets = Targets::Classes((0..24).map(|row| row % 5).collect());
        let settings = settings_on(Activation::Softmax, cross_entropy(), adam(1e-3), 24);
        let settings = Settings { batch_size: 8, early_stopping: Some(stopping(10, 0.0)), ..settings };
        Trainer::<f32>::new(input(architecture, settings, training_data(inputs, targets)))
    };
    let mut begun = trainer();
    for _ in 0..4 {
        begun.step_batch();
    }
    let mut restored = trainer();
    restored.restore(begun.state()).unwrap();
    for trainer in [begun, restored] {
        let vectors = trainer.vectors();
        // Parameters, moments, the last epoch's and the best one's.
        assert_eq!(vectors.iter().filter(|vector| !vector.is_empty()).count(), 5);
        let activations = &trainer.workspace.activations;
        let buffers = [&activations.layers, &activations.pre_activations, &trainer.workspace.deltas];
        let buffers = buffers.into_iter().flatten().chain([&trainer.gradients, &activations.inputs]);
        let buffers = buffers.map(|buffer| &**buffer).chain(vectors).filter(|buffer| !buffer.is_empty());
        assert!(buffers.map(begins_at_a_line).eq([true; 12]));
    }
}
