//! What an opening does with files that no record refers to: an interrupted run left them behind, and they are removed.
//!
//! A record that is hidden by damage must not cost its blob. A flipped bit in a key, or on redb's way to it, makes a look-up or a
//! scan of a prefix miss records; so every record of the table is read here, in order, with its checksum, and counted. Only where
//! all is sound are orphans taken for orphans.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Store;
use super::blobs::BlobName;
use super::error::StoreError;
use super::key_kinds::RecordKey;
use super::keys;
use super::models::StoredVersion;
use super::record;
use super::records::{Transaction, View};
use super::retention;
use crate::domain::Job;

/// Faults that are logged one by one; a checker tells all.
const FAULTS_LOGGED: usize = 20;

/// Every record, read once.
#[derive(Default)]
struct Census {
    needed: HashSet<BlobName>,
    faults: Vec<String>,
}

impl Store {
    /// Removes the blobs that no record refers to, and what interrupted writes left. Where any record is damaged, blobs are all kept:
    /// the damaged one may refer to any of them.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let census = match self.records().read(Census::of) {
            Err(StoreError::Corrupt { what }) => Census { needed: HashSet::new(), faults: vec![what] },
            census => census?,
        };
        if census.needed.iter().any(|name| matches!(name, BlobName::Weights { .. })) && !self.blobs().holds_any()? {
            // Each job whose turn came would fail for its rows, and what is left of it be swept once they are back.
            return Err(self.blobs_are_away());
        }
        let is_sound = census.faults.is_empty();
        if !is_sound {
            census.tell();
            self.mark_unfinished_again()?;
        }
        let swept = self.blobs().sweep(|name| !is_sound || census.needed.contains(&name))?;
        if swept > 0 {
            tracing::info!(swept, "removed files that an interrupted run left behind");
        }
        Ok(())
    }

    fn blobs_are_away(&self) -> StoreError {
        let folder = self.inner.lock.as_ref().map(|lock| lock.folder().to_owned()).unwrap_or_default();
        let problem = "its records tell of versions, but there is no weights file at all in its folder blobs: where that is a disk of its own, mount \
                       it; else restore the folder from a backup, or choose another --data-dir"
            .to_owned();
        StoreError::Format { folder, problem }
    }

    /// Damage may have hidden the marks of jobs that are not finished: those whose records say so are marked again.
    fn mark_unfinished_again(&self) -> Result<(), StoreError> {
        let found = self.records().read(|view| {
            let mut unmarked = Vec::new();
            view.each_record(|key, bytes| {
                let job = record::decode::<Job>(key, bytes).ok().filter(|_| key.starts_with(keys::JOBS));
                if let Some(job) = job.map(|job| job.value).filter(|job| !job.state.is_finished()) {
                    unmarked.push(job.job_id);
                }
                Ok(())
            })?;
            unmarked.retain(|&job_id| !view.contains(&keys::unfinished(job_id)).unwrap_or(true));
            Ok(unmarked)
        });
        let unmarked = match found {
            Err(StoreError::Corrupt { .. }) => return Ok(()), // Told already.
            found => found?,
        };
        if unmarked.is_empty() {
            return Ok(());
        }
        tracing::error!(jobs = ?unmarked, "jobs that are not finished were not marked so; they are again");
        let mark = |transaction: Transaction, &job_id: &Uuid| transaction.mark(keys::unfinished(job_id));
        self.records().commit(unmarked.iter().fold(Transaction::new(), mark))
    }
}

impl Census {
    fn of(view: &View) -> Result<Self, StoreError> {
        let continued = retention::continued_bases(view, None)?;
        let mut census = Self::default();
        let mut continuations: HashMap<Uuid, Option<BlobName>> = HashMap::new();
        let (mut last, mut count) = (String::new(), 0_u64);
        view.each_record(|key, bytes| {
            count += 1;
            if key <= last.as_str() {
                census.faults.push(format!("{key} (it is not in its place)"));
            }
            key.clone_into(&mut last);
            if record::open(key, bytes).is_err() {
                census.faults.push(key.to_owned());
                return Ok(());
            }
            match RecordKey::parse(key) {
                Some(RecordKey::Version(uid, _)) => {
                    let StoredVersion { version, blob, has_continuation } = record::decode(key, bytes)?.value;
                    census.needed.insert(BlobName::Weights { uid, blob });
                    let continuation = has_continuation.then_some(BlobName::Continuation { uid, blob });
                    if continued.contains(&(uid, version.version)) {
                        census.needed.extend(continuation);
                    }
                    // The next one takes its place: the latest version's is kept.
                    continuations.insert(uid, continuation);
                }
                Some(RecordKey::Unfinished(job_id)) => {
                    census.needed.extend([BlobName::Rows { job_id }, BlobName::Checkpoint { job_id }]);
                }
                Some(_) => {}
                None => census.faults.push(format!("{key} (no key has this form)")),
            }
            Ok(())
        })?;
        let told = view.record_count()?;
        if told != count {
            census.faults.push(format!("records.redb ({count} records are found, of {told})"));
        }
        census.needed.extend(continuations.into_values().flatten());
        Ok(census)
    }

    fn tell(&self) {
        for fault in self.faults.iter().take(FAULTS_LOGGED) {
            tracing::error!(fault, "a record is damaged");
        }
        tracing::error!(
            faults = self.faults.len(),
            "files that may be left over are not removed, since records are damaged; `epochd check` tells all; restore a backup"
        );
    }
}
