//! A job in training: the work that the scheduler runs in slices. Everything that depends on time is here, around the
//! engine's steps, which know no clock.

mod begin;
mod checkpoint;
mod clock;
mod ending;
mod reports;
mod retry;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Core;
use super::disk::Promise;
use super::live::{LiveJob, LiveSnapshot};
use crate::domain::{Failure, FailureKind, Reports, StopReason};
use crate::engine::{AnyTrainer, EpochEnd, Step};
use crate::jobs::{Slice, StopRequest, Work};
use begin::Begun;
use checkpoint::Checkpoints;
use clock::{Clock, Nanos};
use ending::{End, Ending};
use reports::Retrained;
pub(super) use reports::best_stored;
use retry::Retry;

/// Full chunks of reports that may wait in memory for a disk that takes them, and their bytes; then the training waits, too. Some hundred
/// milliseconds of the quickest training; with diagnostics of many layers a chunk has megabytes.
const UNSTORED_CHUNKS_MAX: u64 = 128;
/// See [`UNSTORED_CHUNKS_MAX`].
const UNSTORED_BYTES_MAX: usize = 64 << 20;
/// How old the network of live predictions may be when an epoch ends.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(100);

/// One job, from its place in the queue to its end.
pub(super) struct TrainingRun {
    core: Arc<Core>,
    model_uid: Uuid,
    job_id: Uuid,
    /// Those of earlier processes.
    attempts_before: u32,
    live: Arc<LiveJob>,
    caller: Arc<str>,
    room: Room,
    phase: Phase,
}

/// What a job takes from its first turn to its last, by estimate.
pub(super) struct Room {
    /// In memory.
    pub bytes: u64,
    /// On the disk, promised to it as long as this lives.
    pub _disk: Promise,
}

/// Where it is.
enum Phase {
    /// It has not begun. Where the disk does not let it, it is tried again.
    Waiting(Retry),
    Training(Box<Running>),
    Ending(Box<Ending>),
    Ended,
}

/// What a job has once it has started.
struct Running {
    trainer: AnyTrainer,
    clock: Clock,
    /// Of earlier attempts, up to the checkpoint that this one goes on from.
    elapsed_before: Nanos,
    time_max: Option<Duration>,
    epochs_before: u32,
    fingerprint: u64,
    snapshot_taken: Instant,
    epoch_time: Stopwatch,
    /// Rows of the present epoch that were trained before this attempt.
    rows_before: u64,
    /// Reports when the open chunk was last stored.
    reports_written: u64,
    /// Reports that are not in the history yet.
    untold: Reports,
    /// Whether a report came that the job's record does not show yet.
    has_unshown: bool,
    /// Whether an epoch ended that live predictions do not show yet.
    has_passed: bool,
    retrained: Retrained,
    checkpoints: Checkpoints,
}

/// Time spent in slices, pauses between them left out.
struct Stopwatch {
    before: Nanos,
    since: Nanos,
    /// Whether it was started where the epoch under way began.
    is_known: bool,
}

impl TrainingRun {
    /// A job that waits for its turn.
    pub(super) fn new(core: Arc<Core>, job_id: Uuid, live: Arc<LiveJob>, room: Room) -> Self {
        let record = live.record();
        let (model_uid, attempts_before, caller) = (record.model_uid, record.attempt, record.caller.as_str().into());
        Self { core, model_uid, job_id, attempts_before, live, caller, room, phase: Phase::Waiting(Retry::new()) }
    }

    fn span(&self) -> tracing::Span {
        tracing::info_span!("job", job_id = %self.job_id, model_id = %self.live.record().model_id)
    }

    /// Trains until the job ends or its turn is over; whether it is done.
    fn train(&mut self, slice: &Slice) -> bool {
        let mut running = match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Waiting(retry) => match self.begin(retry) {
                Begun::Running(running) => running,
                Begun::Ended(end) => return self.end(*end, None),
                Begun::Later(retry) => {
                    self.phase = Phase::Waiting(retry);
                    return false;
                }
            },
            Phase::Training(running) => running,
            Phase::Ending(ending) => return self.try_to_end(ending),
            Phase::Ended => return true,
        };
        let end = self.steps(&mut running, slice);
        self.tell(&mut running);
        match end {
            Some(end) => {
                self.show_reports(&mut running);
                self.end(end, Some(running))
            }
            None => {
                self.phase = Phase::Training(running);
                false
            }
        }
    }

    /// Steps until the job ends, or its turn is over.
    fn steps(&self, running: &mut Running, slice: &Slice) -> Option<End> {
        let instant = Instant::now();
        running.clock.resume(instant);
        running.epoch_time.since = running.clock.at(instant);
        loop {
            // Epochs that were told before a crash are not given back: what is kept comes after them.
            let catches_up = running.retrained.index().is_some();
            match self.live.control.stop_requested() {
                Some(StopRequest::Keep) if catches_up => {}
                Some(request) => return Some(running.cancelled(request)),
                None => {}
            }
            if running.clock.is_due() {
                let instant = running.clock.read();
                if running.is_time_over(instant) && !catches_up {
                    return Some(running.out_of_time());
                }
                if self.is_turn_over(running, slice, instant) {
                    return None;
                }
            }
            running.checkpoints.note_step();
            let step = running.trainer.step_batch();
            running.clock.note_step();
            match step {
                Step::Batch => self.show_progress(running, running.trainer.rows_done_in_epoch()),
                // Most epochs of a small network, where few are reported: nothing is done for them that can be done for many at once.
                Step::Epoch(end) if !end.is_reported && end.stop.is_none() && !running.clock.is_epoch_long() => {
                    running.pass_epoch();
                    self.show_progress(running, 0);
                }
                Step::Epoch(end) => {
                    if let Some(end) = self.end_epoch(running, end) {
                        return Some(end);
                    }
                }
            }
        }
    }

    /// Does what is due by time: shows and stores what came; whether the turn is over.
    fn is_turn_over(&self, running: &mut Running, slice: &Slice, instant: Instant) -> bool {
        self.tell(running);
        self.show_reports(running);
        self.show_catching_up(running);
        if running.has_passed && instant - running.snapshot_taken >= SNAPSHOT_AGE_MAX {
            (running.has_passed, running.snapshot_taken) = (false, instant);
            self.live.set_snapshot(running.snapshot());
        }
        let history = &self.live.history;
        let must_wait = history.unstored_count() > UNSTORED_CHUNKS_MAX || history.unstored_bytes() > UNSTORED_BYTES_MAX;
        if slice.is_over(instant) || must_wait {
            running.epoch_time.pause(running.clock.at(instant));
            self.store_reports(running, must_wait);
            if slice.is_last() {
                self.take_checkpoint(running);
            }
            return true;
        }
        if running.checkpoints.is_due(instant) {
            self.take_checkpoint(running);
        }
        false
    }

    /// Reports an epoch; how the job ends, if it does.
    fn end_epoch(&self, running: &mut Running, end: EpochEnd) -> Option<End> {
        let is_long = running.clock.is_epoch_long();
        let time = running.clock.at_epoch_end();
        let (elapsed, speed) = (running.elapsed(time), running.samples_per_second(time, is_long));
        running.trainer.stamp(elapsed / 1_000, speed);
        running.has_passed = true;
        // What was told of epochs that are trained again is told already, and the best of it may be yet to come.
        let is_new = end.is_reported && !self.note_if_told(running, time);
        self.show_progress(running, 0);
        self.show_catching_up(running);
        if is_new && let Some(report) = running.trainer.report() {
            running.untold.push(report);
            running.has_unshown = true;
            if is_long {
                self.live.note_report(report);
                self.show_reports(running);
                self.tell(running);
            }
        }
        end.stop.map(|stop| running.stopped(stop.reason, stop.message))
    }

    /// Where the report of the epoch that ended at a time was told before a crash, it gets the timings that it was told with; whether it was.
    /// Once for each report, and in order.
    fn note_if_told(&self, running: &mut Running, time: Nanos) -> bool {
        let report = running.trainer.report();
        let told = report.and_then(|report| running.retrained.told(&self.core.store, self.job_id, report));
        if let Some(told) = &told {
            running.note_told(told.elapsed_micros, time);
            running.trainer.stamp(told.elapsed_micros, told.samples_per_second);
        }
        told.is_some()
    }

    /// Appends reports to the history: one, where epochs are long; where they are not, those since the clock was read, since the history
    /// is shared with watchers. The record shows a report before where epochs are long, and soon after where they are not.
    fn tell(&self, running: &mut Running) {
        if running.untold.is_empty() {
            return;
        }
        if self.live.history.append(&running.untold) {
            self.core.keeper.store_soon(self.job_id, &self.live);
        }
        running.untold.clear();
    }

    /// Lets the record show the reports that came.
    fn show_reports(&self, running: &mut Running) {
        running.stamp_passed();
        if mem::take(&mut running.has_unshown) {
            let best = running.trainer.best_report();
            self.live.show_reports(best);
        }
    }

    /// Epochs that were told before a crash are not shown again.
    fn show_progress(&self, running: &Running, rows_done: u64) {
        if running.retrained.index().is_none() {
            self.live.set_progress(running.trainer.epoch() + 1, rows_done);
        }
    }

    /// Where the training is while epochs are trained again, for the time that is left.
    fn show_catching_up(&self, running: &Running) {
        let epoch = running.retrained.index().map(|_| running.trainer.epoch());
        if epoch.is_some() || self.live.catching_up().is_some() {
            self.live.set_catching_up(epoch);
        }
    }

    /// Ends a job that never trained; whether its end is stored.
    pub(super) fn cancel_waiting(&mut self) -> bool {
        let _span = self.span().entered();
        self.end(End::without_result(StopReason::Cancelled, None), None)
    }
}

impl Work for TrainingRun {
    type Key = Uuid;
    type Id = Uuid;
    type Owner = Arc<str>;

    fn key(&self) -> Uuid {
        self.model_uid
    }

    fn id(&self) -> Uuid {
        self.job_id
    }

    fn owner(&self) -> Arc<str> {
        self.caller.clone()
    }

    fn bytes(&self) -> u64 {
        self.room.bytes
    }

    fn run(&mut self, slice: &Slice) -> bool {
        let _span = self.span().entered();
        let _entered = self.core.team.enter();
        self.train(slice)
    }

    fn panicked(&mut self, message: &str) -> bool {
        let _span = self.span().entered();
        tracing::error!(panic = message, "the job panicked");
        let failure =
            Failure { kind: FailureKind::Internal, message: "the training ended by a bug of epochd".to_owned() };
        self.end(End::without_result(StopReason::Internal, Some(failure)), None)
    }
}

impl Running {
    fn snapshot(&self) -> LiveSnapshot {
        LiveSnapshot {
            epoch: self.trainer.epoch(),
            network: self.trainer.network(),
            preprocessing: self.trainer.preprocessing(),
        }
    }

    /// Time since the job started, pauses of the server left out.
    fn elapsed(&self, time: Nanos) -> Nanos {
        self.elapsed_before.saturating_add(time)
    }

    /// An epoch ended that was short, and is not told.
    fn pass_epoch(&mut self) {
        self.clock.pass_epoch();
        self.epoch_time.is_known = false;
        (self.rows_before, self.has_passed) = (0, true);
    }

    /// Training rows a second in the epoch that ended at a time.
    fn samples_per_second(&mut self, time: Nanos, is_long: bool) -> f64 {
        let is_timed = is_long && self.epoch_time.is_known;
        let timed = self.epoch_time.restart(time);
        self.epoch_time.is_known = is_long;
        // An epoch that was begun before the checkpoint was not trained in this time alone.
        let rows = self.trainer.training_rows().saturating_sub(mem::take(&mut self.rows_before));
        a_second(rows, if is_timed { timed } else { self.clock.epoch_time() })
    }

    /// The last epoch and the best one may be among those that were passed.
    fn stamp_passed(&mut self) {
        let speed = a_second(self.trainer.training_rows(), self.clock.epoch_time());
        self.trainer.stamp_new(self.elapsed(self.clock.told()) / 1_000, speed);
    }

    /// An epoch was trained again: what comes after it does not come before it in time.
    fn note_told(&mut self, elapsed_micros: u64, time: Nanos) {
        let told = elapsed_micros.saturating_mul(1_000);
        self.elapsed_before += told.saturating_sub(self.elapsed(time));
    }

    /// Whether this job, not only one that it goes on with, has finished an epoch.
    fn has_whole_epoch(&self) -> bool {
        self.trainer.epoch() > self.epochs_before && self.trainer.has_whole_epoch()
    }

    fn is_time_over(&self, instant: Instant) -> bool {
        self.time_max.is_some_and(|time_max| Duration::from_nanos(self.elapsed(self.clock.at(instant))) >= time_max)
    }
}

impl Stopwatch {
    fn pause(&mut self, time: Nanos) {
        self.before += time.saturating_sub(self.since);
    }

    /// The time so far; starts again from zero.
    fn restart(&mut self, now: Nanos) -> Nanos {
        let time = self.before + now.saturating_sub(self.since);
        (self.before, self.since) = (0, now);
        time
    }
}

/// So many rows in so long.
fn a_second(rows: u64, time: Nanos) -> f64 {
    1e9 * rows as f64 / time.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_a_second_are_of_nanoseconds_and_finite() {
        assert_eq!(a_second(150, 1_000_000_000), 150.0);
        assert_eq!(a_second(3, 1_500), 2e6);
        assert_eq!(a_second(4, 0), 4e9);
    }

    #[test]
    fn a_stopwatch_leaves_pauses_out() {
        let mut stopwatch = Stopwatch { before: 0, since: 100, is_known: true };
        stopwatch.pause(150);
        stopwatch.since = 1_000;
        assert_eq!(stopwatch.restart(1_007), 57);
        assert_eq!(stopwatch.restart(1_010), 3);
    }
}
