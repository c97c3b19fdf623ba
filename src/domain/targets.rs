//! What a network is to say, checked against the loss that will judge it.

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults};
use super::matrix::{Matrix, RawMatrix, Values};
use super::model::{Activation, Architecture, Layer};
use super::training::Loss;

/// Targets in the form that their loss wants, one a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Targets {
    /// The index of the right class (softmax).
    Classes(Vec<u32>),
    /// A value an output: any number (squared error), 0 or 1 (binary cross-entropy), −1 or 1 (perceptron criterion).
    Values(Matrix),
}

impl Targets {
    /// Checks targets for `rows` input rows. Classes come as one column of indices or as one-hot rows; those of a
    /// perceptron as −1 and 1 or as 0 and 1.
    pub fn check(
        raw: RawMatrix,
        rows: usize,
        loss: Loss,
        architecture: &Architecture,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let Layer { units, activation, .. } = architecture.output_layer();
        let element_type = architecture.element_type();
        let is_index = activation == Activation::Softmax
            && (raw.columns == Some(1) || (raw.columns.is_none() && raw.values.len() == rows));
        let columns = if is_index { 1 } else { units };
        let matrix = raw.check(columns, element_type, at, faults)?;
        if matrix.rows() != rows {
            faults.add(at, format!("has {} rows, but the inputs have {rows}", matrix.rows()));
            return None;
        }
        let checked = match (activation, loss) {
            (Activation::Softmax, _) if is_index => class_indices(&matrix, units).map(Self::Classes),
            (Activation::Softmax, _) => one_hot_rows(&matrix).map(Self::Classes),
            (_, Loss::BinaryCrossEntropy) => zero_or_one(&matrix).map(|()| Self::Values(matrix)),
            (_, Loss::Perceptron) => plus_or_minus_one(&matrix).map(Self::Values),
            (
                _,
                Loss::SquaredError
                | Loss::SoftmaxCrossEntropy
                | Loss::AbsoluteError
                | Loss::Huber { .. }
                | Loss::LogCosh,
            ) => Ok(Self::Values(matrix)),
        };
        checked.map_err(|message| faults.add(at, message)).ok()
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

fn zero_or_one(matrix: &Matrix) -> Result<(), String> {
    match matrix.values().iter().position(|value| value != 0.0 && value != 1.0) {
        None => Ok(()),
        Some(index) => Err(format!(
            "row {} (from 0) has {}, but binary cross-entropy needs 0 or 1",
            index / matrix.columns(),
            matrix.values().show(index)
        )),
    }
}

fn plus_or_minus_one(matrix: &Matrix) -> Result<Matrix, String> {
    if !is_binary(matrix.values()) {
        return Err("must be all −1 and 1, or all 0 and 1, for the perceptron criterion".to_owned());
    }
    let signs = matrix.values().iter().map(|value| if value > 0.0 { 1.0 } else { -1.0 }).collect();
    let signs = Values::F64(signs).into_element_type(matrix.values().element_type());
    Ok(Matrix::from_values(matrix.rows(), matrix.columns(), signs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::matrix::ElementType;
    use crate::domain::model::{RawArchitecture, RawLayer};

    fn check(units: i64, activation: Activation, loss: Loss, rows: usize, values: &[f64]) -> Result<Targets, Faults> {
        let layer = RawLayer { units, activation, activation_alpha: None, bias: true };
        let raw = RawArchitecture { input_width: 1, element_type: ElementType::Float32, layers: vec![Some(layer)] };
        let mut faults = Faults::new();
        let architecture = raw.check(At::ROOT, &mut faults).unwrap();
        let raw = RawMatrix { values: Values::F64(values.to_vec()), rows: None, columns: None };
        let targets = Targets::check(raw, rows, loss, &architecture, At::ROOT.field("targets"), &mut faults);
        faults.finish(targets)
    }

    #[test]
    fn classes_come_as_indices_or_as_one_hot_rows() {
        let softmax = |values: &[f64]| check(3, Activation::Softmax, Loss::SoftmaxCrossEntropy, 2, values);
        assert_eq!(softmax(&[2.0, 0.0]), Ok(Targets::Classes(vec![2, 0])));
        assert_eq!(softmax(&[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), Ok(Targets::Classes(vec![2, 0])));
        for wrong in [&[3.0, 0.0][..], &[0.5, 1.0], &[-1.0, 0.0], &[0.0, 1.0, 1.0, 1.0, 0.0, 0.0], &[1.0; 5]] {
            assert_eq!(softmax(wrong).unwrap_err().as_slice()[0].path, "targets", "{wrong:?}");
        }
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
        let bits = |rows, values: &[f64]| check(1, Activation::Sigmoid, Loss::BinaryCrossEntropy, rows, values);
        assert!(bits(2, &[0.0, 1.0]).is_ok());
        assert!(bits(2, &[0.0, 0.9]).unwrap_err().to_string().contains("row 1 (from 0) has 0.9"));
        assert!(bits(3, &[0.0, 1.0]).unwrap_err().to_string().contains("has 2 rows, but the inputs have 3"));
    }
}
