//! A job's start, or its start after a crash: everything that it needs is read, and its record says that it runs.

use std::mem;
use std::time::{Duration, Instant};

use super::checkpoint::{Checkpoint, Checkpoints};
use super::clock::{Clock, Nanos};
use super::reports::Retrained;
use super::retry::Retry;
use super::{End, Running, Stopwatch, TrainingRun};
use crate::app::continuation::{self, Ended};
use crate::app::live::LiveSnapshot;
use crate::app::processor::build_and_processor;
use crate::app::train::expression_fault;
use crate::app::{AppError, now};
use crate::domain::{
    EpochReport, Failure, FailureKind, Job, Model, Reports, Settings, Start, StopReason, TrainingData, Values, Version,
};
use crate::engine::{AnyTrainer, TrainerInput, Workers};
use crate::jobs::StopRequest;
use crate::store::{JobStart, Started};

const REPLACED: &str = "the server stopped before the job's first checkpoint, and the training that it was to continue was \
                        replaced by a later version meanwhile; train again";

/// What a job starts from.
struct Base {
    model: Model,
    version: Version,
    parameters: Values,
    data: TrainingData,
}

/// What became of an attempt to begin.
pub(super) enum Begun {
    Running(Box<Running>),
    Ended(Box<End>),
    /// The store cannot be read or written now.
    Later(Retry),
}

impl TrainingRun {
    /// Loads what the job needs, and marks it as running; or how it ends instead.
    pub(super) fn begin(&self, mut retry: Retry) -> Begun {
        let cancelled = || Begun::Ended(Box::new(End::without_result(StopReason::Cancelled, None)));
        match self.live.control.stop_requested() {
            // It needs nothing of what it was to train with.
            Some(StopRequest::Discard) => return cancelled(),
            Some(StopRequest::Keep) if !self.live.has_progress() => return cancelled(),
            Some(StopRequest::Keep) | None => {}
        }
        if !retry.is_due() {
            return Begun::Later(retry);
        }
        match self.try_begin(&mut retry) {
            Ok(Some(running)) => Begun::Running(Box::new(running)),
            Ok(None) => cancelled(),
            Err(error @ AppError::Unavailable(_)) => {
                tracing::error!(%error, pause = ?retry.pause(), "the job cannot begin; it is tried again");
                retry.failed();
                Begun::Later(retry)
            }
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
                Begun::Ended(Box::new(End::without_result(reason, Some(failure))))
            }
        }
    }

    /// `None` where the job, or its model, is gone.
    fn try_begin(&self, retry: &mut Retry) -> Result<Option<Running>, AppError> {
        match self.start_and_load(retry) {
            // A model that is deleted while it is read looks damaged for a moment.
            Err(AppError::DataLoss(_)) if self.core.store.model_by_uid(self.model_uid)?.is_none() => Ok(None),
            outcome => outcome,
        }
    }

    /// The attempt is recorded first: what is read then may be more than the process has memory for.
    fn start_and_load(&self, retry: &mut Retry) -> Result<Option<Running>, AppError> {
        let start = JobStart {
            attempts_before: self.attempts_before,
            trained_on: build_and_processor(),
            is_after_good_stop: self.core.is_after_good_stop,
            time: now(),
        };
        match self.core.store.start_job(self.job_id, start)? {
            Started::Gone => Ok(None),
            Started::Begun(job) => {
                self.note_attempt(&job);
                self.load(*job, retry)
            }
        }
    }

    /// It is told as running once it trains; but its record is this attempt's now.
    fn note_attempt(&self, job: &Job) {
        self.live.update_record(|shown| {
            shown.attempt = job.attempt;
            shown.starts_without_checkpoint = job.starts_without_checkpoint;
            shown.trained_on.clone_from(&job.trained_on);
            shown.base_version = job.base_version;
            shown.start_time = job.start_time;
        });
    }

    fn load(&self, record: Job, retry: &mut Retry) -> Result<Option<Running>, AppError> {
        let Some(base) = self.base(&record)? else { return Ok(None) };
        let mut settings = record.settings.clone();
        // A job with a checkpoint needs it no more, and goes on where it is damaged.
        let ended = self.ended(&base, &mut settings);
        let fingerprint = continuation::kept_fingerprint(record.fingerprint, &base.data);
        let mut trainer = AnyTrainer::new(self.input(base, &settings)?);
        trainer.set_workers(Workers::of(self.core.team.clone()));
        let first_network = trainer.network();
        let resumed = self.resume(&mut trainer, retry)?;
        if resumed.is_none() {
            match ended? {
                Some(ended) => {
                    ended.put_into(&mut trainer, &settings, fingerprint).map_err(AppError::Precondition)?;
                }
                // An attempt before this one found what it was to go on with: in a folder of a build that did not keep it.
                None if record.epochs_before > 0 => return Err(AppError::Precondition(REPLACED.to_owned())),
                None => {}
            }
            check_expression(&mut trainer)?;
        } else {
            // It may be as large as all the trainer has.
            drop(ended);
        }
        // What it went on from says the number of its first epoch; later attempts find that in the record.
        let epochs_before = if resumed.is_some() { record.epochs_before } else { trainer.epoch() };
        let continued = (settings.seed, epochs_before);
        let Some(job) = self.core.store.record_continued(self.job_id, record.attempt, continued)? else {
            return Ok(None);
        };
        let (elapsed_before, report_index) =
            resumed.map_or((Duration::ZERO, 0), |checkpoint| (checkpoint.elapsed, checkpoint.report_index));
        let network = match trainer.has_whole_epoch() {
            true => trainer.network(),
            false => first_network,
        };
        let snapshot = LiveSnapshot { epoch: trainer.epoch(), network, preprocessing: trainer.preprocessing() };
        self.live.set_snapshot(snapshot);
        tracing::info!(
            attempt = job.attempt,
            base_version = job.base_version,
            epochs = job.settings.epochs,
            epochs_done = trainer.epoch(),
            "job started"
        );
        let (instant, rows_before) = (Instant::now(), trainer.rows_done_in_epoch());
        let mut running = Running {
            trainer,
            clock: Clock::new(instant),
            elapsed_before: elapsed_before.as_nanos() as Nanos,
            time_max: job.settings.max_duration_micros.map(Duration::from_micros),
            epochs_before,
            fingerprint,
            snapshot_taken: instant,
            epoch_time: Stopwatch { before: 0, since: 0, is_known: true },
            rows_before,
            reports_written: self.live.history.len(),
            untold: Reports::default(),
            has_unshown: false,
            has_passed: false,
            retrained: Retrained::new(report_index, self.live.history.len()),
            checkpoints: Checkpoints::new(&self.core.store, &job.settings, instant),
        };
        let at_checkpoint = running.trainer.best_report();
        let best = running.retrained.best_told(&self.core.store, self.job_id, at_checkpoint, job.settings.monitored());
        self.show_started(job, best);
        self.show_catching_up(&running);
        Ok(Some(running))
    }

    /// The record that callers see: reports that were told before a crash stay told.
    fn show_started(&self, job: Job, best_report: Option<EpochReport>) {
        self.live.update_record(|shown| {
            let last_report = shown.last_report.take().or(job.last_report.clone());
            *shown = Job { last_report, best_report, ..job };
        });
        self.live.note_start();
        self.live.history.touch();
    }

    /// The version that the first attempt chose, whatever was committed since. `None` where the model is gone.
    fn base(&self, record: &Job) -> Result<Option<Base>, AppError> {
        let store = &self.core.store;
        let Some(model) = store.model_by_uid(self.model_uid)? else { return Ok(None) };
        let missing = |what: &str| AppError::DataLoss(format!("the {what} of job {} cannot be found", self.job_id));
        let number = record.base_version.ok_or_else(|| missing("base version"))?;
        let version = store.version(model.uid, number)?.ok_or_else(|| missing("base version"))?;
        let parameters = store.parameters(model.uid, number, &model.architecture)?;
        let parameters = parameters.ok_or_else(|| missing("base version"))?;
        let data = store.training_data(self.job_id)?.ok_or_else(|| missing("data"))?;
        Ok(Some(Base { model, version, parameters, data }))
    }

    /// The training that it is to go on with, if it is; and the seed of that one, where this has none of its own.
    fn ended(&self, base: &Base, settings: &mut Settings) -> Result<Option<Ended>, AppError> {
        if settings.start != Start::Continue {
            return Ok(None);
        }
        let kept = self.core.store.continuation(base.model.uid, base.version.version)?;
        let Some(ended) = kept.map(Ended::new).transpose()? else { return Ok(None) };
        ended.check(settings).map_err(AppError::Precondition)?;
        if mem::take(&mut settings.is_seed_drawn) {
            settings.seed = ended.seed();
        }
        Ok(Some(ended))
    }

    fn input(&self, base: Base, settings: &Settings) -> Result<TrainerInput, AppError> {
        let Base { model, version, parameters, data } = base;
        // From the initial weights on, the scaling is still that of the first training.
        let fitted = match version.preprocessing {
            Some(fitted) => Some(fitted),
            None => self.core.store.version(model.uid, model.latest_version)?.and_then(|latest| latest.preprocessing),
        };
        Ok(TrainerInput {
            architecture: model.architecture,
            settings: settings.clone(),
            data,
            preprocessing: model.preprocessing,
            fitted,
            parameters,
        })
    }

    /// Puts the trainer where the job's last checkpoint was taken. Without one that can be used the job begins anew: that takes longer,
    /// and comes to the same weights. A disk that cannot be read now may be later, which is faster, up to a while.
    fn resume(&self, trainer: &mut AnyTrainer, retry: &mut Retry) -> Result<Option<Checkpoint>, AppError> {
        match self.try_resume(trainer) {
            Err(error @ AppError::Unavailable(_)) if !retry.is_checkpoint_given_up() => Err(error),
            Err(error) => {
                tracing::error!(%error, "the job's checkpoint cannot be used; the job begins anew");
                Ok(None)
            }
            Ok(resumed) => Ok(resumed),
        }
    }

    fn try_resume(&self, trainer: &mut AnyTrainer) -> Result<Option<Checkpoint>, AppError> {
        let Some((checkpoint, state)) = Checkpoint::read(&self.core.store, self.job_id)? else { return Ok(None) };
        let known = self.live.history.len();
        if checkpoint.report_index > known {
            let message = format!("it comes after {} reports, but {known} are stored", checkpoint.report_index);
            return Err(AppError::DataLoss(message));
        }
        trainer.restore(state).map_err(|error| AppError::DataLoss(error.to_string()))?;
        Ok(Some(checkpoint))
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
