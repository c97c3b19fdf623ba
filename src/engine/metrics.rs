//! How well a network did, told from the outputs of the same forward passes as the loss.

use serde::{Deserialize, Serialize};

use super::element::Element;
use super::loss::{Objective, TargetRows};
use crate::domain::{Activation, Loss, Metrics};

/// What counts as right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One class a row: the largest output (the first of several) is the right class's.
    Classes,
    /// A yes or no an output: at least ½ where the target is 1, less where it is 0. A row is right where all its outputs
    /// are.
    Bits,
    /// A side of a plane an output: y·z > 0. A row is right where all its outputs are.
    Sides,
    /// Numbers: the nearer the better.
    Numbers,
}

impl Task {
    /// What a loss on an output is meant for. A sigmoid output with a loss of
    /// residuals classifies where every target is 0 or 1.
    pub fn new(objective: &Objective, has_binary_targets: bool) -> Self {
        match (objective.loss(), objective.activation()) {
            (Loss::SoftmaxCrossEntropy, _) | (Loss::SquaredError, Activation::Softmax) => Self::Classes,
            (Loss::BinaryCrossEntropy, _) => Self::Bits,
            (Loss::Perceptron, _) => Self::Sides,
            (Loss::SquaredError | Loss::AbsoluteError | Loss::Huber { .. } | Loss::LogCosh, activation) => {
                let is_binary = activation == Activation::Sigmoid && has_binary_targets;
                if is_binary { Self::Bits } else { Self::Numbers }
            }
        }
    }
}

/// Sums over the rows seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricSums {
    /// Rows that are wrong.
    pub wrong_rows: u64,
    /// Σ|ŷ − y| of each output, for numbers.
    absolute: Vec<f64>,
    /// Σ(ŷ − y)² of each output, for numbers.
    squared: Vec<f64>,
}

impl MetricSums {
    /// No row yet.
    pub fn new(task: Task, units: usize) -> Self {
        let width = if task == Task::Numbers { units } else { 0 };
        Self { wrong_rows: 0, absolute: vec![0.0; width], squared: vec![0.0; width] }
    }

    /// No row again.
    pub fn clear(&mut self) {
        self.wrong_rows = 0;
        self.absolute.fill(0.0);
        self.squared.fill(0.0);
    }

    /// Whether these are sums for the same task and outputs.
    pub fn has_shape_of(&self, other: &Self) -> bool {
        self.absolute.len() == other.absolute.len() && self.squared.len() == other.squared.len()
    }

    /// Adds rows: `outputs`, `[rows, units]`, as [`Objective::evaluate`] leaves them.
    pub fn add<T: Element>(&mut self, task: Task, units: usize, outputs: &[T], targets: TargetRows<'_, T>) {
        let rows = outputs.chunks_exact(units);
        let wrong_rows = match (task, targets) {
            (Task::Classes, TargetRows::Classes(classes)) => {
                rows.zip(classes).filter(|(row, class)| arg_max(row) != **class as usize).count()
            }
            (Task::Bits, TargetRows::Values(targets)) => {
                let half = T::from_f64(0.5);
                count_wrong(rows, targets, units, |output, target| (output >= half) == (target == T::ONE))
            }
            (Task::Sides, TargetRows::Values(targets)) => {
                count_wrong(rows, targets, units, |z, target| z * target > T::ZERO)
            }
            (Task::Numbers, TargetRows::Values(targets)) => {
                rows.zip(targets.chunks_exact(units)).for_each(|(row, target)| self.add_errors(row, target));
                0
            }
            (Task::Classes, TargetRows::Values(_))
            | (Task::Bits | Task::Sides | Task::Numbers, TargetRows::Classes(_)) => {
                panic!("{task:?} with targets of another kind")
            }
        };
        self.wrong_rows += wrong_rows as u64;
    }

    fn add_errors<T: Element>(&mut self, outputs: &[T], targets: &[T]) {
        let sums = self.absolute.iter_mut().zip(&mut self.squared);
        for ((absolute, squared), (output, target)) in sums.zip(outputs.iter().zip(targets)) {
            let error = output.to_f64() - target.to_f64();
            *absolute += error.abs();
            *squared += error * error;
        }
    }

    /// The metrics of `rows` rows. `spread` is of the same rows' targets; `target_scale` what each output's target was
    /// divided by before training, if anything, so that errors are told in the targets' own unit.
    pub fn finish(&self, task: Task, rows: usize, spread: &TargetSpread, target_scale: Option<&[f64]>) -> Metrics {
        let rows_f64 = rows as f64;
        match task {
            Task::Classes | Task::Bits | Task::Sides => Metrics {
                accuracy: Some((rows as u64 - self.wrong_rows) as f64 / rows_f64),
                misclassified_rows: Some(self.wrong_rows),
                ..Metrics::default()
            },
            Task::Numbers => {
                let units = self.absolute.len();
                let scale = |unit: usize| target_scale.map_or(1.0, |scale| scale[unit]);
                let absolute = self.absolute.iter().enumerate().map(|(unit, sum)| sum * scale(unit)).sum::<f64>();
                let r2 = self.squared.iter().zip(&spread.total_squares).map(|(&error, &total)| r2(error, total));
                Metrics {
                    mean_absolute_error: Some(absolute / (rows_f64 * units as f64)),
                    r2: Some(r2.sum::<f64>() / units as f64),
                    ..Metrics::default()
                }
            }
        }
    }
}

/// The index of the largest number; of several, the first.
pub fn arg_max<T: Element>(row: &[T]) -> usize {
    (1..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}

fn count_wrong<'a, T: Element>(
    rows: impl Iterator<Item = &'a [T]>,
    targets: &[T],
    units: usize,
    is_right: impl Fn(T, T) -> bool,
) -> usize {
    let is_wrong = |(row, targets): (&[T], &[T])| !row.iter().zip(targets).all(|(&it, &target)| is_right(it, target));
    rows.zip(targets.chunks_exact(units)).filter(|&pair| is_wrong(pair)).count()
}

/// 1 − Σ(y − ŷ)² ÷ Σ(y − ȳ)²; for targets that are all the same, 1 where every prediction hits and 0 otherwise (as
/// scikit-learn).
fn r2(error_squares: f64, total_squares: f64) -> f64 {
    if error_squares == 0.0 {
        1.0
    } else if total_squares == 0.0 {
        0.0
    } else {
        1.0 - error_squares / total_squares
    }
}

/// How far the targets of some rows lie apart: what R² compares errors with. Told once, since the rows stay the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetSpread {
    /// Σ(y − ȳ)² of each output.
    total_squares: Vec<f64>,
}

impl TargetSpread {
    /// Of targets `[rows, units]`; classes have none.
    pub fn new<T: Element>(targets: TargetRows<'_, T>, units: usize) -> Self {
        let TargetRows::Values(values) = targets else { return Self::default() };
        let total_squares = (0..units).map(|unit| {
            let column = || values[unit..].iter().step_by(units).map(|value| value.to_f64());
            let first = values[unit].to_f64();
            if column().all(|y| y == first) {
                return 0.0;
            }
            let mean = column().sum::<f64>() / (values.len() / units) as f64;
            column().map(|y| (y - mean) * (y - mean)).sum()
        });
        Self { total_squares: total_squares.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(
        task: Task,
        units: usize,
        outputs: &[f64],
        targets: TargetRows<'_, f64>,
        scale: Option<&[f64]>,
    ) -> Metrics {
        let mut sums = MetricSums::new(task, units);
        sums.add(task, units, outputs, targets);
        sums.finish(task, outputs.len() / units, &TargetSpread::new(targets, units), scale)
    }

    fn wrong(task: Task, units: usize, outputs: &[f64], targets: TargetRows<'_, f64>) -> u64 {
        measure(task, units, outputs, targets, None).misclassified_rows.unwrap()
    }

    #[test]
    fn a_row_is_right_where_all_its_outputs_are() {
        let classes = TargetRows::Classes(&[1, 0]);
        assert_eq!(wrong(Task::Classes, 3, &[0.2, 0.5, 0.3, 0.4, 0.4, 0.2], classes), 0);
        let bits = TargetRows::Values(&[1.0, 0.0, 1.0, 1.0]);
        assert_eq!(wrong(Task::Bits, 2, &[0.5, 0.4, 0.9, 0.1], bits), 1);
        let metrics = measure(Task::Bits, 2, &[0.5, 0.4, 0.9, 0.1], bits, None);
        assert_eq!((metrics.accuracy, metrics.mean_absolute_error), (Some(0.5), None));
    }

    #[test]
    fn a_row_on_the_plane_is_on_neither_side() {
        assert_eq!(wrong(Task::Sides, 1, &[0.0, 0.0, 0.1, -0.1], TargetRows::Values(&[1.0, -1.0, 1.0, -1.0])), 2);
    }

    /// `sklearn.metrics.r2_score` and `mean_absolute_error` on [[0.5, 1], [−1, 1], [7, −6]] and [[0, 2], [−1, 2], [8, −5]].
    #[test]
    fn errors_of_numbers_are_those_of_scikit_learn() {
        let targets = [0.5, 1.0, -1.0, 1.0, 7.0, -6.0];
        let outputs = [0.0, 2.0, -1.0, 2.0, 8.0, -5.0];
        let metrics = measure(Task::Numbers, 2, &outputs, TargetRows::Values(&targets), None);
        assert_eq!(metrics.mean_absolute_error, Some(0.75));
        assert!((metrics.r2.unwrap() - 0.936_800_526_662_277_8).abs() < 1e-12, "{metrics:?}");
        let scaled = measure(Task::Numbers, 2, &outputs, TargetRows::Values(&targets), Some(&[2.0, 10.0]));
        assert!((scaled.mean_absolute_error.unwrap() - (1.5 * 2.0 + 3.0 * 10.0) / 6.0).abs() < 1e-15);
        assert_eq!(scaled.r2, metrics.r2);
    }

    #[test]
    fn constant_targets_have_r2_one_if_hit_and_zero_if_missed() {
        let r2 = |outputs: &[f64]| measure(Task::Numbers, 1, outputs, TargetRows::Values(&[0.1; 3]), None).r2;
        assert_eq!(r2(&[0.1; 3]), Some(1.0));
        assert_eq!(r2(&[0.1, 0.1, 0.2]), Some(0.0));
    }
}
