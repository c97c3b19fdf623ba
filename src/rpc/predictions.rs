//! Predictions that are answered where they are read: what waits for nothing needs neither a task nor a stream of messages. Large ones are
//! gathered: see [`Rows`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::gathering::Rows;
use super::{decode, encode, pb};
use crate::app::App;
use crate::limits::PREDICT_AT_ONCE_BYTES_MAX;
use crate::ops::{Gathering, PREFIX_BYTES, Quick};

/// The method and its small answers.
pub struct Predictions {
    app: App,
    message_bytes_max: usize,
}

impl Predictions {
    /// Over the use cases, with messages of at most `message_bytes_max`.
    pub fn new(app: App, message_bytes_max: usize) -> Self {
        Self { app, message_bytes_max }
    }
}

impl Quick for Predictions {
    fn path(&self) -> &'static str {
        "/epochd.v1.ModelService/Predict"
    }

    fn answer(&self, message: Bytes) -> Option<Bytes> {
        if message.len() > PREDICT_AT_ONCE_BYTES_MAX.min(self.message_bytes_max) {
            return None;
        }
        let (request, encoding) = decode::predict_request(pb::PredictRequest::decode(message).ok()?).ok()?;
        let answer = encode::prediction(self.app.predict_at_once(request)?, encoding);
        (answer.encoded_len() <= self.message_bytes_max).then(|| framed(&answer))
    }

    fn gather(&self, beginning: &[u8], length: usize) -> Option<Box<dyn Gathering>> {
        if length <= PREDICT_AT_ONCE_BYTES_MAX {
            return None;
        }
        let rows = Rows::begin(&self.app, self.message_bytes_max, beginning, length)?;
        Some(Box::new(rows))
    }
}

/// A message, which is bounded, with gRPC's bytes before it.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    // There is room, and nothing else can be wrong.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}
