//! Checkpoints: taken between two batches, by time, and never so often that they cost more than their share.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Running, TrainingRun};
use crate::app::{AppError, continuation, now};
use crate::domain::{CheckpointMark, Continuation, ContinuationRef, Settings};
use crate::engine::TrainerState;
use crate::limits::CHECKPOINT_COST_INVERSE;
use crate::store::Store;

/// When the next checkpoint is due.
pub(super) struct Checkpoints {
    /// `None` where nothing outlives the process.
    interval: Option<Duration>,
    due: Instant,
    /// Whether a batch was trained since the last.
    has_news: bool,
}

impl Checkpoints {
    pub(super) fn new(store: &Store, settings: &Settings, now: Instant) -> Self {
        let interval = store.is_durable().then(|| Duration::from_micros(settings.checkpoint_interval_micros));
        Self { interval, due: later(now, interval.unwrap_or_default()), has_news: false }
    }

    /// A batch was trained.
    pub(super) fn note_step(&mut self) {
        self.has_news = true;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.has_news && now >= self.due && self.interval.is_some()
    }

    /// Whether there is anything that a checkpoint would save.
    fn is_wanted(&self) -> bool {
        self.has_news && self.interval.is_some()
    }

    /// A checkpoint was taken from `begun` to now, or could not be.
    fn taken(&mut self, begun: Instant, is_written: bool) {
        let now = Instant::now();
        let pause = (now - begun).saturating_mul(CHECKPOINT_COST_INVERSE);
        self.due = later(now, self.interval.unwrap_or_default().max(pause));
        self.has_news &= !is_written;
    }
}

/// A time that no clock reaches stands for never.
fn later(now: Instant, pause: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(pause.min(NEVER)).unwrap_or(now)
}

/// What a checkpoint says beside the trainer's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkpoint {
    /// Time since the job started, pauses of the server left out.
    pub elapsed: Duration,
    /// How many reports the job had appended.
    pub report_index: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    elapsed_micros: u64,
    report_index: u64,
    /// Its vectors are empty: they are kept apart.
    state: TrainerState,
}

impl Checkpoint {
    /// Everything of it but the vectors.
    fn head(self, state: TrainerState) -> Result<Vec<u8>, AppError> {
        let Self { elapsed, report_index } = self;
        let head = Head { elapsed_micros: elapsed.as_micros() as u64, report_index, state };
        rmp_serde::to_vec_named(&head)
            .map_err(|error| AppError::Internal(format!("a checkpoint cannot be encoded: {error}")))
    }

    /// The last checkpoint of a job, and the trainer's state in it; `None` where there is none.
    pub(super) fn read(store: &Store, job_id: Uuid) -> Result<Option<(Self, TrainerState)>, AppError> {
        let Some(Continuation { head, vectors }) = store.checkpoint(job_id)? else { return Ok(None) };
        let damaged = || AppError::DataLoss(format!("the checkpoint of job {job_id} cannot be read back"));
        let Head { elapsed_micros, report_index, mut state } = rmp_serde::from_slice(&head).map_err(|_| damaged())?;
        continuation::put_vectors(&mut state, vectors).ok_or_else(damaged)?;
        Ok(Some((Self { elapsed: Duration::from_micros(elapsed_micros), report_index }, state)))
    }
}

impl TrainingRun {
    /// Writes a checkpoint, where there is something to save. The reports before it are stored first: they are not trained again.
    pub(super) fn take_checkpoint(&self, running: &mut Running) {
        if !running.checkpoints.is_wanted() {
            return;
        }
        let begun = Instant::now();
        running.epoch_time.pause(running.clock.at(begun));
        let written = self.write_checkpoint(running, begun);
        if let Err(error) = &written {
            tracing::error!(%error, "a checkpoint could not be written; the one before stays, and the next is tried");
        }
        running.checkpoints.taken(begun, written.is_ok());
        running.epoch_time.since = running.clock.at(Instant::now());
    }

    fn write_checkpoint(&self, running: &mut Running, instant: Instant) -> Result<(), AppError> {
        self.write_reports()?;
        running.reports_written = self.live.history.len();
        let report_index = running.retrained.index().unwrap_or(running.reports_written);
        let checkpoint =
            Checkpoint { elapsed: Duration::from_nanos(running.elapsed(running.clock.at(instant))), report_index };
        let head = checkpoint.head(running.trainer.state_without_vectors())?;
        let written = ContinuationRef { head: &head, vectors: running.trainer.vectors() };
        let mark = CheckpointMark { time: now(), epoch: running.trainer.epoch() };
        let attempt = self.live.record().attempt;
        if self.core.store.write_checkpoint(self.job_id, attempt, mark, written)?.is_some() {
            self.live.update_record(|job| {
                job.checkpoint = Some(mark);
                job.starts_without_checkpoint = 0;
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoints(interval: Duration, now: Instant) -> Checkpoints {
        Checkpoints { interval: Some(interval), due: later(now, interval), has_news: false }
    }

    #[test]
    fn a_checkpoint_is_due_after_its_interval_and_only_when_a_batch_was_trained() {
        let start = Instant::now();
        let mut clock = checkpoints(Duration::from_secs(10), start);
        assert!(!clock.is_due(start + Duration::from_secs(11)));
        clock.note_step();
        assert!(!clock.is_due(start + Duration::from_secs(9)) && clock.is_due(start + Duration::from_secs(11)));
        clock.taken(Instant::now(), true);
        assert!(!clock.is_wanted());
        clock.note_step();
        clock.taken(Instant::now(), false);
        assert!(clock.is_wanted(), "what could not be written is still to be saved");
    }

    #[test]
    fn one_that_took_long_is_not_followed_by_another_soon() {
        let Some(begun) = Instant::now().checked_sub(Duration::from_secs(1)) else { return };
        let mut clock = checkpoints(Duration::from_secs(10), begun);
        clock.note_step();
        clock.taken(begun, true);
        clock.note_step();
        assert!(!clock.is_due(Instant::now() + Duration::from_secs(119)));
        assert!(clock.is_due(Instant::now() + Duration::from_secs(130)));
    }
}
