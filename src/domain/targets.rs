//! What a network is to say, checked against the loss that will judge it.

use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::architecture::{Architecture, Layer};
use super::fault::{At, Faults};
use super::loss::{Loss, TargetKind};
use super::matrix::{Matrix, RawMatrix, Values};
use super::metric::Task;

/// How far the sum of a row of probabilities may lie from 1: what float32 loses over thousands of classes.
const PROBABILITY_SUM_TOLERANCE: f64 = 1e-4;

/// Targets in the form that their loss wants, one a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Targets {
    /// The index of the right class (softmax and its logarithm).
    Classes(Vec<u32>),
    /// A value an output, as the loss wants it: see [`TargetKind`].
    Values(Matrix),
}

impl Targets {
    /// Checks targets for `rows` input rows. Classes come as one column of indices or as one-hot rows; what has two sides as
    /// −1 and 1 or as 0 and 1.
    pub fn check(
        raw: RawMatrix,
        rows: usize,
        loss: &Loss,
        architecture: &Architecture,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let Layer { units, activation, .. } = architecture.output_layer();
        let element_type = architecture.element_type();
        let is_index = activation.is_over_rows()
            && (raw.columns == Some(1) || (raw.columns.is_none() && raw.values.len() == rows));
        let columns = if is_index { 1 } else { units };
        let (count, are_classes) = (raw.values.len(), activation.is_over_rows() && !is_index);
        if are_classes && raw.columns.is_none() && ![0, rows * units].contains(&count) {
            // Which of the two was meant is not known.
            let all = rows * units;
            let message = format!(
                "needs {rows} (one class index a row of the inputs) or {all} ({units} a row) numbers, but holds {count}"
            );
            faults.add(at, message);
            return None;
        }
        let matrix = raw.check(columns, element_type, at, faults)?;
        if matrix.rows() != rows {
            faults.add(at, format!("has {} rows, but the inputs have {rows}", matrix.rows()));
            return None;
        }
        let checked = if is_index {
            class_indices(&matrix, units).map(Self::Classes)
        } else {
            Self::of_kind(loss, activation, matrix)
        };
        checked.map_err(|message| faults.add(at, message)).ok()
    }

    fn of_kind(loss: &Loss, activation: Activation, matrix: Matrix) -> Result<Self, String> {
        let name = loss.name();
        let values = |check: Result<(), String>, matrix| check.map(|()| Self::Values(matrix));
        match loss.target_kind(activation) {
            TargetKind::Classes => one_hot_rows(&matrix).map(Self::Classes),
            TargetKind::Distributions => match one_hot_rows(&matrix) {
                Ok(classes) => Ok(Self::Classes(classes)),
                Err(_) => values(distributions(&matrix), matrix),
            },
            TargetKind::ClassesOrNumbers => Ok(match one_hot_rows(&matrix) {
                Ok(classes) => Self::Classes(classes),
                Err(_) => Self::Values(matrix),
            }),
            TargetKind::Bits => values(each(&matrix, |y| y == 0.0 || y == 1.0, name, "0 or 1"), matrix),
            TargetKind::Signs => plus_or_minus_one(&matrix, name).map(Self::Values),
            TargetKind::Numbers => Ok(Self::Values(matrix)),
            TargetKind::NonNegative => values(each(&matrix, |y| y >= 0.0, name, "0 or more"), matrix),
            TargetKind::Positive => values(each(&matrix, |y| y > 0.0, name, "more than 0"), matrix),
        }
    }

    /// Whether every target is 0 or 1.
    pub fn are_bits(&self) -> bool {
        matches!(self, Self::Values(matrix) if matrix.values().iter().all(|y| y == 0.0 || y == 1.0))
    }

    /// Whether every row is a class, or probabilities of classes.
    pub fn are_distributions(&self) -> bool {
        match self {
            Self::Classes(_) => true,
            Self::Values(matrix) => distributions(matrix).is_ok(),
        }
    }

    /// How many classes the rows are of in a task, where each has one: `units` of a softmax, or the two sides of one unit.
    pub(super) fn class_count(&self, units: usize, task: Task) -> Option<usize> {
        match (self, task) {
            (Self::Classes(_), _) => Some(units),
            (Self::Values(matrix), Task::Bits | Task::Sides) => (matrix.columns() == 1).then_some(2),
            (Self::Values(_), Task::Classes | Task::Numbers) => None,
        }
    }

    /// The class of each row, where rows have one (see [`class_count`](Self::class_count)): 0 and 1 for the sides of one unit.
    pub(super) fn classes(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match self {
            Self::Classes(classes) => Box::new(classes.iter().map(|&class| class as usize)),
            Self::Values(matrix) => Box::new(matrix.values().iter().map(|value| usize::from(value > 0.0))),
        }
    }

    /// One a row.
    pub fn rows(&self) -> usize {
        match self {
            Self::Classes(classes) => classes.len(),
            Self::Values(matrix) => matrix.rows(),
        }
    }

    /// The class of each row, where rows have one: what a stratified split keeps in proportion.
    pub fn strata(&self) -> Option<Vec<u32>> {
        match self {
            Self::Classes(classes) => Some(classes.clone()),
            Self::Values(matrix) if matrix.columns() == 1 && is_binary(matrix.values()) => {
                Some(matrix.values().iter().map(|value| u32::from(value > 0.0)).collect())
            }
            Self::Values(_) => None,
        }
    }
}

/// Whether every value is 0 or 1, or every value is −1 or 1.
fn is_binary(values: &Values) -> bool {
    values.iter().all(|value| value == 0.0 || value == 1.0) || values.iter().all(|value| value.abs() == 1.0)
}

fn class_indices(matrix: &Matrix, classes: usize) -> Result<Vec<u32>, String> {
    let index = |(row, value): (usize, f64)| {
        if value.fract() == 0.0 && value >= 0.0 && value < classes as f64 {
            return Ok(value as u32);
        }
        Err(format!(
            "row {row} (from 0) is {}, but a class index is a whole number from 0 to {}",
            matrix.show(row, 0),
            classes - 1
        ))
    };
    matrix.values().iter().enumerate().map(index).collect()
}

fn one_hot_rows(matrix: &Matrix) -> Result<Vec<u32>, String> {
    let class = |row: usize| {
        let values = || (0..matrix.columns()).map(|column| matrix.get(row, column));
        let ones = values().filter(|&value| value == 1.0).count();
        let zeros = values().filter(|&value| value == 0.0).count();
        if ones == 1 && ones + zeros == matrix.columns() {
            return Ok(values().position(|value| value == 1.0).unwrap_or(0) as u32);
        }
        Err(format!(
            "row {row} (from 0) is not one-hot: it needs a single 1 and zeros (or send one column of class indices)"
        ))
    };
    (0..matrix.rows()).map(class).collect()
}

/// Rows of probabilities.
fn distributions(matrix: &Matrix) -> Result<(), String> {
    for row in 0..matrix.rows() {
        let values = || (0..matrix.columns()).map(|column| matrix.get(row, column));
        let sum: f64 = values().sum();
        let fault = match values().position(|q| q < 0.0) {
            Some(column) => {
                format!("column {column} (from 0) is {}, but each must be at least 0", matrix.show(row, column))
            }
            None if (sum - 1.0).abs() > PROBABILITY_SUM_TOLERANCE => format!("their sum is {sum}, not 1"),
            None => continue,
        };
        return Err(format!(
            "row {row} (from 0) is neither one-hot nor probabilities: {fault} (or send one column of class indices)"
        ));
    }
    Ok(())
}

/// Whether each value is what a loss needs.
fn each(matrix: &Matrix, is_right: fn(f64) -> bool, loss: &str, needed: &str) -> Result<(), String> {
    match matrix.values().iter().position(|value| !is_right(value)) {
        None => Ok(()),
        Some(index) => Err(format!(
            "row {} (from 0) has {}, but {loss} needs {needed}",
            index / matrix.columns(),
            matrix.values().show(index)
        )),
    }
}

fn plus_or_minus_one(matrix: &Matrix, loss: &str) -> Result<Matrix, String> {
    if !is_binary(matrix.values()) {
        return Err(format!("must be all −1 and 1, or all 0 and 1, for {loss}"));
    }
    let signs = matrix.values().iter().map(|value| if value > 0.0 { 1.0 } else { -1.0 }).collect();
    let signs = Values::F64(signs).into_element_type(matrix.values().element_type());
    Ok(Matrix::from_values(matrix.rows(), matrix.columns(), signs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::architecture::{RawArchitecture, RawLayer};

    fn check(units: i64, activation: Activation, loss: Loss, rows: usize, values: &[f64]) -> Result<Targets, Faults> {
        let layer = RawLayer { units, activation, ..RawLayer::default() };
        let raw = RawArchitecture { input_width: 1, layers: vec![Some(layer)], ..RawArchitecture::default() };
        let mut faults = Faults::new();
        let architecture = raw.check(At::ROOT, &mut faults).unwrap();
        let raw = RawMatrix { values: Values::F64(values.to_vec()), rows: None, columns: None };
        let targets = Targets::check(raw, rows, &loss, &architecture, At::ROOT.field("targets"), &mut faults);
        faults.finish(targets)
    }

    #[test]
    fn classes_come_as_indices_or_as_one_hot_rows() {
        let softmax = |values: &[f64]| check(3, Activation::LogSoftmax, Loss::NegativeLogLikelihood, 2, values);
        assert_eq!(softmax(&[2.0, 0.0]), Ok(Targets::Classes(vec![2, 0])));
        assert_eq!(softmax(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), Ok(Targets::Classes(vec![2, 0])));
        for wrong in [&[3.0, 0.0][..], &[0.5, 1.0], &[-1.0, 0.0], &[0.0, 1.0, 1.0, 1.0, 0.0, 0.0], &[1.0; 5]] {
            assert_eq!(softmax(wrong).unwrap_err().as_slice()[0].path, "targets", "{wrong:?}");
        }
        let short = softmax(&[1.0; 5]).unwrap_err().to_string();
        assert!(
            short.contains("needs 2 (one class index a row of the inputs) or 6 (3 a row) numbers, but holds 5"),
            "{short}"
        );
    }

    #[test]
    fn rows_of_probabilities_are_kept_and_checked() {
        let cross_entropy = Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 };
        let softmax = |values: &[f64]| check(3, Activation::Softmax, cross_entropy.clone(), 2, values);
        assert_eq!(softmax(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), Ok(Targets::Classes(vec![2, 0])));
        assert!(matches!(softmax(&[0.25, 0.5, 0.25, 1.0, 0.0, 0.0]), Ok(Targets::Values(_))));
        for wrong in [[0.5, 0.6, 0.0, 1.0, 0.0, 0.0], [1.5, -0.5, 0.0, 1.0, 0.0, 0.0]] {
            assert!(softmax(&wrong).unwrap_err().to_string().contains("row 0 (from 0) is neither one-hot nor"));
        }
        let negative = softmax(&[1.5, -0.5, 0.0, 1.0, 0.0, 0.0]).unwrap_err().to_string();
        assert!(negative.contains("column 1 (from 0) is -0.5"), "{negative}");
    }

    #[test]
    fn amounts_must_be_in_the_range_of_their_loss() {
        let amounts = |loss, value: f64| check(1, Activation::Identity, loss, 1, &[value]).is_ok();
        assert!(amounts(Loss::Poisson, 0.0) && !amounts(Loss::Poisson, -1.0));
        assert!(amounts(Loss::GammaDeviance, 0.1) && !amounts(Loss::GammaDeviance, 0.0));
        let tweedie = Loss::TweedieDeviance { power: 1.5 };
        assert!(amounts(tweedie.clone(), 0.0) && !amounts(tweedie, -0.1));
    }

    #[test]
    fn a_perceptron_takes_signs_or_bits_but_not_both() {
        let sign = |values: &[f64]| check(1, Activation::Sign, Loss::Perceptron, values.len(), values);
        let signs = Targets::Values(Matrix::from_values(2, 1, Values::F32(vec![-1.0, 1.0])));
        assert_eq!(sign(&[-1.0, 1.0]), Ok(signs.clone()));
        assert_eq!(sign(&[0.0, 1.0]), Ok(signs));
        assert!(sign(&[-1.0, 0.0]).is_err());
        assert!(sign(&[2.0, 1.0]).is_err());
    }

    #[test]
    fn bits_are_bits_and_rows_match_the_inputs() {
        let loss = || Loss::BinaryCrossEntropy { positive_weights: Vec::new() };
        let bits = |rows, values: &[f64]| check(1, Activation::Sigmoid, loss(), rows, values);
        assert!(bits(2, &[0.0, 1.0]).is_ok());
        assert!(bits(2, &[0.0, 0.9]).unwrap_err().to_string().contains("row 1 (from 0) has 0.9"));
        assert!(bits(3, &[0.0, 1.0]).unwrap_err().to_string().contains("has 2 rows, but the inputs have 3"));
    }
}
