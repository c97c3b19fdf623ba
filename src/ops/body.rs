//! What requests bring and answers carry.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::reading::Taken;

/// A request, some of which has been read already.
pub(super) struct RequestBody {
    taken: Taken,
    rest: Incoming,
}

impl RequestBody {
    pub(super) fn new(taken: Taken, rest: Incoming) -> Self {
        Self { taken, rest }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.taken.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.rest.is_end_stream()
    }
}

/// An answer on its way.
pub(super) enum AnswerBody {
    /// As the services make it.
    Served(Body),
    /// One message with gRPC's five bytes before it, then the word that all is well.
    Message(Bytes),
    /// That word.
    Good,
    /// Nothing more.
    Told,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let (frame, next) = match &mut *self {
            Self::Served(body) => return Pin::new(body).poll_frame(context),
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Good),
            Self::Good => (Frame::trailers(good()), Self::Told),
            Self::Told => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Served(body) => body.is_end_stream(),
            Self::Message(_) | Self::Good => false,
            Self::Told => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Served(body) => body.size_hint(),
            // Not told: it would be a header of its own.
            Self::Message(_) | Self::Good | Self::Told => SizeHint::default(),
        }
    }
}

fn good() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}
