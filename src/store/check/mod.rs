//! Every fault of a data folder, by name. Nothing is changed, created or repaired.
//!
//! Files come first, then redb's own pages, then each record, then what they say of one another. Damaged pages may end the process
//! (redb 4.6 can panic twice over one): whoever looks at a folder that may be damaged does it in a process of its own, and takes one
//! that ended without [`Line::Done`] for a fault of `records.redb`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::blobs::{BlobName, Blobs};
use super::disk::FileSystem;
use super::error::StoreError;
use super::lock::{self, FolderLock};
use super::{BLOBS_FOLDER, RECORDS_FILE, backup};

mod records;

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The key or the file.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
    /// Whether all that it is about is sound by itself, and only does not fit together, or is missing.
    #[serde(skip)]
    pub is_relation: bool,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Counts {
    pub models: u64,
    pub versions: u64,
    pub jobs: u64,
    pub unfinished_jobs: u64,
    pub chunks: u64,
    pub blobs: u64,
}

/// What is told of a folder, as it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Something is damaged.
    Fault(Finding),
    /// Something is left over, or not ours; it does no harm.
    Note(Finding),
    /// The last line: all was looked at.
    Done(Counts),
}

/// Keeps servers from taking a folder that is looked at. Dropped, it lets them.
pub struct Look {
    _lock: Option<FolderLock>,
}

impl Look {
    /// Fails where the folder is in use.
    pub fn begin(folder: &Path) -> Result<Self, StoreError> {
        Ok(Self { _lock: FolderLock::look(folder)? })
    }
}

/// What is known of a blob whose bytes are right: the numbers that its payload begins with (bits and count, of weights).
type Sound = HashMap<BlobName, [u64; 2]>;

struct Findings<'a> {
    tell: &'a mut dyn FnMut(Line),
    /// Whether what is sound by itself is compared now.
    is_relation: bool,
}

impl Findings<'_> {
    fn fault(&mut self, what: impl Into<String>, problem: impl Into<String>) {
        let finding = self.finding(what, problem);
        (self.tell)(Line::Fault(finding));
    }

    fn note(&mut self, what: impl Into<String>, problem: impl Into<String>) {
        let finding = self.finding(what, problem);
        (self.tell)(Line::Note(finding));
    }

    fn finding(&self, what: impl Into<String>, problem: impl Into<String>) -> Finding {
        Finding { what: what.into(), problem: problem.into(), is_relation: self.is_relation }
    }

    /// An error of the store's, which names what it is about.
    fn error(&mut self, what: impl Into<String>, error: &StoreError) {
        let what = what.into();
        let StoreError::Corrupt { what: inner } = error else { return self.fault(what, error.to_string()) };
        // What it names first is what is told already; the cause, where it is known, is in brackets behind it.
        let cause = inner.strip_prefix(&what).unwrap_or(inner).trim();
        let cause = cause.strip_prefix('(').and_then(|cause| cause.strip_suffix(')')).unwrap_or(cause);
        match cause {
            "" => self.fault(what, "it is damaged: its checksum or its form is wrong"),
            cause => self.fault(what, format!("it is damaged: {cause}")),
        }
    }
}

/// Looks at everything in a folder. May end the process: see the module.
pub fn check(folder: &Path, tell: &mut dyn FnMut(Line)) {
    let mut findings = Findings { tell, is_relation: false };
    if !folder.is_dir() {
        findings.fault(folder.display().to_string(), "it is no folder");
        return findings.done(Counts::default());
    }
    if is_empty(folder) {
        findings.fault(folder.display().to_string(), "it is empty: no server has kept anything in it");
        return findings.done(Counts::default());
    }
    top_level(folder, &mut findings);
    let (sound, damaged) = blobs(folder, &mut findings);
    let path = folder.join(RECORDS_FILE);
    let counts = match File::open(&path) {
        Ok(file) => records::check(file, &sound, &damaged, &mut findings),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.fault(RECORDS_FILE, "it is missing");
            Counts::default()
        }
        Err(error) => {
            findings.fault(RECORDS_FILE, format!("it cannot be opened: {error}"));
            Counts::default()
        }
    };
    findings.done(Counts { blobs: (sound.len() + damaged.len()) as u64, ..counts });
}

impl Findings<'_> {
    fn done(self, counts: Counts) {
        (self.tell)(Line::Done(counts));
    }
}

/// Whether there is nothing but a lock, and what file systems have in their roots.
fn is_empty(folder: &Path) -> bool {
    let is_nothing = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == lock::LOCK_FILE || entry.file_name() == lock::LOST_AND_FOUND)
    };
    fs::read_dir(folder).is_ok_and(|mut entries| entries.all(is_nothing))
}

fn top_level(folder: &Path, findings: &mut Findings<'_>) {
    match fs::read(folder.join(lock::FORMAT_FILE)) {
        Ok(text) if lock::is_known(&text) => {}
        Ok(text) => {
            let (text, known) = (String::from_utf8_lossy(&text).into_owned(), lock::format_text());
            findings.fault(lock::FORMAT_FILE, format!("it reads {text:?}, not {known:?}"));
        }
        Err(error) => findings.fault(lock::FORMAT_FILE, format!("it cannot be read: {error}")),
    }
    for name in names(folder, findings) {
        match name.as_str() {
            RECORDS_FILE | BLOBS_FOLDER | lock::FORMAT_FILE | lock::LOCK_FILE | lock::OPEN_FILE => {}
            lock::RESTORE_FILE => {
                findings.fault(name, "a restore was cut short; remove what is here, and restore again")
            }
            "MANIFEST" => findings.note(name, "of a backup that was unpacked by tar; it does no harm"),
            lock::LOST_AND_FOUND => {}
            "FORMAT.tmp" | "records.redb.tmp" => findings.note(name, "left over; it does no harm"),
            _ if backup::is_left_over(&name) => findings.note(name, "left over of a backup; the next start removes it"),
            _ => findings.note(name, "it is not epochd's"),
        }
    }
}

/// The names in a folder, in order.
fn names(folder: &Path, findings: &mut Findings<'_>) -> Vec<String> {
    let listed = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<Vec<_>>>()
    });
    match listed {
        Ok(mut names) => {
            names.sort();
            names
        }
        Err(error) => {
            findings.fault(folder.display().to_string(), format!("it cannot be listed: {error}"));
            Vec::new()
        }
    }
}

/// Every blob: those whose bytes are right, and the others.
fn blobs(folder: &Path, findings: &mut Findings<'_>) -> (Sound, Vec<BlobName>) {
    let folder = folder.join(BLOBS_FOLDER);
    let (mut sound, mut damaged) = (Sound::new(), Vec::new());
    let place = Blobs::Folder { disk: Arc::new(FileSystem), folder: folder.clone() };
    for text in names(&folder, findings) {
        let what = format!("{BLOBS_FOLDER}/{text}");
        let Some(name) = BlobName::parse(&text) else {
            let is_part = text.strip_suffix(".tmp").is_some_and(|text| BlobName::parse(text).is_some());
            let problem = if is_part { "left over; the next start removes it" } else { "it is not epochd's" };
            findings.note(what, problem);
            continue;
        };
        match read_blob(&place, name) {
            Ok(numbers) => drop(sound.insert(name, numbers)),
            Err(error) => {
                match (name, &error) {
                    (BlobName::Checkpoint { .. }, StoreError::Corrupt { .. }) => {
                        findings.fault(what, "it is damaged: its job will begin anew");
                    }
                    _ => findings.error(what, &error),
                }
                damaged.push(name);
            }
        }
    }
    (sound, damaged)
}

/// Reads a blob to its end: the first two numbers of its payload.
fn read_blob(blobs: &Blobs, name: BlobName) -> Result<[u64; 2], StoreError> {
    let gone = || StoreError::corrupt(format!("{BLOBS_FOLDER}/{name} (it is missing)"));
    let mut reader = blobs.open(name)?.ok_or_else(gone)?;
    let mut head = [0; 16];
    let length = reader.remaining().min(16) as usize;
    reader.fill(&mut head[..length])?;
    let mut piece = vec![0; 256 << 10];
    while reader.remaining() > 0 {
        let length = usize::try_from(reader.remaining()).unwrap_or(piece.len()).min(piece.len());
        reader.fill(&mut piece[..length])?;
    }
    reader.finish()?;
    let number = |at: usize| head[at..at + 8].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok([number(0), number(8)])
}
