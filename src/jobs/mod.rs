//! The scheduler: exclusive work keyed by model, in slices on threads of its own; and what watchers read of it.
//!
//! Nothing here knows neural networks, the wire or the store. A piece of [`Work`] is whatever runs in slices under a key;
//! a [`History`] is whatever it appends, read by cursors that never hold it up.

mod control;
mod history;
mod scheduler;
mod threads;

pub use control::{Control, StopRequest};
pub use history::{Cursor, FullChunk, History, READ_MAX, Read, Reported};
pub use scheduler::{Cancelled, Limits, Permit, QueueFull, Scheduler, Slice, Work};
pub use threads::{Threads, lower_priority};
