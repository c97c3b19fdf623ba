//! What a start does with jobs that an earlier process left unfinished.

use super::{AppError, Core, now};
use crate::domain::{Failure, FailureKind, Job, JobState, StopReason};

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
                job.last_report = reports.last().cloned().or(job.last_report.take());
            }
            None => break,
        }
    }
    Ok(count)
}
