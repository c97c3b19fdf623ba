//! The end of an epoch: its report, what is kept of it, and whether it is the last.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Trainer;
use crate::domain::{EpochReport, FittedPreprocessing, Loss, Metric, StopReason};
use crate::engine::early_stopping::is_better;
use crate::engine::element::{Element, all_finite};
use crate::engine::judge::Judge;
use crate::engine::state::{EpochEnd, LastEpoch, Stop};
use crate::engine::unchecked::team::piece_length;

impl<T: Element> Trainer<T> {
    pub(super) fn end_epoch(&mut self) -> EpochEnd {
        self.next_batch = 0;
        self.epoch += 1;
        let has_moved = std::mem::take(&mut self.has_moved);
        let report = self.new_report();
        self.loss_sum = 0.0;
        self.metric_sums.clear();
        if !self.parameters_are_finite() {
            return self.diverged_by_update("a weight");
        }
        if report.validation_loss.is_some_and(|loss| !loss.is_finite()) {
            return self.diverged_by_update("the validation loss");
        }
        let base = self.settings.optimizer.learning_rate();
        let loss = report.validation_loss.unwrap_or(report.loss);
        self.schedule.end_epoch(&self.settings.schedule, base, self.epoch - 1, loss);
        let stop = self.stop_reason(&report, has_moved);
        let is_reported = stop.is_some() || self.epoch.is_multiple_of(self.settings.report_every);
        if stop.is_some() {
            self.end = Some(LastEpoch { report: report.clone(), is_reported, stop: stop.clone() });
        } else {
            self.draw_order();
        }
        self.keep(report);
        EpochEnd { is_reported, stop }
    }

    /// The report of the epoch that was just done.
    fn new_report(&mut self) -> EpochReport {
        let rows = self.training.rows;
        let scale = target_scale(&self.fitted);
        let mut report = EpochReport {
            epoch: self.epoch,
            loss: self.loss_sum / self.objective.report_divisor(&self.training),
            metrics: self.metric_sums.finish(&self.metrics, rows, &self.training.spread, scale),
            learning_rate: self.rate,
            ..EpochReport::default()
        };
        if let Some(diagnostics) = &mut self.diagnostics {
            report.diagnostics = diagnostics.end_epoch(&self.plan, &self.parameters);
        }
        if let Some(validation) = &self.validation {
            let judge = Judge { plan: &self.plan, objective: &self.objective, metrics: &self.metrics };
            let sums = &mut self.validation_sums;
            let sum = judge.validate(&self.parameters, validation, self.tile_rows, &mut self.workspace, sums);
            report.validation_loss = Some(sum / self.objective.report_divisor(validation));
            report.validation_metrics = Some(sums.finish(&self.metrics, validation.rows, &validation.spread, scale));
        }
        report
    }

    /// Keeps what an interruption in the midst of the next epoch, or the end, may ask for.
    fn keep(&mut self, report: EpochReport) {
        let metric = self.settings.monitored();
        let is_best = self.best_report().is_none_or(|best| is_better(&report, best, metric));
        if !is_best {
            self.part_best_from_last();
        }
        self.last_report = Some(report);
        self.last_is_best = is_best;
        let (parameters, workers) = (&self.parameters, &self.workspace.activations.workers);
        let copy = |to: &mut [T]| {
            debug_assert_eq!(to.len(), parameters.len());
            workers.for_each_piece(to, 1, |first, to| to.copy_from_slice(&parameters[first..first + to.len()]));
        };
        if !self.last_parameters.is_empty() {
            copy(&mut self.last_parameters);
        }
        if is_best && !self.best_parameters.is_empty() {
            copy(&mut self.best_parameters);
        }
    }

    pub(super) fn parameters_are_finite(&self) -> bool {
        let are_finite = AtomicBool::new(true);
        let piece = piece_length(self.parameters.len(), 1);
        self.workspace.activations.workers.for_each(self.parameters.chunks(piece), |piece| {
            if !all_finite(piece) {
                are_finite.store(false, Ordering::Relaxed);
            }
        });
        are_finite.into_inner()
    }

    /// The last report is about to be replaced: what is best of it is kept by itself.
    fn part_best_from_last(&mut self) {
        if std::mem::take(&mut self.last_is_best) {
            self.best_report = self.last_report.take();
        }
    }

    fn stop_reason(&mut self, report: &EpochReport, has_moved: bool) -> Option<Stop> {
        let epoch = report.epoch;
        let is_out_of_patience =
            self.settings.early_stopping.is_some_and(|settings| self.patience.is_exhausted_by(settings, report));
        let stop = |reason, message| Some(Stop { reason, message });
        // Never because the loss is 0: from zero weights XOR sits there with every row wrong.
        if self.settings.loss == Loss::Perceptron && !has_moved {
            let message =
                format!("no row that counts was misclassified in epoch {epoch}, so nothing was left to change");
            return stop(StopReason::Converged, message);
        }
        if let Some(message) = self.reached_target(report) {
            return stop(StopReason::TargetReached, message);
        }
        if self.has_converged {
            let message = format!("no step could lower the loss any more in epoch {epoch}");
            return stop(StopReason::Converged, message);
        }
        if epoch >= self.last_epoch {
            return stop(StopReason::EpochsDone, format!("all {epoch} epochs are done"));
        }
        if is_out_of_patience {
            let patience = self.settings.early_stopping.map_or(0, |settings| settings.patience);
            let message = format!("the monitored metric had not improved for {patience} epochs in epoch {epoch}");
            return stop(StopReason::EarlyStopped, message);
        }
        None
    }

    /// That the metric is where it was to be, in words; `None` where it is not.
    fn reached_target(&self, report: &EpochReport) -> Option<String> {
        let target = self.settings.stop_at?;
        let value = report.monitored(target.metric)?;
        let is_reached = if target.metric.lower_is_better() { value <= target.value } else { value >= target.value };
        let name = if target.metric == Metric::Loss { "the loss" } else { target.metric.name() };
        is_reached.then(|| format!("{name} was {value} in epoch {}, and {} was asked for", report.epoch, target.value))
    }

    /// Whether the best epoch's weights are the ones to show.
    pub(super) fn shows_best(&self) -> bool {
        let stopped_at_target = (self.end.as_ref().and_then(|end| end.stop.as_ref()))
            .is_some_and(|stop| stop.reason == StopReason::TargetReached);
        !self.best_parameters.is_empty() && !stopped_at_target
    }

    /// Ends the training by what the last update of an epoch came to: that epoch does not count.
    fn diverged_by_update(&mut self, what: &str) -> EpochEnd {
        self.epoch -= 1;
        if self.last_parameters.is_empty() {
            // The update went over the weights of the epoch before.
            self.part_best_from_last();
            self.last_report = None;
        }
        self.diverged(what)
    }

    /// Ends the training by a loss that is not finite; that of a caller's expression says where.
    pub(super) fn loss_diverged(&mut self, rows: Range<usize>) -> EpochEnd {
        match self.faulty_row(rows) {
            None => self.diverged("the loss"),
            Some((row, what)) => self.diverged(&format!("{what} of your expression at row {row} (from 0)")),
        }
    }

    /// Ends the training in the epoch that is under way.
    fn diverged(&mut self, what: &str) -> EpochEnd {
        let epoch = self.epoch + 1;
        let advice = match self.settings.loss {
            Loss::Custom { .. } => {
                "keep the arguments of your expression in range, such as log(clip(y_pred, 1e-7, 1)), or use a smaller learning rate"
            }
            _ => "use a smaller learning rate, or scale inputs and targets",
        };
        let message = format!("{what} was not finite in epoch {epoch}: {advice}");
        let report = EpochReport { epoch, loss: f64::NAN, learning_rate: self.rate, ..EpochReport::default() };
        let stop = Some(Stop { reason: StopReason::Diverged, message });
        self.end.insert(LastEpoch { report, is_reported: false, stop }).end()
    }
}

fn target_scale(fitted: &Option<FittedPreprocessing>) -> Option<&[f64]> {
    fitted.as_ref()?.targets.as_ref().map(|scaler| scaler.scale.as_slice())
}
