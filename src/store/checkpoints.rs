//! Checkpoints: from where an unfinished job goes on after a crash; and whether the process before this one crashed.

use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::raw::{self, Parts};
use super::record::Stored;
use super::records::{Expect, Transaction};
use super::{Store, keys};
use crate::domain::{CheckpointMark, Continuation, ContinuationRef, Job};

impl Store {
    /// Writes a checkpoint in the place of the one before, then says so in the job's record. `None` where there is no such job, or
    /// where it is finished or another attempt's: nothing is written then.
    pub fn write_checkpoint<'a>(
        &self,
        job_id: Uuid,
        attempt: u32,
        mark: CheckpointMark,
        checkpoint: impl Into<ContinuationRef<'a>>,
    ) -> Result<Option<Job>, StoreError> {
        let name = BlobName::Checkpoint { job_id };
        if self.owned_job(job_id, attempt)?.is_none() {
            return Ok(None);
        }
        let _gate = self.checkpoint_is_written();
        self.blobs().write(name, Parts::of_checkpoint(&checkpoint.into()).as_slice())?;
        let key = keys::job(job_id);
        loop {
            let Some(Stored { revision, value: job }) = self.owned_job(job_id, attempt)? else {
                self.blobs().remove(name);
                return Ok(None);
            };
            let job = Job { checkpoint: Some(mark), starts_without_checkpoint: 0, ..job };
            let transaction = Transaction::new().only_if(&key, Expect::Revision(revision)).put(key.clone(), &job)?;
            match self.records().commit(transaction) {
                Ok(()) => return Ok(Some(job)),
                Err(StoreError::Conflict { .. }) => {} // Changed meanwhile: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// The last checkpoint of an unfinished job; `None` where none was written.
    pub fn checkpoint(&self, job_id: Uuid) -> Result<Option<Continuation>, StoreError> {
        let reader = self.blobs().open(BlobName::Checkpoint { job_id })?;
        reader.map(raw::read_continuation).transpose()
    }

    /// Says that this process stops in good order: the jobs that it leaves unfinished did not bring it down.
    pub fn mark_good_stop(&self) -> Result<(), StoreError> {
        self.records().commit(Transaction::new().mark(keys::GOOD_STOP.to_owned()))
    }

    /// Whether the process before this one said so; said once. The starts of all unfinished jobs are forgotten then: they were no
    /// crashes, whether or not a job gets its turn before the next one.
    pub fn take_good_stop(&self) -> Result<bool, StoreError> {
        loop {
            let was_good = self.records().read(|view| view.contains(keys::GOOD_STOP))?;
            if !was_good {
                return Ok(false);
            }
            let mut transaction = Transaction::new().delete(keys::GOOD_STOP.to_owned());
            for job in self.unfinished_jobs()?.into_iter().filter(|job| job.starts_without_checkpoint > 0) {
                let key = keys::job(job.job_id);
                let Some(stored) = self.records().get::<Job>(&key)? else { continue };
                let job = Job { starts_without_checkpoint: 0, ..stored.value };
                transaction = transaction.only_if(&key, Expect::Revision(stored.revision)).put(key, &job)?;
            }
            match self.records().commit(transaction) {
                Ok(()) => return Ok(true),
                Err(StoreError::Conflict { .. }) => {} // Changed meanwhile: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// A job, where it is unfinished and this attempt's.
    pub(super) fn owned_job(&self, job_id: Uuid, attempt: u32) -> Result<Option<Stored<Job>>, StoreError> {
        let stored = self.records().get::<Job>(&keys::job(job_id))?;
        Ok(stored.filter(|stored| !stored.value.state.is_finished() && stored.value.attempt == attempt))
    }
}
