//! What a client was answered, and the one call whose answer did not come.

use std::collections::{BTreeMap, BTreeSet};

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;

use super::journal::Journal;
use super::reference::Bits;

/// A call that changes something.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Create,
    Delete,
    SetWeights(Bits),
    Serve(Option<i32>),
    Pin(i32, bool),
    /// With its request id.
    Train(String),
    /// With the job's id, and whether its weights are to be kept.
    Cancel(String, bool),
}

impl Call {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::SetWeights(_) => "set weights",
            Self::Serve(_) => "serve",
            Self::Pin(..) => "pin",
            Self::Train(_) => "train",
            Self::Cancel(_, false) => "cancel",
            Self::Cancel(_, true) => "cancel and commit",
        }
    }
}

/// A model that was acknowledged.
#[derive(Clone, Debug)]
pub struct KnownModel {
    /// As it was told first.
    pub told: pb::Model,
    pub serving: Option<i32>,
    pub pinned: BTreeSet<i32>,
    /// Bits by version, where they are known.
    pub versions: BTreeMap<i32, Bits>,
    /// Every version that SetWeights made.
    pub sets: BTreeSet<i32>,
    /// The latest version and what was kept besides what must be, when it was last looked at.
    pub looked_at: (i32, BTreeSet<i32>),
    /// Versions that were pinned or served at some time since.
    pub protected_since: BTreeSet<i32>,
}

impl KnownModel {
    pub fn new(told: pb::Model) -> Self {
        let (versions, sets) = (BTreeMap::new(), BTreeSet::new());
        let (pinned, protected_since, looked_at) = (BTreeSet::new(), BTreeSet::new(), (1, BTreeSet::new()));
        Self { told, serving: None, pinned, versions, sets, looked_at, protected_since }
    }

    pub fn serve(&mut self, version: Option<i32>) {
        self.protected_since.extend(self.serving.into_iter().chain(version));
        self.serving = version;
    }

    pub fn pin(&mut self, version: i32, is_pinned: bool) {
        self.protected_since.insert(version);
        if is_pinned {
            self.pinned.insert(version)
        } else {
            self.pinned.remove(&version)
        };
    }

    pub fn set(&mut self, version: i32, bits: Bits) {
        self.sets.insert(version);
        self.versions.insert(version, bits);
    }
}

/// A job that was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct KnownJob {
    pub job_id: String,
    pub model_uid: String,
    pub request_id: String,
    /// Reports that were told.
    pub told: usize,
    /// Whether a cancellation may have come to it, and whether that one commits.
    pub cancelled: bool,
    pub committed: bool,
    /// The end: state and version; then the whole record, once it was read.
    pub end: Option<(JobState, i32)>,
    pub record: Option<pb::Job>,
    /// When it ended, in seconds and nanoseconds: it outlives the record.
    pub end_time: Option<(i64, i32)>,
    /// A hash of its reports, once all were read after the end.
    pub history: Option<u64>,
    pub is_given_back: bool,
    /// Whether the process ended under it: reports that were told, but not stored yet, are trained again, unless it ends before.
    pub has_crashed: bool,
}

impl KnownJob {
    /// Its record as it stays.
    pub fn ended_as(&mut self, record: pb::Job) {
        self.end_time = record.end_time.map(|time| (time.seconds, time.nanos));
        self.record = Some(record);
    }

    /// Whether another one may have ended after it.
    pub fn may_end_before(&self, other: &Self) -> bool {
        match (self.end_time, other.end_time) {
            (Some(end), Some(other_end)) => end <= other_end,
            // Nobody learned when: jobs of a client end in their order, nearly always.
            (_, None) if other.is_given_back => self.job_id < other.job_id,
            _ => self.job_id != other.job_id,
        }
    }

    pub fn is_unfinished(&self) -> bool {
        self.end.is_none()
    }

    /// Whether it may end with so many reports.
    pub fn may_have(&self, reports: usize) -> bool {
        reports >= self.told || self.has_crashed
    }
}

/// A client's ledger.
#[derive(Clone)]
pub struct Ledger {
    pub name: String,
    pub model: Option<KnownModel>,
    /// Uids of models that are deleted, or may be.
    pub deleted: BTreeSet<String>,
    /// Oldest first.
    pub jobs: Vec<KnownJob>,
    pub doubt: Option<Call>,
    /// How often each thing was acknowledged, and what became of what was not.
    pub counts: BTreeMap<String, u64>,
    pub journal: Journal,
}

impl Ledger {
    pub fn new(name: String, journal: Journal) -> Self {
        let (deleted, counts) = (BTreeSet::new(), BTreeMap::new());
        Self { name, model: None, deleted, jobs: Vec::new(), doubt: None, counts, journal }
    }

    pub fn note(&self, what: impl std::fmt::Display) {
        self.journal.note(&self.name, what);
    }

    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// A call is sent: until its answer comes, it may have happened or not.
    pub fn asks(&mut self, call: Call) {
        match &call {
            Call::SetWeights(_) => self.note("SetWeights"),
            call => self.note(format_args!("{call:?}")),
        }
        if let (Call::Delete, Some(model)) = (&call, &self.model) {
            self.deleted.insert(model.told.uid.clone());
        }
        if let Call::Cancel(job_id, commit) = &call
            && let Some(job) = self.job_mut(job_id)
        {
            (job.cancelled, job.committed) = (true, *commit);
        }
        self.doubt = Some(call);
    }

    /// Its answer came.
    pub fn is_answered(&mut self, answer: impl std::fmt::Display) {
        let Some(call) = self.doubt.take() else { return };
        self.note(format_args!("{} answered: {answer}", call.name()));
        self.count(call.name());
    }

    /// What was in doubt has happened, or has not.
    pub fn is_settled(&mut self, happened: bool) {
        let Some(call) = self.doubt.take() else { return };
        match &call {
            Call::Delete if !happened => {
                let uid = self.model.as_ref().map(|model| model.told.uid.clone());
                self.deleted.retain(|deleted| Some(deleted) != uid.as_ref());
            }
            // It is forgotten with the process: the job goes on to its end.
            Call::Cancel(job_id, _) if !happened => {
                if let Some(job) = self.job_mut(job_id) {
                    (job.cancelled, job.committed) = (false, false);
                }
            }
            _ => {}
        }
        let outcome = if happened { "had happened" } else { "had not happened" };
        self.note(format_args!("{} {outcome}", call.name()));
        self.count(&format!("{} in doubt {outcome}", call.name()));
    }

    pub fn job_mut(&mut self, job_id: &str) -> Option<&mut KnownJob> {
        self.jobs.iter_mut().find(|job| job.job_id == job_id)
    }

    pub fn unfinished(&self) -> impl Iterator<Item = &KnownJob> {
        self.jobs.iter().filter(|job| job.is_unfinished())
    }

    pub fn is_live(&self, model_uid: &str) -> bool {
        self.model.as_ref().is_some_and(|model| model.told.uid == model_uid)
    }

    pub fn accepts(&mut self, job_id: &str, request_id: &str) {
        let model_uid = self.model.as_ref().map(|model| model.told.uid.clone()).unwrap_or_default();
        let (job_id, request_id) = (job_id.to_owned(), request_id.to_owned());
        self.jobs.push(KnownJob { job_id, model_uid, request_id, ..Default::default() });
    }
}
