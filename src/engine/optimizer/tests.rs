use super::examples;
use super::*;
use crate::domain::ElementType;

/// Made by `tests/fixtures/optimizers.py` with PyTorch in float64.
#[derive(Deserialize)]
struct Fixture {
    toy: Toy,
    optimizers: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    optimizer: Optimizer,
    steps: Vec<[f64; 3]>,
}

/// A toy loss, whose gradient is a·(w − c) + b·w².
#[derive(Deserialize)]
struct Toy {
    start: [f64; 3],
    a: [f64; 3],
    b: [f64; 3],
    c: [f64; 3],
}

impl Toy {
    fn gradient(&self, w: &[f64]) -> [f64; 3] {
        std::array::from_fn(|i| self.a[i] * (w[i] - self.c[i]) + self.b[i] * w[i] * w[i])
    }
}

fn fixture() -> Fixture {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/optimizers.json"));
    serde_json::from_str(text).unwrap()
}

/// All parameters as one segment.
#[allow(clippy::single_range_in_vec_init)]
fn whole(parameter_count: usize) -> [Range<usize>; 1] {
    [0..parameter_count]
}

/// All but L-BFGS, which does not step.
fn steppers() -> Vec<Optimizer> {
    let is_stepper = |optimizer: &Optimizer| !matches!(optimizer, Optimizer::Lbfgs(_));
    examples::optimizers().into_iter().filter(is_stepper).collect()
}

/// Gradients that differ from step to step and turn now and then; some are 0.
fn gradients<T: Element>(step: u64, count: usize) -> Vec<T> {
    let value = |i: usize| ((step * 7 + i as u64 * 13) % 11) as f64 * 0.3 - 1.2;
    (0..count).map(|i| T::from_f64(if i % 5 == 4 { 0.0 } else { value(i) })).collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn every_optimizer_takes_the_steps_that_pytorch_takes() {
    let Fixture { toy, optimizers } = fixture();
    for Case { optimizer, steps } in optimizers {
        let mut state = OptimizerState::new(&optimizer, 3);
        let mut w = toy.start;
        for (index, expected) in steps.iter().enumerate() {
            let gradient = toy.gradient(&w);
            state.step(&Workers::default(), &optimizer, optimizer.learning_rate(), &whole(3), &mut w, &gradient);
            let is_close = w.iter().zip(expected).all(|(w, e)| (w - e).abs() <= 1e-12 * e.abs().max(1.0));
            assert!(is_close, "{optimizer:?}, step {}: {w:?} for {expected:?}", index + 1);
        }
    }
}

#[test]
fn pytorch_was_asked_about_every_optimizer() {
    let asked: Vec<&str> = fixture().optimizers.iter().map(|case| case.optimizer.name()).collect();
    assert!(steppers().iter().all(|optimizer| asked.contains(&optimizer.name())));
}

#[test]
fn only_the_segments_move_and_those_as_if_they_were_alone() {
    let segments = [1..3, 5..6, 8..12];
    for optimizer in steppers() {
        let start: Vec<f64> = (0..13).map(|i| i as f64 * 0.1 - 0.5).collect();
        let (mut all, mut parts) = (start.clone(), start.clone());
        let mut all_state = OptimizerState::new(&optimizer, 13);
        let mut parts_state = OptimizerState::new(&optimizer, 13);
        for step in 0..5 {
            let gradients = gradients(step, 13);
            all_state.step(&Workers::default(), &optimizer, 0.1, &whole(13), &mut all, &gradients);
            parts_state.step(&Workers::default(), &optimizer, 0.1, &segments, &mut parts, &gradients);
        }
        for i in 0..13 {
            let is_in_segment = segments.iter().any(|segment| segment.contains(&i));
            let expected = if is_in_segment { all[i] } else { start[i] };
            assert_eq!(parts[i].to_bits(), expected.to_bits(), "{optimizer:?}, parameter {i}");
        }
    }
}

#[test]
fn the_learning_rate_is_the_schedules() {
    for optimizer in steppers().iter().filter(|optimizer| !optimizer.is_full_batch_only()) {
        let mut state = OptimizerState::new(optimizer, 5);
        let mut w = vec![0.5; 5];
        state.step(&Workers::default(), optimizer, 0.0, &whole(5), &mut w, &gradients(1, 5));
        assert_eq!(w, [0.5; 5], "{optimizer:?}");
        state.step(&Workers::default(), optimizer, 1e-3, &whole(5), &mut w, &gradients(2, 5));
        assert_ne!(w, [0.5; 5], "{optimizer:?}");
    }
}

#[test]
fn saved_at_any_step_it_goes_on_to_the_same_bits() {
    for optimizer in steppers() {
        for saved_after in 0..6 {
            let (mut w, mut state) = (vec![0.5; 7], OptimizerState::new(&optimizer, 7));
            let go = |state: &mut OptimizerState<f64>, w: &mut Vec<f64>, steps: Range<u64>| {
                steps.for_each(|step| {
                    state.step(&Workers::default(), &optimizer, 0.05, &whole(7), w, &gradients(step, 7))
                });
            };
            go(&mut state, &mut w, 0..saved_after);
            let stored = rmp_serde::to_vec_named(&state.save()).unwrap();
            let saved: SavedOptimizer = rmp_serde::from_slice(&stored).unwrap();
            assert_eq!(saved, state.save());
            let (mut again, mut restored) = (w.clone(), OptimizerState::new(&optimizer, 7));
            restored.restore(saved).unwrap();
            go(&mut state, &mut w, saved_after..8);
            go(&mut restored, &mut again, saved_after..8);
            assert_eq!(bits(&w), bits(&again), "{optimizer:?}");
            assert_eq!(state.save(), restored.save());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    for optimizer in examples::optimizers() {
        let mut state = OptimizerState::<f64>::new(&optimizer, 3);
        match state.as_lbfgs_mut() {
            Some(lbfgs) => {
                let evaluate = &mut |w: &[f64], g: &mut [f64]| {
                    g.copy_from_slice(w);
                    w.iter().map(|w| w * w / 2.0).sum()
                };
                let settings = Lbfgs::<f64>::test_settings(3);
                lbfgs.iterate(&settings, &mut [1.0, 2.0, 3.0], &mut [1.0, 2.0, 3.0], 7.0, evaluate);
            }
            None => state.step(&Workers::default(), &optimizer, 0.1, &whole(3), &mut [1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]),
        }
        let before = state.save();
        let mut wrongs = vec![
            SavedOptimizer { slots: vec![Values::F64(vec![1.0; 2]); before.slots.len()], ..before.clone() },
            SavedOptimizer { slots: vec![Values::F32(vec![1.0; 3]); before.slots.len()], ..before.clone() },
            SavedOptimizer { slots: vec![Values::F64(vec![1.0; 3]); 4 + 1], ..before.clone() },
            SavedOptimizer { scalars: vec![1.0; 3], ..before.clone() },
        ];
        if slot_count(&optimizer) == 0 {
            // Nothing is needed of the slots, so none is wrong.
            wrongs.drain(..2);
        }
        for wrong in wrongs {
            assert!(state.restore(wrong.clone()).is_err(), "{optimizer:?} {wrong:?}");
            assert_eq!(state.save(), before);
        }
        assert_eq!(state.restore(before), Ok(()));
    }
}

#[test]
fn an_optimizer_with_other_numbers_goes_on_with_what_there_is() {
    let sgd =
        |momentum| Optimizer::Sgd { learning_rate: 0.1, momentum, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    let mut plain = OptimizerState::<f32>::new(&sgd(0.0), 2);
    let mut w = [1.0, 1.0];
    plain.step(&Workers::default(), &sgd(0.0), 0.1, &whole(2), &mut w, &[1.0, 1.0]);
    let mut with_momentum = OptimizerState::<f32>::new(&sgd(0.9), 2);
    assert_eq!(with_momentum.restore(plain.save()), Ok(()));
    with_momentum.step(&Workers::default(), &sgd(0.9), 0.1, &whole(2), &mut w, &[1.0, 1.0]);
    assert_eq!(with_momentum.save().slots[0], Values::F32(vec![1.0, 1.0]));
    assert_eq!(plain.restore(with_momentum.save()), Ok(()));
    assert_eq!(plain.save().steps, 2);

    // As states were stored when there were two slots.
    let adam = examples::default_of(&examples::with_options()[2]);
    let mut state = OptimizerState::<f32>::new(&adam, 2);
    let (first, second) = (Values::F32(vec![0.1, 0.2]), Values::F32(vec![0.3, 0.4]));
    let older = SavedOptimizer { slots: vec![first, second], scalars: Vec::new(), steps: 7 };
    assert_eq!(state.restore(older.clone()), Ok(()));
    assert_eq!((&state.save().slots[..2], state.save().steps), (&older.slots[..], 7));
}

#[test]
fn memory_is_what_was_estimated() {
    for optimizer in examples::optimizers() {
        let state = OptimizerState::<f64>::new(&optimizer, 10);
        let held: usize = state.slots.iter().map(|slot| slot.len()).sum();
        let work = state.lbfgs.as_ref().map_or(0, |lbfgs| lbfgs.numbers_held());
        assert_eq!(held + work, 10 * slot_count(&optimizer), "{optimizer:?}");
    }
}

#[test]
fn nothing_stays_denormal_behind_a_dead_unit() {
    let is_denormal = |x: f64| x != 0.0 && x.abs() < f64::from(f32::MIN_POSITIVE);
    for optimizer in steppers() {
        let mut state = OptimizerState::<f32>::new(&optimizer, 2);
        let mut w = [0.0, 0.0];
        state.step(&Workers::default(), &optimizer, 1e-3, &whole(2), &mut w, &[1.0, 1e-22]);
        for step in 0..20_000 {
            // Weight decay would keep the gradient alive.
            w = [0.0, 0.0];
            state.step(&Workers::default(), &optimizer, 1e-3, &whole(2), &mut w, &[0.0, 1e-22]);
            let is_clean = !state.slots.iter().flat_map(|slot| slot.iter()).any(|&x| is_denormal(x.to_f64()));
            assert!(is_clean, "{optimizer:?}, step {step}: {:?}", state.slots);
        }
    }
}

#[test]
fn a_centred_root_is_never_of_a_number_below_zero() {
    let optimizer = Optimizer::RmsProp {
        learning_rate: 1e-3,
        decay: 0.9,
        epsilon: 1e-8,
        momentum: 0.0,
        centered: true,
        weight_decay: 0.0,
    };
    let gradients: Vec<f32> = (1..=300).map(|index| 0.013 * index as f32).collect();
    let mut state = OptimizerState::<f32>::new(&optimizer, 300);
    let mut w = [0.0; 300];
    for _ in 0..1_000 {
        state.step(&Workers::default(), &optimizer, 1e-3, &whole(300), &mut w, &gradients);
        assert!(w.iter().all(|w| w.is_finite()));
    }
    // Rounding did put some of them there.
    let slots = state.save().slots;
    assert!((0..300).any(|index| (slots[0].get(index) as f32) < (slots[1].get(index) as f32).powi(2)));
}

#[test]
fn rprop_stands_still_without_a_gradient_and_forgets_one_that_turned() {
    let optimizer =
        Optimizer::Rprop { learning_rate: 0.1, eta_minus: 0.5, eta_plus: 1.5, step_min: 1e-6, step_max: 50.0 };
    let mut state = OptimizerState::<f64>::new(&optimizer, 1);
    let mut w = [0.0];
    let mut at = |gradient: f64| {
        state.step(&Workers::default(), &optimizer, 0.1, &whole(1), &mut w, &[gradient]);
        w[0]
    };
    // So small that their product is 0: the signs count.
    assert!((at(1e-200) + 0.1).abs() < 1e-15);
    assert!((at(1e-200) + 0.25).abs() < 1e-15);
    assert_eq!(at(0.0), at(0.0));
    let before = at(1.0);
    assert_eq!(at(-1.0), before, "it turned: no step");
    assert!((at(-1.0) - before - 0.075).abs() < 1e-15, "and then half the size, as if it were the first");
}

#[test]
fn a_step_in_float32_is_that_of_float64_rounded() {
    for optimizer in steppers() {
        let (mut narrow, mut wide) = (vec![0.5_f32; 7], vec![0.5_f64; 7]);
        let mut narrow_state = OptimizerState::new(&optimizer, 7);
        let mut wide_state = OptimizerState::new(&optimizer, 7);
        assert_eq!(f32::ELEMENT_TYPE, ElementType::Float32);
        for step in 0..5 {
            narrow_state.step(&Workers::default(), &optimizer, 0.01, &whole(7), &mut narrow, &gradients(step, 7));
            wide_state.step(&Workers::default(), &optimizer, 0.01, &whole(7), &mut wide, &gradients(step, 7));
        }
        let is_close = narrow.iter().zip(&wide).all(|(n, w)| (n.to_f64() - w).abs() < 1e-5);
        assert!(is_close, "{optimizer:?}: {narrow:?} for {wide:?}");
    }
}

#[test]
fn a_step_allocates_nothing() {
    for optimizer in steppers() {
        let mut state = OptimizerState::<f32>::new(&optimizer, 100);
        let (mut w, gradients) = (vec![0.5; 100], gradients(1, 100));
        let info = allocation_counter::measure(|| {
            state.step(&Workers::default(), &optimizer, 0.1, &[0..40, 60..100], &mut w, &gradients);
        });
        assert_eq!(info.count_total, 0, "{optimizer:?}");
    }
}

#[test]
fn defaults_are_those_of_the_contract() {
    use examples::with_defaults;
    let learning_rates: Vec<(&str, f64)> = with_defaults().iter().map(|it| (it.name(), it.learning_rate())).collect();
    let expected = [
        ("sgd", 0.01),
        ("adam", 0.001),
        ("adamw", 0.001),
        ("rmsprop", 0.01),
        ("adagrad", 0.01),
        ("adadelta", 1.0),
        ("nadam", 0.002),
        ("rprop", 0.01),
        ("lbfgs", 1.0),
    ];
    assert_eq!(learning_rates, expected);
    for optimizer in with_defaults() {
        assert_eq!(optimizer.weight_decay(), if optimizer.name() == "adamw" { 0.01 } else { 0.0 });
        assert_eq!(optimizer.is_full_batch_only(), ["rprop", "lbfgs"].contains(&optimizer.name()));
    }
    let numbers = crate::domain::optimizer::Lbfgs {
        learning_rate: 1.0,
        history_size: 10,
        max_evaluations: 25,
        tolerance_gradient: 1e-7,
        tolerance_change: 1e-9,
    };
    assert!(with_defaults().contains(&Optimizer::Lbfgs(numbers)));
}

#[test]
fn a_bias_correction_that_is_not_computed_is_what_it_would_be() {
    for beta in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.999_999, 1.0 - f64::EPSILON] {
        // Steps on both sides of the one from which on it is not.
        let last = (38.0 / (1.0 - beta)).floor() as u64;
        for steps in (1..200).chain(last.saturating_sub(100).max(1)..last.saturating_add(100)) {
            assert_eq!(bias_correction(beta, steps), 1.0 - libm::pow(beta, steps as f64), "{beta} {steps}");
        }
    }
}
