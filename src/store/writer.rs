//! The thread that writes: it takes every transaction that waits, applies them in order, and makes them durable with one
//! commit.
//!
//! After a fault the database is dropped, and nothing is written until the file was opened again and every page of it
//! verified: redb itself refuses to go on, and what the failed commit left is only known then. A file that cannot be written
//! is opened to be read, and each transaction tries to open it to be written, too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use redb::{AccessGuard, ReadableTable, Table, WriteTransaction};

use super::database::{LOG, RECORDS, guarded};
use super::error::StoreError;
use super::keys;
use super::record;
use super::records::{Access, Slot, Transaction};

/// Transactions in one commit, so that the first of them does not wait for a crowd without end.
const GROUP_TRANSACTIONS_MAX: usize = 256;

/// Bytes that must have been deleted or replaced before it is looked at whether half of the file is free, and so compacted: redb walks all
/// pages to tell.
const LOOK_BYTES_MIN: u64 = 16 << 20;

/// The part of the file that they must be, too.
const LOOK_PART: u64 = 8;

/// The part of the file that must have been deleted or replaced before it is compacted once more to make room.
const MAKE_ROOM_PART: u64 = 16;

/// The revision that every chunk of the log carries: it is replaced, never compared.
const CHUNK_REVISION: u64 = 0;

type Outcome = Result<(), StoreError>;

/// A transaction, and who waits for it.
pub(super) struct Request {
    pub transaction: Transaction,
    pub answer: SyncSender<Outcome>,
}

pub(super) struct Writer {
    slot: Arc<Slot>,
    requests: Receiver<Request>,
    /// Bytes of values that were deleted or replaced since the file was last compacted or looked at.
    freed_bytes: u64,
    /// Whether it was compacted by this process: what was free before is not known.
    is_compacted: bool,
}

impl Writer {
    pub fn new(slot: Arc<Slot>, requests: Receiver<Request>) -> Self {
        Self { slot, requests, freed_bytes: 0, is_compacted: false }
    }

    /// Until the last handle is gone.
    pub fn run(mut self) {
        while let Ok(first) = self.requests.recv() {
            let mut group = vec![first];
            group.extend(self.requests.try_iter().take(GROUP_TRANSACTIONS_MAX - 1));
            match self.commit(&group) {
                Ok(outcomes) => {
                    // Only these wait for it.
                    if group.iter().any(|request| request.transaction.makes_room) {
                        self.make_room();
                    }
                    for (request, outcome) in group.into_iter().zip(outcomes) {
                        request.answer(outcome);
                    }
                    self.give_back_space();
                }
                Err(error) => self.fail(group, &error),
            }
        }
    }

    /// Closes the database, then answers: whoever hears of the fault finds it closed.
    fn fail(&self, group: Vec<Request>, error: &StoreError) {
        let reason = match error {
            StoreError::Unavailable { reason } => reason.clone(),
            other => other.to_string(),
        };
        self.close(reason.clone());
        for request in group {
            request.answer(Err(StoreError::Unavailable { reason: reason.clone() }));
        }
    }

    fn commit(&mut self, group: &[Request]) -> Result<Vec<Outcome>, StoreError> {
        let transaction = self.begin()?;
        let freed_bytes = &mut self.freed_bytes;
        guarded("write records", || apply_all(transaction, group, freed_bytes).map_err(StoreError::from_redb))
    }

    /// Compacts the file where much was deleted: redb uses free pages again, but gives few of them back to the file system. Nobody
    /// waits for this, but those that come meanwhile do.
    fn give_back_space(&mut self) {
        let file_bytes = self.slot.medium.len().unwrap_or(u64::MAX);
        if self.freed_bytes < LOOK_BYTES_MIN.max(file_bytes / LOOK_PART) || self.is_read_for_long() {
            return;
        }
        self.freed_bytes = 0;
        match self.free_bytes(file_bytes) {
            // The look took its time: a long read may have begun.
            Ok(free_bytes) if free_bytes >= file_bytes / 2 && !self.is_read_for_long() => self.compact(file_bytes),
            Ok(_) => {}
            Err(error) => self.close(error.to_string()),
        }
    }

    /// Compacts the file for a caller who needs room on the disk.
    fn make_room(&mut self) {
        let file_bytes = self.slot.medium.len().unwrap_or(u64::MAX);
        let may_help = !self.is_compacted || self.freed_bytes > file_bytes / MAKE_ROOM_PART;
        if may_help && !self.is_read_for_long() {
            self.freed_bytes = 0;
            self.compact(file_bytes);
        }
    }

    fn is_read_for_long(&self) -> bool {
        self.slot.long_reads.load(Ordering::Acquire) > 0
    }

    /// Bytes of the file that nothing is in.
    fn free_bytes(&self, file_bytes: u64) -> Result<u64, StoreError> {
        let transaction = self.try_begin()?;
        guarded("look at the pages of records.redb", || {
            let stats = transaction.stats().map_err(StoreError::from_redb)?;
            transaction.abort().map_err(StoreError::from_redb)?;
            Ok(file_bytes.saturating_sub(stats.allocated_pages() * stats.page_size() as u64))
        })
    }

    fn compact(&mut self, file_bytes: u64) {
        self.is_compacted = true;
        tracing::info!(bytes = file_bytes, "the record file is being compacted");
        let begun = Instant::now();
        match self.slot.compact() {
            Ok(()) => {
                let bytes = self.slot.medium.len().unwrap_or(file_bytes);
                tracing::info!(before = file_bytes, bytes, time = ?begun.elapsed(), "the record file was compacted");
            }
            Err(error) => self.close(error.to_string()),
        }
    }

    /// A transaction of the open database; one that refuses (after a failed read, say) is opened again first.
    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        match self.try_begin() {
            Ok(transaction) => Ok(transaction),
            Err(error) => {
                self.close(error.to_string());
                self.reopen()?;
                self.try_begin()
            }
        }
    }

    fn try_begin(&self) -> Result<WriteTransaction, StoreError> {
        let access = self.slot.access();
        let database = access.to_write()?;
        guarded("begin to write", || database.begin_write().map_err(StoreError::from_redb))
    }

    /// Closes a database that is written to: one that is only read did not fail, and the first reason stays.
    fn close(&self, reason: String) {
        let is_written = self.slot.access().to_write().is_ok();
        if is_written {
            tracing::error!(reason, "the record file is closed after a fault");
            self.slot.replace(Access::Closed(reason));
        }
    }

    /// Opens the file again. Where it cannot be written it is opened to be read, which is an error as well.
    fn reopen(&self) -> Result<(), StoreError> {
        let error = match self.slot.medium.reopen() {
            Ok(database) => {
                tracing::info!("the record file is open again, and verified");
                self.slot.replace(Access::Full(database));
                return Ok(());
            }
            Err(error) => error,
        };
        if self.is_readable() {
            return Err(error);
        }
        match self.slot.medium.open_to_read() {
            Ok(database) => {
                tracing::error!(%error, "the record file can only be read");
                self.slot.replace(Access::ReadOnly(database, error.to_string()));
            }
            Err(_) => {
                tracing::error!(%error, "the record file cannot be opened again");
                self.slot.replace(Access::Closed(error.to_string()));
            }
        }
        Err(error)
    }

    /// Whether what is open reads: after one fault of a file redb reads no more of it.
    fn is_readable(&self) -> bool {
        let access = self.slot.access();
        access.to_read().is_ok_and(|database| {
            // What redb refuses after a fault is a beginning to write. What would be written goes nowhere.
            let begin = || database.begin_write().map(drop).map_err(StoreError::from_redb);
            guarded("look at records.redb", begin).is_ok()
        })
    }
}

impl Request {
    fn answer(self, outcome: Outcome) {
        // A caller that is gone needs no answer.
        let _ = self.answer.send(outcome);
    }
}

/// Applies each transaction whose checks hold, then commits all of them at once.
fn apply_all(
    mut transaction: WriteTransaction,
    group: &[Request],
    freed_bytes: &mut u64,
) -> Result<Vec<Outcome>, redb::Error> {
    transaction.set_quick_repair(true);
    let mut outcomes = Vec::with_capacity(group.len());
    {
        let (records, log) = (transaction.open_table(RECORDS)?, transaction.open_table(LOG)?);
        let mut tables = Tables { records, log, freed_bytes };
        for request in group {
            outcomes.push(tables.apply(&request.transaction)?);
        }
    }
    let is_changed =
        group.iter().zip(&outcomes).any(|(request, outcome)| outcome.is_ok() && !request.transaction.is_empty());
    match is_changed {
        true => transaction.commit()?,
        false => transaction.abort()?,
    }
    Ok(outcomes)
}

struct Tables<'a> {
    records: Table<'a, &'static str, &'static [u8]>,
    log: Table<'a, &'static str, &'static [u8]>,
    freed_bytes: &'a mut u64,
}

impl Tables<'_> {
    /// Reads all that it needs before it changes anything: a transaction that is refused leaves no trace in the group.
    fn apply(&mut self, transaction: &Transaction) -> Result<Outcome, redb::Error> {
        for (key, expect) in &transaction.checks {
            match self.revision(key)? {
                Ok(revision) if expect.holds(revision) => {}
                Ok(_) => return Ok(Err(StoreError::Conflict { key: key.clone() })),
                Err(corrupt) => return Ok(Err(corrupt)),
            }
        }
        let mut sealed = Vec::with_capacity(transaction.puts.len());
        for (key, payload) in &transaction.puts {
            match self.revision(key)? {
                Ok(revision) => sealed.push((key, record::seal(key, revision.unwrap_or(0) + 1, payload))),
                Err(corrupt) => return Ok(Err(corrupt)),
            }
        }
        self.change(transaction, sealed)?;
        Ok(Ok(()))
    }

    fn change(&mut self, transaction: &Transaction, sealed: Vec<(&String, Vec<u8>)>) -> Result<(), redb::Error> {
        for prefix in &transaction.delete_prefixes {
            *self.freed_bytes += delete_prefix(&mut self.records, prefix)?;
        }
        for prefix in &transaction.delete_chunks {
            *self.freed_bytes += delete_prefix(&mut self.log, prefix)?;
        }
        for key in &transaction.deletes {
            *self.freed_bytes += length(self.records.remove(key.as_str())?);
        }
        for (key, bytes) in sealed {
            *self.freed_bytes += length(self.records.insert(key.as_str(), bytes.as_slice())?);
        }
        for (key, payload) in &transaction.chunks {
            let sealed = record::seal(key, CHUNK_REVISION, payload);
            *self.freed_bytes += length(self.log.insert(key.as_str(), sealed.as_slice())?);
        }
        Ok(())
    }

    fn revision(&self, key: &str) -> Result<Result<Option<u64>, StoreError>, redb::Error> {
        let bytes = self.records.get(key)?;
        Ok(bytes.map(|bytes| record::open(key, bytes.value()).map(|(revision, _)| revision)).transpose())
    }
}

/// How many bytes of values went.
fn delete_prefix(table: &mut Table<&'static str, &'static [u8]>, prefix: &str) -> Result<u64, redb::Error> {
    let (end, mut bytes) = (keys::end_of(prefix), 0);
    table.retain_in(prefix..end.as_str(), |_, value| {
        bytes += value.len() as u64;
        false
    })?;
    Ok(bytes)
}

fn length(value: Option<AccessGuard<'_, &'static [u8]>>) -> u64 {
    value.map_or(0, |value| value.value().len() as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::store::database::Medium;
    use crate::store::records::Expect;
    use crate::store::tests::disk::Disk;

    fn mark(key: &str) -> Transaction {
        Transaction::new().only_if(key, Expect::Absent).mark(key.to_owned())
    }

    /// Runs a writer over what waits already, until it has answered all; returns how often the disk synced.
    fn run(disk: &Arc<Disk>, transactions: Vec<Transaction>) -> (Vec<Outcome>, usize) {
        let medium = Medium::Backend(Arc::clone(disk) as Arc<_>);
        let database = medium.open().unwrap();
        let (sender, received) = mpsc::sync_channel(transactions.len());
        let answers: Vec<Receiver<Outcome>> = (transactions.into_iter())
            .map(|transaction| {
                let (answer, answered) = mpsc::sync_channel(1);
                sender.send(Request { transaction, answer }).unwrap();
                answered
            })
            .collect();
        drop(sender);
        let before = disk.syncs();
        Writer::new(Arc::new(Slot::new(medium, database)), received).run();
        let syncs = disk.syncs() - before;
        (answers.into_iter().map(|answer| answer.recv().unwrap()).collect(), syncs)
    }

    #[test]
    fn all_that_wait_share_one_commit() {
        let one = run(&Arc::default(), vec![mark("default/a/")]).1;
        let many = (0..100).map(|index| mark(&format!("default/{index}/"))).collect();
        let (outcomes, syncs) = run(&Arc::default(), many);
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(syncs, one);
    }

    #[test]
    fn a_failed_check_skips_its_transaction_alone_and_later_ones_see_earlier_ones() {
        let disk = Arc::default();
        let twice = mark("default/a/").mark("default/b/".to_owned());
        let (outcomes, _) = run(&disk, vec![mark("default/a/"), twice, mark("default/b/")]);
        assert!(matches!(&outcomes[..], [Ok(()), Err(StoreError::Conflict { key }), Ok(())] if key == "default/a/"));
        let next = Transaction::new().only_if("default/a/", Expect::Revision(1)).mark("default/a/".to_owned());
        let stale = Transaction::new().only_if("default/a/", Expect::Revision(1)).mark("default/a/".to_owned());
        let (outcomes, _) = run(&disk, vec![next, stale]);
        assert!(matches!(&outcomes[..], [Ok(()), Err(StoreError::Conflict { .. })]));
    }

    #[test]
    fn a_prefix_is_deleted_without_its_neighbours() {
        let disk = Arc::default();
        let keys = ["default/a/1", "default/a/2", "default/a0", "default/b/1"];
        run(&disk, keys.map(mark).into());
        let mut again = vec![Transaction::new().delete_prefix("default/a/".to_owned())];
        again.extend(keys.map(mark));
        let (outcomes, _) = run(&disk, again);
        assert!(matches!(&outcomes[..], [Ok(()), Ok(()), Ok(()), Err(_), Err(_)]));
    }
}
