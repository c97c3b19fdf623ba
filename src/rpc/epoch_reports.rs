//! The message `EpochReports`: what comes in is read as any other, what goes out was written from a history's own form.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, message, skip_field};
use prost::{DecodeError, Message};

use super::pb;

/// The field `reports`.
const REPORTS: u32 = 1;

/// One or more epochs, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EpochReports {
    /// The reports, of a message that was read.
    pub reports: Vec<pb::EpochReport>,
    /// More of them, as fields of this message that were written before.
    pub(super) written: Bytes,
}

impl Message for EpochReports {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        message::encode_repeated(REPORTS, &self.reports, buffer);
        buffer.put_slice(&self.written);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            REPORTS => message::merge_repeated(wire_type, &mut self.reports, buffer, context),
            _ => skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(REPORTS, &self.reports) + self.written.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
