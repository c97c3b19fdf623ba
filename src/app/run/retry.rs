//! What a disk that is full or gone for a while delays, and does not end: tried again, with pauses that grow.

use std::time::{Duration, Instant};

use super::reports::NAP;

/// The pause before a second attempt; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Failures to read a checkpoint after which that is not taken to pass: 6.3 s of pauses that double, and three of the longest.
const LONG_FAILURES: u32 = 9;

/// When the next attempt is due.
pub(super) struct Retry {
    next_attempt: Instant,
    pause: Duration,
    /// Attempts that failed because the job's checkpoint could not be read.
    checkpoint_failures: u32,
}

impl Retry {
    /// At once.
    pub(super) fn new() -> Self {
        Self { next_attempt: Instant::now(), pause: FIRST_PAUSE, checkpoint_failures: 0 }
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
    }

    /// The attempt that is under way fails because the job's checkpoint cannot be read now; whether it failed for that again and again,
    /// for some 20 s or more: it may not be for a while only. Other failures in between say nothing of the checkpoint.
    pub(super) fn is_checkpoint_given_up(&mut self) -> bool {
        self.checkpoint_failures += 1;
        self.checkpoint_failures > LONG_FAILURES
    }

    /// How long it is until the attempt after the next, at least.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_given_up_for_its_own_failures_alone() {
        let mut retry = Retry::new();
        for _ in 0..100 {
            retry.failed();
        }
        assert!((0..9).all(|_| !retry.is_checkpoint_given_up()));
        assert!(retry.is_checkpoint_given_up());
    }
}
