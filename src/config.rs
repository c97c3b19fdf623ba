//! Settings of a server: raw as they were given, then checked, all faults at once, before anything is bound.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::{
    FINISHED_JOBS_DEFAULT, FINISHED_JOBS_PER_MODEL_DEFAULT, KEPT_REPORTS_DEFAULT, MESSAGE_BYTES_DEFAULT,
    QUEUED_JOBS_DEFAULT, QUEUED_JOBS_PER_MODEL_DEFAULT, TRAINING_BYTES_DEFAULT, VERSIONS_PER_MODEL_DEFAULT,
};

/// Where the server listens by default.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:50051";
/// Where it keeps what is durable by default.
pub const DATA_DIR_DEFAULT: &str = "./epochd-data";
/// How long it lets calls end after it was told to stop, in seconds.
pub const DRAIN_SECONDS_DEFAULT: u64 = 10;
/// Largest message that a setting may allow: protobuf's own bound.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
const THREADS_MAX: usize = 1_024;
const DRAIN_SECONDS_MAX: u64 = 3_600;

/// Settings as they were given.
#[derive(Clone, Debug)]
pub struct RawConfig {
    /// Address and port.
    pub listen: String,
    /// Folder of what is durable.
    pub data_dir: PathBuf,
    /// Keep everything in memory instead.
    pub ephemeral: bool,
    /// Threads that train; `None`: as many as there are cores.
    pub train_threads: Option<usize>,
    /// Seconds to let calls end.
    pub drain_seconds: u64,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of all trainings that have begun, by estimate.
    pub training_bytes_max: u64,
    /// Unfinished jobs.
    pub queued_jobs_max: usize,
    /// Unfinished jobs of one model.
    pub queued_jobs_per_model_max: usize,
    /// Newest versions of a model that are kept.
    pub versions_per_model: u32,
    /// Finished jobs of a model that are kept, those that ended last.
    pub finished_jobs_per_model: u32,
    /// Finished jobs of all models that are kept, those that ended last.
    pub finished_jobs: u32,
    /// Epoch reports of finished jobs that are kept.
    pub kept_reports: u64,
    /// Bytes of the data folder; `None`: nine tenths of its file system.
    pub disk_bytes_max: Option<u64>,
}

impl Default for RawConfig {
    fn default() -> Self {
        Self {
            listen: LISTEN_DEFAULT.to_owned(),
            data_dir: DATA_DIR_DEFAULT.into(),
            ephemeral: false,
            train_threads: None,
            drain_seconds: DRAIN_SECONDS_DEFAULT,
            message_bytes_max: MESSAGE_BYTES_DEFAULT,
            training_bytes_max: TRAINING_BYTES_DEFAULT,
            queued_jobs_max: QUEUED_JOBS_DEFAULT,
            queued_jobs_per_model_max: QUEUED_JOBS_PER_MODEL_DEFAULT,
            versions_per_model: VERSIONS_PER_MODEL_DEFAULT,
            finished_jobs_per_model: FINISHED_JOBS_PER_MODEL_DEFAULT,
            finished_jobs: FINISHED_JOBS_DEFAULT,
            kept_reports: KEPT_REPORTS_DEFAULT,
            disk_bytes_max: None,
        }
    }
}

/// Where models, versions and jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a folder.
    Folder(PathBuf),
    /// In memory, for as long as the process lives.
    Memory,
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address and port; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where things are kept.
    pub storage: Storage,
    /// Threads that train.
    pub train_threads: usize,
    /// How long to let calls end.
    pub drain_deadline: Duration,
    /// Bytes of one message.
    pub message_bytes_max: usize,
    /// Bytes of all trainings that have begun, by estimate.
    pub training_bytes_max: u64,
    /// Unfinished jobs.
    pub queued_jobs_max: usize,
    /// Unfinished jobs of one model.
    pub queued_jobs_per_model_max: usize,
    /// Newest versions of a model that are kept.
    pub versions_per_model: u32,
    /// Finished jobs of a model that are kept, those that ended last.
    pub finished_jobs_per_model: u32,
    /// Finished jobs of all models that are kept, those that ended last.
    pub finished_jobs: u32,
    /// Epoch reports of finished jobs that are kept.
    pub kept_reports: u64,
    /// Bytes of the data folder; `None`: nine tenths of its file system.
    pub disk_bytes_max: Option<u64>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigFaults(Vec<String>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings are wrong:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigFaults {}

impl RawConfig {
    /// Checks every setting; `cores` are those of the machine.
    pub fn check(self, cores: usize) -> Result<Config, ConfigFaults> {
        let mut faults = Vec::new();
        let listen = self.listen.parse::<SocketAddr>();
        if listen.is_err() {
            faults.push(format!(
                "--listen {:?} is not an address with a port, such as {LISTEN_DEFAULT} or [::]:50051",
                self.listen
            ));
        }
        let train_threads = self.train_threads.unwrap_or(cores);
        let mut check = |name: &str, value: usize, max: usize| {
            if value == 0 || value > max {
                faults.push(format!("--{name} must be between 1 and {max}, but is {value}"));
            }
        };
        check("train-threads", train_threads, THREADS_MAX);
        check("message-bytes-max", self.message_bytes_max, MESSAGE_BYTES_MAX);
        check("queued-jobs-max", self.queued_jobs_max, i32::MAX as usize);
        check("queued-jobs-per-model-max", self.queued_jobs_per_model_max, i32::MAX as usize);
        check("versions-per-model", self.versions_per_model as usize, i32::MAX as usize);
        check("finished-jobs-per-model", self.finished_jobs_per_model as usize, i32::MAX as usize);
        check("finished-jobs", self.finished_jobs as usize, i32::MAX as usize);
        if self.disk_bytes_max == Some(0) {
            faults.push("--disk-bytes-max must be at least 1, but is 0".to_owned());
        }
        if self.training_bytes_max == 0 {
            faults.push("--training-bytes-max must be at least 1, but is 0".to_owned());
        }
        if self.drain_seconds > DRAIN_SECONDS_MAX {
            faults.push(format!("--drain-seconds must be at most {DRAIN_SECONDS_MAX}, but is {}", self.drain_seconds));
        }
        match listen {
            Ok(listen) if faults.is_empty() => Ok(Config {
                listen,
                storage: if self.ephemeral { Storage::Memory } else { Storage::Folder(self.data_dir) },
                train_threads,
                drain_deadline: Duration::from_secs(self.drain_seconds),
                message_bytes_max: self.message_bytes_max,
                training_bytes_max: self.training_bytes_max,
                queued_jobs_max: self.queued_jobs_max,
                queued_jobs_per_model_max: self.queued_jobs_per_model_max,
                versions_per_model: self.versions_per_model,
                finished_jobs_per_model: self.finished_jobs_per_model,
                finished_jobs: self.finished_jobs,
                kept_reports: self.kept_reports,
                disk_bytes_max: self.disk_bytes_max,
            }),
            _ => Err(ConfigFaults(faults)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        let config = RawConfig::default().check(2).unwrap();
        assert_eq!(config.listen.port(), 50051);
        assert_eq!(config.train_threads, 2);
        assert_eq!(config.storage, Storage::Folder(DATA_DIR_DEFAULT.into()));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let raw = RawConfig {
            listen: "localhost".into(),
            train_threads: Some(0),
            drain_seconds: 1 << 40,
            ..RawConfig::default()
        };
        let ConfigFaults(faults) = raw.check(2).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
