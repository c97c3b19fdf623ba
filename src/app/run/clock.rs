//! The time in a training. To read the clock takes as long as a twentieth of the smallest network's step, so it is read every so many
//! steps, and what ends between two readings is placed between them by the steps before.

use std::mem;
use std::time::{Duration, Instant};

/// How long it goes unread, about: far below what anybody waits for between two batches.
const INTERVAL: Duration = Duration::from_micros(200);

/// Nanoseconds: a time since a clock began, or a length of time. To add up and compare instants takes a good part of what is done for a short
/// epoch; whole numbers take nothing.
pub(super) type Nanos = u64;

/// A clock that is read every so many steps: at each of them where they are long.
pub(super) struct Clock {
    began: Instant,
    read: Nanos,
    /// Steps since then, and after how many it is read again.
    steps: u32,
    stride: u32,
    /// What a step took, by the last two readings.
    step_nanos: Nanos,
    epoch_steps: u32,
    /// Of the last epoch that ended.
    last_epoch_steps: u32,
    /// Whether no step was timed since the reading: at first, and after a pause.
    is_resumed: bool,
    /// The latest time that was told: none after it is earlier.
    told: Nanos,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            read: 0,
            steps: 0,
            stride: 1,
            step_nanos: 0,
            epoch_steps: 0,
            last_epoch_steps: 0,
            is_resumed: true,
            told: 0,
        }
    }

    /// An instant after it began, on this clock.
    pub(super) fn at(&self, instant: Instant) -> Nanos {
        instant.saturating_duration_since(self.began).as_nanos() as Nanos
    }

    /// Goes on after a pause, in which no step was made.
    pub(super) fn resume(&mut self, now: Instant) {
        (self.read, self.steps, self.is_resumed) = (self.at(now), 0, true);
        self.told = self.told.max(self.read);
    }

    /// Whether it is to be read.
    pub(super) fn is_due(&self) -> bool {
        self.is_resumed || self.steps >= self.stride
    }

    pub(super) fn note_step(&mut self) {
        self.steps += 1;
        self.epoch_steps = self.epoch_steps.saturating_add(1);
    }

    /// The time now.
    pub(super) fn read(&mut self) -> Instant {
        let now = Instant::now();
        self.note(self.at(now));
        now
    }

    /// The latest time that was told.
    pub(super) fn told(&self) -> Nanos {
        self.told
    }

    /// Whether the epoch under way has at least as many steps as lie between two readings: its end is worth another.
    pub(super) fn is_epoch_long(&self) -> bool {
        self.epoch_steps >= self.stride
    }

    /// When the epoch ended whose last step was noted just now. A short one ended about then.
    pub(super) fn at_epoch_end(&mut self) -> Nanos {
        let is_long = self.is_epoch_long();
        self.pass_epoch();
        if is_long {
            self.read();
        } else {
            self.told = self.told.max(self.read + self.step_nanos * Nanos::from(self.steps));
        }
        self.told
    }

    /// The epoch ended whose last step was noted just now, and nobody asks when.
    pub(super) fn pass_epoch(&mut self) {
        self.last_epoch_steps = mem::take(&mut self.epoch_steps);
    }

    /// About how long the last epoch that ended took, by its number of steps.
    pub(super) fn epoch_time(&self) -> Nanos {
        self.step_nanos * Nanos::from(self.last_epoch_steps)
    }

    fn note(&mut self, now: Nanos) {
        let time = now.saturating_sub(self.read);
        if !mem::take(&mut self.is_resumed) && self.steps > 0 {
            self.step_nanos = time / Nanos::from(self.steps);
            let steps = INTERVAL.as_nanos() as Nanos / self.step_nanos.max(1);
            // A step that was quick by chance lets it go unread for no more than twice as many.
            self.stride = (steps as u32).clamp(1, self.stride.saturating_mul(2));
        }
        (self.read, self.steps) = (now, 0);
        self.told = self.told.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of so many microseconds, and what is told at the end of each epoch of `epoch` of them, in microseconds.
    fn told(clock: &mut Clock, steps: &[u64], epoch: usize) -> (Vec<u64>, usize) {
        let (mut now, mut told, mut readings) = (0, Vec::new(), 0);
        for (index, &micros) in steps.iter().enumerate() {
            if clock.is_due() {
                clock.note(now);
                readings += 1;
            }
            clock.note_step();
            now += 1_000 * micros;
            if (index + 1) % epoch == 0 {
                // As `at_epoch_end`, at this time.
                if mem::take(&mut clock.epoch_steps) >= clock.stride {
                    readings += 1;
                    clock.note(now);
                } else {
                    clock.told = clock.told.max(clock.read + clock.step_nanos * u64::from(clock.steps));
                }
                told.push(clock.told / 1_000);
            }
        }
        (told, readings)
    }

    #[test]
    fn long_epochs_are_timed_each() {
        let (told, _) = told(&mut Clock::new(Instant::now()), &[1_000; 12], 3);
        assert_eq!(told, [3_000, 6_000, 9_000, 12_000]);
    }

    #[test]
    fn short_epochs_are_placed_by_the_steps_before_and_never_go_back() {
        let mut clock = Clock::new(Instant::now());
        let mut steps = vec![2; 2_000];
        steps.extend([1; 2_000]);
        let (told, readings) = told(&mut clock, &steps, 1);
        assert!(told.is_sorted());
        // A stretch of 100 steps of 2 µs, or one whose steps were taken for twice as long as they were.
        let exact = (1..=4_000_u64).map(|step| if step <= 2_000 { 2 * step } else { 2_000 + step });
        assert!(told.iter().zip(exact).all(|(&told, exact)| told.abs_diff(exact) <= 200), "{told:?}");
        assert!((30..80).contains(&readings), "{readings}");
    }

    #[test]
    fn a_pause_is_no_step() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        told(&mut clock, &[2; 1_000], 1);
        let (stride, step_nanos) = (clock.stride, clock.step_nanos);
        let later = start + Duration::from_secs(60);
        clock.resume(later);
        assert!(clock.is_due());
        clock.note(clock.at(later));
        assert_eq!((clock.stride, clock.step_nanos), (stride, step_nanos));
        clock.note_step();
        assert!(clock.at_epoch_end() >= clock.at(later));
    }
}
