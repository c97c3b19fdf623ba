//! Blobs that a backup still needs are not removed before it is over.
//!
//! A removal that is asked for meanwhile waits for every backup that was under way then. It is only remembered in memory: after a
//! crash no record refers to the blob, and the next start sweeps it.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use super::blobs::{BlobName, Blobs, Part};
use super::error::StoreError;

/// The blobs of a store, with the removals that wait.
pub(super) struct HeldBlobs {
    blobs: Blobs,
    /// Of all that there are, as far as is known: counted at the opening, and with each that comes or goes.
    bytes: AtomicU64,
    holds: Mutex<Holds>,
}

#[derive(Default)]
struct Holds {
    next: u64,
    active: BTreeSet<u64>,
    /// Each with the newest hold that was there when its removal was asked for. A name is never written again after that.
    waiting: Vec<(BlobName, u64)>,
}

impl HeldBlobs {
    pub fn new(blobs: Blobs) -> Self {
        let bytes = AtomicU64::new(blobs.total_bytes());
        Self { blobs, bytes, holds: Mutex::default() }
    }

    /// Writes a blob: see [`Blobs::write`].
    pub fn write(&self, name: BlobName, parts: &[Part<'_>]) -> Result<(), StoreError> {
        let before = self.blobs.length(name);
        let written = self.blobs.write(name, parts);
        // Of one that failed there may be something, too.
        self.bytes.fetch_add(self.blobs.length(name), Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
        written
    }

    /// Removes what nothing needs: see [`Blobs::sweep`].
    pub fn sweep(&self, is_needed: impl Fn(BlobName) -> bool) -> Result<usize, StoreError> {
        let swept = self.blobs.sweep(is_needed)?;
        if swept > 0 {
            self.bytes.store(self.blobs.total_bytes(), Ordering::Relaxed);
        }
        Ok(swept)
    }

    /// Whether there is any: see [`Blobs::holds_any`].
    pub fn holds_any(&self) -> Result<bool, StoreError> {
        self.blobs.holds_any()
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn remove_now(&self, name: BlobName) {
        let before = self.blobs.length(name);
        self.blobs.remove(name);
        self.bytes.fetch_add(self.blobs.length(name), Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
    }

    /// Removes a blob that nothing refers to any more, once no hold that is there now is left.
    pub fn remove(&self, name: BlobName) {
        {
            let mut holds = self.lock();
            if let Some(newest) = holds.active.last().copied() {
                holds.waiting.push((name, newest));
                return;
            }
        }
        self.remove_now(name);
    }

    fn begin(&self) -> u64 {
        let mut holds = self.lock();
        let id = holds.next;
        holds.next += 1;
        holds.active.insert(id);
        id
    }

    fn end(&self, id: u64) {
        let due = {
            let mut holds = self.lock();
            holds.active.remove(&id);
            let oldest = holds.active.first().copied();
            let is_due = |(_, newest): &mut (BlobName, u64)| oldest.is_none_or(|oldest| oldest > *newest);
            holds.waiting.extract_if(.., is_due).collect::<Vec<_>>()
        };
        for (name, _) in due {
            self.remove_now(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for HeldBlobs {
    type Target = Blobs;

    fn deref(&self) -> &Blobs {
        &self.blobs
    }
}

/// While it lives, every blob that the records refer to at its beginning, or later, stays.
pub(super) struct Hold {
    store: Store,
    id: u64,
}

impl Hold {
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone(), id: store.blobs().begin() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.store.blobs().end(self.id);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_removal_waits_for_the_holds_that_were_there_and_for_no_later_one() {
        let store = Store::ephemeral().unwrap();
        let name = BlobName::Rows { job_id: Uuid::now_v7() };
        store.blobs().write(name, &[]).unwrap();
        let is_there = || store.blobs().open(name).unwrap().is_some();
        let (first, second) = (Hold::new(&store), Hold::new(&store));
        store.blobs().remove(name);
        let later = Hold::new(&store);
        drop(first);
        assert!(is_there());
        drop(second);
        assert!(!is_there());
        drop(later);
        let other = BlobName::Rows { job_id: Uuid::now_v7() };
        store.blobs().write(other, &[]).unwrap();
        store.blobs().remove(other);
        assert!(store.blobs().open(other).unwrap().is_none(), "without a hold a removal waits for nothing");
    }
}
