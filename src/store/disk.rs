//! The byte layer: all that an open store asks of its file system. Below it tests put a disk that fails, and that shows what a
//! power cut would leave. What reads or makes other files goes past it: a backup's copy, a restore, a check.

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageBackend};

/// Written once more at a time: a page of redb's.
const BLOCK_BYTES: u64 = 4_096;

/// A folder's lock, held until it is dropped or the process ends.
pub(super) type Held = Box<dyn Any + Send + Sync>;

/// A file system.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Whether a file or a folder is there.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes of a file.
    fn length(&self, path: &Path) -> io::Result<u64>;
    /// The names in a folder, in any order.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Creates one folder; one that is there is left as it is.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable: a file that was renamed into it may otherwise be gone after a power cut.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Opens a file to read it from its beginning, and tells its length in bytes.
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)>;
    /// Creates a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// Makes a file's bytes durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Writes a database's bytes where they are once more, and makes them durable: after a sync that failed, what is read back may stand in
    /// the system's cache alone, and no later sync would write it. `WouldBlock` where another holder has the database open.
    fn write_again(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name in its folder, in the place of what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a file where it is missing, and locks it; `None` where another holder has it. Waits for nobody.
    fn lock(&self, path: &Path) -> io::Result<Option<Held>>;
    /// Opens a database in a file that is there.
    fn open_database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError>;
    /// Creates a database in a file that is not there.
    fn create_database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError>;
    /// The bytes of a database's file, to read them and no more: what the file cannot be written for, too.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>>;
}

/// A file that is being written, from its beginning to its end.
pub(super) trait NewFile: Write {
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl NewFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The operating system's.
#[derive(Debug)]
pub(super) struct FileSystem;

impl Disk for FileSystem {
    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            outcome => outcome,
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if !cfg!(unix) {
            return Ok(()); // Windows opens no folder as a file, and journals renames by itself.
        }
        File::open(folder)?.sync_all()
    }

    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        Ok((Box::new(file), bytes))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn write_again(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        // As redb locks it: whoever has it open changes it meanwhile.
        file.try_lock().map_err(|refused| match refused {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let length = file.metadata()?.len();
        let mut block = [0; BLOCK_BYTES as usize];
        for at in (0..length).step_by(BLOCK_BYTES as usize) {
            let block = &mut block[..BLOCK_BYTES.min(length - at) as usize];
            file.seek(SeekFrom::Start(at))?;
            // One that cannot be read may be a free one: who verifies the file knows. One of zeros may be a hole, which needs no room.
            if file.read_exact(block).is_ok() && block.iter().any(|&byte| byte != 0) {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(block)?;
            }
        }
        file.set_len(length)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Held>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn open_database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        builder.open(path)
    }

    fn create_database(&self, builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
        builder.create(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        let backend = FileBackend::new(File::open(path)?).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }
}
