//! Jobs: accepted once, owned by one attempt at a time, finished once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::listed::Listed;
use super::models::{self, BaseOfNext, VersionDraft, WrittenWeights};
use super::raw::{self, Parts};
use super::record::Stored;
use super::records::{Entry, Expect, Transaction, View};
use super::{Store, keys};
use crate::domain::{Continuation, Job, JobState, Model, ModelId, Start, StopReason, Timestamp, TrainingData, Values};

/// What became of a request to train.
#[derive(Clone, Debug, PartialEq)]
pub enum Accepted {
    /// The job, its data and its request id are durable.
    New,
    /// The same request was accepted before, as this job.
    Same(Box<Job>),
    /// Another request was accepted under this id.
    RequestIdTaken,
}

/// What became of the end of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Finished {
    /// The end is durable.
    Committed {
        /// The job as it is recorded now, with the number of its version.
        job: Box<Job>,
        /// Versions that are gone with the commit, since they need not be kept any more.
        pruned: Vec<u32>,
    },
    /// Nothing was written: the job, as it is recorded, is finished already or belongs to another attempt. Whoever called
    /// again after an error finds here what the first call did.
    NotOwner(Box<Job>),
}

/// What the end of a job finds of its model.
enum Home {
    There(Box<BaseOfNext>),
    Gone,
    /// An end without a version needs no more of it.
    Damaged,
}

/// What became of the start of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Started {
    /// The attempt is recorded, and the version that the job trains from.
    Begun(Box<Job>),
    /// There is no such job, or it is finished, or its model is gone.
    Gone,
}

/// What is only known when a job starts.
#[derive(Clone, Debug)]
pub struct JobStart {
    /// The job's attempts before this process. Where there is another already it is this one, and is not counted twice.
    pub attempts_before: u32,
    /// The build and the kind of processor.
    pub trained_on: String,
    /// Whether the process before this one stopped in good order, so that the job's earlier starts are no crashes.
    pub is_after_good_stop: bool,
    /// When.
    pub time: Timestamp,
}

/// What a job comes to: a version, and what a later training goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The version.
    pub draft: VersionDraft,
    /// Its weights; they may be among the vectors of `continuation`.
    pub parameters: Arc<Values>,
    /// The end of the training, where it is to be kept.
    pub continuation: Option<Continuation>,
}

/// Which jobs are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Those of this model.
    pub model_uid: Option<Uuid>,
    /// Those of models that had this name.
    pub model_id: Option<ModelId>,
    /// Those in this state.
    pub state: Option<JobState>,
}

impl JobFilter {
    fn matches(&self, job: &Job) -> bool {
        self.model_uid.is_none_or(|uid| job.model_uid == uid)
            && self.model_id.as_ref().is_none_or(|model_id| job.model_id == *model_id)
            && self.state.is_none_or(|state| job.state == state)
    }
}

/// Which job a request id stands for, and what the request was.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredRequest {
    pub(super) job_id: Uuid,
    hash: [u8; 16],
}

impl Store {
    /// Accepts a job: its record, its request id and its data are durable when this returns [`Accepted::New`].
    pub fn accept_job(&self, job: &Job, request_hash: [u8; 16], data: &TrainingData) -> Result<Accepted, StoreError> {
        if let Some(known) = self.known_request(&job.request_id, request_hash)? {
            return Ok(known);
        }
        let rows = BlobName::Rows { job_id: job.job_id };
        let job_key = keys::job(job.job_id);
        if self.records().read(|view| view.contains(&job_key))? {
            return Err(StoreError::Conflict { key: job_key });
        }
        self.blobs().write(rows, Parts::of_training_data(data).as_slice())?;
        let mut transaction = Transaction::new()
            .only_if(&job_key, Expect::Absent)
            .put(job_key.clone(), job)?
            .mark(keys::model_job(job.model_uid, job.job_id))
            .mark(keys::unfinished(job.job_id));
        if !job.request_id.is_empty() {
            let request_key = keys::request(&job.request_id);
            let request = StoredRequest { job_id: job.job_id, hash: request_hash };
            transaction = transaction.only_if(&request_key, Expect::Absent).put(request_key, &request)?;
        }
        match self.records().commit(transaction) {
            Ok(()) => Ok(Accepted::New),
            // A job id of ours is drawn once; were it not, the rows would be the other job's.
            Err(StoreError::Conflict { key }) if key == job_key => Err(StoreError::Conflict { key }),
            Err(StoreError::Conflict { key }) => {
                self.blobs().remove(rows);
                // Another call with the same request id was first.
                self.known_request(&job.request_id, request_hash)?.ok_or(StoreError::Conflict { key })
            }
            // A commit may have happened although the disk reported a fault after it.
            Err(error) => match self.records().read(|view| view.contains(&job_key)) {
                Ok(true) => Ok(Accepted::New),
                _ => Err(error),
            },
        }
    }

    /// What a request id stands for already; `None` where it is new, or where there is none.
    pub fn known_request(&self, request_id: &str, hash: [u8; 16]) -> Result<Option<Accepted>, StoreError> {
        if request_id.is_empty() {
            return Ok(None);
        }
        self.records().read(|view| {
            let Some(request) = view.get::<StoredRequest>(&keys::request(request_id))? else { return Ok(None) };
            if request.value.hash != hash {
                return Ok(Some(Accepted::RequestIdTaken));
            }
            let job = get_job(view, request.value.job_id)?;
            job.map(|job| Some(Accepted::Same(Box::new(job)))).ok_or_else(|| missing_job(request.value.job_id))
        })
    }

    /// A job's record.
    pub fn job(&self, job_id: Uuid) -> Result<Option<Job>, StoreError> {
        self.records().read(|view| get_job(view, job_id))
    }

    /// Up to `limit` jobs that the filter wants, newest first, those older than `before`. What cannot be read is listed with any filter.
    pub fn jobs(&self, filter: &JobFilter, before: Option<Uuid>, limit: usize) -> Result<Vec<Listed<Job>>, StoreError> {
        self.jobs_as_they_are(filter, before, limit, |job| job)
    }

    /// As [`Store::jobs`], where `now` gives a job as it is, and its record here may be late.
    pub fn jobs_as_they_are(
        &self,
        filter: &JobFilter,
        before: Option<Uuid>,
        limit: usize,
        now: impl Fn(Job) -> Job,
    ) -> Result<Vec<Listed<Job>>, StoreError> {
        let before = before.map(|job_id| job_id.to_string());
        let prefix = filter.model_uid.map_or_else(|| keys::JOBS.to_owned(), keys::model_jobs);
        self.records().read(|view| {
            let job = |entry: Result<Entry, StoreError>| {
                let entry = entry?;
                let job = if filter.model_uid.is_some() { indexed_job(view, &entry.key) } else { entry.decode() };
                Listed::of(&entry.key, job.map(&now))
            };
            let is_wanted = |job: &Result<Listed<Job>, StoreError>| match job {
                Ok(Listed::Item(job)) => filter.matches(job),
                _ => true,
            };
            view.scan(&prefix, None, before.as_deref())?.rev().map(job).filter(is_wanted).take(limit).collect()
        })
    }

    /// The jobs that are queued or running, oldest first. One whose record is damaged is logged and left out: it must not
    /// keep the others from being trained.
    pub fn unfinished_jobs(&self) -> Result<Vec<Job>, StoreError> {
        self.records().read(|view| {
            let mut jobs = Vec::new();
            for entry in view.scan(keys::UNFINISHED, None, None)? {
                match indexed_job(view, &entry?.key) {
                    Ok(job) => jobs.push(job),
                    Err(error @ StoreError::Corrupt { .. }) => {
                        tracing::error!(%error, "an unfinished job cannot be read, and is left out");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(jobs)
        })
    }

    /// The rows of an unfinished job; `None` where there is no such job, or where it is finished.
    pub fn training_data(&self, job_id: Uuid) -> Result<Option<TrainingData>, StoreError> {
        let name = BlobName::Rows { job_id };
        if let Some(reader) = self.blobs().open(name)? {
            return raw::read_training_data(reader).map(Some);
        }
        match self.records().read(|view| view.contains(&keys::unfinished(job_id)))? {
            true => Err(StoreError::corrupt(format!("blobs/{name} (it is missing)"))),
            false => Ok(None),
        }
    }

    /// Starts an attempt at a job: durable before anything is read for it, so that a process which ends meanwhile is counted. The first
    /// attempt chooses the base, which is kept from then on; the start time is the first attempt's.
    pub fn start_job(&self, job_id: Uuid, start: JobStart) -> Result<Started, StoreError> {
        let key = keys::job(job_id);
        loop {
            let Some(Stored { revision, value: mut job }) = self.records().get::<Job>(&key)? else {
                return Ok(Started::Gone);
            };
            if job.state.is_finished() {
                return Ok(Started::Gone);
            }
            if job.attempt > start.attempts_before {
                return Ok(Started::Begun(Box::new(job)));
            }
            let model_key = keys::model(job.model_uid);
            let Some(model) = self.records().get::<Model>(&model_key)? else { return Ok(Started::Gone) };
            start.put_into(&mut job, &model.value);
            // The model's record is written again, as it is: a commit that read it before looks again, and finds the job.
            let transaction = Transaction::new()
                .only_if(&key, Expect::Revision(revision))
                .put(key.clone(), &job)?
                .only_if(&model_key, Expect::Revision(model.revision))
                .put(model_key, &model.value)?;
            match self.records().commit(transaction) {
                Ok(()) => return Ok(Started::Begun(Box::new(job))),
                Err(StoreError::Conflict { .. }) => {} // Cancelled, or a version came meanwhile: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// Records what a job goes on with, which is known once that was read: the seed in force, and the epochs before its own. `None` where
    /// there is no such job, or where it is finished or another attempt's.
    pub fn record_continued(
        &self,
        job_id: Uuid,
        attempt: u32,
        (seed, epochs_before): (u64, u32),
    ) -> Result<Option<Job>, StoreError> {
        let key = keys::job(job_id);
        loop {
            let Some(Stored { revision, value: mut job }) = self.owned_job(job_id, attempt)? else { return Ok(None) };
            if (job.settings.seed, job.epochs_before) == (seed, epochs_before) {
                return Ok(Some(job));
            }
            (job.settings.seed, job.epochs_before) = (seed, epochs_before);
            let transaction = Transaction::new().only_if(&key, Expect::Revision(revision)).put(key.clone(), &job)?;
            match self.records().commit(transaction) {
                Ok(()) => return Ok(Some(job)),
                Err(StoreError::Conflict { .. }) => {} // Changed meanwhile: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends a job and commits its version, both or neither. `job` is the finished record; its attempt tells whether the
    /// caller still owns it. Where the model is gone the job ends as cancelled, without a version.
    pub fn finish_job(&self, job: &Job, result: Option<Outcome>) -> Result<Finished, StoreError> {
        let written = match result {
            None => None,
            Some(Outcome { draft, parameters, continuation }) => {
                Some((draft, self.write_weights(job.model_uid, Parts::of_shared(&parameters), continuation.as_ref())?))
            }
        };
        let finished = self.commit_finished(job, written.as_ref())?;
        let is_committed = matches!(&finished, Finished::Committed { job, .. } if job.version.is_some());
        if let Some((_, weights)) = written
            && !is_committed
        {
            self.discard_weights(weights);
        }
        if let Finished::Committed { job, .. } = &finished {
            // What it went on from may have been kept for it alone.
            let base = job.base_version.filter(|_| job.settings.start == Start::Continue);
            for version in job.version.map(|version| version - 1).into_iter().chain(base) {
                self.forget_continuation(job.model_uid, version);
            }
            self.blobs().remove(BlobName::Rows { job_id: job.job_id });
            self.blobs().remove(BlobName::Checkpoint { job_id: job.job_id });
            self.note_finished_job();
        }
        Ok(finished)
    }

    /// What a job's end, with a version or without, finds of its model.
    fn home(&self, view: &View, uid: Uuid, with_version: bool) -> Result<Home, StoreError> {
        match models::base_of_next(view, uid, self.retention) {
            Ok(Some(base)) => Ok(Home::There(Box::new(base))),
            Ok(None) => Ok(Home::Gone),
            Err(StoreError::Corrupt { .. }) if !with_version => Ok(Home::Damaged),
            Err(error) => Err(error),
        }
    }

    fn commit_finished(
        &self,
        finished: &Job,
        result: Option<&(VersionDraft, WrittenWeights)>,
    ) -> Result<Finished, StoreError> {
        let (job_id, uid) = (finished.job_id, finished.model_uid);
        let key = keys::job(job_id);
        loop {
            let (stored, home) = self.records().read(|view| {
                let stored = view.get::<Job>(&key)?.ok_or_else(|| missing_job(job_id))?;
                Ok((stored, self.home(view, uid, result.is_some())?))
            })?;
            if stored.value.state.is_finished() || stored.value.attempt != finished.attempt {
                return Ok(Finished::NotOwner(Box::new(stored.value)));
            }
            let transaction =
                Transaction::new().only_if(&key, Expect::Revision(stored.revision)).delete(keys::unfinished(job_id));
            let mut superfluous = Vec::new();
            let (transaction, job) = match (home, result) {
                (Home::There(base), Some((draft, weights))) => {
                    superfluous.clone_from(&base.superfluous);
                    let (transaction, version) = models::next_version(transaction, *base, draft, *weights)?;
                    (transaction, Job { version: Some(version.version), ..finished.clone() })
                }
                // Written again as it is, so that a deletion which has not seen this end looks again, and takes the history.
                (Home::There(base), None) => {
                    let Stored { revision, value } = base.model;
                    let model_key = keys::model(uid);
                    let transaction =
                        transaction.only_if(&model_key, Expect::Revision(revision)).put(model_key, &value)?;
                    (transaction, finished.clone())
                }
                (Home::Damaged, _) => (transaction, finished.clone()),
                (Home::Gone, _) => {
                    let transaction = transaction.delete_chunks(keys::chunks(job_id));
                    (transaction, ended_after_its_model(finished, result.is_some()))
                }
            };
            match self.records().commit(transaction.put(key.clone(), &job)?) {
                Ok(()) => {
                    self.remove_superfluous(uid, &superfluous);
                    let pruned = superfluous.iter().map(|gone| gone.version).collect();
                    return Ok(Finished::Committed { job: Box::new(job), pruned });
                }
                Err(StoreError::Conflict { .. }) => {} // The model or the job changed in between: look again.
                Err(error) => return Err(error),
            }
        }
    }
}

impl JobStart {
    fn put_into(&self, job: &mut Job, model: &Model) {
        job.state = JobState::Running;
        job.attempt += 1;
        job.starts_without_checkpoint = if self.is_after_good_stop { 1 } else { job.starts_without_checkpoint + 1 };
        if job.trained_on.last() != Some(&self.trained_on) {
            job.trained_on.push(self.trained_on.clone());
        }
        job.base_version.get_or_insert(match job.settings.start {
            Start::Latest | Start::Continue => model.latest_version,
            Start::Initial => 1,
        });
        job.start_time.get_or_insert(self.time);
    }
}

/// The record of a job whose model was deleted: without a history, as those that had ended before; cancelled where it was to become
/// a version.
fn ended_after_its_model(finished: &Job, was_version: bool) -> Job {
    let without_history = Job { report_count: 0, ..finished.clone() };
    if !was_version {
        return without_history;
    }
    Job {
        state: JobState::Cancelled,
        stop_reason: Some(StopReason::Cancelled),
        version: None,
        failure: None,
        ..without_history
    }
}

fn get_job(view: &View, job_id: Uuid) -> Result<Option<Job>, StoreError> {
    Ok(view.get(&keys::job(job_id))?.map(|stored| stored.value))
}

/// The job whose id ends the key of an index.
fn indexed_job(view: &View, key: &str) -> Result<Job, StoreError> {
    let job_id = keys::last_uuid(key).ok_or_else(|| StoreError::corrupt(key))?;
    get_job(view, job_id)?.ok_or_else(|| missing_job(job_id))
}

fn missing_job(job_id: Uuid) -> StoreError {
    StoreError::corrupt(format!("{} (it is missing)", keys::job(job_id)))
}
