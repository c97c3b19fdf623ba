//! Jobs that are accepted and not finished, as this process holds them: what their watchers, their cancellers and live
//! predictions need, beside what is stored.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::domain::{EpochReport, FittedPreprocessing, Job, Reports};
use crate::engine::AnyNetwork;
use crate::jobs::{Control, History, Reported};
use crate::limits::{CHUNK_REPORTS, CHUNKS_RESIDENT};

/// How often watchers are woken, at most: often enough to look alive, seldom enough that a thousand of them cost little.
pub const TICK: Duration = Duration::from_millis(30);

/// A job in this process.
#[derive(Debug)]
pub struct LiveJob {
    /// Its reports.
    pub history: History<Reports>,
    /// How it is stopped.
    pub control: Control,
    /// Held by who stores full chunks of the history.
    pub storing: Mutex<()>,
    /// Whether it waits for its chunks to be stored.
    is_waiting: AtomicBool,
    record: Mutex<Arc<Job>>,
    snapshot: Mutex<Option<Arc<LiveSnapshot>>>,
    progress_epoch: AtomicU32,
    progress_rows: AtomicU64,
    /// When the last report came, the job began to run, or an epoch was trained again.
    news_at: Mutex<Instant>,
    /// One more than the last epoch that was trained again, while those that were told before a crash are; else 0.
    catching_up: AtomicU64,
}

/// The network of a running job at an epoch's end.
#[derive(Debug)]
pub struct LiveSnapshot {
    /// The epoch; 0 before the first.
    pub epoch: u32,
    /// The network.
    pub network: AnyNetwork,
    /// What was learned of the data before the weights.
    pub preprocessing: Option<FittedPreprocessing>,
}

impl LiveJob {
    /// A job as it was accepted.
    pub fn new(job: Job) -> Self {
        Self::resumed(job, History::new(CHUNK_REPORTS, CHUNKS_RESIDENT))
    }

    /// A job of an earlier process, with what it had reported.
    pub fn resumed(job: Job, history: History<Reports>) -> Self {
        Self {
            history,
            control: Control::default(),
            storing: Mutex::default(),
            is_waiting: AtomicBool::new(false),
            record: Mutex::new(Arc::new(job)),
            snapshot: Mutex::new(None),
            progress_epoch: AtomicU32::new(0),
            progress_rows: AtomicU64::new(0),
            news_at: Mutex::new(Instant::now()),
            catching_up: AtomicU64::new(0),
        }
    }

    /// Its record as it stands. Where epochs are short, reports of the last moments are not in it: see [`LiveJob::shown`].
    pub fn record(&self) -> Arc<Job> {
        lock(&self.record).clone()
    }

    /// Its record with the last report that a watcher can have been told.
    pub fn shown(&self) -> Arc<Job> {
        let mut job = self.record();
        let last = self.history.last().filter(|_| !job.state.is_finished());
        if let Some(last) = last.filter(|last| job.last_report.as_ref().is_none_or(|shown| shown.epoch < last.epoch)) {
            Arc::make_mut(&mut job).last_report = Some(last);
        }
        job
    }

    /// Replaces its record.
    pub fn set_record(&self, job: Job) {
        *lock(&self.record) = Arc::new(job);
        self.history.touch();
    }

    /// Changes its record.
    pub fn update_record(&self, change: impl FnOnce(&mut Job)) {
        change(Arc::make_mut(&mut lock(&self.record)));
    }

    /// Lets it wait for its chunks to be stored; whether it did not yet.
    pub fn begin_to_wait(&self) -> bool {
        !self.is_waiting.swap(true, Ordering::AcqRel)
    }

    /// Its turn has come: chunks that fill from now on wait for another.
    pub fn end_to_wait(&self) {
        self.is_waiting.store(false, Ordering::Release);
    }

    /// Whether it has come to anything, in this process or before: epochs that may not even have been reported.
    pub fn has_progress(&self) -> bool {
        self.record().checkpoint.is_some() || !self.history.is_empty()
    }

    /// The job has begun to run, or has trained an epoch again.
    pub fn note_start(&self) {
        *lock(&self.news_at) = Instant::now();
    }

    /// A report that nobody was told yet.
    pub fn note_report(&self, report: &EpochReport) {
        self.update_record(|job| job.last_report = Some(report.clone()));
    }

    /// Lets the record show the last report of the history, if there is one, and the best.
    pub fn show_reports(&self, best: Option<EpochReport>) {
        *lock(&self.news_at) = Instant::now();
        let last = self.history.last();
        self.update_record(|job| {
            job.best_report = best;
            let is_later = |last: &EpochReport| job.last_report.as_ref().is_none_or(|shown| shown.epoch < last.epoch);
            if let Some(last) = last.filter(is_later) {
                job.last_report = Some(last);
            }
        });
    }

    /// The last epoch that was trained again, where the job has not come to what was told before a crash.
    pub fn catching_up(&self) -> Option<u32> {
        self.catching_up.load(Ordering::Relaxed).checked_sub(1).map(|epoch| epoch as u32)
    }

    /// Says which epoch was trained again; `None` once the job is past what was told.
    pub fn set_catching_up(&self, epoch: Option<u32>) {
        self.catching_up.store(epoch.map_or(0, |epoch| u64::from(epoch) + 1), Ordering::Relaxed);
        self.note_start();
    }

    /// Time since the last report, or since the job began to run, or since the last epoch that was trained again.
    pub fn time_since_news(&self) -> Duration {
        lock(&self.news_at).elapsed()
    }

    /// The network at an epoch's end, once there is one.
    pub fn snapshot(&self) -> Option<Arc<LiveSnapshot>> {
        lock(&self.snapshot).clone()
    }

    /// Replaces the network that live predictions use.
    pub fn set_snapshot(&self, snapshot: LiveSnapshot) {
        *lock(&self.snapshot) = Some(Arc::new(snapshot));
    }

    /// The job has ended: a watcher that reads late needs no network.
    pub fn forget_snapshot(&self) {
        *lock(&self.snapshot) = None;
    }

    /// The epoch in training and its rows done.
    pub fn progress(&self) -> (u32, u64) {
        (self.progress_epoch.load(Ordering::Relaxed), self.progress_rows.load(Ordering::Relaxed))
    }

    /// Says how far the epoch is. The two numbers may be read one batch apart, which a progress report does not mind.
    pub fn set_progress(&self, epoch: u32, rows_done: u64) {
        self.progress_epoch.store(epoch, Ordering::Relaxed);
        self.progress_rows.store(rows_done, Ordering::Relaxed);
    }
}

impl Reported for Reports {
    type Report = EpochReport;

    fn with_capacity(count: usize) -> Self {
        Self::with_capacity(count)
    }

    fn append(&mut self, reports: &Self, places: Range<usize>) {
        self.append(reports, places);
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn last(&self) -> Option<EpochReport> {
        self.last()
    }

    fn part(&self, places: Range<usize>) -> Self {
        self.part(places)
    }
}

/// All of them, by id.
#[derive(Debug, Default)]
pub struct LiveJobs(Mutex<HashMap<Uuid, Arc<LiveJob>>>);

impl LiveJobs {
    /// Adds a job.
    pub fn insert(&self, job_id: Uuid, live: Arc<LiveJob>) {
        lock(&self.0).insert(job_id, live);
    }

    /// Finds a job.
    pub fn get(&self, job_id: Uuid) -> Option<Arc<LiveJob>> {
        lock(&self.0).get(&job_id).cloned()
    }

    /// Removes a job; its watchers still hold it.
    pub fn remove(&self, job_id: Uuid) {
        if let Some(live) = lock(&self.0).remove(&job_id) {
            live.history.tick();
        }
    }

    /// Wakes watchers of jobs that changed, for as long as it is polled.
    pub async fn tick_forever(&self) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            for live in lock(&self.0).values() {
                live.history.tick();
            }
        }
    }
}

/// A poisoned lock is used on: what it guards is replaced as a whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
