//! The end of a model: its name is free at once, and its space is given back. What is damaged can be deleted, too.

use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::jobs::StoredRequest;
use super::models::{self, StoredVersion};
use super::record::Stored;
use super::records::{Expect, Transaction, View};
use super::{Store, keys};
use crate::domain::{FailureKind, Job, Model, ModelId};

/// All that goes with a model.
#[derive(Default)]
pub(super) struct Doomed {
    /// `None` where nothing tells it: then only the name is freed.
    uid: Option<Uuid>,
    /// That of the model's record; `None` where that is damaged or missing, so that no other call can change it either.
    revision: Option<u64>,
    weights: Vec<Uuid>,
    finished_jobs: Vec<Stored<Job>>,
    /// Jobs that no call can read any more.
    damaged_jobs: Vec<Uuid>,
    /// Their request ids, as keys with revisions.
    damaged_requests: Vec<(String, u64)>,
}

impl Store {
    /// Deletes the model of a name with its versions and the histories of its finished jobs; its uid, or `None` where there is none.
    /// The records of jobs stay as long as those of any other, and so do their request ids.
    pub fn delete_model(&self, model_id: &ModelId) -> Result<Option<Deleted>, StoreError> {
        loop {
            let Some((doomed, transaction)) = self.deletion(model_id)? else { return Ok(None) };
            match self.records().commit(transaction) {
                Ok(()) => {
                    self.remove_blobs_of(&doomed);
                    return Ok(Some(Deleted { uid: doomed.uid }));
                }
                // A version was committed, a job given back, or the model deleted: look again.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What goes with a model as it is now, and the transaction that deletes it if nothing of it has changed until then.
    pub(super) fn deletion(&self, model_id: &ModelId) -> Result<Option<(Doomed, Transaction)>, StoreError> {
        let Some(doomed) = self.records().read(|view| doomed(view, model_id))? else { return Ok(None) };
        let mut transaction = Transaction::new().delete(keys::name(model_id));
        let Some(uid) = doomed.uid else { return Ok(Some((doomed, transaction))) };
        let key = keys::model(uid);
        if let Some(revision) = doomed.revision {
            transaction = transaction.only_if(&key, Expect::Revision(revision));
        }
        transaction = transaction.delete(key).delete_prefix(keys::versions(uid));
        for Stored { revision, value: job } in &doomed.finished_jobs {
            let (key, without_history) = (keys::job(job.job_id), Job { report_count: 0, ..job.clone() });
            // One that is given back meanwhile must not come back.
            transaction = transaction.only_if(&key, Expect::Revision(*revision)).put(key, &without_history)?;
            transaction = transaction.delete_chunks(keys::chunks(job.job_id));
        }
        let forget = |transaction: Transaction, &job_id: &Uuid| {
            let transaction = transaction.delete(keys::job(job_id)).delete(keys::model_job(uid, job_id));
            transaction.delete(keys::unfinished(job_id)).delete_chunks(keys::chunks(job_id))
        };
        transaction = doomed.damaged_jobs.iter().fold(transaction, forget);
        for (key, revision) in &doomed.damaged_requests {
            transaction = transaction.only_if(key, Expect::Revision(*revision)).delete(key.clone());
        }
        Ok(Some((doomed, transaction)))
    }

    fn remove_blobs_of(&self, doomed: &Doomed) {
        let Some(uid) = doomed.uid else { return };
        for &blob in &doomed.weights {
            self.blobs().remove(BlobName::Weights { uid, blob });
            self.blobs().remove(BlobName::Continuation { uid, blob });
        }
        for &job_id in &doomed.damaged_jobs {
            self.blobs().remove(BlobName::Rows { job_id });
            self.blobs().remove(BlobName::Checkpoint { job_id });
        }
    }
}

/// A model that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// `None` where its records were too damaged to tell.
    pub uid: Option<Uuid>,
}

fn doomed(view: &View, model_id: &ModelId) -> Result<Option<Doomed>, StoreError> {
    let uid = match view.get::<Uuid>(&keys::name(model_id)) {
        Ok(None) => return Ok(None),
        Ok(Some(uid)) => Some(uid.value),
        Err(StoreError::Corrupt { .. }) => models::uid_by_record(view, model_id.as_str())?,
        Err(error) => return Err(error),
    };
    let mut doomed = Doomed { uid, ..Doomed::default() };
    let Some(uid) = uid else { return Ok(Some(doomed)) };
    doomed.revision = match view.get::<Model>(&keys::model(uid)) {
        Ok(model) => model.map(|model: Stored<Model>| model.revision),
        Err(StoreError::Corrupt { .. }) => None,
        Err(error) => return Err(error),
    };
    // A version that cannot be read does not keep its model alive: its blob is swept at the next start.
    let versions = view.scan(&keys::versions(uid), None, None)?;
    let stored = versions.filter_map(|entry| entry.and_then(|entry| entry.decode::<StoredVersion>()).ok());
    doomed.weights = stored.map(|stored| stored.blob).collect();
    for entry in view.scan(&keys::model_jobs(uid), None, None)? {
        let Some(job_id) = keys::last_uuid(&entry?.key) else { continue };
        match view.get::<Job>(&keys::job(job_id)) {
            // One that failed for damaged reports has them, though it may tell of none.
            Ok(Some(job))
                if !job.value.state.is_finished() || job.value.report_count == 0 && !is_damaged(&job.value) => {}
            Ok(Some(job)) => doomed.finished_jobs.push(job),
            Ok(None) | Err(StoreError::Corrupt { .. }) => doomed.damaged_jobs.push(job_id),
            Err(error) => return Err(error),
        }
    }
    doomed.damaged_requests = requests_of(view, &doomed.damaged_jobs)?;
    Ok(Some(doomed))
}

/// Whether a job failed because something of it is damaged.
fn is_damaged(job: &Job) -> bool {
    job.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::DataLoss)
}

/// The request ids of jobs whose own records do not tell them any more.
fn requests_of(view: &View, jobs: &[Uuid]) -> Result<Vec<(String, u64)>, StoreError> {
    let mut requests = Vec::new();
    if jobs.is_empty() {
        return Ok(requests);
    }
    for entry in view.scan(keys::REQUESTS, None, None)? {
        let key = entry?.key;
        match view.get::<StoredRequest>(&key) {
            Ok(Some(request)) if jobs.contains(&request.value.job_id) => requests.push((key, request.revision)),
            // Of one that is damaged nothing tells the job.
            Ok(_) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(requests)
}
