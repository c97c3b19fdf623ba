//! The end of a model: its name is free at once, and its space is given back. What is damaged can be deleted, too.

use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::models::StoredVersion;
use super::record::Stored;
use super::records::{Expect, Transaction, View};
use super::{Store, keys};
use crate::domain::{Job, Model, ModelId};

/// All that goes with a model.
struct Doomed {
    /// `None` where nothing tells it: then only the name is freed.
    uid: Option<Uuid>,
    /// That of the model's record; `None` where that is damaged or missing, so that no other call can change it either.
    revision: Option<u64>,
    weights: Vec<Uuid>,
    finished_jobs: Vec<Job>,
    /// Jobs that no call can read any more.
    damaged_jobs: Vec<Uuid>,
}

impl Store {
    /// Deletes the model of a name with its versions and the histories of its finished jobs; its uid, or `None` where there is none.
    /// The records of jobs stay as long as those of any other, and so do their request ids.
    pub fn delete_model(&self, model_id: &ModelId) -> Result<Option<Deleted>, StoreError> {
        let name = keys::name(model_id);
        loop {
            let Some(doomed) = self.records().read(|view| doomed(view, model_id))? else { return Ok(None) };
            let mut transaction = Transaction::new().delete(name.clone());
            if let Some(uid) = doomed.uid {
                let key = keys::model(uid);
                if let Some(revision) = doomed.revision {
                    transaction = transaction.expect(&key, Expect::Revision(revision));
                }
                transaction = transaction.delete(key).delete_prefix(keys::versions(uid));
                for job in &doomed.finished_jobs {
                    let without_history = Job { report_count: 0, ..job.clone() };
                    transaction = transaction.put(keys::job(job.job_id), &without_history)?;
                    transaction = transaction.delete_chunks(keys::chunks(job.job_id));
                }
                let forget = |transaction: Transaction, &job_id: &Uuid| {
                    let transaction = transaction.delete(keys::job(job_id)).delete(keys::model_job(uid, job_id));
                    transaction.delete(keys::unfinished(job_id)).delete_chunks(keys::chunks(job_id))
                };
                transaction = doomed.damaged_jobs.iter().fold(transaction, forget);
            }
            match self.records().commit(transaction) {
                Ok(()) => {
                    self.remove_blobs_of(&doomed);
                    return Ok(Some(Deleted { uid: doomed.uid }));
                }
                Err(StoreError::Conflict { .. }) => {} // A version was committed, or the model deleted: look again.
                Err(error) => return Err(error),
            }
        }
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
        Err(StoreError::Corrupt { .. }) => uid_by_record(view, model_id)?,
        Err(error) => return Err(error),
    };
    let mut doomed =
        Doomed { uid, revision: None, weights: Vec::new(), finished_jobs: Vec::new(), damaged_jobs: Vec::new() };
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
            Ok(Some(job)) if !job.value.state.is_finished() || job.value.report_count == 0 => {}
            Ok(Some(job)) => doomed.finished_jobs.push(job.value),
            Ok(None) | Err(StoreError::Corrupt { .. }) => doomed.damaged_jobs.push(job_id),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(doomed))
}

/// The uid of the model that says it has this name: for a name whose own record is damaged.
fn uid_by_record(view: &View, model_id: &ModelId) -> Result<Option<Uuid>, StoreError> {
    for entry in view.scan(keys::NAMESPACE, None, None)? {
        let entry = entry?;
        let has_name = |model: Model| model.model_id == *model_id && entry.key == keys::model(model.uid);
        if entry.key.ends_with(keys::MODEL_SUFFIX)
            && let Ok(model) = entry.decode::<Model>()
            && let uid = model.uid
            && has_name(model)
        {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}
