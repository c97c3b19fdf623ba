//! A record file that is only read: what redb writes when it opens one stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const PAGE_BYTES: u64 = 4_096;

/// The file below, and the pages that were written since.
#[derive(Debug)]
pub(super) struct Overlay(Mutex<Pages>);

#[derive(Debug)]
struct Pages {
    file: File,
    /// Bytes of the file below that still show.
    shown: u64,
    length: u64,
    written: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self(Mutex::new(Pages { file, shown: length, length, written: BTreeMap::new() })))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn page(&mut self, index: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = self.written.get(&index) {
            return Ok(page.clone());
        }
        let mut page = Vec::new();
        let start = index * PAGE_BYTES;
        self.file.seek(SeekFrom::Start(start))?;
        (&self.file).take(self.shown.saturating_sub(start).min(PAGE_BYTES)).read_to_end(&mut page)?;
        page.resize(PAGE_BYTES as usize, 0);
        Ok(page)
    }

    /// Each page that a range of bytes touches: its index, and the part of it.
    fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
        let end = offset + length as u64;
        (offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(move |index| {
            let start = index * PAGE_BYTES;
            let from = offset.max(start) - start;
            let to = end.min(start + PAGE_BYTES) - start;
            (index, from as usize, to as usize)
        })
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.pages().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut pages = self.pages();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > pages.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (index, from, to) in Pages::parts(offset, out.len()) {
            let page = pages.page(index)?;
            out[done..done + to - from].copy_from_slice(&page[from..to]);
            done += to - from;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut pages = self.pages();
        pages.shown = pages.shown.min(length);
        pages.length = length;
        pages.written.retain(|index, _| index * PAGE_BYTES < length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut pages = self.pages();
        let mut done = 0;
        for (index, from, to) in Pages::parts(offset, data.len()) {
            let mut page = pages.page(index)?;
            page[from..to].copy_from_slice(&data[done..done + to - from]);
            pages.written.insert(index, page);
            done += to - from;
        }
        pages.length = pages.length.max(offset + data.len() as u64);
        Ok(())
    }
}
