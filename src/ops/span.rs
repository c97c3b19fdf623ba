//! The span of a call, made only where something is logged in it: most calls log nothing, and to make a span takes longer than a small
//! prediction.
//!
//! While a call is polled its thread knows it. [`Lazily`] makes the span when the first event comes, or when somebody asks for the
//! current span, to take it to another thread.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use http::uri::PathAndQuery;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Span, Subscriber};
use tracing_core::span::Current;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Whether a call's span is made at its beginning: unless [`Lazily`] is there to do it later.
static IS_EAGER: AtomicBool = AtomicBool::new(true);

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// A call that is answered.
struct Call {
    id: u64,
    /// Its path is the method.
    path: Option<PathAndQuery>,
    span: Option<Span>,
}

impl Call {
    fn span(&mut self) -> &Span {
        let Self { id, path, span } = self;
        let method = path.as_ref().map_or("", PathAndQuery::path);
        span.get_or_insert_with(|| tracing::info_span!("call", id, method))
    }
}

/// The span of a call, for the time in which it is answered.
pub(super) struct InCall {
    /// `None` while it is polled: then its thread has it.
    call: Option<Call>,
}

impl InCall {
    pub(super) fn new(id: u64, path: Option<PathAndQuery>) -> Self {
        let mut call = Call { id, path, span: None };
        if IS_EAGER.load(Ordering::Relaxed) {
            call.span();
        }
        Self { call: Some(call) }
    }

    /// Does some of the call's work in its span.
    pub(super) fn scope<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let span = self.call.as_ref().and_then(|call| call.span.clone());
        let _entered = span.as_ref().map(Span::enter);
        let _known = Known::of(&mut self.call);
        work()
    }
}

/// Until it is dropped the thread knows the call.
struct Known<'a>(&'a mut Option<Call>);

impl<'a> Known<'a> {
    fn of(call: &'a mut Option<Call>) -> Self {
        CALL.with_borrow_mut(|known| std::mem::swap(known, call));
        Self(call)
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        CALL.with_borrow_mut(|known| std::mem::swap(known, self.0));
    }
}

/// The span of the call that this thread is at.
fn span_of_call() -> Option<Span> {
    CALL.with_borrow_mut(|known| known.as_mut().map(|call| call.span().clone()))
}

/// A subscriber that hears of a call's span only where something happens in it.
pub(super) struct Lazily<S>(S);

impl<S: Subscriber + Send + Sync> Lazily<S> {
    /// Lets it hear of everything, if nobody does yet: from then on calls rely on it.
    pub(super) fn start(subscriber: S) -> Result<(), TryInitError> {
        Self(subscriber).try_init()?;
        IS_EAGER.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl<S: Subscriber> Subscriber for Lazily<S> {
    fn event(&self, event: &Event<'_>) {
        let span = if self.0.current_span().id().is_none() { span_of_call() } else { None };
        let _entered = span.as_ref().map(Span::enter);
        self.0.event(event);
    }

    fn current_span(&self) -> Current {
        let current = self.0.current_span();
        if !current.is_known() || current.id().is_some() {
            return current;
        }
        let span = span_of_call();
        let known = span.as_ref().and_then(|span| Some(Current::new(span.id()?, span.metadata()?)));
        known.unwrap_or(current)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        self.0.register_callsite(metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn event_enabled(&self, event: &Event<'_>) -> bool {
        self.0.event_enabled(event)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.max_level_hint()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.0.new_span(attributes)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.0.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.0.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.0.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.0.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.0.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.0.try_close(id)
    }
}
