//! The threads that train: a tokio runtime of their own, whose blocking pool runs the slices.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// How much lower than serving the training threads stand with the operating system (Unix niceness): a prediction is
/// scheduled at once while every core trains. With 10 a core that was kept busy with predictions gave a training its turns of some
/// milliseconds so often that one call in a hundred met one (docs/serving-performance.md).
const NICENESS: i32 = 19;

/// Owns the training threads. Must be dropped, or shut down, outside async code.
pub struct Threads {
    runtime: Runtime,
    count: usize,
}

impl Threads {
    /// Starts `count` training threads (they appear as work comes).
    pub fn start(count: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(count)
            .thread_name("epochd-train")
            .on_thread_start(lower_priority)
            .build()?;
        Ok(Self { runtime, count })
    }

    /// Where slices are spawned.
    pub fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// How many slices run at once.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Waits for running slices, but not longer than `deadline`.
    pub fn shut_down(self, deadline: Duration) {
        self.runtime.shutdown_timeout(deadline);
    }
}

/// Lets the calling thread stand behind those that serve.
pub fn lower_priority() {
    // On Linux, process 0 means the calling thread, which is what is wanted; elsewhere it would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "training threads keep the priority of the process");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = NICENESS;
}
