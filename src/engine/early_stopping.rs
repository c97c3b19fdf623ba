//! When to stop before the last epoch.

use serde::{Deserialize, Serialize};

use crate::domain::{EarlyStopping, EpochReport, Metric};

/// How long the monitored metric has not improved.
///
/// An epoch improves where it is better than the reference by more than `min_delta`; it is then the new reference. So a slow
/// fall counts once it adds up, as in Keras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Patience {
    reference: Option<f64>,
    waited_epochs: u32,
}

impl Patience {
    /// Notes an epoch; true where patience is at its end. What cannot be told is no improvement.
    pub fn is_exhausted_by(&mut self, settings: EarlyStopping, report: &EpochReport) -> bool {
        let badness = badness(report, settings.metric);
        if badness.is_some_and(|it| self.reference.is_none_or(|reference| it < reference - settings.min_delta)) {
            *self = Self { reference: badness, waited_epochs: 0 };
        } else {
            self.waited_epochs += 1;
        }
        self.waited_epochs >= settings.patience
    }

    /// Waits anew for what is better than before: for a training that goes on after its patience was at its end.
    pub fn renewed(self) -> Self {
        Self { waited_epochs: 0, ..self }
    }
}

/// Whether an epoch is better than the best so far.
pub fn is_better(report: &EpochReport, best: &EpochReport, metric: Metric) -> bool {
    match (badness(report, metric), badness(best, metric)) {
        (Some(badness), Some(best)) => badness < best,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// A metric of a report as a number that falls when the network gets better.
fn badness(report: &EpochReport, metric: Metric) -> Option<f64> {
    let value = report.monitored(metric)?;
    Some(if metric.lower_is_better() { value } else { -value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Metrics;

    fn settings(patience: u32, min_delta: f64, metric: Metric) -> EarlyStopping {
        EarlyStopping { patience, min_delta, metric, restore_best: true }
    }

    /// After how many epochs it stops.
    fn stops_after(patience: u32, min_delta: f64, losses: &[f64]) -> Option<usize> {
        let mut state = Patience::default();
        let settings = settings(patience, min_delta, Metric::Loss);
        let report = |loss| EpochReport { loss, ..EpochReport::default() };
        losses.iter().position(|&loss| state.is_exhausted_by(settings, &report(loss))).map(|index| index + 1)
    }

    #[test]
    fn it_waits_as_many_epochs_as_it_was_told() {
        assert_eq!(stops_after(2, 0.0, &[1.0, 1.0, 1.0, 0.5]), Some(3));
        assert_eq!(stops_after(2, 0.0, &[1.0, 1.1, 0.9, 0.95, 0.8, 0.8, 0.9]), Some(7));
        assert_eq!(stops_after(1, 0.0, &[3.0, 2.0, 1.0]), None);
    }

    #[test]
    fn a_slow_fall_counts_once_it_adds_up() {
        assert_eq!(stops_after(3, 0.25, &[1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), None);
        assert_eq!(stops_after(2, 0.25, &[1.0, 0.9, 0.8, 0.7]), Some(3));
    }

    #[test]
    fn metrics_that_rise_are_better_when_they_are_higher() {
        let report = |accuracy| EpochReport {
            metrics: Metrics { accuracy, ..Metrics::default() },
            loss: 1.0,
            ..EpochReport::default()
        };
        let mut state = Patience::default();
        let told = [Some(0.5), Some(0.75), None, Some(0.75)];
        let settings = settings(2, 0.0, Metric::Accuracy);
        assert_eq!(told.map(|it| state.is_exhausted_by(settings, &report(it))), [false, false, false, true]);
        assert!(is_better(&report(Some(0.8)), &report(Some(0.7)), Metric::Accuracy));
        assert!(is_better(&report(Some(0.8)), &report(None), Metric::Accuracy));
        assert!(!is_better(&report(None), &report(None), Metric::Accuracy));
        assert!(!is_better(&report(Some(0.8)), &report(Some(0.8)), Metric::Accuracy));
    }
}
