//! The rows of a training as it uses them: split, scaled, in its own element type.

use super::element::Element;
use super::loss::TargetRows;
use super::metrics::TargetSpread;
use super::random::Purpose;
use super::scaler;
use super::split::split;
use super::workspace::Workspace;
use crate::domain::training::validation_rows;
use crate::domain::{FittedPreprocessing, Matrix, Preprocessing, Settings, Targets, TrainingData, Validation};

/// Targets in the element type of the network.
#[derive(Clone, Debug)]
pub enum TargetData<T> {
    /// The right class of each row.
    Classes(Vec<u32>),
    /// A value an output, `[rows, units]`.
    Values(Vec<T>),
}

impl<T: Element> TargetData<T> {
    fn new(targets: Targets) -> Self {
        match targets {
            Targets::Classes(classes) => Self::Classes(classes),
            Targets::Values(matrix) => Self::Values(T::vec_from(matrix.into_values())),
        }
    }

    /// All of them, borrowed.
    pub fn all(&self) -> TargetRows<'_, T> {
        match self {
            Self::Classes(classes) => TargetRows::Classes(classes),
            Self::Values(values) => TargetRows::Values(values),
        }
    }

    fn take(&self, rows: &[u32], units: usize) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(rows.iter().map(|&row| classes[row as usize]).collect()),
            Self::Values(values) => Self::Values(take_rows(values, units, rows)),
        }
    }
}

/// Rows with their targets.
#[derive(Clone, Debug)]
pub struct RowSet<T> {
    /// How many.
    pub rows: usize,
    /// `[rows, input_width]`
    pub inputs: Vec<T>,
    /// One a row.
    pub targets: TargetData<T>,
    /// How far the targets lie apart.
    pub spread: TargetSpread,
    input_width: usize,
    units: usize,
}

impl<T: Element> RowSet<T> {
    fn new(inputs: Matrix, targets: Targets, units: usize) -> Self {
        let (rows, input_width) = (inputs.rows(), inputs.columns());
        let inputs = T::vec_from(inputs.into_values());
        Self { rows, inputs, targets: TargetData::new(targets), spread: TargetSpread::default(), input_width, units }
    }

    fn take(&self, rows: &[u32]) -> Self {
        Self {
            rows: rows.len(),
            inputs: take_rows(&self.inputs, self.input_width, rows),
            targets: self.targets.take(rows, self.units),
            spread: TargetSpread::default(),
            ..*self
        }
    }

    fn scale(&mut self, fitted: &FittedPreprocessing) {
        if let Some(scaler) = &fitted.inputs {
            scaler::apply(scaler, &mut self.inputs);
        }
        if let (Some(scaler), TargetData::Values(values)) = (&fitted.targets, &mut self.targets) {
            scaler::apply(scaler, values);
        }
        self.spread = TargetSpread::new(self.targets.all(), self.units);
    }

    fn fit(&self, preprocessing: Preprocessing) -> FittedPreprocessing {
        let targets = match &self.targets {
            TargetData::Classes(_) => None,
            TargetData::Values(values) => scaler::fit(preprocessing.targets, self.units, values),
        };
        FittedPreprocessing { inputs: scaler::fit(preprocessing.inputs, self.input_width, &self.inputs), targets }
    }

    /// Whether every target is 0 or 1.
    pub fn has_binary_targets(&self) -> bool {
        match &self.targets {
            TargetData::Classes(_) => false,
            TargetData::Values(values) => values.iter().all(|&value| value == T::ZERO || value == T::ONE),
        }
    }

    /// Copies rows, in the order given, to the front of a workspace.
    pub fn load(&self, rows: impl ExactSizeIterator<Item = usize> + Clone, workspace: &mut Workspace<T>) {
        let width = self.input_width;
        for (to, row) in workspace.activations.inputs.chunks_exact_mut(width).zip(rows.clone()) {
            to.copy_from_slice(&self.inputs[row * width..][..width]);
        }
        workspace.classes.clear();
        workspace.values.clear();
        match &self.targets {
            TargetData::Classes(classes) => workspace.classes.extend(rows.map(|row| classes[row])),
            TargetData::Values(values) => {
                rows.for_each(|row| workspace.values.extend_from_slice(&values[row * self.units..][..self.units]));
            }
        }
    }
}

fn take_rows<T: Element>(values: &[T], columns: usize, rows: &[u32]) -> Vec<T> {
    rows.iter().flat_map(|&row| &values[row as usize * columns..][..columns]).copied().collect()
}

/// What a training learns from and is validated on.
pub struct Prepared<T> {
    /// The rows that weights learn from.
    pub training: RowSet<T>,
    /// The rows they do not.
    pub validation: Option<RowSet<T>>,
    /// The scalers in force; `None` where nothing is scaled.
    pub fitted: Option<FittedPreprocessing>,
}

impl<T: Element> Prepared<T> {
    /// Splits off the validation rows, learns the scaling from the training rows (validation rows apart, so that they
    /// stay unseen) unless it was learned before, and applies it to all.
    pub fn new(
        data: TrainingData,
        settings: &Settings,
        units: usize,
        preprocessing: Preprocessing,
        fitted: Option<FittedPreprocessing>,
    ) -> Self {
        let TrainingData { inputs, targets, validation } = data;
        let (mut training, mut validation) = match settings.validation {
            Validation::None => (RowSet::new(inputs, targets, units), None),
            Validation::Given { .. } => {
                let validation = validation.map(|(inputs, targets)| RowSet::new(inputs, targets, units));
                (RowSet::new(inputs, targets, units), validation)
            }
            Validation::Fraction(fraction) => {
                let strata = targets.strata();
                let rows = inputs.rows();
                let held_out = validation_rows(rows as u64, fraction) as usize;
                let (kept, held) = split(rows, held_out, strata.as_deref(), settings.seed, Purpose::Validation);
                let all = RowSet::new(inputs, targets, units);
                (all.take(&kept), Some(all.take(&held)))
            }
        };
        let fitted = fitted.or_else(|| {
            let fitted = training.fit(preprocessing);
            (fitted != FittedPreprocessing::default()).then_some(fitted)
        });
        let scalers = fitted.clone().unwrap_or_default();
        training.scale(&scalers);
        if let Some(validation) = &mut validation {
            validation.scale(&scalers);
        }
        Self { training, validation, fitted }
    }
}
