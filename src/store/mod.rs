//! What is durable: models, versions and their weights, jobs and their data, and the histories of jobs.
//!
//! # Promises
//!
//! - When a verb that writes returns `Ok`, the next process on the same folder shows it, whatever ends this one.
//! - What a verb writes, it writes as a whole or not at all. Verbs that change a record compare its revision, so callers in
//!   many threads (and, behind another implementation, in many processes) lose no update.
//! - Whatever is read was verified: damaged bytes are [`StoreError::Corrupt`], which names them, and never a panic or
//!   another value. The rest still reads.
//! - After an `Err` of a verb that writes, it either happened or not: read, or call again.
//!
//! Every verb blocks; none may be called from async code. A [`Store`] is a cheap handle: the last one to go closes the file
//! and frees the folder.
//!
//! # The folder
//!
//! ```text
//! LOCK              held by the process that uses the folder
//! OPEN              there while a process has the records open, and after one that did not close them
//! FORMAT            "epochd store format 1": written last at creation; anything else is refused
//! records.redb      two tables: records (key to sealed MessagePack), and log (chunks of histories)
//! blobs/<uid>_<blob>.weights   a version's weights; <blob> is drawn for each attempt, and stands in the version's record
//! blobs/<uid>_<blob>.state     where the training of a model's latest version ended, under the id of its weights
//! blobs/<job_id>.rows          an unfinished job's data
//! blobs/<job_id>.checkpoint    from where it goes on after a crash
//! ```
//!
//! A blob is durable before the record that refers to it, and removed after it; what a crash leaves between the two is swept
//! at the next opening. `record.rs` and `blobs.rs` describe the bytes.
//!
//! # The keys
//!
//! ```text
//! default/names/<model_id>              the uid
//! default/<uid>/model                   Model
//! default/<uid>/version/<8 digits>      Version, and its blob
//! default/<uid>/job/<job_id>            (index: the jobs of a model)
//! default/jobs/<job_id>                 Job
//! default/unfinished/<job_id>           (index: the jobs to go on with after a start)
//! default/stopped                       (mark: the last process stopped in good order)
//! default/requests/<request_id>         the job's id, a hash of the request
//! default/<job_id>/<8 digits>           in the log: a chunk of reports
//! ```
//!
//! # What is assumed of the disk
//!
//! fsync of a file and of a folder puts what was written before it beyond a power cut, and rename is atomic. Nothing is
//! assumed of bytes that were not synced, nor of what is read back: all of it carries checksums. The file system has file
//! locks. docs/storage.md says how each of these is tried. redb commits in two phases with its allocator state ("quick repair"), so an opening after a kill walks no file.
//!
//! A plain opening trusts redb's own pages. Where those are damaged redb panics, which becomes an error; but redb 4.6 can
//! panic twice over a damaged allocator page, which ends the process. Nothing acknowledged is lost by that, and only a
//! backup helps: the record file is as damaged as the disk left it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::backends::InMemoryBackend;

use blobs::Blobs;
use database::Medium;
use disk::{Disk, FileSystem};
use holds::HeldBlobs;
use lock::{Age, FolderLock};
use records::Records;
use retention::JobPasses;

mod backup;
mod blob_reader;
mod blobs;
mod check;
mod checkpoints;
mod columns;
mod database;
mod deletion;
mod disk;
mod error;
mod histories;
mod holds;
mod jobs;
mod key_kinds;
mod keys;
mod listed;
mod lock;
mod models;
mod overlay;
mod raw;
mod record;
mod records;
mod retention;
mod sweep;
mod usage;
mod writer;

#[cfg(test)]
mod tests;

pub use backup::{Backup, BackupError, BackupSize, LeftOut, RestoreError, Restored, restore};
pub use check::{Counts, Finding, Line, Look, check};
pub use deletion::Deleted;
pub use error::StoreError;
pub use jobs::{Accepted, Finished, JobFilter, JobStart, Outcome, Started};
pub use listed::Listed;
pub use models::{CommittedVersion, VersionDraft};
pub use retention::{Choice, PrunedVersions, Retention};

const RECORDS_FILE: &str = "records.redb";
const BLOBS_FOLDER: &str = "blobs";

/// A handle of the store.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    retention: Retention,
}

struct Inner {
    // In the order in which they are dropped: the writer ends and the file is closed before the folder is free.
    records: Records,
    blobs: HeldBlobs,
    /// Shared by whoever writes a checkpoint and its mark; exclusive while a backup chooses its state.
    checkpoint_gate: RwLock<()>,
    /// `None` for a store in memory.
    lock: Option<FolderLock>,
    job_passes: JobPasses,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the store in a folder, which is created where it is missing.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(FileSystem), folder)
    }

    fn open_on(disk: Arc<dyn Disk>, folder: &Path) -> Result<Self, StoreError> {
        let lock = FolderLock::take(&*disk, folder)?;
        let age = lock::read_format(&*disk, folder)?;
        backup::sweep(&*disk, folder);
        let path = folder.join(RECORDS_FILE);
        let is_there = disk.exists(&path).map_err(StoreError::io(format!("look for {}", path.display())))?;
        match (age, is_there) {
            // To go on would be to sweep every blob.
            (Age::Known, false) => return Err(StoreError::corrupt(format!("{} (it is missing)", path.display()))),
            (Age::New, false) if blobs::holds_any(&*disk, &folder.join(BLOBS_FOLDER))? => {
                return Err(lock::records_are_missing(folder));
            }
            (Age::New, false) => database::create_file(&*disk, &path)?,
            (Age::Known | Age::New, true) => {}
        }
        let records = Records::open(Medium::File { disk: Arc::clone(&disk), path })?;
        let blobs = Blobs::in_folder(Arc::clone(&disk), folder.join(BLOBS_FOLDER))?;
        if age == Age::New {
            if !records.read(|view| view.is_empty())? {
                return Err(lock::format_is_missing(folder));
            }
            lock::write_format(&*disk, folder)?;
        }
        let store = Self::of(records, blobs, Some(lock));
        store.sweep()?;
        Ok(store)
    }

    /// A store in memory, gone with its last handle.
    pub fn ephemeral() -> Result<Self, StoreError> {
        Self::over(Medium::Backend(Arc::new(InMemoryBackend::new())), Blobs::in_memory())
    }

    fn over(medium: Medium, blobs: Blobs) -> Result<Self, StoreError> {
        let records = Records::open(medium)?;
        Ok(Self::of(records, blobs, None))
    }

    fn of(records: Records, blobs: Blobs, lock: Option<FolderLock>) -> Self {
        let blobs = HeldBlobs::new(blobs);
        let inner =
            Inner { records, blobs, checkpoint_gate: RwLock::default(), lock, job_passes: JobPasses::default() };
        Self { inner: Arc::new(inner), retention: Retention::default() }
    }

    /// The same store, with other bounds on what is over. Versions past them go with their model's next one, jobs with the next pass.
    pub fn with_retention(self, retention: Retention) -> Self {
        Self { retention, ..self }
    }

    /// Whether it outlives this process.
    pub fn is_durable(&self) -> bool {
        self.inner.lock.is_some()
    }

    fn records(&self) -> &Records {
        &self.inner.records
    }

    fn blobs(&self) -> &HeldBlobs {
        &self.inner.blobs
    }

    /// From before a checkpoint is written until its job's record says so.
    fn checkpoint_is_written(&self) -> RwLockReadGuard<'_, ()> {
        self.inner.checkpoint_gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no checkpoint is being written, and lets none begin.
    fn checkpoints_rest(&self) -> RwLockWriteGuard<'_, ()> {
        self.inner.checkpoint_gate.write().unwrap_or_else(PoisonError::into_inner)
    }
}
