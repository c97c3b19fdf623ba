//! A backup of everything durable, in chunks, while the server goes on.

use std::io::{self, Write};
use std::mem;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{App, AppError};
use crate::limits::{BACKUP_CHUNK_BYTES, BACKUP_CHUNKS_WAITING, BACKUP_STALL_SECONDS, BACKUPS_MAX};
use crate::store::{BackupError, BackupSize, LeftOut, StoreError};

/// The bytes of a backup, in chunks. Dropping it ends the backup.
pub struct BackupChunks {
    chunks: mpsc::Receiver<Vec<u8>>,
    /// `None` once its end was told.
    ended: Option<JoinHandle<Result<LeftOut, AppError>>>,
}

/// A part of a backup.
#[derive(Debug)]
pub enum BackupPart {
    /// The next bytes of its archive.
    Chunk(Vec<u8>),
    /// The last part, where anything was left out.
    LeftOut(LeftOut),
}

impl App {
    /// Begins a backup: the state that it will hold is chosen when this returns. What is damaged ends it, or is left out.
    pub async fn backup(&self, skips_damaged: bool) -> Result<BackupChunks, AppError> {
        if !self.core.store.is_durable() {
            return Err(AppError::Precondition(
                "this server keeps everything in memory (--ephemeral): there is nothing to back up; start it with a data folder"
                    .to_owned(),
            ));
        }
        let permit = self.backups.clone().try_acquire_owned().map_err(|_| {
            AppError::Exhausted(format!(
                "{BACKUPS_MAX} backups are under way, as many as there may be at once; wait for one to end"
            ))
        })?;
        let (sender, chunks) = mpsc::channel(BACKUP_CHUNKS_WAITING);
        let (tell_begun, begun) = oneshot::channel();
        let (app, span, runtime) = (self.clone(), tracing::Span::current(), Handle::current());
        let work = move || {
            let _permit = permit;
            let bytes = BACKUP_CHUNK_BYTES.min(app.bounds.answer_bytes_max / 2).max(1);
            let streams_end = app.core.streams_end.clone();
            let sink =
                Chunks { buffer: Vec::with_capacity(bytes), bytes, sender, runtime, streams_end, end: End::Open };
            span.in_scope(|| app.write_backup(skips_damaged, sink, tell_begun))
        };
        let ended = Some(tokio::task::spawn_blocking(work));
        let mut backup = BackupChunks { chunks, ended };
        match begun.await {
            Ok(()) => Ok(backup),
            // It ended before it began.
            Err(_) => Err(backup.end().await.err().unwrap_or(AppError::Stopping)),
        }
    }

    /// In a thread of its own, for as long as the caller takes what comes.
    fn write_backup(
        &self,
        skips_damaged: bool,
        mut sink: Chunks,
        tell_begun: oneshot::Sender<()>,
    ) -> Result<LeftOut, AppError> {
        let backup = match self.core.store.begin_backup(skips_damaged, &|| sink.is_wanted()) {
            Ok(backup) => backup,
            Err(_) if self.core.streams_end.is_cancelled() => return Err(AppError::Stopping),
            Err(error) => {
                tracing::error!(%error, "there is no backup");
                return Err(backup_fault(error));
            }
        };
        tracing::info!("a backup begins");
        // Its caller may be gone, which shows at the first chunk.
        let _ = tell_begun.send(());
        match (backup.write(&mut sink), sink.end) {
            (Ok(BackupSize { files, bytes, left_out }), _) => {
                tracing::info!(files, bytes, left_out = left_out.count, "the backup is complete");
                Ok(left_out)
            }
            (Err(BackupError::Store(error)), _) => {
                tracing::error!(%error, "a backup ended: something cannot be read");
                Err(backup_fault(error))
            }
            (Err(BackupError::Sink(_)), End::Gone) => {
                tracing::warn!("a backup ended: its client went away");
                Ok(LeftOut::default())
            }
            (Err(BackupError::Sink(_)), End::Stopping) => Err(AppError::Stopping),
            (Err(BackupError::Sink(_)), End::Stalled) => {
                tracing::warn!("a backup ended: its client takes nothing any more");
                Err(AppError::Unavailable(format!(
                    "the backup ended, since its caller took no chunk for {BACKUP_STALL_SECONDS} seconds; ask for a new one"
                )))
            }
            (Err(BackupError::Sink(cause)), End::Open) => {
                Err(StoreError::Io { action: "read or write the files of a backup".to_owned(), cause }.into())
            }
        }
    }
}

/// What the caller can do about a fault that has nothing to do with its own request.
fn backup_fault(error: StoreError) -> AppError {
    if error.is_disk_full() {
        return AppError::Exhausted(
            "there is no backup: the disk of the data folder is full, and a backup needs as many bytes free there as the records have \
             (the file records.redb); make room, and ask again"
                .to_owned(),
        );
    }
    match AppError::from(error) {
        AppError::DataLoss(message) => AppError::DataLoss(format!(
            "there is no backup, but there is one of all that is not damaged with skip_damaged (`epochd backup --skip-damaged`): {message}. `epochd \
             check` names every fault of a data folder"
        )),
        other => other,
    }
}

impl BackupChunks {
    /// The next part; `None` after the last, once the backup is complete.
    pub async fn next(&mut self) -> Option<Result<BackupPart, AppError>> {
        if let Some(chunk) = self.chunks.recv().await {
            return Some(Ok(BackupPart::Chunk(chunk)));
        }
        let ended = self.end().await.map(|left_out| (left_out.count > 0).then_some(BackupPart::LeftOut(left_out)));
        ended.transpose()
    }

    async fn end(&mut self) -> Result<LeftOut, AppError> {
        let Some(ended) = self.ended.take() else { return Ok(LeftOut::default()) };
        ended.await.unwrap_or_else(|panic| Err(AppError::Internal(format!("a backup ended without a word: {panic}"))))
    }
}

/// Why chunks are not taken any more.
#[derive(Clone, Copy, Debug)]
enum End {
    Open,
    Gone,
    Stalled,
    Stopping,
}

/// What is written goes to the caller, who may be slow, but not for ever.
struct Chunks {
    buffer: Vec<u8>,
    bytes: usize,
    sender: mpsc::Sender<Vec<u8>>,
    runtime: Handle,
    streams_end: CancellationToken,
    end: End,
}

impl Chunks {
    fn is_wanted(&self) -> bool {
        !self.sender.is_closed() && !self.streams_end.is_cancelled()
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = mem::replace(&mut self.buffer, Vec::with_capacity(self.bytes));
        let stall = Duration::from_secs(BACKUP_STALL_SECONDS);
        let end = self.runtime.block_on(async {
            tokio::select! {
                // Else chunks would go on into a connection that is about to be closed.
                biased;
                () = self.streams_end.cancelled() => End::Stopping,
                sent = tokio::time::timeout(stall, self.sender.send(chunk)) => match sent {
                    Ok(Ok(())) => End::Open,
                    Ok(Err(_)) => End::Gone,
                    Err(_) => End::Stalled,
                },
            }
        });
        self.end = end;
        match end {
            End::Open => Ok(()),
            End::Gone | End::Stalled | End::Stopping => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= self.bytes {
            self.send()?;
        }
        let length = bytes.len().min(self.bytes - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}
