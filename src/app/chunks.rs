//! Stored chunks of histories, kept in memory for a while: watchers that are behind read the same ones.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{App, AppError};
use crate::domain::{EpochReport, LayerDiagnostics};
use crate::limits::{CHUNK_CACHE_BYTES, CHUNK_READS_MAX};

/// Chunks that are expected in the cache, which sizes its tables.
const CHUNKS_EXPECTED: usize = 64;

/// The cache, by weight. A chunk that is full, or of a finished job, never changes.
pub struct StoredChunks {
    chunks: Cache<(Uuid, u32), Arc<[EpochReport]>, BytesWeighter>,
    /// Chunks that are read and decoded at once: each takes its own memory meanwhile.
    reads: Semaphore,
}

#[derive(Clone)]
struct BytesWeighter;

impl Weighter<(Uuid, u32), Arc<[EpochReport]>> for BytesWeighter {
    fn weight(&self, _key: &(Uuid, u32), reports: &Arc<[EpochReport]>) -> u64 {
        let layers: usize = reports.iter().map(|report| report.diagnostics.len()).sum();
        (size_of_val(&**reports) + layers * size_of::<LayerDiagnostics>()) as u64
    }
}

impl Default for StoredChunks {
    fn default() -> Self {
        let chunks = Cache::with(
            CHUNKS_EXPECTED,
            CHUNK_CACHE_BYTES,
            BytesWeighter,
            DefaultHashBuilder::default(),
            Default::default(),
        );
        Self { chunks, reads: Semaphore::new(CHUNK_READS_MAX) }
    }
}

impl App {
    /// A chunk that will not change any more; `None` where none was written. Callers that want the same one wait for one read.
    pub(super) async fn stored_chunk(&self, job_id: Uuid, chunk: u32) -> Result<Option<Arc<[EpochReport]>>, AppError> {
        let stored = &self.core.chunks;
        let read = async {
            // The semaphore is never closed.
            let _permit = stored.reads.acquire().await.ok();
            let reports = self.blocking(move |app| Ok(app.core.store.reports(job_id, chunk)?)).await.map_err(Some)?;
            reports.map(Arc::from).ok_or(None)
        };
        match stored.chunks.get_or_insert_async(&(job_id, chunk), read).await {
            Ok(reports) => Ok(Some(reports)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}
