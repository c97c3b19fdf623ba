//! What is kept of what is over: old versions, and finished jobs with their histories.
//!
//! Versions are given back with the commit of a later one, in the same transaction. Finished jobs are given back in passes, one
//! every few jobs and one at a start: a pass reads every job's record.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, TryLockError};

use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::jobs::StoredRequest;
use super::models::StoredVersion;
use super::records::{Expect, Transaction, View};
use super::{Store, keys};
use crate::domain::{Job, Model, Start, Timestamp};
use crate::limits::{
    FINISHED_JOBS_DEFAULT, FINISHED_JOBS_PER_MODEL_DEFAULT, KEPT_REPORTS_DEFAULT, PINNED_VERSIONS_MAX,
    VERSIONS_PER_MODEL_DEFAULT,
};

/// Jobs that finish between two passes.
const JOBS_BETWEEN_PASSES: u32 = 64;
/// Jobs that are given back with one transaction.
const JOBS_PER_TRANSACTION: usize = 256;

/// Bounds on what is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Newest versions of a model, 1 or more. Kept besides: the first, those that are pinned, the one that is served, and
    /// the one that an unfinished job started from.
    pub versions_per_model: u32,
    /// Finished jobs of a model, those that ended last.
    pub jobs_per_model: u32,
    /// The same, of all models.
    pub jobs: u32,
    /// Epoch reports of the jobs that ended last; the very last is kept whatever it has.
    pub reports: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            versions_per_model: VERSIONS_PER_MODEL_DEFAULT,
            jobs_per_model: FINISHED_JOBS_PER_MODEL_DEFAULT,
            jobs: FINISHED_JOBS_DEFAULT,
            reports: KEPT_REPORTS_DEFAULT,
        }
    }
}

/// A version whose record is deleted with a commit, and its weights after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superfluous {
    pub version: u32,
    /// `None` where its record is damaged: the next start sweeps the blob.
    blob: Option<Uuid>,
}

/// What became of a wish to pin a version, to unpin it, or to serve it.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// It is as wished: the model as it is now.
    Done(Box<Model>),
    /// There is no such model (any more).
    NoModel,
    /// There is no such version (any more).
    NoVersion,
    /// As many versions of the model are pinned as may be; the bound.
    TooMany(usize),
}

/// Versions of a model that were given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedVersions {
    /// The model's.
    pub uid: Uuid,
    /// Their numbers.
    pub versions: Vec<u32>,
}

/// When the next pass over finished jobs is due.
#[derive(Default)]
pub(super) struct JobPasses {
    finished_since: AtomicU32,
    one_at_a_time: Mutex<()>,
}

impl Store {
    /// Keeps a version whatever its age, or no longer.
    pub fn pin_version(&self, uid: Uuid, version: u32, is_pinned: bool) -> Result<Choice, StoreError> {
        self.choose(uid, Some(version), |model| {
            match is_pinned {
                true => model.pinned_versions.insert(version),
                false => model.pinned_versions.remove(&version),
            };
        })
    }

    /// Chooses the version that a model serves, `None` for its latest.
    pub fn set_serving_version(&self, uid: Uuid, version: Option<u32>) -> Result<Choice, StoreError> {
        self.choose(uid, version, |model| model.serving_version = version)
    }

    /// Changes what a model keeps, where the version is there. A commit that gives versions back expects the model as it read it, so
    /// it cannot give back this one meanwhile.
    fn choose(&self, uid: Uuid, version: Option<u32>, change: impl Fn(&mut Model)) -> Result<Choice, StoreError> {
        let model_key = keys::model(uid);
        loop {
            let (stored, is_there) = self.records().read(|view| {
                let is_there = version.map_or(Ok(true), |version| view.contains(&keys::version(uid, version)))?;
                Ok((view.get::<Model>(&model_key)?, is_there))
            })?;
            let Some(stored) = stored else { return Ok(Choice::NoModel) };
            if !is_there {
                return Ok(Choice::NoVersion);
            }
            let mut model = stored.value.clone();
            change(&mut model);
            if model.pinned_versions.len() > PINNED_VERSIONS_MAX {
                return Ok(Choice::TooMany(PINNED_VERSIONS_MAX));
            }
            if model == stored.value {
                return Ok(Choice::Done(Box::new(model)));
            }
            let transaction = Transaction::new().only_if(&model_key, Expect::Revision(stored.revision));
            match self.records().commit(transaction.put(model_key.clone(), &model)?) {
                Ok(()) => return Ok(Choice::Done(Box::new(model))),
                Err(StoreError::Conflict { .. }) => {} // Changed meanwhile: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back the versions that are too many although no commit comes: after a start with another bound.
    pub fn prune_versions(&self) -> Result<Vec<PrunedVersions>, StoreError> {
        let mut pruned = Vec::new();
        for uid in self.records().read(model_uids)? {
            match self.prune_versions_of(uid) {
                Ok(versions) if versions.is_empty() => {}
                Ok(versions) => pruned.push(PrunedVersions { uid, versions }),
                // Whoever asks for the model is told.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    fn prune_versions_of(&self, uid: Uuid) -> Result<Vec<u32>, StoreError> {
        let model_key = keys::model(uid);
        loop {
            let found = self.records().read(|view| {
                let Some(model) = view.get::<Model>(&model_key)? else { return Ok(None) };
                let superfluous = superfluous(view, &model.value, model.value.latest_version, self.retention)?;
                Ok(Some((model, superfluous)))
            })?;
            let Some((model, superfluous)) = found.filter(|(_, superfluous)| !superfluous.is_empty()) else {
                return Ok(Vec::new());
            };
            let delete =
                |transaction: Transaction, gone: &Superfluous| transaction.delete(keys::version(uid, gone.version));
            // The record is written again as it is: a job that starts from one of them meanwhile looks again.
            let transaction = superfluous.iter().fold(Transaction::new(), delete);
            let transaction = transaction.only_if(&model_key, Expect::Revision(model.revision));
            match self.records().commit(transaction.put(model_key.clone(), &model.value)?) {
                Ok(()) => {
                    self.remove_superfluous(uid, &superfluous);
                    return Ok(superfluous.iter().map(|gone| gone.version).collect());
                }
                Err(StoreError::Conflict { .. }) => {} // The model changed in between: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back the weights of versions whose records are gone.
    pub(super) fn remove_superfluous(&self, uid: Uuid, versions: &[Superfluous]) {
        for blob in versions.iter().filter_map(|version| version.blob) {
            self.blobs().remove(BlobName::Weights { uid, blob });
            self.blobs().remove(BlobName::Continuation { uid, blob });
        }
    }

    /// A job has finished: every so often, those that are too many are given back. A fault is only logged, since the next pass
    /// tries again.
    pub(super) fn note_finished_job(&self) {
        let passes = &self.inner.job_passes;
        if passes.finished_since.fetch_add(1, Ordering::Relaxed) + 1 < JOBS_BETWEEN_PASSES.min(self.retention.jobs) {
            return;
        }
        if let Err(error) = self.prune_jobs() {
            tracing::warn!(%error, "old jobs could not be given back; it is tried again");
        }
    }

    /// Deletes the finished jobs that are too many, with their histories and request ids; tells how many.
    pub fn prune_jobs(&self) -> Result<usize, StoreError> {
        let passes = &self.inner.job_passes;
        // Another pass, from an older state, could delete a request id that a new job has taken over.
        let _guard = match passes.one_at_a_time.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(0),
        };
        passes.finished_since.store(0, Ordering::Relaxed);
        let doomed = self.records().read(|view| too_many(view, self.retention))?;
        let mut given_back = 0;
        for jobs in doomed.chunks(JOBS_PER_TRANSACTION) {
            match self.records().commit(jobs.iter().fold(Transaction::new(), delete_job)) {
                Ok(()) => given_back += jobs.len(),
                // A request id went meanwhile, with its damaged job: the next pass looks again.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if given_back > 0 {
            tracing::info!(jobs = given_back, "records and histories of the oldest finished jobs were given back");
        }
        Ok(given_back)
    }
}

/// A finished job that is given back.
struct DoomedJob {
    job_id: Uuid,
    model_uid: Uuid,
    request_id: String,
    /// Of the request's record, where that is this job's.
    request_revision: Option<u64>,
}

/// A finished job, as far as it matters whether it is kept.
struct FinishedJob {
    end: Timestamp,
    reports: u64,
    job: DoomedJob,
}

impl From<Job> for FinishedJob {
    fn from(job: Job) -> Self {
        let Job { job_id, model_uid, request_id, .. } = job;
        let doomed = DoomedJob { job_id, model_uid, request_id, request_revision: None };
        Self { end: job.end_time.unwrap_or(job.create_time), reports: job.report_count, job: doomed }
    }
}

/// Adds to a transaction what deletes a finished job, its history and its request id.
fn delete_job(transaction: Transaction, job: &DoomedJob) -> Transaction {
    let transaction = transaction
        .delete(keys::job(job.job_id))
        .delete(keys::model_job(job.model_uid, job.job_id))
        .delete_chunks(keys::chunks(job.job_id));
    let Some(revision) = job.request_revision else { return transaction };
    let key = keys::request(&job.request_id);
    transaction.only_if(&key, Expect::Revision(revision)).delete(key)
}

/// The models that there are.
fn model_uids(view: &View) -> Result<Vec<Uuid>, StoreError> {
    let mut uids = Vec::new();
    for entry in view.scan(keys::NAMES, None, None)? {
        // Whoever asks for one whose record is damaged is told.
        uids.extend(entry?.decode::<Uuid>().ok());
    }
    Ok(uids)
}

/// The versions of a model that need not be kept once `newest` is there.
pub(super) fn superfluous(
    view: &View,
    model: &Model,
    newest: u32,
    retention: Retention,
) -> Result<Vec<Superfluous>, StoreError> {
    let oldest_kept = (newest + 1).saturating_sub(retention.versions_per_model.max(1));
    if oldest_kept <= 2 {
        return Ok(Vec::new());
    }
    let (first, end) = (format!("{:08}", 1), format!("{oldest_kept:08}"));
    let mut candidates = Vec::new();
    for entry in view.scan(&keys::versions(model.uid), Some(&first), Some(&end))? {
        let entry = entry?;
        let Some(version) = keys::last_number(&entry.key) else { continue };
        if !model.pinned_versions.contains(&version) && model.serving_version != Some(version) {
            let blob = entry.decode::<StoredVersion>().ok().map(|stored| stored.blob);
            candidates.push(Superfluous { version, blob });
        }
    }
    if !candidates.is_empty() {
        let bases = bases_of_unfinished(view, model.uid)?;
        candidates.retain(|candidate| !bases.contains(&candidate.version));
    }
    Ok(candidates)
}

/// The versions, with their models, whose trainings unfinished jobs go on with: after a crash before its first checkpoint, or
/// with one that does not read, such a job begins again from there. Of one model, or of all.
pub(super) fn continued_bases(view: &View, of: Option<Uuid>) -> Result<HashSet<(Uuid, u32)>, StoreError> {
    let mut bases = HashSet::new();
    for entry in view.scan(keys::UNFINISHED, None, None)? {
        let Some(job_id) = keys::last_uuid(&entry?.key) else { continue };
        if let Some(uid) = of
            && !view.contains(&keys::model_job(uid, job_id))?
        {
            continue;
        }
        match view.get::<Job>(&keys::job(job_id)) {
            Ok(job) => bases.extend(job.and_then(|job| continued_base(&job.value))),
            // It will not start again.
            Err(StoreError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bases)
}

/// The version, with its model, whose training a job goes on with, if it is unfinished and does.
pub(super) fn continued_base(job: &Job) -> Option<(Uuid, u32)> {
    let base = job.base_version.filter(|_| job.settings.start == Start::Continue && !job.state.is_finished());
    base.map(|base| (job.model_uid, base))
}

/// The versions that unfinished jobs of a model started from: after a crash they start from them again.
fn bases_of_unfinished(view: &View, uid: Uuid) -> Result<HashSet<u32>, StoreError> {
    let mut bases = HashSet::new();
    for entry in view.scan(keys::UNFINISHED, None, None)? {
        let Some(job_id) = keys::last_uuid(&entry?.key) else { continue };
        if view.contains(&keys::model_job(uid, job_id))? {
            match view.get::<Job>(&keys::job(job_id)) {
                Ok(job) => bases.extend(job.and_then(|job| job.value.base_version)),
                // It will not start again.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bases)
}

/// The finished jobs past the bounds: those that ended last are kept, however long they took. One whose record is damaged stays: a
/// checker tells of it.
fn too_many(view: &View, retention: Retention) -> Result<Vec<DoomedJob>, StoreError> {
    let mut finished = Vec::new();
    for entry in view.scan(keys::JOBS, None, None)? {
        let Ok(job) = entry?.decode::<Job>() else { continue };
        if job.state.is_finished() {
            finished.push(FinishedJob::from(job));
        }
    }
    finished.sort_unstable_by_key(|finished| Reverse((finished.end, finished.job.job_id)));
    let mut per_model: HashMap<Uuid, u32> = HashMap::new();
    let (mut jobs, mut reports) = (0_u32, 0_u64);
    let mut doomed = Vec::new();
    for FinishedJob { job, reports: more, .. } in finished {
        let of_model = per_model.entry(job.model_uid).or_default();
        let is_newest = jobs == 0;
        (*of_model, jobs, reports) = (*of_model + 1, jobs + 1, reports.saturating_add(more));
        let is_kept = *of_model <= retention.jobs_per_model
            && jobs <= retention.jobs
            && (is_newest || reports <= retention.reports);
        if !is_kept {
            let request_revision = request_revision(view, &job)?;
            doomed.push(DoomedJob { request_revision, ..job });
        }
    }
    Ok(doomed)
}

/// The revision of a job's request id; `None` where it has none, and where another job has it: its own was damaged, and went.
fn request_revision(view: &View, job: &DoomedJob) -> Result<Option<u64>, StoreError> {
    if job.request_id.is_empty() {
        return Ok(None);
    }
    match view.get::<StoredRequest>(&keys::request(&job.request_id)) {
        Ok(request) => Ok(request.filter(|request| request.value.job_id == job.job_id).map(|request| request.revision)),
        // Of one that is damaged nothing tells the job; whoever uses it is told.
        Err(StoreError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
