//! A job in training: the work that the scheduler runs in slices. Everything that depends on time is here, around the
//! engine's steps, which know no clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::live::{LiveJob, LiveSnapshot};
use super::{AppError, Core, now};
use crate::domain::{EpochReport, Failure, FailureKind, Job, JobState, Start, StopReason, Values, VersionSource};
use crate::engine::{AnyTrainer, EpochEnd, Step, TrainerInput};
use crate::jobs::{FullChunk, Slice, StopRequest, Work};
use crate::store::{Finished, StoreError, VersionDraft};

/// How often the end of a job is tried to be stored, and the pause before the second time; each is twice the one before.
const STORE_ATTEMPTS: u32 = 6;
const STORE_PAUSE: Duration = Duration::from_millis(100);
/// How old the network of live predictions may be when an epoch ends.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(100);

/// One job, from its place in the queue to its end.
pub(super) struct TrainingRun {
    core: Arc<Core>,
    model_uid: Uuid,
    job_id: Uuid,
    live: Arc<LiveJob>,
    bytes: u64,
    running: Option<Box<Running>>,
}

/// What a job has once it has started.
struct Running {
    trainer: AnyTrainer,
    started: Instant,
    snapshot_taken: Instant,
    epoch_time: Stopwatch,
    /// Reports that are stored.
    reports_written: u64,
}

/// Time spent in slices, pauses between them left out.
struct Stopwatch {
    before: Duration,
    since: Instant,
}

/// How a job ends.
struct End {
    state: JobState,
    reason: StopReason,
    failure: Option<Failure>,
    /// The weights to commit, and the report of their epoch.
    result: Option<(Values, EpochReport)>,
}

impl TrainingRun {
    /// `bytes` is what it will take in memory, by estimate.
    pub(super) fn new(core: Arc<Core>, job_id: Uuid, live: Arc<LiveJob>, bytes: u64) -> Self {
        let model_uid = live.record().model_uid;
        Self { core, model_uid, job_id, live, bytes, running: None }
    }

    fn span(&self) -> tracing::Span {
        tracing::info_span!("job", job_id = %self.job_id, model_id = %self.live.record().model_id)
    }

    /// Loads what the job needs, and marks it as running. `None` where it has ended instead.
    fn begin(&mut self) -> Option<Box<Running>> {
        match self.try_begin() {
            Ok(Some(running)) => Some(Box::new(running)),
            Ok(None) => {
                self.finish_unstarted(StopReason::Cancelled, None);
                None
            }
            Err(error) => {
                let kind =
                    if matches!(error, AppError::DataLoss(_)) { FailureKind::DataLoss } else { FailureKind::Internal };
                self.finish_unstarted(StopReason::Internal, Some(Failure { kind, message: error.to_string() }));
                None
            }
        }
    }

    /// `None` where the job, or its model, is gone.
    fn try_begin(&self) -> Result<Option<Running>, AppError> {
        let store = &self.core.store;
        let record = self.live.record();
        let Some(model) = store.model_by_uid(self.model_uid)? else { return Ok(None) };
        let base_version = match record.settings.start {
            Start::Latest => model.latest_version,
            Start::Initial => 1,
        };
        let missing = |what: &str| AppError::DataLoss(format!("the {what} of job {} cannot be found", self.job_id));
        let base = store.version(model.uid, base_version)?.ok_or_else(|| missing("base version"))?;
        let parameters =
            store.parameters(model.uid, base_version, &model.architecture)?.ok_or_else(|| missing("weights"))?;
        let data = store.training_data(self.job_id)?.ok_or_else(|| missing("data"))?;
        // From the initial weights on, the scaling is still that of the first training.
        let fitted = match base.preprocessing {
            Some(fitted) => Some(fitted),
            None => store.version(model.uid, model.latest_version)?.and_then(|latest| latest.preprocessing),
        };
        let trainer = AnyTrainer::new(TrainerInput {
            architecture: model.architecture.clone(),
            settings: record.settings.clone(),
            data,
            preprocessing: model.preprocessing,
            fitted,
            parameters,
        });
        let Some(job) = store.start_job(self.job_id, base_version, now())? else { return Ok(None) };
        let instant = Instant::now();
        let epoch_time = Stopwatch { before: Duration::ZERO, since: instant };
        let running = Running { trainer, started: instant, snapshot_taken: instant, epoch_time, reports_written: 0 };
        self.live.set_snapshot(running.snapshot(0));
        tracing::info!(base_version, epochs = job.settings.epochs, "job started");
        self.live.set_record(job);
        Ok(Some(running))
    }

    /// Steps until the job ends (`true`) or its turn is over.
    fn train(&mut self, slice: &Slice) -> bool {
        let Some(mut running) = self.running.take().or_else(|| self.begin()) else { return true };
        running.epoch_time.since = Instant::now();
        loop {
            if let Some(request) = self.live.control.stop_requested() {
                let end = running.cancelled(request);
                self.finish(end, Some(&running));
                return true;
            }
            let instant = Instant::now();
            if slice.is_over(instant) {
                running.epoch_time.pause(instant);
                let reports = self.live.history.len();
                if std::mem::replace(&mut running.reports_written, reports) != reports {
                    self.write_open_chunk();
                }
                self.running = Some(running);
                return false;
            }
            match running.trainer.step_batch() {
                Step::Batch => {
                    self.live.set_progress(running.trainer.epoch() + 1, running.trainer.rows_done_in_epoch())
                }
                Step::Epoch(end) => {
                    if let Some(end) = self.end_epoch(&mut running, end) {
                        self.finish(end, Some(&running));
                        return true;
                    }
                }
            }
        }
    }

    /// Reports an epoch; how the job ends, if it does.
    fn end_epoch(&self, running: &mut Running, end: EpochEnd) -> Option<End> {
        let instant = Instant::now();
        let mut report = end.report;
        report.elapsed_micros = (instant - running.started).as_micros() as u64;
        let seconds = running.epoch_time.restart(instant).as_secs_f64();
        report.samples_per_second = running.trainer.training_rows() as f64 / seconds.max(1e-9);
        running.trainer.stamp(report.elapsed_micros, report.samples_per_second);
        self.live.set_progress(report.epoch + 1, 0);
        if end.is_reported {
            let best = running.trainer.best_report();
            self.live.update_record(|job| (job.last_report, job.best_report) = (Some(report), best));
            if let Some(chunk) = self.live.history.append(report) {
                self.write_chunk(&chunk);
            }
        }
        if let Some(stop) = end.stop {
            return Some(running.stopped(stop.reason, stop.message));
        }
        if instant - running.snapshot_taken >= SNAPSHOT_AGE_MAX {
            running.snapshot_taken = instant;
            self.live.set_snapshot(running.snapshot(report.epoch));
        }
        None
    }

    /// Ends a job that never trained.
    pub(super) fn finish_unstarted(&mut self, reason: StopReason, failure: Option<Failure>) {
        let _span = self.span().entered();
        let state = if failure.is_some() { JobState::Failed } else { JobState::Cancelled };
        self.finish(End { state, reason, failure, result: None }, None);
    }

    /// Makes the end durable, then tells it.
    fn finish(&self, end: End, running: Option<&Running>) {
        self.write_open_chunk();
        let mut job = Job::clone(&self.live.record());
        job.state = end.state;
        job.stop_reason = Some(end.reason);
        job.failure = end.failure;
        job.end_time = Some(now());
        job.report_count = self.live.history.len();
        let result = end.result.zip(running).map(|((parameters, report), running)| {
            let draft = VersionDraft {
                base_version: job.base_version,
                source: VersionSource::Training { job_id: self.job_id, report: Box::new(report) },
                preprocessing: running.trainer.preprocessing(),
                create_time: now(),
            };
            (draft, parameters)
        });
        let job = match self.store_end(&job, result) {
            Ok(Finished::Committed(job) | Finished::NotOwner(job)) => *job,
            // The record still says that the job runs; the next start of the server ends it.
            Err(error) => {
                tracing::error!(%error, "the end of the job could not be stored");
                job.state = JobState::Failed;
                job.stop_reason = Some(StopReason::Internal);
                job.failure = Some(Failure {
                    kind: FailureKind::Internal,
                    message: format!("the result could not be stored: {error}"),
                });
                job
            }
        };
        self.core.snapshots.forget_serving(&job.model_id);
        tracing::info!(state = ?job.state, reason = ?job.stop_reason, version = job.version, "job finished");
        self.live.set_record(job);
        self.live.history.close();
        self.core.live.remove(self.job_id);
    }

    /// A disk that is full or gone for a moment is not worth the loss of a training: the end is tried more than once.
    fn store_end(&self, job: &Job, result: Option<(VersionDraft, Values)>) -> Result<Finished, StoreError> {
        let mut attempt = 1;
        loop {
            let stored = self.core.store.finish_job(job, result.clone());
            let passes = matches!(stored, Err(StoreError::Io { .. } | StoreError::Unavailable { .. }));
            if !passes || attempt == STORE_ATTEMPTS || self.core.is_draining.load(Ordering::Relaxed) {
                return stored;
            }
            tracing::warn!(attempt, "the end of the job could not be stored; it is tried again");
            std::thread::sleep(STORE_PAUSE * 2_u32.pow(attempt));
            attempt += 1;
        }
    }

    fn write_open_chunk(&self) {
        let (index, reports) = self.live.history.open_chunk();
        if !reports.is_empty() {
            self.write_chunk(&FullChunk { index, reports: reports.into() });
        }
    }

    /// A chunk that cannot be written is not worth ending the job for: its watchers still have it in memory.
    fn write_chunk(&self, chunk: &FullChunk<EpochReport>) {
        if let Err(error) = self.core.store.write_reports(self.job_id, chunk.index as u32, &chunk.reports) {
            tracing::error!(%error, chunk = chunk.index, "reports could not be stored");
        }
    }
}

impl Work for TrainingRun {
    type Key = Uuid;
    type Id = Uuid;

    fn key(&self) -> Uuid {
        self.model_uid
    }

    fn id(&self) -> Uuid {
        self.job_id
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn run(&mut self, slice: &Slice) -> bool {
        let _span = self.span().entered();
        self.train(slice)
    }

    fn panicked(&mut self, message: &str) {
        let _span = self.span().entered();
        tracing::error!(message, "the job panicked");
        let failure =
            Failure { kind: FailureKind::Internal, message: "the training ended by a bug of epochd".to_owned() };
        let end = End { state: JobState::Failed, reason: StopReason::Internal, failure: Some(failure), result: None };
        self.finish(end, None);
    }
}

impl Running {
    fn snapshot(&self, epoch: u32) -> LiveSnapshot {
        LiveSnapshot { epoch, network: self.trainer.network(), preprocessing: self.trainer.preprocessing() }
    }

    fn cancelled(&self, request: StopRequest) -> End {
        let result = match request {
            StopRequest::Discard => None,
            StopRequest::Keep => self.trainer.last_whole_epoch().map(|_| self.trainer.result()),
        };
        End { state: JobState::Cancelled, reason: StopReason::Cancelled, failure: None, result }
    }

    fn stopped(&self, reason: StopReason, message: String) -> End {
        if reason == StopReason::Diverged {
            let failure = Some(Failure { kind: FailureKind::Diverged, message });
            return End { state: JobState::Failed, reason, failure, result: None };
        }
        End { state: JobState::Succeeded, reason, failure: None, result: Some(self.trainer.result()) }
    }
}

impl Stopwatch {
    fn pause(&mut self, instant: Instant) {
        self.before += instant - self.since;
    }

    /// The time so far; starts again from zero.
    fn restart(&mut self, instant: Instant) -> Duration {
        let time = self.before + (instant - self.since);
        *self = Self { before: Duration::ZERO, since: instant };
        time
    }
}

/// Ends the jobs that an earlier process left unfinished.
pub(super) fn fail_interrupted(core: &Core) -> Result<(), AppError> {
    for mut job in core.store.unfinished_jobs()? {
        job.state = JobState::Failed;
        job.stop_reason = Some(StopReason::Interrupted);
        job.failure = Some(Failure {
            kind: FailureKind::Interrupted,
            message: "interrupted: the server stopped before the job was finished; train again".to_owned(),
        });
        job.end_time = Some(now());
        job.report_count = stored_report_count(core, &mut job)?;
        tracing::warn!(job_id = %job.job_id, model_id = %job.model_id, "an unfinished job is marked as interrupted");
        core.store.finish_job(&job, None)?;
    }
    Ok(())
}

/// How many reports of a job are stored; the last of them goes into its record.
fn stored_report_count(core: &Core, job: &mut Job) -> Result<u64, AppError> {
    let mut count = 0;
    for chunk in 0.. {
        match core.store.reports(job.job_id, chunk)? {
            Some(reports) => {
                count += reports.len() as u64;
                job.last_report = reports.last().copied().or(job.last_report);
            }
            None => break,
        }
    }
    Ok(count)
}
