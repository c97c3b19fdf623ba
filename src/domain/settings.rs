//! Every setting of a training as it is in force.

use serde::{Deserialize, Serialize};

use super::loss::Loss;
use super::metric::{Metric, Task};
use super::optimizer::Optimizer;
use super::schedule::Schedule;
use crate::limits;

/// How the losses of a batch become one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reduction {
    /// Divided by rows × outputs; by rows for losses a row. With weights, Σ w·l ÷ Σ w.
    #[default]
    Mean,
    /// Divided by nothing: the textbook's.
    Sum,
}

/// Stops when the monitored metric (validation's, or training's where there is none) has not improved by more than `min_delta`
/// on its best for `patience` epochs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// Epochs to wait.
    pub patience: u32,
    /// What counts as an improvement.
    pub min_delta: f64,
    /// What is monitored.
    #[serde(default = "loss_metric")]
    pub metric: Metric,
    /// Whether the best epoch's weights are the result.
    #[serde(default = "yes")]
    pub restore_best: bool,
}

fn loss_metric() -> Metric {
    Metric::Loss
}

fn yes() -> bool {
    true
}

/// Ends a training once a metric is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopAt {
    /// What is looked at; of the validation rows where there are any.
    pub metric: Metric,
    /// What it must reach.
    pub value: f64,
}

/// Which weights a training starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// The latest version's, when the job starts.
    #[default]
    Latest,
    /// Version 1's.
    Initial,
    /// Where the training that made the latest version ended: its optimizer, its schedule and its epochs, too.
    Continue,
}

/// What a training is validated on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Validation {
    /// Nothing.
    #[default]
    None,
    /// A part of the rows, drawn by the seed, stratified where rows have a class.
    Fraction(f64),
    /// Rows of their own.
    Given {
        /// How many.
        rows: u64,
    },
}

/// How much the rows of each class count in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClassWeights {
    /// By this, a class each.
    Given(Vec<f64>),
    /// rows ÷ (classes · rows of the class), counted in the training rows.
    Balanced,
}

/// Every setting of a training, none left open: a run can be repeated from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What is minimized.
    pub loss: Loss,
    /// How a batch's losses become one number.
    pub reduction: Reduction,
    /// How parameters follow their gradients.
    pub optimizer: Optimizer,
    /// Visits to every training row, at most; with `continue`, from there on.
    pub epochs: u32,
    /// Rows of a mini-batch; as many as the training rows or more mean the full batch.
    pub batch_size: u32,
    /// Whether rows are visited in a new order every epoch.
    pub shuffle: bool,
    /// What the split, the order of rows and what is dropped are drawn from.
    pub seed: u64,
    /// When to stop before the last epoch.
    pub early_stopping: Option<EarlyStopping>,
    /// Epochs from one report to the next; the last is always reported.
    pub report_every: u32,
    /// Which weights it starts from.
    pub start: Start,
    /// What it is validated on.
    pub validation: Validation,
    /// Rows that were sent, the validation fraction among them.
    pub rows: u64,
    /// Whether the job is cancelled when the client that started it goes away.
    pub cancel_on_disconnect: bool,
    /// Whether the seed was drawn by us: then a training that continues another takes that one's.
    #[serde(default)]
    pub is_seed_drawn: bool,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: Schedule,
    /// λ of λ·|W|.
    #[serde(default)]
    pub l1: f64,
    /// λ of λ/2·‖W‖².
    #[serde(default)]
    pub l2: f64,
    /// The largest norm of the whole gradient.
    #[serde(default)]
    pub max_gradient_norm: Option<f64>,
    /// The largest element of the gradient.
    #[serde(default)]
    pub max_gradient_value: Option<f64>,
    /// How much each class counts.
    #[serde(default)]
    pub class_weights: Option<ClassWeights>,
    /// Whether rows have weights of their own.
    #[serde(default)]
    pub has_sample_weights: bool,
    /// Whether targets are missing.
    #[serde(default)]
    pub has_target_mask: bool,
    /// What is told of an epoch beside the loss.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// k of the top-k accuracy.
    #[serde(default)]
    pub top_k: u32,
    /// Whether layers are told of.
    #[serde(default)]
    pub diagnostics: bool,
    /// When it is good enough.
    #[serde(default)]
    pub stop_at: Option<StopAt>,
    /// How long it may take, in microseconds.
    #[serde(default)]
    pub max_duration_micros: Option<u64>,
    /// From one checkpoint to the next, in microseconds.
    #[serde(default = "usual_checkpoint_interval")]
    pub checkpoint_interval_micros: u64,
    /// Layers that stay as they are, beside those that the architecture freezes.
    #[serde(default)]
    pub frozen_layers: Vec<u32>,
    /// What counts as right.
    #[serde(default = "numbers")]
    pub task: Task,
}

fn usual_checkpoint_interval() -> u64 {
    limits::CHECKPOINT_INTERVAL_MICROS
}

fn numbers() -> Task {
    Task::Numbers
}

impl Settings {
    /// Rows that the weights learn from.
    pub fn training_rows(&self) -> u64 {
        match self.validation {
            Validation::Fraction(fraction) => self.rows - validation_rows(self.rows, fraction),
            Validation::None | Validation::Given { .. } => self.rows,
        }
    }

    /// What the best epoch is told by.
    pub fn monitored(&self) -> Metric {
        self.early_stopping.map_or(Metric::Loss, |stopping| stopping.metric)
    }

    /// Whether the best epoch's weights are kept.
    pub fn keeps_best(&self) -> bool {
        self.early_stopping.is_some_and(|stopping| stopping.restore_best)
    }
}

/// How many of `rows` a fraction holds out: the nearest whole number, at least one, leaving at least one.
pub fn validation_rows(rows: u64, fraction: f64) -> u64 {
    ((rows as f64 * fraction).round() as u64).clamp(1, rows.saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_leaves_a_row_on_each_side() {
        assert_eq!(validation_rows(150, 0.2), 30);
        assert_eq!(validation_rows(2, 0.01), 1);
        assert_eq!(validation_rows(2, 0.99), 1);
    }
}
