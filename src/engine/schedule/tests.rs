use super::*;

/// Made by `tests/fixtures/optimizers.py` with PyTorch: forty epochs of three steps.
#[derive(Deserialize)]
struct Fixture {
    base: f64,
    losses: Vec<f64>,
    schedules: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    schedule: Schedule,
    rates: Vec<[f64; 3]>,
}

fn fixture() -> Fixture {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/optimizers.json"));
    serde_json::from_str(text).unwrap()
}

fn of(kind: ScheduleKind) -> Schedule {
    Schedule { kind, ..Schedule::default() }
}

#[test]
fn every_schedule_is_pytorchs() {
    let Fixture { base, losses, schedules } = fixture();
    for Case { schedule, rates } in schedules {
        let mut state = ScheduleState::default();
        assert_eq!(rates.len(), losses.len());
        for (epoch, (expected, &loss)) in rates.iter().zip(&losses).enumerate() {
            for (step, expected) in expected.iter().enumerate() {
                let rate = learning_rate(&schedule, base, epoch as u32, step as u64, 3, &state);
                let is_close = (rate - expected).abs() <= 1e-12 * expected.abs();
                assert!(is_close, "{schedule:?}, epoch {epoch}, step {step}: {rate} for {expected}");
            }
            state.end_epoch(&schedule, base, epoch as u32, loss);
        }
    }
}

#[test]
fn after_its_end_one_cycle_stays_there() {
    let schedule = of(ScheduleKind::OneCycle { epochs: 2, pct_start: 0.5, div_factor: 10.0, final_div_factor: 100.0 });
    let rate = |epoch, step| learning_rate(&schedule, 1.0, epoch, step, 5, &ScheduleState::default());
    assert_eq!(rate(0, 4), 1.0);
    assert!((rate(1, 4) - 1e-3).abs() < 1e-15);
    assert_eq!(rate(1, 4), rate(2, 0));
    assert_eq!(rate(1, 4), rate(u32::MAX, 4));
}

#[test]
fn a_cycle_of_any_length_stays_between_its_ends() {
    for epochs in 1..5 {
        for steps in 1..7 {
            for pct_start in [1e-9, 0.1, 0.2, 0.25, 0.5, 0.9, 0.999] {
                let schedule =
                    of(ScheduleKind::OneCycle { epochs, pct_start, div_factor: 10.0, final_div_factor: 10.0 });
                let rate = |epoch, step| learning_rate(&schedule, 1.0, epoch, step, steps, &ScheduleState::default());
                for (epoch, step) in (0..epochs).flat_map(|epoch| (0..steps).map(move |step| (epoch, step))) {
                    let rate = rate(epoch, step);
                    assert!((0.01 - 1e-12..=1.0).contains(&rate), "{epochs} {steps} {pct_start}: {rate}");
                }
                assert!((rate(epochs - 1, steps - 1) - 0.01).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn a_period_is_found_at_once_however_far_it_is() {
    assert_eq!(place_in_period(u32::MAX, 1, 1), (0, 1));
    assert_eq!(place_in_period(u32::MAX, 7, 1), (u64::from(u32::MAX) % 7, 7));
    assert_eq!(place_in_period(u32::MAX, 1, 2), (0, 1 << 32));
    assert_eq!(place_in_period(6, 3, 1_000), (3, 3_000));
    assert_eq!(
        [0, 2, 3, 8, 9, 20].map(|epoch| place_in_period(epoch, 3, 2)),
        [(0, 3), (2, 3), (0, 6), (5, 6), (0, 12), (11, 12)]
    );
}

#[test]
fn a_base_below_the_lowest_rate_stays_until_it_is_reduced() {
    assert_eq!(reduced(1e-3, 0.5, 1e-2, 0), 1e-3);
    assert_eq!(reduced(1e-3, 0.5, 1e-2, 1), 1e-2);
}

#[test]
fn a_loss_below_zero_that_stands_still_does_not_count_as_a_fall() {
    let kind = ScheduleKind::ReduceOnPlateau { factor: 0.5, patience: 1, threshold: 1e-2, cooldown: 0, min_lr: 0.0 };
    let schedule = of(kind);
    let mut state = ScheduleState::default();
    for epoch in 0..3 {
        state.end_epoch(&schedule, 1.0, epoch, -5.0);
    }
    assert_eq!(state.reductions, 1);
    assert_eq!(learning_rate(&schedule, 1.0, 3, 0, 1, &state), 0.5);
    state.end_epoch(&schedule, 1.0, 3, -5.1);
    assert_eq!((state.best_loss, state.bad_epochs), (Some(-5.1), 0));
}

#[test]
fn stored_in_any_epoch_it_goes_on_the_same() {
    let Fixture { base, losses, schedules } = fixture();
    for schedule in schedules.iter().map(|case| &case.schedule) {
        let mut state = ScheduleState::default();
        for (epoch, &loss) in losses.iter().enumerate() {
            state.end_epoch(schedule, base, epoch as u32, loss);
            let stored = rmp_serde::to_vec_named(&state).unwrap();
            assert_eq!(rmp_serde::from_slice::<ScheduleState>(&stored).unwrap(), state);
        }
        let is_plateau = matches!(schedule.kind, ScheduleKind::ReduceOnPlateau { .. });
        assert_eq!(state != ScheduleState::default(), is_plateau);
    }
}
