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
    /// Asks the work to stop at its next batch. To discard overrules to keep, which may have to wait; nothing overrules to discard.
    pub fn request_stop(&self, request: StopRequest) {
        // Nothing is published through this flag, so no ordering is needed.
        match request {
            StopRequest::Discard => self.0.store(STOP, Ordering::Relaxed),
            StopRequest::Keep => {
                // A failure means that an earlier request stands.
                let _ = self.0.compare_exchange(RUN, STOP_AND_KEEP, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_discard_overrules_to_keep_and_nothing_overrules_to_discard() {
        let control = Control::default();
        assert_eq!(control.stop_requested(), None);
        for (request, stands) in [
            (StopRequest::Keep, StopRequest::Keep),
            (StopRequest::Discard, StopRequest::Discard),
            (StopRequest::Keep, StopRequest::Discard),
        ] {
            control.request_stop(request);
            assert_eq!(control.stop_requested(), Some(stands));
        }
    }
}
