//! What a job has reported: stored for later watchers, and compared where epochs are trained again after a crash.

use std::time::Duration;

use uuid::Uuid;

use super::{Running, TrainingRun};
use crate::domain::EpochReport;
use crate::limits::CHUNK_REPORTS;
use crate::store::{Store, StoreError};

/// How long a turn lasts in which nothing can be done but wait for the disk.
pub(super) const NAP: Duration = Duration::from_millis(50);

/// The reports that a job had stored past its checkpoint when the process ended. The epochs are trained again, and come to the same.
pub(super) struct Retrained {
    /// The report that the next one must be like.
    next: u64,
    /// How many are stored.
    count: u64,
    chunk: Option<(u64, Vec<EpochReport>)>,
    has_differed: bool,
}

impl Retrained {
    pub(super) fn new(next: u64, count: u64) -> Self {
        Self { next, count, chunk: None, has_differed: false }
    }

    /// How many reports the training has come to; `None` where it is past those that are stored.
    pub(super) fn index(&self) -> Option<u64> {
        (self.next < self.count).then_some(self.next)
    }

    /// The stored report of the epoch that was just trained; `None` where it is a new one.
    fn take(&mut self, store: &Store, job_id: Uuid) -> Result<Option<EpochReport>, StoreError> {
        let Some(index) = self.index() else { return Ok(None) };
        let (chunk, place) = (index / CHUNK_REPORTS as u64, (index % CHUNK_REPORTS as u64) as usize);
        if self.chunk.as_ref().is_none_or(|(loaded, _)| *loaded != chunk) {
            self.chunk = Some((chunk, store.reports(job_id, chunk as u32)?.unwrap_or_default()));
        }
        self.next += 1;
        Ok(self.chunk.as_ref().and_then(|(_, reports)| reports.get(place).cloned()))
    }

    /// The report as it was told before the crash, where it was.
    pub(super) fn told(&mut self, store: &Store, job_id: Uuid, report: &EpochReport) -> Option<EpochReport> {
        let told = match self.take(store, job_id) {
            Ok(told) => told?,
            Err(error) => {
                tracing::error!(%error, "a report that was told cannot be read back");
                report.clone()
            }
        };
        if !is_same(&told, report) && !std::mem::replace(&mut self.has_differed, true) {
            tracing::warn!(
                epoch = report.epoch,
                told = told.loss,
                now = report.loss,
                "an epoch that is trained again comes to another loss than was told"
            );
        }
        Some(told)
    }
}

/// Whether two reports say the same, timings left out.
fn is_same(one: &EpochReport, other: &EpochReport) -> bool {
    let bits = |report: &EpochReport| (report.loss.to_bits(), report.validation_loss.map(f64::to_bits));
    one.epoch == other.epoch && bits(one) == bits(other)
}

impl TrainingRun {
    /// At the end of a turn: what a later watcher will want.
    pub(super) fn store_reports(&self, running: &mut Running, must_wait: bool) {
        let reports = self.live.history.len();
        if reports == running.reports_written && !must_wait {
            return;
        }
        match self.write_reports() {
            Ok(()) => running.reports_written = reports,
            Err(error) => {
                tracing::error!(%error, must_wait, "reports could not be stored; they are kept and tried again");
                if must_wait {
                    std::thread::sleep(NAP);
                }
            }
        }
    }

    /// Stores every report: full chunks, then the open one as it stands.
    pub(super) fn write_reports(&self) -> Result<(), StoreError> {
        self.write_full_chunks()?;
        let (index, reports) = self.live.history.open_chunk();
        if reports.is_empty() {
            return Ok(());
        }
        self.core.store.write_reports(self.job_id, index as u32, &reports)
    }

    /// Stores full chunks, in order, until one cannot be stored: it stays in memory then.
    pub(super) fn write_full_chunks(&self) -> Result<(), StoreError> {
        while let Some(chunk) = self.live.history.unstored() {
            self.core.store.write_reports(self.job_id, chunk.index as u32, &chunk.reports)?;
            self.live.history.mark_stored();
        }
        Ok(())
    }
}
