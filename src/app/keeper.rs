//! Reports on their way into the store: a thread takes full chunks there while their trainings go on.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, iter};

use uuid::Uuid;

use super::live::LiveJob;
use crate::store::{Store, StoreError};

/// Full chunks in one commit: half a megabyte on the disk where few metrics are told.
const GROUP_CHUNKS_MAX: usize = 64;

/// Between two rounds: a commit costs as much as some twenty chunks in it.
const INTERVAL: Duration = Duration::from_millis(20);

/// A job with full chunks that are not stored.
type Waiting = (Uuid, Arc<LiveJob>);

/// The thread, which ends when this is dropped.
pub(super) struct Keeper {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(store: Store) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        let thread = thread::Builder::new().name("epochd-reports".to_owned()).spawn(move || keep(&store, &waiting))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Has the full chunks of a job stored soon. A job waits once, whatever it has.
    pub(super) fn store_soon(&self, job_id: Uuid, live: &Arc<LiveJob>) {
        if let Some(jobs) = &self.jobs
            && live.begin_to_wait()
        {
            // The thread is there as long as this is.
            let _ = jobs.send((job_id, live.clone()));
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // It has no word to say: what it could not store is tried again by the job, or trained again.
            let _ = thread.join();
        }
    }
}

fn keep(store: &Store, waiting: &Receiver<Waiting>) {
    while let Ok(first) = waiting.recv() {
        // What comes during a round waits for the next one, so that no job takes all of them.
        let round: Vec<_> = iter::once(first).chain(waiting.try_iter()).collect();
        for (job_id, live) in round {
            live.end_to_wait();
            if let Err(error) = store_full_chunks(store, job_id, &live) {
                tracing::error!(%error, %job_id, "reports could not be stored; they are kept and tried again");
            }
        }
        thread::sleep(INTERVAL);
    }
}

/// Stores the chunks of a job that are full now, in order, until some cannot be stored: those stay in memory then. Waits where another
/// thread is at it.
pub(super) fn store_full_chunks(store: &Store, job_id: Uuid, live: &LiveJob) -> Result<(), StoreError> {
    let _turn = live.storing.lock().unwrap_or_else(PoisonError::into_inner);
    let mut left = live.history.unstored_count() as usize;
    while left > 0 {
        let chunks = live.history.unstored(left.min(GROUP_CHUNKS_MAX));
        store.write_chunks(job_id, chunks.iter().map(|chunk| (chunk.index as u32, &*chunk.reports)))?;
        live.history.mark_stored(chunks.len());
        left -= chunks.len();
    }
    Ok(())
}
