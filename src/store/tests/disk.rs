//! A disk that fails on command, and that shows what would survive a power cut at each of its syncs.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;

#[derive(Debug, Default)]
pub(in crate::store) struct Disk(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    fails: bool,
    syncs: usize,
    /// What a test last acknowledged.
    mark: usize,
    /// At each sync: the mark, and what had been written.
    images: Vec<(usize, Vec<u8>)>,
    keeps_images: bool,
}

impl Disk {
    pub fn of_image(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(State { bytes, ..State::default() }))
    }

    pub fn keep_images(&self) {
        self.state().keeps_images = true;
    }

    pub fn images(&self) -> Vec<(usize, Vec<u8>)> {
        self.state().images.clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub fn mark(&self, mark: usize) {
        self.state().mark = mark;
    }

    pub fn syncs(&self) -> usize {
        self.state().syncs
    }

    pub fn fail(&self, fails: bool) {
        self.state().fails = fails;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn working(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.fails { Err(Error::new(ErrorKind::StorageFull, "no space left on device")) } else { Ok(state) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.working()?.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let state = self.working()?;
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(state.bytes.get(range).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.working()?.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut state = self.working()?;
        state.syncs += 1;
        if state.keeps_images {
            let image = (state.mark, state.bytes.clone());
            state.images.push(image);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.working()?;
        let range = offset as usize..offset as usize + data.len();
        state.bytes.get_mut(range).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}
