//! The layer around every call: a span with an id, a refusal while the server drains, and the library's own codes turned
//! into those of our contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::span::InCall;
use crate::app::App;

/// The id of the call, in every answer's initial metadata and in the log.
const CALL_ID_KEY: &str = "epochd-call-id";
/// Calls of this prefix are answered while the server drains: they say that it does.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// The call ids from one that goes into the compression table of its connection to the next.
const NAMED_EVERY: u64 = 64;

static CALLS: AtomicU64 = AtomicU64::new(1);

/// Wraps services in [`CallService`].
#[derive(Clone)]
pub(super) struct CallLayer {
    /// A handle of many parts, counted as one: it is cloned for every call.
    app: Arc<App>,
}

impl CallLayer {
    pub(super) fn new(app: App) -> Self {
        Self { app: Arc::new(app) }
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
    app: Arc<App>,
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = InCall<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call_id = CALLS.fetch_add(1, Ordering::Relaxed);
        let uri = request.uri().clone();
        if self.app.is_draining() && !uri.path().starts_with(HEALTH_PREFIX) {
            let status = Status::unavailable("the server is stopping; try again when it is back");
            return InCall::new(
                call_id,
                uri,
                Box::pin(std::future::ready(Ok(with_call_id(status.into_http(), call_id)))),
            );
        }
        let started = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
        let answer = self.inner.call(request);
        let answered = async move {
            let mut response = answer.await?;
            translate(response.headers_mut());
            if let Some(started) = started {
                let code = code(response.headers());
                tracing::debug!(?code, micros = started.elapsed().as_micros() as u64, "answered");
            }
            Ok(with_call_id(response, call_id))
        };
        InCall::new(call_id, uri, Box::pin(answered))
    }
}

/// The code of an answer; a stream that has begun counts as OK.
fn code(headers: &HeaderMap) -> Code {
    headers.get(Status::GRPC_STATUS).map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

fn with_call_id(mut response: Response<Body>, call_id: u64) -> Response<Body> {
    let mut value = HeaderValue::from(call_id);
    // It is no secret, but no two are the same: so marked, none drives another header out of the connection's compression table. One in
    // many is not, so that the table has the name.
    value.set_sensitive(!call_id.is_multiple_of(NAMED_EVERY));
    response.headers_mut().insert(CALL_ID_KEY, value);
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
