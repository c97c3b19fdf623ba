//! What the store must show: a model of it in maps, verbs for both, and what is seen of the store in the same form.

use std::collections::BTreeMap;

use super::simulated::Random;
use super::*;
use crate::domain::CheckpointMark;

/// How many of a model's newest versions are kept.
pub const VERSIONS_KEPT: u32 = 3;

const REQUEST_HASH: [u8; 16] = [7; 16];

/// All that the verbs which read tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    models: BTreeMap<String, ModelEntry>,
    jobs: BTreeMap<Uuid, JobEntry>,
    is_stopped: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct ModelEntry {
    model: Model,
    versions: Vec<(Version, Values)>,
    /// That of the latest version.
    continuation: Option<Continuation>,
}

#[derive(Clone, Debug, PartialEq)]
struct JobEntry {
    job: Job,
    is_known: bool,
    /// While it is unfinished: its rows and its checkpoint.
    unfinished: Option<(TrainingData, Option<Continuation>)>,
    reports: Vec<Reports>,
}

/// A verb that writes, with what it is given.
#[derive(Clone, Debug)]
pub enum Step {
    Create(Box<Model>, f32),
    Commit(Uuid, f32),
    Serve(Uuid, Option<u32>),
    Delete(Box<ModelId>),
    Accept(Box<Job>),
    Start(Uuid),
    Report(Uuid, u32, u32),
    Checkpoint(Uuid, u32, u32),
    Finish(Box<Job>, Option<f32>),
    MarkStop,
    TakeStop,
}

fn mark(epoch: u32) -> CheckpointMark {
    CheckpointMark { time: at(4), epoch }
}

fn checkpoint(epoch: u32) -> Continuation {
    Continuation { head: epoch.to_le_bytes().to_vec(), vectors: vec![weights(epoch as f32).into()] }
}

fn reports(count: u32) -> Reports {
    (1..=count).map(report).collect::<Vec<_>>().iter().collect()
}

impl Step {
    pub fn create(model_id: &str) -> Self {
        Self::Create(Box::new(model(model_id)), 1.0)
    }

    /// Does it, and tells what the store answered.
    pub fn run(&self, store: &Store) -> Result<String, StoreError> {
        Ok(match self {
            Self::Create(model, seed) => {
                store.create_model(model, &first_version(), &weights(*seed))?;
                String::new()
            }
            Self::Commit(uid, seed) => format!("{:?}", store.commit_version(*uid, draft(1), &weights(*seed))?),
            Self::Serve(uid, version) => format!("{:?}", store.set_serving_version(*uid, *version)?),
            Self::Delete(model_id) => format!("{:?}", store.delete_model(model_id)?),
            Self::Accept(job) => format!("{:?}", store.accept_job(job, REQUEST_HASH, &rows())?),
            Self::Start(job_id) => format!("{:?}", store.start_job(*job_id, begin(3))?),
            Self::Report(job_id, chunk, count) => {
                store.write_reports(*job_id, *chunk, &reports(*count))?;
                String::new()
            }
            Self::Checkpoint(job_id, attempt, epoch) => {
                format!("{:?}", store.write_checkpoint(*job_id, *attempt, mark(*epoch), &checkpoint(*epoch))?)
            }
            Self::Finish(job, seed) => {
                let outcome = seed.map(|seed| outcome(1, seed));
                format!("{:?}", store.finish_job(job, outcome)?)
            }
            Self::MarkStop => {
                store.mark_good_stop()?;
                String::new()
            }
            Self::TakeStop => format!("{:?}", store.take_good_stop()?),
        })
    }

    pub fn writes_blobs(&self) -> bool {
        use Step::{Accept, Checkpoint, Commit, Create, Finish};
        matches!(self, Create(..) | Commit(..) | Accept(..) | Checkpoint(..) | Finish(_, Some(_)))
    }

    /// A step that makes sense, mostly.
    pub fn random(reference: &Reference, number: usize, random: &mut Random) -> Self {
        let models: Vec<&ModelEntry> = reference.models.values().collect();
        let open: Vec<&Job> = reference.jobs.values().filter(|it| it.unfinished.is_some()).map(|it| &it.job).collect();
        let seed = number as f32;
        let Some(model) = (!models.is_empty()).then(|| models[random.below(models.len())]) else {
            return Self::create(&format!("m-{number}"));
        };
        let uid = model.model.uid;
        let choice = random.below(20);
        if choice >= 9 && !open.is_empty() {
            let job = open[random.below(open.len())];
            let reports = &reference.jobs[&job.job_id].reports;
            // Chunks are written without a gap.
            let chunk = random.below(reports.len().min(2) + 1) as u32;
            let report_count = reports.iter().map(Reports::len).sum::<usize>() as u64;
            let end = Box::new(Job { report_count, ..finished(job) });
            return match choice {
                9..12 => Self::Start(job.job_id),
                12..14 => Self::Report(job.job_id, chunk, 1 + random.below(40) as u32),
                14..17 => Self::Checkpoint(job.job_id, job.attempt, number as u32),
                17 => Self::Finish(end, None),
                _ => Self::Finish(end, Some(seed)),
            };
        }
        match choice {
            0 | 1 => Self::create(&format!("m-{number}")),
            2 | 3 => Self::Commit(uid, seed),
            4 => Self::Serve(uid, random.coin().then_some(1)),
            5 if models.len() > 2 => Self::Delete(Box::new(model.model.model_id.clone())),
            6 => [Self::MarkStop, Self::TakeStop][random.below(2)].clone(),
            _ => {
                let request_id = if random.coin() { format!("request-{number}") } else { String::new() };
                Self::Accept(Box::new(job(&model.model, &request_id)))
            }
        }
    }
}

impl Reference {
    /// All that a store shows.
    pub fn seen(store: &Store) -> Result<Self, StoreError> {
        let mut models = BTreeMap::new();
        for model in items(store.models(None, 1_000)?) {
            assert_eq!(store.model(&model.model_id)?.as_ref(), Some(&model));
            assert_eq!(store.model_by_uid(model.uid)?.as_ref(), Some(&model));
            let mut versions = Vec::new();
            for version in items(store.versions(model.uid, 0, 1_000)?) {
                let weights = store.parameters(model.uid, version.version, &model.architecture)?;
                versions.push((version, weights.expect("a version has weights")));
            }
            let continuation = store.continuation(model.uid, model.latest_version)?;
            models.insert(model.model_id.to_string(), ModelEntry { model, versions, continuation });
        }
        let mut jobs = BTreeMap::new();
        for job in items(store.jobs(&JobFilter::default(), None, 1_000)?) {
            jobs.insert(job.job_id, JobEntry::seen(store, job)?);
        }
        let unfinished: Vec<Uuid> = store.unfinished_jobs()?.iter().map(|job| job.job_id).collect();
        let expected = jobs.iter().filter(|(_, it)| it.unfinished.is_some()).map(|(job_id, _)| *job_id);
        assert_eq!(unfinished, expected.collect::<Vec<_>>());
        let is_stopped = store.records().read(|view| view.contains(keys::GOOD_STOP))?;
        Ok(Self { models, jobs, is_stopped })
    }

    /// How many blobs it needs.
    pub fn blob_count(&self) -> usize {
        let of_models = self.models.values().map(|it| it.versions.len() + usize::from(it.continuation.is_some()));
        let of_jobs = self.jobs.values().filter_map(|it| it.unfinished.as_ref());
        of_models.sum::<usize>() + of_jobs.map(|(_, checkpoint)| 1 + usize::from(checkpoint.is_some())).sum::<usize>()
    }

    /// Whether it is as before or as after a verb, as a whole. A checkpoint alone may be newer than its job's record says.
    pub fn is_either(&self, before: &Self, after: &Self) -> bool {
        [before, after, &before.with_checkpoints_of(after)].contains(&self)
    }

    /// The same, with the checkpoints of another.
    pub fn with_checkpoints_of(&self, other: &Self) -> Self {
        let mut same = self.clone();
        for (job_id, entry) in &mut same.jobs {
            let other = other.jobs.get(job_id).and_then(|it| it.unfinished.as_ref());
            if let (Some((_, checkpoint)), Some((_, other))) = (&mut entry.unfinished, other) {
                checkpoint.clone_from(other);
            }
        }
        same
    }

    /// The lines in which two differ, the first of them.
    pub fn difference(&self, other: &Self) -> String {
        let (ours, theirs) = (format!("{self:#?}"), format!("{other:#?}"));
        let lines = ours.lines().zip(theirs.lines()).filter(|(ours, theirs)| ours != theirs);
        let lines: Vec<String> = lines.take(8).map(|(ours, theirs)| format!("{ours} / {theirs}")).collect();
        format!("{} and {} lines: {lines:#?}", ours.lines().count(), theirs.lines().count())
    }

    fn model(&mut self, uid: Uuid) -> Option<&mut ModelEntry> {
        self.models.values_mut().find(|it| it.model.uid == uid)
    }

    fn open_job(&mut self, job_id: Uuid) -> Option<&mut JobEntry> {
        self.jobs.get_mut(&job_id).filter(|it| it.unfinished.is_some())
    }

    /// Does what the store is to do, and tells what it is to answer.
    pub fn apply(&mut self, step: &Step) -> String {
        match step {
            Step::Create(model, seed) => {
                let versions = vec![(first_version(), weights(*seed))];
                let state = ModelEntry { model: (**model).clone(), versions, continuation: None };
                assert!(self.models.insert(model.model_id.to_string(), state).is_none());
                String::new()
            }
            Step::Commit(uid, seed) => {
                let version = self.model(*uid).map(|model| model.commit(weights(*seed), None));
                format!("{version:?}")
            }
            Step::Serve(uid, version) => {
                let choice = self.model(*uid).map_or(Choice::NoModel, |it| {
                    it.model.serving_version = *version;
                    Choice::Done(Box::new(it.model.clone()))
                });
                format!("{choice:?}")
            }
            Step::Delete(model_id) => self.delete(model_id),
            Step::Accept(job) => self.accept(job),
            Step::Start(job_id) => {
                let uid = self.open_job(*job_id).map(|it| it.job.model_uid);
                let latest = uid.and_then(|uid| self.model(uid)).map(|it| it.model.latest_version);
                let begun = latest.zip(self.open_job(*job_id)).map(|(latest, it)| it.start(latest));
                format!("{:?}", begun.map_or(Started::Gone, |job| Started::Begun(Box::new(job))))
            }
            Step::Report(job_id, chunk, count) => {
                if let Some(it) = self.jobs.get_mut(job_id) {
                    it.reports.resize((*chunk as usize + 1).max(it.reports.len()), Reports::default());
                    it.reports[*chunk as usize] = reports(*count);
                }
                String::new()
            }
            Step::Checkpoint(job_id, attempt, epoch) => {
                let job = self.open_job(*job_id).filter(|it| it.job.attempt == *attempt);
                format!("{:?}", job.map(|it| it.checkpoint(*epoch)))
            }
            Step::Finish(job, seed) => self.finish(job, *seed),
            Step::MarkStop => {
                self.is_stopped = true;
                String::new()
            }
            Step::TakeStop => {
                let was_good = std::mem::take(&mut self.is_stopped);
                let open = self.jobs.values_mut().filter(|it| was_good && it.unfinished.is_some());
                open.for_each(|it| it.job.starts_without_checkpoint = 0);
                format!("{was_good:?}")
            }
        }
    }

    fn delete(&mut self, model_id: &ModelId) -> String {
        let deleted = self.models.remove(model_id.as_str()).map(|it| Deleted { uid: Some(it.model.uid) });
        let over = self.jobs.values_mut().filter(|it| it.unfinished.is_none());
        for entry in over.filter(|it| deleted.as_ref().is_some_and(|gone| gone.uid == Some(it.job.model_uid))) {
            entry.job.report_count = 0;
            entry.reports.clear();
        }
        format!("{deleted:?}")
    }

    fn accept(&mut self, job: &Job) -> String {
        let state = JobEntry {
            job: job.clone(),
            is_known: !job.request_id.is_empty(),
            unfinished: Some((rows(), None)),
            reports: Vec::new(),
        };
        assert!(self.jobs.insert(job.job_id, state).is_none());
        format!("{:?}", Accepted::New)
    }

    fn finish(&mut self, job: &Job, seed: Option<f32>) -> String {
        let current = self.jobs[&job.job_id].clone();
        if current.unfinished.is_none() || current.job.attempt != job.attempt {
            return format!("{:?}", Finished::NotOwner(Box::new(current.job)));
        }
        let (mut job, mut pruned) = (job.clone(), Vec::new());
        if let Some(seed) = seed {
            let outcome = outcome(1, seed);
            match self.model(job.model_uid) {
                Some(model) => {
                    let committed = model.commit((*outcome.parameters).clone(), outcome.continuation);
                    (job.version, pruned) = (Some(committed.version.version), committed.pruned);
                }
                None => (job.state, job.stop_reason) = (JobState::Cancelled, Some(StopReason::Cancelled)),
            }
        }
        let state = JobEntry { job: job.clone(), unfinished: None, ..current };
        self.jobs.insert(job.job_id, state);
        format!("{:?}", Finished::Committed { job: Box::new(job), pruned })
    }
}

impl ModelEntry {
    fn commit(&mut self, weights: Values, continuation: Option<Continuation>) -> CommittedVersion {
        let VersionDraft { base_version, source, preprocessing, create_time, .. } = draft(1);
        self.model.latest_version += 1;
        self.model.update_time = create_time;
        let version = Version { version: self.model.latest_version, base_version, source, preprocessing, create_time };
        self.versions.push((version.clone(), weights));
        self.continuation = continuation;
        // The first is every job's base.
        let oldest = (version.version + 1).saturating_sub(VERSIONS_KEPT);
        let served = self.model.serving_version;
        let is_over = |number: u32| number > 1 && number < oldest && Some(number) != served;
        let pruned = self.versions.extract_if(.., |(version, _)| is_over(version.version));
        CommittedVersion { version, pruned: pruned.map(|(version, _)| version.version).collect() }
    }
}

impl JobEntry {
    fn seen(store: &Store, job: Job) -> Result<Self, StoreError> {
        assert_eq!(store.job(job.job_id)?.as_ref(), Some(&job));
        let known = store.known_request(&job.request_id, REQUEST_HASH)?;
        let is_known = known.is_some();
        assert!(known.is_none_or(|known| known == Accepted::Same(Box::new(job.clone()))));
        let unfinished = if job.state.is_finished() {
            None
        } else {
            let data = store.training_data(job.job_id)?.expect("an unfinished job has rows");
            Some((data, store.checkpoint(job.job_id)?))
        };
        let count = store.chunk_count(job.job_id)?;
        let reports = (0..count).map(|chunk| Ok(store.reports(job.job_id, chunk)?.expect("a chunk that was counted")));
        let reports = reports.collect::<Result<_, StoreError>>()?;
        Ok(Self { job, is_known, unfinished, reports })
    }

    fn start(&mut self, latest_version: u32) -> Job {
        let start = begin(3);
        let job = &mut self.job;
        job.state = JobState::Running;
        job.attempt += 1;
        job.starts_without_checkpoint += 1;
        if job.trained_on.last() != Some(&start.trained_on) {
            job.trained_on.push(start.trained_on);
        }
        job.base_version.get_or_insert(latest_version);
        job.start_time.get_or_insert(start.time);
        job.clone()
    }

    fn checkpoint(&mut self, epoch: u32) -> Job {
        self.job.checkpoint = Some(mark(epoch));
        self.job.starts_without_checkpoint = 0;
        if let Some((_, stored)) = &mut self.unfinished {
            *stored = Some(checkpoint(epoch));
        }
        self.job.clone()
    }
}

/// How one thing reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Same,
    /// As if it were not there.
    Hidden,
    /// The key or the file that is said to be damaged.
    Damaged(String),
    /// Another value, or an error that is none of the above: never.
    Wrong(String),
}

impl Reading {
    fn of<T: PartialEq + std::fmt::Debug>(read: Result<Option<T>, StoreError>, expected: &T) -> Self {
        match read {
            Ok(Some(value)) if value == *expected => Self::Same,
            Ok(None) => Self::Hidden,
            Ok(Some(value)) => Self::Wrong(format!("{value:?}")),
            Err(StoreError::Corrupt { what }) => Self::Damaged(what),
            Err(error) => Self::Wrong(error.to_string()),
        }
    }
}

impl Reference {
    /// How each thing reads that is to be there, by itself.
    pub fn readings(&self, store: &Store) -> Vec<(String, Reading)> {
        let mut readings = Vec::new();
        let mut add = |what: String, reading| readings.push((what, reading));
        for (model_id, ModelEntry { model, versions, continuation }) in &self.models {
            let uid = model.uid;
            add(format!("model {model_id}"), Reading::of(store.model(&model.model_id), model));
            add(format!("model {uid}"), Reading::of(store.model_by_uid(uid), model));
            for (version, weights) in versions {
                let number = version.version;
                add(format!("version {number} of {model_id}"), Reading::of(store.version(uid, number), version));
                let read = store.parameters(uid, number, &model.architecture);
                add(format!("weights {number} of {model_id}"), Reading::of(read, weights));
            }
            if let Some(continuation) = continuation {
                let read = store.continuation(uid, model.latest_version);
                add(format!("continuation of {model_id}"), Reading::of(read, continuation));
            }
        }
        for (job_id, JobEntry { job, is_known, unfinished, reports }) in &self.jobs {
            add(format!("job {job_id}"), Reading::of(store.job(*job_id), job));
            if *is_known {
                let known = store.known_request(&job.request_id, REQUEST_HASH);
                add(format!("request of {job_id}"), Reading::of(known, &Accepted::Same(Box::new(job.clone()))));
            }
            if let Some((data, checkpoint)) = unfinished {
                add(format!("rows of {job_id}"), Reading::of(store.training_data(*job_id), data));
                if let Some(checkpoint) = checkpoint {
                    add(format!("checkpoint of {job_id}"), Reading::of(store.checkpoint(*job_id), checkpoint));
                }
            }
            for (chunk, reports) in reports.iter().enumerate() {
                let read = store.reports(*job_id, chunk as u32);
                add(format!("chunk {chunk} of {job_id}"), Reading::of(read, reports));
            }
        }
        readings
    }
}
