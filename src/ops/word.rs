//! A word that is given once: that connections are to end, or to be closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The word; clones are one.
#[derive(Clone, Debug, Default)]
pub struct Word {
    is_given: Arc<AtomicBool>,
    wakes: CancellationToken,
}

impl Word {
    /// Gives it.
    pub fn give(&self) {
        self.is_given.store(true, Ordering::Release);
        self.wakes.cancel();
    }

    /// Completes once it is given.
    pub(super) async fn given(&self) {
        self.wakes.cancelled().await;
    }

    /// Listens for it in one task.
    pub(super) fn listener(&self) -> Listener {
        Listener { is_given: self.is_given.clone(), given: Box::pin(self.wakes.clone().cancelled_owned()), woken: None }
    }
}

/// See [`Word::listener`].
pub(super) struct Listener {
    is_given: Arc<AtomicBool>,
    given: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whom the word wakes: to leave it again at every look would have all connections wait for one lock.
    woken: Option<Waker>,
}

impl Listener {
    /// Whether it is given. If not, whoever asks is woken when it is.
    pub(super) fn is_given(&mut self, context: &mut Context<'_>) -> bool {
        if !self.woken.as_ref().is_some_and(|woken| woken.will_wake(context.waker())) {
            // Where the word has been given it is seen below.
            let _ = self.given.as_mut().poll(context);
            self.woken = Some(context.waker().clone());
        }
        self.is_given.load(Ordering::Acquire)
    }
}
