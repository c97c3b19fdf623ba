//! A backup of the whole store while it is in use: one state of the records, and every blob that this state refers to.
//!
//! 1. A [`Hold`] begins: no blob is removed from here on.
//! 2. While no checkpoint is being written, the state is chosen (a read transaction begins) and the checkpoints of unfinished jobs
//!    are opened: they are the only blobs that are ever replaced, and one that comes after more reports than the records know could
//!    not be gone on from. An open file stays what it is.
//! 3. The records of that state are copied into a file of their own, in key order, each verified. No transaction is open after that,
//!    however long the rest takes.
//! 4. The archive is written: `FORMAT`, `records.redb`, `blobs/…`, `MANIFEST`. Each blob is verified as it is read.
//!
//! What is damaged ends a backup, unless it is to be left out. A checkpoint always is: its job begins anew, and comes to the same
//! weights. So is nothing whose key says all. An entry that was begun cannot be taken back, so what may be left out is read twice.
//!
//! The copy says that the process before stopped in good order: a job in it was not brought down by its training.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use redb::Database;
use uuid::Uuid;

use super::blob_reader::BlobReader;
use super::blobs::BlobName;
use super::database::{Medium, close_database};
use super::disk::{Disk, FileSystem};
use super::error::StoreError;
use super::holds::Hold;
use super::key_kinds::RecordKey;
use super::models::StoredVersion;
use super::records::View;
use super::retention;
use super::{BLOBS_FOLDER, RECORDS_FILE, Store, keys, lock};
use crate::domain::Job;
use crate::limits::BACKUP_LEFT_OUT_MAX;
use copy::{copy_records, finish_copy};
use manifest::Manifest;

mod copy;
mod manifest;
mod owner;
mod restore;
mod tar;

pub use restore::{RestoreError, Restored, restore};

/// What temporary files in the data folder are called: these, and an id.
const TEMPORARY_PREFIX: &str = "backup-";
const TEMPORARY_SUFFIX: &str = ".tmp";
/// Moved at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Why a backup ended before it was complete.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What is stored cannot be read, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Where the archive goes did not take it.
    #[error("the backup cannot be written: {0}")]
    Sink(#[from] io::Error),
}

/// How large a backup was, and what is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupSize {
    /// Files in it, the manifest left out.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was damaged or missing.
    pub left_out: LeftOut,
}

/// What a backup leaves out, since it is damaged or missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The first of it: keys of records and names of files.
    pub named: Vec<String>,
    /// All of it.
    pub count: u64,
}

impl LeftOut {
    fn add(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::error!(what, "left out of the backup, since it is damaged or missing");
        self.count += 1;
        if self.named.len() < BACKUP_LEFT_OUT_MAX {
            self.named.push(what);
        }
    }
}

/// One state of the store, fixed: later changes are not in it. Blobs that are deleted take room until it is dropped.
pub struct Backup {
    store: Store,
    records: Temporary,
    manifest: Temporary,
    /// Checkpoints as they were when the state was chosen, opened twice: to be verified, and to be given. `None` where one is missing
    /// or damaged.
    checkpoints: HashMap<Uuid, Option<[BlobReader; 2]>>,
    skips_damaged: bool,
    left_out: LeftOut,
    _hold: Hold,
}

impl Store {
    /// Fixes the state that a backup will hold. `goes_on` is asked now and then: where it says no, this ends with an error. What is
    /// damaged is left out with `skips_damaged`.
    ///
    /// # Errors
    ///
    /// Damaged records, an I/O error, and a store in memory, which has no folder to put a copy of the records in.
    pub fn begin_backup(&self, skips_damaged: bool, goes_on: &dyn Fn() -> bool) -> Result<Backup, StoreError> {
        let in_memory = || StoreError::Unavailable { reason: "a store in memory has no backup".to_owned() };
        let folder = self.inner.lock.as_ref().ok_or_else(in_memory)?.folder();
        let hold = Hold::new(self);
        let (records, manifest) = (Temporary::new(folder), Temporary::new(folder));
        let gate = Cell::new(Some(self.checkpoints_rest()));
        let chosen = self.records().read_long(|view| {
            // A second try comes after the file was opened again, when the first may have let checkpoints be written.
            let closed = || StoreError::Unavailable { reason: "the records were closed during a backup".to_owned() };
            let gate = gate.take().ok_or_else(closed)?;
            let checkpoints = self.open_checkpoints(view)?;
            drop(gate);
            Ok((checkpoints, copy_records(view, &records.path, skips_damaged, goes_on)?))
        });
        let (checkpoints, left_out) = chosen.map_err(copying)?;
        finish_copy(&records.path).map_err(copying)?;
        Ok(Backup { store: self.clone(), records, manifest, checkpoints, skips_damaged, left_out, _hold: hold })
    }

    fn open_checkpoints(&self, view: &View) -> Result<HashMap<Uuid, Option<[BlobReader; 2]>>, StoreError> {
        let mut readers = HashMap::new();
        for entry in view.scan(keys::UNFINISHED, None, None)? {
            let key = entry?.key;
            let job_id = keys::last_uuid(&key).ok_or_else(|| StoreError::corrupt(&key))?;
            let open = || self.blobs().open(BlobName::Checkpoint { job_id });
            let opened = open().and_then(|first| Ok(first.zip(open()?)));
            match opened {
                Ok(Some((first, second))) => drop(readers.insert(job_id, Some([first, second]))),
                Ok(None) if !has_checkpoint(view, job_id)? => {}
                Ok(None) | Err(StoreError::Corrupt { .. }) => drop(readers.insert(job_id, None)),
                Err(error) => return Err(error),
            }
        }
        Ok(readers)
    }
}

/// Whether the record of a job says so, as far as it can be read.
fn has_checkpoint(view: &View, job_id: Uuid) -> Result<bool, StoreError> {
    match view.get::<Job>(&keys::job(job_id)) {
        Ok(job) => Ok(job.is_some_and(|job| job.value.checkpoint.is_some())),
        Err(StoreError::Corrupt { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Names what an I/O error before the archive is about.
fn copying(error: StoreError) -> StoreError {
    let action = "copy the records for a backup, which needs as many bytes free in the data folder as records.redb has";
    match error {
        StoreError::Io { cause, .. } => StoreError::Io { action: action.to_owned(), cause },
        other => other,
    }
}

impl Backup {
    /// Writes the archive.
    pub fn write(mut self, sink: &mut dyn Write) -> Result<BackupSize, BackupError> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut archive = Archive {
            tar: tar::Writer::new(sink, since.as_secs()),
            manifest: Manifest::create(&self.manifest.path)?,
            size: BackupSize::default(),
        };
        let format = lock::format_text();
        archive.add(lock::FORMAT_FILE, &mut format.as_bytes(), format.len() as u64)?;
        let mut records = File::open(&self.records.path)?;
        let length = records.metadata()?.len();
        archive.add(RECORDS_FILE, &mut records, length)?;
        let database = Medium::File { disk: Arc::new(FileSystem), path: self.records.path.clone() }.open()?;
        let written = self.add_blobs(&database, &mut archive);
        close_database(database);
        written?;
        let size = archive.finish()?;
        Ok(BackupSize { left_out: self.left_out, ..size })
    }

    /// Every blob that the copied records refer to.
    fn add_blobs(&mut self, database: &Database, archive: &mut Archive<&mut dyn Write>) -> Result<(), BackupError> {
        let view = View::begin(database).map_err(StoreError::from_redb)?;
        let continued = retention::continued_bases(&view, None)?;
        // Of the version before, while the next record may be another version of the same model; its model and number, and whether an unfinished
        // job goes on from it.
        let mut latest: Option<(BlobName, (Uuid, u32), bool)> = None;
        let version_of = |(uid, number)| owner::version(&view, uid, number);
        for entry in view.scan("default/", None, None)? {
            let entry = entry?;
            match RecordKey::parse(&entry.key) {
                Some(RecordKey::Version(uid, number)) => {
                    let StoredVersion { version, blob, has_continuation } = entry.decode()?;
                    let is_same =
                        |name: &BlobName| matches!(name, BlobName::Continuation { uid: of, .. } if *of == uid);
                    match latest.take() {
                        Some((name, of, _)) if !is_same(&name) => {
                            self.add_blob(name, || version_of(of), archive)?;
                        }
                        // A job that has a checkpoint ends without it: no reason to have no backup.
                        Some((name, of, true)) => match self.store.blobs().open(name) {
                            Ok(None) => {}
                            // Of a damaged one it is told, or it is left out.
                            Ok(Some(_)) | Err(StoreError::Corrupt { .. }) => {
                                self.add_blob(name, || version_of(of), archive)?;
                            }
                            Err(error) => return Err(error.into()),
                        },
                        _ => {}
                    }
                    self.add_blob(BlobName::Weights { uid, blob }, || version_of((uid, number)), archive)?;
                    let is_continued = continued.contains(&(uid, version.version));
                    latest =
                        has_continuation.then_some((BlobName::Continuation { uid, blob }, (uid, number), is_continued));
                }
                Some(RecordKey::Unfinished(job_id)) => {
                    self.add_blob(BlobName::Rows { job_id }, || owner::job(&view, job_id), archive)?;
                    if let Some(readers) = self.checkpoints.remove(&job_id) {
                        self.add_checkpoint(job_id, readers, || owner::job(&view, job_id), archive)?;
                    }
                }
                Some(_) => {}
                None => return Err(StoreError::corrupt(entry.key).into()),
            }
        }
        latest.map_or(Ok(()), |(name, of, _)| self.add_blob(name, || version_of(of), archive))
    }

    fn add_blob(
        &mut self,
        name: BlobName,
        owner: impl Fn() -> Option<String>,
        archive: &mut Archive<&mut dyn Write>,
    ) -> Result<(), BackupError> {
        match self.reader(name) {
            Ok(reader) => archive.add_blob(name, reader).map_err(|error| match error {
                BackupError::Store(error) => owner::with_owner(error, owner).into(),
                sink @ BackupError::Sink(_) => sink,
            }),
            Err(StoreError::Corrupt { what }) if self.skips_damaged => {
                self.left_out.add(owner::named(&what, owner()));
                Ok(())
            }
            Err(error) => Err(owner::with_owner(error, owner).into()),
        }
    }

    /// A blob to be given. It is verified already where a damaged one is to be left out.
    fn reader(&self, name: BlobName) -> Result<BlobReader, StoreError> {
        let missing = || StoreError::corrupt(format!("{BLOBS_FOLDER}/{name} (it is missing)"));
        let open = || self.store.blobs().open(name)?.ok_or_else(missing);
        if self.skips_damaged {
            verify(open()?)?;
        }
        open()
    }

    fn add_checkpoint(
        &mut self,
        job_id: Uuid,
        readers: Option<[BlobReader; 2]>,
        owner: impl Fn() -> Option<String>,
        archive: &mut Archive<&mut dyn Write>,
    ) -> Result<(), BackupError> {
        let name = BlobName::Checkpoint { job_id };
        match readers.map(|[first, second]| verify(first).map(|()| second)) {
            Some(Ok(reader)) => archive.add_blob(name, reader),
            None | Some(Err(StoreError::Corrupt { .. })) => {
                let job = owner().unwrap_or_default();
                self.left_out.add(format!("{BLOBS_FOLDER}/{name} ({job}, which begins anew)"));
                Ok(())
            }
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// Reads a blob to its end.
fn verify(reader: BlobReader) -> Result<(), StoreError> {
    reader.give(|_| Ok(()))
}

/// The archive that is being written.
struct Archive<W> {
    tar: tar::Writer<W>,
    manifest: Manifest,
    size: BackupSize,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, source: &mut dyn Read, bytes: u64) -> Result<(), BackupError> {
        self.tar.begin(name, bytes)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match source.read(&mut piece)? {
                0 => return self.end(),
                length => self.tar.add(&piece[..length])?,
            }
        }
    }

    fn add_blob(&mut self, name: BlobName, reader: BlobReader) -> Result<(), BackupError> {
        self.tar.begin(&format!("{BLOBS_FOLDER}/{name}"), reader.blob_bytes())?;
        reader.give(|bytes| self.tar.add(bytes).map_err(BackupError::from))?;
        self.end()
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let (entry, checksum) = self.tar.end()?;
        self.manifest.add(&entry.name, entry.bytes, checksum)?;
        self.size.files += 1;
        self.size.bytes += entry.bytes;
        Ok(())
    }

    /// The manifest, and the end.
    fn finish(mut self) -> Result<BackupSize, BackupError> {
        let mut written = self.manifest.finish()?;
        let bytes = written.metadata()?.len();
        self.tar.begin(manifest::NAME, bytes)?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match written.read(&mut piece)? {
                0 => break,
                length => self.tar.add(&piece[..length])?,
            }
        }
        self.tar.end()?;
        self.tar.finish()?;
        Ok(self.size)
    }
}

/// A file of a backup's in the data folder; removed with this.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Creates nothing yet.
    fn new(folder: &Path) -> Self {
        Self { path: folder.join(format!("{TEMPORARY_PREFIX}{}{TEMPORARY_SUFFIX}", Uuid::now_v7())) }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "a backup's temporary file stays until the next start");
            }
            _ => {}
        }
    }
}

/// Whether a file in a data folder is what a backup left that a crash cut short.
pub(super) fn is_left_over(name: &str) -> bool {
    let id = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
    id.is_some_and(|id| Uuid::parse_str(id).is_ok())
}

/// Removes what backups left that a crash cut short. What cannot be removed stays, and does no harm.
pub(super) fn sweep(disk: &dyn Disk, folder: &Path) {
    let names = disk.list(folder).unwrap_or_default();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| is_left_over(name)) {
        let path = folder.join(name);
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "what a backup left behind cannot be removed");
        }
    }
}
