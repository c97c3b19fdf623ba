//! What a job has reported: stored for later watchers, and compared where epochs are trained again after a crash.

use std::time::Duration;

use uuid::Uuid;

use super::{Running, TrainingRun};
use crate::app::keeper::store_full_chunks;
use crate::domain::{EpochReport, Job, Metric, Reports};
use crate::engine::is_better;
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
    chunk: Option<(u64, Reports)>,
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

    /// The best report that was told: that of the checkpoint, or one of those after it.
    pub(super) fn best_told(
        &mut self,
        store: &Store,
        job_id: Uuid,
        at_checkpoint: Option<EpochReport>,
        metric: Metric,
    ) -> Option<EpochReport> {
        (self.next..self.count).fold(at_checkpoint, |best, index| match self.stored(store, job_id, index) {
            Some(report) if best.as_ref().is_none_or(|best| is_better(&report, best, metric)) => Some(report),
            _ => best,
        })
    }

    /// The stored report at an index; `None` where it cannot be read.
    fn stored(&mut self, store: &Store, job_id: Uuid, index: u64) -> Option<EpochReport> {
        let (chunk, place) = (index / CHUNK_REPORTS as u64, (index % CHUNK_REPORTS as u64) as usize);
        if self.chunk.as_ref().is_none_or(|(loaded, _)| *loaded != chunk) {
            let reports = store.reports(job_id, chunk as u32).unwrap_or_else(|error| {
                tracing::error!(%error, "reports that were told cannot be read back; they are not compared");
                None
            });
            self.chunk = Some((chunk, reports.unwrap_or_default()));
        }
        self.chunk.as_ref().and_then(|(_, reports)| reports.get(place))
    }

    /// The report of the epoch that was just trained as it was told before the crash, where it was. One that cannot be read back was
    /// told all the same.
    pub(super) fn told(&mut self, store: &Store, job_id: Uuid, report: &EpochReport) -> Option<EpochReport> {
        let index = self.index()?;
        self.next += 1;
        let told = self.stored(store, job_id, index).unwrap_or_else(|| report.clone());
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

/// The best report of a job that ends before it has gone on after a crash.
pub(in crate::app) fn best_stored(store: &Store, job: &Job) -> Option<EpochReport> {
    Retrained::new(0, job.report_count).best_told(store, job.job_id, None, job.settings.monitored())
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
        store_full_chunks(&self.core.store, self.job_id, &self.live)?;
        let (index, reports) = self.live.history.open_chunk();
        if reports.is_empty() {
            return Ok(());
        }
        self.core.store.write_reports(self.job_id, index as u32, &reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Metrics;

    fn report(epoch: u32) -> EpochReport {
        EpochReport {
            epoch,
            loss: 1.0 / f64::from(epoch),
            validation_loss: None,
            metrics: Metrics::default(),
            validation_metrics: None,
            learning_rate: 0.1,
            elapsed_micros: u64::from(epoch),
            samples_per_second: 1.0,
            diagnostics: Vec::new(),
        }
    }

    #[test]
    fn the_best_report_that_was_told_is_that_of_the_checkpoint_or_one_after_it() {
        let (store, job_id) = (Store::ephemeral().unwrap(), Uuid::now_v7());
        let with_loss = |epoch, loss| EpochReport { loss, ..report(epoch) };
        let told: Vec<EpochReport> =
            [9.0, 2.0, 5.0, 3.0, 4.0].into_iter().zip(1..).map(|(loss, epoch)| with_loss(epoch, loss)).collect();
        store.write_reports(job_id, 0, &told.iter().collect()).unwrap();
        for (next, at_checkpoint, best) in
            [(0, None, 2), (2, Some(2), 2), (2, Some(1), 4), (5, Some(2), 2), (5, None, 0)]
        {
            let at_checkpoint = at_checkpoint.map(|epoch: usize| told[epoch - 1].clone());
            let best_told = Retrained::new(next, 5).best_told(&store, job_id, at_checkpoint, Metric::Loss);
            assert_eq!(best_told.map_or(0, |report| report.epoch), best, "from {next}");
        }
    }

    #[test]
    fn epochs_that_were_told_stay_told_whether_or_not_their_reports_can_be_read() {
        let (store, job_id) = (Store::ephemeral().unwrap(), Uuid::now_v7());
        let stored = |epoch| EpochReport { elapsed_micros: 99, ..report(epoch) };
        let count = CHUNK_REPORTS as u32 + 3;
        // The first chunk is missing, the second is there.
        store
            .write_reports(
                job_id,
                1,
                &(CHUNK_REPORTS as u32 + 1..=count).map(stored).collect::<Vec<_>>().iter().collect(),
            )
            .unwrap();
        let mut retrained = Retrained::new(0, u64::from(count));
        for epoch in 1..=count {
            let told = retrained.told(&store, job_id, &report(epoch)).unwrap();
            assert_eq!(told, if epoch > CHUNK_REPORTS as u32 { stored(epoch) } else { report(epoch) });
        }
        assert_eq!(retrained.told(&store, job_id, &report(count + 1)), None);
        assert_eq!(retrained.index(), None);
    }
}
