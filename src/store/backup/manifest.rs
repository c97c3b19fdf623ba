//! The last entry of a backup: what every other one is, so that none can be missing, added or changed without notice.
//!
//! Text: `epochd backup 1`, then a line for each entry in the order of the archive (`<xxh3, 16 hex digits> <bytes> <name>`), then the
//! xxh3 of all lines before, as 16 hex digits.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

pub(super) const NAME: &str = "MANIFEST";
const HEAD: &str = "epochd backup 1";
/// Longer than any line of ours.
const LINE_BYTES_MAX: u64 = 256;

/// A manifest, kept in a file: a store may have any number of blobs.
pub(super) struct Manifest {
    file: BufWriter<File>,
    hash: Xxh3,
}

impl Manifest {
    /// Begins one in a new file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let mut manifest = Self { file: BufWriter::new(file), hash: Xxh3::new() };
        manifest.line(HEAD)?;
        Ok(manifest)
    }

    /// The next entry.
    pub fn add(&mut self, name: &str, bytes: u64, checksum: u64) -> io::Result<()> {
        self.line(&format!("{checksum:016x} {bytes} {name}"))
    }

    /// Ends it: the file, from its beginning.
    pub fn finish(&mut self) -> io::Result<File> {
        let checksum = self.hash.digest();
        writeln!(self.file, "{checksum:016x}")?;
        self.file.flush()?;
        let mut file = self.file.get_ref().try_clone()?;
        file.rewind()?;
        Ok(file)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{line}\n");
        self.hash.update(line.as_bytes());
        self.file.write_all(line.as_bytes())
    }
}

/// Compares the manifest that an archive carries with what was found in it; tells each fault.
pub(super) fn compare(told: &mut dyn Read, found: &mut dyn Read, mut fault: impl FnMut(String)) -> io::Result<()> {
    let (mut told, mut found) = (BufReader::new(told), BufReader::new(found));
    let mut hash = Xxh3::new();
    let mut is_head = true;
    loop {
        let before = format!("{:016x}\n", hash.digest());
        let (told_line, found_line) = (line(&mut told)?, line(&mut found)?);
        hash.update(told_line.as_bytes());
        match (name_of(&told_line), name_of(&found_line)) {
            _ if is_head && told_line == found_line => is_head = false,
            (Some(told), Some(found)) if told == found && !is_head => {
                if told_line != found_line {
                    fault(format!("{found} is damaged: it is not what the manifest says"));
                }
            }
            // The last lines: each the checksum of its own lines before.
            (None, None) if told_line == before && line(&mut told)?.is_empty() => return Ok(()),
            (told, found) => {
                let (told, found) = (told.unwrap_or("no entry"), found.unwrap_or("no entry"));
                fault(format!("{NAME} is damaged, or an entry is missing or added: {found} is there, it says {told}"));
                return Ok(());
            }
        }
    }
}

/// The next line with its end; empty at the end.
fn line(source: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    source.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn name_of(line: &str) -> Option<&str> {
    line.strip_suffix('\n')?.split(' ').nth(2)
}
