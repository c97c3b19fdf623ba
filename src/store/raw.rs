//! Weights and rows as raw little-endian numbers: as large as the numbers themselves, borrowed when they are written, read
//! straight into the vector that is handed out.
//!
//! | value | bytes |
//! |---|---|
//! | number | u64 |
//! | values | number: bits of an element (32 or 64), number: count, the elements |
//! | matrix | number: rows, number: columns, values |
//! | targets | number 0, number: count, u32 each; or number 1, matrix |
//! | option | number 0; or number 1, and what it is |
//! | rows | matrix, targets, option of matrix (weights), option of matrix (mask) |
//! | training data | rows, option of rows |
//! | continuation | number: bytes, the bytes, number: count, values each |

use std::sync::Arc;

use bytemuck::Pod;
use bytes::Bytes;

use super::blob_reader::BlobReader;
use super::blobs::Part;
use super::error::StoreError;
use crate::domain::{
    Continuation, ContinuationRef, ElementType, Matrix, Packed, Rows, Targets, TrainingData, Values, ValuesRef,
};

// Floats are stored as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "the store's files are little-endian");

/// The payload of a blob: numbers of its own, and slices borrowed from what is stored.
#[derive(Default)]
pub(super) struct Parts<'a>(Vec<Part<'a>>);

/// Values whose bytes a blob in memory shares.
struct Shared(Arc<Values>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<'a> Parts<'a> {
    pub fn of_values(values: &'a Values) -> Self {
        let mut parts = Self::default();
        parts.values(values.into());
        parts
    }

    /// The same of values that somebody else needs, too.
    pub fn of_shared(values: &Arc<Values>) -> Self {
        let mut parts = Self::default();
        parts.shared(values);
        parts
    }

    pub fn of_training_data(data: &'a TrainingData) -> Self {
        let mut parts = Self::default();
        parts.rows(&data.training);
        parts.option(data.validation.as_ref(), Self::rows);
        parts
    }

    pub fn of_continuation(continuation: &'a Continuation) -> Self {
        let mut parts = Self::of_head(&continuation.head, continuation.vectors.len());
        continuation.vectors.iter().for_each(|values| parts.shared(values));
        parts
    }

    pub fn of_checkpoint(checkpoint: &ContinuationRef<'a>) -> Self {
        let mut parts = Self::of_head(checkpoint.head, checkpoint.vectors.len());
        checkpoint.vectors.iter().for_each(|values| parts.values(*values));
        parts
    }

    fn of_head(head: &'a [u8], vectors: usize) -> Self {
        let mut parts = Self::default();
        parts.number(head.len());
        parts.0.push(Part::Lent(head));
        parts.number(vectors);
        parts
    }

    pub fn as_slice(&self) -> &[Part<'a>] {
        &self.0
    }

    fn number(&mut self, number: usize) {
        self.0.push(Part::Number((number as u64).to_le_bytes()));
    }

    fn option<T>(&mut self, value: Option<&'a T>, write: impl FnOnce(&mut Self, &'a T)) {
        self.number(usize::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn rows(&mut self, rows: &'a Rows) {
        self.matrix(&rows.inputs);
        self.targets(&rows.targets);
        self.option(rows.weights.as_ref(), Self::matrix);
        self.option(rows.mask.as_ref(), Self::matrix);
    }

    fn values(&mut self, values: ValuesRef<'a>) {
        self.number(values.element_type().size_bytes() * 8);
        self.number(values.len());
        self.0.push(match values {
            ValuesRef::Packed(packed) => Part::Shared(packed.bytes().clone()),
            values => Part::Lent(values.as_bytes()),
        });
    }

    fn shared(&mut self, values: &Arc<Values>) {
        self.number(values.element_type().size_bytes() * 8);
        self.number(values.len());
        self.0.push(Part::Shared(Bytes::from_owner(Shared(values.clone()))));
    }

    fn matrix(&mut self, matrix: &'a Matrix) {
        self.number(matrix.rows());
        self.number(matrix.columns());
        self.values(matrix.values().into());
    }

    fn targets(&mut self, targets: &'a Targets) {
        match targets {
            Targets::Classes(classes) => {
                self.number(0);
                self.number(classes.len());
                self.0.push(Part::Lent(bytemuck::cast_slice(classes)));
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
    let training = rows(&mut reader)?;
    let validation = option(&mut reader, rows)?;
    reader.finish()?;
    Ok(TrainingData { training, validation })
}

/// Where a training ended.
pub(super) fn read_continuation(mut reader: BlobReader) -> Result<Continuation, StoreError> {
    let bytes = number(&mut reader)?;
    let head = elements(&mut reader, bytes)?;
    let count = number(&mut reader)?;
    let vectors = (0..count).map(|_| values(&mut reader).map(Arc::new)).collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(Continuation { head, vectors })
}

fn option<T>(
    reader: &mut BlobReader,
    read: impl FnOnce(&mut BlobReader) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match number(reader)? {
        0 => Ok(None),
        1 => read(reader).map(Some),
        _ => Err(reader.corrupt()),
    }
}

fn rows(reader: &mut BlobReader) -> Result<Rows, StoreError> {
    let (inputs, targets) = (matrix(reader)?, targets(reader)?);
    let (weights, mask) = (option(reader, matrix)?, option(reader, matrix)?);
    Ok(Rows { inputs, targets, weights, mask })
}

fn number(reader: &mut BlobReader) -> Result<u64, StoreError> {
    let mut bytes = [0; 8];
    reader.fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Bytes of room behind elements: who needs them to begin at a line of the caches moves them there, without another allocation.
const ROOM_BYTES: usize = 64;

/// `count` elements. Nothing is allocated that the blob does not hold, whatever `count` says.
fn elements<T: Pod>(reader: &mut BlobReader, count: u64) -> Result<Vec<T>, StoreError> {
    let bytes = count.checked_mul(size_of::<T>() as u64);
    if bytes.is_none_or(|bytes| bytes > reader.remaining()) {
        return Err(reader.corrupt());
    }
    let count = usize::try_from(count).map_err(|_| reader.corrupt())?;
    let mut elements = vec![T::zeroed(); count + ROOM_BYTES / size_of::<T>()];
    elements.truncate(count);
    reader.fill(bytemuck::cast_slice_mut(&mut elements))?;
    Ok(elements)
}

fn values(reader: &mut BlobReader) -> Result<Values, StoreError> {
    let (element_type, count) = (element_type(reader)?, number(reader)?);
    match element_type {
        ElementType::Float32 => elements(reader, count).map(Values::F32),
        ElementType::Float64 => elements(reader, count).map(Values::F64),
    }
}

/// The same; of a blob in memory they stay where they lie.
fn shared_values(reader: &mut BlobReader) -> Result<Values, StoreError> {
    if !reader.is_in_memory() {
        return values(reader);
    }
    let (element_type, count) = (element_type(reader)?, number(reader)?);
    let length = count.checked_mul(element_type.size_bytes() as u64).ok_or_else(|| reader.corrupt())?;
    let packed = Packed::new(reader.shared(length)?, element_type).ok_or_else(|| reader.corrupt())?;
    Ok(Values::Packed(packed))
}

fn element_type(reader: &mut BlobReader) -> Result<ElementType, StoreError> {
    match number(reader)? {
        32 => Ok(ElementType::Float32),
        64 => Ok(ElementType::Float64),
        _ => Err(reader.corrupt()),
    }
}

fn matrix(reader: &mut BlobReader) -> Result<Matrix, StoreError> {
    let (rows, columns) = (number(reader)?, number(reader)?);
    let values = shared_values(reader)?;
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

    #[test]
    fn rows_in_memory_are_neither_copied_nor_read_into_buffers_of_their_own() {
        let inputs = matrix(1_000, 10, 2).into_packed();
        let at = inputs.values().as_bytes().as_ptr();
        let training = Rows { inputs, targets: Targets::Classes(vec![0; 1_000]), weights: None, mask: None };
        let data = TrainingData { training, validation: None };
        let (blobs, name) = (Blobs::in_memory(), BlobName::Rows { job_id: Uuid::nil() });
        blobs.write(name, Parts::of_training_data(&data).as_slice()).unwrap();
        let read = read_training_data(blobs.open(name).unwrap().unwrap()).unwrap();
        assert_eq!(read.training.inputs.values().as_bytes().as_ptr(), at);
        assert_eq!(read, data);
    }

    proptest! {
        #[test]
        fn training_data_reads_back_bit_for_bit(
            rows in 1..20_usize, columns in 1..5_usize, seed: u32, classes: bool, is_validated: bool,
            is_weighted: bool, is_masked: bool,
        ) {
            let seed = seed % 1_000;
            let targets = || match classes {
                true => Targets::Classes((0..rows as u32).collect()),
                false => Targets::Values(matrix(rows, 1, seed + 1)),
            };
            let some_rows = |seed: u32| Rows {
                inputs: matrix(rows, columns, seed),
                targets: targets(),
                weights: is_weighted.then(|| matrix(rows, 1, seed)),
                mask: is_masked.then(|| matrix(rows, columns, seed + 3)),
            };
            let validation = is_validated.then(|| some_rows(seed + 2));
            let data = TrainingData { training: some_rows(seed), validation };
            let (blobs, name) = (Blobs::in_memory(), BlobName::Rows { job_id: Uuid::nil() });
            blobs.write(name, Parts::of_training_data(&data).as_slice()).unwrap();
            prop_assert_eq!(read_training_data(blobs.open(name).unwrap().unwrap()).unwrap(), data);
        }

        #[test]
        fn what_is_read_does_not_depend_on_the_parts_that_were_written(length in 0..40_u64) {
            let (blobs, name) = (Blobs::in_memory(), BlobName::Rows { job_id: Uuid::nil() });
            let bytes: Vec<u8> = (0..40).collect();
            blobs.write(name, &[Part::Number(7_u64.to_le_bytes()), Part::Lent(&bytes)]).unwrap();
            let mut reader = blobs.open(name).unwrap().unwrap();
            prop_assert_eq!(number(&mut reader).unwrap(), 7);
            prop_assert_eq!(&reader.shared(length).unwrap()[..], &bytes[..length as usize]);
            prop_assert!(reader.shared(41).is_err());
        }

        #[test]
        fn a_training_s_end_reads_back_bit_for_bit(head: Vec<u8>, count in 0..4_usize, seed: u32) {
            let vectors = (0..count).map(|index| Arc::new(matrix(3, 2, seed % 1_000 + index as u32).into_values())).collect();
            let continuation = Continuation { head, vectors };
            let name = BlobName::Continuation { uid: Uuid::nil(), blob: Uuid::nil() };
            let blobs = Blobs::in_memory();
            blobs.write(name, Parts::of_continuation(&continuation).as_slice()).unwrap();
            prop_assert_eq!(read_continuation(blobs.open(name).unwrap().unwrap()).unwrap(), continuation);
        }

        #[test]
        fn arbitrary_payloads_are_refused_without_a_panic(payload in proptest::collection::vec(0..3_u8, 0..96)) {
            let (blobs, name) = (Blobs::in_memory(), BlobName::Rows { job_id: Uuid::nil() });
            blobs.write(name, &[Part::Lent(&payload)]).unwrap();
            prop_assert!(read_training_data(blobs.open(name).unwrap().unwrap()).is_err());
            prop_assert!(read_values(blobs.open(name).unwrap().unwrap()).is_err());
        }
    }
}
