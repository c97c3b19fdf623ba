//! Reading, listing and cancelling jobs.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::live::LiveJob;
use super::page::{Page, PageRequest};
use super::{App, AppError};
use crate::domain::{Job, JobState, ModelId};
use crate::jobs::{Cancelled, StopRequest};
use crate::store::JobFilter;

/// How long CancelJob waits for the batch in progress before it answers with the job as it stands.
const CANCEL_WAIT: Duration = Duration::from_secs(30);

/// Which jobs a list holds.
#[derive(Clone, Debug, Default)]
pub struct JobFilterRequest {
    /// Only this model's.
    pub model_id: Option<ModelId>,
    /// Only those in this state.
    pub state: Option<JobState>,
}

/// A job, and what its record does not say.
#[derive(Clone, Debug)]
pub struct JobView {
    /// The record.
    pub job: Arc<Job>,
    /// How long it would still run.
    pub time_left: Option<Duration>,
}

impl App {
    /// Reads a job.
    pub async fn job(&self, job_id: Uuid) -> Result<JobView, AppError> {
        match self.core.live.get(job_id) {
            Some(live) => Ok(live_view(&live)),
            None => Ok(stored_view(self.stored_job(job_id).await?)),
        }
    }

    /// Lists jobs, newest first.
    pub async fn jobs(&self, filter: JobFilterRequest, page: PageRequest) -> Result<Page<JobView>, AppError> {
        self.blocking(move |app| {
            let page = page.of(&format!("jobs of {:?} in {:?}", filter.model_id, filter.state))?;
            let before = page.after.as_deref().and_then(|key| key.parse().ok());
            let filter = JobFilter { model_uid: None, model_id: filter.model_id, state: filter.state };
            // The record in the store is late where the job is in this process: one that goes on after a crash waits for its turn.
            let now = |job: Job| app.core.live.get(job.job_id).map_or(job, |live| Job::clone(&live.record()));
            let jobs = app.core.store.jobs_as_they_are(&filter, before, page.read_limit(), now)?;
            Ok(page.cut(jobs, |job| job.job_id.to_string()).map(|job| match app.core.live.get(job.job_id) {
                Some(live) => live_view(&live),
                None => stored_view(job),
            }))
        })
        .await
    }

    /// Stops a job at its next batch, and returns it as it ended.
    pub async fn cancel_job(&self, job_id: Uuid, keep: bool) -> Result<JobView, AppError> {
        let Some(live) = self.core.live.get(job_id) else { return self.job(job_id).await };
        let mut changes = live.history.subscribe();
        let request = if keep { StopRequest::Keep } else { StopRequest::Discard };
        self.blocking(move |app| {
            app.request_stop(job_id, request);
            Ok(())
        })
        .await?;
        let ended = async { while !live.record().state.is_finished() && changes.changed().await.is_ok() {} };
        // A batch that takes longer is told as it stands: the caller can ask again.
        let _ = tokio::time::timeout(CANCEL_WAIT, ended).await;
        Ok(live_view(&live))
    }

    /// Unfinished jobs of its model that go before a job.
    pub(super) fn jobs_ahead(&self, job: &Job) -> usize {
        let ids = self.scheduler.ids(&job.model_uid);
        let place = ids.iter().position(|&id| id == job.job_id).unwrap_or(0);
        ids[..place].iter().filter(|&&id| self.is_unfinished(id)).count()
    }

    /// Whether a job of this process has not told its end. The scheduler knows one that has for a moment longer: until its turn is over.
    pub(super) fn is_unfinished(&self, job_id: Uuid) -> bool {
        self.core.live.get(job_id).is_some_and(|live| !live.record().state.is_finished())
    }

    pub(super) async fn stored_job(&self, job_id: Uuid) -> Result<Job, AppError> {
        self.blocking(move |app| app.core.store.job(job_id)?.ok_or_else(|| AppError::no_job(job_id))).await
    }

    /// Asks a job to stop: at once where it waits, at its next batch where it runs.
    pub(super) fn request_stop(&self, job_id: Uuid, request: StopRequest) {
        let Some(live) = self.core.live.get(job_id) else { return };
        live.control.request_stop(request);
        // One that goes on after a crash has epochs to keep: it stops in its turn.
        if request == StopRequest::Keep && live.has_progress() {
            return;
        }
        if let Cancelled::Waiting(mut run) = self.scheduler.take_waiting(&live.record().model_uid, job_id) {
            // Where the disk does not take its end now, a turn of its own will try again.
            if !run.cancel_waiting() {
                self.scheduler.put_back(run);
            }
        }
    }

    /// Cancels every job of a model that is gone.
    pub(super) fn cancel_jobs_of(&self, model_uid: Uuid) -> Result<(), AppError> {
        for job_id in self.scheduler.ids(&model_uid) {
            self.request_stop(job_id, StopRequest::Discard);
        }
        Ok(())
    }
}

fn stored_view(job: Job) -> JobView {
    JobView { job: Arc::new(job), time_left: None }
}

fn live_view(live: &LiveJob) -> JobView {
    let job = live.record();
    JobView { time_left: time_left(&job, live.time_since_news()), job }
}

/// The epochs that are left, each as long as those so far, less the time since the last.
fn time_left(job: &Job, since_last: Duration) -> Option<Duration> {
    let (JobState::Running, Some(report)) = (job.state, &job.last_report) else { return None };
    let done = report.epoch.saturating_sub(job.epochs_before);
    let left = u64::from(job.settings.epochs.saturating_sub(done));
    let total = Duration::from_micros(report.elapsed_micros.saturating_mul(left) / u64::from(done.max(1)));
    Some(total.saturating_sub(since_last))
}
