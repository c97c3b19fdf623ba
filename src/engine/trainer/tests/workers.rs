//! A training by several threads: the same bits, and nothing from the allocator.

use super::*;
use crate::domain::{Packed, RawBatchNormalization};
use crate::engine::data::IN_PLACE_MAX;
use crate::engine::optimizer::examples::optimizers;
use crate::engine::product::{Shape, shared_inputs};
use crate::engine::testing::packed_at;
use crate::engine::unchecked::team::Team;

/// Large enough to be cut: products of millions of multiply-adds, those of the first layer of so many that each thread's share is cut, too,
/// by rows and by columns; and runs of tens of thousands of numbers. With a penalty no weights move before all gradients are known.
fn large(normalizes: bool, l2: f64) -> Trainer<f32> {
    let (rows, width) = (300, 500);
    let layers = [(300, Activation::Gelu), (200, Activation::Relu), (10, Activation::Softmax)];
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
        epochs: 4,
        shuffle: true,
        l2,
        ..settings_on(Activation::Softmax, cross_entropy(), adam(1e-3), rows)
    };
    Trainer::new(input(architecture, settings, training_data(inputs, targets)))
}

#[test]
fn any_number_of_threads_comes_to_the_same_bits() {
    for (normalizes, l2) in [(false, 1e-4), (true, 1e-4), (false, 0.0), (true, 0.0)] {
        let mut alone = large(normalizes, l2);
        let expected = run(&mut alone);
        for threads in [2, 3, 8] {
            let mut trainer = large(normalizes, l2);
            trainer.set_workers(Workers::of(Team::new(threads, || {}).unwrap()));
            assert_eq!(run(&mut trainer), expected, "{threads} threads");
            assert!(trainer.parameters() == alone.parameters(), "{threads} threads");
        }
    }
}

#[test]
fn a_step_by_several_threads_allocates_nothing() {
    let shared = || shared(Beside { drops: true, ..Beside::default() });
    for mut trainer in [large(true, 0.0), large(true, 1e-4), shared()] {
        // Alone first, then with others: a thread makes its room for copies when it first comes to a part that needs it, and who comes to
        // which part is chance. What is counted is this thread's.
        for (team, epochs) in [(Workers::default(), 1), (Workers::of(Team::new(3, || {}).unwrap()), 2)] {
            trainer.set_workers(team);
            while trainer.epoch() < epochs {
                trainer.step_batch();
            }
        }
        let counted = allocation_counter::measure(|| {
            while trainer.epoch() < 3 {
                trainer.step_batch();
            }
        });
        assert_eq!(counted.count_total, 0);
    }
}

/// What stands beside the layer in [`shared`].
#[derive(Clone, Copy, Debug, Default)]
struct Beside {
    is_packed: bool,
    /// Packed, where they have to be copied.
    is_shifted: bool,
    /// Not shuffled.
    is_in_order: bool,
    drops: bool,
    normalizes: bool,
    is_frozen: bool,
    /// More rows than a batch has, so the workspace is larger than the products that are shared.
    validates: bool,
}

/// A first layer of which two threads share the terms, over batches of 52, 52 and 22 rows; the last one is not worth sharing.
fn shared<T: Element>(beside: Beside) -> Trainer<T> {
    let Beside { is_packed, is_shifted, is_in_order, drops, normalizes, is_frozen, validates } = beside;
    let (rows, width, units) = (126, 620, 140);
    // In order they are not copied.
    assert!(52 * width * size_of::<T>() <= IN_PLACE_MAX);
    assert!([52, 22].map(|rows| shared_inputs(Shape { rows, inputs: width, units }).is_some()) == [true, false]);
    let layers = [(units, Activation::Tanh), (600, Activation::Relu), (3, Activation::Identity)];
    let architecture = network_with(T::ELEMENT_TYPE, width, &layers, |raw| {
        raw.input_dropout = drops.then_some(0.1);
        let layer = raw.layers[0].as_mut().unwrap();
        layer.batch_normalization = normalizes.then_some(RawBatchNormalization { momentum: None, epsilon: None });
        layer.frozen = is_frozen;
    });
    let inputs = |rows: usize, seed: u64| {
        let values = matrix(T::ELEMENT_TYPE, width, &uniform(rows * width, seed)).into_values();
        let values = match (is_packed, is_shifted) {
            (_, true) => packed_at(&values, 1),
            (true, false) => Values::Packed(Packed::from_values(values)),
            (false, false) => values,
        };
        Matrix::from_values(rows, width, values)
    };
    let targets = |rows: usize| Targets::Values(matrix(T::ELEMENT_TYPE, 3, &uniform(rows * 3, 2)));
    let settings = settings_on(Activation::Identity, Loss::SquaredError, adam(1e-3), rows);
    let validation = if validates { Validation::Given { rows: 100 } } else { Validation::None };
    let settings = Settings { batch_size: 52, epochs: 4, shuffle: !is_in_order, validation, ..settings };
    let mut data = training_data(inputs(rows, 1), targets(rows));
    data.validation =
        validates.then(|| Rows { inputs: inputs(100, 3), targets: targets(100), weights: None, mask: None });
    Trainer::new(input(architecture, settings, data))
}

fn check_shared<T: Element>() {
    let plain = Beside::default();
    for beside in [
        plain,
        Beside { is_packed: true, ..plain },
        Beside { is_in_order: true, ..plain },
        Beside { drops: true, ..plain },
        Beside { normalizes: true, ..plain },
        Beside { is_frozen: true, ..plain },
        Beside { validates: true, ..plain },
    ] {
        let mut alone = shared::<T>(beside);
        let expected = run(&mut alone);
        for threads in [2, 4] {
            let mut trainer = shared::<T>(beside);
            trainer.set_workers(Workers::of(Team::new(threads, || {}).unwrap()));
            assert_eq!(run(&mut trainer), expected, "{threads} threads, {beside:?}");
            assert!(trainer.parameters() == alone.parameters(), "{threads} threads, {beside:?}");
        }
    }
}

#[test]
fn threads_that_share_the_terms_of_a_sum_come_to_the_same_bits() {
    check_shared::<f32>();
    check_shared::<f64>();
}

fn check_places<T: Element>() {
    let lying = Beside { is_in_order: true, ..Beside::default() };
    for lying in [lying, Beside { drops: true, ..lying }, Beside { normalizes: true, validates: true, ..lying }] {
        for threads in [1, 2] {
            let train = |beside| {
                let mut trainer = shared::<T>(beside);
                trainer.set_workers(Workers::of(Team::new(threads, || {}).unwrap()));
                (run(&mut trainer), trainer.parameters().to_vec())
            };
            let copied = train(Beside { is_shifted: true, ..lying });
            assert!(train(lying) == copied, "{threads} threads, {lying:?}");
            assert!(train(Beside { is_packed: true, ..lying }) == copied, "{threads} threads, packed, {lying:?}");
        }
    }
}

#[test]
fn rows_that_are_read_where_they_lie_come_to_the_bits_of_copies() {
    check_places::<f32>();
    check_places::<f64>();
}

/// Layers of which some are large enough to move at once, in batches of 20, 20 and 10 rows; `frozen` ones do not move.
fn moving<T: Element>(optimizer: Optimizer, frozen: Vec<u32>, diagnostics: bool) -> Trainer<T> {
    let layers = [(260, Activation::Tanh), (260, Activation::Relu), (3, Activation::Identity)];
    let architecture = network(T::ELEMENT_TYPE, 255, &layers);
    let inputs = matrix(T::ELEMENT_TYPE, 255, &uniform(50 * 255, 1));
    let targets = Targets::Values(matrix(T::ELEMENT_TYPE, 3, &uniform(50 * 3, 2)));
    let settings = settings_on(Activation::Identity, Loss::SquaredError, optimizer, 50);
    let settings =
        Settings { batch_size: 20, epochs: 3, shuffle: true, frozen_layers: frozen, diagnostics, ..settings };
    Trainer::new(input(architecture, settings, training_data(inputs, targets)))
}

/// Diagnostics want every gradient as a whole, so with them no weights move before the others.
fn check_moving<T: Element>(optimizer: &Optimizer, frozen: &[u32]) {
    let trained = |diagnostics: bool| {
        let mut trainer = moving::<T>(*optimizer, frozen.to_vec(), diagnostics);
        run(&mut trainer);
        let state = trainer.optimizer.save();
        (trainer.parameters().to_vec(), state)
    };
    assert!(trained(false) == trained(true), "{optimizer:?}, {frozen:?} frozen");
}

#[test]
fn weights_that_move_while_gradients_are_computed_come_to_the_same_bits() {
    for optimizer in optimizers() {
        check_moving::<f32>(&optimizer, &[]);
        check_moving::<f64>(&optimizer, &[1]);
    }
    check_moving::<f32>(&adam(1e-3), &[0]);
    check_moving::<f32>(&adam(1e-3), &[2]);
}

#[test]
fn a_loss_that_is_not_finite_moves_no_weights() {
    // Its second step starts from weights that overflow.
    let trained = |diagnostics: bool| {
        let mut trainer = moving::<f32>(sgd(1e30, 0.0), Vec::new(), diagnostics);
        assert_eq!(reason(&run(&mut trainer)), StopReason::Diverged);
        trainer.parameters().to_vec()
    };
    let bits = |parameters: Vec<f32>| parameters.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert!(bits(trained(false)) == bits(trained(true)));
}

/// Products of 2²⁸ multiply-adds and more, over batches of 512 and 500 rows: their operands are copied before by a team, both of xᵀ·δ.
fn wide<T: Element>() -> Trainer<T> {
    let (rows, width) = (1_012, 920);
    let layers = [(900, Activation::Relu), (890, Activation::Tanh), (3, Activation::Identity)];
    let architecture = network(T::ELEMENT_TYPE, width, &layers);
    let inputs = matrix(T::ELEMENT_TYPE, width, &uniform(rows * width, 1));
    let targets = Targets::Values(matrix(T::ELEMENT_TYPE, 3, &uniform(rows * 3, 2)));
    let settings = settings_on(Activation::Identity, Loss::SquaredError, adam(1e-3), rows);
    let settings = Settings { batch_size: 512, epochs: 2, shuffle: true, ..settings };
    Trainer::new(input(architecture, settings, training_data(inputs, targets)))
}

fn check_wide<T: Element>() {
    let mut alone = wide::<T>();
    let expected = run(&mut alone);
    for threads in [1, 2, 3] {
        let mut trainer = wide::<T>();
        trainer.set_workers(Workers::of(Team::new(threads, || {}).unwrap()));
        // The first step makes room, for the shorter batch after it, too.
        trainer.step_batch();
        let mut ends = Vec::new();
        let counted = allocation_counter::measure(|| {
            if let Step::Epoch(end) = trainer.step_batch() {
                ends.push(told(&trainer, end));
            }
        });
        assert!(ends.len() == 1 && counted.count_total <= 1, "{counted:?}, one of them for the test's list");
        ends.extend(run(&mut trainer));
        assert_eq!(ends, expected, "{threads} threads");
        assert!(trainer.parameters() == alone.parameters(), "{threads} threads");
    }
}

#[test]
fn operands_that_are_copied_before_change_no_bit_and_take_nothing_from_the_allocator() {
    check_wide::<f32>();
    check_wide::<f64>();
}

/// So many that threads copy them in pieces, and ask piece by piece whether they are finite.
#[test]
fn the_last_whole_epoch_is_kept_by_several_threads_as_it_was() {
    let mut trainer = large(false, 0.0);
    trainer.set_workers(Workers::of(Team::new(2, || {}).unwrap()));
    while trainer.epoch() < 1 {
        trainer.step_batch();
    }
    let after_epoch = trainer.parameters().to_vec();
    trainer.step_batch();
    assert!(trainer.parameters() != after_epoch);
    assert!(trainer.last_whole_epoch().unwrap().0 == after_epoch);

    // The last of the pieces.
    *trainer.parameters.last_mut().unwrap() = f32::MAX;
    assert!(trainer.parameters_are_finite());
    *trainer.parameters.last_mut().unwrap() = f32::INFINITY;
    assert!(!trainer.parameters_are_finite());
}
