//! How a job ends: its end is stored before it is told, however long that takes.

use std::time::{Duration, Instant};

use super::reports::NAP;
use super::{Phase, Running, TrainingRun};
use crate::app::{continuation, now};
use crate::domain::{EpochReport, Failure, FailureKind, Job, JobState, StopReason, Values, VersionSource};
use crate::jobs::StopRequest;
use crate::store::{Finished, Outcome, StoreError, VersionDraft};

/// The pause before a second attempt to store a job's end; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How a job ends.
pub(super) struct End {
    state: JobState,
    reason: StopReason,
    failure: Option<Failure>,
    /// The weights to commit, and the report of their epoch.
    result: Option<(Values, EpochReport)>,
}

/// An end that is not stored yet: it is not told before it is.
pub(super) struct Ending {
    job: Job,
    result: Option<Outcome>,
    next_attempt: Instant,
    pause: Duration,
}

impl End {
    pub(super) fn without_result(reason: StopReason, failure: Option<Failure>) -> Self {
        let state = if failure.is_some() { JobState::Failed } else { JobState::Cancelled };
        Self { state, reason, failure, result: None }
    }
}

impl Running {
    pub(super) fn cancelled(&self, request: StopRequest) -> End {
        let result = match request {
            StopRequest::Discard => None,
            StopRequest::Keep => self.has_whole_epoch().then(|| self.trainer.result()),
        };
        End { state: JobState::Cancelled, reason: StopReason::Cancelled, failure: None, result }
    }

    /// The last whole epoch is the result; without one there is nothing to commit.
    pub(super) fn out_of_time(&self) -> End {
        let reason = StopReason::MaxDuration;
        if self.has_whole_epoch() {
            return End { state: JobState::Succeeded, reason, failure: None, result: Some(self.trainer.result()) };
        }
        let message =
            "`max_duration` was over before the first epoch was: allow more time, or train on fewer rows".to_owned();
        let failure = Some(Failure { kind: FailureKind::TimeOver, message });
        End { state: JobState::Failed, reason, failure, result: None }
    }

    pub(super) fn stopped(&self, reason: StopReason, message: String) -> End {
        if reason == StopReason::Diverged {
            let failure = Some(Failure { kind: FailureKind::Diverged, message });
            return End { state: JobState::Failed, reason, failure, result: None };
        }
        End { state: JobState::Succeeded, reason, failure: None, result: Some(self.trainer.result()) }
    }
}

impl TrainingRun {
    /// Ends the job; whether its end is stored, and so told.
    pub(super) fn end(&mut self, end: End, running: Option<&Running>) -> bool {
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
    pub(super) fn try_to_end(&mut self, mut ending: Box<Ending>) -> bool {
        let wait = ending.next_attempt.saturating_duration_since(Instant::now());
        if wait > Duration::ZERO {
            std::thread::sleep(wait.min(NAP));
        } else {
            let stored = self.write_reports().and_then(|()| {
                Ok(match self.core.store.finish_job(&ending.job, ending.result.clone())? {
                    Finished::Committed { job, pruned } => {
                        self.core.snapshots.forget_pruned(job.model_uid, &pruned);
                        *job
                    }
                    Finished::NotOwner(job) => *job,
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
