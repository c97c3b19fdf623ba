//! What a disk holds: as it is seen now, and as it is beyond a power cut.

use std::collections::{BTreeMap, HashSet};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Random;

/// What changes a disk. A file is its number, which it keeps under any name.
#[derive(Clone, Debug)]
pub enum Change {
    CreateFolder(PathBuf),
    Create(PathBuf),
    Write {
        file: usize,
        offset: usize,
        data: Vec<u8>,
    },
    Resize {
        file: usize,
        length: usize,
    },
    Sync(usize),
    /// A sync that fails: of what was not synced some is durable, and the rest will never be, whatever a later sync says.
    FailSync(usize, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncFolder(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Folder,
    File(usize),
}

pub type Names = BTreeMap<PathBuf, Node>;

/// Names that change together, each to what it stands for from then on.
type Renaming = Vec<(PathBuf, Option<Node>)>;

#[derive(Clone, Debug, Default)]
pub struct State {
    files: Vec<Content>,
    names: Names,
    durable_names: Names,
    /// What happened to names since their folder was synced.
    pending: Vec<Renaming>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Arc<Vec<u8>>),
    Resize(usize),
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write(bytes, *offset, data),
            Self::Resize(length) => bytes.resize(*length, 0),
        }
    }

    /// As it may be after a power cut: each sector of a write is there or not. What is not there of a file's new end may be
    /// anything.
    fn tear(&self, bytes: &mut Vec<u8>, durable: usize, sector: usize, random: &mut Random) {
        let Self::Write(offset, data) = self else {
            if random.coin() {
                self.apply(bytes);
            }
            return;
        };
        let mut at = 0;
        while at < data.len() {
            let end = (at + sector - (offset + at) % sector).min(data.len());
            if random.coin() {
                write(bytes, offset + at, &data[at..end]);
            } else if offset + at >= durable && random.coin() {
                write(bytes, offset + at, &vec![0x5a; end - at]);
            }
            at = end;
        }
    }
}

impl Content {
    fn change(&mut self, pending: Pending) {
        pending.apply(Arc::make_mut(&mut self.bytes));
        self.pending.push(pending);
    }

    fn sync(&mut self) {
        if !self.pending.is_empty() {
            let durable = Arc::make_mut(&mut self.durable);
            self.pending.drain(..).for_each(|pending| pending.apply(durable));
        }
    }

    fn survivor(&self, random: &mut Random) -> Arc<Vec<u8>> {
        if self.pending.is_empty() {
            return Arc::clone(&self.durable);
        }
        let mut bytes = self.durable.to_vec();
        let sector = [8, 512, 4_096][random.below(3)];
        // Nothing, everything, all before one that is torn, or any of them.
        let (kept, torn) = match random.below(4) {
            0 => (0, 0),
            1 => (self.pending.len(), 0),
            2 => (random.below(self.pending.len()), 1),
            _ => (0, self.pending.len()),
        };
        self.pending[..kept].iter().for_each(|pending| pending.apply(&mut bytes));
        for pending in self.pending[kept..].iter().take(torn) {
            pending.tear(&mut bytes, self.durable.len(), sector, random);
        }
        Arc::new(bytes)
    }
}

impl State {
    /// Does it, where it can be done.
    pub fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::CreateFolder(path) => {
                if self.names.get(path) != Some(&Node::Folder) {
                    self.parent_is_there(path)?;
                    self.rename(vec![(path.clone(), Some(Node::Folder))]);
                }
            }
            Change::Create(path) => self.create(path)?,
            Change::Write { file, offset, data } => {
                self.files[*file].change(Pending::Write(*offset, Arc::new(data.clone())));
            }
            Change::Resize { file, length } => self.files[*file].change(Pending::Resize(*length)),
            Change::Sync(file) => self.files[*file].sync(),
            Change::FailSync(file, seed) => {
                let content = &mut self.files[*file];
                content.durable = content.survivor(&mut Random::new(*seed));
                content.pending.clear();
            }
            Change::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent());
                let node = Node::File(self.file(from)?);
                self.rename(vec![(from.clone(), None), (to.clone(), Some(node))]);
            }
            Change::Remove(path) => {
                self.file(path)?;
                self.rename(vec![(path.clone(), None)]);
            }
            Change::SyncFolder(folder) => self.sync_folder(folder)?,
        }
        Ok(())
    }

    fn create(&mut self, path: &Path) -> Result<()> {
        if let Ok(file) = self.file(path) {
            self.files[file].change(Pending::Resize(0));
            return Ok(());
        }
        self.parent_is_there(path)?;
        self.files.push(Content::default());
        self.rename(vec![(path.to_owned(), Some(Node::File(self.files.len() - 1)))]);
        Ok(())
    }

    fn rename(&mut self, renaming: Renaming) {
        set_names(&mut self.names, &renaming);
        self.pending.push(renaming);
    }

    fn sync_folder(&mut self, folder: &Path) -> Result<()> {
        if !self.is_folder(folder) {
            return Err(ErrorKind::NotFound.into());
        }
        let is_in = |renaming: &Renaming| renaming[0].0.parent() == Some(folder);
        for renaming in self.pending.extract_if(.., |renaming| is_in(renaming)) {
            set_names(&mut self.durable_names, &renaming);
        }
        Ok(())
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || self.names.get(path) == Some(&Node::Folder)
    }

    fn parent_is_there(&self, path: &Path) -> Result<()> {
        match path.parent().is_some_and(|parent| self.is_folder(parent)) {
            true => Ok(()),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.is_folder(path) || self.names.contains_key(path)
    }

    /// The number of the file that has a name.
    pub fn file(&self, path: &Path) -> Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(Error::new(ErrorKind::NotFound, "no such file or directory")),
        }
    }

    pub fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        match self.is_folder(folder) {
            true => Ok(self.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect()),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    pub fn bytes(&self, file: usize) -> &[u8] {
        &self.files[file].bytes
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.names.iter().filter(|(_, node)| matches!(node, Node::File(_))).map(|(path, _)| path.clone()).collect()
    }

    /// Replaces a file's bytes, durably.
    pub fn set_bytes(&mut self, path: &Path, bytes: Vec<u8>) {
        let file = self.file(path).unwrap();
        let bytes = Arc::new(bytes);
        self.files[file] = Content { bytes: Arc::clone(&bytes), durable: bytes, pending: Vec::new() };
    }

    /// The names of a folder and of all that is in it, which are not seen from now on.
    pub fn take_names(&mut self, folder: &Path) -> Names {
        self.names.extract_if(.., |path, _| path.starts_with(folder)).collect()
    }

    pub fn put_names(&mut self, names: Names) {
        self.names.extend(names);
    }

    /// What a power cut leaves, one of many possible.
    pub fn survivor(&self, random: &mut Random) -> Self {
        let names = self.surviving_names(random);
        let files = self.files.iter().map(|content| {
            let bytes = content.survivor(random);
            Content { bytes: Arc::clone(&bytes), durable: bytes, pending: Vec::new() }
        });
        Self { files: files.collect(), durable_names: names.clone(), names, pending: Vec::new() }
    }

    /// What happened to one name happened in its order, and a renaming happened as a whole. Else any of it may be there.
    fn surviving_names(&self, random: &mut Random) -> Names {
        let mut names = self.durable_names.clone();
        let (mode, end) = (random.below(4), random.below(self.pending.len() + 1));
        let mut lost = HashSet::new();
        for (index, renaming) in self.pending.iter().enumerate() {
            let is_kept = match mode {
                0 => false,
                1 => true,
                2 => index < end,
                _ => random.coin(),
            };
            if is_kept && renaming.iter().all(|(path, _)| !lost.contains(path)) {
                set_names(&mut names, renaming);
            } else {
                lost.extend(renaming.iter().map(|(path, _)| path));
            }
        }
        // What is in a folder that is lost is lost with it.
        let folders: HashSet<PathBuf> =
            names.iter().filter(|(_, node)| **node == Node::Folder).map(|(path, _)| path.clone()).collect();
        let is_reached =
            |path: &Path| path.ancestors().skip(1).all(|folder| folder.parent().is_none() || folders.contains(folder));
        names.retain(|path, _| is_reached(path));
        names
    }
}

fn set_names(names: &mut Names, renaming: &Renaming) {
    for (path, node) in renaming {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}
