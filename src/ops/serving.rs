//! One connection as it is served: what can be answered at once is answered where it was read, and everything that the connection has
//! to say goes out together. A task for each call would cost as much as a small prediction, and its answer a write of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;

use super::call::{Calls, Served};
use super::connection::Connection;
use super::word::{Listener, Word};
use crate::limits::STREAMS_PER_CONNECTION_MAX;

/// A peer that says nothing is asked whether it is there, and given up: a sleeping laptop sends no farewell.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes that a peer may send in one frame: with the 16 KB that are usual, a request of some megabytes takes a quarter longer.
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// Calls that are begun before what was answered goes out: some microseconds each, at most.
const CALLS_AT_A_TIME: usize = 32;
/// How often a connection goes on with what came meanwhile, before others have their turn.
const ROUNDS: usize = 4;

/// The answer of a call, to its end.
type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Calls that have come since the connection was polled.
#[derive(Clone, Default)]
struct Come(Arc<Mutex<Vec<Answering>>>);

impl Come {
    fn lock(&self) -> MutexGuard<'_, Vec<Answering>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Come {
    fn execute(&self, answering: F) {
        self.lock().push(Box::pin(answering));
    }
}

/// Serves a connection until it ends; once `stop` is given, until the calls that it has are answered. Those that cannot be answered at
/// once become tasks.
pub(super) fn serve(connection: Connection, served: Arc<Served>, stop: &Word, tasks: &TaskTracker) -> Serving {
    let (come, calls) = (Come::default(), Calls::new(served, connection.addresses()));
    let connection = http2::Builder::new(come.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), calls);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let (connection, stop) = (Box::pin(connection), Some(stop.listener()));
    Serving { connection, stop, come, waiting: Vec::new(), wakes, waker, tasks: tasks.clone() }
}

/// See [`serve`].
pub(super) struct Serving {
    connection: Pin<Box<http2::Connection<TokioIo<Connection>, Calls, Come>>>,
    /// `None` once it is given.
    stop: Option<Listener>,
    come: Come,
    /// Calls that are to be begun.
    waiting: Vec<Answering>,
    wakes: Arc<Wakes>,
    /// Of `wakes`.
    waker: Waker,
    tasks: TaskTracker,
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        me.wakes.begin(context.waker());
        let waker = me.waker.clone();
        for _ in 0..ROUNDS {
            if me.poll_connection(&mut Context::from_waker(&waker)).is_ready() {
                return Poll::Ready(());
            }
            if me.wakes.rest() {
                return Poll::Pending;
            }
        }
        me.wakes.leave();
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Serving {
    fn poll_connection(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stop.as_mut().is_some_and(|stop| stop.is_given(context)) {
            self.stop = None;
            self.connection.as_mut().graceful_shutdown();
        }
        let Poll::Ready(ended) = self.connection.as_mut().poll(context) else {
            self.begin(context);
            return Poll::Pending;
        };
        // Nobody hears their answers.
        self.waiting.clear();
        self.come.lock().clear();
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
        Poll::Ready(())
    }

    /// Begins the calls that have come, or some of them.
    fn begin(&mut self, context: &mut Context<'_>) {
        self.waiting.append(&mut self.come.lock());
        let count = self.waiting.len().min(CALLS_AT_A_TIME);
        if count < self.waiting.len() {
            context.waker().wake_by_ref();
        }
        for mut answering in self.waiting.drain(..count) {
            // Nobody is woken: what is not done is polled again as soon as it is a task.
            let mut nobody = Context::from_waker(Waker::noop());
            match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(&mut nobody))) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => drop(self.tasks.spawn(answering)),
                // It has been told where it happened; the caller hears that the call was given up.
                Err(_) => {}
            }
        }
        // A peer may have so many calls; of more, it has reset some. A task sees that without being computed in this turn.
        let surplus = self.waiting.len().saturating_sub(STREAMS_PER_CONNECTION_MAX as usize);
        for answering in self.waiting.drain(..surplus) {
            drop(self.tasks.spawn(answering));
        }
    }
}

/// The connection is being polled ...
const POLLED: u8 = 1;
/// ... and has been woken since that began.
const WOKEN: u8 = 2;

/// Whom the parts of a connection wake. What happens while it is polled, such as an answer of its own, is seen before the poll ends and
/// takes no turn of the scheduler.
#[derive(Default)]
struct Wakes {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Wakes {
    /// The task begins a poll.
    fn begin(&self, task: &Waker) {
        {
            let mut known = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
                *known = Some(task.clone());
            }
        }
        // Not stored: what was written before a wake that is taken off here is seen by the poll.
        self.state.swap(POLLED, Ordering::SeqCst);
    }

    /// Ends the poll, unless something has happened since it began, or since it was asked last.
    fn rest(&self) -> bool {
        let is_over = self.state.compare_exchange(POLLED, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !is_over {
            self.state.swap(POLLED, Ordering::SeqCst);
        }
        is_over
    }

    /// Ends the poll, whatever has happened.
    fn leave(&self) {
        self.state.swap(0, Ordering::SeqCst);
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::SeqCst) == 0
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_happens_while_a_connection_is_polled_is_seen_before_it_rests_and_later_wakes_its_task_once() {
        let (count, wakes) = (Arc::new(Count::default()), Arc::new(Wakes::default()));
        let (task, waker) = (Waker::from(count.clone()), Waker::from(wakes.clone()));
        let woken = || count.0.load(Ordering::Relaxed);
        wakes.begin(&task);
        waker.wake_by_ref();
        assert!(!wakes.rest() && wakes.rest());
        assert_eq!(woken(), 0);
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(woken(), 1);
        wakes.begin(&task);
        assert!(wakes.rest());
        waker.wake();
        assert_eq!(woken(), 2);
    }

    #[test]
    fn a_connection_that_leaves_is_woken_by_what_comes_after() {
        let (count, wakes) = (Arc::new(Count::default()), Arc::new(Wakes::default()));
        wakes.begin(&Waker::from(count.clone()));
        Waker::from(wakes.clone()).wake();
        wakes.leave();
        Waker::from(wakes.clone()).wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
