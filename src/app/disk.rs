//! Room on the disk: what a call would add to the data folder is compared with a bound before anything is written. What was accepted is
//! not refused later, so the room that unfinished jobs will want is promised to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::train::given_validation_rows;
use super::{App, AppError};
use crate::domain::{Architecture, Settings};
use crate::engine::slot_count;

/// Copies of the parameters that the end of a training keeps beside what its optimizer remembers: the last epoch's, and the best one's.
const STATE_COPIES: u64 = 3;

/// Bytes that unfinished jobs will write.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises(Arc<AtomicU64>);

/// Those of one job, until it is dropped.
#[derive(Debug)]
pub(super) struct Promise {
    of: Promises,
    bytes: u64,
}

impl Promises {
    pub(super) fn make(&self, bytes: u64) -> Promise {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Promise { of: self.clone(), bytes }
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Promise {
    /// So many of the bytes are written: they count as used from now on.
    pub(super) fn kept(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl App {
    /// Refuses what would make the data folder larger than it may be. Calls that come at once may pass the bound by what they write.
    pub(super) fn bound_disk(&self, bytes: u64) -> Result<(), AppError> {
        let max = self.bounds.disk_bytes_max;
        if max == u64::MAX {
            return Ok(());
        }
        let look = || Ok::<_, AppError>((self.core.store.used_bytes()?, self.core.promises.bytes()));
        let fits = |(used, promised): (u64, u64)| used.saturating_add(promised).saturating_add(bytes) <= max;
        let mut now = look()?;
        if !fits(now) {
            // What was deleted may still be free pages of the record file.
            self.core.store.make_room()?;
            now = look()?;
        }
        if fits(now) {
            return Ok(());
        }
        let (used, promised) = now;
        Err(AppError::Exhausted(format!(
            "the server's data folder has {used} bytes and unfinished jobs will add {promised}, so that {bytes} more would pass its bound \
             of {max}; delete models, wait for jobs to end, start the server with a smaller --versions-per-model, --finished-jobs or \
             --kept-reports, or with a larger --disk-bytes-max"
        )))
    }
}

/// The weights of a version.
pub(super) fn version_bytes(architecture: &Architecture) -> u64 {
    (architecture.parameter_count() * architecture.element_type().size_bytes()) as u64
}

/// What a training adds to the folder, at most, by estimate: its rows, a checkpoint, the version with the end of its training, and its
/// reports.
pub(super) fn training_disk_bytes(architecture: &Architecture, settings: &Settings) -> u64 {
    /// An epoch's report, with validation.
    const REPORT_BYTES: u64 = 100;
    let data = rows_disk_bytes(architecture, settings);
    let state = (STATE_COPIES + slot_count(&settings.optimizer) as u64) * version_bytes(architecture);
    let reports = u64::from(settings.epochs / settings.report_every.max(1)) * REPORT_BYTES;
    data.saturating_add(2 * state).saturating_add(version_bytes(architecture)).saturating_add(reports)
}

/// The part of it that is there from its acceptance on: the rows.
pub(super) fn rows_disk_bytes(architecture: &Architecture, settings: &Settings) -> u64 {
    let element = architecture.element_type().size_bytes() as u64;
    let columns = (architecture.input_width() + architecture.output_layer().units) as u64 + 1;
    let rows = settings.rows.saturating_add(given_validation_rows(settings));
    rows.saturating_mul(columns * element)
}
