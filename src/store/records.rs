//! Records by key: consistent reads, and transactions of compare-and-set that one thread commits in groups.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTableMetadata};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::database::{Definition, LOG, Medium, RECORDS, close_database, guarded};
use super::error::StoreError;
use super::keys;
use super::record::{self, Stored};
use super::writer::{Request, Writer};

/// Transactions that may wait for the writer before their callers wait for a place.
const QUEUE_TRANSACTIONS: usize = 256;

/// What a key must hold for a transaction to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Absent,
    Revision(u64),
}

impl Expect {
    /// Whether it is so, given the revision that is there.
    pub fn holds(self, revision: Option<u64>) -> bool {
        match self {
            Self::Absent => revision.is_none(),
            Self::Revision(expected) => revision == Some(expected),
        }
    }
}

/// Changes that happen together or not at all, and only if every check holds.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub checks: Vec<(String, Expect)>,
    /// Keys with payloads; the writer seals them with the next revision.
    pub puts: Vec<(String, Vec<u8>)>,
    /// Chunks of the log with payloads; these replace what is there, readable or not.
    pub chunks: Vec<(String, Vec<u8>)>,
    pub deletes: Vec<String>,
    pub delete_prefixes: Vec<String>,
    /// Prefixes of keys of the log.
    pub delete_chunks: Vec<String>,
    /// Whether the file is to be compacted before it is answered, where that may help.
    pub makes_room: bool,
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it changes nothing: what a reader sends to have a closed database opened again.
    pub fn is_empty(&self) -> bool {
        let Self { checks: _, puts, chunks, deletes, delete_prefixes, delete_chunks, makes_room: _ } = self;
        let is_deleting = !(deletes.is_empty() && delete_prefixes.is_empty() && delete_chunks.is_empty());
        puts.is_empty() && chunks.is_empty() && !is_deleting
    }

    pub fn only_if(mut self, key: &str, expect: Expect) -> Self {
        self.checks.push((key.to_owned(), expect));
        self
    }

    pub fn put<T: Serialize>(mut self, key: String, value: &T) -> Result<Self, StoreError> {
        let payload = record::encode(&key, value)?;
        self.puts.push((key, payload));
        Ok(self)
    }

    /// A key that says all by being there.
    pub fn mark(mut self, key: String) -> Self {
        self.puts.push((key, Vec::new()));
        self
    }

    pub fn put_chunk(mut self, key: String, payload: Vec<u8>) -> Self {
        self.chunks.push((key, payload));
        self
    }

    pub fn delete(mut self, key: String) -> Self {
        self.deletes.push(key);
        self
    }

    pub fn delete_prefix(mut self, prefix: String) -> Self {
        self.delete_prefixes.push(prefix);
        self
    }

    /// Deletes every chunk of the log under a prefix.
    pub fn delete_chunks(mut self, prefix: String) -> Self {
        self.delete_chunks.push(prefix);
        self
    }
}

/// How far the record file can be used.
pub(super) enum Access {
    /// It is read and written.
    Full(Database),
    /// It cannot be written, for this reason, but what it holds is read.
    ReadOnly(Database, String),
    /// It can be neither, since this fault.
    Closed(String),
}

impl Access {
    /// The database to write to, or why there is none.
    pub fn to_write(&self) -> Result<&Database, StoreError> {
        match self {
            Self::Full(database) => Ok(database),
            Self::ReadOnly(_, reason) | Self::Closed(reason) => Err(StoreError::Unavailable { reason: reason.clone() }),
        }
    }

    /// The database to read from, or why there is none.
    pub fn to_read(&self) -> Result<&Database, StoreError> {
        match self {
            Self::Full(database) | Self::ReadOnly(database, _) => Ok(database),
            Self::Closed(reason) => Err(StoreError::Unavailable { reason: reason.clone() }),
        }
    }
}

/// The record file. Reads hold the lock for as long as they read, so none is under way when the writer replaces the database.
pub(super) struct Slot {
    pub medium: Medium,
    access: RwLock<Access>,
    /// Long reads that are under way: a compaction would wait for their end, and every other read for the compaction.
    pub long_reads: AtomicUsize,
}

impl Slot {
    pub fn new(medium: Medium, database: Database) -> Self {
        Self { medium, access: RwLock::new(Access::Full(database)), long_reads: AtomicUsize::new(0) }
    }

    pub fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts another database, or none, in the place of the one before, which is closed; whether that one could be written to its end.
    pub fn replace(&self, access: Access) -> bool {
        let before = {
            let mut current = self.access.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, access)
        };
        match before {
            Access::Full(database) => close_database(database),
            Access::ReadOnly(database, _) => {
                close_database(database);
                false
            }
            Access::Closed(_) => false,
        }
    }
}

impl Slot {
    /// Gives free pages back to the file system. Reads wait.
    pub fn compact(&self) -> Result<(), StoreError> {
        let mut access = self.access.write().unwrap_or_else(PoisonError::into_inner);
        let Access::Full(database) = &mut *access else { return Ok(()) };
        guarded("compact records.redb", || {
            database.compact().map_err(StoreError::from_redb)?;
            // A compaction leaves a file that would be repaired, and so walked, after a kill; any commit of ours does not.
            let mut transaction = database.begin_write().map_err(StoreError::from_redb)?;
            transaction.set_quick_repair(true);
            transaction.commit().map_err(StoreError::from_redb)
        })
    }
}

/// The records, and their writer thread. Dropping it ends the thread and closes the file.
pub(super) struct Records {
    slot: Arc<Slot>,
    /// `None` only while it is dropped.
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
}

impl Records {
    pub fn open(medium: Medium) -> Result<Self, StoreError> {
        let database = medium.open_at_start()?;
        let slot = Arc::new(Slot::new(medium, database));
        let (requests, received) = mpsc::sync_channel(QUEUE_TRANSACTIONS);
        let writer = Writer::new(Arc::clone(&slot), received);
        let thread = thread::Builder::new().name("epochd-store".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(StoreError::io("start the store's writer thread"))?;
        Ok(Self { slot, requests: Some(requests), writer: Some(thread) })
    }

    /// Commits a transaction: when this returns `Ok`, it is on the disk.
    pub fn commit(&self, transaction: Transaction) -> Result<(), StoreError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let gone = || StoreError::Unavailable { reason: "the store's writer thread has ended".to_owned() };
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request { transaction, answer }).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }

    /// Reads from one consistent state, for no longer than `work` takes. A closed database is opened again first, at least to
    /// read it; until that succeeds, this fails.
    pub fn read<T>(&self, work: impl Fn(&View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.try_read(&work) {
            Err(StoreError::Unavailable { .. }) => {
                // Where it cannot be written it may still be read, and else says why not.
                let _ = self.commit(Transaction::new());
                self.try_read(&work)
            }
            result => result,
        }
    }

    /// As [`Records::read`], where `work` takes long: the file is not compacted meanwhile.
    pub fn read_long<T>(&self, work: impl Fn(&View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.slot.long_reads.fetch_add(1, Ordering::AcqRel);
        let result = self.read(work);
        self.slot.long_reads.fetch_sub(1, Ordering::AcqRel);
        result
    }

    /// Gives back to the file system what the file can spare, if that may be much.
    pub fn make_room(&self) -> Result<(), StoreError> {
        self.commit(Transaction { makes_room: true, ..Transaction::new() })
    }

    /// As after a fault.
    #[cfg(test)]
    pub fn close_for_test(&self) {
        self.slot.replace(Access::Closed("a test closed it".to_owned()));
    }

    /// As the writer does where much was deleted.
    #[cfg(test)]
    pub fn compact_for_test(&self) -> Result<(), StoreError> {
        self.slot.compact().inspect_err(|error| {
            self.slot.replace(Access::Closed(error.to_string()));
        })
    }

    fn try_read<T>(&self, work: impl Fn(&View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let access = self.slot.access();
        let database = access.to_read()?;
        guarded("read a record", || work(&View::begin(database).map_err(StoreError::from_redb)?))
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> io::Result<u64> {
        self.slot.medium.len()
    }

    /// The value of one key.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Stored<T>>, StoreError> {
        self.read(|view| view.get(key))
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
        if self.slot.replace(Access::Closed("the store is closed".to_owned())) {
            self.slot.medium.note_closed();
        }
    }
}

/// One consistent state of the records.
pub(super) struct View {
    records: ReadOnlyTable<&'static str, &'static [u8]>,
    log: ReadOnlyTable<&'static str, &'static [u8]>,
}

/// A record found by a scan, not verified yet.
pub(super) struct Entry {
    pub key: String,
    bytes: Vec<u8>,
}

impl Entry {
    /// Its value, verified.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        record::decode(&self.key, &self.bytes).map(|stored| stored.value)
    }
}

impl View {
    pub fn begin(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        Ok(Self { records: transaction.open_table(RECORDS)?, log: transaction.open_table(LOG)? })
    }

    /// The value of one key, verified.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Stored<T>>, StoreError> {
        let bytes = self.records.get(key).map_err(StoreError::from_redb)?;
        bytes.map(|bytes| record::decode(key, bytes.value())).transpose()
    }

    /// Whether a key is there.
    pub fn contains(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.records.get(key).map_err(StoreError::from_redb)?.is_some())
    }

    /// The payload of one chunk of the log, verified.
    pub fn chunk(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let bytes = self.log.get(key).map_err(StoreError::from_redb)?;
        bytes.map(|bytes| record::open(key, bytes.value()).map(|(_, payload)| payload.to_vec())).transpose()
    }

    /// Whether a chunk of the log is there.
    pub fn has_chunk(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.log.get(key).map_err(StoreError::from_redb)?.is_some())
    }

    /// Hands every record to `look`, in the order in which the table holds them, not verified.
    pub fn each_record(&self, mut look: impl FnMut(&str, &[u8]) -> Result<(), StoreError>) -> Result<(), StoreError> {
        for entry in self.records.range::<&str>(..).map_err(StoreError::from_redb)? {
            let (key, bytes) = entry.map_err(StoreError::from_redb)?;
            look(key.value(), bytes.value())?;
        }
        Ok(())
    }

    /// How many records the table says it has.
    pub fn record_count(&self) -> Result<u64, StoreError> {
        self.records.len().map_err(StoreError::from_redb)
    }

    /// Both tables with all that is in them.
    pub fn tables(&self) -> [(Definition, &ReadOnlyTable<&'static str, &'static [u8]>); 2] {
        [(RECORDS, &self.records), (LOG, &self.log)]
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        let first = self.records.range::<&str>(..).map_err(StoreError::from_redb)?.next();
        Ok(first.is_none())
    }

    /// The records whose key starts with `prefix` and lies strictly between `prefix` + `after` and `prefix` + `before`.
    pub fn scan<'view>(
        &'view self,
        prefix: &str,
        after: Option<&str>,
        before: Option<&str>,
    ) -> Result<impl DoubleEndedIterator<Item = Result<Entry, StoreError>> + use<'view>, StoreError> {
        // The first text after a text is that text with a zero byte behind it.
        let start = after.map_or_else(|| prefix.to_owned(), |after| format!("{prefix}{after}\0"));
        let end = before.map_or_else(|| keys::end_of(prefix), |before| format!("{prefix}{before}"));
        // redb refuses a range whose end is before its start.
        let end = end.max(start.clone());
        let range = self.records.range(start.as_str()..end.as_str()).map_err(StoreError::from_redb)?;
        Ok(range.map(|entry| {
            let (key, bytes) = entry.map_err(StoreError::from_redb)?;
            Ok(Entry { key: key.value().to_owned(), bytes: bytes.value().to_vec() })
        }))
    }
}
