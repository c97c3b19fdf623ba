//! One training of one model, as it is recorded.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::name::ModelId;
use super::report::EpochReport;
use super::settings::Settings;
use super::time::Timestamp;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JobState {
    /// Accepted, waiting for its turn.
    Queued,
    /// In training.
    Running,
    /// Ended with a new version.
    Succeeded,
    /// Ended without one, by a fault.
    Failed,
    /// Ended because it was cancelled.
    Cancelled,
}

impl JobState {
    /// Whether nothing will change any more.
    pub fn is_finished(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Why a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// Every epoch was done.
    EpochsDone,
    /// A perceptron went through an epoch without an update.
    Converged,
    /// The monitored loss stopped improving.
    EarlyStopped,
    /// Cancelled by a caller, or with its model.
    Cancelled,
    /// A loss or a weight was not finite.
    Diverged,
    /// The process ended under it time and again, before it came to a new checkpoint.
    Interrupted,
    /// A bug of ours, or a fault of the machine.
    Internal,
    /// A metric was where it was to be.
    TargetReached,
    /// The time it was given was over.
    MaxDuration,
    /// What it was to go on from did not fit it when its turn came.
    Refused,
}

/// What kind of fault ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The numbers left the range of floats: change rate, loss or data.
    Diverged,
    /// The process ended under it time and again.
    Interrupted,
    /// Something stored could not be read back.
    DataLoss,
    /// A bug of ours, or a fault of the machine.
    Internal,
    /// The time it was given was over before there was anything to commit.
    TimeOver,
    /// What it was to go on from does not fit it.
    NotContinuable,
}

/// Why a job failed, for its caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of fault.
    pub kind: FailureKind,
    /// What happened, and what to change.
    pub message: String,
}

/// When a checkpoint was written, and how far the job was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointMark {
    /// When.
    pub time: Timestamp,
    /// Whole epochs.
    pub epoch: u32,
}

/// A job's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// A UUIDv7: ids sort by time.
    pub job_id: Uuid,
    /// The model's name when the job was accepted.
    pub model_id: ModelId,
    /// The model itself.
    pub model_uid: Uuid,
    /// Where it is in its life.
    pub state: JobState,
    /// Every setting in force.
    pub settings: Settings,
    /// The caller's id for the request; empty where none was given.
    pub request_id: String,
    /// Who asked for it: among callers threads and memory are shared out.
    #[serde(default)]
    pub caller: String,
    /// Of its rows, so that a training which continues it knows whether they are the same; `None` in a record of a build that did not
    /// keep it.
    #[serde(default)]
    pub fingerprint: Option<u64>,
    /// The version it started from, once it started.
    pub base_version: Option<u32>,
    /// The version it committed, once it did.
    pub version: Option<u32>,
    /// Epochs of the training that it goes on with; 0 where it begins anew.
    #[serde(default)]
    pub epochs_before: u32,
    /// When it was accepted.
    pub create_time: Timestamp,
    /// When it started.
    pub start_time: Option<Timestamp>,
    /// When it ended.
    pub end_time: Option<Timestamp>,
    /// How often it was started.
    pub attempt: u32,
    /// Starts since its last checkpoint, or since it was accepted.
    #[serde(default)]
    pub starts_without_checkpoint: u32,
    /// Its last checkpoint.
    #[serde(default)]
    pub checkpoint: Option<CheckpointMark>,
    /// Builds and kinds of processor that it was trained on, first to last, neighbours different.
    #[serde(default)]
    pub trained_on: Vec<String>,
    /// Why it ended, once it did.
    pub stop_reason: Option<StopReason>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its last report, when the record was written.
    pub last_report: Option<EpochReport>,
    /// The report of the epoch with the best monitored metric, when the record was written.
    pub best_report: Option<EpochReport>,
    /// Epoch reports in its history, when the record was written.
    pub report_count: u64,
}
