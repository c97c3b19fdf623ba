//! A disk in memory that fails on command, and that knows what a power cut would leave.
//!
//! Bytes are durable once their file was synced, names once their folder was. Of all else a power cut leaves any part: writes
//! in any order, torn between sectors; names that were given or taken, or not. After a sync that failed, what it was to
//! write is there or is lost, and no later sync brings it.

use std::ffi::OsString;
use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, Database, DatabaseError, StorageBackend, StorageError};

use crate::store::disk::{Disk, Held, NewFile};

mod state;

pub use state::{Change, Names, State};

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// What the store asks of a disk, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Look,
    List,
    Open,
    Read,
    Lock,
    OpenToWrite,
    CreateFolder,
    Create,
    Write,
    Resize,
    Sync,
    Rename,
    Remove,
    SyncFolder,
}

impl Kind {
    pub fn any(self) -> bool {
        true
    }

    pub fn is_write(self) -> bool {
        self == Self::Write
    }

    /// What a disk without room refuses.
    pub fn needs_room(self) -> bool {
        matches!(self, Self::CreateFolder | Self::Create | Self::Write | Self::Resize | Self::Sync | Self::SyncFolder)
    }

    /// What a disk that is mounted to be read only refuses.
    pub fn changes(self) -> bool {
        self.needs_room() || matches!(self, Self::OpenToWrite | Self::Rename | Self::Remove)
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, or in part where it is a sync.
    Refused,
    /// There is no room for it: half of a write is done.
    NoSpace,
    /// It is done, and said to have failed.
    Done,
    /// A write that says truly that it wrote a half. Nothing else is short.
    Short,
}

/// Which operations fail, and how. Those of other kinds are not counted.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub fault: Fault,
    pub kinds: fn(Kind) -> bool,
    /// The first that fails, from 0.
    pub from: usize,
    /// Those from the first on, or it alone.
    pub is_lasting: bool,
    /// Of those, how many in a hundred.
    pub percent: usize,
}

/// A handle of the disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<Live>>);

#[derive(Default)]
struct Live {
    state: State,
    /// What changed since the journal was begun.
    journal: Vec<Change>,
    locked: Vec<PathBuf>,
    plan: Option<Plan>,
    seen: usize,
    fired: usize,
    random: u64,
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedDisk")
    }
}

fn refusal() -> Error {
    Error::other("input/output error")
}

fn no_space() -> Error {
    Error::new(ErrorKind::StorageFull, "no space left on device")
}

impl Live {
    /// The fault of the next operation.
    fn fault(&mut self, kind: Kind) -> Option<Fault> {
        let plan = self.plan.filter(|plan| (plan.kinds)(kind))?;
        let number = self.seen;
        self.seen += 1;
        let is_meant = number == plan.from || plan.is_lasting && number > plan.from;
        if !is_meant || self.next_random() as usize % 100 >= plan.percent {
            return None;
        }
        if plan.fault == Fault::Short && kind != Kind::Write {
            return None;
        }
        self.fired += 1;
        Some(plan.fault)
    }

    fn next_random(&mut self) -> u64 {
        let mut random = Random::new(self.random);
        self.random = random.next();
        self.random
    }

    fn apply(&mut self, change: Change) -> Result<()> {
        self.state.apply(&change)?;
        self.journal.push(change);
        Ok(())
    }

    /// Fails it without doing it. A sync has done a part.
    fn refuse(&mut self, change: &Change) {
        if let Change::Sync(file) = change {
            let seed = self.next_random();
            self.apply(Change::FailSync(*file, seed)).unwrap();
        }
    }
}

fn halved(change: &Change) -> Option<Change> {
    let Change::Write { file, offset, data } = change else { return None };
    Some(Change::Write { file: *file, offset: *offset, data: data[..data.len() / 2].to_vec() })
}

impl SimulatedDisk {
    pub fn of_state(state: State) -> Self {
        Self(Arc::new(Mutex::new(Live { state, ..Live::default() })))
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.0.lock().unwrap()
    }

    /// A copy of what it holds.
    pub fn state(&self) -> State {
        self.live().state.clone()
    }

    /// A disk that holds the same, synced or not as this one's.
    pub fn fork(&self) -> Self {
        Self::of_state(self.state())
    }

    /// A disk as a power cut may leave this one.
    pub fn cut(&self, seed: u64) -> Self {
        Self::of_state(self.state().survivor(&mut Random::new(seed)))
    }

    pub fn plan(&self, plan: Plan, seed: u64) {
        let mut live = self.live();
        (live.plan, live.seen, live.fired, live.random) = (Some(plan), 0, 0, seed);
    }

    /// Ends the faults; how many there were.
    pub fn lift(&self) -> usize {
        let mut live = self.live();
        live.plan = None;
        live.fired
    }

    /// Takes a folder away with all that is in it, until it is mounted again.
    pub fn unmount(&self, folder: &Path) -> Names {
        self.live().state.take_names(folder)
    }

    pub fn mount(&self, names: Names) {
        self.live().state.put_names(names);
    }

    /// How many changes there were so far.
    pub fn changes(&self) -> usize {
        self.live().journal.len()
    }

    pub fn journal(&self) -> Vec<Change> {
        self.live().journal.clone()
    }

    fn look<T>(&self, kind: Kind, look: impl FnOnce(&State) -> Result<T>) -> Result<T> {
        let mut live = self.live();
        match live.fault(kind) {
            None | Some(Fault::Short) => look(&live.state),
            Some(Fault::NoSpace) => Err(no_space()),
            Some(Fault::Refused | Fault::Done) => Err(refusal()),
        }
    }

    fn change(&self, kind: Kind, change: Change) -> Result<()> {
        let mut live = self.live();
        match live.fault(kind) {
            None | Some(Fault::Short) => live.apply(change),
            Some(Fault::Refused) => {
                live.refuse(&change);
                Err(refusal())
            }
            Some(Fault::NoSpace) => {
                match halved(&change) {
                    Some(half) => live.apply(half)?,
                    None => live.refuse(&change),
                }
                Err(no_space())
            }
            Some(Fault::Done) => live.apply(change).and(Err(refusal())),
        }
    }

    /// Writes all of `data`, or says how much of it.
    fn write_some(&self, file: usize, offset: usize, data: &[u8]) -> Result<usize> {
        let change = Change::Write { file, offset, data: data.to_vec() };
        let mut live = self.live();
        let is_short = live.plan.is_some_and(|plan| plan.fault == Fault::Short);
        if is_short && data.len() > 1 && live.fault(Kind::Write).is_some() {
            let half = halved(&change).unwrap();
            return live.apply(half).map(|()| data.len() / 2);
        }
        drop(live);
        self.change(Kind::Write, change).map(|()| data.len())
    }

    fn database(&self, builder: &Builder, file: usize) -> std::result::Result<Database, DatabaseError> {
        builder.create_with_backend(Bytes { disk: self.clone(), file })
    }
}

impl Disk for SimulatedDisk {
    fn exists(&self, path: &Path) -> Result<bool> {
        self.look(Kind::Look, |state| Ok(state.exists(path)))
    }

    fn length(&self, path: &Path) -> Result<u64> {
        self.look(Kind::Look, |state| Ok(state.bytes(state.file(path)?).len() as u64))
    }

    fn list(&self, folder: &Path) -> Result<Vec<OsString>> {
        let paths = self.look(Kind::List, |state| state.list(folder))?;
        Ok(paths.into_iter().map(|path| path.file_name().unwrap().to_owned()).collect())
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        self.change(Kind::CreateFolder, Change::CreateFolder(folder.to_owned()))
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.change(Kind::SyncFolder, Change::SyncFolder(folder.to_owned()))
    }

    fn open(&self, path: &Path) -> Result<(Box<dyn Read>, u64)> {
        let (file, length) = self.look(Kind::Open, |state| {
            let file = state.file(path)?;
            Ok((file, state.bytes(file).len() as u64))
        })?;
        Ok((Box::new(Sequence { disk: self.clone(), file, at: 0 }), length))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn NewFile>> {
        self.change(Kind::Create, Change::Create(path.to_owned()))?;
        let file = self.live().state.file(path)?;
        Ok(Box::new(Sequence { disk: self.clone(), file, at: 0 }))
    }

    fn sync(&self, path: &Path) -> Result<()> {
        let file = self.look(Kind::Open, |state| state.file(path))?;
        self.change(Kind::Sync, Change::Sync(file))
    }

    fn write_again(&self, path: &Path) -> Result<()> {
        let bytes = Bytes { disk: self.clone(), file: self.look(Kind::OpenToWrite, |state| state.file(path))? };
        let mut piece = vec![0; bytes.len()? as usize];
        bytes.read(0, &mut piece)?;
        bytes.write(0, &piece)?;
        bytes.set_len(piece.len() as u64)?;
        bytes.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change(Kind::Rename, Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.change(Kind::Remove, Change::Remove(path.to_owned()))
    }

    fn lock(&self, path: &Path) -> Result<Option<Held>> {
        self.look(Kind::Lock, |_| Ok(()))?;
        let mut live = self.live();
        if live.locked.iter().any(|locked| locked == path) {
            return Ok(None);
        }
        live.apply(Change::Create(path.to_owned()))?;
        live.locked.push(path.to_owned());
        Ok(Some(Box::new(Lock(self.clone(), path.to_owned()))))
    }

    fn open_database(&self, builder: &Builder, path: &Path) -> std::result::Result<Database, DatabaseError> {
        let found = self.look(Kind::OpenToWrite, |state| {
            let file = state.file(path)?;
            Ok((file, state.bytes(file).is_empty()))
        });
        let (file, is_empty) = found.map_err(StorageError::Io)?;
        // As redb refuses it in a file.
        if is_empty {
            return Err(StorageError::Io(Error::new(ErrorKind::InvalidData, "the file is empty")).into());
        }
        self.database(builder, file)
    }

    fn create_database(&self, builder: &Builder, path: &Path) -> std::result::Result<Database, DatabaseError> {
        self.change(Kind::Create, Change::Create(path.to_owned())).map_err(StorageError::Io)?;
        let file = self.live().state.file(path).map_err(StorageError::Io)?;
        self.database(builder, file)
    }

    fn open_to_read(&self, path: &Path) -> Result<Box<dyn StorageBackend>> {
        let file = self.look(Kind::Open, |state| state.file(path))?;
        Ok(Box::new(Bytes { disk: self.clone(), file }))
    }
}

struct Lock(SimulatedDisk, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.live().locked.retain(|locked| *locked != self.1);
    }
}

/// A file that is read or written from its beginning to its end.
struct Sequence {
    disk: SimulatedDisk,
    file: usize,
    at: usize,
}

impl Read for Sequence {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        let read = self.disk.look(Kind::Read, |state| {
            let rest = &state.bytes(self.file)[self.at..];
            let count = rest.len().min(out.len());
            out[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })?;
        self.at += read;
        Ok(read)
    }
}

impl Write for Sequence {
    fn write(&mut self, data: &[u8]) -> Result<usize> {
        let written = self.disk.write_some(self.file, self.at, data)?;
        self.at += written;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl NewFile for Sequence {
    fn sync(&mut self) -> Result<()> {
        self.disk.change(Kind::Sync, Change::Sync(self.file))
    }
}

/// A file that a database is in.
#[derive(Debug)]
struct Bytes {
    disk: SimulatedDisk,
    file: usize,
}

impl StorageBackend for Bytes {
    fn len(&self) -> Result<u64> {
        self.disk.look(Kind::Read, |state| Ok(state.bytes(self.file).len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.disk.look(Kind::Read, |state| {
            let range = offset as usize..offset as usize + out.len();
            out.copy_from_slice(state.bytes(self.file).get(range).ok_or(ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.disk.change(Kind::Resize, Change::Resize { file: self.file, length: len as usize })
    }

    fn sync_data(&self) -> Result<()> {
        self.disk.change(Kind::Sync, Change::Sync(self.file))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let change = Change::Write { file: self.file, offset: offset as usize, data: data.to_vec() };
        self.disk.change(Kind::Write, change)
    }
}
