//! The area under the ROC curve, by ranks: the share of pairs of a positive and a negative row in which the positive
//! one has the higher score, ties counted half (Mann and Whitney 1947). That is the area by trapezoids.

use std::mem::size_of;

use serde::{Deserialize, Serialize};

use super::MetricPlan;
use crate::domain::Task;
use crate::engine::element::Element;

/// A label that is not known.
const UNKNOWN: u32 = u32::MAX;

/// The scores of all rows so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ranking {
    /// Scores a row. Two classes have one, that of class 1.
    columns: usize,
    /// `[rows, columns]`
    scores: Vec<f64>,
    /// The right class of each row; or, `[rows, columns]`, whether each label is positive: 0, 1 or [`UNKNOWN`].
    labels: Vec<u32>,
    /// Room to sort one column in. Empty but for that.
    #[serde(skip)]
    sorted: Vec<f64>,
}

impl Ranking {
    /// With room for `rows` rows.
    pub(super) fn new(plan: &MetricPlan, rows: usize) -> Self {
        let columns = columns(plan);
        Self {
            columns,
            scores: Vec::with_capacity(rows * columns),
            labels: Vec::with_capacity(rows * labels_a_row(plan)),
            sorted: Vec::with_capacity(rows),
        }
    }

    /// What [`new`](Self::new) reserves.
    pub(super) fn bytes(plan: &MetricPlan, rows: usize) -> u64 {
        let a_row = (columns(plan) + 1) * size_of::<f64>() + labels_a_row(plan) * size_of::<u32>();
        rows as u64 * a_row as u64
    }

    pub(super) fn clear(&mut self) {
        self.scores.clear();
        self.labels.clear();
    }

    pub(super) fn width(&self) -> usize {
        self.columns
    }

    /// Takes over the rows of another.
    pub(super) fn resume(&mut self, saved: &Self) {
        self.clear();
        self.scores.extend_from_slice(&saved.scores);
        self.labels.extend_from_slice(&saved.labels);
    }

    /// The outputs of a row, and its right class.
    pub(super) fn add_class<T: Element>(&mut self, outputs: &[T], right: usize) {
        let scores = &outputs[outputs.len() - self.columns..];
        self.scores.extend(scores.iter().map(|score| score.to_f64()));
        self.labels.push(right as u32);
    }

    /// The output of a label, and whether it is positive, if that is known. Labels come in the order of their units.
    pub(super) fn add_label<T: Element>(&mut self, output: T, is_positive: Option<bool>) {
        self.scores.push(output.to_f64());
        self.labels.push(is_positive.map_or(UNKNOWN, u32::from));
    }

    /// The mean of the areas of all labels, or of all classes against the rest. `None` where one has rows of one kind
    /// only.
    pub(super) fn area(&mut self, plan: &MetricPlan) -> Option<f64> {
        let mean = self.mean_area(plan);
        self.sorted.clear();
        mean
    }

    fn mean_area(&mut self, plan: &MetricPlan) -> Option<f64> {
        let has_classes = plan.task == Task::Classes && self.columns > 1;
        let (mut sum, mut count) = (0.0, 0);
        for column in 0..self.columns {
            self.sorted.clear();
            let positives = if has_classes { self.gather_class(column) } else { self.gather_label(column) };
            // A label that is known of no row is left out.
            if !self.sorted.is_empty() {
                let (positives, negatives) = self.sorted.split_at_mut(positives);
                sum += area(positives, negatives)?;
                count += 1;
            }
        }
        (count > 0).then(|| sum / f64::from(count))
    }

    /// Puts the scores of a class into `sorted`, those of its own rows first. Returns how many those are.
    fn gather_class(&mut self, class: usize) -> usize {
        let rows = || self.scores.iter().skip(class).step_by(self.columns).zip(&self.labels);
        let is_own = |label: u32| label as usize == class;
        self.sorted.extend(rows().filter(|&(_, &label)| is_own(label)).map(|(&score, _)| score));
        let positives = self.sorted.len();
        self.sorted.extend(rows().filter(|&(_, &label)| !is_own(label)).map(|(&score, _)| score));
        positives
    }

    /// Puts the scores of a label into `sorted`, those of positive rows first. Returns how many those are.
    fn gather_label(&mut self, unit: usize) -> usize {
        let column = |wanted: u32| {
            let rows = self.scores.iter().zip(&self.labels).skip(unit).step_by(self.columns);
            rows.filter(move |&(_, &label)| label == wanted).map(|(&score, _)| score)
        };
        self.sorted.extend(column(1));
        let positives = self.sorted.len();
        self.sorted.extend(column(0));
        positives
    }
}

fn columns(plan: &MetricPlan) -> usize {
    if plan.task == Task::Classes && plan.units == 2 { 1 } else { plan.units }
}

fn labels_a_row(plan: &MetricPlan) -> usize {
    if plan.task == Task::Classes { 1 } else { plan.units }
}

/// U / (n⁺·n⁻), U = Σ over positives of the negatives below + ½ of those equal. Sorts both. `None` where one is empty.
fn area(positives: &mut [f64], negatives: &mut [f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    positives.sort_unstable_by(f64::total_cmp);
    negatives.sort_unstable_by(f64::total_cmp);
    // Counts are whole, so the sum is exact: no more than the square of the rows.
    let (mut below, mut not_above, mut twice_u) = (0, 0, 0_u64);
    for positive in positives.iter() {
        below += negatives[below..].iter().take_while(|&negative| negative < positive).count();
        not_above += negatives[not_above..].iter().take_while(|&negative| negative <= positive).count();
        twice_u += (below + not_above) as u64;
    }
    Some(twice_u as f64 / (2.0 * positives.len() as f64 * negatives.len() as f64))
}
