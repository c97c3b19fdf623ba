//! Large values as files of their own, or in memory for an ephemeral store; the same bytes in both.
//!
//! A blob is `[magic 8][format u32][0 u32][payload length u64][payload][checksum u64]`, numbers little-endian. The checksum
//! is xxh3 over the blob's name, its header and its payload. A blob takes its name, or the place of the one before, when it is
//! complete: temporary file, fsync, rename, fsync of the folder.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use super::blob_reader::{BlobReader, Source};
use super::disk::Disk;
use super::error::StoreError;
use super::lock::{parent_of, sync_folder};

pub(super) const MAGIC: [u8; 8] = *b"epochdBL";
pub(super) const FORMAT: u32 = 1;
pub(super) const HEADER_BYTES: usize = 8 + 4 + 4 + 8;
pub(super) const CHECKSUM_BYTES: usize = 8;
/// Hashed and moved at a time, so that the bytes are still in the processor's cache for the second of the two, where one thread does both.
pub(super) const PIECE_BYTES: usize = 256 << 10;
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

/// A part of a blob's payload.
pub(super) enum Part<'a> {
    Number([u8; 8]),
    /// Copied, where the blob is in memory.
    Lent(&'a [u8]),
    /// Of a buffer that is never changed: a blob in memory holds it, too.
    Shared(Bytes),
}

impl AsRef<[u8]> for Part<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Number(bytes) => bytes,
            Self::Lent(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Part<'_> {
    fn to_shared(&self) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes.clone(),
            other => Bytes::copy_from_slice(other.as_ref()),
        }
    }
}

/// The blobs of a store.
pub(super) enum Blobs {
    Folder {
        disk: Arc<dyn Disk>,
        folder: PathBuf,
    },
    /// Header, parts and checksum of each.
    Memory(Mutex<HashMap<BlobName, Vec<Bytes>>>),
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
    pub fn write(&self, name: BlobName, parts: &[Part<'_>]) -> Result<(), StoreError> {
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
                lock(blobs).insert(name, pieces(name, parts));
                Ok(())
            }
        }
    }

    /// Opens a blob to read it; `None` where there is none.
    pub fn open(&self, name: BlobName) -> Result<Option<BlobReader>, StoreError> {
        match self {
            Self::Folder { disk, folder } => match disk.open(&folder.join(name.to_string())) {
                Ok((file, length)) => BlobReader::begin(name, Source::File(file), length).map(Some),
                Err(error) if error.kind() == ErrorKind::NotFound => match disk.exists(folder) {
                    Ok(true) => Ok(None),
                    // Where the folder is gone, too, as that of a disk which is not mounted, nothing is known of what is in it.
                    Ok(false) => Err(read_error(name)(error)),
                    Err(error) => Err(read_error(name)(error)),
                },
                Err(error) => Err(read_error(name)(error)),
            },
            Self::Memory(blobs) => {
                let Some(pieces) = lock(blobs).get(&name).cloned() else { return Ok(None) };
                let length = pieces_bytes(&pieces);
                BlobReader::begin(name, Source::Memory(pieces.into()), length).map(Some)
            }
        }
    }

    /// Bytes of a blob; 0 where there is none that can be looked at.
    pub fn length(&self, name: BlobName) -> u64 {
        match self {
            Self::Folder { disk, folder } => disk.length(&folder.join(name.to_string())).unwrap_or(0),
            Self::Memory(blobs) => lock(blobs).get(&name).map_or(0, |pieces| pieces_bytes(pieces)),
        }
    }

    /// Bytes of all blobs that can be looked at.
    pub fn total_bytes(&self) -> u64 {
        match self {
            Self::Folder { disk, folder } => {
                let names = disk.list(folder).unwrap_or_default();
                names.iter().filter_map(|name| disk.length(&folder.join(name)).ok()).sum()
            }
            Self::Memory(blobs) => lock(blobs).values().map(|pieces| pieces_bytes(pieces)).sum(),
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

fn write_file(disk: &dyn Disk, temporary: &Path, path: &Path, name: BlobName, parts: &[Part<'_>]) -> io::Result<()> {
    let mut file = disk.create(temporary)?;
    write_blob(&mut *file, name, parts)?;
    file.sync()?;
    drop(file);
    disk.rename(temporary, path)
}

fn write_blob(sink: &mut (impl Write + ?Sized), name: BlobName, parts: &[Part<'_>]) -> io::Result<()> {
    let header = header_of(parts);
    let mut hash = hash_of(name);
    for part in std::iter::once(header.as_slice()).chain(parts.iter().map(AsRef::as_ref)) {
        for piece in part.chunks(PIECE_BYTES) {
            hash.update(piece);
            sink.write_all(piece)?;
        }
    }
    sink.write_all(&hash.digest().to_le_bytes())
}

/// The same bytes for memory: what is shared is not copied.
fn pieces(name: BlobName, parts: &[Part<'_>]) -> Vec<Bytes> {
    let header = header_of(parts);
    let mut hash = hash_of(name);
    hash.update(&header);
    parts.iter().for_each(|part| hash.update(part.as_ref()));
    let checksum = Bytes::copy_from_slice(&hash.digest().to_le_bytes());
    let payload = parts.iter().map(Part::to_shared);
    std::iter::once(header.into()).chain(payload).chain([checksum]).collect()
}

fn pieces_bytes(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

fn header_of(parts: &[Part<'_>]) -> Vec<u8> {
    header(parts.iter().map(|part| part.as_ref().len() as u64).sum())
}

/// The header of a payload of `length` bytes.
pub(super) fn header(length: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&0_u32.to_le_bytes());
    header.extend_from_slice(&length.to_le_bytes());
    header
}

pub(super) fn hash_of(name: BlobName) -> Xxh3 {
    let mut hash = Xxh3::new();
    hash.update(name.to_string().as_bytes());
    hash
}

pub(super) fn corrupt(name: BlobName) -> StoreError {
    StoreError::corrupt(format!("blobs/{name}"))
}

/// A file that is shorter than it says is damaged; any other fault is the operating system's.
pub(super) fn read_error(name: BlobName) -> impl FnOnce(io::Error) -> StoreError {
    move |error| match error.kind() {
        ErrorKind::UnexpectedEof => corrupt(name),
        _ => StoreError::io(format!("read blobs/{name}"))(error),
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
            blobs.write(name, &[Part::Lent(b"abc"), Part::Shared(large.clone().into())]).unwrap();
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
        blobs.write(name, &[Part::Lent(b"some payload")]).unwrap();
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
