//! The epoch reports of jobs, in chunks.
//!
//! A chunk's payload is MessagePack without field names (a report is a quarter of its size with them), so the order of the
//! fields of `EpochReport` and `Metrics` is part of the format: a new field goes to the end, with `#[serde(default)]`. A test
//! holds the bytes.

use uuid::Uuid;

use super::error::StoreError;
use super::records::Transaction;
use super::{Store, keys};
use crate::domain::EpochReport;

impl Store {
    /// Writes a chunk of a job's history, in place of what it held before.
    pub fn write_reports(&self, job_id: Uuid, chunk: u32, reports: &[EpochReport]) -> Result<(), StoreError> {
        self.write_chunks(job_id, [(chunk, reports)])
    }

    /// Writes several of them, all or none.
    pub fn write_chunks<'a>(
        &self,
        job_id: Uuid,
        chunks: impl IntoIterator<Item = (u32, &'a [EpochReport])>,
    ) -> Result<(), StoreError> {
        let mut transaction = Transaction::new();
        for (chunk, reports) in chunks {
            let key = keys::chunk(job_id, chunk);
            let payload = rmp_serde::to_vec(reports)
                .map_err(|error| StoreError::Encoding { key: key.clone(), reason: error.to_string() })?;
            transaction = transaction.put_chunk(key, payload);
        }
        self.records().commit(transaction)
    }

    /// How many chunks of a job's history are written: they are numbered without a gap.
    pub fn chunk_count(&self, job_id: Uuid) -> Result<u32, StoreError> {
        let is_there = |chunk: u32| self.records().read(|view| view.has_chunk(&keys::chunk(job_id, chunk)));
        let mut end = 1;
        while is_there(end - 1)? {
            end *= 2;
        }
        // The first that is not there lies between these two.
        let (mut low, mut high) = (end / 2, end - 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_there(middle)? { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    /// A chunk of a job's history; `None` where none was written.
    pub fn reports(&self, job_id: Uuid, chunk: u32) -> Result<Option<Vec<EpochReport>>, StoreError> {
        let key = keys::chunk(job_id, chunk);
        let Some(payload) = self.records().read(|view| view.chunk(&key))? else { return Ok(None) };
        let reports = rmp_serde::from_slice(&payload);
        reports.map(Some).map_err(|error| StoreError::corrupt(format!("{key} ({error})")))
    }
}
