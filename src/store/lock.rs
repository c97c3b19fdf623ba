//! One process a folder, and one format a folder.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileSystem, Held};
use super::error::StoreError;

pub(super) const LOCK_FILE: &str = "LOCK";
pub(super) const FORMAT_FILE: &str = "FORMAT";
/// There while a process has the record file open, and after one that did not close it.
pub(super) const OPEN_FILE: &str = "OPEN";
/// There from the first byte of a restore until all of it is in place.
pub(super) const RESTORE_FILE: &str = "RESTORE";
/// What a file system may have in its root.
pub(super) const LOST_AND_FOUND: &str = "lost+found";
const FORMAT: u32 = 1;
const FORMAT_PREFIX: &str = "epochd store format ";

/// The folder is ours until this is dropped, or until the process ends, however it ends.
pub(super) struct FolderLock {
    _held: Held,
    folder: PathBuf,
}

impl FolderLock {
    /// Creates the folder where it is missing, and takes it. Waits for nobody.
    pub fn take(disk: &dyn Disk, folder: &Path) -> Result<Self, StoreError> {
        create_folders(disk, folder).map_err(StoreError::io(format!("create the folder {}", folder.display())))?;
        let path = folder.join(LOCK_FILE);
        match disk.lock(&path).map_err(StoreError::io(format!("lock {}", path.display())))? {
            Some(held) => Ok(Self { _held: held, folder: folder.to_owned() }),
            None => Err(StoreError::Locked { folder: folder.to_owned() }),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps others from taking a folder that is only looked at; creates nothing. `None` where it has no lock, so that nobody holds it.
    pub fn look(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(LOCK_FILE);
        let action = || StoreError::io(format!("lock {}", path.display()));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(action()(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _held: Box::new(file), folder: folder.to_owned() })),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { folder: folder.to_owned() }),
            Err(TryLockError::Error(cause)) => Err(action()(cause)),
        }
    }
}

/// Whether a folder was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    /// Nothing of ours is in it, or what an interrupted creation left.
    New,
    /// It carries our format.
    Known,
}

/// Reads the folder's format. One that is not ours is refused, never guessed at.
pub(super) fn read_format(disk: &dyn Disk, folder: &Path) -> Result<Age, StoreError> {
    let mark = folder.join(RESTORE_FILE);
    if disk.exists(&mark).map_err(StoreError::io(format!("look for {}", mark.display())))? {
        let problem = "a restore into it was cut short; remove what is in it, and restore again".to_owned();
        return Err(StoreError::Format { folder: folder.to_owned(), problem });
    }
    let path = folder.join(FORMAT_FILE);
    let mut bytes = Vec::new();
    match disk.open(&path).and_then(|(mut file, _)| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Age::New),
        Err(error) => return Err(StoreError::io(format!("read {}", path.display()))(error)),
    }
    let text = String::from_utf8_lossy(&bytes);
    if is_known(&bytes) {
        return Ok(Age::Known);
    }
    let found = text.trim_end().strip_prefix(FORMAT_PREFIX).and_then(|number| number.parse::<u32>().ok());
    let problem = match found.filter(|found| *found != FORMAT) {
        Some(other) => format!(
            "it has store format {other}, but this epochd knows format {FORMAT}; use the epochd that wrote it, or choose \
             another --data-dir"
        ),
        None => format!(
            "its file {FORMAT_FILE} is not epochd's; restore it (it reads \"{FORMAT_PREFIX}{FORMAT}\"), or choose another \
             --data-dir"
        ),
    };
    Err(StoreError::Format { folder: folder.to_owned(), problem })
}

/// Whether a file `FORMAT` is ours. An editor may have left it without its line break, or with another.
pub(super) fn is_known(bytes: &[u8]) -> bool {
    bytes.trim_ascii_end() == format_text().trim_ascii_end().as_bytes()
}

/// What the file `FORMAT` reads.
pub(super) fn format_text() -> String {
    format!("{FORMAT_PREFIX}{FORMAT}\n")
}

/// Says that a restore is under way: from now on a start refuses the folder.
pub(super) fn mark_restore(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(RESTORE_FILE);
    let written = File::create_new(&path).and_then(|file| file.sync_all());
    written.map_err(StoreError::io(format!("write {}", path.display())))?;
    sync_folder(&FileSystem, folder)
}

/// Says that all of it is in place.
pub(super) fn unmark_restore(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(RESTORE_FILE);
    fs::remove_file(&path).map_err(StoreError::io(format!("remove {}", path.display())))?;
    sync_folder(&FileSystem, folder)
}

/// Marks the folder as complete: the last step of its creation.
pub(super) fn write_format(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(FORMAT_FILE);
    let temporary = folder.join("FORMAT.tmp");
    let write = || {
        let mut file = disk.create(&temporary)?;
        file.write_all(format_text().as_bytes())?;
        file.sync()?;
        disk.rename(&temporary, &path)
    };
    write().map_err(StoreError::io(format!("write {}", path.display())))?;
    sync_folder(disk, folder)
}

/// A folder whose records are there but whose format is not: it was tampered with, and is left alone.
pub(super) fn format_is_missing(folder: &Path) -> StoreError {
    let problem = format!(
        "it holds records, but its file {FORMAT_FILE} is missing; restore it (it reads \"{FORMAT_PREFIX}{FORMAT}\"), or \
         choose another --data-dir"
    );
    StoreError::Format { folder: folder.to_owned(), problem }
}

/// A folder with blobs but neither records nor a format: half a copy, say. To take it for new would be to sweep every blob.
pub(super) fn records_are_missing(folder: &Path) -> StoreError {
    let problem =
        "it holds blobs, but its files records.redb and FORMAT are missing; restore them, or choose another --data-dir";
    StoreError::Format { folder: folder.to_owned(), problem: problem.to_owned() }
}

/// Makes the names in a folder durable: a file that was renamed into it may otherwise be gone after a power cut.
pub(super) fn sync_folder(disk: &dyn Disk, folder: &Path) -> Result<(), StoreError> {
    disk.sync_folder(folder).map_err(StoreError::io(format!("sync the folder {}", folder.display())))
}

/// Creates a folder with those above it, each of them durable: what lies in a folder is lost with the folder's own name.
fn create_folders(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty());
    let mut created = Vec::new();
    for folder in missing {
        if disk.exists(folder)? {
            break;
        }
        created.push(folder);
    }
    for folder in created.into_iter().rev() {
        disk.create_folder(folder)?;
        disk.sync_folder(parent_of(folder))?;
    }
    Ok(())
}

/// The folder that a file or a folder is in.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_in_words_and_succeeds_after_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new/data");
        let first = FolderLock::take(&FileSystem, &folder).unwrap();
        let message = FolderLock::take(&FileSystem, &folder).err().unwrap().to_string();
        assert!(message.contains("in use by another epochd") && message.contains("--data-dir"), "{message}");
        drop(first);
        FolderLock::take(&FileSystem, &folder).unwrap();
    }

    #[test]
    fn a_format_that_is_not_ours_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_format(&FileSystem, folder.path()).unwrap(), Age::New);
        write_format(&FileSystem, folder.path()).unwrap();
        assert_eq!(read_format(&FileSystem, folder.path()).unwrap(), Age::Known);
        fs::write(folder.path().join(FORMAT_FILE), "epochd store format 2\n").unwrap();
        assert!(read_format(&FileSystem, folder.path()).unwrap_err().to_string().contains("store format 2"));
        for other in [
            &b""[..],
            b"\xff\xfe",
            b"epochd store format x",
            b"1",
            b"epochd store format +1",
            b"epochd store format 01",
        ] {
            fs::write(folder.path().join(FORMAT_FILE), other).unwrap();
            assert!(matches!(read_format(&FileSystem, folder.path()), Err(StoreError::Format { .. })));
        }
        for known in ["epochd store format 1", "epochd store format 1\r\n"] {
            fs::write(folder.path().join(FORMAT_FILE), known).unwrap();
            assert_eq!(read_format(&FileSystem, folder.path()).unwrap(), Age::Known);
        }
    }
}
