//! A blob that is read: from a file, or from memory.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::mem;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::blobs::{
    BlobName, CHECKSUM_BYTES, FORMAT, HEADER_BYTES, MAGIC, PIECE_BYTES, corrupt, hash_of, header, read_error,
};
use super::error::StoreError;

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
        for piece in out.chunks_mut(PIECE_BYTES) {
            self.source.read_exact(piece).map_err(read_error(self.name))?;
            self.hash.update(piece);
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
