//! What a training needs to go on after it was stopped at any batch.

use serde::{Deserialize, Serialize};

use super::early_stopping::Patience;
use super::metrics::MetricSums;
use super::optimizer::SavedOptimizer;
use super::schedule::ScheduleState;
use crate::domain::{EpochReport, StopReason, Values};

/// Why a training has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// One of EpochsDone, Converged, EarlyStopped, TargetReached and Diverged.
    pub reason: StopReason,
    /// The same in words, naming the epoch.
    pub message: String,
}

/// The end of a training's last epoch, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastEpoch {
    /// What is told of it. The engine has no clock: timings are 0 until [`stamp`](super::Trainer::stamp).
    pub report: EpochReport,
    /// See [`EpochEnd::is_reported`].
    pub is_reported: bool,
    /// Why it is the last; always there.
    pub stop: Option<Stop>,
}

/// The end of an epoch. What is told of it stays with the training, since to move it takes a tenth of the smallest network's step: see
/// [`report`](super::Trainer::report).
#[derive(Clone, Debug, PartialEq)]
pub struct EpochEnd {
    /// Whether it is one of every `report_every`, or the last. Never for one in which the training diverged, which is no
    /// whole epoch: its numbers are not finite.
    pub is_reported: bool,
    /// Why it is the last, if it is.
    pub stop: Option<Stop>,
}

/// What one call of [`step_batch`](super::Trainer::step_batch) came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// One batch of an epoch that goes on.
    Batch,
    /// The last batch of an epoch; or the end of a training in the midst of one, where it diverged.
    Epoch(EpochEnd),
}

/// A trainer's state beside its input: with both, a training goes on from any batch as if it had never stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Whole epochs done.
    pub epoch: u32,
    /// The epoch after which it ends.
    pub last_epoch: u32,
    /// The next batch of the epoch that is under way, from 0.
    pub next_batch: u32,
    /// The parameters as they are.
    pub parameters: Values,
    /// The optimizer's name, and what it remembers.
    pub method: String,
    /// See [`method`](Self::method).
    pub optimizer: SavedOptimizer,
    /// What the schedule remembers.
    pub schedule: ScheduleState,
    /// The learning rate of the last step.
    pub rate: f64,
    /// Whether the optimizer found nothing to improve.
    pub has_converged: bool,
    /// Whether a batch of the epoch so far had a gradient.
    pub has_moved: bool,
    /// Σ of the losses of the epoch's rows so far.
    pub loss_sum: f64,
    /// Metrics of the epoch's rows so far.
    pub metric_sums: MetricSums,
    /// The report of the last whole epoch.
    pub last_report: Option<EpochReport>,
    /// The parameters after it, where the state is in the midst of the next one.
    pub last_parameters: Option<Values>,
    /// The report of the epoch with the best monitored metric.
    pub best_report: Option<EpochReport>,
    /// The parameters after it, where early stopping keeps them.
    pub best_parameters: Option<Values>,
    /// Early stopping.
    pub patience: Patience,
    /// The end, where the training has ended.
    pub end: Option<LastEpoch>,
    /// Which units had a derivative in the epoch so far, where layers are told of.
    pub is_alive: Option<Vec<bool>>,
}

/// What a training comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerEnd {
    /// Its state.
    pub state: TrainerState,
    /// Which of the state's [vectors](TrainerState::vectors_mut) it has to show: see
    /// [`result_parameters`](super::Trainer::result_parameters).
    pub result: usize,
    /// The report of their epoch; before the first epoch's end an empty one.
    pub report: EpochReport,
}

impl TrainerState {
    /// Every vector that is as long as the parameters, in a fixed order: what a store keeps apart from the rest.
    pub fn vectors_mut(&mut self) -> Vec<&mut Values> {
        let kept = self.last_parameters.iter_mut().chain(&mut self.best_parameters);
        std::iter::once(&mut self.parameters).chain(&mut self.optimizer.slots).chain(kept).collect()
    }
}

impl LastEpoch {
    /// As the step that ended it tells it.
    pub fn end(&self) -> EpochEnd {
        EpochEnd { is_reported: self.is_reported, stop: self.stop.clone() }
    }
}

/// Why a state cannot be restored: it belongs to another training.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the state of another training: {0}")]
pub struct StateError(pub &'static str);
