//! The layer around every call: a span with an id, a refusal while the server drains, and the library's own codes turned
//! into those of our contract.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;

use crate::app::App;

/// The id of the call, in every answer's initial metadata and in the log.
const CALL_ID_KEY: &str = "epochd-call-id";
/// Calls of this prefix are answered while the server drains: they say that it does.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

static CALLS: AtomicU64 = AtomicU64::new(1);

/// Wraps services in [`CallService`].
#[derive(Clone)]
pub(super) struct CallLayer {
    app: App,
}

impl CallLayer {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner, app: self.app.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct CallService<S> {
    inner: S,
    app: App,
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call_id = CALLS.fetch_add(1, Ordering::Relaxed);
        let method = request.uri().path();
        let span = tracing::info_span!("call", id = call_id, method);
        if self.app.is_draining() && !method.starts_with(HEALTH_PREFIX) {
            let status = Status::unavailable("the server is stopping; try again when it is back");
            return Box::pin(std::future::ready(Ok(with_call_id(status.into_http(), call_id))));
        }
        let started = Instant::now();
        let answer = self.inner.call(request);
        let answered = async move {
            let mut response = answer.await?;
            translate(response.headers_mut());
            let code = code(response.headers());
            tracing::debug!(?code, micros = started.elapsed().as_micros() as u64, "answered");
            Ok(with_call_id(response, call_id))
        };
        Box::pin(answered.instrument(span))
    }
}

/// The code of an answer; a stream that has begun counts as OK.
fn code(headers: &HeaderMap) -> Code {
    headers.get(Status::GRPC_STATUS).map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

fn with_call_id(mut response: Response<Body>, call_id: u64) -> Response<Body> {
    response.headers_mut().insert(CALL_ID_KEY, HeaderValue::from(call_id));
    response
}

/// The library answers an oversized request with OUT_OF_RANGE, which by our contract is RESOURCE_EXHAUSTED, with what to
/// change. Our own code uses OUT_OF_RANGE never.
fn translate(headers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(headers).filter(|status| status.code() == Code::OutOfRange) else {
        return;
    };
    let advice = "send fewer rows or weights at a time, or raise the server's --message-bytes-max";
    let translated = Status::resource_exhausted(format!("{}; {advice}", status.message()));
    headers.remove(Status::GRPC_MESSAGE);
    if translated.add_header(headers).is_err() {
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(Code::ResourceExhausted as i32));
    }
}
