//! A training as a state machine: each call of `step_batch` is one batch, and between any two of them it can be stopped,
//! stored and gone on with, to the same bits.
//!
//! | file | subject |
//! |---|---|
//! | `trainer` | what a training owns, its batches, and what it has to show |
//! | `update` | one step: gradients, penalties, clipping, the optimizer |
//! | `epoch` | the end of an epoch: its report, and whether it is the last |
//! | `diagnostics` | what layers went through |
//! | `restore` | out of a trainer into a state, and back |

use std::ops::Range;

use super::aligned::Aligned;
use super::backward::moves_at_once;
use super::data::{Prepared, RowSet};
use super::early_stopping::Patience;
use super::element::Element;
use super::loss::Objective;
use super::metrics::{MetricPlan, MetricSums};
use super::network::Plan;
use super::optimizer::{Begun, OptimizerState};
use super::random::{Purpose, Stream};
use super::schedule::{self, ScheduleState};
use super::state::{LastEpoch, Step};
use super::unchecked::team::Workers;
use super::workspace::Workspace;
use crate::domain::{Architecture, EpochReport, FittedPreprocessing, Preprocessing, Settings, TrainingData, Values};

mod diagnostics;
mod epoch;
mod restore;
mod update;

use diagnostics::Diagnostics;

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

/// One training. Owns all it needs but the threads that may help it, reads no clock, and allocates nothing in a step.
pub struct Trainer<T> {
    // What never changes.
    architecture: Architecture,
    plan: Plan,
    settings: Settings,
    objective: Objective,
    metrics: MetricPlan,
    training: RowSet<T>,
    validation: Option<RowSet<T>>,
    fitted: Option<FittedPreprocessing>,
    batch_size: usize,
    /// Rows of a training step that go through at once.
    step_rows: usize,
    /// Rows of the validation that do.
    tile_rows: usize,
    /// What of the parameters changes.
    segments: Vec<Range<usize>>,
    /// Of that, what does not move while gradients are computed.
    still_segments: Vec<Range<usize>>,

    // What a step writes before it reads.
    workspace: Workspace<T>,
    gradients: Aligned<T>,
    /// Whether the batch has a row in M, the misclassified rows that count; true for other losses than the perceptron criterion.
    batch_has_wrong_rows: bool,
    validation_sums: MetricSums,

    // Follows from seed and epoch: the order of the rows in the epoch that is under way.
    order: Vec<u32>,

    // The state.
    epoch: u32,
    /// The epoch after which it ends.
    last_epoch: u32,
    next_batch: usize,
    parameters: Aligned<T>,
    optimizer: OptimizerState<T>,
    /// Of a step, some of whose weights have moved.
    begun: Option<Begun>,
    schedule: ScheduleState,
    /// The learning rate of the last step.
    rate: f64,
    /// Whether the optimizer found nothing to improve.
    has_converged: bool,
    /// Whether a batch of the epoch under way had a row in M; looked at for the perceptron criterion alone.
    has_moved: bool,
    loss_sum: f64,
    metric_sums: MetricSums,
    last_report: Option<EpochReport>,
    /// Empty where an epoch has one step: then `parameters` are always those of a whole epoch.
    last_parameters: Aligned<T>,
    /// Where it is not the last.
    best_report: Option<EpochReport>,
    /// An epoch that is the best so far is copied once: most are.
    last_is_best: bool,
    /// Empty where the best epoch's weights are not asked for.
    best_parameters: Aligned<T>,
    patience: Patience,
    end: Option<LastEpoch>,
    diagnostics: Option<Diagnostics<T>>,
    /// Masks that a test gives instead of those that would be drawn, a place each.
    #[cfg(test)]
    given_masks: Option<Vec<Vec<T>>>,
}

impl<T: Element> Trainer<T> {
    /// A training before its first step: splits off validation rows, learns the scaling where it was not learned yet, and
    /// applies it.
    ///
    /// # Panics
    /// Where the parts of the input do not fit together, which checks in the domain have seen to.
    pub fn new(input: TrainerInput) -> Self {
        let TrainerInput { architecture, settings, data, preprocessing, fitted, parameters } = input;
        let parameters = Aligned::from(T::vec_from(parameters));
        let count = architecture.parameter_count();
        assert_eq!(parameters.len(), count, "parameters of another architecture");

        let plan = Plan::for_training(&architecture, &settings.frozen_layers);
        let objective = Objective::new(&architecture, &settings.loss, settings.reduction);
        let prepared = Prepared::new(data, &settings, &objective, preprocessing, fitted);
        let Prepared { training, validation, fitted } = prepared;
        let (units, top_k) = (objective.units(), settings.top_k as usize);
        let metrics = MetricPlan::new(settings.task, objective.activation(), units, &settings.metrics, top_k);

        let batch_size = training.rows.min(settings.batch_size as usize);
        let tile_rows = plan.tile_rows();
        // A last batch of one row may join the one before it.
        let step_rows = if plan.has_batch_statistics() { batch_size + 1 } else { batch_size.min(tile_rows) };
        let validation_rows = validation.as_ref().map_or(0, |rows| rows.rows);
        let rows_at_once = step_rows.max(validation_rows.min(tile_rows));
        let has_several_steps = training.rows > batch_size;
        let segments = architecture.trainable_segments(&settings.frozen_layers);
        let copy_if = |is_needed: bool| Aligned::zeros(if is_needed { count } else { 0 });
        let mut trainer = Self {
            workspace: Workspace::new(&plan, &objective, rows_at_once),
            gradients: copy_if(true),
            batch_has_wrong_rows: true,
            validation_sums: MetricSums::new(&metrics, validation_rows),
            order: (0..training.rows as u32).collect(),
            epoch: 0,
            last_epoch: settings.epochs,
            next_batch: 0,
            optimizer: OptimizerState::new(&settings.optimizer, count),
            begun: None,
            schedule: ScheduleState::default(),
            rate: settings.optimizer.learning_rate(),
            has_converged: false,
            has_moved: false,
            loss_sum: 0.0,
            metric_sums: MetricSums::new(&metrics, training.rows),
            last_report: None,
            last_parameters: copy_if(has_several_steps),
            best_report: None,
            last_is_best: false,
            best_parameters: copy_if(settings.keeps_best()),
            patience: Patience::default(),
            end: None,
            diagnostics: settings.diagnostics.then(|| Diagnostics::new(&plan, count, step_rows)),
            still_segments: still_segments(&plan, &segments),
            segments,
            #[cfg(test)]
            given_masks: None,
            parameters,
            architecture,
            plan,
            settings,
            objective,
            metrics,
            training,
            validation,
            fitted,
            batch_size,
            step_rows,
            tile_rows,
        };
        trainer.draw_order();
        trainer
    }

    /// One batch: forward pass, loss, backpropagation, and the optimizer's step. Once the training has ended, its end again.
    pub fn step_batch(&mut self) -> Step {
        if let Some(end) = &self.end {
            return Step::Epoch(end.end());
        }
        let rows = self.batch_rows(self.next_batch);
        self.rate = self.learning_rate();
        let loss_sum = self.accumulate_gradients(rows.clone());
        self.loss_sum += loss_sum;
        if !loss_sum.is_finite() {
            return Step::Epoch(self.loss_diverged(rows));
        }
        // A perceptron does not move where M is empty (not where gradients cancel: then it stays where it is); what momentum is left must not either, or an epoch without a wrong
        // row would end in other weights than those that were right.
        if self.batch_has_wrong_rows {
            self.has_moved = true;
            self.update(rows, loss_sum);
        }
        self.next_batch += 1;
        if self.next_batch < self.batches_per_epoch() { Step::Batch } else { Step::Epoch(self.end_epoch()) }
    }

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64 {
        let base = self.settings.optimizer.learning_rate();
        let (step, steps) = (self.next_batch as u64, self.batches_per_epoch() as u64);
        schedule::learning_rate(&self.settings.schedule, base, self.epoch, step, steps, &self.schedule)
    }

    /// The order in which the next epoch visits the rows: from the seed and the epoch alone.
    fn draw_order(&mut self) {
        if self.settings.shuffle {
            self.order.iter_mut().enumerate().for_each(|(index, row)| *row = index as u32);
            Stream::new(self.settings.seed, Purpose::Order, u64::from(self.epoch) + 1, 0).shuffle(&mut self.order);
        }
    }

    /// Batches of an epoch. With batch normalization a last batch of one row, which has no variance, joins the one before it.
    fn batches_per_epoch(&self) -> usize {
        let batches = self.training.rows.div_ceil(self.batch_size);
        let has_lone_row = self.training.rows % self.batch_size == 1;
        let joins = has_lone_row && batches > 1 && self.plan.has_batch_statistics();
        batches - usize::from(joins)
    }

    /// Places in the order that a batch visits.
    fn batch_rows(&self, batch: usize) -> Range<usize> {
        let first = batch * self.batch_size;
        let is_last = batch + 1 == self.batches_per_epoch();
        first..if is_last { self.training.rows } else { first + self.batch_size }
    }

    /// Lets a team compute: the same bits, sooner.
    pub fn set_workers(&mut self, workers: Workers) {
        self.workspace.activations.workers = workers;
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Whole epochs done.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The epoch after which it ends.
    pub fn last_epoch(&self) -> u32 {
        self.last_epoch
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

    /// The parameters after the last whole epoch; before the first, as they are.
    pub fn whole_parameters(&self) -> &[T] {
        self.last_whole_epoch().map_or(&self.parameters, |(parameters, _)| parameters)
    }

    /// What the training has to show: the weights of the best epoch where early stopping keeps them, those of the last whole
    /// epoch otherwise; before the first, those it started from or has come to. Where a metric was to be reached and is, the
    /// last epoch's are the ones.
    pub fn result_parameters(&self) -> &[T] {
        if self.shows_best() && self.best_report().is_some() {
            return &self.best_parameters;
        }
        self.whole_parameters()
    }

    /// The report of the epoch that ended last, the one in which the training diverged among them; `None` before the first.
    pub fn report(&self) -> Option<&EpochReport> {
        self.end.as_ref().map(|end| &end.report).or(self.last_report.as_ref())
    }

    /// The report of the epoch whose weights [`result_parameters`](Self::result_parameters) are.
    pub fn result_report(&self) -> Option<&EpochReport> {
        if self.shows_best() { self.best_report() } else { self.last_report.as_ref() }
    }

    /// The report of the epoch with the best monitored metric, with early stopping or without.
    pub fn best_report(&self) -> Option<&EpochReport> {
        if self.last_is_best { self.last_report.as_ref() } else { self.best_report.as_ref() }
    }

    /// Puts the caller's timings into the report of the last whole epoch, wherever it is kept.
    pub fn stamp(&mut self, elapsed_micros: u64, samples_per_second: f64) {
        let Some(epoch) = self.last_report.as_ref().map(|report| report.epoch) else { return };
        let end = self.end.as_mut().map(|end| &mut end.report);
        let kept = [self.last_report.as_mut(), self.best_report.as_mut(), end];
        for report in kept.into_iter().flatten().filter(|report| report.epoch == epoch) {
            report.elapsed_micros = elapsed_micros;
            report.samples_per_second = samples_per_second;
        }
    }

    /// Puts the caller's timings into the reports that have none: the caller may leave epochs out that are none of the reported ones, and
    /// give those among them that are kept their timings later, together.
    pub fn stamp_new(&mut self, elapsed_micros: u64, samples_per_second: f64) {
        let kept = [self.last_report.as_mut(), self.best_report.as_mut()];
        for report in kept.into_iter().flatten().filter(|report| report.elapsed_micros == 0) {
            report.elapsed_micros = elapsed_micros;
            report.samples_per_second = samples_per_second;
        }
    }

    /// The scalers in force: what was given, or was learned from the training rows; `None` where nothing is scaled.
    pub fn preprocessing(&self) -> Option<&FittedPreprocessing> {
        self.fitted.as_ref()
    }
}

/// The segments without the weights that move while gradients are computed.
fn still_segments(plan: &Plan, segments: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut still = segments.to_vec();
    for layer in plan.layers.iter().filter(|layer| moves_at_once(layer)) {
        let weights = &layer.layout.weights;
        let around = |it: Range<usize>| [it.start..it.end.min(weights.start), it.start.max(weights.end)..it.end];
        still = still.into_iter().flat_map(around).filter(|it| !it.is_empty()).collect();
    }
    still
}

#[cfg(test)]
mod tests;
