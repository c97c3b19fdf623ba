//! The reference: models and jobs as plain lists, and what each call makes of them, or the code by which it is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use epochd::rpc::pb;
use epochd::rpc::pb::{JobState, StopReason, TrainingStart, VersionSource};
use tonic::Code;

use super::{QUEUED_MAX, VERSIONS_KEPT};

/// The bits of all weights and biases, layer after layer.
pub type Bits = Vec<u64>;

/// What a training comes from: its first weights, or a job that was cut off at a moment that nobody foretells; then the trainings that
/// went on from there, one after another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    pub root: Root,
    pub steps: Vec<(bool, u64, i32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    Weights(Bits),
    CutOff(usize),
}

/// What a training came to: the weights, and the loss of each epoch.
pub type Outcome = (Bits, Vec<u64>);

/// Where the training of a version ended: what CONTINUE goes on from.
#[derive(Clone, Debug)]
pub struct Trail {
    pub is_adam: bool,
    pub seed: u64,
    pub epoch: i32,
    pub path: Path,
}

/// A version that is kept.
#[derive(Clone, Debug)]
pub struct Held {
    pub base: i32,
    pub source: VersionSource,
    pub bits: Bits,
    /// The job that made it, by its place in the list.
    pub job: Option<usize>,
    pub trail: Option<Trail>,
}

/// A model that is there, or was.
#[derive(Debug)]
pub struct Model {
    pub name: usize,
    pub uid: String,
    pub seed: u64,
    pub is_deleted: bool,
    pub latest: i32,
    pub serving: Option<i32>,
    pub pinned: BTreeSet<i32>,
    pub versions: BTreeMap<i32, Held>,
    /// Its unfinished jobs in order; of these the first alone may have begun.
    pub queue: Vec<usize>,
}

/// A job.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub model: usize,
    pub request: pb::TrainRequest,
    pub state: JobState,
    pub reason: StopReason,
    /// The base of its attempt, also of one that was refused when its base was read.
    pub attempted: Option<i32>,
    /// Once it has started.
    pub started: Option<Started>,
    pub version: i32,
    /// All that was told of it so far.
    pub reports: Vec<pb::EpochReport>,
    /// Not any more, where it had ended before its model was deleted.
    pub has_history: bool,
    /// The record, once it has ended: it never changes again.
    pub record: Option<pb::Job>,
}

/// From what a job starts.
#[derive(Clone, Debug)]
pub struct Started {
    pub base: i32,
    pub epochs_before: i32,
    pub path: Path,
    pub seed: u64,
}

/// How a job begins in its turn.
pub enum Turn {
    /// From `base`, after so many epochs; the seed, unless it is drawn.
    Starts { base: i32, epochs_before: i32, seed: Option<u64>, path: Path },
    /// It is to go on with a training by another method, that of `base`.
    Refused { base: i32 },
}

/// What becomes of a request to train.
#[derive(Debug, PartialEq)]
pub enum Accepted {
    New { model: usize },
    Same { job: usize },
}

/// Everything that there is.
#[derive(Default)]
pub struct Lists {
    pub models: Vec<Model>,
    pub jobs: Vec<Job>,
    /// What was learned: drawn weights by their seed, and outcomes of trainings.
    pub drawn: HashMap<u64, Bits>,
    pub outcomes: HashMap<Path, Outcome>,
}

pub fn is_adam(request: &pb::TrainRequest) -> bool {
    matches!(request.optimizer.as_ref().unwrap().method, Some(pb::optimizer::Method::Adam(_)))
}

impl Job {
    pub fn is_finished(&self) -> bool {
        !matches!(self.state, JobState::Queued | JobState::Running)
    }

    pub fn is_endless(&self) -> bool {
        self.request.epochs == Some(super::jobs::ENDLESS)
    }
}

impl Model {
    pub fn new(name: usize, uid: String, seed: u64, bits: Bits) -> Self {
        let first = Held { base: 0, source: VersionSource::Initial, bits, job: None, trail: None };
        Self {
            name,
            uid,
            seed,
            is_deleted: false,
            latest: 1,
            serving: None,
            pinned: BTreeSet::new(),
            versions: [(1, first)].into(),
            queue: Vec::new(),
        }
    }

    pub fn newest(&self) -> &Held {
        &self.versions[&self.latest]
    }

    /// A version that is asked for by its number.
    pub fn find(&self, version: i32) -> Result<&Held, Code> {
        if version < 1 {
            return Err(Code::InvalidArgument);
        }
        self.versions.get(&version).ok_or(Code::NotFound)
    }
}

impl Lists {
    /// The model that has a name now.
    pub fn find(&self, name: usize) -> Result<usize, Code> {
        self.models.iter().position(|model| model.name == name && !model.is_deleted).ok_or(Code::NotFound)
    }

    pub fn create(&self, name: usize) -> Result<(), Code> {
        self.find(name).map_or(Ok(()), |_| Err(Code::AlreadyExists))
    }

    /// Its finished jobs lose their histories; the others are to be cancelled.
    pub fn delete(&mut self, name: usize) -> Result<usize, Code> {
        let model = self.find(name)?;
        self.models[model].is_deleted = true;
        for job in self.jobs.iter_mut().filter(|job| job.model == model) {
            job.has_history = false;
        }
        Ok(model)
    }

    /// The model and the number of a version that answers, where `None` asks for the one that is served.
    pub fn served(&self, name: usize, asked: Option<i32>) -> Result<(usize, i32), Code> {
        let model = self.find(name)?;
        let Model { serving, latest, .. } = self.models[model];
        let version = asked.or(serving).unwrap_or(latest);
        self.models[model].find(version).map(|_| (model, version))
    }

    pub fn serve(&mut self, name: usize, version: Option<i32>) -> Result<usize, Code> {
        let model = self.find(name)?;
        version.map_or(Ok(()), |version| self.models[model].find(version).map(drop))?;
        self.models[model].serving = version;
        Ok(model)
    }

    pub fn pin(&mut self, name: usize, version: i32, is_pinned: bool) -> Result<usize, Code> {
        let model = self.find(name)?;
        self.models[model].find(version)?;
        match is_pinned {
            true => self.models[model].pinned.insert(version),
            false => self.models[model].pinned.remove(&version),
        };
        Ok(model)
    }

    /// A model's next version, which makes others superfluous: all but the newest, the first, those pinned or served, and those that
    /// unfinished jobs started from, that which ends with this version among them.
    pub fn commit(&mut self, model: usize, held: Held) -> i32 {
        let bases: Vec<i32> = self.models[model].queue.iter().filter_map(|&job| self.base(job)).collect();
        let model = &mut self.models[model];
        model.latest += 1;
        let (latest, serving, pinned) = (model.latest, model.serving, &model.pinned);
        model.versions.insert(latest, held);
        model.versions.retain(|&version, _| {
            let is_new = version > latest - VERSIONS_KEPT;
            is_new || version == 1 || serving == Some(version) || pinned.contains(&version) || bases.contains(&version)
        });
        latest
    }

    fn base(&self, job: usize) -> Option<i32> {
        self.jobs[job].started.as_ref().map(|started| started.base)
    }

    /// What becomes of a request to train: one that is known is known whatever became of its model.
    pub fn train(&self, name: usize, request: &pb::TrainRequest) -> Result<Accepted, Code> {
        let has_id = |job: &Job| !request.request_id.is_empty() && job.request.request_id == request.request_id;
        if let Some(job) = self.jobs.iter().position(has_id) {
            return if self.jobs[job].request == *request {
                Ok(Accepted::Same { job })
            } else {
                Err(Code::InvalidArgument)
            };
        }
        let model = self.find(name)?;
        let queue = &self.models[model].queue;
        // Where jobs go before it, nobody knows yet what it is to go on with.
        if queue.is_empty() && self.is_by_another_method(model, request) {
            return Err(Code::FailedPrecondition);
        }
        if queue.len() >= QUEUED_MAX {
            return Err(Code::ResourceExhausted);
        }
        Ok(Accepted::New { model })
    }

    fn is_by_another_method(&self, model: usize, request: &pb::TrainRequest) -> bool {
        let trail = self.models[model].newest().trail.as_ref();
        request.start() == TrainingStart::Continue && trail.is_some_and(|trail| trail.is_adam != is_adam(request))
    }

    /// How the first job of a model's queue begins.
    pub fn turn(&self, job: usize) -> Turn {
        let Job { model, request, .. } = &self.jobs[job];
        if self.is_by_another_method(*model, request) {
            return Turn::Refused { base: self.models[*model].latest };
        }
        let model = &self.models[*model];
        let base = if request.start() == TrainingStart::Initial { 1 } else { model.latest };
        let trail = model.versions[&base].trail.as_ref().filter(|_| request.start() == TrainingStart::Continue);
        match trail {
            Some(trail) => Turn::Starts {
                base,
                epochs_before: trail.epoch,
                seed: request.seed.or(Some(trail.seed)),
                path: trail.path.clone(),
            },
            None => {
                let root = Root::Weights(model.versions[&base].bits.clone());
                Turn::Starts { base, epochs_before: 0, seed: request.seed, path: Path { root, steps: Vec::new() } }
            }
        }
    }

    /// The unfinished jobs that go before one.
    pub fn jobs_ahead(&self, job: usize) -> usize {
        self.models[self.jobs[job].model].queue.iter().position(|&other| other == job).unwrap_or(0)
    }

    pub fn end(&mut self, job: usize, state: JobState, reason: StopReason, version: i32) {
        let ended = &mut self.jobs[job];
        (ended.state, ended.reason, ended.version) = (state, reason, version);
        self.models[ended.model].queue.retain(|&other| other != job);
    }
}
