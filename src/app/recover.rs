//! What a start does with the jobs that an earlier process left unfinished: those that waited wait again, those that ran go on.

use std::sync::Arc;

use super::disk::{rows_disk_bytes, training_disk_bytes};
use super::live::LiveJob;
use super::run::{Room, TrainingRun, best_stored};
use super::train::training_bytes;
use super::{App, AppError, now};
use crate::domain::{EpochReport, Failure, FailureKind, Job, JobState, Model, Reports, StopReason};
use crate::jobs::History;
use crate::limits::{CHUNK_REPORTS, CHUNKS_RESIDENT, STARTS_WITHOUT_CHECKPOINT_MAX};

/// What is stored of a job's history.
#[derive(Default)]
struct StoredReports {
    full_chunks: u64,
    /// Those after the full chunks.
    open: Option<Reports>,
    last: Option<EpochReport>,
}

impl App {
    /// Queues every unfinished job again, in the order in which they were accepted. A model's running job goes first: nothing of its
    /// model has begun since.
    pub(super) fn take_on_unfinished(&self) -> Result<(), AppError> {
        let mut jobs = self.core.store.unfinished_jobs()?;
        jobs.sort_by_key(|job| (job.state != JobState::Running, job.job_id));
        for job in jobs {
            let job_id = job.job_id;
            if let Err(error) = self.take_on(job) {
                // One job that cannot be read must not keep the others from being trained.
                tracing::error!(%job_id, %error, "an unfinished job could not be taken on");
            }
        }
        Ok(())
    }

    fn take_on(&self, mut job: Job) -> Result<(), AppError> {
        let stored = self.stored_reports(&job);
        let history = match stored {
            Ok(StoredReports { full_chunks, open, last }) => {
                job.last_report = last.or(job.last_report.take());
                History::resumed(CHUNK_REPORTS, CHUNKS_RESIDENT, full_chunks, open)
            }
            Err(error @ AppError::DataLoss(_)) => {
                // Those before the damaged ones can be read, and are all that it has reported now.
                let chunks_before = self.core.store.chunk_count(job.job_id)?.saturating_sub(1);
                job.report_count = u64::from(chunks_before) * CHUNK_REPORTS as u64;
                let last_chunk = chunks_before.checked_sub(1).map(|chunk| self.core.store.reports(job.job_id, chunk));
                job.last_report = last_chunk.and_then(|reports| reports.ok()??.last());
                return self.set_aside(job, StopReason::Internal, FailureKind::DataLoss, error.to_string());
            }
            Err(error) => return Err(error),
        };
        if job.state == JobState::Running
            && !self.core.is_after_good_stop
            && job.starts_without_checkpoint >= STARTS_WITHOUT_CHECKPOINT_MAX
        {
            job.report_count = history.len();
            let message = format!(
                "the server's process ended under this job {STARTS_WITHOUT_CHECKPOINT_MAX} starts in a row, before it came to a new \
                 checkpoint: it may take more memory than there is; look into the server's log, and train with smaller batches, \
                 fewer rows or a shorter `checkpoint_interval`"
            );
            return self.set_aside(job, StopReason::Interrupted, FailureKind::Interrupted, message);
        }
        let model = self.core.store.model_by_uid(job.model_uid)?;
        let (bytes, disk_bytes) = model.map_or((0, 0), |Model { architecture, .. }| {
            let disk_bytes = training_disk_bytes(&architecture, &job.settings);
            // Its rows are there.
            let disk_bytes = disk_bytes.saturating_sub(rows_disk_bytes(&architecture, &job.settings));
            (training_bytes(&architecture, &job.settings), disk_bytes)
        });
        let room = Room { bytes, _disk: self.core.promises.make(disk_bytes) };
        tracing::info!(job_id = %job.job_id, model_id = %job.model_id, state = ?job.state, "an unfinished job is taken on");
        // It waits for its turn, whatever it did before.
        job.state = JobState::Queued;
        let job_id = job.job_id;
        let live = Arc::new(LiveJob::resumed(job, history));
        self.core.live.insert(job_id, live.clone());
        self.scheduler.readmit(TrainingRun::new(self.core.clone(), job_id, live, room));
        Ok(())
    }

    /// Ends a job that cannot or must not go on.
    fn set_aside(&self, mut job: Job, reason: StopReason, kind: FailureKind, message: String) -> Result<(), AppError> {
        tracing::error!(job_id = %job.job_id, model_id = %job.model_id, why = message, "an unfinished job is set aside");
        job.state = JobState::Failed;
        job.stop_reason = Some(reason);
        job.failure = Some(Failure { kind, message });
        job.end_time = Some(now());
        job.best_report = best_stored(&self.core.store, &job);
        self.core.store.finish_job(&job, None)?;
        Ok(())
    }

    fn stored_reports(&self, job: &Job) -> Result<StoredReports, AppError> {
        let store = &self.core.store;
        let Some(chunk) = store.chunk_count(job.job_id)?.checked_sub(1) else { return Ok(StoredReports::default()) };
        let reports = store.reports(job.job_id, chunk)?.unwrap_or_default();
        let (last, before) = (reports.last(), u64::from(chunk));
        Ok(match reports.len() {
            CHUNK_REPORTS => StoredReports { full_chunks: before + 1, open: None, last },
            _ => StoredReports { full_chunks: before, open: Some(reports), last },
        })
    }
}
