//! Learning-rate schedules: their numbers, with ranges and defaults.

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults, RealRange};
use super::optimizer::Check;
use crate::limits;

/// How the learning rate changes in the course of a training, every number checked. Formulas stand in the engine.
pub type Schedule = ScheduleOf<f64, u32>;

/// What follows the warm-up, every number checked.
pub type ScheduleKind = ScheduleKindOf<f64, u32>;

/// A schedule as a request brings it: numbers not checked yet, `None` where the default is meant.
pub type RawSchedule = ScheduleOf<Option<f64>, Option<i64>>;

/// What follows the warm-up, as a request brings it.
pub type RawScheduleKind = ScheduleKindOf<Option<f64>, Option<i64>>;

/// A schedule. One definition for what a request brings and for what was checked, as for the optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleOf<Real, Whole> {
    /// Epochs in which the rate rises step by step; the schedule begins after them. Default 0.
    pub warm_up_epochs: Whole,
    /// The share of the rate that the first step gets. Default 1/3.
    pub warm_up_start_factor: Real,
    /// What follows.
    pub kind: ScheduleKindOf<Real, Whole>,
}

/// The schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum ScheduleKindOf<Real, Whole> {
    /// The rate stays as it is.
    #[default]
    Constant,
    /// Times γ every few epochs.
    Step {
        /// The epochs. Required.
        step_size: Whole,
        /// γ. Default 0.1.
        gamma: Real,
    },
    /// Times γ every epoch.
    Exponential {
        /// γ. Required.
        gamma: Real,
    },
    /// Down along half a cosine, again and again.
    Cosine {
        /// Epochs of the first period. Default: those of the training after the warm-up.
        t_0: Whole,
        /// Each period has this many times the epochs of the one before. Default 1.
        t_mult: Whole,
        /// The rate at the end of a period. Default 0.
        eta_min: Real,
    },
    /// Up and down once, step by step.
    OneCycle {
        /// Epochs of the cycle. Default: those of the training after the warm-up.
        epochs: Whole,
        /// The share of the steps in which the rate rises. Default 0.3.
        pct_start: Real,
        /// The learning rate over that of the first step. Default 25.
        div_factor: Real,
        /// The rate of the first step over that of the last. Default 10000.
        final_div_factor: Real,
    },
    /// Down like 1/t.
    InverseTime {
        /// How fast. Required.
        decay: Real,
    },
    /// Down once the monitored loss has not fallen for a while.
    ReduceOnPlateau {
        /// What the rate is multiplied by. Default 0.1.
        factor: Real,
        /// Epochs without a fall that are waited through. Default 10.
        patience: Whole,
        /// The share of the best loss that a fall must have. Default 1e-4.
        threshold: Real,
        /// Epochs after a change in which nothing is counted. Default 0.
        cooldown: Whole,
        /// The smallest rate. Default 0.
        min_lr: Real,
    },
}

const START_FACTOR_DEFAULT: f64 = 1.0 / 3.0;

/// Constant, without a warm-up.
impl Default for Schedule {
    fn default() -> Self {
        Self { warm_up_epochs: 0, warm_up_start_factor: START_FACTOR_DEFAULT, kind: ScheduleKind::Constant }
    }
}

/// Everything left to its default.
impl Default for RawSchedule {
    fn default() -> Self {
        Self { warm_up_epochs: None, warm_up_start_factor: None, kind: RawScheduleKind::Constant }
    }
}

impl<Real, Whole> ScheduleKindOf<Real, Whole> {
    /// The name of its field in a request.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Step { .. } => "step",
            Self::Exponential { .. } => "exponential",
            Self::Cosine { .. } => "cosine",
            Self::OneCycle { .. } => "one_cycle",
            Self::InverseTime { .. } => "inverse_time",
            Self::ReduceOnPlateau { .. } => "reduce_on_plateau",
        }
    }
}

impl Schedule {
    /// Whether the rate never changes.
    pub fn is_constant(&self) -> bool {
        self.warm_up_epochs == 0 && self.kind == ScheduleKind::Constant
    }
}

impl RawSchedule {
    /// Checks every number against the training's epochs and learning rate, and fills in the defaults; `at` is the
    /// schedule's place in the request.
    pub fn check(self, epochs: u32, learning_rate: f64, at: At<'_>, faults: &mut Faults) -> Option<Schedule> {
        let unit = RealRange::closed(0.0, 1.0);
        let mut check = Check::new(at, faults);
        let warm_up_epochs = check.whole("warm_up_epochs", self.warm_up_epochs, 0, 0..=limits::EPOCHS_MAX);
        let start = check.real("warm_up_start_factor", self.warm_up_start_factor, START_FACTOR_DEFAULT, unit);
        let warm_up = check.of_sound((warm_up_epochs, start));
        let mut check = Check::new(at.field(self.kind.name()), faults);
        let epochs_after = epochs.saturating_sub(warm_up_epochs).max(1);
        let kind = self.kind.fill(epochs_after, learning_rate, &mut check);
        let kind = check.of_sound(kind);
        let (warm_up_epochs, warm_up_start_factor) = warm_up?;
        Some(Schedule { warm_up_epochs, warm_up_start_factor, kind: kind? })
    }
}

impl RawScheduleKind {
    fn fill(self, epochs_after: u32, learning_rate: f64, check: &mut Check<'_>) -> ScheduleKind {
        let gamma_range = RealRange::above(0.0, 1.0);
        let rate_range = RealRange::closed(0.0, learning_rate);
        let at_least_one = RealRange::closed(1.0, f64::MAX);
        let epochs_range = 1..=limits::EPOCHS_MAX;
        match self {
            Self::Constant => ScheduleKind::Constant,
            Self::Step { step_size, gamma } => ScheduleKind::Step {
                // 0 is what an unset number is on the wire, and is told as what it is: out of range.
                step_size: check.whole("step_size", step_size, 0, epochs_range),
                gamma: check.real("gamma", gamma, 0.1, gamma_range),
            },
            Self::Exponential { gamma } => {
                ScheduleKind::Exponential { gamma: check.required("gamma", gamma, gamma_range) }
            }
            Self::Cosine { t_0, t_mult, eta_min } => ScheduleKind::Cosine {
                t_0: check.whole("t_0", t_0, epochs_after, epochs_range),
                t_mult: check.whole("t_mult", t_mult, 1, 1..=1_000),
                eta_min: check.real("eta_min", eta_min, 0.0, rate_range),
            },
            Self::OneCycle { epochs, pct_start, div_factor, final_div_factor } => ScheduleKind::OneCycle {
                epochs: check.whole("epochs", epochs, epochs_after, epochs_range),
                pct_start: check.real("pct_start", pct_start, 0.3, RealRange::open(0.0, 1.0)),
                div_factor: check.real("div_factor", div_factor, 25.0, at_least_one),
                final_div_factor: check.real("final_div_factor", final_div_factor, 1e4, at_least_one),
            },
            Self::InverseTime { decay } => {
                let range = RealRange::above(0.0, f64::MAX);
                ScheduleKind::InverseTime { decay: check.required("decay", decay, range) }
            }
            Self::ReduceOnPlateau { factor, patience, threshold, cooldown, min_lr } => {
                let waits = 0..=limits::PATIENCE_MAX;
                ScheduleKind::ReduceOnPlateau {
                    factor: check.real("factor", factor, 0.1, RealRange::open(0.0, 1.0)),
                    patience: check.whole("patience", patience, limits::PATIENCE_DEFAULT, waits.clone()),
                    threshold: check.real("threshold", threshold, 1e-4, RealRange::below(0.0, 1.0)),
                    cooldown: check.whole("cooldown", cooldown, 0, waits),
                    min_lr: check.real("min_lr", min_lr, 0.0, rate_range),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: At<'static> = At::ROOT;

    fn check(kind: RawScheduleKind) -> Result<Schedule, Vec<String>> {
        let mut faults = Faults::new();
        let raw = RawSchedule { warm_up_epochs: Some(5), warm_up_start_factor: None, kind };
        let checked = raw.check(20, 0.1, AT.field("schedule"), &mut faults);
        let told = |faults: Faults| faults.as_slice().iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
        faults.finish(checked).map_err(told)
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let mut faults = Faults::new();
        let schedule = RawSchedule::default().check(20, 0.1, AT, &mut faults);
        assert_eq!(schedule, Some(Schedule::default()));
        assert!(Schedule::default().is_constant());

        let cosine = check(RawScheduleKind::Cosine { t_0: None, t_mult: None, eta_min: None }).unwrap();
        assert_eq!(cosine.kind, ScheduleKind::Cosine { t_0: 15, t_mult: 1, eta_min: 0.0 });
        assert!(!cosine.is_constant());
        let none =
            RawScheduleKind::OneCycle { epochs: None, pct_start: None, div_factor: None, final_div_factor: None };
        let filled = ScheduleKind::OneCycle { epochs: 15, pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 };
        assert_eq!(check(none).unwrap().kind, filled);
        let step = check(RawScheduleKind::Step { step_size: Some(3), gamma: None }).unwrap();
        assert_eq!(step.kind, ScheduleKind::Step { step_size: 3, gamma: 0.1 });
        let none = RawScheduleKind::ReduceOnPlateau {
            factor: None,
            patience: None,
            threshold: None,
            cooldown: None,
            min_lr: None,
        };
        let filled =
            ScheduleKind::ReduceOnPlateau { factor: 0.1, patience: 10, threshold: 1e-4, cooldown: 0, min_lr: 0.0 };
        assert_eq!(check(none).unwrap().kind, filled);
    }

    #[test]
    fn a_training_that_is_all_warm_up_leaves_one_epoch_to_the_cycle() {
        let kind = RawScheduleKind::Cosine { t_0: None, t_mult: None, eta_min: None };
        let raw = RawSchedule { warm_up_epochs: Some(30), warm_up_start_factor: Some(0.0), kind };
        let checked = raw.check(20, 0.1, AT, &mut Faults::new()).unwrap();
        assert_eq!(checked.kind, ScheduleKind::Cosine { t_0: 1, t_mult: 1, eta_min: 0.0 });
    }

    #[test]
    fn what_is_required_is_asked_for() {
        let faults = check(RawScheduleKind::Exponential { gamma: None }).unwrap_err();
        assert_eq!(faults, ["schedule.exponential.gamma: is required: a finite number, more than 0 and at most 1"]);
        let faults = check(RawScheduleKind::InverseTime { decay: None }).unwrap_err();
        assert_eq!(faults, ["schedule.inverse_time.decay: is required: a finite number, more than 0"]);
        let faults = check(RawScheduleKind::Step { step_size: Some(0), gamma: Some(0.0) }).unwrap_err();
        assert_eq!(
            faults,
            [
                "schedule.step.step_size: must be between 1 and 20000000, but is 0",
                "schedule.step.gamma: must be a finite number, more than 0 and at most 1, but is 0"
            ]
        );
    }

    #[test]
    fn every_number_out_of_its_range_is_told_with_its_path() {
        let paths = |kind| {
            let faults = check(kind).unwrap_err();
            faults.iter().map(|fault| fault.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let kind = RawScheduleKind::Cosine { t_0: Some(0), t_mult: Some(1_001), eta_min: Some(0.11) };
        assert_eq!(paths(kind), ["schedule.cosine.t_0", "schedule.cosine.t_mult", "schedule.cosine.eta_min"]);
        let kind = RawScheduleKind::OneCycle {
            epochs: Some(-1),
            pct_start: Some(1.0),
            div_factor: Some(0.9),
            final_div_factor: Some(f64::NAN),
        };
        let expected = ["epochs", "pct_start", "div_factor", "final_div_factor"];
        assert_eq!(paths(kind), expected.map(|name| format!("schedule.one_cycle.{name}")));
        let kind = RawScheduleKind::ReduceOnPlateau {
            factor: Some(1.0),
            patience: Some(-1),
            threshold: Some(1.0),
            cooldown: Some(1 << 40),
            min_lr: Some(-1e-9),
        };
        let expected = ["factor", "patience", "threshold", "cooldown", "min_lr"];
        assert_eq!(paths(kind), expected.map(|name| format!("schedule.reduce_on_plateau.{name}")));

        let mut faults = Faults::new();
        let raw = RawSchedule {
            warm_up_epochs: Some(-1),
            warm_up_start_factor: Some(1.5),
            kind: RawScheduleKind::Exponential { gamma: Some(1.1) },
        };
        assert_eq!(raw.check(20, 0.1, AT.field("schedule"), &mut faults), None);
        let paths: Vec<_> = faults.as_slice().iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["schedule.warm_up_epochs", "schedule.warm_up_start_factor", "schedule.exponential.gamma"]);
    }
}
