//! Large predictions as they come: rows that are packed as float32 go from the network's buffers to where they are computed with, once.
//! By the usual way they are copied together to a message, and from there to numbers.

use std::ops::Range;

use bytes::Buf;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint};

use super::decode::{self, Encoding};
use super::{bounded, encode, pb};
use crate::app::{App, AppError};
use crate::domain::Values;
use crate::ops::{Answering, Gathering};

/// `PredictRequest.inputs` and `Matrix.packed`.
const INPUTS_TAG: u32 = 2;
const PACKED_TAG: u32 = 4;

/// Bytes of a request beside its rows that are gathered so.
const OTHERS_BYTES_MAX: usize = 64 << 10;

/// Where the rows lie in a message of [`pb::PredictRequest`].
#[derive(Debug, PartialEq)]
struct Place {
    /// The field of the matrix, up to what is in it.
    inputs: Range<usize>,
    /// Bytes in it.
    inputs_length: usize,
    /// The field of the rows, up to the first.
    packed: Range<usize>,
    /// Bytes of the rows.
    packed_length: usize,
}

impl Place {
    /// In a message of `length` bytes, as its beginning tells.
    fn find(beginning: &[u8], length: usize) -> Option<Self> {
        let (inputs, inputs_length) = field(beginning, 0, INPUTS_TAG)?;
        let (packed, packed_length) = field(beginning, inputs.end, PACKED_TAG)?;
        let is_inside = packed.end.checked_add(packed_length)? <= inputs.end.checked_add(inputs_length)?
            && inputs.end.checked_add(inputs_length)? <= length;
        let are_others_few = length.checked_sub(packed_length).is_some_and(|others| others <= OTHERS_BYTES_MAX);
        (is_inside && are_others_few && packed_length.is_multiple_of(size_of::<f32>())).then_some(Self {
            inputs,
            inputs_length,
            packed,
            packed_length,
        })
    }
}

/// The first field of a number that has a length, among those from `start` on: where it stands up to what is in it, and its length.
fn field(bytes: &[u8], start: usize, tag: u32) -> Option<(Range<usize>, usize)> {
    let mut rest = bytes.get(start..)?;
    loop {
        let at = bytes.len() - rest.len();
        let (found, wire_type) = decode_key(&mut rest).ok()?;
        let length = match wire_type {
            WireType::Varint => {
                decode_varint(&mut rest).ok()?;
                0
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        if found == tag && wire_type == WireType::LengthDelimited {
            return Some((at..bytes.len() - rest.len(), length));
        }
        (length <= rest.len()).then(|| rest.advance(length))?;
    }
}

/// Whether the rest of a request has rows, too, were they none: what comes last counts.
fn gives_rows(others: &[u8]) -> bool {
    let Some((inputs, length)) = field(others, 0, INPUTS_TAG) else { return true };
    let end = inputs.end + length;
    let has_rows = others.get(inputs.end..end).is_none_or(|inputs| field(inputs, 0, PACKED_TAG).is_some());
    has_rows || field(others, end, INPUTS_TAG).is_some()
}

/// A request whose rows have their place.
pub(super) struct Rows {
    app: App,
    message_bytes_max: usize,
    place: Place,
    /// The message up to the rows.
    head: Vec<u8>,
    numbers: Vec<f32>,
    /// Bytes of them that came.
    filled: usize,
    /// The message past the rows.
    tail: Vec<u8>,
}

impl Rows {
    /// A request of `length` bytes that begins so; `None` where it is none of a kind that is gathered.
    pub(super) fn begin(app: &App, message_bytes_max: usize, beginning: &[u8], length: usize) -> Option<Self> {
        let place = (length <= message_bytes_max).then(|| Place::find(beginning, length))??;
        let (head, rows) = beginning.split_at_checked(place.packed.end)?;
        let numbers = app.row_buffer(place.packed_length / size_of::<f32>());
        let (app, head, tail) = (app.clone(), head.to_vec(), Vec::new());
        let mut gathered = Self { app, message_bytes_max, place, head, numbers, filled: 0, tail };
        gathered.take(rows);
        Some(gathered)
    }

    /// The message without its rows.
    fn others(&self) -> Vec<u8> {
        let Place { inputs, inputs_length, packed, packed_length } = &self.place;
        let inputs_length = inputs_length - packed.len() - packed_length;
        let mut others = Vec::with_capacity(self.head.len() + self.tail.len() + encoded_len_varint(u64::MAX));
        others.extend_from_slice(&self.head[..inputs.start]);
        encode_key(INPUTS_TAG, WireType::LengthDelimited, &mut others);
        encode_varint(inputs_length as u64, &mut others);
        others.extend_from_slice(&self.head[inputs.end..packed.start]);
        others.extend_from_slice(&self.tail);
        others
    }

    /// Whether nothing in the rest of the message gives the rows another meaning.
    fn is_as_expected(matrix: &pb::Matrix) -> bool {
        let types = [pb::ElementType::Unspecified, pb::ElementType::Float32];
        matrix.values.is_empty()
            && matrix.packed.is_empty()
            && types.iter().any(|&expected| matrix.packed_type == i32::from(expected))
    }
}

impl Gathering for Rows {
    fn take(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.place.packed_length - self.filled);
        let (rows, others) = bytes.split_at(count);
        let numbers = (self.filled + count).div_ceil(size_of::<f32>());
        if self.numbers.len() < numbers {
            // There is room; it is touched as it is filled.
            self.numbers.resize(numbers, 0.0);
        }
        let place = &mut bytemuck::cast_slice_mut::<f32, u8>(&mut self.numbers)[self.filled..self.filled + count];
        place.copy_from_slice(rows);
        self.filled += count;
        self.tail.extend_from_slice(others);
    }

    fn taken(&self) -> [&[u8]; 3] {
        [&self.head, &bytemuck::cast_slice::<f32, u8>(&self.numbers)[..self.filled], &self.tail]
    }

    fn answer(&mut self) -> Option<Answering> {
        let others = self.others();
        let message = pb::PredictRequest::decode(&*others).ok()?;
        if !message.inputs.as_ref().is_some_and(Self::is_as_expected) || gives_rows(&others) {
            return None;
        }
        let (app, bytes_max) = (self.app.clone(), self.message_bytes_max);
        // One that was kept may hold more of an earlier request.
        let mut numbers = std::mem::take(&mut self.numbers);
        numbers.truncate(self.filled / size_of::<f32>());
        Some(Box::pin(async move {
            let (mut request, _) = decode::predict_request(message).map_err(AppError::from)?;
            request.inputs.values = if cfg!(target_endian = "little") {
                Values::F32(numbers)
            } else {
                Values::F32(numbers.iter().map(|number| f32::from_bits(number.to_bits().swap_bytes())).collect())
            };
            let answer = encode::prediction(app.predict(request).await?, Encoding::Packed);
            let answer = bounded(answer, bytes_max, "ask for fewer rows at a time")?.into_inner();
            Ok(super::predictions::framed(&answer))
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request() -> pb::PredictRequest {
        let packed: Vec<u8> = (0..8_u8).collect();
        let packed_type = pb::ElementType::Float32.into();
        let matrix =
            pb::Matrix { rows: Some(1), columns: Some(2), packed: packed.into(), packed_type, ..Default::default() };
        pb::PredictRequest { model_id: "m".into(), inputs: Some(matrix), version: Some(3), ..Default::default() }
    }

    #[test]
    fn the_rows_of_a_message_are_found_in_its_beginning() {
        let message = request().encode_to_vec();
        let place = Place::find(&message, message.len()).unwrap();
        assert_eq!(&message[place.packed.end..][..place.packed_length], (0..8_u8).collect::<Vec<_>>());
        assert_eq!(message[place.inputs.clone()], [0x12, place.inputs_length as u8]);
        assert_eq!(Place::find(&message[..place.packed.end], message.len()), Some(place));
    }

    #[test]
    fn rows_that_are_given_twice_are_seen() {
        let without = pb::PredictRequest {
            inputs: Some(pb::Matrix { packed: Bytes::new(), ..request().inputs.unwrap() }),
            ..request()
        };
        let others = without.encode_to_vec();
        assert!(!gives_rows(&others));
        let again = |bytes: &[u8]| gives_rows(&[&others, bytes].concat());
        // A matrix without anything, and one whose rows are none.
        assert!(again(&[0x12, 0]) && again(&[0x12, 2, 0x22, 0]));
        let (inputs, length) = field(&others, 0, INPUTS_TAG).unwrap();
        let mut inside = others.clone();
        inside.splice(inputs.end + length..inputs.end + length, [0x22, 0]);
        inside[inputs.end - 1] += 2;
        assert!(gives_rows(&inside));
    }

    #[test]
    fn what_does_not_fit_together_has_no_place() {
        let message = request().encode_to_vec();
        let place = Place::find(&message, message.len()).unwrap();
        // Cut short, longer than the message, longer than the matrix, of broken numbers, without rows.
        assert_eq!(Place::find(&message[..place.packed.end - 1], message.len()), None);
        assert_eq!(Place::find(&message, place.inputs.end + place.inputs_length - 1), None);
        let mut longer = message.clone();
        longer[place.packed.end - 1] += 4;
        assert_eq!(Place::find(&longer, message.len()), None);
        let mut broken = message.clone();
        broken[place.packed.end - 1] -= 1;
        assert_eq!(Place::find(&broken, message.len()), None);
        assert_eq!(Place::find(&pb::PredictRequest::default().encode_to_vec(), 0), None);
        for bytes in [&[0x0B_u8][..], &[0x12, 0xFF], &[0x12, 2, 0x22, 0xFF], &[0xFF; 12]] {
            assert_eq!(Place::find(bytes, 1_000), None, "{bytes:?}");
        }
    }
}
