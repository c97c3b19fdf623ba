//! How requests come off the wire: with a bound on what they grow into, and with our own codes for what cannot be read.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use crate::limits::MESSAGE_PARTS_MAX;

/// Messages deeper than this are not looked into: the contract's are no deeper.
const DEPTH_MAX: usize = 8;

/// The least that a text, a byte string or a message takes within another.
const PART_BYTES_MIN: usize = 2;

/// The codec of the services. Answers are written as ever.
#[derive(Debug)]
pub struct RequestCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for RequestCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for RequestCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = RequestDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RequestDecoder(PhantomData)
    }
}

/// Reads a request.
#[derive(Debug)]
pub struct RequestDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for RequestDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        // A part has a tag and a length: so few bytes have no more of them.
        let may_have_too_many = bytes.len() > MESSAGE_PARTS_MAX * PART_BYTES_MIN;
        if may_have_too_many && parts(bytes.clone(), DEPTH_MAX).is_some_and(|parts| parts > MESSAGE_PARTS_MAX) {
            return Err(Status::resource_exhausted(format!(
                "the request has more than {MESSAGE_PARTS_MAX} texts and messages in it; send numbers as one `packed` or \
                 `values` field"
            )));
        }
        let message = U::decode(bytes);
        message.map(Some).map_err(|error| Status::invalid_argument(format!("the request cannot be read: {error}")))
    }
}

/// How many texts, byte strings and messages lie in a message, at any depth; `None` where the bytes are no message. An empty
/// message is two bytes here and a whole struct in memory, so it is their number that must be bounded, not their size.
fn parts(mut bytes: Bytes, depth: usize) -> Option<usize> {
    let mut count = 0;
    while bytes.has_remaining() {
        let (_, wire_type) = decode_key(&mut bytes).ok()?;
        let skipped = match wire_type {
            WireType::Varint => decode_varint(&mut bytes).ok().map(|_| 0)?,
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                let part = (length <= bytes.len()).then(|| bytes.split_to(length))?;
                // What is text or numbers rather than a message seldom reads as one, and then counts a little more.
                count += 1 + if depth > 1 { parts(part, depth - 1).unwrap_or(0) } else { 0 };
                0
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        (skipped <= bytes.len()).then(|| bytes.advance(skipped))?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::pb;

    fn parts_of(message: &impl Message) -> Option<usize> {
        parts(message.encode_to_vec().into(), DEPTH_MAX)
    }

    #[test]
    fn messages_are_counted_at_every_depth() {
        let weights = pb::LayerWeights { weights: Some(pb::Matrix::default()), ..Default::default() };
        let request = pb::SetWeightsRequest { model_id: "m".into(), layers: vec![weights; 3] };
        assert_eq!(parts_of(&request), Some(1 + 3 * 2));
        let layers = vec![pb::Layer { units: 3, ..Default::default() }; 10];
        let architecture = Some(pb::Architecture { input_width: 2, layers, ..Default::default() });
        assert_eq!(parts_of(&pb::CreateModelRequest { architecture, ..Default::default() }), Some(11));
    }

    #[test]
    fn numbers_do_not_count_as_messages() {
        let values: Vec<f64> = (0..10_000).map(|index| f64::from(index) / 7.0).collect();
        let packed: Vec<u8> = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
        let values = pb::Matrix { values, ..Default::default() };
        let packed = pb::Matrix { packed: packed.into(), ..Default::default() };
        for matrix in [values, packed] {
            let request = pb::PredictRequest { inputs: Some(matrix), ..Default::default() };
            assert!(parts_of(&request).unwrap() < 10);
        }
    }

    #[test]
    fn bytes_that_are_no_message_have_no_parts() {
        for bytes in [&[0x0A, 0x05, 0x01][..], &[0x00], &[0x0B], &[0x09, 1, 2, 3], &[0xFF; 12]] {
            assert_eq!(parts(Bytes::copy_from_slice(bytes), DEPTH_MAX), None, "{bytes:?}");
        }
    }
}
