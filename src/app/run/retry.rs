//! What a disk that is full or gone for a while delays, and does not end: tried again, with pauses that grow.

use std::time::{Duration, Instant};

use super::reports::NAP;

/// The pause before a second attempt; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Failures after which it is not taken to pass: 6.3 s of pauses that double, and three of the longest.
const LONG_FAILURES: u32 = 9;

/// When the next attempt is due.
pub(super) struct Retry {
    next_attempt: Instant,
    pause: Duration,
    failures: u32,
}

impl Retry {
    /// At once.
    pub(super) fn new() -> Self {
        Self { next_attempt: Instant::now(), pause: FIRST_PAUSE, failures: 0 }
    }

    /// Whether the attempt is due; else a part of the wait is over when this returns.
    pub(super) fn is_due(&self) -> bool {
        let wait = self.next_attempt.saturating_duration_since(Instant::now());
        if wait > Duration::ZERO {
            std::thread::sleep(wait.min(NAP));
        }
        wait == Duration::ZERO
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self) {
        self.next_attempt = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether it failed again and again, for some 20 s or more: it may not be for a while only.
    pub(super) fn is_long(&self) -> bool {
        self.failures >= LONG_FAILURES
    }

    /// How long it is until the attempt after the next, at least.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }
}
