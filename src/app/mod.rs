//! The use cases, in domain types only: what each call does. One file a family.

mod backup;
mod buffers;
mod chunks;
mod continuation;
mod disk;
mod download;
mod error;
mod gradients;
mod jobs;
mod keeper;
mod live;
mod models;
mod page;
mod predict;
mod processor;
mod recover;
mod run;
mod snapshots;
mod train;
mod watch;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use backup::{BackupChunks, BackupPart};
pub use download::Download;
pub use error::AppError;
pub use gradients::{BatchGradients, GradientsRequest};
pub use jobs::{JobFilterRequest, JobView};
pub use models::{CreateModel, ModelView};
pub use page::{Page, PageRequest};
pub use predict::{ClassPrediction, PredictRequest, Prediction};
pub use train::{TrainCommand, new_uuid};
pub use watch::{Event, Watch};
pub use weights::{
    LayerParameters, ModelWeights, NormalizationParameters, RawLayerParameters, RawNormalizationParameters,
};

use crate::domain::{Architecture, Loss, Model, ModelId, Timestamp};
use crate::engine::{Team, expression_bytes};
use crate::jobs::{Limits, Scheduler, lower_priority};
use crate::limits::{BACKUPS_MAX, CALL_BYTES_MAX, EXPRESSION_WORK_BYTES_MAX};
use crate::store::{PrunedVersions, Store, StoreError};
use buffers::Buffers;
use chunks::StoredChunks;
use disk::Promises;
use download::Downloads;
use keeper::Keeper;
use live::LiveJobs;
use run::TrainingRun;
use snapshots::Snapshots;

/// The use cases. A cheap handle.
#[derive(Clone)]
pub struct App {
    core: Arc<Core>,
    scheduler: Scheduler<TrainingRun>,
    /// Big predictions at once: as many as there are cores, so that they cannot fill the blocking pool.
    big_predictions: Arc<Semaphore>,
    /// Room for weights in calls, in MiB.
    room: Arc<Semaphore>,
    /// Backups at once: each keeps a thread, and what is deleted meanwhile.
    backups: Arc<Semaphore>,
    bounds: Bounds,
}

/// What an operator lets calls and trainings take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of one answer.
    pub answer_bytes_max: usize,
    /// Bytes of all trainings that have begun, by estimate, and so of one.
    pub training_bytes_max: u64,
    /// Bytes of the data folder; the largest number for no bound.
    pub disk_bytes_max: u64,
}

/// What use cases and running jobs share.
struct Core {
    store: Store,
    keeper: Keeper,
    snapshots: Snapshots,
    live: LiveJobs,
    promises: Promises,
    downloads: Downloads,
    chunks: StoredChunks,
    buffers: Buffers,
    is_draining: AtomicBool,
    streams_end: CancellationToken,
    /// Who trains large steps.
    team: Arc<Team>,
    /// Whether the process before this one stopped in good order.
    is_after_good_stop: bool,
}

impl App {
    /// The use cases over an open store, with slices spawned on `threads`. Goes on with the jobs that an earlier process left
    /// unfinished. Blocks on the store.
    pub fn new(store: Store, threads: Handle, limits: Limits, bounds: Bounds) -> Result<Self, AppError> {
        let is_after_good_stop = store.take_good_stop().unwrap_or_else(|error| {
            tracing::warn!(%error, "the stop before is taken for a crash");
            false
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // More than there are cores would wait for one another.
        let team = Team::new(limits.threads.min(cores), lower_priority).map_err(|error| {
            AppError::Internal(format!("the threads that help trainings cannot be started: {error}"))
        })?;
        let keeper = Keeper::start(store.clone()).map_err(|error| {
            AppError::Internal(format!("the thread that stores reports cannot be started: {error}"))
        })?;
        let core = Core {
            store,
            keeper,
            snapshots: Snapshots::default(),
            live: LiveJobs::default(),
            promises: Promises::default(),
            downloads: Downloads::default(),
            chunks: StoredChunks::default(),
            buffers: Buffers::default(),
            is_draining: AtomicBool::new(false),
            streams_end: CancellationToken::new(),
            team,
            is_after_good_stop,
        };
        let app = Self {
            core: Arc::new(core),
            scheduler: Scheduler::new(threads, limits),
            big_predictions: Arc::new(Semaphore::new(cores)),
            room: Arc::new(Semaphore::new(CALL_BYTES_MAX >> 20)),
            backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
            bounds,
        };
        app.take_on_unfinished()?;
        Ok(app)
    }

    /// Wakes watchers and gives up downloads that stand still, for as long as it is polled. At first it gives back what need not be kept
    /// any more: the bounds may have been others before, and a process that ends before so many jobs have would else never do it.
    pub async fn tick_forever(&self) {
        tokio::join!(self.give_back(), self.core.live.tick_forever(), self.core.downloads.look_forever());
    }

    async fn give_back(&self) {
        let give_back = |app: &Self| {
            for PrunedVersions { uid, versions } in app.core.store.prune_versions()? {
                tracing::info!(model_uid = %uid, count = versions.len(), "versions past the bound were given back");
                app.core.snapshots.forget_pruned(uid, &versions);
            }
            Ok(app.core.store.prune_jobs()?)
        };
        if let Err(error) = self.blocking(give_back).await {
            tracing::warn!(%error, "what is past the bounds could not be given back; the next start tries again");
        }
    }

    /// From now on new work is refused; calls that run go on.
    pub fn start_draining(&self) {
        self.core.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether new work is refused.
    pub fn is_draining(&self) -> bool {
        self.core.is_draining.load(Ordering::Relaxed)
    }

    /// Ends every stream that still follows a job or downloads weights: the server is about to close.
    pub fn end_streams(&self) {
        self.core.streams_end.cancel();
    }

    /// Stops training at the next batch of each job; the jobs go on after the next start. A huge batch may take longer than that: it is left
    /// behind, which is no crash.
    pub async fn stop_training(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.scheduler.stop()).await.is_err() {
            tracing::warn!("a batch in training did not end in time");
        }
        let mark = self.blocking(|app| Ok(app.core.store.mark_good_stop()?));
        match tokio::time::timeout(patience, mark).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the next start will take this stop for a crash"),
            Err(_) => tracing::warn!("the disk is slow: the next start may take this stop for a crash"),
        }
    }

    /// Waits until there is room for `copies` of a network's parameters. Small networks need not wait.
    async fn room_for(&self, architecture: &Architecture, copies: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = architecture.parameter_count() * architecture.element_type().size_bytes() * copies;
        let mebibytes = (bytes >> 20).min(CALL_BYTES_MAX >> 20) as u32;
        if mebibytes == 0 {
            return None;
        }
        // The semaphore is never closed.
        self.room.clone().acquire_many_owned(mebibytes).await.ok()
    }

    /// A model's record, small whatever its network.
    async fn record(&self, model_id: &ModelId) -> Result<Model, AppError> {
        let model_id = model_id.clone();
        self.blocking(move |app| app.core.store.model(&model_id)?.ok_or_else(|| AppError::no_model(&model_id))).await
    }

    /// Refuses an answer of `numbers` floats that could not be sent, before anything of that size is made.
    fn bound_answer(&self, numbers: usize, advice: &str) -> Result<(), AppError> {
        // Packed as float32: the least that they can take.
        let (bytes, max) = (numbers.saturating_mul(size_of::<f32>()), self.bounds.answer_bytes_max);
        if bytes <= max {
            return Ok(());
        }
        Err(AppError::Exhausted(format!(
            "the answer would have {bytes} bytes or more, past the bound of {max}; {advice}"
        )))
    }

    /// Refuses a loss of the caller's own whose buffers would be large.
    fn bound_expression(&self, architecture: &Architecture, loss: &Loss) -> Result<(), AppError> {
        let (bytes, max) = (expression_bytes(architecture, loss), EXPRESSION_WORK_BYTES_MAX);
        if bytes <= max {
            return Ok(());
        }
        Err(AppError::Exhausted(format!(
            "loss.custom.expression would take {bytes} bytes for each row of {} outputs, past the bound of {max}; write it with \
             fewer operations, or without sum, mean and max over the row",
            architecture.output_width()
        )))
    }

    /// Runs a use case that reads or writes the store, off the async workers.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        done(self.begin_blocking(work)).await
    }

    /// Begins it; whoever does waits for it by [`done`].
    fn begin_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, AppError> + Send + 'static,
    ) -> JoinHandle<Result<T, AppError>> {
        let app = self.clone();
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| work(&app)))
    }
}

/// What was begun, done.
async fn done<T>(begun: JoinHandle<Result<T, AppError>>) -> Result<T, AppError> {
    begun.await.unwrap_or_else(|panic| Err(AppError::Internal(format!("a use case ended without an answer: {panic}"))))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { unix_micros: i64::try_from(since.as_micros()).unwrap_or(i64::MAX) }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::DataLoss(error.to_string()),
            StoreError::Exists { .. } => Self::AlreadyExists(error.to_string()),
            StoreError::Conflict { .. } => Self::Unavailable(error.to_string()),
            // The disk's state decides: the same call may go through later. Which disk, and what it said, is for the log.
            StoreError::Unavailable { .. } | StoreError::Io { .. } => {
                tracing::error!(%error, "the store failed");
                Self::Unavailable(
                    "the server cannot read or write its data folder now; its log has the cause; try again later"
                        .to_owned(),
                )
            }
            StoreError::Locked { .. } | StoreError::Format { .. } | StoreError::Encoding { .. } => {
                Self::Internal(error.to_string())
            }
        }
    }
}
