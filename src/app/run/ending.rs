//! How a job ends: its end is stored before it is told, however long that takes.

use super::reports::best_stored;
use super::retry::Retry;
use super::{Phase, Running, TrainingRun};
use crate::app::{continuation, now};
use crate::domain::{Failure, FailureKind, Job, JobState, StopReason, VersionSource};
use crate::engine::TrainerEnd;
use crate::jobs::StopRequest;
use crate::store::{Finished, Outcome, StoreError, VersionDraft};

/// So often is it tried to store an end for which there is no record, some 20 s.
const LOST_MAX: u32 = 9;

/// How a job ends.
pub(super) struct End {
    state: JobState,
    reason: StopReason,
    failure: Option<Failure>,
    /// Whether the training's weights are committed.
    has_result: bool,
}

/// An end that is not stored yet: it is not told before it is.
pub(super) struct Ending {
    job: Job,
    result: Option<Outcome>,
    retry: Retry,
    /// Attempts in a row, without a result, for which the record was damaged or gone.
    lost: u32,
}

impl End {
    pub(super) fn without_result(reason: StopReason, failure: Option<Failure>) -> Self {
        let state = if failure.is_some() { JobState::Failed } else { JobState::Cancelled };
        Self { state, reason, failure, has_result: false }
    }
}

impl Running {
    pub(super) fn cancelled(&self, request: StopRequest) -> End {
        let has_result = match request {
            StopRequest::Discard => false,
            StopRequest::Keep => self.has_whole_epoch(),
        };
        End { state: JobState::Cancelled, reason: StopReason::Cancelled, failure: None, has_result }
    }

    /// The last whole epoch is the result; without one there is nothing to commit.
    pub(super) fn out_of_time(&self) -> End {
        let reason = StopReason::MaxDuration;
        if self.has_whole_epoch() {
            return End { state: JobState::Succeeded, reason, failure: None, has_result: true };
        }
        let message =
            "`max_duration` was over before the first epoch was: allow more time, or train on fewer rows".to_owned();
        let failure = Some(Failure { kind: FailureKind::TimeOver, message });
        End { state: JobState::Failed, reason, failure, has_result: false }
    }

    pub(super) fn stopped(&self, reason: StopReason, message: String) -> End {
        if reason == StopReason::Diverged {
            let failure = Some(Failure { kind: FailureKind::Diverged, message });
            return End { state: JobState::Failed, reason, failure, has_result: false };
        }
        End { state: JobState::Succeeded, reason, failure: None, has_result: true }
    }
}

impl TrainingRun {
    /// Ends the job; whether its end is stored, and so told.
    pub(super) fn end(&mut self, end: End, running: Option<Box<Running>>) -> bool {
        let mut job = Job::clone(&self.live.shown());
        job.state = end.state;
        job.stop_reason = Some(end.reason);
        job.failure = end.failure;
        job.end_time = Some(now());
        job.report_count = self.live.history.len();
        if job.best_report.is_none() {
            job.best_report = best_stored(&self.core.store, &job);
        }
        let result = running.filter(|_| end.has_result).map(|running| self.outcome(&job, *running));
        self.try_to_end(Box::new(Ending { job, result, retry: Retry::new(), lost: 0 }))
    }

    /// What a training comes to. The trainer is taken apart: of a large network nothing is copied, and its buffers and rows are given back
    /// before the store writes.
    fn outcome(&self, job: &Job, running: Running) -> Outcome {
        let Running { trainer, fingerprint, .. } = running;
        let preprocessing = trainer.preprocessing();
        let TrainerEnd { mut state, result, report } = trainer.into_end();
        let vectors = continuation::take_vectors(&mut state);
        let parameters = vectors[result].clone();
        let draft = VersionDraft {
            base_version: job.base_version,
            follows_base: false,
            source: VersionSource::Training { job_id: self.job_id, report: Box::new(report) },
            preprocessing,
            create_time: now(),
        };
        // Without it the version is as good; only `continue` is not possible.
        let continuation = continuation::of_end(state, vectors, &job.settings, fingerprint);
        let continuation = continuation.inspect_err(|error| tracing::error!(%error, "kept without its end")).ok();
        Outcome { draft, parameters, continuation }
    }

    /// A disk that is full or gone for a while costs no training: the end is tried again, turn after turn.
    pub(super) fn try_to_end(&mut self, mut ending: Box<Ending>) -> bool {
        if ending.retry.is_due() {
            match self.store_end(&ending) {
                Ok(job) if job.state.is_finished() => {
                    self.tell_end(job);
                    return true;
                }
                // A start whose commit was reported as failed, and had happened: it was this process's.
                Ok(job) => ending.job.attempt = job.attempt,
                Err(error) => {
                    ending.failed(&error);
                    if ending.lost >= LOST_MAX {
                        tracing::error!("the end of the job is told although it could not be stored");
                        self.tell_end(ending.job);
                        return true;
                    }
                }
            }
        }
        self.phase = Phase::Ending(ending);
        false
    }

    /// Stores the end; the job as it is recorded then.
    fn store_end(&self, ending: &Ending) -> Result<Job, StoreError> {
        self.write_reports()?;
        let _change = self.core.snapshots.begin_change(&ending.job.model_id);
        Ok(match self.core.store.finish_job(&ending.job, ending.result.clone())? {
            Finished::Committed { job, pruned } => {
                self.core.snapshots.forget_pruned(job.model_uid, &pruned);
                *job
            }
            Finished::NotOwner(job) => *job,
        })
    }

    fn tell_end(&self, job: Job) {
        match &job.failure {
            // Nothing of the request's own.
            Some(Failure { kind: FailureKind::DataLoss | FailureKind::Internal, message }) => {
                tracing::warn!(state = ?job.state, reason = ?job.stop_reason, why = message, "job finished");
            }
            _ => tracing::info!(state = ?job.state, reason = ?job.stop_reason, version = job.version, "job finished"),
        }
        self.live.set_record(job);
        self.live.history.close();
        self.core.live.remove(self.job_id);
        self.live.forget_snapshot();
    }
}

impl Ending {
    /// After an attempt that failed. What no later attempt would mend is given up: the job fails instead.
    fn failed(&mut self, error: &StoreError) {
        tracing::error!(%error, pause = ?self.retry.pause(), "the end of the job could not be stored; it is tried again");
        self.retry.failed();
        self.lost = lost(self.lost, error, self.result.is_some());
        let may_pass =
            matches!(error, StoreError::Io { .. } | StoreError::Unavailable { .. } | StoreError::Conflict { .. });
        if !may_pass && self.result.take().is_some() {
            self.job.state = JobState::Failed;
            self.job.stop_reason = Some(StopReason::Internal);
            let message = "the result could not be stored; the server's log has the cause".to_owned();
            let kind = match error {
                StoreError::Corrupt { .. } => FailureKind::DataLoss,
                _ => FailureKind::Internal,
            };
            self.job.failure = Some(Failure { kind, message });
        }
    }
}

/// How often in a row nothing was there to store an end in: the job's own record is damaged or gone. Another fault says nothing of it, and
/// with a result it may be the model that is damaged.
fn lost(before: u32, error: &StoreError, has_result: bool) -> u32 {
    if matches!(error, StoreError::Corrupt { .. }) && !has_result { before + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_given_up_where_its_record_is_damaged_again_and_again() {
        let damaged = StoreError::Corrupt { what: "default/jobs/…".to_owned() };
        let away = StoreError::Unavailable { reason: "the disk is full".to_owned() };
        let after = |errors: &[(&StoreError, bool)]| {
            errors.iter().fold(0, |before, (error, has_result)| lost(before, error, *has_result))
        };
        assert_eq!(after(&[(&damaged, false); 9]), 9);
        assert_eq!(after(&[(&away, false); 9]), 0);
        assert_eq!(after(&[(&damaged, true), (&damaged, false)]), 1);
        assert_eq!(after(&[(&damaged, false), (&away, false), (&damaged, false)]), 1);
    }
}
