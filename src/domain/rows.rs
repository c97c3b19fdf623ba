//! The rows of a training: inputs, targets, and how much each of them counts.

use serde::{Deserialize, Serialize};

use super::architecture::Architecture;
use super::fault::{At, Faults};
use super::loss::Loss;
use super::matrix::{ElementType, Matrix, RawMatrix, Values};
use super::targets::Targets;

/// Rows with their targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// What the network is shown.
    pub inputs: Matrix,
    /// What it is to say.
    pub targets: Targets,
    /// How much each row counts, `[rows, 1]`; `None`: all alike.
    #[serde(default)]
    pub weights: Option<Matrix>,
    /// Which targets are there, 1 or 0, `[rows, units]`; `None`: all.
    #[serde(default)]
    pub mask: Option<Matrix>,
}

impl Rows {
    /// The same, inputs and whatever else is as large in buffers that are shared: cheap to clone.
    pub fn into_packed(self) -> Self {
        let targets = match self.targets {
            Targets::Values(matrix) => Targets::Values(matrix.into_packed()),
            classes => classes,
        };
        let packed = |matrix: Option<Matrix>| matrix.map(Matrix::into_packed);
        Self { inputs: self.inputs.into_packed(), targets, weights: packed(self.weights), mask: packed(self.mask) }
    }
}

/// Rows as a request brings them.
#[derive(Clone, Debug, PartialEq)]
pub struct RawRows {
    /// What the network is shown.
    pub inputs: RawMatrix,
    /// What it is to say.
    pub targets: RawMatrix,
    /// How much each row counts.
    pub weights: Option<RawMatrix>,
    /// Which targets are there.
    pub mask: Option<RawMatrix>,
}

impl RawRows {
    /// None at all, in the place of those that were taken out.
    pub(super) fn empty() -> Self {
        let none = || RawMatrix { values: Values::F32(Vec::new()), rows: None, columns: None };
        Self { inputs: none(), targets: none(), weights: None, mask: None }
    }

    /// Checks all of them against the network and the loss.
    pub(super) fn check(
        self,
        loss: &Loss,
        architecture: &Architecture,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Option<Rows> {
        let element_type = architecture.element_type();
        let inputs = self.inputs.check(architecture.input_width(), element_type, at.field("inputs"), faults)?;
        let rows = inputs.rows();
        let targets = Targets::check(self.targets, rows, loss, architecture, at.field("targets"), faults);
        let weights = match self.weights {
            None => Some(None),
            Some(raw) => check_weights(raw, rows, architecture, at.field("sample_weights"), faults).map(Some),
        };
        let mask = match self.mask {
            None => Some(None),
            Some(raw) => check_mask(raw, rows, loss, architecture, at.field("target_mask"), faults).map(Some),
        };
        Some(Rows { inputs, targets: targets?, weights: weights?, mask: mask? })
    }
}

fn check_weights(
    raw: RawMatrix,
    rows: usize,
    architecture: &Architecture,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Matrix> {
    let matrix = raw.check(1, architecture.element_type(), at, faults)?;
    check_rows(&matrix, rows, at, faults)?;
    let [least, most] = match architecture.element_type() {
        // As they are rounded, since that is what weights are by now.
        ElementType::Float32 => [1e-30_f32, 1e30].map(f64::from),
        ElementType::Float64 => [1e-30, 1e30],
    };
    let is_sound = |weight: f64| weight == 0.0 || (least..=most).contains(&weight);
    if let Some(row) = matrix.values().iter().position(|weight| !is_sound(weight)) {
        let value = matrix.show(row, 0);
        faults.add(
            at,
            format!(
                "row {row} (from 0) is {value}, but a weight is at least 0, and from 1e-30 to 1e30 where it is not 0"
            ),
        );
        return None;
    }
    if matrix.values().iter().all(|weight| weight == 0.0) {
        faults.add(at, "are all 0: no row would count");
        return None;
    }
    Some(matrix)
}

fn check_mask(
    raw: RawMatrix,
    rows: usize,
    loss: &Loss,
    architecture: &Architecture,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Matrix> {
    if loss.is_per_row(architecture.output_layer().activation) {
        let message =
            format!("is for losses an output, but {} is one a row: use sample_weights of 0 instead", loss.name());
        faults.add(at, message);
        return None;
    }
    let matrix = raw.check(architecture.output_width(), architecture.element_type(), at, faults)?;
    check_rows(&matrix, rows, at, faults)?;
    if let Some(index) = matrix.values().iter().position(|is_there| is_there != 0.0 && is_there != 1.0) {
        let (row, column) = (index / matrix.columns(), index % matrix.columns());
        let value = matrix.show(row, column);
        faults.add(at, format!("row {row}, column {column} (both from 0) is {value}, but must be 0 (missing) or 1"));
        return None;
    }
    if matrix.values().iter().all(|is_there| is_there == 0.0) {
        faults.add(at, "is all 0: every target would be missing");
        return None;
    }
    Some(matrix)
}

fn check_rows(matrix: &Matrix, rows: usize, at: At<'_>, faults: &mut Faults) -> Option<()> {
    if matrix.rows() == rows {
        return Some(());
    }
    faults.add(at, format!("has {} rows, but the inputs have {rows}", matrix.rows()));
    None
}

/// The rows of a training, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingData {
    /// What it learns from, those that a fraction holds out among them.
    pub training: Rows,
    /// Validation rows of their own, where they were given.
    pub validation: Option<Rows>,
}

impl TrainingData {
    /// See [`Rows::into_packed`].
    pub fn into_packed(self) -> Self {
        Self { training: self.training.into_packed(), validation: self.validation.map(Rows::into_packed) }
    }
}
