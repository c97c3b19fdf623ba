//! `epochd serve`: the server, until it is told to stop.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::Outcome;
use super::signals::StopSignals;
use crate::config::{Config, DATA_DIR_DEFAULT, DRAIN_SECONDS_DEFAULT, LISTEN_DEFAULT, RawConfig};
use crate::jobs::Threads;
use crate::limits::{
    FINISHED_JOBS_DEFAULT, FINISHED_JOBS_PER_MODEL_DEFAULT, KEPT_REPORTS_DEFAULT, MESSAGE_BYTES_DEFAULT,
    QUEUED_JOBS_DEFAULT, QUEUED_JOBS_PER_MODEL_DEFAULT, TRAINING_BYTES_DEFAULT, VERSIONS_PER_MODEL_DEFAULT,
};
use crate::server;

/// How long threads have to end once the server has stopped: a batch, or a prediction.
const THREADS_DEADLINE: Duration = Duration::from_secs(2);

/// Run the server.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd serve --listen 0.0.0.0:50051 --data-dir /var/lib/epochd

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed (the folder is in use, the port is taken), 2 wrong settings.")]
pub struct Args {
    /// Address and port to listen on; port 0 lets the system choose.
    #[arg(long, env = "EPOCHD_LISTEN", value_name = "ADDRESS", default_value = LISTEN_DEFAULT)]
    listen: String,

    /// Folder for models, versions and jobs; made where it is missing.
    #[arg(long, env = "EPOCHD_DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,

    /// Keep everything in memory: nothing outlives the process, and the data folder is not touched.
    #[arg(long, env = "EPOCHD_EPHEMERAL")]
    ephemeral: bool,

    /// Threads that train [default: one a core].
    #[arg(long, env = "EPOCHD_TRAIN_THREADS", value_name = "COUNT")]
    train_threads: Option<usize>,

    /// Seconds that calls have to end after SIGTERM or SIGINT, before their connections are closed.
    #[arg(long, env = "EPOCHD_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = DRAIN_SECONDS_DEFAULT)]
    drain_seconds: u64,

    /// Largest message, request or answer, in bytes.
    #[arg(long, env = "EPOCHD_MESSAGE_BYTES_MAX", value_name = "BYTES", default_value_t = MESSAGE_BYTES_DEFAULT)]
    message_bytes_max: usize,

    /// Memory that trainings in progress may take together, by estimate, in bytes; others wait.
    #[arg(long, env = "EPOCHD_TRAINING_BYTES_MAX", value_name = "BYTES", default_value_t = TRAINING_BYTES_DEFAULT)]
    training_bytes_max: u64,

    /// Jobs that may be unfinished at once. One caller (an address) has at most three for each place that is free: three quarters of all where
    /// nobody else has any, so that others find a place.
    #[arg(long, env = "EPOCHD_QUEUED_JOBS_MAX", value_name = "COUNT", default_value_t = QUEUED_JOBS_DEFAULT)]
    queued_jobs_max: usize,

    /// Jobs of one model that may be unfinished at once.
    #[arg(long, env = "EPOCHD_QUEUED_JOBS_PER_MODEL_MAX", value_name = "COUNT")]
    #[arg(default_value_t = QUEUED_JOBS_PER_MODEL_DEFAULT)]
    queued_jobs_per_model_max: usize,

    /// Newest versions of a model that are kept, beside the first, those pinned or served, and those that jobs train from.
    #[arg(long, env = "EPOCHD_VERSIONS_PER_MODEL", value_name = "COUNT", default_value_t = VERSIONS_PER_MODEL_DEFAULT)]
    versions_per_model: u32,

    /// Finished jobs of a model that are kept, those that ended last, with their histories and request ids.
    #[arg(long, env = "EPOCHD_FINISHED_JOBS_PER_MODEL", value_name = "COUNT")]
    #[arg(default_value_t = FINISHED_JOBS_PER_MODEL_DEFAULT)]
    finished_jobs_per_model: u32,

    /// Finished jobs of all models that are kept, those that ended last.
    #[arg(long, env = "EPOCHD_FINISHED_JOBS", value_name = "COUNT", default_value_t = FINISHED_JOBS_DEFAULT)]
    finished_jobs: u32,

    /// Epoch reports that are kept of finished jobs, of those that ended last first; each takes up to about 65 bytes, and more with
    /// diagnostics.
    #[arg(long, env = "EPOCHD_KEPT_REPORTS", value_name = "COUNT", default_value_t = KEPT_REPORTS_DEFAULT)]
    kept_reports: u64,

    /// Bytes that the data folder may have; past that, what would add to it is refused [default: nine tenths of its file system].
    #[arg(long, env = "EPOCHD_DISK_BYTES_MAX", value_name = "BYTES")]
    disk_bytes_max: Option<u64>,
}

impl Args {
    fn config(self) -> anyhow::Result<Config> {
        let raw = RawConfig {
            listen: self.listen,
            data_dir: self.data_dir,
            ephemeral: self.ephemeral,
            train_threads: self.train_threads,
            drain_seconds: self.drain_seconds,
            message_bytes_max: self.message_bytes_max,
            training_bytes_max: self.training_bytes_max,
            queued_jobs_max: self.queued_jobs_max,
            queued_jobs_per_model_max: self.queued_jobs_per_model_max,
            versions_per_model: self.versions_per_model,
            finished_jobs_per_model: self.finished_jobs_per_model,
            finished_jobs: self.finished_jobs,
            kept_reports: self.kept_reports,
            disk_bytes_max: self.disk_bytes_max,
        };
        Ok(raw.check(std::thread::available_parallelism().map_or(1, usize::from))?)
    }
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let config = args.config()?;
    raise_file_limit();
    let threads = Threads::start(config.train_threads).context("the training threads cannot be started")?;
    let runtime = tokio::runtime::Runtime::new().context("the serving threads cannot be started")?;
    let served = runtime.block_on(serve(config, threads.handle()));
    // Owned here, outside async code, where they may be dropped.
    threads.shut_down(THREADS_DEADLINE);
    runtime.shutdown_timeout(THREADS_DEADLINE);
    served.map(|()| Outcome::Done)
}

/// A process often may open only 1,024 files unless it asks for more, and each connection is one. Those that the store
/// needs must be left, too.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}

async fn serve(config: Config, threads: tokio::runtime::Handle) -> anyhow::Result<()> {
    // Before anything else, so that a signal during start-up is not lost.
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}; is another epochd running there? choose another --listen", config.listen)
    })?;
    server::run(listener, config, threads, async move { signals.next().await }).await?;
    Ok(())
}
