//! Rows of numbers, as callers send them and as networks hold them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults};
use super::packed::Packed;

/// The type in which a network computes and keeps its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ElementType {
    /// IEEE 754 binary32.
    #[default]
    Float32,
    /// IEEE 754 binary64.
    Float64,
}

impl ElementType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

/// A flat run of numbers of one type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Values {
    /// Elements of [`ElementType::Float32`].
    F32(Vec<f32>),
    /// Elements of [`ElementType::Float64`].
    F64(Vec<f64>),
    /// Elements of either, as they came: rows of a training, on their way to the store and out of one in memory. In no record.
    #[serde(skip)]
    Packed(Packed),
}

/// The same numbers of the same type, however they are held.
impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a == b,
            (Self::F64(a), Self::F64(b)) => a == b,
            (a, b) => a.element_type() == b.element_type() && a.len() == b.len() && a.iter().eq(b.iter()),
        }
    }
}

impl Values {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Packed(packed) => packed.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of each.
    pub fn element_type(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::Float32,
            Self::F64(_) => ElementType::Float64,
            Self::Packed(packed) => packed.element_type(),
        }
    }

    /// One of them, widened (exactly).
    pub fn get(&self, index: usize) -> f64 {
        match self {
            Self::F32(values) => f64::from(values[index]),
            Self::F64(values) => values[index],
            Self::Packed(packed) => packed.get(index),
        }
    }

    /// One of them as the caller would write it: a float32 in its own shortest digits.
    pub fn show(&self, index: usize) -> String {
        match self.element_type() {
            ElementType::Float32 => format!("{:?}", self.get(index) as f32),
            ElementType::Float64 => format!("{:?}", self.get(index)),
        }
    }

    /// All of them, widened.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The same numbers in another type; rounded to nearest where it is narrower.
    pub fn into_element_type(self, element_type: ElementType) -> Values {
        match (self, element_type) {
            (Self::F64(values), ElementType::Float32) => Self::F32(values.iter().map(|&value| value as f32).collect()),
            (Self::F32(values), ElementType::Float64) => Self::F64(values.iter().map(|&value| value.into()).collect()),
            (Self::Packed(packed), other) if packed.element_type() != other => packed.to_element_type(other),
            (same, _) => same,
        }
    }

    /// The same numbers in a vector of their own.
    pub fn unpacked(self) -> Values {
        match self {
            Self::Packed(packed) => packed.to_element_type(packed.element_type()),
            own => own,
        }
    }

    /// The first number that is NaN or infinite, were all of them held as `element_type`.
    pub fn first_not_finite(&self, element_type: ElementType) -> Option<usize> {
        match (self, element_type) {
            (Self::F64(values), ElementType::Float32) => first_other(values, |value| (value as f32).is_finite()),
            (Self::F64(values), ElementType::Float64) => first_other(values, f64::is_finite),
            (Self::F32(values), _) => first_other(values, f32::is_finite),
            (Self::Packed(packed), _) => packed.first_not_finite(element_type),
        }
    }

    /// A run of them.
    pub fn slice(&self, range: Range<usize>) -> Values {
        match self {
            Self::F32(values) => Self::F32(values[range].to_vec()),
            Self::F64(values) => Self::F64(values[range].to_vec()),
            Self::Packed(packed) => packed.part(range).to_element_type(packed.element_type()),
        }
    }

    /// Writes `source` over the values from `start` on, in the type of these.
    pub fn write(&mut self, start: usize, source: &Values) {
        let range = start..start + source.len();
        if let Self::Packed(packed) = self {
            *self = packed.to_element_type(packed.element_type());
        }
        match self {
            // Unpacked above.
            Self::Packed(_) => {}
            Self::F32(values) => {
                for (value, new) in values[range].iter_mut().zip(source.iter()) {
                    *value = new as f32;
                }
            }
            Self::F64(values) => {
                for (value, new) in values[range].iter_mut().zip(source.iter()) {
                    *value = new;
                }
            }
        }
    }

    /// All of them as they lie in memory: IEEE 754, little-endian, one after another.
    pub fn as_bytes(&self) -> &[u8] {
        ValuesRef::from(self).as_bytes()
    }

    /// Bytes in memory.
    pub fn size_bytes(&self) -> usize {
        self.len() * self.element_type().size_bytes()
    }
}

/// A flat run of numbers that somebody else holds.
#[derive(Clone, Copy, Debug)]
pub enum ValuesRef<'a> {
    /// Elements of [`ElementType::Float32`].
    F32(&'a [f32]),
    /// Elements of [`ElementType::Float64`].
    F64(&'a [f64]),
    /// Such elements as they came.
    Packed(&'a Packed),
}

impl<'a> ValuesRef<'a> {
    /// How many.
    pub fn len(self) -> usize {
        self.as_bytes().len() / self.element_type().size_bytes()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The type of each.
    pub fn element_type(self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::Float32,
            Self::F64(_) => ElementType::Float64,
            Self::Packed(packed) => packed.element_type(),
        }
    }

    /// All of them as they lie in memory: IEEE 754, little-endian, one after another.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F64(values) => bytemuck::cast_slice(values),
            Self::Packed(packed) => packed.bytes(),
        }
    }
}

impl<'a> From<&'a Values> for ValuesRef<'a> {
    fn from(values: &'a Values) -> Self {
        match values {
            Values::F32(values) => Self::F32(values),
            Values::F64(values) => Self::F64(values),
            Values::Packed(packed) => Self::Packed(packed),
        }
    }
}

/// The first of them that is not as expected. Whole blocks are looked at without a branch, which takes a third of the time.
pub(super) fn first_other<T: Copy>(values: &[T], is_expected: impl Fn(T) -> bool) -> Option<usize> {
    const BLOCK: usize = 256;
    let is_good = |block: &[T]| block.iter().fold(true, |is_good, &value| is_good & is_expected(value));
    let start = values.chunks(BLOCK).position(|block| !is_good(block))? * BLOCK;
    values[start..].iter().position(|&value| !is_expected(value)).map(|place| start + place)
}

/// A matrix as a request brings it: not checked yet.
#[derive(Clone, Debug, PartialEq)]
pub struct RawMatrix {
    /// The numbers, row after row.
    pub values: Values,
    /// What the sender says of the rows, if anything.
    pub rows: Option<usize>,
    /// What the sender says of the columns, if anything.
    pub columns: Option<usize>,
}

impl RawMatrix {
    /// Checks it against `columns`, which the reader knows to be right (the model's input width, say), and holds its values
    /// as `element_type`. What the sender said of rows and columns must not contradict the values.
    pub fn check(self, columns: usize, element_type: ElementType, at: At<'_>, faults: &mut Faults) -> Option<Matrix> {
        let rows = self.check_shape(columns, at, faults)?;
        if let Some(index) = self.values.first_not_finite(element_type) {
            let (row, column) = (index / columns, index % columns);
            let value = self.values.show(index);
            let narrowed = if self.values.get(index).is_finite() { " as a float32" } else { "" };
            faults
                .add(at, format!("row {row}, column {column} (both from 0) is {value}, which is not finite{narrowed}"));
            return None;
        }
        Some(Matrix { rows, columns, values: self.values.into_element_type(element_type) })
    }

    fn check_shape(&self, columns: usize, at: At<'_>, faults: &mut Faults) -> Option<usize> {
        let count = self.values.len();
        let rows = count / columns;
        if let Some(told) = self.columns.filter(|&told| told != columns) {
            faults.add(at.field("columns"), format!("must be {columns} here (or left out), but is {told}"));
        } else if count == 0 {
            faults.add(at, "needs at least one row of numbers, in `values` or in `packed`");
        } else if rows * columns != count {
            let values = if count == 1 { "value, which does" } else { "values, which do" };
            faults.add(at, format!("holds {count} {values} not make whole rows of {columns} columns"));
        } else if let Some(told) = self.rows.filter(|&told| told != rows) {
            faults.add(at.field("rows"), format!("is {told}, but the values make {rows} rows of {columns} columns"));
        } else {
            return Some(rows);
        }
        None
    }
}

/// A matrix in row-major order with at least one row and one column, each of its values finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Values,
}

impl Matrix {
    /// The first row with a number in it that is not finite.
    pub fn first_not_finite(&self) -> Option<usize> {
        self.values.first_not_finite(self.values.element_type()).map(|place| place / self.columns.max(1))
    }

    /// A matrix of our own making.
    ///
    /// # Panics
    /// Where the shape does not fit the values: a bug of ours, since a caller's matrices come through [`RawMatrix`].
    pub fn from_values(rows: usize, columns: usize, values: Values) -> Self {
        assert_eq!(rows * columns, values.len(), "a {rows}×{columns} matrix of {} values", values.len());
        Self { rows, columns, values }
    }

    /// The rows of all parts, one after another; they have as many columns and one type. `None` where there is no part.
    pub fn stacked(parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        parts.into_iter().reduce(|mut all, part| {
            all.rows += part.rows;
            match (&mut all.values, part.values) {
                (Values::F32(values), Values::F32(more)) => values.extend_from_slice(&more),
                (Values::F64(values), Values::F64(more)) => values.extend_from_slice(&more),
                (values, more) => {
                    let all = Values::F64(values.iter().chain(more.iter()).collect());
                    *values = all.into_element_type(values.element_type());
                }
            }
            all
        })
    }

    /// Rows, at least one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns, at least one.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The values, row after row.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The same, its values in a buffer that is shared, where they lie.
    pub fn into_packed(self) -> Self {
        Self { values: Values::Packed(Packed::from_values(self.values)), ..self }
    }

    /// The values alone.
    pub fn into_values(self) -> Values {
        self.values
    }

    /// One value as the caller would write it.
    pub fn show(&self, row: usize, column: usize) -> String {
        self.values.show(row * self.columns + column)
    }

    /// One value, widened.
    pub fn get(&self, row: usize, column: usize) -> f64 {
        self.values.get(row * self.columns + column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: Values, rows: Option<usize>, columns: Option<usize>) -> Result<Matrix, Faults> {
        let mut faults = Faults::new();
        let at = At::ROOT.field("inputs");
        let matrix = RawMatrix { values, rows, columns }.check(2, ElementType::Float32, at, &mut faults);
        faults.finish(matrix)
    }

    fn path(result: Result<Matrix, Faults>) -> String {
        result.unwrap_err().as_slice()[0].path.clone()
    }

    #[test]
    fn rows_and_columns_may_be_left_out_but_not_contradict_the_values() {
        let four = || Values::F64(vec![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(check(four(), None, None).unwrap().rows(), 2);
        assert_eq!(check(four(), Some(2), Some(2)).unwrap().get(1, 0), 3.0);
        assert_eq!(path(check(four(), Some(3), None)), "inputs.rows");
        assert_eq!(path(check(four(), None, Some(4))), "inputs.columns");
        assert_eq!(path(check(Values::F64(vec![1.0; 3]), None, None)), "inputs");
        assert_eq!(path(check(Values::F64(vec![]), None, None)), "inputs");
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found_wherever_it_stands() {
        for place in [0, 1, 255, 256, 257, 511, 999] {
            let mut values = vec![1.0_f32; 1_000];
            values[999] = f32::INFINITY;
            values[place] = f32::NAN;
            assert_eq!(Values::F32(values).first_not_finite(ElementType::Float32), Some(place));
        }
        assert_eq!(Values::F64(vec![1.0; 1_000]).first_not_finite(ElementType::Float64), None);
        let too_large = Values::F64([vec![1.0; 300], vec![1e300]].concat());
        assert_eq!(too_large.first_not_finite(ElementType::Float32), Some(300));
        assert_eq!(too_large.first_not_finite(ElementType::Float64), None);
    }

    #[test]
    fn stacked_parts_have_the_rows_of_all() {
        let part = |values: &[f32]| Matrix::from_values(values.len() / 2, 2, Values::F32(values.to_vec()));
        let parts = [part(&[1.0, 2.0]), part(&[3.0, 4.0, 5.0, 6.0])];
        assert_eq!(Matrix::stacked(parts), Some(part(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));
        assert_eq!(Matrix::stacked([]), None);
    }

    #[test]
    fn a_value_that_the_network_cannot_hold_is_refused() {
        assert_eq!(path(check(Values::F64(vec![1.0, f64::NAN]), None, None)), "inputs");
        let too_large = check(Values::F64(vec![1.0, 1e300]), None, None).unwrap_err();
        assert!(
            too_large.to_string().contains("row 0, column 1 (both from 0) is 1e300, which is not finite as a float32")
        );
    }
}
