//! A file that is read, with what would be written to it kept in memory: redb opens a file by writing to it, and a disk that
//! takes no writes may well be read.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{PoisonError, RwLock};

use redb::StorageBackend;

/// What is kept is kept in whole blocks of so many bytes.
const BLOCK_BYTES: u64 = 4 << 10;

/// Never writes to what is below it. What was written is gone with it.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Box<dyn StorageBackend>,
    above: RwLock<Above>,
}

#[derive(Debug)]
struct Above {
    length: u64,
    /// The bytes of what is below that still count: fewer once it was cut.
    below_length: u64,
    /// Blocks that were written, by their number.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub fn over(below: Box<dyn StorageBackend>) -> io::Result<Self> {
        let length = below.len()?;
        let above = Above { length, below_length: length, blocks: BTreeMap::new() };
        Ok(Self { below, above: RwLock::new(above) })
    }

    /// Bytes that are below, and zeros after its end.
    fn read_below(&self, above: &Above, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = above.below_length.saturating_sub(offset).min(out.len() as u64) as usize;
        let (read, after) = out.split_at_mut(there);
        after.fill(0);
        if read.is_empty() { Ok(()) } else { self.below.read(offset, read) }
    }

    fn block(&self, above: &Above, number: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        self.read_below(above, number * BLOCK_BYTES, &mut block)?;
        Ok(block)
    }
}

/// Where a range lies in each block that it touches: the block's number, the offset in it, and the range's part.
fn pieces(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let inside = (at % BLOCK_BYTES) as usize;
        let count = (BLOCK_BYTES as usize - inside).min(bytes - done);
        let piece = (at / BLOCK_BYTES, inside, done..done + count);
        done += count;
        (count > 0).then_some(piece)
    })
}

fn check(above: &Above, offset: u64, bytes: usize) -> io::Result<()> {
    match offset.checked_add(bytes as u64).is_some_and(|end| end <= above.length) {
        true => Ok(()),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above.read().unwrap_or_else(PoisonError::into_inner).length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.above.read().unwrap_or_else(PoisonError::into_inner);
        check(&above, offset, out.len())?;
        if above.blocks.is_empty() {
            return self.read_below(&above, offset, out);
        }
        for (number, inside, range) in pieces(offset, out.len()) {
            let out = &mut out[range];
            match above.blocks.get(&number) {
                Some(block) => out.copy_from_slice(&block[inside..inside + out.len()]),
                None => self.read_below(&above, number * BLOCK_BYTES + inside as u64, out)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.above.write().unwrap_or_else(PoisonError::into_inner);
        if len < above.length {
            above.below_length = above.below_length.min(len);
            above.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            let inside = (len % BLOCK_BYTES) as usize;
            if let Some(last) = above.blocks.get_mut(&(len / BLOCK_BYTES)) {
                last[inside..].fill(0);
            }
        }
        above.length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above.write().unwrap_or_else(PoisonError::into_inner);
        check(&above, offset, data.len())?;
        for (number, inside, range) in pieces(offset, data.len()) {
            if !above.blocks.contains_key(&number) {
                let block = self.block(&above, number)?;
                above.blocks.insert(number, block);
            }
            if let Some(block) = above.blocks.get_mut(&number) {
                block[inside..inside + range.len()].copy_from_slice(&data[range]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn bytes_of(backend: &dyn StorageBackend) -> Vec<u8> {
        let mut bytes = vec![0; backend.len().unwrap() as usize];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn it_reads_as_if_all_had_been_written_and_what_is_below_stays(
            length in 1..20_000_usize,
            changes in proptest::collection::vec((any::<u16>(), 0..9_000_usize, any::<bool>()), 0..12),
        ) {
            let mut expected: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let below = InMemoryBackend::new();
            below.set_len(length as u64).unwrap();
            below.write(0, &expected).unwrap();
            let overlay = Overlay::over(Box::new(below)).unwrap();
            for (index, (at, bytes, is_resized)) in changes.into_iter().enumerate() {
                if is_resized {
                    expected.resize(usize::from(at), 0);
                    overlay.set_len(u64::from(at)).unwrap();
                } else {
                    let at = usize::from(at) % (expected.len() + 1);
                    let data = vec![200 + index as u8; bytes.min(expected.len() - at)];
                    expected[at..at + data.len()].copy_from_slice(&data);
                    overlay.write(at as u64, &data).unwrap();
                }
                prop_assert_eq!(&bytes_of(&overlay), &expected);
            }
            prop_assert!(overlay.read(expected.len() as u64, &mut [0]).is_err());
            prop_assert!(overlay.write(expected.len() as u64, &[0]).is_err());
            prop_assert_eq!(bytes_of(&*overlay.below), (0..length).map(|at| at as u8).collect::<Vec<_>>());
        }
    }
}
