//! The hash of a request to train: of its bytes as this server would encode them, which are never in memory as a whole.

use bytes::Buf as _;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, skip_field};
use xxhash_rust::xxh3::Xxh3;

use crate::rpc::pb;
use crate::rpc::pb::train_request::Validation;

/// The bytes of a message, in pieces: the numbers of its matrices where they lie.
struct Encoded<'a>(Vec<Piece<'a>>);

enum Piece<'a> {
    Own(Vec<u8>),
    Lent(&'a [u8]),
}

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Lent(bytes) => bytes,
        }
    }
}

impl<'a> Encoded<'a> {
    /// A message: `rest` is all of it but some fields, whose bytes are in `large`, by their numbers in rising order.
    fn new(rest: &impl Message, large: impl IntoIterator<Item = (u32, Self)>) -> Self {
        let rest = rest.encode_to_vec();
        let mut remaining = rest.as_slice();
        let mut pieces = Vec::new();
        for (number, encoded) in large {
            let (before, after) = remaining.split_at(end_of_fields_below(number, remaining));
            remaining = after;
            let mut piece = before.to_vec();
            encode_key(number, WireType::LengthDelimited, &mut piece);
            encode_varint(encoded.len() as u64, &mut piece);
            pieces.push(Piece::Own(piece));
            pieces.extend(encoded.0);
        }
        pieces.push(Piece::Own(remaining.to_vec()));
        Self(pieces)
    }

    fn of_matrix(matrix: &'a pb::Matrix) -> Self {
        let &pb::Matrix { rows, columns, packed_type, .. } = matrix;
        let rest = pb::Matrix { rows, columns, packed_type, ..pb::Matrix::default() };
        // Doubles are on the wire as they lie in memory: little-endian.
        let values: &[u8] = bytemuck::cast_slice(&matrix.values);
        let large = [(3, values), (4, &matrix.packed)].into_iter().filter(|(_, bytes)| !bytes.is_empty());
        Self::new(&rest, large.map(|(number, bytes)| (number, Self(vec![Piece::Lent(bytes)]))))
    }

    fn of_matrices<const N: usize>(matrices: [(u32, &'a Option<pb::Matrix>); N]) -> impl Iterator<Item = (u32, Self)> {
        let there = matrices.into_iter().filter_map(|(number, matrix)| Some((number, matrix.as_ref()?)));
        there.map(|(number, matrix)| (number, Self::of_matrix(matrix)))
    }

    fn len(&self) -> usize {
        self.0.iter().map(|piece| piece.as_ref().len()).sum()
    }
}

/// How many bytes of a message of ours come before the fields from `number` on: they are in the order of their numbers.
fn end_of_fields_below(number: u32, message: &[u8]) -> usize {
    let mut remaining = message;
    loop {
        let end = message.len() - remaining.len();
        if !remaining.has_remaining() {
            return end;
        }
        // It was encoded just now: it reads.
        let Ok((found, wire_type)) = decode_key(&mut remaining) else { return end };
        if found >= number || skip_field(wire_type, found, &mut remaining, DecodeContext::default()).is_err() {
            return end;
        }
    }
}

/// XXH3 of 128 bits, low byte first. The request is as it was afterwards.
pub(super) fn request_hash(request: &mut pb::TrainRequest) -> [u8; 16] {
    let (inputs, targets) = (request.inputs.take(), request.targets.take());
    let (weights, mask) = (request.sample_weights.take(), request.target_mask.take());
    let validation = match &request.validation {
        Some(Validation::ValidationData(_)) => request.validation.take(),
        _ => None,
    };
    let validation_rows = match &validation {
        Some(Validation::ValidationData(rows)) => Some((5, encoded_rows(rows))),
        _ => None,
    };
    let before = Encoded::of_matrices([(2, &inputs), (3, &targets)]);
    let after = Encoded::of_matrices([(24, &weights), (25, &mask)]);
    let encoded = Encoded::new(request, before.chain(validation_rows).chain(after));
    let mut hash = Xxh3::new();
    encoded.0.iter().for_each(|piece| hash.update(piece.as_ref()));
    drop(encoded);
    (request.inputs, request.targets) = (inputs, targets);
    (request.sample_weights, request.target_mask) = (weights, mask);
    if validation.is_some() {
        request.validation = validation;
    }
    hash.digest128().to_le_bytes()
}

fn encoded_rows(rows: &pb::ValidationData) -> Encoded<'_> {
    let pb::ValidationData { inputs, targets, sample_weights, target_mask } = rows;
    let matrices = Encoded::of_matrices([(1, inputs), (2, targets), (3, sample_weights), (4, target_mask)]);
    Encoded::new(&pb::ValidationData::default(), matrices)
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    fn packed(count: usize) -> Option<pb::Matrix> {
        let packed: Vec<u8> = (0..count * 4).map(|index| (index * 7) as u8).collect();
        Some(pb::Matrix { rows: Some(count as i32), packed: packed.into(), packed_type: 1, ..Default::default() })
    }

    fn values(count: usize) -> Option<pb::Matrix> {
        let values = (0..count).map(|index| index as f64 / 3.0).collect();
        Some(pb::Matrix { columns: Some(1), values, ..Default::default() })
    }

    /// With fields before, between and after the matrices.
    fn requests() -> Vec<pb::TrainRequest> {
        let empty = || Some(pb::Matrix::default());
        let both = pb::Matrix { values: vec![1.0], ..packed(300).unwrap() };
        let none = pb::TrainRequest::default();
        let some = pb::TrainRequest {
            model_id: "m".into(),
            inputs: packed(1_000),
            targets: values(50),
            validation: Some(Validation::ValidationFraction(0.25)),
            epochs: Some(7),
            request_id: "r".into(),
            sample_weights: empty(),
            metrics: vec![3, 1],
            top_k: Some(2),
            ..none.clone()
        };
        let rows =
            pb::ValidationData { inputs: values(3), targets: None, sample_weights: packed(9), target_mask: empty() };
        let validated = pb::TrainRequest {
            validation: Some(Validation::ValidationData(rows)),
            target_mask: Some(both),
            ..some.clone()
        };
        let rows = Some(Validation::ValidationData(pb::ValidationData::default()));
        vec![none.clone(), some, validated, pb::TrainRequest { validation: rows, ..none }]
    }

    #[test]
    fn the_hash_is_that_of_the_encoded_request() {
        for mut request in requests() {
            let before = request.clone();
            assert_eq!(request_hash(&mut request), xxh3_128(&before.encode_to_vec()).to_le_bytes(), "{before:?}");
            assert_eq!(request, before);
        }
    }

    #[test]
    fn rows_are_not_copied_to_be_hashed() {
        let mut request =
            pb::TrainRequest { inputs: packed(100_000), targets: values(100_000), ..requests()[1].clone() };
        let counted = allocation_counter::measure(|| drop(request_hash(&mut request)));
        assert!(counted.bytes_total < 10_000, "{counted:?}");
    }
}
