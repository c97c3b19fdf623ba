//! How much the data folder takes, and how much there is.

use super::Store;
use super::error::StoreError;

impl Store {
    /// Bytes of the record file and of all blobs.
    pub fn used_bytes(&self) -> Result<u64, StoreError> {
        let records = self.records().file_bytes().map_err(StoreError::io("look at records.redb"))?;
        Ok(records + self.blobs().bytes())
    }

    /// Gives back to the file system what the record file can spare, if that may be much. Reads and writes wait for it.
    pub fn make_room(&self) -> Result<(), StoreError> {
        self.records().make_room()
    }

    /// Bytes of the file system that the folder is on; the largest number where that is not known, and for a store in memory.
    pub fn file_system_bytes(&self) -> u64 {
        #[cfg(unix)]
        if let Some(lock) = &self.inner.lock
            && let Ok(about) = rustix::fs::statvfs(lock.folder())
        {
            return about.f_blocks.saturating_mul(about.f_frsize);
        }
        u64::MAX
    }
}
