//! A training as a state machine: each call of `step_batch` is one batch, and between any two of them it can be stopped,
//! stored and gone on with, to the same bits.

use super::backward::backward;
use super::data::{Prepared, RowSet};
use super::early_stopping::Patience;
use super::element::{Element, all_finite};
use super::judge::Judge;
use super::loss::Objective;
use super::metrics::{MetricSums, Task};
use super::network::Plan;
use super::optimizer::Moments;
use super::random::{Purpose, Stream};
use super::state::{EpochEnd, Step, Stop};
use super::workspace::Workspace;
use crate::domain::{
    Architecture, EpochReport, FittedPreprocessing, Loss, Preprocessing, Settings, StopReason, TrainingData, Values,
};

/// What a training starts from.
#[derive(Clone, Debug)]
pub struct TrainerInput {
    /// The network's shape.
    pub architecture: Architecture,
    /// Every setting.
    pub settings: Settings,
    /// The rows, checked against both.
    pub data: TrainingData,
    /// What is to be scaled, where it was not learned yet.
    pub preprocessing: Preprocessing,
    /// What an earlier training of the model learned.
    pub fitted: Option<FittedPreprocessing>,
    /// The parameters to start from, flat in the order of [`Architecture::layout`].
    pub parameters: Values,
}

/// One training. Owns all it needs, reads no clock, and allocates nothing in a step.
pub struct Trainer<T> {
    // What never changes.
    architecture: Architecture,
    plan: Plan,
    settings: Settings,
    objective: Objective,
    task: Task,
    training: RowSet<T>,
    validation: Option<RowSet<T>>,
    fitted: Option<FittedPreprocessing>,
    batch_size: usize,
    tile_rows: usize,

    // What a step writes before it reads.
    workspace: Workspace<T>,
    gradients: Vec<T>,
    validation_sums: MetricSums,

    // Follows from seed and epoch: the order of the rows in the epoch that is under way.
    order: Vec<u32>,

    // The state.
    epoch: u32,
    next_batch: usize,
    parameters: Vec<T>,
    moments: Moments<T>,
    loss_sum: f64,
    metric_sums: MetricSums,
    last_report: Option<EpochReport>,
    /// Empty where an epoch has one step: then `parameters` are always those of a whole epoch.
    last_parameters: Vec<T>,
    best_report: Option<EpochReport>,
    /// Empty without early stopping.
    best_parameters: Vec<T>,
    patience: Patience,
    end: Option<EpochEnd>,
}

impl<T: Element> Trainer<T> {
    /// A training before its first step: splits off validation rows, learns the scaling where it was not learned yet, and
    /// applies it.
    ///
    /// # Panics
    /// Where the parts of the input do not fit together, which checks in the domain have seen to.
    pub fn new(input: TrainerInput) -> Self {
        let TrainerInput { architecture, settings, data, preprocessing, fitted, parameters } = input;
        let parameters = T::vec_from(parameters);
        let count = architecture.parameter_count();
        assert_eq!(parameters.len(), count, "parameters of another architecture");

        let plan = Plan::new(&architecture);
        let objective = Objective::new(&architecture, settings.loss, settings.reduction);
        let units = objective.units();
        let prepared = Prepared::new(data, &settings, units, preprocessing, fitted);
        let Prepared { training, validation, fitted } = prepared;
        let has_binary_targets =
            training.has_binary_targets() && validation.as_ref().is_none_or(RowSet::has_binary_targets);
        let task = Task::new(&objective, has_binary_targets);

        let batch_size = training.rows.min(settings.batch_size as usize);
        let tile_rows = plan.tile_rows();
        let rows_at_once = batch_size.max(validation.as_ref().map_or(0, |rows| rows.rows)).min(tile_rows);
        let has_several_steps = training.rows > batch_size;
        let mut trainer = Self {
            workspace: Workspace::new(&plan, rows_at_once),
            gradients: vec![T::ZERO; count],
            validation_sums: MetricSums::new(task, units),
            order: (0..training.rows as u32).collect(),
            epoch: 0,
            next_batch: 0,
            moments: Moments::new(&settings.optimizer, count),
            loss_sum: 0.0,
            metric_sums: MetricSums::new(task, units),
            last_report: None,
            last_parameters: vec![T::ZERO; if has_several_steps { count } else { 0 }],
            best_report: None,
            best_parameters: vec![T::ZERO; if settings.early_stopping.is_some() { count } else { 0 }],
            patience: Patience::default(),
            end: None,
            parameters,
            architecture,
            plan,
            settings,
            objective,
            task,
            training,
            validation,
            fitted,
            batch_size,
            tile_rows,
        };
        trainer.draw_order();
        trainer
    }

    /// One batch: forward pass, loss, backpropagation, and the optimizer's step. Once the training has ended, its end again.
    pub fn step_batch(&mut self) -> Step {
        if let Some(end) = &self.end {
            return Step::Epoch(end.clone());
        }
        let first_row = self.next_batch * self.batch_size;
        let rows = first_row..self.training.rows.min(first_row + self.batch_size);
        let wrong_rows_before = self.metric_sums.wrong_rows;
        let loss_sum = self.accumulate_gradients(rows);
        self.loss_sum += loss_sum;
        if !loss_sum.is_finite() {
            return Step::Epoch(self.diverged("the loss"));
        }
        // A perceptron does not move where M is empty; what momentum is left must not either, or an epoch without a wrong
        // row would end in other weights than those that were right.
        let is_all_right = self.metric_sums.wrong_rows == wrong_rows_before;
        if self.settings.loss != Loss::Perceptron || !is_all_right {
            self.moments.step(&self.settings.optimizer, &mut self.parameters, &self.gradients);
        }
        self.next_batch += 1;
        if self.next_batch < self.batches_per_epoch() { Step::Batch } else { Step::Epoch(self.end_epoch()) }
    }

    /// Fills `gradients` with those of the reduced loss of some rows of the order, a tile at a time, so that memory is
    /// bounded whatever the batch size. Returns the sum of the losses.
    fn accumulate_gradients(&mut self, rows: std::ops::Range<usize>) -> f64 {
        let scale = T::from_f64(1.0 / self.objective.divisor(rows.len()));
        self.gradients.fill(T::ZERO);
        let mut sum = 0.0;
        for tile in self.order[rows].chunks(self.tile_rows) {
            let workspace = &mut self.workspace;
            self.training.load(tile.iter().map(|&row| row as usize), workspace);
            let judge = Judge { plan: &self.plan, objective: &self.objective, task: self.task };
            sum += judge.pass(&self.parameters, scale, workspace, tile.len(), &mut self.metric_sums);
            let Workspace { activations, deltas, .. } = workspace;
            backward(&self.plan, &self.parameters, activations, deltas, tile.len(), &mut self.gradients);
        }
        sum
    }

    fn end_epoch(&mut self) -> EpochEnd {
        self.next_batch = 0;
        self.epoch += 1;
        let report = self.report();
        self.loss_sum = 0.0;
        self.metric_sums.clear();
        if !all_finite(&self.parameters) {
            return self.diverged_by_update("a weight");
        }
        if report.validation_loss.is_some_and(|loss| !loss.is_finite()) {
            return self.diverged_by_update("the validation loss");
        }
        self.keep(report);
        let stop = self.stop_reason(&report);
        let is_reported = stop.is_some() || self.epoch.is_multiple_of(self.settings.report_every);
        let end = EpochEnd { report, is_reported, stop };
        if end.stop.is_some() {
            self.end = Some(end.clone());
        } else {
            self.draw_order();
        }
        end
    }

    /// The report of the epoch that was just done.
    fn report(&mut self) -> EpochReport {
        let rows = self.training.rows;
        let scale = target_scale(&self.fitted);
        let metrics = self.metric_sums.finish(self.task, rows, &self.training.spread, scale);
        let mut report = EpochReport {
            epoch: self.epoch,
            loss: self.loss_sum / self.objective.report_divisor(rows),
            metrics,
            learning_rate: self.settings.optimizer.learning_rate(),
            ..EpochReport::default()
        };
        if let Some(validation) = &self.validation {
            let judge = Judge { plan: &self.plan, objective: &self.objective, task: self.task };
            let sums = &mut self.validation_sums;
            let sum = judge.validate(&self.parameters, validation, self.tile_rows, &mut self.workspace, sums);
            report.validation_loss = Some(sum / self.objective.report_divisor(validation.rows));
            report.validation_metrics = Some(sums.finish(self.task, validation.rows, &validation.spread, scale));
        }
        report
    }

    /// Keeps what an interruption in the midst of the next epoch, or the end, may ask for.
    fn keep(&mut self, report: EpochReport) {
        self.last_report = Some(report);
        if !self.last_parameters.is_empty() {
            self.last_parameters.copy_from_slice(&self.parameters);
        }
        if self.best_report.is_none_or(|best| monitored_loss(&report) < monitored_loss(&best)) {
            self.best_report = Some(report);
            if !self.best_parameters.is_empty() {
                self.best_parameters.copy_from_slice(&self.parameters);
            }
        }
    }

    fn stop_reason(&mut self, report: &EpochReport) -> Option<Stop> {
        let epoch = report.epoch;
        let is_out_of_patience = (self.settings.early_stopping)
            .is_some_and(|settings| self.patience.is_exhausted_by(settings, monitored_loss(report)));
        // Never because the loss is 0: from zero weights XOR sits there with every row wrong.
        if self.settings.loss == Loss::Perceptron && report.metrics.misclassified_rows == Some(0) {
            let message = format!("no row was misclassified in epoch {epoch}, so nothing was left to change");
            return Some(Stop { reason: StopReason::Converged, message });
        }
        if epoch >= self.settings.epochs {
            return Some(Stop { reason: StopReason::EpochsDone, message: format!("all {epoch} epochs are done") });
        }
        is_out_of_patience.then(|| {
            let patience = self.settings.early_stopping.map_or(0, |settings| settings.patience);
            let message = format!("the monitored loss had not improved for {patience} epochs in epoch {epoch}");
            Stop { reason: StopReason::EarlyStopped, message }
        })
    }

    /// Ends the training by what the last update of an epoch came to: that epoch does not count.
    fn diverged_by_update(&mut self, what: &str) -> EpochEnd {
        self.epoch -= 1;
        if self.last_parameters.is_empty() {
            // The update went over the weights of the epoch before.
            self.last_report = None;
        }
        self.diverged(what)
    }

    /// Ends the training in the epoch that is under way.
    fn diverged(&mut self, what: &str) -> EpochEnd {
        let epoch = self.epoch + 1;
        let message =
            format!("{what} was not finite in epoch {epoch}: use a smaller learning rate, or scale inputs and targets");
        let learning_rate = self.settings.optimizer.learning_rate();
        let report = EpochReport { epoch, loss: f64::NAN, learning_rate, ..EpochReport::default() };
        let stop = Some(Stop { reason: StopReason::Diverged, message });
        let end = EpochEnd { report, is_reported: false, stop };
        self.end = Some(end.clone());
        end
    }

    /// The order in which the next epoch visits the rows: from the seed and the epoch alone.
    fn draw_order(&mut self) {
        if self.settings.shuffle {
            self.order.iter_mut().enumerate().for_each(|(index, row)| *row = index as u32);
            Stream::new(self.settings.seed, Purpose::Order, u64::from(self.epoch) + 1, 0).shuffle(&mut self.order);
        }
    }

    fn batches_per_epoch(&self) -> usize {
        self.training.rows.div_ceil(self.batch_size)
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Whole epochs done.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Rows that the epoch under way has visited.
    pub fn rows_done_in_epoch(&self) -> u64 {
        self.training.rows.min(self.next_batch * self.batch_size) as u64
    }

    /// Rows that an epoch visits.
    pub fn training_rows(&self) -> u64 {
        self.training.rows as u64
    }

    /// The parameters as they are now, in the midst of an epoch perhaps.
    pub fn parameters(&self) -> &[T] {
        &self.parameters
    }

    /// The parameters after the last whole epoch and its report, even in the midst of the next one; `None` before the first
    /// (and after one that diverged by its update, where an epoch has one step: nothing is left of the epoch before).
    pub fn last_whole_epoch(&self) -> Option<(&[T], &EpochReport)> {
        let report = self.last_report.as_ref()?;
        if !self.last_parameters.is_empty() {
            return Some((&self.last_parameters, report));
        }
        Some((&self.parameters, report))
    }

    /// What the training has to show: the weights of the epoch with the lowest monitored loss with early stopping, those
    /// of the last whole epoch otherwise; before the first, those it started from or has come to.
    pub fn result_parameters(&self) -> &[T] {
        if !self.best_parameters.is_empty() && self.best_report.is_some() {
            return &self.best_parameters;
        }
        self.last_whole_epoch().map_or(&self.parameters, |(parameters, _)| parameters)
    }

    /// The report of the epoch whose weights [`result_parameters`](Self::result_parameters) are.
    pub fn result_report(&self) -> Option<&EpochReport> {
        if self.best_parameters.is_empty() { self.last_report.as_ref() } else { self.best_report.as_ref() }
    }

    /// The report of the epoch with the lowest monitored loss, with early stopping or without.
    pub fn best_report(&self) -> Option<&EpochReport> {
        self.best_report.as_ref()
    }

    /// Puts the caller's timings into the report of the last whole epoch, wherever it is kept.
    pub fn stamp(&mut self, elapsed_micros: u64, samples_per_second: f64) {
        let Some(epoch) = self.last_report.map(|report| report.epoch) else { return };
        let end = self.end.as_mut().map(|end| &mut end.report);
        let kept = [self.last_report.as_mut(), self.best_report.as_mut(), end];
        for report in kept.into_iter().flatten().filter(|report| report.epoch == epoch) {
            report.elapsed_micros = elapsed_micros;
            report.samples_per_second = samples_per_second;
        }
    }

    /// The scalers in force: what was given, or was learned from the training rows; `None` where nothing is scaled.
    pub fn preprocessing(&self) -> Option<&FittedPreprocessing> {
        self.fitted.as_ref()
    }
}

/// The validation loss, or the training loss where there is none: what early stopping and the best epoch go by.
fn monitored_loss(report: &EpochReport) -> f64 {
    report.validation_loss.unwrap_or(report.loss)
}

fn target_scale(fitted: &Option<FittedPreprocessing>) -> Option<&[f64]> {
    fitted.as_ref()?.targets.as_ref().map(|scaler| scaler.scale.as_slice())
}

mod restore;

#[cfg(test)]
mod tests;
