//! Weights and rows as raw little-endian numbers: as large as the numbers themselves, borrowed when they are written, read
//! straight into the vector that is handed out.
//!
//! | value | bytes |
//! |---|---|
//! | number | u64 |
//! | values | number: bits of an element (32 or 64), number: count, the elements |
//! | matrix | number: rows, number: columns, values |
//! | targets | number 0, number: count, u32 each; or number 1, matrix |
//! | training data | matrix, targets, number 0; or matrix, targets, number 1, matrix, targets |

use std::borrow::Cow;

use bytemuck::Pod;

use super::blobs::BlobReader;
use super::error::StoreError;
use crate::domain::{Matrix, Targets, TrainingData, Values};

// Floats are stored as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "the store's files are little-endian");

/// The payload of a blob: numbers of its own, and slices borrowed from what is stored.
#[derive(Default)]
pub(super) struct Parts<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Parts<'a> {
    pub fn of_values(values: &'a Values) -> Self {
        let mut parts = Self::default();
        parts.values(values);
        parts
    }

    pub fn of_training_data(data: &'a TrainingData) -> Self {
        let mut parts = Self::default();
        parts.matrix(&data.inputs);
        parts.targets(&data.targets);
        parts.number(usize::from(data.validation.is_some()));
        if let Some((inputs, targets)) = &data.validation {
            parts.matrix(inputs);
            parts.targets(targets);
        }
        parts
    }

    pub fn as_slice(&self) -> &[Cow<'a, [u8]>] {
        &self.0
    }

    fn number(&mut self, number: usize) {
        self.0.push(Cow::Owned((number as u64).to_le_bytes().to_vec()));
    }

    fn values(&mut self, values: &'a Values) {
        self.number(values.element_type().size_bytes() * 8);
        self.number(values.len());
        self.0.push(Cow::Borrowed(match values {
            Values::F32(values) => bytemuck::cast_slice(values),
            Values::F64(values) => bytemuck::cast_slice(values),
        }));
    }

    fn matrix(&mut self, matrix: &'a Matrix) {
        self.number(matrix.rows());
        self.number(matrix.columns());
        self.values(matrix.values());
    }

    fn targets(&mut self, targets: &'a Targets) {
        match targets {
            Targets::Classes(classes) => {
                self.number(0);
                self.number(classes.len());
                self.0.push(Cow::Borrowed(bytemuck::cast_slice(classes)));
            }
            Targets::Values(matrix) => {
                self.number(1);
                self.matrix(matrix);
            }
        }
    }
}

/// The numbers of a blob that holds nothing else.
pub(super) fn read_values(mut reader: BlobReader) -> Result<Values, StoreError> {
    let values = values(&mut reader)?;
    reader.finish()?;
    Ok(values)
}

/// The rows of a job.
pub(super) fn read_training_data(mut reader: BlobReader) -> Result<TrainingData, StoreError> {
    let inputs = matrix(&mut reader)?;
    let targets = targets(&mut reader)?;
    let validation = match number(&mut reader)? {
        0 => None,
        1 => Some((matrix(&mut reader)?, self::targets(&mut reader)?)),
        _ => return Err(reader.corrupt()),
    };
    reader.finish()?;
    Ok(TrainingData { inputs, targets, validation })
}

fn number(reader: &mut BlobReader) -> Result<u64, StoreError> {
    let mut bytes = [0; 8];
    reader.fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// `count` elements. Nothing is allocated that the blob does not hold, whatever `count` says.
fn elements<T: Pod>(reader: &mut BlobReader, count: u64) -> Result<Vec<T>, StoreError> {
    let bytes = count.checked_mul(size_of::<T>() as u64);
    if bytes.is_none_or(|bytes| bytes > reader.remaining()) {
        return Err(reader.corrupt());
    }
    let count = usize::try_from(count).map_err(|_| reader.corrupt())?;
    let mut elements = vec![T::zeroed(); count];
    reader.fill(bytemuck::cast_slice_mut(&mut elements))?;
    Ok(elements)
}

fn values(reader: &mut BlobReader) -> Result<Values, StoreError> {
    let (bits, count) = (number(reader)?, number(reader)?);
    match bits {
        32 => elements(reader, count).map(Values::F32),
        64 => elements(reader, count).map(Values::F64),
        _ => Err(reader.corrupt()),
    }
}

fn matrix(reader: &mut BlobReader) -> Result<Matrix, StoreError> {
    let (rows, columns) = (number(reader)?, number(reader)?);
    let values = values(reader)?;
    let is_sound = rows > 0 && columns > 0 && rows.checked_mul(columns) == Some(values.len() as u64);
    if !is_sound {
        return Err(reader.corrupt());
    }
    // Both are at most the length of a vector.
    Ok(Matrix::from_values(rows as usize, columns as usize, values))
}

fn targets(reader: &mut BlobReader) -> Result<Targets, StoreError> {
    match number(reader)? {
        0 => {
            let count = number(reader)?;
            elements(reader, count).map(Targets::Classes)
        }
        1 => matrix(reader).map(Targets::Values),
        _ => Err(reader.corrupt()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::store::blobs::{BlobName, Blobs};

    fn matrix(rows: usize, columns: usize, seed: u32) -> Matrix {
        let count = rows * columns;
        let values = match seed % 2 {
            0 => Values::F32((0..count).map(|index| index as f32 * 0.1 - seed as f32).collect()),
            _ => Values::F64((0..count).map(|index| index as f64 / 3.0 + f64::from(seed)).collect()),
        };
        Matrix::from_values(rows, columns, values)
    }

    proptest! {
        #[test]
        fn training_data_reads_back_bit_for_bit(
            rows in 1..20_usize, columns in 1..5_usize, seed: u32, classes: bool, is_validated: bool,
        ) {
            let seed = seed % 1_000;
            let targets = || match classes {
                true => Targets::Classes((0..rows as u32).collect()),
                false => Targets::Values(matrix(rows, 1, seed + 1)),
            };
            let validation = is_validated.then(|| (matrix(rows, columns, seed + 2), targets()));
            let data = TrainingData { inputs: matrix(rows, columns, seed), targets: targets(), validation };
            let (blobs, name) = (Blobs::in_memory(), BlobName::Rows { job_id: Uuid::nil() });
            blobs.write(name, Parts::of_training_data(&data).as_slice()).unwrap();
            prop_assert_eq!(read_training_data(blobs.open(name).unwrap().unwrap()).unwrap(), data);
        }

        #[test]
        fn arbitrary_payloads_are_refused_without_a_panic(payload in proptest::collection::vec(0..3_u8, 0..96)) {
            let (blobs, name) = (Blobs::in_memory(), BlobName::Rows { job_id: Uuid::nil() });
            blobs.write(name, &[Cow::Borrowed(&payload)]).unwrap();
            prop_assert!(read_training_data(blobs.open(name).unwrap().unwrap()).is_err());
            prop_assert!(read_values(blobs.open(name).unwrap().unwrap()).is_err());
        }
    }
}
