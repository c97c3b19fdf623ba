//! The rows of a training as it uses them: split, scaled, in its own element type.

use std::iter;

use ndarray::{ArrayViewMut2, Axis};

use super::element::Element;
use super::loss::{Objective, TargetRows};
use super::metrics::TargetSpread;
use super::product::{Shape, shared_inputs};
use super::random::Purpose;
use super::scaler;
use super::split::split;
use super::unchecked::prefetch::{LINE_BYTES, prefetch};
use super::workspace::{Activations, Tile, Workspace};
use crate::domain::settings::validation_rows;
use crate::domain::{
    ClassWeights, FittedPreprocessing, Matrix, Packed, Preprocessing, Rows, Scaler, Scaling, Settings, Targets,
    TrainingData, Validation, Values,
};

/// Bytes of inputs up to which rows are taken to be in a cache.
const NEAR_MAX: usize = 1 << 20;
/// How far ahead of the row that is copied one is fetched: so many bytes of rows,
const AHEAD_BYTES: usize = 2_048;
/// but no more than so many rows: as many as a core waits for at once.
const AHEAD_MAX: usize = 16;
/// Bytes of a row that are fetched: the processor foresees the rest of a long one itself.
const FETCHED_MAX: usize = 512;
/// Bytes of the inputs of a tile up to which they are read where they lie, if they lie in order: of more, each product that reads them finds
/// fewer in a core's caches than where they were copied together just before.
pub(super) const IN_PLACE_MAX: usize = 1 << 18;

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

    /// Has the processor fetch those of some rows.
    fn fetch(&self, rows: impl Iterator<Item = usize>, units: usize) {
        match self {
            Self::Classes(classes) => rows.for_each(|row| prefetch(classes, row, 1)),
            Self::Values(values) => rows.for_each(|row| prefetch(values, row * units, 1)),
        }
    }

    /// The class of a row: its index, or 0 and 1 for one output's sides.
    fn class(&self, row: usize) -> usize {
        match self {
            Self::Classes(classes) => classes[row] as usize,
            Self::Values(values) => usize::from(values[row] > T::ZERO),
        }
    }

    fn take(&self, rows: &[u32], units: usize) -> Self {
        match self {
            Self::Classes(classes) => Self::Classes(rows.iter().map(|&row| classes[row as usize]).collect()),
            Self::Values(values) => Self::Values(take_rows(values, units, rows)),
        }
    }
}

/// The inputs of rows, one after another.
#[derive(Clone, Debug)]
pub enum Inputs<T> {
    /// The trainer's own.
    Own(Vec<T>),
    /// As they came, of type `T`, shared with whoever else holds them.
    Packed(Packed),
}

impl<T: Element> Inputs<T> {
    fn new(values: Values) -> Self {
        match values.into_element_type(T::ELEMENT_TYPE) {
            Values::Packed(packed) => Self::Packed(packed),
            own => Self::Own(T::vec_from(own)),
        }
    }

    /// Copies some rows to where they are worked on: their columns from the `first` on, as many as there is room for. Those of `ahead` are
    /// fetched meanwhile.
    fn gather<'t>(
        &self,
        rows: impl Iterator<Item = usize>,
        mut ahead: impl Iterator<Item = usize>,
        (width, first): (usize, usize),
        to: impl Iterator<Item = &'t mut [T]>,
    ) {
        for (to, row) in to.zip(rows) {
            if let Some(next) = ahead.next() {
                self.fetch(next * width + first, to.len());
            }
            let first = row * width + first;
            match self {
                Self::Own(values) => to.copy_from_slice(&values[first..][..to.len()]),
                // A copy asks for no alignment, and they are little-endian as all that is packed.
                Self::Packed(packed) => {
                    let to: &mut [u8] = bytemuck::cast_slice_mut(to);
                    to.copy_from_slice(&packed.bytes()[first * size_of::<T>()..][..to.len()]);
                }
            }
        }
    }

    /// Has the processor fetch what begins at a number.
    fn fetch(&self, first: usize, count: usize) {
        // Where a run does not begin with a line, it ends in one more.
        let bytes = (count * size_of::<T>()).min(FETCHED_MAX) + LINE_BYTES - 1;
        match self {
            Self::Own(values) => prefetch(values, first, bytes / size_of::<T>()),
            Self::Packed(packed) => prefetch(packed.bytes(), first * size_of::<T>(), bytes),
        }
    }

    /// Some of them, in a vector of their own.
    fn take(&self, rows: &[u32], width: usize) -> Self {
        let mut taken = vec![T::ZERO; rows.len() * width];
        let rows = rows.iter().map(|&row| row as usize);
        self.gather(rows, iter::empty(), (width, 0), taken.chunks_exact_mut(width));
        Self::Own(taken)
    }

    /// All of them, to read or to change them: a copy where others hold them, too.
    #[expect(clippy::unreachable, reason = "what was packed was replaced above")]
    pub fn own(&mut self) -> &mut Vec<T> {
        if let Self::Packed(packed) = self {
            *self = Self::Own(T::vec_from(Values::Packed(packed.clone())));
        }
        match self {
            Self::Own(values) => values,
            Self::Packed(_) => unreachable!("they are the trainer's own now"),
        }
    }
}

/// Rows with their targets.
#[derive(Clone, Debug)]
pub struct RowSet<T> {
    /// How many.
    pub rows: usize,
    /// `[rows, input_width]`
    pub inputs: Inputs<T>,
    /// One a row.
    pub targets: TargetData<T>,
    /// How far the targets lie apart.
    pub spread: TargetSpread,
    /// How much each row counts, its class and its sample weight together; `None`: all alike.
    weights: Option<Vec<T>>,
    /// Which targets are there, `[rows, units]`; `None`: all.
    mask: Option<Vec<T>>,
    /// What each row adds to the divisor of a mean; `None`: all the same.
    counts: Option<Vec<f64>>,
    /// Which of the rows that were sent each is; `None`: the same.
    sent: Option<Vec<u32>>,
    input_width: usize,
    units: usize,
}

impl<T: Element> RowSet<T> {
    fn new(rows: Rows, units: usize) -> Self {
        let (count, input_width) = (rows.inputs.rows(), rows.inputs.columns());
        let vec = |matrix: Matrix| T::vec_from(matrix.into_values());
        Self {
            rows: count,
            inputs: Inputs::new(rows.inputs.into_values()),
            targets: TargetData::new(rows.targets),
            spread: TargetSpread::default(),
            weights: rows.weights.map(vec),
            mask: rows.mask.map(vec),
            counts: None,
            sent: None,
            input_width,
            units,
        }
    }

    fn take(&self, rows: &[u32]) -> Self {
        Self {
            rows: rows.len(),
            inputs: self.inputs.take(rows, self.input_width),
            targets: self.targets.take(rows, self.units),
            spread: TargetSpread::default(),
            weights: self.weights.as_ref().map(|weights| take_rows(weights, 1, rows)),
            mask: self.mask.as_ref().map(|mask| take_rows(mask, self.units, rows)),
            counts: None,
            sent: Some(rows.to_vec()),
            input_width: self.input_width,
            units: self.units,
        }
    }

    /// Keeps some of the rows, which are in rising order, in the vectors that all are in.
    fn keep(mut self, rows: Vec<u32>) -> Self {
        match &mut self.inputs {
            Inputs::Own(values) => keep_rows(values, self.input_width, &rows),
            Inputs::Packed(_) => self.inputs = self.inputs.take(&rows, self.input_width),
        }
        match &mut self.targets {
            TargetData::Classes(classes) => keep_rows(classes, 1, &rows),
            TargetData::Values(values) => keep_rows(values, self.units, &rows),
        }
        self.weights.iter_mut().for_each(|weights| keep_rows(weights, 1, &rows));
        self.mask.iter_mut().for_each(|mask| keep_rows(mask, self.units, &rows));
        Self { rows: rows.len(), sent: Some(rows), ..self }
    }

    fn scale(&mut self, fitted: &FittedPreprocessing) {
        if let Some(scaler) = &fitted.inputs {
            scaler::apply(scaler, self.inputs.own());
        }
        if let (Some(scaler), TargetData::Values(values)) = (&fitted.targets, &mut self.targets) {
            scaler::apply(scaler, values);
        }
        self.spread = TargetSpread::new(self.targets.all(), self.units, self.mask.as_deref());
    }

    fn fit(&mut self, preprocessing: Preprocessing) -> FittedPreprocessing {
        let targets = match &self.targets {
            TargetData::Classes(_) => None,
            TargetData::Values(values) => self.fit_targets(preprocessing.targets, values),
        };
        let inputs = match preprocessing.inputs {
            Scaling::None => None,
            scaling => scaler::fit(scaling, self.input_width, self.inputs.own()),
        };
        FittedPreprocessing { inputs, targets }
    }

    /// Of the targets that are there: what stands in the place of a missing one does not matter.
    fn fit_targets(&self, scaling: Scaling, values: &[T]) -> Option<Scaler> {
        let Some(mask) = &self.mask else { return scaler::fit(scaling, self.units, values) };
        let (mut shift, mut scale) = (Vec::new(), Vec::new());
        for unit in 0..self.units {
            let column = |from: &[T]| from[unit..].iter().step_by(self.units).copied().collect::<Vec<T>>();
            let known = column(values).into_iter().zip(column(mask)).filter(|(_, is_there)| *is_there != T::ZERO);
            let known: Vec<T> = known.map(|(value, _)| value).collect();
            // An output without any target is not scaled.
            let fitted = if known.is_empty() { None } else { Some(scaler::fit(scaling, 1, &known)?) };
            shift.push(fitted.as_ref().map_or(0.0, |it| it.shift[0]));
            scale.push(fitted.as_ref().map_or(1.0, |it| it.scale[0]));
        }
        (scaling != Scaling::None).then_some(Scaler { shift, scale })
    }

    /// Multiplies each row's weight by its class's.
    fn weigh_classes(&mut self, by_class: &[f64]) {
        let weights = self.weights.get_or_insert_with(|| vec![T::ONE; self.rows]);
        for (row, weight) in weights.iter_mut().enumerate() {
            *weight *= T::from_f64(by_class[self.targets.class(row)]);
        }
    }

    /// rows ÷ (classes · rows of the class), as scikit-learn's `balanced`; 0 for a class without rows.
    fn balanced(&self) -> Vec<f64> {
        let classes = match &self.targets {
            TargetData::Classes(_) => self.units,
            TargetData::Values(_) => 2,
        };
        let mut counts = vec![0_u64; classes];
        (0..self.rows).for_each(|row| counts[self.targets.class(row)] += 1);
        let weight = |&count: &u64| match count {
            0 => 0.0,
            count => self.rows as f64 / (classes as f64 * count as f64),
        };
        counts.iter().map(weight).collect()
    }

    /// Tells what each row counts, once weights and mask are final.
    fn count(&mut self, objective: &Objective) {
        if self.weights.is_none() && self.mask.is_none() {
            return;
        }
        let count = |row: usize| {
            let weight = self.weights.as_ref().map_or(1.0, |weights| weights[row].to_f64());
            let known = self.mask.as_ref().map_or(objective.count_of_row(), |mask| {
                let known = mask[row * self.units..][..self.units].iter().filter(|&&it| it != T::ZERO).count() as f64;
                if objective.is_per_row() { f64::from(known > 0.0) } else { known }
            });
            weight * known
        };
        self.counts = Some((0..self.rows).map(count).collect());
    }

    /// Those of some rows that are fetched while others are copied: none where all are in a cache anyway.
    fn ahead(&self, rows: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
        let row_bytes = self.input_width * size_of::<T>();
        let are_far = self.rows * row_bytes > NEAR_MAX;
        rows.skip((AHEAD_BYTES / row_bytes).clamp(1, AHEAD_MAX)).take(if are_far { usize::MAX } else { 0 })
    }

    /// A row's index among those that were sent.
    pub fn sent_row(&self, row: u32) -> u32 {
        self.sent.as_ref().map_or(row, |sent| sent[row as usize])
    }

    /// What some rows add to the divisor of a mean.
    pub fn count_of(&self, objective: &Objective, rows: &[u32]) -> f64 {
        match &self.counts {
            None => rows.len() as f64 * objective.count_of_row(),
            Some(counts) => rows.iter().map(|&row| counts[row as usize]).sum(),
        }
    }

    /// The rows, each times its weight.
    pub fn weight_of_all(&self) -> f64 {
        self.weights.as_ref().map_or(self.rows as f64, |weights| weights.iter().map(|weight| weight.to_f64()).sum())
    }

    /// What all rows add to it.
    pub fn count_of_all(&self, objective: &Objective) -> f64 {
        match &self.counts {
            None => self.rows as f64 * objective.count_of_row(),
            Some(counts) => counts.iter().sum(),
        }
    }

    /// The first `count` of some rows, in the order given: their targets, weights and masks are copied to the front of a workspace, and
    /// their inputs, too, unless they are few and lie in that order. Those after them are what comes next: the first of them are fetched,
    /// unless the processor foresees them.
    pub fn load(
        &self,
        count: usize,
        rows: impl Iterator<Item = usize> + Clone + Sync,
        workspace: &mut Workspace<T>,
    ) -> Tile<'_, T> {
        let inputs = self.inputs_in_place(count, rows.clone());
        if inputs.is_none() {
            self.load_inputs(count, rows.clone(), &mut workspace.activations);
        } else if count == 1 {
            // One row is in order whatever comes next, which the processor foresees of more alone.
            self.ahead(rows.clone())
                .take(1)
                .for_each(|row| self.inputs.fetch(row * self.input_width, self.input_width));
        }
        self.targets.fetch(self.ahead(rows.clone()).take(count), self.units);
        self.load_targets(rows.take(count), workspace);
        Tile { rows: count, inputs }
    }

    /// The inputs of the first `count` of some rows, where they lie, if they are few and lie one after another.
    fn inputs_in_place(&self, count: usize, rows: impl Iterator<Item = usize>) -> Option<&[T]> {
        let mut rows = rows.take(count);
        let first = rows.next().filter(|_| count * self.input_width * size_of::<T>() <= IN_PLACE_MAX)?;
        if !rows.zip(first + 1..).all(|(row, expected)| row == expected) {
            return None;
        }
        let (first, count) = (first * self.input_width, count * self.input_width);
        match &self.inputs {
            Inputs::Own(values) => Some(&values[first..][..count]),
            // What came in a message may lie at any address; it is little-endian as all that is packed.
            Inputs::Packed(packed) => {
                let bytes = &packed.bytes()[first * size_of::<T>()..][..count * size_of::<T>()];
                bytemuck::try_cast_slice(bytes).ok()
            }
        }
    }

    /// Copies the inputs of the first `count` of some rows to the front of the buffers. Those after them are fetched.
    fn load_inputs(
        &self,
        count: usize,
        rows: impl Iterator<Item = usize> + Clone + Sync,
        activations: &mut Activations<T>,
    ) {
        let width = self.input_width;
        let Activations { inputs, workers, first_units, .. } = activations;
        let inputs = &mut inputs[..count * width];
        let first_layer = Shape { rows: count, inputs: width, units: *first_units };
        let ahead = |first: usize| self.ahead(rows.clone().skip(first));
        if let Some(cut) = shared_inputs(first_layer).filter(|_| workers.are_several()) {
            // Each thread has in its cache what it multiplies.
            #[expect(clippy::expect_used, reason = "the slice was cut to count × width above")]
            let all = ArrayViewMut2::from_shape((count, width), inputs).expect("a slice of that length");
            let (left, right) = all.split_at(Axis(1), cut);
            workers.for_each([(0, left), (cut, right)].into_iter(), |(first, mut to)| {
                #[expect(clippy::expect_used, reason = "they are parts of rows that are one run")]
                let to = to.rows_mut().into_iter().map(|row| row.into_slice().expect("a row is one run of numbers"));
                self.inputs.gather(rows.clone(), ahead(0), (width, first), to);
            });
        } else {
            workers.for_each_piece(inputs, width, |first, piece| {
                let first = first / width;
                let to = piece.chunks_exact_mut(width);
                self.inputs.gather(rows.clone().skip(first), ahead(first), (width, 0), to);
            });
        }
    }

    fn load_targets(&self, rows: impl Iterator<Item = usize> + Clone, workspace: &mut Workspace<T>) {
        workspace.classes.clear();
        workspace.values.clear();
        workspace.weights.clear();
        workspace.mask.clear();
        if let Some(weights) = &self.weights {
            workspace.weights.extend(rows.clone().map(|row| weights[row]));
        }
        if let Some(mask) = &self.mask {
            rows.clone().for_each(|row| workspace.mask.extend_from_slice(&mask[row * self.units..][..self.units]));
        }
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

/// Keeps rows, in rising order, and gives the room of the others back.
fn keep_rows<V: Copy>(values: &mut Vec<V>, columns: usize, rows: &[u32]) {
    for (to, &row) in rows.iter().enumerate() {
        values.copy_within(row as usize * columns..(row as usize + 1) * columns, to * columns);
    }
    values.truncate(rows.len() * columns);
    values.shrink_to_fit();
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
        objective: &Objective,
        preprocessing: Preprocessing,
        fitted: Option<FittedPreprocessing>,
    ) -> Self {
        let (mut training, mut validation) = split_rows(data, settings, objective.units());
        let fitted = fitted.or_else(|| {
            let fitted = training.fit(preprocessing);
            (fitted != FittedPreprocessing::default()).then_some(fitted)
        });
        let scalers = fitted.clone().unwrap_or_default();
        let by_class = settings.class_weights.as_ref().map(|weights| match weights {
            ClassWeights::Given(weights) => weights.clone(),
            ClassWeights::Balanced => training.balanced(),
        });
        for rows in std::iter::once(&mut training).chain(&mut validation) {
            if let Some(by_class) = &by_class {
                rows.weigh_classes(by_class);
            }
            rows.count(objective);
            rows.scale(&scalers);
        }
        Self { training, validation, fitted }
    }
}

fn split_rows<T: Element>(data: TrainingData, settings: &Settings, units: usize) -> (RowSet<T>, Option<RowSet<T>>) {
    let TrainingData { training, validation } = data;
    let Validation::Fraction(fraction) = settings.validation else {
        return (RowSet::new(training, units), validation.map(|rows| RowSet::new(rows, units)));
    };
    let strata = training.targets.strata();
    let rows = training.inputs.rows();
    let held_out = validation_rows(rows as u64, fraction) as usize;
    let (kept, held) = split(rows, held_out, strata.as_deref(), settings.seed, Purpose::Validation);
    let all = RowSet::new(training, units);
    let held = all.take(&held);
    (all.keep(kept), Some(held))
}

#[cfg(test)]
mod tests;
