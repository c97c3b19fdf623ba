//! The record file, opened: redb over a file, or over memory.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, TableDefinition};

use super::disk::Disk;
use super::error::StoreError;
use super::lock::{OPEN_FILE, parent_of, sync_folder};
use super::overlay::Overlay;
use crate::limits::STORE_CACHE_BYTES;

/// A table of the record file.
pub(super) type Definition = TableDefinition<'static, &'static str, &'static [u8]>;

/// Key text to sealed record.
pub(super) const RECORDS: Definition = TableDefinition::new("records");
/// Key text to sealed chunk of a job's history.
pub(super) const LOG: Definition = TableDefinition::new("log");

/// Where the bytes of the record file are.
pub(super) enum Medium {
    /// In a file, which is there: a missing one is an error (a disk that is not mounted, say), never a new store.
    File { disk: Arc<dyn Disk>, path: PathBuf },
    /// In memory (or behind a test's faulty disk), kept apart from the database so that it can be opened again.
    Backend(Arc<dyn StorageBackend>),
}

impl Medium {
    /// Opens it as a start does. Where the process before did not close it, what is read back becomes durable first (see
    /// [`Medium::reopen`]): that process may have met a fault of which nobody knows any more.
    pub fn open_at_start(&self) -> Result<Database, StoreError> {
        let Self::File { disk, path } = self else { return self.open() };
        let mark = path.with_file_name(OPEN_FILE);
        if disk.exists(&mark).map_err(StoreError::io(format!("look for {}", mark.display())))? {
            self.write_again()?;
        } else if let Err(error) = disk.create(&mark) {
            // It is not synced: after a power cut nothing stands in a cache. A start matters more than the mark.
            tracing::error!(%error, "{} cannot be created; should this process meet a fault of the disk and be killed, tell the next start to \
                write records.redb once more by creating an empty file of that name", mark.display());
        }
        self.open()
    }

    /// It was closed without a fault.
    pub fn note_closed(&self) {
        let Self::File { disk, path } = self else { return };
        match disk.remove(&path.with_file_name(OPEN_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the next start takes the record file for one that was not closed");
            }
            _ => {}
        }
    }

    /// Opens it after a fault, if every page of it has the right checksum. What is read back becomes durable first: after a sync that
    /// failed some of it may stand in the system's cache alone, and a commit on top of it would be lost with the power.
    pub fn reopen(&self) -> Result<Database, StoreError> {
        self.write_again()?;
        self.open_and(true)
    }

    fn write_again(&self) -> Result<(), StoreError> {
        match self {
            Self::File { disk, path } => disk.write_again(path).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => StoreError::Locked { folder: parent_of(path).to_owned() },
                _ => StoreError::io(format!("write {} once more", path.display()))(error),
            }),
            Self::Backend(_) => Ok(()),
        }
    }

    /// Opens it.
    pub fn open(&self) -> Result<Database, StoreError> {
        self.open_and(false)
    }

    fn open_and(&self, verify: bool) -> Result<Database, StoreError> {
        self.open_with_tables(|| {
            let builder = builder(verify);
            match self {
                Self::File { disk, path } => disk.open_database(&builder, path).map_err(|error| from_open(path, error)),
                Self::Backend(backend) => open_backend(&builder, SharedBackend(Arc::clone(backend))),
            }
        })
    }

    /// Opens and verifies it where it cannot be written: what is written to the database never reaches the disk.
    pub fn open_to_read(&self) -> Result<Database, StoreError> {
        self.open_with_tables(|| {
            let below: Box<dyn StorageBackend> = match self {
                Self::File { disk, path } => {
                    disk.open_to_read(path).map_err(StoreError::io(format!("open {}", path.display())))?
                }
                Self::Backend(backend) => Box::new(SharedBackend(Arc::clone(backend))),
            };
            let overlay = Overlay::over(below).map_err(StoreError::io("read records.redb"))?;
            open_backend(&builder(true), overlay)
        })
    }

    /// Bytes of it.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::File { disk, path } => disk.length(path),
            Self::Backend(backend) => backend.len(),
        }
    }

    fn open_with_tables(&self, open: impl FnOnce() -> Result<Database, StoreError>) -> Result<Database, StoreError> {
        let database = guarded("open records.redb", open)?;
        // In a step of its own: a database that is dropped by a panic could panic again, and end the process.
        match guarded("open its tables", || create_tables(&database).map_err(StoreError::from_redb)) {
            Ok(()) => Ok(database),
            Err(error) => {
                close_database(database);
                Err(error)
            }
        }
    }
}

pub(super) fn builder(verify: bool) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(STORE_CACHE_BYTES).set_check_integrity_on_open(verify);
    builder
}

pub(super) fn open_backend(builder: &Builder, backend: impl StorageBackend) -> Result<Database, StoreError> {
    builder.create_with_backend(backend).map_err(StoreError::from_redb)
}

/// Creates an empty record file. One that is there is complete: a creation cut short leaves another name behind.
pub(super) fn create_file(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let temporary = path.with_extension("redb.tmp");
    let action = || StoreError::io(format!("create {}", path.display()));
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(action()(error)),
        _ => {}
    }
    let database = disk.create_database(&builder(false), &temporary).map_err(StoreError::from_redb)?;
    database.close().map_err(StoreError::from_redb)?;
    disk.sync(&temporary).map_err(action())?;
    disk.rename(&temporary, path).map_err(action())?;
    sync_folder(disk, parent_of(path))
}

fn from_open(path: &Path, error: DatabaseError) -> StoreError {
    let folder = || parent_of(path).to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { folder: folder() },
        DatabaseError::UpgradeRequired(version) => StoreError::Format {
            folder: folder(),
            problem: format!("records.redb has file format {version}, which this epochd does not know"),
        },
        DatabaseError::Storage(redb::StorageError::Io(error)) if is_damage(&error) => {
            StoreError::corrupt(format!("{} ({error})", path.display()))
        }
        DatabaseError::Storage(redb::StorageError::Io(error)) => {
            StoreError::io(format!("open {}", path.display()))(error)
        }
        other => StoreError::from_redb(other),
    }
}

/// No database's bytes, or bytes that point beyond the file's end.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Reads may take both tables for granted.
fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    if transaction.list_tables()?.count() == 2 {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(RECORDS)?;
    transaction.open_table(LOG)?;
    transaction.commit()?;
    Ok(())
}

/// Does `work`, and turns a panic of redb's, which a damaged file may cause, into an error.
pub(super) fn guarded<T>(action: &str, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Nothing of ours is left half done: what `work` borrows is either dropped by the panic or replaced by a reopening.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic_message(&*panic);
        tracing::error!(action, panic = message, "the record file is damaged: redb panicked");
        Err(StoreError::corrupt(format!("records.redb (tried to {action}: {message})")))
    })
}

/// Closes a database; whether that met no fault. redb writes when it closes, which on a damaged file may panic, too; all that was
/// acknowledged is on the disk already.
pub(super) fn close_database(database: Database) -> bool {
    guarded("close records.redb", || database.close().map_err(StoreError::from_redb)).is_ok()
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked")
}

/// A backend that outlives the database which uses it.
#[derive(Debug)]
struct SharedBackend(Arc<dyn StorageBackend>);

impl StorageBackend for SharedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_redb_is_an_error_of_the_store() {
        let error = guarded::<()>("read a record", || panic!("a page of type {}", 7)).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { what } if what.contains("a page of type 7")), "{error}");
    }
}
