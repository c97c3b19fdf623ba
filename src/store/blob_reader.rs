//! A blob that is read: from a file, or from memory.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::blobs::{
    BlobName, CHECKSUM_BYTES, FORMAT, HEADER_BYTES, MAGIC, PIECE_BYTES, corrupt, hash_of, header, read_error,
};
use super::error::StoreError;

/// So many bytes of a file, which take some milliseconds, are hashed beside their reading.
const HASHED_BESIDE_BYTES_MIN: usize = 16 << 20;

/// Where the bytes of a blob are.
pub(super) enum Source {
    File(Box<dyn Read>),
    Memory(VecDeque<Bytes>),
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let pieces = match self {
            Self::File(file) => return file.read(out),
            Self::Memory(pieces) => pieces,
        };
        let Some(piece) = next_piece(pieces) else { return Ok(0) };
        let length = piece.len().min(out.len());
        out[..length].copy_from_slice(&piece.split_to(length));
        Ok(length)
    }
}

/// What is left of the first piece that was not read as a whole.
fn next_piece(pieces: &mut VecDeque<Bytes>) -> Option<&mut Bytes> {
    while pieces.front().is_some_and(Bytes::is_empty) {
        pieces.pop_front();
    }
    pieces.front_mut()
}

/// A blob being read. Nothing that came out of it may be used before [`BlobReader::finish`] said that all of it is right.
pub(super) struct BlobReader {
    name: BlobName,
    source: Source,
    hash: Xxh3,
    remaining: u64,
}

impl BlobReader {
    pub fn begin(name: BlobName, source: Source, file_bytes: u64) -> Result<Self, StoreError> {
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
        if out.len() >= HASHED_BESIDE_BYTES_MIN && !self.is_in_memory() {
            self.fill_hashed_beside(out)
        } else {
            self.fill_hashed_between(out)
        }
    }

    fn fill_hashed_between(&mut self, out: &mut [u8]) -> Result<(), StoreError> {
        for piece in out.chunks_mut(PIECE_BYTES) {
            self.source.read_exact(piece).map_err(read_error(self.name))?;
            self.hash.update(piece);
        }
        Ok(())
    }

    /// The same on two threads: one reads, the other hashes what was read. Of those others there are as many as read now, at most.
    fn fill_hashed_beside(&mut self, out: &mut [u8]) -> Result<(), StoreError> {
        let (name, mut hash) = (self.name, self.hash.clone());
        let hashed = thread::scope(|scope| {
            let (pieces, read) = mpsc::channel::<&[u8]>();
            let hasher = thread::Builder::new().name("epochd-hash".to_owned()).spawn_scoped(scope, move || {
                read.iter().for_each(|piece| hash.update(piece));
                hash
            });
            let Ok(hasher) = hasher else { return Ok(None) };
            for piece in out.chunks_mut(PIECE_BYTES) {
                self.source.read_exact(piece).map_err(read_error(name))?;
                // It is there until the last piece.
                let _ = pieces.send(piece);
            }
            drop(pieces);
            hasher.join().map(Some).or_else(|panic| resume_unwind(panic))
        })?;
        match hashed {
            Some(hash) => self.hash = hash,
            // The system gives no more threads.
            None => self.fill_hashed_between(out)?,
        }
        Ok(())
    }

    /// Whether [`shared`](Self::shared) copies nothing.
    pub fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// The next bytes of the payload, where they lie if they are one part of a blob in memory.
    pub fn shared(&mut self, length: u64) -> Result<Bytes, StoreError> {
        // No part is larger than a vector.
        let bytes = usize::try_from(length).ok().filter(|_| length <= self.remaining).ok_or_else(|| self.corrupt())?;
        if let Source::Memory(pieces) = &mut self.source
            && let Some(piece) = next_piece(pieces).filter(|piece| piece.len() == bytes)
        {
            let piece = mem::take(piece);
            self.hash.update(&piece);
            self.remaining -= length;
            return Ok(piece);
        }
        let mut copy = vec![0; bytes];
        self.fill(&mut copy)?;
        Ok(copy.into())
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
    use std::io::Cursor;

    use uuid::Uuid;

    use super::*;

    const PAYLOAD_BYTES: usize = 3 * PIECE_BYTES + 1_000;

    /// A blob as a file holds it.
    fn file() -> (BlobName, Vec<u8>) {
        let name = BlobName::Rows { job_id: Uuid::now_v7() };
        let payload: Vec<u8> = (0..PAYLOAD_BYTES).map(|index| (index % 251) as u8).collect();
        let mut hash = hash_of(name);
        let head = header(payload.len() as u64);
        hash.update(&head);
        hash.update(&payload);
        (name, [head, payload, hash.digest().to_le_bytes().to_vec()].concat())
    }

    fn reader(name: BlobName, file: impl Read + 'static) -> Result<BlobReader, StoreError> {
        let bytes = (HEADER_BYTES + PAYLOAD_BYTES + CHECKSUM_BYTES) as u64;
        BlobReader::begin(name, Source::File(Box::new(file)), bytes)
    }

    /// The payload, all but its first and last bytes by two threads.
    fn read(name: BlobName, file: impl Read + 'static) -> Result<Vec<u8>, StoreError> {
        const END: usize = 10;
        let mut reader = reader(name, file)?;
        let mut payload = vec![0; PAYLOAD_BYTES];
        reader.fill(&mut payload[..END])?;
        reader.fill_hashed_beside(&mut payload[END..PAYLOAD_BYTES - END])?;
        reader.remaining -= (PAYLOAD_BYTES - 2 * END) as u64;
        reader.fill(&mut payload[PAYLOAD_BYTES - END..])?;
        reader.finish().map(|()| payload)
    }

    #[test]
    fn what_is_hashed_beside_its_reading_is_verified_whole() {
        let (name, good) = file();
        let bytes = good.len();
        assert!(read(name, Cursor::new(good.clone())).unwrap() == good[HEADER_BYTES..bytes - CHECKSUM_BYTES]);
        let is_corrupt = |read: Result<_, _>| matches!(read, Err(StoreError::Corrupt { .. }));
        for at in [HEADER_BYTES, HEADER_BYTES + 10, bytes / 2, bytes - CHECKSUM_BYTES - 11, bytes - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(is_corrupt(read(name, Cursor::new(bad))), "byte {at}");
        }
        for left in [HEADER_BYTES, bytes / 2, bytes - 1] {
            assert!(is_corrupt(read(name, Cursor::new(good[..left].to_vec()))), "cut at {left}");
        }
    }

    /// Fails where what it has is over, as a disk does.
    struct Failing(Cursor<Vec<u8>>);

    impl Read for Failing {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(io::Error::other("the disk is gone")),
                length => Ok(length),
            }
        }
    }

    #[test]
    fn a_disk_that_fails_beside_the_hash_is_no_damage() {
        let (name, good) = file();
        let failing = Failing(Cursor::new(good[..good.len() / 2].to_vec()));
        assert!(matches!(read(name, failing), Err(StoreError::Io { .. })));
    }

    #[test]
    fn a_large_part_comes_to_the_same_as_its_pieces() {
        let name = BlobName::Rows { job_id: Uuid::now_v7() };
        let payload: Vec<u8> = (0..HASHED_BESIDE_BYTES_MIN + 1).map(|index| (index % 251) as u8).collect();
        let head = header(payload.len() as u64);
        let file = [head, payload.clone(), vec![0; CHECKSUM_BYTES]].concat();
        let bytes = file.len() as u64;
        let digest = |part_bytes: usize| {
            let mut reader = BlobReader::begin(name, Source::File(Box::new(Cursor::new(file.clone()))), bytes).unwrap();
            let mut read = vec![0; payload.len()];
            read.chunks_mut(part_bytes).for_each(|part| reader.fill(part).unwrap());
            assert!(read == payload && reader.remaining() == 0);
            reader.hash.digest()
        };
        assert_eq!(digest(payload.len()), digest(PIECE_BYTES));
    }
}
