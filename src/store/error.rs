//! What can go wrong with what is durable, in words for whoever is called at three in the morning.

use std::io;
use std::path::PathBuf;

use crate::domain::ModelId;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process (or another handle of this one) holds the folder.
    #[error(
        "the folder {} is in use by another epochd; stop it, use its --server address, or choose another --data-dir",
        folder.display()
    )]
    Locked {
        /// The data folder, as it was given.
        folder: PathBuf,
    },
    /// The folder was not written by a version of epochd that this one can read.
    #[error("the folder {} cannot be used: {problem}", folder.display())]
    Format {
        /// The data folder, as it was given.
        folder: PathBuf,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// The operating system refused. What was asked for did not happen.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was tried, and on which file.
        action: String,
        /// What the operating system says.
        cause: io::Error,
    },
    /// Stored bytes are not what was written. Everything else still reads.
    #[error(
        "{}; other data still reads: restore the data folder from a backup, or delete what this belongs to, and check the disk",
        damage(what)
    )]
    Corrupt {
        /// The key of the record or the name of the file.
        what: String,
    },
    /// The name is taken.
    #[error("the model {model_id} exists already; choose another name, or delete it first")]
    Exists {
        /// The name.
        model_id: ModelId,
    },
    /// Another call changed the record first, and this one was not made to try again.
    #[error("the record {key} was changed by another call at the same time; try again")]
    Conflict {
        /// The key of the record.
        key: String,
    },
    /// The record file was closed after a fault. Whether a write that was under way took effect is only known once it is
    /// open again.
    #[error(
        "the store is closed after a fault ({reason}); it tries to open its file again at every call: check that the disk \
         of the data folder is there, writable and not full, then try again or restart"
    )]
    Unavailable {
        /// The fault.
        reason: String,
    },
    /// A bug of ours: a value that the format cannot hold.
    #[error("the record {key} cannot be encoded: {reason}")]
    Encoding {
        /// The key of the record.
        key: String,
        /// What the encoder says.
        reason: String,
    },
}

/// What is missing stands behind its name in brackets, and so does what is wrong, where more is known than that the checksum is.
fn damage(what: &str) -> String {
    match what.split_once(" (it is missing)") {
        Some((what, owner)) => format!("{what}{owner} is missing"),
        None => format!("{what} is damaged on disk (its checksum or its form is wrong)"),
    }
}

impl StoreError {
    /// Whether the disk has no room.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { cause, .. } if cause.kind() == io::ErrorKind::StorageFull)
    }

    /// For `map_err`: names what was tried.
    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |cause| Self::Io { action: action.into(), cause }
    }

    pub(super) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    pub(super) fn from_redb(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Corrupted(detail) => Self::corrupt(format!("records.redb ({detail})")),
            // A page that is told to lie beyond the file's end.
            redb::Error::Io(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                Self::corrupt(format!("records.redb ({cause})"))
            }
            redb::Error::Io(cause) => Self::Io { action: "read or write records.redb".to_owned(), cause },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}
