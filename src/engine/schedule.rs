//! Learning-rate schedules. Each is a closed form of the place in the training, so that it needs no state to go on from
//! there; only what waits for the loss has one. All in float64, with `libm`'s cosine and power.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::domain::{Schedule, ScheduleKind};

/// The smallest fall of a rate that is worth it (PyTorch's `eps`).
const FALL_MIN: f64 = 1e-8;

/// What reducing on a plateau has seen; for all other schedules it stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// The lowest loss so far.
    pub best_loss: Option<f64>,
    /// Epochs in a row without a fall.
    pub bad_epochs: u32,
    /// Epochs in which nothing is counted yet.
    pub cooldown_left: u32,
    /// How often the rate was reduced.
    pub reductions: u32,
}

/// The learning rate of one step. `epoch` is the number of whole epochs done since the training began, continued ones
/// among them; `step_in_epoch` counts from 0.
///
/// The warm-up rises over all its steps, n in number: base·(f + (1 − f)·k ÷ n) in step k.
pub fn learning_rate(
    schedule: &Schedule,
    base: f64,
    epoch: u32,
    step_in_epoch: u64,
    steps_per_epoch: u64,
    state: &ScheduleState,
) -> f64 {
    let Some(epoch) = epoch.checked_sub(schedule.warm_up_epochs) else {
        let step = u64::from(epoch) * steps_per_epoch + step_in_epoch;
        let steps = u64::from(schedule.warm_up_epochs) * steps_per_epoch;
        let factor = schedule.warm_up_start_factor;
        return base * (factor + (1.0 - factor) * (step as f64 / steps as f64));
    };
    match schedule.kind {
        ScheduleKind::Constant => base,
        // base·γ^⌊t ÷ step_size⌋
        ScheduleKind::Step { step_size, gamma } => base * libm::pow(gamma, f64::from(epoch / step_size)),
        // base·γ^t
        ScheduleKind::Exponential { gamma } => base * libm::pow(gamma, f64::from(epoch)),
        ScheduleKind::Cosine { t_0, t_mult, eta_min } => {
            let (t, period) = place_in_period(epoch, t_0, t_mult);
            anneal(base, eta_min, t as f64 / period as f64)
        }
        ScheduleKind::OneCycle { epochs, pct_start, div_factor, final_div_factor } => {
            let steps = u64::from(epochs) * steps_per_epoch;
            let step = u64::from(epoch) * steps_per_epoch + step_in_epoch;
            let first = base / div_factor;
            one_cycle(step, steps, pct_start, [first, base, first / final_div_factor])
        }
        // base ÷ (1 + decay·t)
        ScheduleKind::InverseTime { decay } => base / (1.0 + decay * f64::from(epoch)),
        ScheduleKind::ReduceOnPlateau { factor, min_lr, .. } => reduced(base, factor, min_lr, state.reductions),
    }
}

/// to + (from − to)·(1 + cos(π·x)) ÷ 2: from `from` to `to` while x goes from 0 to 1
fn anneal(from: f64, to: f64, x: f64) -> f64 {
    to + (from - to) / 2.0 * (1.0 + libm::cos(PI * x))
}

/// How far an epoch is into its period, and how long that is. Periods at least double where they grow, so that the loop is
/// over after twenty of them.
fn place_in_period(epoch: u32, t_0: u32, t_mult: u32) -> (u64, u64) {
    let (mut t, mut period) = (u64::from(epoch), u64::from(t_0));
    if t_mult == 1 {
        return (t % period, period);
    }
    while t >= period {
        t -= period;
        period *= u64::from(t_mult);
    }
    (t, period)
}

/// Up in the steps 0 to p·n − 1 of n, down from there to n − 1, and then there. The turn need not fall on a step.
fn one_cycle(step: u64, steps: u64, pct_start: f64, [first, top, last]: [f64; 3]) -> f64 {
    let (step, end) = (step.min(steps - 1) as f64, (steps - 1) as f64);
    let turn = pct_start * steps as f64 - 1.0;
    // Where the rise has no step, the first is at or past the turn.
    if step <= turn && turn > 0.0 {
        return anneal(first, top, step / turn);
    }
    anneal(top, last, (step - turn) / (end - turn))
}

/// max(base·factor^k, min_lr) after k reductions
fn reduced(base: f64, factor: f64, min_lr: f64, reductions: u32) -> f64 {
    // Without a reduction the rate is the base, whatever it is to `min_lr`.
    if reductions == 0 { base } else { (base * libm::pow(factor, f64::from(reductions))).max(min_lr) }
}

impl ScheduleState {
    /// The same place in the schedule, but nothing to compare the next losses with: for losses that are no longer of the same kind.
    pub fn with_best_forgotten(self) -> Self {
        Self { best_loss: None, bad_epochs: 0, ..self }
    }

    /// Takes note of the monitored loss of an epoch; `epoch` is the number that [`learning_rate`] had in it. In the epochs
    /// of the warm-up nothing is counted.
    ///
    /// A loss counts as a fall where it is below best − threshold·|best|. (PyTorch's best·(1 − threshold) is the same for
    /// losses above 0; for those below it lies above the best, so that standing still would count as a fall.)
    pub fn end_epoch(&mut self, schedule: &Schedule, base: f64, epoch: u32, monitored_loss: f64) {
        let ScheduleKind::ReduceOnPlateau { factor, patience, threshold, cooldown, min_lr } = schedule.kind else {
            return;
        };
        if epoch < schedule.warm_up_epochs {
            return;
        }
        if self.best_loss.is_none_or(|best| monitored_loss < best - threshold * best.abs()) {
            self.best_loss = Some(monitored_loss);
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        if self.cooldown_left > 0 {
            self.cooldown_left -= 1;
            self.bad_epochs = 0;
        }
        if self.bad_epochs > patience {
            let rate = |reductions| reduced(base, factor, min_lr, reductions);
            if rate(self.reductions) - rate(self.reductions + 1) > FALL_MIN {
                self.reductions += 1;
            }
            self.cooldown_left = cooldown;
            self.bad_epochs = 0;
        }
    }
}

#[cfg(test)]
mod tests;
