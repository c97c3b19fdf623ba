//! How well a network did, told from the outputs of the same forward passes as the loss.
//!
//! Rows are added a batch at a time; [`MetricSums`] keeps no more of them than the wanted metrics need. That is a few
//! numbers an output, but for the area under the ROC curve, which needs the order of all scores. Definitions are those
//! of scikit-learn, and so are the test's figures.

mod confusion;
mod errors;
mod log_loss;
mod ranking;

use serde::{Deserialize, Serialize};

pub use self::errors::TargetSpread;

use self::confusion::{Averages, Confusion};
use self::errors::{ErrorSums, Errors};
use self::log_loss::LogLossSums;
use self::ranking::Ranking;
use super::activation::softmax::largest;
use super::element::Element;
use super::loss::TargetRows;
use super::simd::vectorized;
use crate::domain::{Activation, Metric, Metrics, Task};

/// What the outputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputForm {
    /// p
    Probabilities,
    /// ln p
    LogProbabilities,
    /// Anything else.
    Raw,
}

/// What is to be told, and of which outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricPlan {
    task: Task,
    units: usize,
    form: OutputForm,
    /// A bit a metric.
    wanted: u32,
    top_k: usize,
}

impl MetricPlan {
    /// `wanted` of `units` outputs of an activation; `top_k` is the k of [`Metric::TopKAccuracy`]. What has no meaning
    /// for the task (see [`Metric::fits`]) is not told; nor is the loss, which is no business of this module.
    pub fn new(task: Task, activation: Activation, units: usize, wanted: &[Metric], top_k: usize) -> Self {
        let form = match activation {
            Activation::Softmax | Activation::Sigmoid => OutputForm::Probabilities,
            Activation::LogSoftmax => OutputForm::LogProbabilities,
            _ => OutputForm::Raw,
        };
        let has_probabilities = form != OutputForm::Raw;
        let is_told = |metric: &Metric| *metric != Metric::Loss && metric.fits(task, units, has_probabilities).is_ok();
        let wanted = wanted.iter().copied().filter(is_told).fold(0, |bits, metric| bits | bit(metric));
        Self { task, units, form, wanted, top_k }
    }

    /// What counts as right.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Whether a metric is told.
    pub fn wants(&self, metric: Metric) -> bool {
        self.wanted & bit(metric) != 0
    }

    fn wants_any(&self, metrics: &[Metric]) -> bool {
        metrics.iter().any(|&metric| self.wants(metric))
    }

    /// Bytes that the sums of `rows` rows take, those of few numbers an output left out.
    pub fn bytes(&self, rows: usize) -> u64 {
        if self.wants(Metric::RocAuc) { Ranking::bytes(self, rows) } else { 0 }
    }
}

fn bit(metric: Metric) -> u32 {
    1 << metric as u32
}

const ERRORS: [Metric; 3] = [Metric::MeanAbsoluteError, Metric::RootMeanSquaredError, Metric::R2];

const CONFUSION: [Metric; 9] = [
    Metric::Precision,
    Metric::Recall,
    Metric::F1,
    Metric::PrecisionMacro,
    Metric::RecallMacro,
    Metric::F1Macro,
    Metric::PrecisionWeighted,
    Metric::RecallWeighted,
    Metric::F1Weighted,
];

/// Sums over the rows seen so far. What no wanted metric needs is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSums {
    /// Rows that are wrong; counted for every task but [`Task::Numbers`], wanted or not.
    pub wrong_rows: u64,
    /// Rows that nothing can be said of: they have no target, or none that names a class.
    unknown_rows: u64,
    top_k_hits: Option<u64>,
    errors: Option<ErrorSums>,
    confusion: Option<Confusion>,
    log_loss: Option<LogLossSums>,
    ranking: Option<Ranking>,
}

impl MetricSums {
    /// No row yet, and room for `rows`: nothing is allocated from here on.
    pub fn new(plan: &MetricPlan, rows: usize) -> Self {
        Self {
            wrong_rows: 0,
            unknown_rows: 0,
            top_k_hits: plan.wants(Metric::TopKAccuracy).then_some(0),
            errors: plan.wants_any(&ERRORS).then(|| ErrorSums::new(plan.units)),
            confusion: plan.wants_any(&CONFUSION).then(|| Confusion::new(plan)),
            log_loss: plan.wants(Metric::LogLoss).then(|| LogLossSums::new(plan)),
            ranking: plan.wants(Metric::RocAuc).then(|| Ranking::new(plan, rows)),
        }
    }

    /// No row again.
    pub fn clear(&mut self) {
        (self.wrong_rows, self.unknown_rows) = (0, 0);
        self.top_k_hits.iter_mut().for_each(|hits| *hits = 0);
        self.errors.iter_mut().for_each(ErrorSums::clear);
        self.confusion.iter_mut().for_each(Confusion::clear);
        self.log_loss.iter_mut().for_each(LogLossSums::clear);
        self.ranking.iter_mut().for_each(Ranking::clear);
    }

    /// Whether these are sums of the same metrics and outputs.
    pub fn has_shape_of(&self, other: &Self) -> bool {
        let widths = |sums: &Self| {
            let errors = sums.errors.as_ref().map(ErrorSums::width);
            let confusion = sums.confusion.as_ref().map(Confusion::width);
            let log_loss = sums.log_loss.as_ref().map(LogLossSums::width);
            (sums.top_k_hits.is_some(), errors, confusion, log_loss, sums.ranking.as_ref().map(Ranking::width))
        };
        widths(self) == widths(other)
    }

    /// Goes on from saved sums of the same shape, in the room that was reserved here: theirs was lost when they were
    /// written.
    pub fn resume(&mut self, saved: Self) {
        let ranking = self.ranking.take();
        *self = saved;
        if let (Some(mut reserved), Some(saved)) = (ranking, &self.ranking) {
            reserved.resume(saved);
            self.ranking = Some(reserved);
        }
    }

    /// Adds rows: `outputs`, `[rows, units]`, as [`Objective::evaluate`](super::loss::Objective::evaluate) leaves them.
    ///
    /// `mask`, `[rows, units]`, is 0 where a target is missing: it is left out of everything, and a row is right where
    /// all its other outputs are. A row of [`Task::Classes`] with a missing target is left out whole: which class is
    /// right is not known.
    ///
    /// # Panics
    /// Where targets are not of the task's kind.
    #[expect(clippy::panic, reason = "a task of bits or sides follows from a loss that takes numbers")]
    pub fn add<T: Element>(
        &mut self,
        plan: &MetricPlan,
        outputs: &[T],
        targets: TargetRows<'_, T>,
        mask: Option<&[T]>,
    ) {
        match (plan.task, targets) {
            (Task::Classes, TargetRows::Classes(classes)) => {
                self.add_classes(plan, outputs, classes.iter().map(|&class| class as usize), mask);
            }
            // The right class of a row of probabilities is the likeliest.
            (Task::Classes, TargetRows::Values(targets)) => {
                self.add_classes(plan, outputs, targets.chunks_exact(plan.units).map(arg_max), mask);
            }
            (Task::Bits, TargetRows::Values(targets)) => self.add_labels(plan, outputs, targets, mask, Label::of_bit),
            (Task::Sides, TargetRows::Values(targets)) => self.add_labels(plan, outputs, targets, mask, Label::of_side),
            (Task::Numbers, TargetRows::Values(targets)) => {
                let targets = targets.iter().map(|target| target.to_f64());
                self.errors.iter_mut().for_each(|errors| errors.add(outputs, targets.clone(), mask));
            }
            // Rows of numbers on softmax that happen to be one-hot.
            (Task::Numbers, TargetRows::Classes(classes)) => {
                let rows = classes.iter().map(|&class| class as usize);
                let targets = rows.flat_map(|class| (0..plan.units).map(move |unit| f64::from(unit == class)));
                self.errors.iter_mut().for_each(|errors| errors.add(outputs, targets.clone(), mask));
            }
            (Task::Bits | Task::Sides, TargetRows::Classes(_)) => {
                panic!("{:?} with targets of another kind", plan.task)
            }
        }
    }

    fn add_classes<T: Element>(
        &mut self,
        plan: &MetricPlan,
        outputs: &[T],
        right: impl Iterator<Item = usize>,
        mask: Option<&[T]>,
    ) {
        for (row, (outputs, right)) in outputs.chunks_exact(plan.units).zip(right).enumerate() {
            if !(0..plan.units).all(|unit| is_known(mask, row * plan.units + unit)) {
                self.unknown_rows += 1;
                continue;
            }
            let predicted = arg_max(outputs);
            self.wrong_rows += u64::from(predicted != right);
            self.top_k_hits.iter_mut().for_each(|hits| *hits += u64::from(rank(outputs, right) < plan.top_k));
            self.confusion.iter_mut().for_each(|confusion| confusion.add_class(right, predicted));
            self.log_loss.iter_mut().for_each(|sums| sums.add_class(plan.form, outputs[right]));
            self.ranking.iter_mut().for_each(|ranking| ranking.add_class(outputs, right));
        }
    }

    fn add_labels<T: Element>(
        &mut self,
        plan: &MetricPlan,
        outputs: &[T],
        targets: &[T],
        mask: Option<&[T]>,
        label: impl Fn(T, T) -> Label,
    ) {
        let rows = outputs.chunks_exact(plan.units).zip(targets.chunks_exact(plan.units));
        for (row, (outputs, targets)) in rows.enumerate() {
            let (mut is_unknown, mut is_right) = (true, true);
            for (unit, (&output, &target)) in outputs.iter().zip(targets).enumerate() {
                let known = is_known(mask, row * plan.units + unit).then(|| label(output, target));
                self.ranking.iter_mut().for_each(|ranking| ranking.add_label(output, known.map(|it| it.is_positive)));
                let Some(label) = known else { continue };
                is_unknown = false;
                is_right &= label.is_right;
                self.confusion.iter_mut().for_each(|confusion| confusion.add_label(unit, label));
                self.log_loss.iter_mut().for_each(|sums| sums.add_label(unit, output, label.is_positive));
            }
            self.wrong_rows += u64::from(!is_right);
            self.unknown_rows += u64::from(is_unknown);
        }
    }

    /// The wanted metrics of the `rows` rows that were added. `spread` is of the same rows' targets; `target_scale`
    /// what each output's target was divided by before training, if anything, so that errors are told in the targets'
    /// own unit. What no known target speaks of is `None`.
    pub fn finish(
        &mut self,
        plan: &MetricPlan,
        rows: usize,
        spread: &TargetSpread,
        target_scale: Option<&[f64]>,
    ) -> Metrics {
        let known_rows = rows as u64 - self.unknown_rows;
        let share = |hits: u64| (known_rows > 0).then(|| hits as f64 / known_rows as f64);
        let errors = self.errors.as_ref().and_then(|errors| errors.finish(spread, target_scale));
        let averages = self.confusion.as_ref().and_then(|confusion| confusion.finish(plan));
        let of_errors =
            |metric, value: fn(Errors) -> Option<f64>| errors.filter(|_| plan.wants(metric)).and_then(value);
        let of_classes = |metric, value: fn(Averages) -> f64| averages.filter(|_| plan.wants(metric)).map(value);
        Metrics {
            accuracy: share(known_rows - self.wrong_rows).filter(|_| plan.wants(Metric::Accuracy)),
            misclassified_rows: plan.wants(Metric::MisclassifiedRows).then_some(self.wrong_rows),
            mean_absolute_error: of_errors(Metric::MeanAbsoluteError, |it| Some(it.mean_absolute)),
            r2: of_errors(Metric::R2, |it| it.r2),
            top_k_accuracy: self.top_k_hits.and_then(share),
            precision: of_classes(Metric::Precision, |it| it.class_one.precision),
            recall: of_classes(Metric::Recall, |it| it.class_one.recall),
            f1: of_classes(Metric::F1, |it| it.class_one.f1),
            precision_macro: of_classes(Metric::PrecisionMacro, |it| it.by_class.precision),
            recall_macro: of_classes(Metric::RecallMacro, |it| it.by_class.recall),
            f1_macro: of_classes(Metric::F1Macro, |it| it.by_class.f1),
            precision_weighted: of_classes(Metric::PrecisionWeighted, |it| it.by_row.precision),
            recall_weighted: of_classes(Metric::RecallWeighted, |it| it.by_row.recall),
            f1_weighted: of_classes(Metric::F1Weighted, |it| it.by_row.f1),
            log_loss: self.log_loss.as_ref().and_then(LogLossSums::mean),
            roc_auc: self.ranking.as_mut().and_then(|ranking| ranking.area(plan)),
            root_mean_squared_error: of_errors(Metric::RootMeanSquaredError, |it| Some(it.root_mean_squared)),
        }
    }
}

/// What one output says of a label, and what is true.
#[derive(Clone, Copy)]
struct Label {
    is_positive: bool,
    is_right: bool,
}

impl Label {
    /// p ≥ ½ against y ≥ ½
    fn of_bit<T: Element>(p: T, y: T) -> Self {
        let half = T::ONE / T::TWO;
        let is_positive = y >= half;
        Self { is_positive, is_right: (p >= half) == is_positive }
    }

    /// y·z > 0. A z of 0 is on neither side and so wrong: it counts as the side that y is not on.
    fn of_side<T: Element>(z: T, y: T) -> Self {
        Self { is_positive: y > T::ZERO, is_right: y * z > T::ZERO }
    }
}

fn is_known<T: Element>(mask: Option<&[T]>, index: usize) -> bool {
    mask.is_none_or(|mask| mask[index] != T::ZERO)
}

/// `None` of no numbers.
fn mean(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = numbers.fold((0.0, 0), |(sum, count), number| (sum + number, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Numbers of a row from which on [`arg_max`] goes by vectors.
const LONG_MIN: usize = 32;

/// The index of the largest number; of several, the first. A NaN is never the largest, unless it comes first: then the index is 0.
#[inline]
pub fn arg_max<T: Element>(row: &[T]) -> usize {
    if row.len() >= LONG_MIN {
        return arg_max_of_long(row);
    }
    let (mut best, mut largest) = (0, row[0]);
    for (index, &x) in row.iter().enumerate().skip(1) {
        (best, largest) = if x > largest { (index, x) } else { (best, largest) };
    }
    best
}

fn arg_max_of_long<T: Element>(row: &[T]) -> usize {
    vectorized!({
        let largest = largest(row);
        // By whole chunks, so that no number is asked alone but in the right one.
        let mut first = 0;
        for chunk in row.chunks(LONG_MIN) {
            let mut has_it = false;
            for &x in chunk {
                has_it |= x == largest;
            }
            if has_it {
                break;
            }
            first += LONG_MIN;
        }
        let rest = row.get(first..).unwrap_or_default();
        rest.iter().position(|&x| x == largest).map_or(0, |index| first + index)
    })
}

/// How many numbers go before that at `index` in falling order, equal ones in the order of their indices, as
/// [`arg_max`] has it: the top 1 is what counts as right. (scikit-learn puts the last of equal ones first here, and
/// nowhere else.)
fn rank<T: Element>(row: &[T], index: usize) -> usize {
    let score = row[index];
    let before = row[..index].iter().filter(|&&other| other >= score).count();
    before + row[index + 1..].iter().filter(|&&other| other > score).count()
}

#[cfg(test)]
mod tests;
