//! What is around every call: a span with an id, a refusal while the server drains, the caller's deadline, and the library's own codes
//! turned into those of our contract.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::time::Sleep;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::Service;

use super::body::{AnswerBody, RequestBody};
use super::deadline;
use super::reading::{Quick, Read, Reading, Taken, framed_whole};
use super::span::InCall;
use crate::app::App;

/// The id of the call, in every answer's initial metadata and in the log.
const CALL_ID_KEY: &str = "epochd-call-id";
/// Calls of this prefix are answered while the server drains: they say that it does.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// The call ids from one that goes into the compression table of its connection to the next.
const NAMED_EVERY: u64 = 64;

static CALLS: AtomicU64 = AtomicU64::new(1);

/// The services, as the calls of one connection come to them.
#[derive(Clone)]
pub(super) struct Calls {
    served: Arc<Served>,
    addresses: TcpConnectInfo,
}

/// What all connections share.
pub(super) struct Served {
    pub(super) app: App,
    pub(super) routes: Routes,
    pub(super) quick: Box<dyn Quick>,
}

impl Calls {
    pub(super) fn new(served: Arc<Served>, addresses: TcpConnectInfo) -> Self {
        Self { served, addresses }
    }

    fn is_refused(&self, path: &str) -> bool {
        self.served.app.is_draining() && !path.starts_with(HEALTH_PREFIX)
    }

    /// Whether the message may be all that there is to see of the call.
    fn is_quick<B>(&self, request: &Request<B>) -> bool {
        request.uri().path() == self.served.quick.path() && !request.headers().contains_key("grpc-encoding")
    }

    /// The services' own answer.
    fn usual(&self, mut request: Request<Incoming>, taken: Taken) -> State {
        request.extensions_mut().insert(self.addresses.clone());
        let mut routes = self.served.routes.clone();
        let request = request.map(|rest| RequestBody::new(taken, rest));
        State::later(async move {
            let Ok(mut response) = routes.call(request).await;
            translate(response.headers_mut());
            response.map(AnswerBody::Served)
        })
    }

    /// The answer to what was read of a request.
    fn answer(&self, request: Request<Incoming>, read: Read, reading: Reading) -> State {
        match read {
            Read::Message(message) => match self.served.quick.answer(message) {
                Some(answer) => State::Answered(Some(good(answer))),
                None => self.usual(request, reading.into_taken()),
            },
            Read::Gathered(mut message) => match message.answer() {
                Some(answer) => State::later(async move {
                    answer.await.map_or_else(|status| status.into_http().map(AnswerBody::Served), good)
                }),
                None => self.usual(request, [Ok(framed_whole(&*message))].into()),
            },
            Read::Other => self.usual(request, reading.into_taken()),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let id = CALLS.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path_and_query().cloned();
        let deadline = deadline::timeout(request.headers()).map(|it| Box::pin(tokio::time::sleep(it)));
        let state = if request.method() == Method::CONNECT {
            State::Answered(Some(no_tunnel()))
        } else if self.is_refused(request.uri().path()) {
            let status = Status::unavailable("the server is stopping; try again when it is back");
            State::Answered(Some(status.into_http().map(AnswerBody::Served)))
        } else if self.is_quick(&request) {
            State::Reading { calls: self.clone(), request: Some(request), reading: Reading::default() }
        } else {
            self.usual(request, Taken::new())
        };
        let started = tracing::enabled!(tracing::Level::DEBUG).then(Instant::now);
        Answer { id, started, deadline, state, in_call: InCall::new(id, path) }
    }
}

/// The answer of a call on its way.
pub(super) struct Answer {
    id: u64,
    /// `None` where nobody logs how long calls take.
    started: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
    state: State,
    in_call: InCall,
}

// Boxed, the largest would be one more allocation of most calls.
#[allow(clippy::large_enum_variant)]
enum State {
    /// What may be answered at once, until all of it is there. The request is there as long.
    Reading { calls: Calls, request: Option<Request<Incoming>>, reading: Reading },
    /// There once.
    Answered(Option<Response<AnswerBody>>),
    /// What may take long.
    Later { is_begun: bool, answer: Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>> },
}

impl Future for Answer {
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { id, started, deadline, state, in_call } = &mut *self;
        in_call.scope(|| {
            let answered = match state.poll(context) {
                Poll::Ready(answered) => answered,
                Poll::Pending => {
                    let Some(deadline) = deadline else { return Poll::Pending };
                    ready!(deadline.as_mut().poll(context));
                    Status::deadline_exceeded("the call's deadline passed").into_http().map(AnswerBody::Served)
                }
            };
            if let Some(started) = started {
                let code = code(answered.headers());
                tracing::debug!(?code, micros = started.elapsed().as_micros() as u64, "answered");
            }
            Poll::Ready(Ok(with_call_id(answered, *id)))
        })
    }
}

impl State {
    fn later(answer: impl Future<Output = Response<AnswerBody>> + Send + 'static) -> Self {
        Self::Later { is_begun: false, answer: Box::pin(answer) }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Response<AnswerBody>> {
        loop {
            match self {
                Self::Reading { calls, request, reading } => {
                    let Some(body) = request.as_mut().map(Request::body_mut) else { return Poll::Pending };
                    let read = ready!(reading.poll(body, &*calls.served.quick, context));
                    let Some(request) = request.take() else { return Poll::Pending };
                    *self = calls.clone().answer(request, read, std::mem::take(reading));
                }
                Self::Answered(answer) => return answer.take().map_or(Poll::Pending, Poll::Ready),
                // To a task of its own: whoever reads the connection has no time for it.
                Self::Later { is_begun, .. } if !*is_begun => {
                    *is_begun = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Self::Later { answer, .. } => return answer.as_mut().poll(context),
            }
        }
    }
}

/// The answer to who asks for a tunnel: a connection of HTTP/2 that is upgraded is none that is served here.
fn no_tunnel() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Told);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

fn good(answer: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::Message(answer));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The code of an answer; a stream that has begun counts as OK.
fn code(headers: &HeaderMap) -> Code {
    headers.get(Status::GRPC_STATUS).map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

fn with_call_id<B>(mut response: Response<B>, call_id: u64) -> Response<B> {
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
