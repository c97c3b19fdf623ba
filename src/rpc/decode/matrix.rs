//! Matrices from the wire.

use bytes::Bytes;

use crate::domain::{At, ElementType, Faults, Packed, RawMatrix, Values};
use crate::rpc::pb;

/// How a matrix was written, and how the answer's matrices are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Encoding {
    /// In `values`.
    Values,
    /// In `packed`.
    Packed,
}

impl Encoding {
    /// The encoding of a request's matrix.
    pub(in crate::rpc) fn of(matrix: Option<&pb::Matrix>) -> Self {
        match matrix {
            Some(matrix) if !matrix.packed.is_empty() => Self::Packed,
            _ => Self::Values,
        }
    }

    /// The encoding that a request asks for.
    pub(in crate::rpc) fn asked(value: i32, at: At<'_>, faults: &mut Faults) -> Option<Self> {
        Some(match super::known(value, at, faults)? {
            pb::MatrixEncoding::Unspecified | pb::MatrixEncoding::Values => Self::Values,
            pb::MatrixEncoding::Packed => Self::Packed,
        })
    }
}

/// A matrix that must be there.
pub(in crate::rpc) fn required_matrix(
    matrix: Option<pb::Matrix>,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<RawMatrix> {
    must_be_there(matrix.as_ref(), at, faults);
    raw_matrix(matrix?, at, faults)
}

/// A fault where a matrix is not there.
pub(super) fn must_be_there(matrix: Option<&pb::Matrix>, at: At<'_>, faults: &mut Faults) {
    if matrix.is_none() {
        faults.add(at, "is required: a matrix such as {\"values\": [1, 2, 3]}");
    }
}

/// A matrix, its numbers not checked yet.
pub(in crate::rpc) fn raw_matrix(matrix: pb::Matrix, at: At<'_>, faults: &mut Faults) -> Option<RawMatrix> {
    let matrix = packed_matrix(matrix, at, faults)?;
    Some(RawMatrix { values: matrix.values.unpacked(), ..matrix })
}

/// The same, where numbers that were packed stay in the message's buffer. For rows of a training, which may be most of the memory: a copy
/// would hold them twice.
pub(in crate::rpc) fn packed_matrix(matrix: pb::Matrix, at: At<'_>, faults: &mut Faults) -> Option<RawMatrix> {
    let rows = count(matrix.rows, at.field("rows"), faults);
    let columns = count(matrix.columns, at.field("columns"), faults);
    let packed_type = element_type(matrix.packed_type, at.field("packed_type"), faults);
    if !matrix.values.is_empty() && !matrix.packed.is_empty() {
        faults.add(at, "has both `values` and `packed`; send one of them");
        return None;
    }
    let values = if matrix.packed.is_empty() {
        Values::F64(matrix.values)
    } else {
        packed(matrix.packed, packed_type?, at.field("packed"), faults)?
    };
    Some(RawMatrix { values, rows: rows?, columns: columns? })
}

/// An element type; FLOAT32 where none is named.
pub(super) fn element_type(value: i32, at: At<'_>, faults: &mut Faults) -> Option<ElementType> {
    Some(match super::known(value, at, faults)? {
        pb::ElementType::Unspecified | pb::ElementType::Float32 => ElementType::Float32,
        pb::ElementType::Float64 => ElementType::Float64,
    })
}

fn count(value: Option<i32>, at: At<'_>, faults: &mut Faults) -> Option<Option<usize>> {
    match value {
        None => Some(None),
        Some(value) => faults.whole(at, value.into(), 0..=i32::MAX.into()).map(|value| Some(value as usize)),
    }
}

fn packed(bytes: Bytes, element_type: ElementType, at: At<'_>, faults: &mut Faults) -> Option<Values> {
    let length = bytes.len();
    let packed = Packed::new(bytes, element_type);
    if packed.is_none() {
        let size = element_type.size_bytes();
        faults.add(at, format!("has {length} bytes, which is no whole number of {size}-byte floats"));
    }
    packed.map(Values::Packed)
}
