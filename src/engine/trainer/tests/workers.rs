//! A training by several threads: the same bits, and nothing from the allocator.

use super::*;
use crate::domain::RawBatchNormalization;
use crate::engine::team::Team;

/// Large enough to be cut: products of millions of multiply-adds, and runs of tens of thousands of numbers.
fn large(normalizes: bool) -> Trainer<f32> {
    let (rows, width) = (300, 300);
    let layers = [(260, Activation::Gelu), (200, Activation::Relu), (10, Activation::Softmax)];
    let architecture = network_with(ElementType::Float32, width, &layers, |raw| {
        raw.input_dropout = Some(0.1);
        let layer = raw.layers[1].as_mut().unwrap();
        layer.dropout = Some(0.2);
        layer.batch_normalization = normalizes.then_some(RawBatchNormalization { momentum: None, epsilon: None });
    });
    let inputs = matrix(ElementType::Float32, width, &uniform(rows * width, 1));
    let targets = Targets::Classes((0..rows as u32).map(|row| row * 7 % 10).collect());
    let settings = Settings {
        batch_size: 128,
        epochs: 3,
        shuffle: true,
        l2: 1e-4,
        ..settings_on(Activation::Softmax, cross_entropy(), adam(1e-3), rows)
    };
    Trainer::new(input(architecture, settings, training_data(inputs, targets)))
}

#[test]
fn any_number_of_threads_comes_to_the_same_bits() {
    for normalizes in [false, true] {
        let mut alone = large(normalizes);
        let expected = run(&mut alone);
        for threads in [2, 3, 8] {
            let mut trainer = large(normalizes);
            trainer.set_workers(Workers::of(Team::new(threads, || {}).unwrap()));
            assert_eq!(run(&mut trainer), expected, "{threads} threads");
            assert!(trainer.parameters() == alone.parameters(), "{threads} threads");
        }
    }
}

#[test]
fn a_step_by_several_threads_allocates_nothing() {
    let mut trainer = large(true);
    trainer.set_workers(Workers::of(Team::new(3, || {}).unwrap()));
    while trainer.epoch() < 1 {
        trainer.step_batch();
    }
    let counted = allocation_counter::measure(|| {
        while trainer.epoch() < 2 {
            trainer.step_batch();
        }
    });
    assert_eq!(counted.count_total, 0);
}
