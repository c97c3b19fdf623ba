//! Following a job: its present state, then every report once and in order, then its end. A watcher pulls; the job never
//! waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use uuid::Uuid;

use super::live::LiveJob;
use super::{App, AppError};
use crate::domain::{Job, JobState, Reports, Start};
use crate::jobs::{Cursor, Read, StopRequest};
use crate::limits::CHUNK_REPORTS;

/// How long a watcher hears nothing before it is told where the epoch is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What a watcher is told.
#[derive(Debug)]
pub enum Event {
    /// The job waits.
    Queued {
        /// Jobs of its model that go before it.
        jobs_ahead: usize,
    },
    /// The job runs, or has run.
    Started(Arc<Job>),
    /// Where it is in a long epoch.
    Progress {
        /// The epoch.
        epoch: u32,
        /// Rows done.
        rows_done: u64,
        /// Rows in all.
        rows: u64,
    },
    /// Reports, in order.
    Epochs(Reports),
    /// The job has ended.
    Finished(Arc<Job>),
}

/// A stream of events. Dropping it ends nothing but the watching, unless it was told to cancel.
pub struct Watch {
    app: App,
    job_id: Uuid,
    source: Source,
    cursor: Cursor,
    from_epoch: u32,
    told: Told,
    last_progress: (u32, u64),
    cancel_on_drop: bool,
}

/// Where the events come from.
enum Source {
    /// A job that this process holds.
    Live(Arc<LiveJob>, Receiver<u64>),
    /// A finished job, from the store.
    Stored(Arc<Job>),
}

/// What the watcher knows of the job's state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Queued,
    Started,
    Finished,
}

impl App {
    /// Follows a job from an epoch on.
    pub async fn watch_job(&self, job_id: Uuid, from_epoch: u32) -> Result<Watch, AppError> {
        let source = match self.core.live.get(job_id) {
            Some(live) => {
                let changes = live.history.subscribe();
                Source::Live(live, changes)
            }
            None => {
                let job = self.stored_job(job_id).await?;
                if !job.state.is_finished() {
                    return Err(AppError::Unavailable(format!(
                        "job {job_id} is not in this process, and its record has not ended; ask again"
                    )));
                }
                Source::Stored(Arc::new(job))
            }
        };
        Ok(Watch::new(self.clone(), job_id, source, from_epoch))
    }

    pub(super) fn watch_live(&self, job_id: Uuid, live: Arc<LiveJob>, cancel_on_drop: bool) -> Watch {
        let changes = live.history.subscribe();
        let mut watch = Watch::new(self.clone(), job_id, Source::Live(live, changes), 1);
        watch.cancel_on_drop = cancel_on_drop;
        watch
    }
}

impl Watch {
    fn new(app: App, job_id: Uuid, source: Source, from_epoch: u32) -> Self {
        let (start, report_every) = match &source {
            Source::Live(live, _) => (live.record().settings.start, live.record().settings.report_every),
            Source::Stored(job) => (job.settings.start, job.settings.report_every),
        };
        // Report i (from 0) is of epoch (i + 1) × report_every, but for the last, which may come earlier. A training that goes on
        // with another begins at an epoch that is known only when it starts: its reports are looked through from the first.
        let skipped = if start == Start::Continue { 0 } else { (from_epoch - 1) / report_every };
        let cursor = Cursor(u64::from(skipped));
        Self {
            app,
            job_id,
            source,
            cursor,
            from_epoch,
            told: Told::Nothing,
            last_progress: (0, 0),
            cancel_on_drop: false,
        }
    }

    /// The job that is followed.
    pub fn job_id(&self) -> Uuid {
        self.job_id
    }

    /// The next event; `None` after `Finished`.
    pub async fn next(&mut self) -> Option<Result<Event, AppError>> {
        if self.told == Told::Finished {
            return None;
        }
        let event = self.next_event().await;
        match &event {
            Ok(Event::Finished(_)) | Err(_) => self.told = Told::Finished,
            Ok(_) => {}
        }
        Some(event)
    }

    async fn next_event(&mut self) -> Result<Event, AppError> {
        loop {
            if let Some(event) = self.state_event() {
                return Ok(event);
            }
            match self.read() {
                Read::Reports(reports) => {
                    if let Some(event) = self.epochs(reports) {
                        return Ok(event);
                    }
                }
                Read::Stored { chunk, skip } => {
                    let reports = self.stored_reports(chunk, skip).await?;
                    if let Some(event) = self.epochs(reports) {
                        return Ok(event);
                    }
                }
                Read::End => return Ok(Event::Finished(self.record())),
                Read::UpToDate => {
                    if let Some(event) = self.wait().await? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    fn record(&self) -> Arc<Job> {
        match &self.source {
            Source::Live(live, _) => live.record(),
            Source::Stored(job) => job.clone(),
        }
    }

    /// What the watcher has not been told of the job's state before its epochs.
    fn state_event(&mut self) -> Option<Event> {
        if self.told == Told::Started {
            return None;
        }
        let job = self.record();
        if job.state == JobState::Queued {
            let is_news = self.told == Told::Nothing;
            self.told = Told::Queued;
            return is_news.then(|| Event::Queued { jobs_ahead: self.app.jobs_ahead(&job) });
        }
        self.told = Told::Started;
        job.start_time.is_some().then_some(Event::Started(job))
    }

    fn read(&mut self) -> Read<Reports> {
        match &self.source {
            Source::Live(live, _) => live.history.read(&mut self.cursor),
            Source::Stored(job) if self.cursor.0 >= job.report_count => Read::End,
            Source::Stored(_) => {
                let chunk_len = CHUNK_REPORTS as u64;
                Read::Stored { chunk: self.cursor.0 / chunk_len, skip: (self.cursor.0 % chunk_len) as usize }
            }
        }
    }

    async fn stored_reports(&mut self, chunk: u64, skip: usize) -> Result<Reports, AppError> {
        let job_id = self.job_id;
        let reports = self.app.stored_part(job_id, chunk as u32, skip).await?;
        if reports.is_empty() {
            if self.is_given_back().await? {
                return Err(AppError::NotFound(format!(
                    "the history of job {job_id} was given back: its model was deleted, or newer jobs took its place"
                )));
            }
            return Err(AppError::DataLoss(format!("the history of job {job_id} ends before its record says")));
        }
        self.cursor.0 += reports.len() as u64;
        Ok(reports)
    }

    /// Whether the history of a finished job, which went beyond the cursor, is not kept any more.
    async fn is_given_back(&self) -> Result<bool, AppError> {
        match self.app.stored_job(self.job_id).await {
            Ok(job) => Ok(job.state.is_finished() && job.report_count <= self.cursor.0),
            Err(AppError::NotFound(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The reports from the wanted epoch on, if there are any.
    fn epochs(&mut self, mut reports: Reports) -> Option<Event> {
        reports.skip_before(self.from_epoch);
        (!reports.is_empty()).then_some(Event::Epochs(reports))
    }

    /// Waits for a change; an event where there is progress to tell meanwhile.
    async fn wait(&mut self) -> Result<Option<Event>, AppError> {
        let Source::Live(live, changes) = &mut self.source else { return Ok(None) };
        tokio::select! {
            // The sender lives in `live`, so this fails never; a wake-up too many does no harm.
            _ = changes.changed() => return Ok(None),
            () = self.app.core.streams_end.cancelled() => return Err(AppError::Stopping),
            () = tokio::time::sleep(PROGRESS_INTERVAL) => {}
        }
        let progress = live.progress();
        let record = live.record();
        if record.state != JobState::Running || progress.1 == 0 || progress == self.last_progress {
            return Ok(None);
        }
        self.last_progress = progress;
        let (epoch, rows_done) = progress;
        Ok(Some(Event::Progress { epoch, rows_done, rows: record.settings.training_rows() }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A server that drains closes streams too, and is not a client that went away.
        if self.cancel_on_drop && self.told != Told::Finished && !self.app.is_draining() {
            tracing::info!(job_id = %self.job_id, "its client went away: the job is cancelled, as it asked");
            // A job that waits is ended in the store, which async code must not wait for. There is a runtime: streams
            // are dropped by it.
            let (app, job_id) = (self.app.clone(), self.job_id);
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                drop(runtime.spawn_blocking(move || app.request_stop(job_id, StopRequest::Discard)));
            }
        }
    }
}
