//! Stored chunks of histories, kept in memory for a while: watchers that are behind read the same ones.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{App, AppError};
use crate::domain::Reports;
use crate::jobs::READ_MAX;
use crate::limits::{CHUNK_CACHE_BYTES, CHUNK_READS_MAX};

/// Chunks that are expected in the cache, which sizes its tables.
const CHUNKS_EXPECTED: usize = 64;

/// The cache, by weight. A chunk that is full, or of a finished job, never changes.
pub struct StoredChunks {
    chunks: Cache<(Uuid, u32), Arc<Reports>, BytesWeighter>,
    /// Chunks that are read and decoded at once: each takes its own memory meanwhile.
    reads: Semaphore,
}

#[derive(Clone)]
struct BytesWeighter;

impl Weighter<(Uuid, u32), Arc<Reports>> for BytesWeighter {
    fn weight(&self, _key: &(Uuid, u32), reports: &Arc<Reports>) -> u64 {
        reports.bytes() as u64
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
    /// Up to [`READ_MAX`] reports of a chunk that will not change any more, after the first `skip`; none where none was written. Callers
    /// that want the same chunk wait for one read.
    ///
    /// A task of its own reads: a stream that nobody takes from is not polled either, and would keep its place in the cache, and its turn to
    /// read, from all others.
    pub(super) async fn stored_part(&self, job_id: Uuid, chunk: u32, skip: usize) -> Result<Reports, AppError> {
        let app = self.clone();
        let part = async move {
            let stored = app.stored_chunk(job_id, chunk).await?;
            // Copied out: a thousand watchers would keep as many chunks in memory.
            Ok(stored.map(|reports| reports.part(skip..skip + READ_MAX)).unwrap_or_default())
        };
        let mut task = JoinSet::new();
        task.spawn(part);
        let part = task.join_next().await;
        part.and_then(Result::ok).unwrap_or_else(|| Err(AppError::Internal("reports could not be read".to_owned())))
    }

    async fn stored_chunk(&self, job_id: Uuid, chunk: u32) -> Result<Option<Arc<Reports>>, AppError> {
        let stored = &self.core.chunks;
        let read = async {
            // The semaphore is never closed.
            let _permit = stored.reads.acquire().await.ok();
            let reports = self.blocking(move |app| Ok(app.core.store.reports(job_id, chunk)?)).await.map_err(Some)?;
            reports.map(Arc::new).ok_or(None)
        };
        match stored.chunks.get_or_insert_async(&(job_id, chunk), read).await {
            Ok(reports) => Ok(Some(reports)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}
