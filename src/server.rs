//! The composition root: opens the store, puts the services on a listener, and stops them in order.

use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::app::{App, AppError, Bounds};
use crate::config::{Config, Storage};
use crate::jobs::Limits;
use crate::ops::{Transport, TransportError};
use crate::rpc;
use crate::store::{Retention, Store, StoreError};

/// How long a job trains before another model's gets its turn.
const SLICE: Duration = Duration::from_secs(1);
/// How long streams have to say goodbye before their connections are closed.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long a batch in training has to end.
const TRAINING_END: Duration = Duration::from_secs(2);
/// How long closed connections have to end.
const CLOSING: Duration = Duration::from_secs(1);

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// What is durable could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was found there could not be taken on.
    #[error("the stored jobs could not be taken on: {0}")]
    Recovery(AppError),
    /// What is served could not be put together.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Serves on `listener` until `shutdown` completes: then takes on no more work, lets calls end within the deadline, closes
/// what is left by force, and returns once no job trains. `threads` is the training threads' runtime.
pub async fn run(
    listener: TcpListener,
    config: Config,
    threads: Handle,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let app = open(&config, threads).await?;
    let routes = rpc::routes(&app, config.message_bytes_max);
    let quick = rpc::Predictions::new(app.clone(), config.message_bytes_max);
    let transport =
        Transport::new(app.clone(), routes, quick, &rpc::SERVICE_NAMES, rpc::pb::FILE_DESCRIPTOR_SET).await?;
    transport.health.set_serving().await;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, storage = ?config.storage, train_threads = config.train_threads, "serving");
    }
    tokio::select! {
        () = transport.serve(listener) => {}
        () = stop(&app, &transport, config.drain_deadline, shutdown) => {
            tracing::warn!("some connections did not end; they are dropped");
        }
        () = app.tick_forever() => {}
    }
    app.end_streams();
    app.stop_training(TRAINING_END).await;
    tracing::info!("stopped");
    Ok(())
}

/// The use cases over the store that the settings name.
async fn open(config: &Config, threads: Handle) -> Result<App, ServerError> {
    let limits = Limits {
        threads: config.train_threads,
        slice: SLICE,
        bytes_max: config.training_bytes_max,
        queued_max: config.queued_jobs_max,
        queued_per_key_max: config.queued_jobs_per_model_max,
    };
    let (answer_bytes_max, training_bytes_max) = (config.message_bytes_max, config.training_bytes_max);
    let disk_bytes_max = config.disk_bytes_max;
    let storage = config.storage.clone();
    let retention = Retention {
        versions_per_model: config.versions_per_model,
        jobs_per_model: config.finished_jobs_per_model,
        jobs: config.finished_jobs,
        reports: config.kept_reports,
    };
    let opened = tokio::task::spawn_blocking(move || {
        let store = match storage {
            Storage::Folder(folder) => Store::open(&folder).map_err(|error| refused(&folder, error))?,
            Storage::Memory => Store::ephemeral()?,
        }
        .with_retention(retention);
        // Nine tenths: other programs need room as well, and so do the ends of jobs that were accepted.
        let disk_bytes_max = disk_bytes_max.unwrap_or_else(|| match store.file_system_bytes() {
            u64::MAX => u64::MAX,
            bytes => bytes / 10 * 9,
        });
        if let Ok(used) = store.used_bytes()
            && used > disk_bytes_max
        {
            tracing::warn!(
                used,
                disk_bytes_max,
                "the data folder takes more than it may: what stores something is refused until models are deleted, or \
                 `--disk-bytes-max` is larger"
            );
        }
        let bounds = Bounds { answer_bytes_max, training_bytes_max, disk_bytes_max };
        App::new(store, threads, limits, bounds).map_err(ServerError::Recovery)
    });
    opened.await.unwrap_or_else(|panic| Err(ServerError::Recovery(AppError::Internal(panic.to_string()))))
}

/// A start over damage that it cannot do without: nothing is served, so the words for a single call would be wrong.
fn refused(folder: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what } => {
            let problem = format!(
                "{what} is damaged or missing; `epochd check --data-dir {}` names every fault; restore a backup into another folder, and \
                 serve that one",
                folder.display()
            );
            StoreError::Format { folder: folder.to_owned(), problem }
        }
        other => other,
    }
}

/// Waits for the word to stop, then stops in order. Completes only if connections outlive their forced end.
async fn stop(app: &App, transport: &Transport, deadline: Duration, shutdown: impl Future<Output = ()>) {
    shutdown.await;
    tracing::info!(deadline_seconds = deadline.as_secs(), "stopping: no new work, calls may end");
    app.start_draining();
    transport.health.set_not_serving().await;
    transport.stop.give();
    tokio::time::sleep(deadline).await;
    app.end_streams();
    tokio::time::sleep(FAREWELL).await;
    transport.force.give();
    tokio::time::sleep(CLOSING).await;
}
