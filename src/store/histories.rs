//! The epoch reports of jobs, in chunks.
//!
//! A chunk's payload is in columns (`columns.rs`). Those of before are MessagePack without field names, so the order of the fields of
//! `EpochReport` and `Metrics` is part of the format: a new field goes to the end, with `#[serde(default)]`. A test holds the bytes.

use uuid::Uuid;

use super::error::StoreError;
use super::records::Transaction;
use super::{Store, columns, keys};
use crate::domain::{EpochReport, Reports};
use crate::limits::{CHUNK_REPORTS, LAYERS_MAX};

impl Store {
    /// Writes a chunk of a job's history, in place of what it held before.
    pub fn write_reports(&self, job_id: Uuid, chunk: u32, reports: &Reports) -> Result<(), StoreError> {
        self.write_chunks(job_id, [(chunk, reports)])
    }

    /// Writes several of them, all or none.
    pub fn write_chunks<'a>(
        &self,
        job_id: Uuid,
        chunks: impl IntoIterator<Item = (u32, &'a Reports)>,
    ) -> Result<(), StoreError> {
        let mut transaction = Transaction::new();
        for (chunk, reports) in chunks {
            transaction = transaction.put_chunk(keys::chunk(job_id, chunk), columns::encode(reports));
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
    pub fn reports(&self, job_id: Uuid, chunk: u32) -> Result<Option<Reports>, StoreError> {
        let key = keys::chunk(job_id, chunk);
        let Some(payload) = self.records().read(|view| view.chunk(&key))? else { return Ok(None) };
        decode(&payload).map(Some).map_err(|error| StoreError::corrupt(format!("{key} ({error})")))
    }
}

/// The reports of a chunk's payload, in columns or as they were stored before; or what is wrong with it.
pub(super) fn decode(payload: &[u8]) -> Result<Reports, String> {
    if columns::is_columns(payload) {
        return columns::decode(payload).map_err(str::to_owned);
    }
    let reports: Vec<EpochReport> = rmp_serde::from_slice(payload).map_err(|error| error.to_string())?;
    if reports.len() > CHUNK_REPORTS || reports.iter().any(|report| report.diagnostics.len() > LAYERS_MAX) {
        return Err("it has more reports, or layers, than there can be".to_owned());
    }
    Ok(reports.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LayerDiagnostics;

    #[test]
    fn more_reports_or_layers_than_there_can_be_are_refused() {
        let read = |reports: usize, layers: usize| {
            let diagnostics = vec![LayerDiagnostics::default(); layers];
            let report = EpochReport { diagnostics, ..EpochReport::default() };
            decode(&rmp_serde::to_vec(&vec![report; reports]).unwrap()).map(|reports| reports.len())
        };
        assert_eq!(read(CHUNK_REPORTS, 0), Ok(CHUNK_REPORTS));
        assert_eq!(read(2, LAYERS_MAX), Ok(2));
        assert!(read(CHUNK_REPORTS + 1, 0).is_err() && read(1, LAYERS_MAX + 1).is_err());
    }
}
