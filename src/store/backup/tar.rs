//! The container of a backup: tar, as POSIX's ustar has it, so that any `tar` lists and unpacks it.
//!
//! What is read is compared with what would be written: a header with another bit than ours, or padding that is not zero, is
//! damage. So nothing in an archive is without a check, and no entry can have a name, a kind or a length that we did not choose.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::Xxh3;

/// Everything in an archive is a multiple of it.
const BLOCK_BYTES: usize = 512;
/// An archive ends with two blocks of zeros.
const END_BYTES: usize = 2 * BLOCK_BYTES;
const NAME_BYTES_MAX: usize = 99;
/// What a file begins with that gzip packed.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Moved at a time.
const PIECE_BYTES: usize = 256 << 10;

/// An entry, as its header tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub modified: u64,
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// It ends too soon.
    #[error("the archive ends {0}: it was cut short")]
    Cut(String),
    /// Some byte is not what a backup has there.
    #[error("{0}")]
    Damaged(String),
    /// The operating system refused.
    #[error("the archive cannot be read: {0}")]
    Io(io::Error),
}

impl Entry {
    /// Its header.
    fn header(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name.as_bytes());
        put(100, b"0000644\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, &number(self.bytes));
        put(136, &number(self.modified));
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// The entry of a header; `None` where no entry has it.
    fn parse(block: &[u8; BLOCK_BYTES]) -> Option<Self> {
        let name = block[..100].split(|byte| *byte == 0).next()?;
        let name = String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty())?;
        let field = |at: usize| block[at..at + 12].first_chunk().and_then(parse_number);
        let entry = Self { name, bytes: field(124)?, modified: field(136)? };
        (entry.name.len() <= NAME_BYTES_MAX && entry.header() == *block).then_some(entry)
    }
}

/// A number as eleven octal digits or, past those, in base 256 as GNU tar has it.
fn number(number: u64) -> [u8; 12] {
    let mut field = [0; 12];
    if number < 1 << 33 {
        field[..11].copy_from_slice(format!("{number:011o}").as_bytes());
    } else {
        field[0] = 0x80;
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
    field
}

fn parse_number(field: &[u8; 12]) -> Option<u64> {
    if field[0] == 0x80 {
        return field.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    }
    u64::from_str_radix(str::from_utf8(&field[..11]).ok()?, 8).ok()
}

/// Zeros that fill an entry's last block.
fn padding(bytes: u64) -> usize {
    (bytes.next_multiple_of(BLOCK_BYTES as u64) - bytes) as usize
}

/// Writes an archive, entry after entry.
pub(super) struct Writer<W> {
    sink: W,
    modified: u64,
    /// Of the entry that is being written.
    entry: Option<Entry>,
    written: u64,
    hash: Xxh3,
}

impl<W: Write> Writer<W> {
    pub fn new(sink: W, modified: u64) -> Self {
        Self { sink, modified, entry: None, written: 0, hash: Xxh3::new() }
    }

    /// Begins an entry of `bytes` bytes, which [`Writer::add`] gives.
    pub fn begin(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        if name.len() > NAME_BYTES_MAX || self.entry.is_some() {
            return Err(io::Error::other(format!("{name} cannot be an entry of an archive")));
        }
        let entry = Entry { name: name.to_owned(), bytes, modified: self.modified };
        self.sink.write_all(&entry.header())?;
        (self.entry, self.written, self.hash) = (Some(entry), 0, Xxh3::new());
        Ok(())
    }

    /// The next bytes of the entry.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.hash.update(bytes);
        self.sink.write_all(bytes)
    }

    /// Ends the entry: which it was, and the xxh3 of its bytes.
    pub fn end(&mut self) -> io::Result<(Entry, u64)> {
        let entry = self.entry.take().filter(|entry| entry.bytes == self.written);
        let entry =
            entry.ok_or_else(|| io::Error::other("an entry of the archive has another length than was said"))?;
        self.sink.write_all(&[0; BLOCK_BYTES][..padding(entry.bytes)])?;
        Ok((entry, self.hash.digest()))
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.sink.write_all(&[0; END_BYTES])?;
        self.sink.flush()
    }
}

/// Reads an archive, entry after entry.
pub(super) struct Reader<R> {
    source: R,
    position: u64,
    modified: Option<u64>,
}

impl<R: Read> Reader<R> {
    pub fn new(source: R) -> Self {
        Self { source, position: 0, modified: None }
    }

    /// The next entry, whose bytes [`Reader::copy`] gives; `None` at the end, after which nothing comes.
    pub fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let at = self.position;
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block, || format!("at byte {at}, before its manifest"))?;
        if block == [0; BLOCK_BYTES] && at > 0 {
            return self.end().map(|()| None);
        }
        let entry = Entry::parse(&block).filter(|entry| self.modified.is_none_or(|time| time == entry.modified));
        let Some(entry) = entry else {
            return Err(ArchiveError::Damaged(match at {
                0 if block.starts_with(&GZIP_MAGIC) => {
                    "it is packed: gunzip it first (gunzip -c FILE | epochd restore -)".to_owned()
                }
                0 => "this is no backup of epochd, or its first header is damaged".to_owned(),
                _ => format!("the header of an entry, at byte {at}, is damaged; what follows cannot be read"),
            }));
        };
        self.modified = Some(entry.modified);
        Ok(Some(entry))
    }

    /// Copies the bytes of the entry that came last: their xxh3, and whether the zeros behind them are zeros.
    pub fn copy(&mut self, entry: &Entry, sink: &mut dyn Write) -> Result<(u64, bool), CopyError> {
        let within = || format!("within {}", entry.name);
        let (mut hash, mut left) = (Xxh3::new(), entry.bytes);
        let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
        while left > 0 {
            let length = piece.len().min(usize::try_from(left).unwrap_or(PIECE_BYTES));
            let bytes = &mut piece[..length];
            self.fill(bytes, within)?;
            hash.update(bytes);
            sink.write_all(bytes).map_err(CopyError::Sink)?;
            left -= length as u64;
        }
        let mut zeros = [0; BLOCK_BYTES];
        let zeros = &mut zeros[..padding(entry.bytes)];
        self.fill(zeros, within)?;
        Ok((hash.digest(), zeros.iter().all(|byte| *byte == 0)))
    }

    /// The second block of zeros, and nothing behind it.
    fn end(&mut self) -> Result<(), ArchiveError> {
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block, || "within its last block".to_owned())?;
        let mut more = [0; 1];
        let is_at_end = self.source.read(&mut more).map_err(ArchiveError::Io)? == 0;
        match block == [0; BLOCK_BYTES] && is_at_end {
            true => Ok(()),
            false => Err(ArchiveError::Damaged("there are bytes behind the end of the archive".to_owned())),
        }
    }

    fn fill(&mut self, out: &mut [u8], place: impl Fn() -> String) -> Result<(), ArchiveError> {
        self.position += out.len() as u64;
        self.source.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Cut(place()),
            _ => ArchiveError::Io(error),
        })
    }
}

/// Why an entry could not be copied.
#[derive(Debug)]
pub(super) enum CopyError {
    Archive(ArchiveError),
    /// Where the bytes go did not take them.
    Sink(io::Error),
}

impl From<ArchiveError> for CopyError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, 1_790_000_000);
        for (name, content) in entries {
            writer.begin(name, content.len() as u64).unwrap();
            writer.add(content).unwrap();
            writer.end().unwrap();
        }
        writer.finish().unwrap();
        bytes
    }

    /// Every entry with its bytes, or the first fault.
    fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next().map_err(|error| error.to_string())? {
            let mut content = Vec::new();
            let (_, is_padded) = reader.copy(&entry, &mut content).map_err(|error| format!("{error:?}"))?;
            if !is_padded {
                return Err("padding".to_owned());
            }
            entries.push((entry.name, content));
        }
        Ok(entries)
    }

    #[test]
    fn an_archive_reads_back_and_every_bit_outside_of_the_contents_is_noticed() {
        let entries: [(&str, &[u8]); 3] = [("FORMAT", b"abc"), ("blobs/x", &[7; 1_024]), ("empty", b"")];
        let good = archive(&entries);
        let expected: Vec<_> = entries.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        assert_eq!(read(&good).unwrap(), expected);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let told = read(&bad);
            let is_content = told
                .as_ref()
                .is_ok_and(|told| told.len() == 3 && told.iter().zip(&expected).all(|(one, other)| one.0 == other.0));
            let in_content = (512..515).contains(&at) || (1_536..2_560).contains(&at);
            assert_eq!(is_content, in_content, "byte {at}: {told:?}");
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
        assert!(read(&[&good[..], b"x"].concat()).is_err());
    }

    #[test]
    fn numbers_of_any_size_read_back() {
        for value in [0, 1, 8, (1 << 33) - 1, 1 << 33, u64::MAX] {
            assert_eq!(parse_number(&number(value)), Some(value));
        }
    }
}
