//! Errors of numbers: MAE, RMSE and R², each the mean over outputs of what each output comes to.

use serde::{Deserialize, Serialize};

use super::{is_known, mean};
use crate::engine::element::Element;
use crate::engine::loss::TargetRows;

/// Sums over the known targets of each output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ErrorSums {
    /// Σ|ŷ − y|
    absolute: Vec<f64>,
    /// Σ(ŷ − y)²
    squared: Vec<f64>,
    counts: Vec<u64>,
}

/// What the sums come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Errors {
    /// Σ|ŷ − y| / n
    pub mean_absolute: f64,
    /// √(Σ(ŷ − y)² / n)
    pub root_mean_squared: f64,
    /// 1 − Σ(y − ŷ)² / Σ(y − ȳ)²; `None` where no output has two targets.
    pub r2: Option<f64>,
}

impl ErrorSums {
    pub(super) fn new(units: usize) -> Self {
        Self { absolute: vec![0.0; units], squared: vec![0.0; units], counts: vec![0; units] }
    }

    pub(super) fn clear(&mut self) {
        self.absolute.fill(0.0);
        self.squared.fill(0.0);
        self.counts.fill(0);
    }

    pub(super) fn width(&self) -> usize {
        self.counts.len()
    }

    /// Outputs, targets and mask are `[rows, units]`.
    pub(super) fn add<T: Element>(
        &mut self,
        outputs: &[T],
        mut targets: impl Iterator<Item = f64>,
        mask: Option<&[T]>,
    ) {
        let units = self.width();
        for (row, outputs) in outputs.chunks_exact(units).enumerate() {
            for (unit, (output, target)) in outputs.iter().zip(&mut targets).enumerate() {
                if is_known(mask, row * units + unit) {
                    let error = output.to_f64() - target;
                    self.absolute[unit] += error.abs();
                    self.squared[unit] += error * error;
                    self.counts[unit] += 1;
                }
            }
        }
    }

    /// `None` where no target is known. An output without one is left out of the means; from that of R², also an output
    /// with one alone, whose spread nothing tells.
    pub(super) fn finish(&self, spread: &TargetSpread, target_scale: Option<&[f64]>) -> Option<Errors> {
        let counts = || self.counts.iter().enumerate();
        let known = || counts().filter(|&(_, &count)| count > 0);
        let scale = |unit: usize| target_scale.map_or(1.0, |scale| scale[unit]);
        let absolute = known().map(|(unit, &count)| self.absolute[unit] * scale(unit) / count as f64);
        let root = known().map(|(unit, &count)| (self.squared[unit] / count as f64).sqrt() * scale(unit));
        let several = counts().filter(|&(_, &count)| count > 1);
        let r2 = several.map(|(unit, _)| r2(self.squared[unit], spread.total_squares[unit]));
        Some(Errors { mean_absolute: mean(absolute)?, root_mean_squared: mean(root)?, r2: mean(r2) })
    }
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
    /// Of targets `[rows, units]`, those left out where `mask` is 0. Classes count as one-hot rows.
    pub fn new<T: Element>(targets: TargetRows<'_, T>, units: usize, mask: Option<&[T]>) -> Self {
        let total_squares = match targets {
            TargetRows::Classes(classes) => of_classes(classes, units, mask),
            TargetRows::Values(values) => {
                let known = |unit| (unit..values.len()).step_by(units).filter(move |&index| is_known(mask, index));
                (0..units).map(|unit| total_squares(known(unit).map(|index| values[index].to_f64()))).collect()
            }
        };
        Self { total_squares }
    }
}

/// k·(1 − k/n) for each class, of whose n known targets k are 1 and the others 0.
fn of_classes<T: Element>(classes: &[u32], units: usize, mask: Option<&[T]>) -> Vec<f64> {
    let rows = classes.len();
    let mut ones = vec![0_u64; units];
    for (row, &class) in classes.iter().enumerate() {
        ones[class as usize] += u64::from(is_known(mask, row * units + class as usize));
    }
    let known = |unit: usize| match mask {
        None => rows,
        Some(_) => (0..rows).filter(|row| is_known(mask, row * units + unit)).count(),
    };
    let total = |(unit, &ones): (usize, &u64)| match ones {
        0 => 0.0,
        ones => ones as f64 * (1.0 - ones as f64 / known(unit) as f64),
    };
    ones.iter().enumerate().map(total).collect()
}

fn total_squares(column: impl Iterator<Item = f64> + Clone) -> f64 {
    let first = column.clone().next();
    // The mean of equal numbers may be rounded, and would differ from each of them.
    if column.clone().all(|y| Some(y) == first) {
        return 0.0;
    }
    let (sum, count) = column.clone().fold((0.0, 0_u64), |(sum, count), y| (sum + y, count + 1));
    let mean = sum / count as f64;
    column.map(|y| (y - mean) * (y - mean)).sum()
}
