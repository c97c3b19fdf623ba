//! Commands on jobs, and how jobs go on by themselves.

use epochd::rpc::pb;
use epochd::rpc::pb::{JobState, StopReason, VersionSource};
use tonic::Code;

use super::follow::{Follow, assert_in_order};
use super::lists::{Accepted, Held, Job, Path, Root, Started, Trail, Turn, is_adam};
use super::machine::{Machine, agree};
use super::{NAMES, REQUEST_IDS, Training, Which};
use crate::support::*;

/// Epochs that no test waits for.
pub const ENDLESS: i32 = 1_000_000;
/// The id of no job.
const NOBODY: &str = "01900000-0000-7000-8000-000000000000";

/// A line, row by row: an epoch takes long enough for an endless job to tell few.
fn request(training: &Training) -> pb::TrainRequest {
    let inputs: Vec<f64> = (0..256).map(|row| f64::from(row) / 256.0).collect();
    let targets: Vec<f64> = inputs.iter().map(|x| 0.5 - x).collect();
    pb::TrainRequest {
        model_id: NAMES[training.name].into(),
        inputs: Some(values(&inputs)),
        targets: Some(values(&targets)),
        batch_size: Some(1),
        epochs: Some(training.epochs.unwrap_or(ENDLESS)),
        optimizer: if training.is_adam { adam(0.001) } else { sgd(0.001, 0.0) },
        seed: training.seed,
        start: training.start.into(),
        request_id: training.request_id.map_or(String::new(), |id| REQUEST_IDS[id].to_owned()),
        ..Default::default()
    }
}

impl Machine {
    pub async fn train(&mut self, training: Training) {
        let request = request(&training);
        let foretold = self.lists.train(training.name, &request);
        let answer = self.api.models.clone().train(request.clone()).await;
        let job_id = answer.as_ref().ok().map(|answer| {
            let job_id = answer.metadata().get("epochd-job-id").expect("the answer should tell the job's id");
            job_id.to_str().unwrap().to_owned()
        });
        let Some((events, accepted)) = agree(answer, foretold) else { return };
        let mut follow = Follow::new(job_id.clone().unwrap(), events);
        match accepted {
            Accepted::Same { job } => {
                assert_eq!(job_id.as_ref(), Some(&self.lists.jobs[job].id), "one request id, and two jobs");
                self.hear_again(job, follow, 1).await;
            }
            Accepted::New { model } => {
                let job = self.accept(model, job_id.unwrap(), request);
                assert!(follow.read_one().await.is_none(), "it ended before it started");
                self.assert_place(job, &follow);
                self.follows.insert(job, follow);
                self.settle(model).await;
            }
        }
    }

    fn accept(&mut self, model: usize, id: String, request: pb::TrainRequest) -> usize {
        let job = self.lists.jobs.len();
        assert!(self.lists.jobs.last().is_none_or(|last| last.id < id), "ids should sort by time");
        self.lists.jobs.push(Job {
            id,
            model,
            request,
            state: JobState::Queued,
            reason: StopReason::Unspecified,
            attempted: None,
            started: None,
            version: 0,
            reports: Vec::new(),
            has_history: true,
            record: None,
        });
        self.lists.models[model].queue.push(job);
        job
    }

    /// What a stream says first: one that waits behind others says so.
    fn assert_place(&self, job: usize, follow: &Follow) {
        let ahead = self.lists.jobs_ahead(job) as i32;
        match follow.jobs_ahead {
            Some(told) => assert_eq!(told, ahead, "jobs ahead of it"),
            None => assert!(ahead == 0 && follow.started.is_some(), "it does not say that it waits behind {ahead}"),
        }
    }

    /// Waits until no job of a model goes on but an endless one, and looks at all that the jobs left.
    async fn settle(&mut self, model: usize) {
        self.hear_turns(model).await;
        if !self.lists.models[model].is_deleted {
            self.audit(self.lists.models[model].name).await;
        }
    }

    async fn hear_turns(&mut self, model: usize) {
        while let Some(&job) = self.lists.models[model].queue.first() {
            if self.lists.jobs[job].state == JobState::Running {
                return;
            }
            match self.lists.turn(job) {
                Turn::Refused { base } => {
                    self.lists.jobs[job].attempted = Some(base);
                    self.lists.end(job, JobState::Failed, StopReason::Refused, 0);
                    self.hear_end(job).await;
                }
                Turn::Starts { base, epochs_before, seed, path } => {
                    self.hear_start(job, base, epochs_before, seed, path).await;
                    if !self.lists.jobs[job].is_endless() {
                        self.hear_success(model, job).await;
                    }
                }
            }
        }
    }

    async fn hear_start(&mut self, job: usize, base: i32, epochs_before: i32, seed: Option<u64>, mut path: Path) {
        let follow = self.follows.get_mut(&job).unwrap();
        follow.read_reports().await;
        let told = follow.started.as_ref().unwrap();
        let settings = told.settings.as_ref().unwrap();
        assert_eq!((told.base_version, follow.reports[0].epoch), (base, epochs_before + 1));
        assert_eq!(settings.seed, seed.unwrap_or(settings.seed));
        path.steps.push((is_adam(&self.lists.jobs[job].request), settings.seed, settings.epochs));
        let started = Started { base, epochs_before, path, seed: settings.seed };
        self.lists.jobs[job].attempted = Some(base);
        self.lists.jobs[job].started = Some(started);
        self.lists.jobs[job].state = JobState::Running;
    }

    /// A short job comes to its end: the same weights as ever by the same way.
    async fn hear_success(&mut self, model: usize, job: usize) {
        let version = self.lists.models[model].latest + 1;
        let bits = {
            let follow = self.follows.get_mut(&job).unwrap();
            let finished = follow.read_all().await;
            assert_eq!((finished.state(), finished.version), (JobState::Succeeded, version));
            self.read_bits(self.lists.models[model].name, version).await
        };
        let losses = self.follows[&job].reports.iter().map(|report| report.loss.to_bits()).collect();
        let path = self.lists.jobs[job].started.clone().unwrap().path;
        let outcome = self.lists.outcomes.entry(path.clone()).or_insert_with(|| (bits.clone(), losses));
        let losses: Vec<u64> = self.follows[&job].reports.iter().map(|report| report.loss.to_bits()).collect();
        assert_eq!(*outcome, (bits.clone(), losses), "one training, and two outcomes");
        self.commit(model, job, bits, path);
        self.lists.end(job, JobState::Succeeded, StopReason::EpochsDone, version);
        self.hear_record(job).await;
        let (reports, epochs) = (&self.lists.jobs[job].reports, self.lists.jobs[job].request.epochs());
        assert_eq!(reports.len() as i32, epochs, "not as many epochs as were asked for");
    }

    fn commit(&mut self, model: usize, job: usize, bits: Vec<u64>, path: Path) {
        let Started { base, seed, .. } = self.lists.jobs[job].started.clone().unwrap();
        let reports = &self.follows[&job].reports;
        let epoch = reports.last().map_or(0, |report| report.epoch);
        let trail = Trail { is_adam: is_adam(&self.lists.jobs[job].request), seed, epoch, path };
        let held = Held { base, source: VersionSource::Trained, bits, job: Some(job), trail: Some(trail) };
        self.lists.commit(model, held);
    }

    /// A job ends otherwise: its stream tells the rest, and then its record is as it stays.
    pub async fn hear_end(&mut self, job: usize) {
        let finished = self.follows.get_mut(&job).unwrap().read_all().await;
        let Job { state, version, reason, .. } = self.lists.jobs[job];
        assert_eq!((finished.state(), finished.stop_reason(), finished.version), (state, reason, version));
        self.hear_record(job).await;
    }

    /// Learns the record of a job whose stream has ended.
    async fn hear_record(&mut self, job: usize) {
        let follow = self.follows.remove(&job).unwrap();
        let known = &mut self.lists.jobs[job];
        assert_in_order(&follow.reports, known.started.as_ref().map_or(1, |started| started.epochs_before + 1));
        known.reports = follow.reports;
        let record = self.api.job(&known.id).await;
        assert_eq!(record.last_report.as_ref(), known.reports.last());
        assert!(record.end_time.is_some());
        self.assert_job(&record, job);
        self.lists.jobs[job].record = Some(record);
    }

    pub fn assert_job(&self, told: &pb::Job, job: usize) {
        let known = &self.lists.jobs[job];
        if let Some(record) = &known.record {
            assert_eq!(told, record, "the record of a finished job changed");
        }
        let model = &self.lists.models[known.model];
        assert_eq!((&told.job_id, told.model_id.as_str()), (&known.id, NAMES[model.name]));
        assert_eq!((&told.model_uid, &told.request_id), (&model.uid, &known.request.request_id));
        assert_eq!((told.state(), told.stop_reason(), told.version), (known.state, known.reason, known.version));
        assert_eq!(told.base_version, known.attempted.unwrap_or(0));
        assert_eq!(told.start_time.is_some(), known.attempted.is_some());
        let code = (known.state == JobState::Failed).then_some(Code::FailedPrecondition as i32);
        assert_eq!(told.failure.as_ref().map(|failure| failure.code), code);
    }

    pub async fn cancel(&mut self, job: Option<usize>, commit: bool) {
        let id = job.map_or(NOBODY, |job| &self.lists.jobs[job].id).to_owned();
        let answer = self.api.jobs.clone().cancel_job(cancel(&id, commit)).await;
        let Some((told, job)) = agree(answer, job.ok_or(Code::NotFound)) else { return };
        if !self.lists.jobs[job].is_finished() {
            self.hear_cancelled(job, commit).await;
        }
        self.assert_job(&told, job);
        assert_eq!(Some(&told), self.lists.jobs[job].record.as_ref());
        self.settle(self.lists.jobs[job].model).await;
    }

    async fn hear_cancelled(&mut self, job: usize, commit: bool) {
        let model = self.lists.jobs[job].model;
        let mut version = 0;
        // One that has begun has told an epoch, so that there is something to keep.
        if commit && self.lists.jobs[job].started.is_some() {
            version = self.lists.models[model].latest + 1;
            let follow = self.follows.get_mut(&job).unwrap();
            let finished = follow.read_all().await;
            assert_eq!((finished.state(), finished.version), (JobState::Cancelled, version));
            let bits = self.read_bits(self.lists.models[model].name, version).await;
            self.commit(model, job, bits, Path { root: Root::CutOff(job), steps: Vec::new() });
            self.lists.end(job, JobState::Cancelled, StopReason::Cancelled, version);
            self.hear_record(job).await;
        } else {
            self.lists.end(job, JobState::Cancelled, StopReason::Cancelled, version);
            self.hear_end(job).await;
        }
    }

    pub async fn get_job(&mut self, job: Option<usize>) {
        let id = job.map_or(NOBODY, |job| &self.lists.jobs[job].id).to_owned();
        let answer = self.api.jobs.clone().get_job(get_job(&id)).await;
        let Some((told, job)) = agree(answer, job.ok_or(Code::NotFound)) else { return };
        self.assert_job(&told, job);
    }

    /// Watches from an epoch that was told, or from one of the next two; 0 is refused.
    pub async fn watch(&mut self, job: Option<usize>, from: Which) {
        let (id, told) = job.map_or((NOBODY, 0), |job| {
            let told = self.follows.get(&job).map_or(&self.lists.jobs[job].reports, |follow| &follow.reports);
            (self.lists.jobs[job].id.as_str(), told.last().map_or(0, |report| report.epoch))
        });
        let (id, from) = (id.to_owned(), (from % (told as usize + 3)) as i32);
        let foretold = if from < 1 { Err(Code::InvalidArgument) } else { job.ok_or(Code::NotFound) };
        let answer = self.api.jobs.clone().watch_job(watch(&id, Some(from))).await;
        let Some((events, job)) = agree(answer, foretold) else { return };
        self.hear_again(job, Follow::new(id, events), from).await;
    }

    /// A stream of a job that is known: the same is told again, from an epoch on.
    async fn hear_again(&mut self, job: usize, mut follow: Follow, from: i32) {
        let known = &self.lists.jobs[job];
        match known.state {
            JobState::Queued => {
                assert!(follow.read_one().await.is_none());
                self.assert_place(job, &follow);
            }
            JobState::Running => {
                follow.read_reports().await;
                assert_in_order(&follow.reports, from.max(known.started.as_ref().unwrap().epochs_before + 1));
            }
            _ => {
                let finished = follow.read_all().await;
                assert_eq!((finished.state(), finished.version), (known.state, known.version));
                assert_eq!(finished.last_report.as_ref(), known.reports.last());
                assert_eq!(follow.started.is_some(), known.attempted.is_some());
                let kept = if known.has_history { known.reports.as_slice() } else { &[] };
                let again: Vec<_> = kept.iter().filter(|report| report.epoch >= from).cloned().collect();
                assert_eq!(follow.reports, again, "its history is told otherwise");
            }
        }
    }
}
