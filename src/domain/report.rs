//! What is told of an epoch.

use serde::{Deserialize, Serialize};

/// How well a network did on some rows. A metric that has no meaning for the task is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of rows classified rightly, 0 to 1.
    pub accuracy: Option<f64>,
    /// Rows classified wrongly.
    pub misclassified_rows: Option<u64>,
    /// Mean absolute error, in the targets' own unit.
    pub mean_absolute_error: Option<f64>,
    /// 1 − Σ(y − ŷ)² / Σ(y − ȳ)², the mean over outputs; at most 1.
    pub r2: Option<f64>,
}

/// One epoch, as it is reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Its number, from 1.
    pub epoch: u32,
    /// Mean over the training rows of the losses seen in the forward pass of each batch before its update.
    pub loss: f64,
    /// Mean over the validation rows after the epoch's last update.
    pub validation_loss: Option<f64>,
    /// Of the same forward passes as `loss`.
    pub metrics: Metrics,
    /// Of the validation rows.
    pub validation_metrics: Option<Metrics>,
    /// In force in this epoch.
    pub learning_rate: f64,
    /// Microseconds of training since the job started, pauses between slices included.
    pub elapsed_micros: u64,
    /// Training rows a second in this epoch.
    pub samples_per_second: f64,
}
