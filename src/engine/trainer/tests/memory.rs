//! What a step takes from the allocator: nothing.

use super::*;

/// Allocations of steps and epochs after a first epoch.
fn allocations<T: Element>(activation: Activation, loss: Loss, optimizer: Optimizer, batch_size: u32) -> u64 {
    let (rows, units) = (12, 3);
    let layers = [(40, Activation::Tanh), (20, Activation::Relu), (units, activation)];
    let architecture = network(T::ELEMENT_TYPE, 3, &layers);
    let bits: Vec<f64> = uniform(rows * units, 5).iter().map(|x: &f64| f64::from(*x > 0.0)).collect();
    let values = match loss {
        Loss::Perceptron => bits.iter().map(|bit| 2.0 * bit - 1.0).collect(),
        _ => bits,
    };
    let targets = match activation {
        Activation::Softmax => Targets::Classes((0..rows as u32).map(|row| row % 3).collect()),
        _ => Targets::Values(matrix(T::ELEMENT_TYPE, units, &values)),
    };
    let inputs = matrix(T::ELEMENT_TYPE, 3, &uniform(rows * 3, 6));
    let mut settings = Settings { batch_size, epochs: 1_000, shuffle: true, ..settings(loss, optimizer, rows) };
    settings.early_stopping = Some(EarlyStopping { patience: 1_000, min_delta: 0.0 });
    settings.validation = Validation::Fraction(0.25);
    let data = TrainingData { inputs, targets, validation: None };
    let mut trainer = Trainer::<T>::new(input(architecture, settings, data));
    while trainer.epoch() < 1 {
        trainer.step_batch();
    }
    let counted = allocation_counter::measure(|| {
        while trainer.epoch() < 3 {
            trainer.step_batch();
        }
    });
    counted.count_total
}

#[test]
fn a_step_allocates_nothing() {
    for activation in ACTIVATIONS {
        for &loss in Loss::fitting(activation) {
            for optimizer in [adam(1e-3), MOMENTUM, Optimizer::Sgd { learning_rate: 1e-3, momentum: 0.0 }] {
                for batch_size in [1, 4, 100] {
                    let counts = [
                        allocations::<f32>(activation, loss, optimizer, batch_size),
                        allocations::<f64>(activation, loss, optimizer, batch_size),
                    ];
                    assert_eq!(counts, [0, 0], "{activation} {loss:?} {optimizer:?} {batch_size}");
                }
            }
        }
    }
}
