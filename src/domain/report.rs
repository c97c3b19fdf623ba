//! What is told of an epoch.
//!
//! Histories hold reports as MessagePack arrays without names: the order of fields is part of that format, and a new
//! field goes to the end of its struct, with `#[serde(default)]`.

use serde::{Deserialize, Serialize};

use super::metric::Metric;

/// How well a network did on some rows. A metric that was not asked for, or has no meaning for the task, is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of rows classified rightly, 0 to 1.
    pub accuracy: Option<f64>,
    /// Rows classified wrongly.
    pub misclassified_rows: Option<u64>,
    /// Mean absolute error, in the targets' own unit, the mean over outputs.
    pub mean_absolute_error: Option<f64>,
    /// 1 − Σ(y − ŷ)² / Σ(y − ȳ)², the mean over outputs; at most 1.
    pub r2: Option<f64>,
    /// Share of rows whose class is among the highest outputs, 0 to 1.
    #[serde(default)]
    pub top_k_accuracy: Option<f64>,
    /// Of class 1, 0 to 1.
    #[serde(default)]
    pub precision: Option<f64>,
    /// Of class 1, 0 to 1.
    #[serde(default)]
    pub recall: Option<f64>,
    /// Of class 1, 0 to 1.
    #[serde(default)]
    pub f1: Option<f64>,
    /// Mean over classes, 0 to 1.
    #[serde(default)]
    pub precision_macro: Option<f64>,
    /// Mean over classes, 0 to 1.
    #[serde(default)]
    pub recall_macro: Option<f64>,
    /// Mean over classes, 0 to 1.
    #[serde(default)]
    pub f1_macro: Option<f64>,
    /// Mean weighted by rows, 0 to 1.
    #[serde(default)]
    pub precision_weighted: Option<f64>,
    /// Mean weighted by rows, 0 to 1.
    #[serde(default)]
    pub recall_weighted: Option<f64>,
    /// Mean weighted by rows, 0 to 1.
    #[serde(default)]
    pub f1_weighted: Option<f64>,
    /// Mean of −ln p of what is right, in nats.
    #[serde(default)]
    pub log_loss: Option<f64>,
    /// Area under the receiver operating characteristic, 0 to 1; 0.5 is chance.
    #[serde(default)]
    pub roc_auc: Option<f64>,
    /// Root of the mean squared error, in the targets' own unit, the mean over outputs.
    #[serde(default)]
    pub root_mean_squared_error: Option<f64>,
}

impl Metrics {
    /// How many there are.
    pub const COUNT: usize = 17;

    /// Gives those that were told, by their places in the order in which they are stored; numbers by their bits. One after another: an
    /// array of all of them costs more than what is done with it.
    #[inline]
    pub fn for_each_word(&self, mut each: impl FnMut(usize, u64)) {
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let mut give = |place: usize, word: Option<u64>| {
            if let Some(word) = word {
                each(place, word);
            }
        };
        give(0, bits(self.accuracy));
        give(1, self.misclassified_rows);
        give(2, bits(self.mean_absolute_error));
        give(3, bits(self.r2));
        give(4, bits(self.top_k_accuracy));
        give(5, bits(self.precision));
        give(6, bits(self.recall));
        give(7, bits(self.f1));
        give(8, bits(self.precision_macro));
        give(9, bits(self.recall_macro));
        give(10, bits(self.f1_macro));
        give(11, bits(self.precision_weighted));
        give(12, bits(self.recall_weighted));
        give(13, bits(self.f1_weighted));
        give(14, bits(self.log_loss));
        give(15, bits(self.roc_auc));
        give(16, bits(self.root_mean_squared_error));
    }

    /// Those that have a word, by their places in [`Metrics::for_each_word`]. Places that none has are left out.
    pub fn from_words(words: impl IntoIterator<Item = (usize, u64)>) -> Self {
        let mut all = [None; Self::COUNT];
        for (place, word) in words {
            if let Some(slot) = all.get_mut(place) {
                *slot = Some(word);
            }
        }
        let number = |place: usize| all[place].map(f64::from_bits);
        Self {
            accuracy: number(0),
            misclassified_rows: all[1],
            mean_absolute_error: number(2),
            r2: number(3),
            top_k_accuracy: number(4),
            precision: number(5),
            recall: number(6),
            f1: number(7),
            precision_macro: number(8),
            recall_macro: number(9),
            f1_macro: number(10),
            precision_weighted: number(11),
            recall_weighted: number(12),
            f1_weighted: number(13),
            log_loss: number(14),
            roc_auc: number(15),
            root_mean_squared_error: number(16),
        }
    }

    /// One of them. The loss is none of them.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Loss => None,
            Metric::Accuracy => self.accuracy,
            Metric::MisclassifiedRows => self.misclassified_rows.map(|rows| rows as f64),
            Metric::TopKAccuracy => self.top_k_accuracy,
            Metric::Precision => self.precision,
            Metric::Recall => self.recall,
            Metric::F1 => self.f1,
            Metric::PrecisionMacro => self.precision_macro,
            Metric::RecallMacro => self.recall_macro,
            Metric::F1Macro => self.f1_macro,
            Metric::PrecisionWeighted => self.precision_weighted,
            Metric::RecallWeighted => self.recall_weighted,
            Metric::F1Weighted => self.f1_weighted,
            Metric::LogLoss => self.log_loss,
            Metric::RocAuc => self.roc_auc,
            Metric::MeanAbsoluteError => self.mean_absolute_error,
            Metric::RootMeanSquaredError => self.root_mean_squared_error,
            Metric::R2 => self.r2,
        }
    }
}

/// What a layer went through in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerDiagnostics {
    /// Norm of the gradient of its parameters in the epoch's last batch, penalties among it, before clipping.
    pub gradient_norm: f64,
    /// Norm of W after the epoch.
    pub weight_norm: f64,
    /// Norm of the change of its parameters in the epoch's last step over their norm before; 0 where both are 0.
    pub update_ratio: f64,
    /// Share of its units whose derivative was 0 in every row of the epoch, 0 to 1.
    pub dead_units: f64,
}

/// One epoch, as it is reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// In force in this epoch; where it moves every step, in the epoch's last one.
    pub learning_rate: f64,
    /// Microseconds of training since the job started, pauses between slices included.
    pub elapsed_micros: u64,
    /// Training rows a second in this epoch.
    pub samples_per_second: f64,
    /// A layer each, first to last; empty where diagnostics were not asked for.
    #[serde(default)]
    pub diagnostics: Vec<LayerDiagnostics>,
}

impl EpochReport {
    /// What early stopping, the best epoch and `stop_at` go by: a metric of the validation rows, or of the training
    /// rows where there are no others. `None` where it was not told.
    pub fn monitored(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Loss => Some(self.validation_loss.unwrap_or(self.loss)),
            metric => self.validation_metrics.as_ref().unwrap_or(&self.metrics).get(metric),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validation_rows_are_monitored_where_there_are_any() {
        let metrics = |accuracy| Metrics { accuracy: Some(accuracy), ..Metrics::default() };
        let mut report = EpochReport { loss: 0.5, metrics: metrics(0.75), ..EpochReport::default() };
        let monitored = |report: &EpochReport| [Metric::Loss, Metric::Accuracy].map(|it| report.monitored(it));
        assert_eq!(monitored(&report), [Some(0.5), Some(0.75)]);
        report.validation_loss = Some(0.25);
        report.validation_metrics = Some(metrics(1.0));
        assert_eq!(monitored(&report), [Some(0.25), Some(1.0)]);
        report.validation_metrics = Some(Metrics::default());
        assert_eq!(report.monitored(Metric::Accuracy), None);
    }

    /// What histories held before there were more metrics than four, and diagnostics.
    #[test]
    fn a_report_without_the_newer_fields_is_still_read() {
        type OldMetrics = (Option<f64>, Option<u64>, Option<f64>, Option<f64>);
        type OldReport = (u32, f64, Option<f64>, OldMetrics, Option<OldMetrics>, f64, u64, f64);
        let metrics = (Some(0.5), Some(3), None, Some(0.25));
        let old: OldReport = (7, 0.5, Some(0.75), metrics, Some(metrics), 0.1, 12, 34.0);
        let report: EpochReport = rmp_serde::from_slice(&rmp_serde::to_vec(&old).unwrap()).unwrap();
        let metrics =
            Metrics { accuracy: Some(0.5), misclassified_rows: Some(3), r2: Some(0.25), ..Metrics::default() };
        let expected = EpochReport {
            epoch: 7,
            loss: 0.5,
            validation_loss: Some(0.75),
            metrics,
            validation_metrics: Some(metrics),
            learning_rate: 0.1,
            elapsed_micros: 12,
            samples_per_second: 34.0,
            diagnostics: Vec::new(),
        };
        assert_eq!(report, expected);
        assert_eq!(rmp_serde::from_slice::<EpochReport>(&rmp_serde::to_vec(&report).unwrap()).unwrap(), report);
    }
}
