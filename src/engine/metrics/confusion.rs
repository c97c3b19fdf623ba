//! Precision, recall and F1, from counts of what was said against what is true.

use serde::{Deserialize, Serialize};

use super::{Label, MetricPlan};
use crate::domain::Task;

/// Counts of each class, or of the positives of each label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Confusion {
    /// Rows of the class that were said to be.
    hits: Vec<u64>,
    /// Rows that were said to be of the class.
    predicted: Vec<u64>,
    /// Rows of the class.
    actual: Vec<u64>,
    /// Rows in which the label is known; empty for classes.
    known: Vec<u64>,
}

/// The counts of one class.
#[derive(Clone, Copy)]
struct Counts {
    hits: u64,
    predicted: u64,
    actual: u64,
}

/// What they come to; what divides by nothing is 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scores {
    /// hits / predicted
    pub precision: f64,
    /// hits / actual
    pub recall: f64,
    /// 2·hits / (predicted + actual), the harmonic mean of the two
    pub f1: f64,
}

/// The scores of class 1, and means over classes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Averages {
    /// Of class 1, or of the first label.
    pub class_one: Scores,
    /// Each class alike.
    pub by_class: Scores,
    /// Each class by its rows.
    pub by_row: Scores,
}

impl Confusion {
    pub(super) fn new(plan: &MetricPlan) -> Self {
        let counts = || vec![0; plan.units];
        let known = if plan.task == Task::Classes { Vec::new() } else { counts() };
        Self { hits: counts(), predicted: counts(), actual: counts(), known }
    }

    pub(super) fn clear(&mut self) {
        for counts in [&mut self.hits, &mut self.predicted, &mut self.actual, &mut self.known] {
            counts.fill(0);
        }
    }

    pub(super) fn width(&self) -> (usize, usize) {
        (self.hits.len(), self.known.len())
    }

    pub(super) fn add_class(&mut self, right: usize, predicted: usize) {
        self.actual[right] += 1;
        self.predicted[predicted] += 1;
        self.hits[right] += u64::from(predicted == right);
    }

    pub(super) fn add_label(&mut self, unit: usize, Label { is_positive, is_right }: Label) {
        self.known[unit] += 1;
        self.actual[unit] += u64::from(is_positive);
        self.predicted[unit] += u64::from(is_positive == is_right);
        self.hits[unit] += u64::from(is_positive && is_right);
    }

    /// `None` where no row is known. Means are over the classes that a row is of or was said to be of, no and yes being
    /// the classes of a single label; and over all labels where there are several.
    pub(super) fn finish(&self, plan: &MetricPlan) -> Option<Averages> {
        let of =
            |unit: usize| Counts { hits: self.hits[unit], predicted: self.predicted[unit], actual: self.actual[unit] };
        let (by_class, by_row) = match (plan.task, plan.units) {
            (Task::Classes, units) => averages((0..units).map(of).filter(|it| it.is_present())),
            (_, 1) => averages([of(0).of_the_others(self.known[0]), of(0)].into_iter().filter(|it| it.is_present())),
            (_, units) => averages((0..units).filter(|&unit| self.known[unit] > 0).map(of)),
        }?;
        let class_one = usize::from(plan.task == Task::Classes && plan.units > 1);
        Some(Averages { class_one: of(class_one).scores(), by_class, by_row })
    }
}

impl Counts {
    fn is_present(self) -> bool {
        self.predicted + self.actual > 0
    }

    /// The counts of the negatives, of a label that is known in so many rows.
    fn of_the_others(self, known: u64) -> Self {
        let Self { hits, predicted, actual } = self;
        Self { hits: known + hits - predicted - actual, predicted: known - predicted, actual: known - actual }
    }

    fn scores(self) -> Scores {
        let Self { hits, predicted, actual } = self;
        Scores {
            precision: ratio(hits as f64, predicted as f64),
            recall: ratio(hits as f64, actual as f64),
            f1: ratio(2.0 * hits as f64, (predicted + actual) as f64),
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Means over classes, each alike and each by its rows; `None` without classes.
fn averages(classes: impl Iterator<Item = Counts>) -> Option<(Scores, Scores)> {
    let (mut by_class, mut by_row) = (Scores::default(), Scores::default());
    let (mut count, mut rows) = (0_u64, 0_u64);
    for counts in classes {
        by_class.add(1.0, counts.scores());
        by_row.add(counts.actual as f64, counts.scores());
        count += 1;
        rows += counts.actual;
    }
    (count > 0).then(|| (by_class.divided_by(count as f64), by_row.divided_by(rows as f64)))
}

impl Scores {
    fn add(&mut self, weight: f64, scores: Self) {
        self.precision += weight * scores.precision;
        self.recall += weight * scores.recall;
        self.f1 += weight * scores.f1;
    }

    fn divided_by(self, divisor: f64) -> Self {
        Self {
            precision: ratio(self.precision, divisor),
            recall: ratio(self.recall, divisor),
            f1: ratio(self.f1, divisor),
        }
    }
}
