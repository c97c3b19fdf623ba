//! Jobs that are accepted and not finished, as this process holds them: what their watchers, their cancellers and live
//! predictions need, beside what is stored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::domain::{EpochReport, FittedPreprocessing, Job};
use crate::engine::AnyNetwork;
use crate::jobs::{Control, History};
use crate::limits::{CHUNK_REPORTS, CHUNKS_RESIDENT};

/// How often watchers are woken, at most: often enough to look alive, seldom enough that a thousand of them cost little.
const TICK: Duration = Duration::from_millis(30);

/// A job in this process.
#[derive(Debug)]
pub struct LiveJob {
    /// Its reports.
    pub history: History<EpochReport>,
    /// How it is stopped.
    pub control: Control,
    record: Mutex<Arc<Job>>,
    snapshot: Mutex<Option<Arc<LiveSnapshot>>>,
    progress_epoch: AtomicU32,
    progress_rows: AtomicU64,
    /// When the last report came, the job began to run, or an epoch was trained again.
    news_at: Mutex<Instant>,
    /// The last epoch that was trained again, while those that were told before a crash are.
    catching_up: Mutex<Option<u32>>,
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
    pub fn resumed(job: Job, history: History<EpochReport>) -> Self {
        Self {
            history,
            control: Control::default(),
            record: Mutex::new(Arc::new(job)),
            snapshot: Mutex::new(None),
            progress_epoch: AtomicU32::new(0),
            progress_rows: AtomicU64::new(0),
            news_at: Mutex::new(Instant::now()),
            catching_up: Mutex::new(None),
        }
    }

    /// Its record as it stands.
    pub fn record(&self) -> Arc<Job> {
        lock(&self.record).clone()
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
        *lock(&self.news_at) = Instant::now();
        self.update_record(|job| job.last_report = Some(report.clone()));
    }

    /// The last epoch that was trained again, where the job has not come to what was told before a crash.
    pub fn catching_up(&self) -> Option<u32> {
        *lock(&self.catching_up)
    }

    /// Says which epoch was trained again; `None` once the job is past what was told.
    pub fn set_catching_up(&self, epoch: Option<u32>) {
        *lock(&self.catching_up) = epoch;
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
