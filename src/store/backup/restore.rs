//! A data folder from a backup: all of it, or none.
//!
//! The folder carries a mark from the first byte on, which a start refuses; `FORMAT` is written last, after everything was compared
//! with the manifest and is sound by itself. Where its parts do not fit together, as in the folder that was backed up, this is told and
//! restored as it was: a backup is worth most after a fault. Names in the archive are compared with those that a backup has, so
//! nothing is written anywhere else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest};
use super::tar::{ArchiveError, CopyError, Entry, Reader};
use crate::store::blobs::BlobName;
use crate::store::check::{Finding, Line, check};
use crate::store::disk::FileSystem;
use crate::store::error::StoreError;
use crate::store::lock::{self, FolderLock};
use crate::store::{BLOBS_FOLDER, RECORDS_FILE};

/// Faults that are named; the rest is counted.
const FAULTS_NAMED_MAX: usize = 20;
/// A `FORMAT` is a line.
const FORMAT_BYTES_MAX: u64 = 256;

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was damaged or missing in the folder that was backed up, and is so here: what `epochd check` calls faults, the first of them.
    pub notes: Vec<String>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the folder.
    #[error(
        "the folder {} is not empty; restore into a new one with --data-dir, or move away what is in it",
        folder.display()
    )]
    NotEmpty {
        /// The folder, as it was given.
        folder: PathBuf,
    },
    /// A restore into it was cut short.
    #[error(
        "a restore into the folder {} was cut short; remove what is in it, and restore again, or restore into a new one with \
         --data-dir",
        folder.display()
    )]
    CutShort {
        /// The folder, as it was given.
        folder: PathBuf,
    },
    /// The archive is none.
    #[error("the backup cannot be restored, and nothing was: {}", .0.join("; "))]
    NoBackup(Vec<String>),
    /// The archive is one, and damaged.
    #[error(
        "the backup cannot be restored, and nothing was: {}. If there is no other backup, `tar xf FILE -C FOLDER` unpacks what can be read into a \
         new folder: where `epochd check --data-dir FOLDER` finds records.redb sound it can be served, and only what is damaged in it is \
         lost",
        .0.join("; ")
    )]
    Faults(Vec<String>),
    /// The folder cannot be written, or is in use.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts a backup into a folder, which is created where it is missing, and else must be empty. When this returns `Ok`, everything
/// was verified and is on the disk.
pub fn restore(archive: &mut dyn Read, folder: &Path) -> Result<Restored, RestoreError> {
    refuse_what_is_there(folder)?;
    let _lock = FolderLock::take(&FileSystem, folder)?;
    // Whoever held it until now may have filled the folder.
    refuse_what_is_there(folder)?;
    lock::mark_restore(folder)?;
    let restored = Restoration { folder, faults: Faults::default(), restored: Restored::default(), has_format: false }
        .run(archive);
    match restored {
        Ok(restored) => {
            lock::write_format(&FileSystem, folder)?;
            lock::unmark_restore(folder)?;
            Ok(restored)
        }
        Err(error) => {
            // What stays here is refused by a start, and is told: the first fault counts.
            if let Err(left) = clear(folder) {
                tracing::warn!(folder = %folder.display(), error = %left, "what a failed restore left cannot be removed");
            }
            Err(error)
        }
    }
}

/// What an empty folder may hold.
fn is_of_no_account(name: &OsStr) -> bool {
    name == lock::LOCK_FILE || name == lock::LOST_AND_FOUND
}

/// Nothing but a lock, and what a file system makes, may be there.
fn refuse_what_is_there(folder: &Path) -> Result<(), RestoreError> {
    if folder.join(lock::RESTORE_FILE).exists() {
        // One that is under way is told as that.
        drop(FolderLock::look(folder)?);
        return Err(RestoreError::CutShort { folder: folder.to_owned() });
    }
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io(format!("list the folder {}", folder.display()))(error).into()),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io(format!("list the folder {}", folder.display())))?;
        if !is_of_no_account(&entry.file_name()) {
            // A server's folder is told as one.
            drop(FolderLock::look(folder)?);
            return Err(RestoreError::NotEmpty { folder: folder.to_owned() });
        }
    }
    Ok(())
}

/// Removes what was restored: the folder was empty before.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The mark goes last: what is half removed is still half a restore.
        if is_of_no_account(&entry.file_name()) || entry.file_name() == lock::RESTORE_FILE {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_file(folder.join(lock::RESTORE_FILE))
}

/// Faults, the first of them in words.
#[derive(Default)]
struct Faults {
    named: Vec<String>,
    count: usize,
}

impl Faults {
    fn add(&mut self, fault: String) {
        self.count += 1;
        if self.named.len() < FAULTS_NAMED_MAX {
            self.named.push(fault);
        }
    }

    /// Of an archive with so many files.
    fn into_result(self, files: u64) -> Result<(), RestoreError> {
        let named = self.into_named();
        match (named.is_empty(), files) {
            (true, _) => Ok(()),
            (false, 0) => Err(RestoreError::NoBackup(named)),
            (false, _) => Err(RestoreError::Faults(named)),
        }
    }

    fn into_named(mut self) -> Vec<String> {
        if self.count > self.named.len() {
            self.named.push(format!("and {} more", self.count - self.named.len()));
        }
        self.named
    }
}

/// A restore under way.
struct Restoration<'a> {
    folder: &'a Path,
    faults: Faults,
    restored: Restored,
    has_format: bool,
}

impl Restoration<'_> {
    fn run(mut self, archive: &mut dyn Read) -> Result<Restored, RestoreError> {
        let blobs = self.folder.join(BLOBS_FOLDER);
        fs::create_dir(&blobs).map_err(StoreError::io(format!("create the folder {}", blobs.display())))?;
        let found = self.folder.join("MANIFEST.tmp");
        let mut manifest = Manifest::create(&found).map_err(StoreError::io(format!("create {}", found.display())))?;
        if let Err(fault) = self.entries(&mut Reader::new(archive), &mut manifest)? {
            self.faults.add(fault.to_string());
        }
        drop(manifest);
        fs::remove_file(&found).map_err(StoreError::io(format!("remove {}", found.display())))?;
        let (faults, restored) = (self.faults, self.restored);
        faults.into_result(restored.files)?;
        let restored = Restored { notes: read_through(self.folder)?, ..restored };
        lock::sync_folder(&FileSystem, &blobs)?;
        lock::sync_folder(&FileSystem, self.folder)?;
        Ok(restored)
    }

    /// Every entry, up to the first fault past which nothing can be read.
    fn entries(
        &mut self,
        archive: &mut Reader<&mut dyn Read>,
        manifest: &mut Manifest,
    ) -> Result<Result<(), ArchiveError>, RestoreError> {
        let mut is_complete = false;
        loop {
            let entry = match archive.next() {
                Ok(Some(entry)) => entry,
                Ok(None) if is_complete => return Ok(Ok(())),
                Ok(None) => return Ok(Err(ArchiveError::Cut("before its manifest".to_owned()))),
                Err(fault) => return Ok(Err(fault)),
            };
            let name = entry.name.clone();
            if is_complete {
                return Ok(Err(ArchiveError::Damaged(format!("{name} comes after the manifest"))));
            }
            let copied = match name.as_str() {
                manifest::NAME => {
                    is_complete = true;
                    self.manifest(&entry, archive, manifest)?
                }
                lock::FORMAT_FILE => self.format(&entry, archive, manifest)?,
                _ => match self.place_of(&name) {
                    Some(path) => self.file(&entry, &path, archive, manifest)?,
                    None => return Ok(Err(ArchiveError::Damaged(format!("{name:?} is no file of a backup")))),
                },
            };
            if let Err(fault) = copied {
                return Ok(Err(fault));
            }
        }
    }

    /// Where an entry belongs; `None` for a name that no backup has.
    fn place_of(&self, name: &str) -> Option<PathBuf> {
        if name == RECORDS_FILE {
            return Some(self.folder.join(RECORDS_FILE));
        }
        let blob = BlobName::parse(name.strip_prefix(BLOBS_FOLDER)?.strip_prefix('/')?)?;
        Some(self.folder.join(BLOBS_FOLDER).join(blob.to_string()))
    }

    fn file(
        &mut self,
        entry: &Entry,
        path: &Path,
        archive: &mut Reader<&mut dyn Read>,
        manifest: &mut Manifest,
    ) -> Result<Result<(), ArchiveError>, RestoreError> {
        let failed = || StoreError::io(format!("write {}", path.display()));
        let file = match File::create_new(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Err(ArchiveError::Damaged(format!("{} is in it twice", entry.name))));
            }
            Err(error) => return Err(failed()(error).into()),
        };
        let mut file = BufWriter::new(file);
        let copied = self.copy(entry, &mut file, archive, manifest, failed())?;
        file.flush().map_err(failed())?;
        file.get_ref().sync_all().map_err(failed())?;
        Ok(copied)
    }

    /// Its bytes are written last of all, by us.
    fn format(
        &mut self,
        entry: &Entry,
        archive: &mut Reader<&mut dyn Read>,
        manifest: &mut Manifest,
    ) -> Result<Result<(), ArchiveError>, RestoreError> {
        if entry.bytes > FORMAT_BYTES_MAX {
            return Ok(Err(ArchiveError::Damaged(format!("{} is too long", entry.name))));
        }
        let mut text = Vec::new();
        let copied = self.copy(entry, &mut text, archive, manifest, StoreError::io("read FORMAT"))?;
        if copied.is_ok() && text != lock::format_text().as_bytes() {
            let text = String::from_utf8_lossy(&text);
            let (text, known) = (text.trim_end(), lock::format_text());
            self.faults.add(format!("it is of {text:?}, but this epochd knows {:?}", known.trim_end()));
        }
        self.has_format = true;
        Ok(copied)
    }

    fn copy(
        &mut self,
        entry: &Entry,
        sink: &mut dyn Write,
        archive: &mut Reader<&mut dyn Read>,
        manifest: &mut Manifest,
        failed: impl FnOnce(io::Error) -> StoreError,
    ) -> Result<Result<(), ArchiveError>, RestoreError> {
        let (checksum, is_padded) = match archive.copy(entry, sink) {
            Ok(copied) => copied,
            Err(CopyError::Archive(fault)) => return Ok(Err(fault)),
            Err(CopyError::Sink(error)) => return Err(failed(error).into()),
        };
        if !is_padded {
            self.faults.add(format!("the bytes behind {} are damaged", entry.name));
        }
        let added = manifest.add(&entry.name, entry.bytes, checksum);
        added.map_err(StoreError::io("write the manifest of what was found"))?;
        self.restored.files += 1;
        self.restored.bytes += entry.bytes;
        Ok(Ok(()))
    }

    fn manifest(
        &mut self,
        entry: &Entry,
        archive: &mut Reader<&mut dyn Read>,
        manifest: &mut Manifest,
    ) -> Result<Result<(), ArchiveError>, RestoreError> {
        let path = self.folder.join("MANIFEST");
        let failed = || StoreError::io(format!("write {}", path.display()));
        let mut told = BufWriter::new(File::create_new(&path).map_err(failed())?);
        match archive.copy(entry, &mut told) {
            Ok((_, true)) => {}
            Ok((_, false)) => self.faults.add(format!("the bytes behind {} are damaged", entry.name)),
            Err(CopyError::Archive(fault)) => return Ok(Err(fault)),
            Err(CopyError::Sink(error)) => return Err(failed()(error).into()),
        }
        told.flush().map_err(failed())?;
        let mut told = File::open(&path).map_err(failed())?;
        let mut found = manifest.finish().map_err(failed())?;
        manifest::compare(&mut told, &mut found, |fault| self.faults.add(fault)).map_err(failed())?;
        if !self.has_format || !self.folder.join(RECORDS_FILE).exists() {
            self.faults.add(format!("{} or {RECORDS_FILE} is not in it", lock::FORMAT_FILE));
        }
        fs::remove_file(&path).map_err(failed())?;
        Ok(Ok(()))
    }
}

/// All that is there is sound; where it does not fit together this is told, since it did not where it was backed up. The bytes are the server's own by now: what may end this process, leaving a folder
/// that a start refuses, is an archive that was forged.
fn read_through(folder: &Path) -> Result<Vec<String>, RestoreError> {
    let (mut faults, mut notes) = (Faults::default(), Faults::default());
    check(folder, &mut |line| match line {
        // Not there yet, and still there.
        Line::Fault(fault) if [lock::FORMAT_FILE, lock::RESTORE_FILE].contains(&fault.what.as_str()) => {}
        Line::Fault(Finding { what, problem, is_relation: true }) => notes.add(format!("{what}: {problem}")),
        Line::Fault(Finding { what, problem, .. }) => faults.add(format!("{what}: {problem}")),
        Line::Note(_) | Line::Done(_) => {}
    });
    faults.into_result(1)?;
    Ok(notes.into_named())
}
