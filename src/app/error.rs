//! Why a use case was refused.

use uuid::Uuid;

use crate::domain::{Faults, ModelId};
use crate::jobs::QueueFull;

/// What a caller is told, in kinds that ask for different reactions.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The request is wrong by itself: change the fields named.
    #[error("{0}")]
    Invalid(Faults),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// There is one already.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request does not fit the state of things: change that first.
    #[error("{0}")]
    Precondition(String),
    /// A bound is reached; it stands in the message.
    #[error("{0}")]
    Exhausted(String),
    /// The server is stopping.
    #[error("the server is stopping; try again when it is back")]
    Stopping,
    /// What is stored cannot be reached now.
    #[error("{0}")]
    Unavailable(String),
    /// Something stored is damaged.
    #[error("{0}")]
    DataLoss(String),
    /// A bug of ours, or a fault of the machine. The cause goes to the log, not to the caller.
    #[error("{0}")]
    Internal(String),
}

impl AppError {
    pub(super) fn no_model(model_id: &ModelId) -> Self {
        Self::NotFound(format!(
            "there is no model {:?}; ListModels (`epochd models`) tells those that there are",
            model_id.as_str()
        ))
    }

    pub(super) fn no_version(model_id: &ModelId, version: u32) -> Self {
        Self::NotFound(format!(
            "model {:?} has no version {version} (any more: old ones that are neither pinned nor served are given back); ListVersions \
             (`epochd versions`) tells its versions",
            model_id.as_str()
        ))
    }

    pub(super) fn no_job(job_id: Uuid) -> Self {
        Self::NotFound(format!("there is no job {job_id}; ListJobs (`epochd jobs`) tells those that there are"))
    }
}

impl From<Faults> for AppError {
    fn from(faults: Faults) -> Self {
        Self::Invalid(faults)
    }
}

impl From<QueueFull> for AppError {
    fn from(full: QueueFull) -> Self {
        match full {
            QueueFull::Overall(bound) => Self::Exhausted(format!(
                "{bound} jobs are unfinished, as many as this server takes; wait for one to end, cancel one, or raise the \
                 server's --queued-jobs-max"
            )),
            QueueFull::ForKey(bound) => Self::Exhausted(format!(
                "{bound} jobs of this model are unfinished, as many as one model may have; wait for one to end, cancel one, or raise \
                 the server's --queued-jobs-per-model-max"
            )),
            QueueFull::ForOwner(owned, bound) => Self::Exhausted(format!(
                "{owned} jobs from your address are unfinished, and of the {bound} that this server takes those that are free are kept for other \
                 callers; wait for one of yours to end, cancel one, or raise the server's --queued-jobs-max"
            )),
            QueueFull::Stopping => Self::Stopping,
        }
    }
}
