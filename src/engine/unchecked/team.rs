//! Threads that help with large steps.
//!
//! Work is cut into parts by its shape alone, or in a way that no bit depends on; each part is computed in a fixed order, and the
//! caller works too: so the bits are the same with any number of helpers, none among them, and only the time differs. Helpers that
//! wait for the next part of the same step spin for a moment, since a step has many and each is short; then they sleep.
//!
//! The `unsafe` code: the work borrows from its caller's stack, which no safe way of handing it to a thread
//! that lives on allows (a scope of threads would start them anew for every part of a step). What makes it sound: `Team::run` does not
//! return, nor unwind, before every helper that was given the work has let go of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::{fmt, hint, io, mem, ptr, thread};

/// Most parts of one piece of work: the bits of a word.
pub const PARTS_MAX: usize = 32;
/// Numbers that take longer to go through than it takes to hand them out: some microseconds.
const PIECE_MIN: usize = 16 << 10;
/// Pieces of a long run of numbers: more than threads, so that one that is held up holds up little.
const PIECES: usize = 8;
/// How often a helper looks for more before it sleeps: a few hundred microseconds, longer than what a step does alone between two parts.
const SPINS: u32 = 5_000;
/// How often a caller looks whether its helpers are done before it lets other threads have the core.
const SPINS_AT_END: u32 = 20_000;

/// Helpers of trainings, and how many threads train and help together.
pub struct Team {
    threads: usize,
    /// Trainings that are at it now: the cores that helpers may not use.
    callers: AtomicUsize,
    helpers: Box<[Arc<Helper>]>,
    handles: Vec<JoinHandle<()>>,
}

/// One thread that helps.
struct Helper {
    /// Its number among the threads; 0 is the caller's.
    place: usize,
    threads: usize,
    /// Null where it is idle, [`taken`] while it works, else what it is to do.
    job: AtomicPtr<Job>,
    is_asleep: AtomicBool,
    ends: AtomicBool,
    thread: OnceLock<Thread>,
}

/// One piece of work. It lies on its caller's stack.
struct Job {
    work: &'static (dyn Fn(usize) + Sync),
    parts: usize,
    /// A bit a part that somebody works, or has.
    claimed: AtomicU32,
    /// Helpers that have it, or will.
    helpers: AtomicUsize,
    has_panicked: AtomicBool,
}

impl Job {
    /// Works parts until all are claimed, its own first: the same thread comes to the same part of every step, and finds in its cache what
    /// it left there.
    fn work(&self, first: usize) {
        for index in (first..self.parts).chain(0..first) {
            let bit = 1 << index;
            if self.claimed.load(Ordering::Relaxed) & bit == 0
                && self.claimed.fetch_or(bit, Ordering::Relaxed) & bit == 0
            {
                (self.work)(index);
            }
        }
    }
}

impl Team {
    /// A team of so many threads in all, callers among them: it has one helper less. `at_start` runs on each helper first.
    ///
    /// # Errors
    /// Where the system starts no more threads.
    pub fn new(threads: usize, at_start: fn()) -> io::Result<Arc<Self>> {
        let helpers = (1..threads).map(|place| Arc::new(Helper::new(place, threads))).collect();
        let mut team = Self { threads, callers: AtomicUsize::new(0), helpers, handles: Vec::new() };
        for helper in &team.helpers {
            let started = helper.clone();
            let builder = thread::Builder::new().name(format!("epochd-help-{}", helper.place));
            // Where this fails, those that were started end with the team.
            let handle = builder.spawn(move || {
                at_start();
                started.help();
            })?;
            helper.thread.get_or_init(|| handle.thread().clone());
            team.handles.push(handle);
        }
        Ok(Arc::new(team))
    }

    /// Says that a training is at it until what is returned is dropped.
    pub fn enter(self: &Arc<Self>) -> Entered {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }

    /// Calls `work` with 0 up to `parts`, each once, on this thread and those that are free.
    ///
    /// # Panics
    /// Where `work` does.
    fn run(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: the reference is used by this call alone and by helpers that have the job; `Lent::drop` waits for all of them, also
        // where `work` panics, so it is not used after the lifetime that is dropped here.
        let work = unsafe { mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work) };
        let (claimed, helpers) = (AtomicU32::new(0), AtomicUsize::new(0));
        let job = Job { work, parts, claimed, helpers, has_panicked: AtomicBool::new(false) };
        let free = self.threads.saturating_sub(self.callers.load(Ordering::Relaxed).max(1));
        let lent = Lent { team: self, job: &job };
        lent.give(free.min(parts - 1));
        job.work(0);
        drop(lent);
        assert!(!job.has_panicked.load(Ordering::Relaxed), "a helper panicked");
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        for helper in &self.helpers {
            // Before it looks whether the helper is asleep, as in `give`.
            helper.ends.store(true, Ordering::SeqCst);
            helper.wake();
        }
        for handle in self.handles.drain(..) {
            // It has caught its panics.
            let _ = handle.join();
        }
    }
}

/// See [`Team::enter`].
pub struct Entered(Arc<Team>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job that helpers may have. When it is dropped, none has it.
struct Lent<'a> {
    team: &'a Team,
    job: &'a Job,
}

impl Lent<'_> {
    /// To as many idle helpers, at most.
    fn give(&self, count: usize) {
        let job = ptr::from_ref(self.job).cast_mut();
        let mut given = 0;
        for helper in &self.team.helpers {
            if given == count {
                return;
            }
            self.job.helpers.fetch_add(1, Ordering::Relaxed);
            // What was written for the work is there for who takes the job.
            if helper.job.compare_exchange(ptr::null_mut(), job, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                given += 1;
                helper.wake();
            } else {
                self.job.helpers.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes it back from helpers that have not begun.
    fn take_back(&self) {
        let job = ptr::from_ref(self.job).cast_mut();
        for helper in &self.team.helpers {
            if helper.job.compare_exchange(job, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.job.helpers.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.take_back();
        let mut spins = 0;
        // What helpers wrote is there once they are seen to be gone.
        while self.job.helpers.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS_AT_END { hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Helper {
    fn new(place: usize, threads: usize) -> Self {
        Self {
            place,
            threads,
            job: AtomicPtr::new(ptr::null_mut()),
            is_asleep: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// The whole of its life.
    fn help(&self) {
        while !self.ends.load(Ordering::Acquire) {
            match self.take() {
                Some(job) => {
                    // SAFETY: a job that was taken stays where it is until its `helpers` was counted down, which comes last.
                    let job = unsafe { &*job };
                    let worked = catch_unwind(AssertUnwindSafe(|| job.work(job.parts * self.place / self.threads)));
                    if let Err(panic) = worked {
                        job.has_panicked.store(true, Ordering::Relaxed);
                        // To drop it could panic again, and the caller would wait for ever.
                        mem::forget(panic);
                    }
                    self.job.store(ptr::null_mut(), Ordering::Relaxed);
                    job.helpers.fetch_sub(1, Ordering::Release);
                }
                None => self.wait(),
            }
        }
    }

    fn take(&self) -> Option<*const Job> {
        let job = self.job.load(Ordering::Relaxed);
        if job.is_null() {
            return None;
        }
        // What was exchanged, not what was loaded: another job may have come to the same place on a stack meanwhile.
        self.job.compare_exchange(job, taken(), Ordering::Acquire, Ordering::Relaxed).ok().map(<*mut Job>::cast_const)
    }

    /// Until there may be something to do.
    fn wait(&self) {
        let is_idle = || self.job.load(Ordering::SeqCst).is_null() && !self.ends.load(Ordering::SeqCst);
        for _ in 0..SPINS {
            if !is_idle() {
                return;
            }
            hint::spin_loop();
        }
        // Who gives it work after this looks whether it is asleep; who did before is seen here.
        self.is_asleep.store(true, Ordering::SeqCst);
        if is_idle() {
            thread::park();
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        if self.is_asleep.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

/// What stands in the place of a job while a helper works: no address of one.
fn taken() -> *mut Job {
    ptr::without_provenance_mut(1)
}

/// Who computes: one thread, or a team's.
#[derive(Clone, Default)]
pub struct Workers(Option<Arc<Team>>);

impl Workers {
    /// A team's.
    pub fn of(team: Arc<Team>) -> Self {
        Self(Some(team))
    }

    /// Whether there may be more than one.
    pub fn are_several(&self) -> bool {
        self.threads() > 1
    }

    /// Whether they are threads of trainings, be it a single one.
    pub fn are_a_team(&self) -> bool {
        self.0.is_some()
    }

    /// How many there may be.
    pub fn threads(&self) -> usize {
        self.0.as_ref().map_or(1, |team| team.threads)
    }

    /// Calls `work` with every part, at most [`PARTS_MAX`], each on whichever thread is free. Allocates nothing.
    pub fn for_each<P: Send>(&self, parts: impl Iterator<Item = P>, work: impl Fn(P) + Sync) {
        let Some(team) = self.0.as_deref().filter(|team| team.threads > 1) else {
            return parts.for_each(work);
        };
        let mut parts = parts.peekable();
        let Some(first) = parts.next() else { return };
        if parts.peek().is_none() {
            return work(first);
        }
        let slots: [Mutex<Option<P>>; PARTS_MAX] = [const { Mutex::new(None) }; PARTS_MAX];
        let mut count = 0;
        for part in std::iter::once(first).chain(parts) {
            assert!(count < PARTS_MAX, "more parts than one piece of work may have");
            *lock(&slots[count]) = Some(part);
            count += 1;
        }
        let work_at = |index: usize| {
            // Each index comes once.
            if let Some(part) = lock(&slots[index]).take() {
                work(part);
            }
        };
        team.run(count, &work_at);
    }
}

impl Workers {
    /// Calls `work` with pieces of some numbers, whole `unit`s each, and where each begins.
    pub fn for_each_piece<T: Send>(&self, numbers: &mut [T], unit: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        if numbers.len() < 2 * PIECE_MIN || !self.are_several() {
            return work(0, numbers);
        }
        let piece = piece_length(numbers.len(), unit);
        self.for_each(numbers.chunks_mut(piece).enumerate(), |(index, numbers)| work(index * piece, numbers));
    }
}

/// How long the pieces of `length` numbers are that go side by side, in whole `unit`s (of a row, say): it follows from these alone.
/// One piece where it is not worth the while.
pub fn piece_length(length: usize, unit: usize) -> usize {
    let pieces = (length / PIECE_MIN).clamp(1, PIECES);
    length.div_ceil(pieces).next_multiple_of(unit).max(unit)
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Workers({})", self.threads())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn team(threads: usize) -> Workers {
        Workers::of(Team::new(threads, || {}).unwrap())
    }

    #[test]
    fn every_part_is_worked_once_by_whoever() {
        for threads in [1, 2, 4] {
            let workers = team(threads);
            for round in 0..if cfg!(miri) { 20 } else { 2_000 } {
                let count = 1 + round % PARTS_MAX;
                let mut numbers = [0_u32; 3 * PARTS_MAX];
                workers.for_each(numbers[..3 * count].chunks_mut(3), |part| part.iter_mut().for_each(|it| *it += 1));
                assert!(numbers.iter().enumerate().all(|(index, &it)| it == u32::from(index < 3 * count)));
            }
        }
    }

    #[test]
    fn several_callers_share_the_helpers() {
        let team = Team::new(3, || {}).unwrap();
        thread::scope(|scope| {
            for caller in 0..4_u64 {
                let (workers, team) = (Workers::of(team.clone()), &team);
                scope.spawn(move || {
                    for round in 0..if cfg!(miri) { 5 } else { 1_000 } {
                        let _entered = (round % 2 == 0).then(|| team.enter());
                        let mut sums = [0; 8];
                        workers.for_each(sums.iter_mut().zip(0..), |(sum, index)| *sum = caller * 100 + index);
                        assert_eq!(sums, std::array::from_fn(|index| caller * 100 + index as u64));
                    }
                });
            }
        });
    }

    #[test]
    fn a_sleeping_helper_is_woken() {
        let workers = team(2);
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(20));
            let (here, helped) = (thread::current().id(), AtomicBool::new(false));
            // The caller's part lasts until the helper's has begun.
            workers.for_each(0..2, |_| {
                if thread::current().id() == here {
                    while !helped.load(Ordering::Acquire) {
                        thread::yield_now();
                    }
                } else {
                    helped.store(true, Ordering::Release);
                }
            });
        }
    }

    #[test]
    fn a_part_that_panics_reaches_the_caller_and_the_team_lives_on() {
        let workers = team(2);
        for at in 0..4 {
            let panics = |part: usize| assert_ne!(part, at, "a part of the test");
            let caught = catch_unwind(AssertUnwindSafe(|| workers.for_each(0..4, panics)));
            assert!(caught.is_err());
            workers.for_each(0..4, |_| {});
        }
    }
}
