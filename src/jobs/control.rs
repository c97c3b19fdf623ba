//! What the outside asks of a running piece of work: read between two batches, so an atomic and not a channel.

use std::sync::atomic::{AtomicU8, Ordering};

const RUN: u8 = 0;
const STOP: u8 = 1;
const STOP_AND_KEEP: u8 = 2;

/// How a running piece of work is to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRequest {
    /// Drop what was reached.
    Discard,
    /// Keep what was reached.
    Keep,
}

/// The line from those who may stop a piece of work to the thread that runs it.
#[derive(Debug, Default)]
pub struct Control(AtomicU8);

impl Control {
    /// Asks the work to stop at its next batch. The first request counts; a later one changes nothing.
    pub fn request_stop(&self, request: StopRequest) {
        let value = match request {
            StopRequest::Discard => STOP,
            StopRequest::Keep => STOP_AND_KEEP,
        };
        // Nothing is published through this flag, so no ordering is needed; a failure means an earlier request stands.
        let _ = self.0.compare_exchange(RUN, value, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What was asked, if anything.
    pub fn stop_requested(&self) -> Option<StopRequest> {
        match self.0.load(Ordering::Relaxed) {
            STOP => Some(StopRequest::Discard),
            STOP_AND_KEEP => Some(StopRequest::Keep),
            _ => None,
        }
    }
}
