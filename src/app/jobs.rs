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
            let now = |job: Job| app.core.live.get(job.job_id).map_or(job, |live| Job::clone(&live.shown()));
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
        let before = live.control.stop_requested();
        live.control.request_stop(request);
        // Once: who asks again and again would have every next turn.
        let is_news = live.control.stop_requested() != before;
        // One that goes on after a crash has epochs to keep: it stops in its turn.
        let model_uid = live.record().model_uid;
        if request == StopRequest::Keep && live.has_progress() {
            if is_news {
                self.scheduler.bring_forward(&model_uid, job_id);
            }
            return;
        }
        match self.scheduler.take_waiting(&model_uid, job_id) {
            // Where the disk does not take its end now, a turn of its own will try again.
            Cancelled::Waiting(mut run) => {
                if !run.cancel_waiting() {
                    self.scheduler.put_back(run);
                }
            }
            Cancelled::Begun if is_news => self.scheduler.bring_forward(&model_uid, job_id),
            Cancelled::Begun | Cancelled::Unknown => {}
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
    let job = live.shown();
    JobView { time_left: time_left(&job, live.catching_up(), live.time_since_news()), job }
}

/// How long a job would still run, were every epoch as long as those so far.
fn time_left(job: &Job, trained: Option<u32>, since_news: Duration) -> Option<Duration> {
    let (JobState::Running, Some(report)) = (job.state, &job.last_report) else { return None };
    let of_job = |epoch: u32| epoch.saturating_sub(job.epochs_before);
    let pace = Pace {
        epochs: job.settings.epochs,
        told: of_job(report.epoch).max(1),
        elapsed: report.elapsed_micros as f64 / 1e6,
        done: of_job(trained.unwrap_or(report.epoch)),
        until_news: if trained.is_some() { 1 } else { job.settings.report_every },
    };
    Duration::try_from_secs_f64(pace.seconds_left(since_news.as_secs_f64())).ok()
}

/// How a job got on.
struct Pace {
    /// All of its epochs.
    epochs: u32,
    /// Those up to its last report, 1 or more.
    told: u32,
    /// In so many seconds.
    elapsed: f64,
    /// Where it is: after a crash epochs that were told are trained again.
    done: u32,
    /// Epochs from one sign of it to the next.
    until_news: u32,
}

impl Pace {
    /// By what was told, less the time since. Where the next sign is overdue, as while others have their turns, epochs are taken to be
    /// as long as if it came now.
    fn seconds_left(&self, since_news: f64) -> f64 {
        let left = |done: u32| f64::from(self.epochs.saturating_sub(done));
        let (told, until_news) = (f64::from(self.told), f64::from(self.until_news));
        let epoch = self.elapsed / told;
        if since_news <= epoch * until_news {
            return (epoch * left(self.done) - since_news).max(0.0);
        }
        (self.elapsed + since_news) / (told + until_news) * left(self.done.saturating_add(self.until_news))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 of 1,000 epochs, in 50 s.
    const PACE: Pace = Pace { epochs: 1_000, told: 100, elapsed: 50.0, done: 100, until_news: 10 };

    #[test]
    fn the_time_left_counts_down_between_two_reports() {
        assert_eq!([0.0, 2.0, 5.0].map(|since| PACE.seconds_left(since)), [450.0, 448.0, 445.0]);
        let last = Pace { told: 1_000, done: 1_000, ..PACE };
        assert_eq!(last.seconds_left(0.01), 0.0);
    }

    #[test]
    fn epochs_that_are_trained_again_are_left_too() {
        let after_crash = Pace { told: 600, elapsed: 300.0, done: 40, until_news: 1, ..PACE };
        assert_eq!(after_crash.seconds_left(0.25), 479.75);
        let caught_up = Pace { done: 600, ..after_crash };
        assert_eq!(caught_up.seconds_left(0.0), 200.0);
    }

    #[test]
    fn a_job_that_waits_for_its_turn_is_no_nearer_to_its_end() {
        // Ten epochs should have been told after 5 s, and the time goes on without a break.
        let overdue = [5.0, 5.001, 60.0, 1_050.0].map(|since| PACE.seconds_left(since));
        assert!((overdue[1] - overdue[0]).abs() < 0.1, "{overdue:?}");
        assert_eq!(overdue[2..], [890.0, 8_900.0]);
        let done = Pace { done: 995, ..PACE };
        assert_eq!(done.seconds_left(60.0), 0.0);
    }
}
