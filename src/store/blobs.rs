//! Large values as files of their own, or in memory for an ephemeral store; the same bytes in both.
//!
//! A blob is `[magic 8][format u32][0 u32][payload length u64][payload][checksum u64]`, numbers little-endian. The checksum
//! is xxh3 over the blob's name, its header and its payload. A blob takes its name, or the place of the one before, when it is
//! complete: temporary file, fsync, rename, fsync of the folder.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::disk::Disk;
use super::error::StoreError;
use super::lock::{parent_of, sync_folder};

const MAGIC: [u8; 8] = *b"epochdBL";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 4 + 8;
const CHECKSUM_BYTES: usize = 8;
/// Hashed and moved at a time, so that the bytes are still in the processor's cache for the second of the two.
const PIECE_BYTES: usize = 256 << 10;
const TEMPORARY_SUFFIX: &str = ".tmp";

/// What a blob is called: made of uids alone, never of a name that a caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum BlobName {
    /// The weights of a version. `blob` is drawn for each attempt to commit, since the version's number is only known after.
    Weights { uid: Uuid, blob: Uuid },
    /// Where the training of a version ended, beside its weights.
    Continuation { uid: Uuid, blob: Uuid },
    /// The rows of an unfinished job.
    Rows { job_id: Uuid },
    /// From where an unfinished job goes on after a crash. The one name that is used again: each checkpoint takes the place of the one
    /// before.
    Checkpoint { job_id: Uuid },
}

impl BlobName {
    pub fn parse(text: &str) -> Option<Self> {
        let ids = |ids: &str| {
            let (uid, blob) = ids.split_once('_')?;
            Some((Uuid::parse_str(uid).ok()?, Uuid::parse_str(blob).ok()?))
        };
        let name = if let Some(text) = text.strip_suffix(".weights") {
            let (uid, blob) = ids(text)?;
            Self::Weights { uid, blob }
        } else if let Some(text) = text.strip_suffix(".state") {
            let (uid, blob) = ids(text)?;
            Self::Continuation { uid, blob }
        } else if let Some(text) = text.strip_suffix(".checkpoint") {
            Self::Checkpoint { job_id: Uuid::parse_str(text).ok()? }
        } else {
            Self::Rows { job_id: Uuid::parse_str(text.strip_suffix(".rows")?).ok()? }
        };
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights { uid, blob } => write!(f, "{uid}_{blob}.weights"),
            Self::Continuation { uid, blob } => write!(f, "{uid}_{blob}.state"),
            Self::Rows { job_id } => write!(f, "{job_id}.rows"),
            Self::Checkpoint { job_id } => write!(f, "{job_id}.checkpoint"),
        }
    }
}

/// Whether a folder, which need not be there, holds a blob that is whole.
pub(super) fn holds_any(disk: &dyn Disk, folder: &Path) -> Result<bool, StoreError> {
    match disk.list(folder) {
        Ok(names) => Ok(names.iter().any(|name| name.to_str().is_some_and(|name| BlobName::parse(name).is_some()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io(format!("list the folder {}", folder.display()))(error)),
    }
}

/// The blobs of a store.
pub(super) enum Blobs {
    Folder { disk: Arc<dyn Disk>, folder: PathBuf },
    Memory(Mutex<HashMap<BlobName, Arc<[u8]>>>),
}

impl Blobs {
    /// The blobs in a folder, which is created where it is missing.
    pub fn in_folder(disk: Arc<dyn Disk>, folder: PathBuf) -> Result<Self, StoreError> {
        disk.create_folder(&folder).map_err(StoreError::io(format!("create the folder {}", folder.display())))?;
        sync_folder(&*disk, parent_of(&folder))?;
        Ok(Self::Folder { disk, folder })
    }

    /// Whether there is any; true in memory.
    pub fn holds_any(&self) -> Result<bool, StoreError> {
        match self {
            Self::Folder { disk, folder } => holds_any(&**disk, folder),
            Self::Memory(_) => Ok(true),
        }
    }

    pub fn in_memory() -> Self {
        Self::Memory(Mutex::new(HashMap::new()))
    }

    /// Writes a blob; when this returns `Ok`, it is on the disk. The payload is `parts`, one after another.
    pub fn write(&self, name: BlobName, parts: &[Cow<'_, [u8]>]) -> Result<(), StoreError> {
        match self {
            Self::Folder { disk, folder } => {
                let path = folder.join(name.to_string());
                let temporary = folder.join(format!("{name}{TEMPORARY_SUFFIX}"));
                let written = write_file(&**disk, &temporary, &path, name, parts);
                written.map_err(|cause| {
                    // The first fault is told; what it left is swept at the next start, if not now.
                    let _ = disk.remove(&temporary);
                    StoreError::io(format!("write {}", path.display()))(cause)
                })?;
                sync_folder(&**disk, folder).inspect_err(|_| {
                    // Nobody was told of it, and each attempt would leave another. A checkpoint took the place of one that is needed.
                    if !matches!(name, BlobName::Checkpoint { .. }) {
                        remove_file(&**disk, &path);
                    }
                })
            }
            Self::Memory(blobs) => {
                let mut bytes = Vec::with_capacity(blob_bytes(parts));
                write_blob(&mut bytes, name, parts).map_err(StoreError::io(format!("write {name}")))?;
                lock(blobs).insert(name, bytes.into());
                Ok(())
            }
        }
    }

    /// Opens a blob to read it; `None` where there is none.
    pub fn open(&self, name: BlobName) -> Result<Option<BlobReader>, StoreError> {
        match self {
            Self::Folder { disk, folder } => match disk.open(&folder.join(name.to_string())) {
                Ok((file, length)) => BlobReader::begin(name, file, length).map(Some),
                Err(error) if error.kind() == ErrorKind::NotFound => match disk.exists(folder) {
                    Ok(true) => Ok(None),
                    // Where the folder is gone, too, as that of a disk which is not mounted, nothing is known of what is in it.
                    Ok(false) => Err(read_error(name)(error)),
                    Err(error) => Err(read_error(name)(error)),
                },
                Err(error) => Err(read_error(name)(error)),
            },
            Self::Memory(blobs) => {
                let Some(bytes) = lock(blobs).get(&name).cloned() else { return Ok(None) };
                let length = bytes.len() as u64;
                BlobReader::begin(name, Box::new(Cursor::new(bytes)), length).map(Some)
            }
        }
    }

    /// Bytes of a blob; 0 where there is none that can be looked at.
    pub fn length(&self, name: BlobName) -> u64 {
        match self {
            Self::Folder { disk, folder } => disk.length(&folder.join(name.to_string())).unwrap_or(0),
            Self::Memory(blobs) => lock(blobs).get(&name).map_or(0, |bytes| bytes.len() as u64),
        }
    }

    /// Bytes of all blobs that can be looked at.
    pub fn total_bytes(&self) -> u64 {
        match self {
            Self::Folder { disk, folder } => {
                let names = disk.list(folder).unwrap_or_default();
                names.iter().filter_map(|name| disk.length(&folder.join(name)).ok()).sum()
            }
            Self::Memory(blobs) => lock(blobs).values().map(|bytes| bytes.len() as u64).sum(),
        }
    }

    /// Removes a blob that nothing refers to any more. A fault is only logged: the next start sweeps it.
    pub fn remove(&self, name: BlobName) {
        match self {
            Self::Folder { disk, folder } => remove_file(&**disk, &folder.join(name.to_string())),
            Self::Memory(blobs) => drop(lock(blobs).remove(&name)),
        }
    }

    /// Removes what interrupted writes left, and every blob that `is_needed` does not want. Files of other names are not
    /// ours, and stay.
    pub fn sweep(&self, is_needed: impl Fn(BlobName) -> bool) -> Result<usize, StoreError> {
        let Self::Folder { disk, folder } = self else { return Ok(0) };
        let mut swept = 0;
        for name in disk.list(folder).map_err(StoreError::io(format!("list the folder {}", folder.display())))? {
            let Some(text) = name.to_str() else { continue };
            let is_orphan = match text.strip_suffix(TEMPORARY_SUFFIX) {
                Some(text) => BlobName::parse(text).is_some(),
                None => BlobName::parse(text).is_some_and(|name| !is_needed(name)),
            };
            if is_orphan {
                remove_file(&**disk, &folder.join(text));
                swept += 1;
            }
        }
        Ok(swept)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_file(disk: &dyn Disk, path: &Path) {
    match disk.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file that is not needed any more cannot be removed");
        }
        _ => {}
    }
}

fn write_file(
    disk: &dyn Disk,
    temporary: &Path,
    path: &Path,
    name: BlobName,
    parts: &[Cow<'_, [u8]>],
) -> io::Result<()> {
    let mut file = disk.create(temporary)?;
    write_blob(&mut *file, name, parts)?;
    file.sync()?;
    drop(file);
    disk.rename(temporary, path)
}

fn blob_bytes(parts: &[Cow<'_, [u8]>]) -> usize {
    HEADER_BYTES + parts.iter().map(|part| part.len()).sum::<usize>() + CHECKSUM_BYTES
}

fn write_blob(sink: &mut (impl Write + ?Sized), name: BlobName, parts: &[Cow<'_, [u8]>]) -> io::Result<()> {
    let header = header((blob_bytes(parts) - HEADER_BYTES - CHECKSUM_BYTES) as u64);
    let mut hash = hash_of(name);
    for part in std::iter::once(header.as_slice()).chain(parts.iter().map(AsRef::as_ref)) {
        for piece in part.chunks(PIECE_BYTES) {
            hash.update(piece);
            sink.write_all(piece)?;
        }
    }
    sink.write_all(&hash.digest().to_le_bytes())
}

/// The header of a payload of `length` bytes.
fn header(length: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&0_u32.to_le_bytes());
    header.extend_from_slice(&length.to_le_bytes());
    header
}

fn hash_of(name: BlobName) -> Xxh3 {
    let mut hash = Xxh3::new();
    hash.update(name.to_string().as_bytes());
    hash
}

fn corrupt(name: BlobName) -> StoreError {
    StoreError::corrupt(format!("blobs/{name}"))
}

/// A file that is shorter than it says is damaged; any other fault is the operating system's.
fn read_error(name: BlobName) -> impl FnOnce(io::Error) -> StoreError {
    move |error| match error.kind() {
        ErrorKind::UnexpectedEof => corrupt(name),
        _ => StoreError::io(format!("read blobs/{name}"))(error),
    }
}

/// A blob being read. Nothing that came out of it may be used before [`BlobReader::finish`] said that all of it is right.
pub(super) struct BlobReader {
    name: BlobName,
    source: Box<dyn Read>,
    hash: Xxh3,
    remaining: u64,
}

impl BlobReader {
    fn begin(name: BlobName, source: Box<dyn Read>, file_bytes: u64) -> Result<Self, StoreError> {
        let mut reader = Self { name, source, hash: hash_of(name), remaining: HEADER_BYTES as u64 };
        let mut header = [0; HEADER_BYTES];
        reader.fill(&mut header)?;
        let frame_bytes = (HEADER_BYTES + CHECKSUM_BYTES) as u64;
        let told = header.last_chunk().map(|length| u64::from_le_bytes(*length));
        // What follows is allocated from this length: it must be the file's.
        let length = told.filter(|told| told.checked_add(frame_bytes) == Some(file_bytes));
        if header[..8] != MAGIC || header[8..12] != FORMAT.to_le_bytes() {
            return Err(corrupt(name));
        }
        reader.remaining = length.ok_or_else(|| corrupt(name))?;
        Ok(reader)
    }

    /// Bytes of the payload that are not read yet.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The error for a payload that makes no sense.
    pub fn corrupt(&self) -> StoreError {
        corrupt(self.name)
    }

    /// The next bytes of the payload.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), StoreError> {
        self.remaining = self.remaining.checked_sub(out.len() as u64).ok_or_else(|| self.corrupt())?;
        for piece in out.chunks_mut(PIECE_BYTES) {
            self.source.read_exact(piece).map_err(read_error(self.name))?;
            self.hash.update(piece);
        }
        Ok(())
    }

    /// How long the blob is, frame and payload, while nothing of its payload was read.
    pub fn blob_bytes(&self) -> u64 {
        self.remaining + (HEADER_BYTES + CHECKSUM_BYTES) as u64
    }

    /// Gives the whole blob, frame and payload, in pieces, and verifies it: after an error what was given is worth nothing.
    pub fn give<E: From<StoreError>>(mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        // The header's reserved bytes are not looked at elsewhere; they count in the checksum.
        take(&header(self.remaining))?;
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(self.remaining).unwrap_or(PIECE_BYTES))];
        while self.remaining > 0 {
            let length = piece.len().min(usize::try_from(self.remaining).unwrap_or(PIECE_BYTES));
            self.fill(&mut piece[..length])?;
            take(&piece[..length])?;
        }
        let checksum = self.hash.digest().to_le_bytes();
        self.finish()?;
        take(&checksum)
    }

    /// Verifies that all was read and is what was written.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let mut told = [0; CHECKSUM_BYTES];
        self.source.read_exact(&mut told).map_err(read_error(self.name))?;
        match self.remaining == 0 && self.hash.digest() == u64::from_le_bytes(told) {
            true => Ok(()),
            false => Err(self.corrupt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::disk::FileSystem;

    fn in_folder(folder: &Path) -> Blobs {
        Blobs::in_folder(Arc::new(FileSystem), folder.to_owned()).unwrap()
    }

    fn rows() -> BlobName {
        BlobName::Rows { job_id: Uuid::now_v7() }
    }

    fn read(blobs: &Blobs, name: BlobName) -> Result<Vec<u8>, StoreError> {
        let mut reader = blobs.open(name)?.expect("the blob is there");
        let mut bytes = vec![0; reader.remaining() as usize];
        reader.fill(&mut bytes)?;
        reader.finish()?;
        Ok(bytes)
    }

    #[test]
    fn a_name_reads_back_and_nothing_else_is_a_name() {
        let (uid, blob) = (Uuid::now_v7(), Uuid::now_v7());
        for name in [
            rows(),
            BlobName::Weights { uid, blob },
            BlobName::Continuation { uid, blob },
            BlobName::Checkpoint { job_id: uid },
        ] {
            assert_eq!(BlobName::parse(&name.to_string()), Some(name));
            assert_eq!(BlobName::parse(&name.to_string().to_uppercase()), None);
        }
        for text in ["", ".rows", "notes.txt", "_.weights", "a_b.weights", "../x.rows"] {
            assert_eq!(BlobName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_blob_reads_back_from_a_folder_and_from_memory() {
        let folder = tempfile::tempdir().unwrap();
        for blobs in [in_folder(&folder.path().join("blobs")), Blobs::in_memory()] {
            let (name, other) = (rows(), rows());
            let large = vec![7; PIECE_BYTES + 1];
            blobs.write(name, &[Cow::Borrowed(b"abc"), Cow::Borrowed(&large)]).unwrap();
            blobs.write(other, &[]).unwrap();
            assert_eq!(read(&blobs, name).unwrap(), [&b"abc"[..], &large].concat());
            assert_eq!(read(&blobs, other).unwrap(), b"");
            blobs.remove(name);
            blobs.remove(name);
            assert!(blobs.open(name).unwrap().is_none());
        }
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let name = rows();
        blobs.write(name, &[Cow::Borrowed(b"some payload")]).unwrap();
        let path = folder.path().join(name.to_string());
        let good = fs::read(&path).unwrap();
        let is_noticed = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            matches!(read(&blobs, name), Err(StoreError::Corrupt { what }) if what.contains(&name.to_string()))
        };
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(is_noticed(&bad), "byte {at}");
            assert!(is_noticed(&good[..at]), "cut at {at}");
        }
        assert!(is_noticed(&[&good[..], b"x"].concat()));
        let moved = rows();
        fs::write(folder.path().join(moved.to_string()), &good).unwrap();
        assert!(read(&blobs, moved).is_err());
    }

    #[test]
    fn a_sweep_takes_temporary_files_and_orphans_and_leaves_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = in_folder(folder.path());
        let (needed, orphan) = (rows(), rows());
        blobs.write(needed, &[]).unwrap();
        blobs.write(orphan, &[]).unwrap();
        fs::write(folder.path().join(format!("{needed}.tmp")), "cut short").unwrap();
        fs::write(folder.path().join("notes.txt"), "an operator's").unwrap();
        assert_eq!(blobs.sweep(|name| name == needed).unwrap(), 2);
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = [needed.to_string(), "notes.txt".to_owned()];
        expected.sort();
        assert_eq!(left, expected);
    }
}
