//! The records of one state, as a record file of their own: each verified, and what is left out named.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableTable};
use uuid::Uuid;

use super::{LeftOut, owner};
use crate::store::database::{Definition, Medium, RECORDS, close_database, guarded};
use crate::store::disk::FileSystem;
use crate::store::error::StoreError;
use crate::store::key_kinds::RecordKey;
use crate::store::records::View;
use crate::store::{keys, models, record};

/// Bytes of records in one commit of the copy: what it takes in memory.
const COPY_BYTES: usize = 4 << 20;

/// Copies one state of the records into a file that is a store's record file by itself; what it left out.
pub(super) fn copy_records(
    view: &View,
    path: &Path,
    skips_damaged: bool,
    goes_on: &dyn Fn() -> bool,
) -> Result<LeftOut, StoreError> {
    let mut copied = Copied { view, skips_damaged, left_out: LeftOut::default() };
    let mut builder = Database::builder();
    builder.set_cache_size(crate::limits::STORE_CACHE_BYTES);
    let database = builder.create(path).map_err(StoreError::from_redb)?;
    let done = guarded("copy the records", || {
        for (definition, table) in view.tables() {
            copy_table(&database, definition, table, &mut copied, goes_on)?;
        }
        Ok(())
    });
    closed(database, done)?;
    Ok(copied.left_out)
}

/// Says in the copy that the process before stopped in good order, and gives back what redb took beyond what it needs: up to half.
pub(super) fn finish_copy(path: &Path) -> Result<(), StoreError> {
    let mut database = Medium::File { disk: Arc::new(FileSystem), path: path.to_owned() }.open()?;
    let done = guarded("compact the copy of the records", || {
        database.compact().map_err(StoreError::from_redb)?;
        // After it: see `Slot::compact`.
        mark_good_stop(&database).map_err(StoreError::from_redb)
    });
    closed(database, done)
}

/// Closes a copy: the first fault is told.
fn closed(database: Database, done: Result<(), StoreError>) -> Result<(), StoreError> {
    match done {
        Ok(()) => database.close().map_err(StoreError::from_redb),
        Err(error) => {
            close_database(database);
            Err(error)
        }
    }
}

/// What goes into the copy, and what does not.
struct Copied<'a> {
    view: &'a View,
    skips_damaged: bool,
    left_out: LeftOut,
}

impl Copied<'_> {
    /// The bytes of a value in the copy; `None` where it is left out.
    fn value<'v>(&mut self, key: &str, value: &'v [u8]) -> Result<Option<Cow<'v, [u8]>>, StoreError> {
        match record::open(key, value) {
            Ok(_) => Ok(Some(Cow::Borrowed(value))),
            Err(_) if self.is_known_mark(key)? => Ok(Some(Cow::Owned(record::seal(key, 1, &[])))),
            Err(error) => match self.named_model(key)? {
                Some(uid) => Ok(Some(Cow::Owned(record::seal(key, 1, &record::encode(key, &uid)?)))),
                None if self.skips_damaged => {
                    self.left_out.add(owner::named(key, owner::of_key(self.view, key)));
                    Ok(None)
                }
                None => Err(owner::with_owner(error, || owner::of_key(self.view, key))),
            },
        }
    }

    /// The model that says itself what its name is: for a name whose own record is damaged.
    fn named_model(&self, key: &str) -> Result<Option<Uuid>, StoreError> {
        let Some(RecordKey::Name(name)) = RecordKey::parse(key) else { return Ok(None) };
        models::uid_by_record(self.view, name)
    }

    /// Whether a key says all, and says it of a job that is there: then it is the value that is damaged, not the key.
    fn is_known_mark(&self, key: &str) -> Result<bool, StoreError> {
        match RecordKey::parse(key) {
            Some(RecordKey::ModelJob(_, job_id) | RecordKey::Unfinished(job_id)) => {
                self.view.contains(&keys::job(job_id))
            }
            Some(RecordKey::GoodStop) => Ok(true),
            _ => Ok(false),
        }
    }
}

fn copy_table(
    database: &Database,
    definition: Definition,
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    copied: &mut Copied<'_>,
    goes_on: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    let mut entries = table.iter().map_err(StoreError::from_redb)?;
    let mut is_done = false;
    while !is_done {
        if !goes_on() {
            return Err(StoreError::Unavailable { reason: "the backup was given up".to_owned() });
        }
        let mut transaction = database.begin_write().map_err(StoreError::from_redb)?;
        transaction.set_quick_repair(true);
        {
            let mut copy = transaction.open_table(definition).map_err(StoreError::from_redb)?;
            let mut bytes = 0;
            is_done = loop {
                let Some(entry) = entries.next() else { break true };
                let (key, value) = entry.map_err(StoreError::from_redb)?;
                let Some(bytes_kept) = copied.value(key.value(), value.value())? else { continue };
                copy.insert(key.value(), &*bytes_kept).map_err(StoreError::from_redb)?;
                bytes += key.value().len() + value.value().len();
                if bytes >= COPY_BYTES {
                    break false;
                }
            };
        }
        transaction.commit().map_err(StoreError::from_redb)?;
    }
    Ok(())
}

fn mark_good_stop(database: &Database) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(RECORDS)?.insert(keys::GOOD_STOP, record::seal(keys::GOOD_STOP, 1, &[]).as_slice())?;
    transaction.commit()?;
    Ok(())
}
