//! A job in training: the work that the scheduler runs in slices. Everything that depends on time is here, around the
//! engine's steps, which know no clock.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::continuation::{self, Ended};
use super::live::{LiveJob, LiveSnapshot};
use super::train::expression_fault;
use super::{AppError, Core, now};
use crate::domain::{EpochReport, Failure, FailureKind, Job, JobState, Start, StopReason, Values, VersionSource};
use crate::engine::{AnyTrainer, EpochEnd, Step, TrainerInput};
use crate::jobs::{Slice, StopRequest, Work};
use crate::store::{Finished, JobStart, Outcome, StoreError, VersionDraft};

/// Full chunks of reports that may wait in memory for a disk that takes them; then the training waits, too.
const UNSTORED_CHUNKS_MAX: u64 = 64;
/// How long a turn lasts in which nothing can be done but wait for the disk.
const NAP: Duration = Duration::from_millis(50);
/// The pause before a second attempt to store a job's end; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How old the network of live predictions may be when an epoch ends.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(100);

/// One job, from its place in the queue to its end.
pub(super) struct TrainingRun {
    core: Arc<Core>,
    model_uid: Uuid,
    job_id: Uuid,
    live: Arc<LiveJob>,
    bytes: u64,
    phase: Phase,
}

/// Where it is.
enum Phase {
    Waiting,
    Training(Box<Running>),
    Ending(Box<Ending>),
    Ended,
}

/// An end that is not stored yet: it is not told before it is.
struct Ending {
    job: Job,
    result: Option<Outcome>,
    next_attempt: Instant,
    pause: Duration,
}

/// What a job has once it has started.
struct Running {
    trainer: AnyTrainer,
    started: Instant,
    time_max: Option<Duration>,
    epochs_before: u32,
    fingerprint: u64,
    snapshot_taken: Instant,
    epoch_time: Stopwatch,
    /// Reports when the open chunk was last stored.
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
        Self { core, model_uid, job_id, live, bytes, phase: Phase::Waiting }
    }

    fn span(&self) -> tracing::Span {
        tracing::info_span!("job", job_id = %self.job_id, model_id = %self.live.record().model_id)
    }

    /// Loads what the job needs, and marks it as running; or how it ends instead.
    fn begin(&self) -> Result<Box<Running>, Box<End>> {
        match self.try_begin() {
            Ok(Some(running)) => Ok(Box::new(running)),
            Ok(None) => Err(Box::new(End::without_result(StopReason::Cancelled, None))),
            Err(error) => {
                let kind = match error {
                    AppError::DataLoss(_) => FailureKind::DataLoss,
                    AppError::Precondition(_) => FailureKind::NotContinuable,
                    AppError::Invalid(_) => FailureKind::Diverged,
                    _ => FailureKind::Internal,
                };
                let reason = match kind {
                    FailureKind::NotContinuable => StopReason::Refused,
                    FailureKind::Diverged => StopReason::Diverged,
                    _ => StopReason::Internal,
                };
                let failure = Failure { kind, message: error.to_string() };
                Err(Box::new(End::without_result(reason, Some(failure))))
            }
        }
    }

    /// `None` where the job, or its model, is gone.
    fn try_begin(&self) -> Result<Option<Running>, AppError> {
        match self.load() {
            // A model that is deleted while it is read looks damaged for a moment.
            Err(AppError::DataLoss(_)) if self.core.store.model_by_uid(self.model_uid)?.is_none() => Ok(None),
            loaded => loaded,
        }
    }

    fn load(&self) -> Result<Option<Running>, AppError> {
        let store = &self.core.store;
        let record = self.live.record();
        let Some(model) = store.model_by_uid(self.model_uid)? else { return Ok(None) };
        let base_version = match record.settings.start {
            Start::Latest | Start::Continue => model.latest_version,
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
        let mut settings = record.settings.clone();
        let ended = match settings.start {
            Start::Continue => store.continuation(model.uid, base_version)?.map(Ended::new).transpose()?,
            Start::Latest | Start::Initial => None,
        };
        if let Some(ended) = &ended {
            ended.check(&settings).map_err(AppError::Precondition)?;
            if mem::take(&mut settings.is_seed_drawn) {
                settings.seed = ended.seed();
            }
        }
        let fingerprint = continuation::fingerprint(&data);
        let mut trainer = AnyTrainer::new(TrainerInput {
            architecture: model.architecture.clone(),
            settings: settings.clone(),
            data,
            preprocessing: model.preprocessing,
            fitted,
            parameters,
        });
        if let Some(ended) = ended {
            ended.put_into(&mut trainer, &settings, fingerprint).map_err(AppError::Precondition)?;
        }
        check_expression(&mut trainer)?;
        let start = JobStart { base_version, seed: settings.seed, epochs_before: trainer.epoch(), time: now() };
        let Some(job) = store.start_job(self.job_id, start)? else { return Ok(None) };
        let instant = Instant::now();
        let epoch_time = Stopwatch { before: Duration::ZERO, since: instant };
        let time_max = job.settings.max_duration_micros.map(Duration::from_micros);
        let running = Running {
            trainer,
            started: instant,
            time_max,
            epochs_before: start.epochs_before,
            fingerprint,
            snapshot_taken: instant,
            epoch_time,
            reports_written: 0,
        };
        self.live.set_snapshot(running.snapshot(running.trainer.epoch()));
        tracing::info!(base_version, epochs = job.settings.epochs, "job started");
        self.live.set_record(job);
        Ok(Some(running))
    }

    /// Trains until the job ends or its turn is over; whether it is done.
    fn train(&mut self, slice: &Slice) -> bool {
        let running = match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Waiting => self.begin(),
            Phase::Training(running) => Ok(running),
            Phase::Ending(ending) => return self.try_to_end(ending),
            Phase::Ended => return true,
        };
        match running {
            Ok(mut running) => match self.steps(&mut running, slice) {
                Some(end) => self.end(end, Some(&running)),
                None => {
                    self.phase = Phase::Training(running);
                    false
                }
            },
            Err(end) => self.end(*end, None),
        }
    }

    /// Steps until the job ends, or its turn is over.
    fn steps(&self, running: &mut Running, slice: &Slice) -> Option<End> {
        running.epoch_time.since = Instant::now();
        loop {
            if let Some(request) = self.live.control.stop_requested() {
                return Some(running.cancelled(request));
            }
            let instant = Instant::now();
            if running.is_time_over(instant) {
                return Some(running.out_of_time());
            }
            let must_wait = self.live.history.unstored_count() > UNSTORED_CHUNKS_MAX;
            if slice.is_over(instant) || must_wait {
                running.epoch_time.pause(instant);
                self.store_reports(running, must_wait);
                return None;
            }
            match running.trainer.step_batch() {
                Step::Batch => {
                    self.live.set_progress(running.trainer.epoch() + 1, running.trainer.rows_done_in_epoch())
                }
                Step::Epoch(end) => {
                    if let Some(end) = self.end_epoch(running, end) {
                        return Some(end);
                    }
                }
            }
        }
    }

    /// At the end of a turn: what a later watcher will want.
    fn store_reports(&self, running: &mut Running, must_wait: bool) {
        let reports = self.live.history.len();
        if reports == running.reports_written && !must_wait {
            return;
        }
        match self.write_reports() {
            Ok(()) => running.reports_written = reports,
            Err(error) => {
                tracing::error!(%error, must_wait, "reports could not be stored; they are kept and tried again");
                if must_wait {
                    std::thread::sleep(NAP);
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
        let epoch = report.epoch;
        self.live.set_progress(epoch + 1, 0);
        if end.is_reported {
            let best = running.trainer.best_report();
            self.live.update_record(|job| (job.last_report, job.best_report) = (Some(report.clone()), best));
            if self.live.history.append(report)
                && let Err(error) = self.write_full_chunks()
            {
                tracing::error!(%error, "reports could not be stored; they are kept and tried again");
            }
        }
        if let Some(stop) = end.stop {
            return Some(running.stopped(stop.reason, stop.message));
        }
        if instant - running.snapshot_taken >= SNAPSHOT_AGE_MAX {
            running.snapshot_taken = instant;
            self.live.set_snapshot(running.snapshot(epoch));
        }
        None
    }

    /// Ends a job that never trained; whether its end is stored.
    pub(super) fn cancel_waiting(&mut self) -> bool {
        let _span = self.span().entered();
        self.end(End::without_result(StopReason::Cancelled, None), None)
    }

    /// Ends the job; whether its end is stored, and so told.
    fn end(&mut self, end: End, running: Option<&Running>) -> bool {
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
            // Without it the version is as good; only `continue` is not possible.
            let continuation = continuation::of_trainer(&running.trainer, &job.settings, running.fingerprint);
            let continuation = continuation.inspect_err(|error| tracing::error!(%error, "kept without its end")).ok();
            Outcome { draft, parameters, continuation }
        });
        self.try_to_end(Box::new(Ending { job, result, next_attempt: Instant::now(), pause: FIRST_PAUSE }))
    }

    /// A disk that is full or gone for a while costs no training: the end is tried again, turn after turn.
    fn try_to_end(&mut self, mut ending: Box<Ending>) -> bool {
        let wait = ending.next_attempt.saturating_duration_since(Instant::now());
        if wait > Duration::ZERO {
            std::thread::sleep(wait.min(NAP));
        } else {
            let stored = self.write_reports().and_then(|()| {
                Ok(match self.core.store.finish_job(&ending.job, ending.result.clone())? {
                    Finished::Committed(job) | Finished::NotOwner(job) => *job,
                })
            });
            match stored {
                Ok(job) => {
                    self.tell_end(job);
                    return true;
                }
                Err(error) => ending.failed(&error),
            }
        }
        self.phase = Phase::Ending(ending);
        false
    }

    fn tell_end(&self, job: Job) {
        self.core.snapshots.forget_serving(&job.model_id);
        tracing::info!(state = ?job.state, reason = ?job.stop_reason, version = job.version, "job finished");
        self.live.set_record(job);
        self.live.history.close();
        self.core.live.remove(self.job_id);
    }

    /// Stores every report: full chunks, then the open one as it stands.
    fn write_reports(&self) -> Result<(), StoreError> {
        self.write_full_chunks()?;
        let (index, reports) = self.live.history.open_chunk();
        if reports.is_empty() {
            return Ok(());
        }
        self.core.store.write_reports(self.job_id, index as u32, &reports)
    }

    /// Stores full chunks, in order, until one cannot be stored: it stays in memory then.
    fn write_full_chunks(&self) -> Result<(), StoreError> {
        while let Some(chunk) = self.live.history.unstored() {
            self.core.store.write_reports(self.job_id, chunk.index as u32, &chunk.reports)?;
            self.live.history.mark_stored();
        }
        Ok(())
    }
}

impl Ending {
    /// After an attempt that failed. What no later attempt would mend is given up: the job fails instead.
    fn failed(&mut self, error: &StoreError) {
        tracing::error!(%error, pause = ?self.pause, "the end of the job could not be stored; it is tried again");
        self.next_attempt = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let may_pass =
            matches!(error, StoreError::Io { .. } | StoreError::Unavailable { .. } | StoreError::Conflict { .. });
        if !may_pass && self.result.take().is_some() {
            self.job.state = JobState::Failed;
            self.job.stop_reason = Some(StopReason::Internal);
            let message = "the result could not be stored; the server's log has the cause".to_owned();
            self.job.failure = Some(Failure { kind: FailureKind::Internal, message });
        }
    }
}

impl End {
    fn without_result(reason: StopReason, failure: Option<Failure>) -> Self {
        let state = if failure.is_some() { JobState::Failed } else { JobState::Cancelled };
        Self { state, reason, failure, result: None }
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

    fn panicked(&mut self, message: &str) -> bool {
        let _span = self.span().entered();
        tracing::error!(message, "the job panicked");
        let failure =
            Failure { kind: FailureKind::Internal, message: "the training ended by a bug of epochd".to_owned() };
        self.end(End::without_result(StopReason::Internal, Some(failure)), None)
    }
}

impl Running {
    fn snapshot(&self, epoch: u32) -> LiveSnapshot {
        LiveSnapshot { epoch, network: self.trainer.network(), preprocessing: self.trainer.preprocessing() }
    }

    fn cancelled(&self, request: StopRequest) -> End {
        let result = match request {
            StopRequest::Discard => None,
            StopRequest::Keep => self.has_whole_epoch().then(|| self.trainer.result()),
        };
        End { state: JobState::Cancelled, reason: StopReason::Cancelled, failure: None, result }
    }

    /// Whether this job, not only one that it goes on with, has finished an epoch.
    fn has_whole_epoch(&self) -> bool {
        self.trainer.epoch() > self.epochs_before && self.trainer.last_whole_epoch().is_some()
    }

    fn is_time_over(&self, instant: Instant) -> bool {
        self.time_max.is_some_and(|time_max| instant - self.started >= time_max)
    }

    /// The last whole epoch is the result; without one there is nothing to commit.
    fn out_of_time(&self) -> End {
        let reason = StopReason::MaxDuration;
        if self.has_whole_epoch() {
            return End { state: JobState::Succeeded, reason, failure: None, result: Some(self.trainer.result()) };
        }
        let message =
            "`max_duration` was over before the first epoch was: allow more time, or train on fewer rows".to_owned();
        let failure = Some(Failure { kind: FailureKind::TimeOver, message });
        End { state: JobState::Failed, reason, failure, result: None }
    }

    fn stopped(&self, reason: StopReason, message: String) -> End {
        if reason == StopReason::Diverged {
            let failure = Some(Failure { kind: FailureKind::Diverged, message });
            return End { state: JobState::Failed, reason, failure, result: None };
        }
        End { state: JobState::Succeeded, reason, failure: None, result: Some(self.trainer.result()) }
    }
}

/// A caller's own loss is tried on every row before the first step: where it leaves the range of numbers, the job ends and says at
/// which row.
fn check_expression(trainer: &mut AnyTrainer) -> Result<(), AppError> {
    match trainer.first_faulty_row() {
        None => Ok(()),
        Some((row, what)) => Err(expression_fault(row, what).into()),
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
