//! Who trains next: pieces of work of one key run one after another, in order; those of different keys side by side, taking
//! turns in slices, so that a short one does not wait for two long ones. Turns go round the owners of the work, and for each round
//! their keys, so that an owner with a hundred keys takes no more of the threads, nor of the memory, than one who has a single one.

mod turns;

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use turns::Turns;

/// An owner that has this many pieces of work for each free place has no more: so a quarter of all places is kept from one that asks for all.
const OWNED_PER_FREE_PLACE: usize = 3;

/// Something that runs in slices on a training thread.
pub trait Work: Send + 'static {
    /// What excludes other work while this runs, and in whose queue it waits.
    type Key: Clone + Eq + Hash + Send + 'static;
    /// What tells pieces of work apart, in the order in which they came.
    type Id: Copy + Ord + Send + 'static;
    /// Among whom turns and memory are shared out.
    type Owner: Clone + Eq + Hash + Send + 'static;

    /// The key that it was made with.
    fn key(&self) -> Self::Key;

    /// The id that it was made with.
    fn id(&self) -> Self::Id;

    /// Whose it is.
    fn owner(&self) -> Self::Owner;

    /// What it takes in memory from its first turn to its last.
    fn bytes(&self) -> u64;

    /// Runs until it is done or `slice` says that its turn is over.
    fn run(&mut self, slice: &Slice) -> bool;

    /// A slice panicked: the work ends. Whether it is done now, as for `run`.
    fn panicked(&mut self, message: &str) -> bool;
}

/// One turn on a training thread.
pub struct Slice {
    end: Instant,
    is_stopping: Arc<AtomicBool>,
}

impl Slice {
    /// Whether the turn is over: asked between two batches.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.end || self.is_stopping.load(Ordering::Relaxed)
    }

    /// Whether the scheduler is shutting down, so that there will be no other turn.
    pub fn is_last(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

/// Bounds of the scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Slices at once.
    pub threads: usize,
    /// How long a turn lasts.
    pub slice: Duration,
    /// Bytes of all work that has begun. What is larger alone begins when nothing else has.
    pub bytes_max: u64,
    /// Pieces of work that may be in the scheduler.
    pub queued_max: usize,
    /// Pieces of work that may be there for one key.
    pub queued_per_key_max: usize,
}

/// No room for another piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// In the whole scheduler; its bound.
    Overall(usize),
    /// For this key; its bound.
    ForKey(usize),
    /// For this owner, while others may come; how much it has there, and the bound of the whole scheduler.
    ForOwner(usize, usize),
    /// The scheduler is shutting down.
    Stopping,
}

/// What [`Scheduler::take_waiting`] found.
pub enum Cancelled<W> {
    /// It had not begun, and is out of the queue now.
    Waiting(W),
    /// It has begun: its own control line stops it.
    Begun,
    /// It is not here (any more).
    Unknown,
}

/// Runs pieces of work on a bounded number of threads. A cheap handle.
pub struct Scheduler<W: Work>(Arc<Shared<W>>);

impl<W: Work> Clone for Scheduler<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<W: Work> {
    limits: Limits,
    threads: Handle,
    is_stopping: Arc<AtomicBool>,
    idle: Notify,
    state: Mutex<State<W>>,
}

struct State<W: Work> {
    lanes: HashMap<W::Key, Lane<W>>,
    /// Keys with work that is ready for a turn.
    turns: Turns<W::Owner, W::Key>,
    /// Keys whose first work waits for memory, in their order: none overtakes another of the same owner.
    waiting_for_memory: Turns<W::Owner, W::Key>,
    /// How many pieces of work of an owner have begun.
    begun_by: HashMap<W::Owner, usize>,
    /// Owners with nothing begun who were let in before those that wait for memory. Each is once, so that what is large gets its
    /// memory, too, when others have been served.
    overtook: HashSet<W::Owner>,
    begun_bytes: u64,
    free_threads: usize,
    count: usize,
    /// How much of `count` is an owner's; none where it is nothing.
    counts: HashMap<W::Owner, usize>,
}

/// The work of one key: the one that has begun, and those that wait behind it.
struct Lane<W: Work> {
    begun: Option<Begun<W>>,
    waiting: VecDeque<W>,
    /// Places promised to callers that are still making their work durable.
    reserved: usize,
}

struct Begun<W: Work> {
    id: W::Id,
    owner: W::Owner,
    bytes: u64,
    /// `None` while a thread runs it.
    work: Option<W>,
}

impl<W: Work> Default for Lane<W> {
    fn default() -> Self {
        Self { begun: None, waiting: VecDeque::new(), reserved: 0 }
    }
}

impl<W: Work> Lane<W> {
    fn len(&self) -> usize {
        usize::from(self.begun.is_some()) + self.waiting.len() + self.reserved
    }
}

impl<W: Work> Scheduler<W> {
    /// A scheduler that spawns its slices on `threads`.
    pub fn new(threads: Handle, limits: Limits) -> Self {
        let state = State {
            lanes: HashMap::new(),
            turns: Turns::default(),
            waiting_for_memory: Turns::default(),
            begun_by: HashMap::new(),
            overtook: HashSet::new(),
            begun_bytes: 0,
            free_threads: limits.threads,
            count: 0,
            counts: HashMap::new(),
        };
        Self(Arc::new(Shared {
            limits,
            threads,
            is_stopping: Arc::default(),
            idle: Notify::new(),
            state: Mutex::new(state),
        }))
    }

    /// Promises a place in the queue of `key`, before the work is made durable. An owner gets a place only while it has fewer than three
    /// for each that is free: one alone may fill three quarters, and n who take all that they get leave one in 3n + 1 to whoever comes.
    pub fn reserve(&self, key: W::Key, owner: W::Owner) -> Result<Permit<W>, QueueFull> {
        let Limits { queued_max, queued_per_key_max, .. } = self.0.limits;
        let state = self.0.lock();
        if self.0.is_stopping.load(Ordering::Relaxed) {
            return Err(QueueFull::Stopping);
        }
        if state.count >= queued_max {
            return Err(QueueFull::Overall(queued_max));
        }
        if state.lanes.get(&key).is_some_and(|lane| lane.len() >= queued_per_key_max) {
            return Err(QueueFull::ForKey(queued_per_key_max));
        }
        let owned = state.counts.get(&owner).copied().unwrap_or_default();
        if owned >= OWNED_PER_FREE_PLACE * (queued_max - state.count) {
            return Err(QueueFull::ForOwner(owned, queued_max));
        }
        Ok(self.promise(state, key, owner))
    }

    /// Queues work that was accepted before this process, whatever the bounds on new work are now.
    pub fn readmit(&self, work: W) {
        let permit = self.promise(self.0.lock(), work.key(), work.owner());
        permit.submit(work);
    }

    fn promise(&self, mut state: MutexGuard<'_, State<W>>, key: W::Key, owner: W::Owner) -> Permit<W> {
        state.lanes.entry(key.clone()).or_default().reserved += 1;
        state.note(owner.clone());
        Permit { scheduler: self.clone(), place: Some((key, owner)) }
    }

    /// The work of `key` that has begun and is not done.
    pub fn begun(&self, key: &W::Key) -> Option<W::Id> {
        self.0.lock().lanes.get(key)?.begun.as_ref().map(|begun| begun.id)
    }

    /// Takes `id` out of the queue of `key`, if it has not begun.
    pub fn take_waiting(&self, key: &W::Key, id: W::Id) -> Cancelled<W> {
        let mut state = self.0.lock();
        let Some(lane) = state.lanes.get_mut(key) else { return Cancelled::Unknown };
        if lane.begun.as_ref().is_some_and(|begun| begun.id == id) {
            return Cancelled::Begun;
        }
        let Some(place) = lane.waiting.iter().position(|work| work.id() == id) else { return Cancelled::Unknown };
        let Some(work) = lane.waiting.remove(place) else { return Cancelled::Unknown };
        let has_none = lane.begun.is_none() && lane.waiting.is_empty();
        // The next of this key may be smaller, and those behind it need not wait for what is gone.
        state.try_those_that_wait();
        if has_none {
            // Else work that is queued anew would have this place, too, and so two turns in each round.
            state.turns.remove(key);
        }
        state.forget(key, &work.owner());
        self.dispatch(state);
        Cancelled::Waiting(work)
    }

    /// Puts back what [`Scheduler::take_waiting`] took, to the front of its queue: it still has something to do.
    pub fn put_back(&self, work: W) {
        let (key, owner) = (work.key(), work.owner());
        let mut state = self.0.lock();
        state.note(owner.clone());
        let lane = state.lanes.entry(key.clone()).or_default();
        lane.waiting.push_front(work);
        // Where other work of its key waits, the key has its place in the line.
        if lane.begun.is_none() && lane.waiting.len() == 1 {
            state.turns.push_back(owner, key);
        }
        // It may be smaller than what its key waited for memory with.
        state.try_those_that_wait();
        self.dispatch(state);
    }

    /// Gives work that has begun, and waits for its turn, the next one: it has been asked to stop, and would else be asked in vain for
    /// as long as all others take. Work that has not begun keeps its place, since memory is given out in order.
    pub fn bring_forward(&self, key: &W::Key, id: W::Id) {
        let mut state = self.0.lock();
        let Some(begun) = state.lanes.get(key).and_then(|lane| lane.begun.as_ref()) else { return };
        if begun.id == id && begun.work.is_some() {
            let owner = begun.owner.clone();
            state.turns.push_front(owner, key.clone());
        }
    }

    /// The ids of all work of `key`, in order.
    pub fn ids(&self, key: &W::Key) -> Vec<W::Id> {
        let state = self.0.lock();
        let Some(lane) = state.lanes.get(key) else { return Vec::new() };
        lane.begun.iter().map(|begun| begun.id).chain(lane.waiting.iter().map(Work::id)).collect()
    }

    /// Ends running slices at their next batch, starts no other, and returns once no thread runs any.
    pub async fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
        loop {
            let idle = self.0.idle.notified();
            if self.0.lock().free_threads == self.0.limits.threads {
                return;
            }
            idle.await;
        }
    }

    /// Gives free threads to those whose turn it is.
    fn dispatch(&self, mut state: MutexGuard<'_, State<W>>) {
        while state.free_threads > 0 && !self.0.is_stopping.load(Ordering::Relaxed) {
            let Some((_, key)) = state.turns.pop_front() else { return };
            let Some(work) = state.take_turn(&key, self.0.limits.bytes_max) else { continue };
            state.free_threads -= 1;
            let scheduler = self.clone();
            // Dropped only when the runtime is shut down, and then nobody waits for the slice.
            drop(self.0.threads.spawn_blocking(move || scheduler.run_slice(key, work)));
        }
    }

    /// Frees what is done: not under the lock, since it may be large, and whatever its own clean-up does.
    fn let_go(&self, work: W) -> Option<W> {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
        None
    }

    fn run_slice(&self, key: W::Key, mut work: W) {
        let slice = Slice { end: Instant::now() + self.0.limits.slice, is_stopping: self.0.is_stopping.clone() };
        let is_done = match catch_unwind(AssertUnwindSafe(|| work.run(&slice))) {
            Ok(is_done) => is_done,
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                // A clean-up that panics, too, leaves nothing to do.
                catch_unwind(AssertUnwindSafe(|| work.panicked(&message))).unwrap_or(true)
            }
        };
        let unfinished = if is_done { self.let_go(work) } else { Some(work) };
        let mut state = self.0.lock();
        state.free_threads += 1;
        state.give_back(&key, unfinished);
        self.dispatch(state);
        self.0.idle.notify_waiters();
    }
}

impl<W: Work> Shared<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        // Work never runs under the lock, so a panic cannot leave the state torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> State<W> {
    /// The work of `key` whose turn it is: the one that has begun, or the first that waits.
    fn take_turn(&mut self, key: &W::Key, bytes_max: u64) -> Option<W> {
        let lane = self.lanes.get_mut(key)?;
        if lane.begun.is_none() {
            let first = lane.waiting.front()?;
            let (owner, bytes) = (first.owner(), first.bytes());
            if !self.admits(&owner, bytes, bytes_max) {
                if !self.waiting_for_memory.contains(&owner, key) {
                    self.waiting_for_memory.push_back(owner, key.clone());
                }
                return None;
            }
            let lane = self.lanes.get_mut(key)?;
            let work = lane.waiting.pop_front()?;
            lane.begun = Some(Begun { id: work.id(), owner: owner.clone(), bytes, work: Some(work) });
            self.begun_bytes += bytes;
            *self.begun_by.entry(owner).or_default() += 1;
        }
        self.lanes.get_mut(key)?.begun.as_mut()?.work.take()
    }

    /// Whether work may begin now: where it fits, and either nothing waits for memory or its owner has nothing else begun.
    fn admits(&mut self, owner: &W::Owner, bytes: u64, bytes_max: u64) -> bool {
        if self.begun_bytes == 0 {
            return true;
        }
        if self.begun_bytes.saturating_add(bytes) > bytes_max {
            return false;
        }
        if self.waiting_for_memory.is_empty() {
            self.overtook.clear();
            return true;
        }
        !self.begun_by.contains_key(owner) && self.overtook.insert(owner.clone())
    }

    /// The work of an owner that had begun is done.
    fn end(&mut self, begun: &Begun<W>) {
        self.begun_bytes -= begun.bytes;
        one_less(&mut self.begun_by, &begun.owner);
    }

    /// After a slice: the work for its next turn, or `None` where it is done.
    fn give_back(&mut self, key: &W::Key, work: Option<W>) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match (&mut lane.begun, work) {
            (Some(begun), Some(work)) => {
                begun.work = Some(work);
                let owner = begun.owner.clone();
                self.turns.push_back(owner, key.clone());
            }
            _ => {
                let begun = lane.begun.take();
                let next = lane.waiting.front().map(Work::owner);
                if let Some(begun) = &begun {
                    self.end(begun);
                }
                self.try_those_that_wait();
                if let Some(owner) = next {
                    self.turns.push_back(owner, key.clone());
                }
                if let Some(begun) = begun {
                    self.forget(key, &begun.owner);
                }
            }
        }
    }

    /// Gives those that wait for memory a turn to try: in front, and in their order, since they have waited longest.
    fn try_those_that_wait(&mut self) {
        for (owner, key) in self.waiting_for_memory.drain().into_iter().rev() {
            self.turns.push_front(owner, key);
        }
    }

    /// One piece of work, or one promise, more.
    fn note(&mut self, owner: W::Owner) {
        self.count += 1;
        *self.counts.entry(owner).or_default() += 1;
    }

    /// One piece of work, or one promise, less.
    fn forget(&mut self, key: &W::Key, owner: &W::Owner) {
        self.count -= 1;
        one_less(&mut self.counts, owner);
        if self.lanes.get(key).is_some_and(|lane| lane.len() == 0) {
            self.lanes.remove(key);
        }
    }
}

/// Counts one less of what an owner has; nothing is kept of one that has nothing.
fn one_less<O: Eq + Hash>(counts: &mut HashMap<O, usize>, owner: &O) {
    if let Some(count) = counts.get_mut(owner) {
        *count -= 1;
        if *count == 0 {
            counts.remove(owner);
        }
    }
}

/// A promised place in a queue; given back when dropped unused.
pub struct Permit<W: Work> {
    scheduler: Scheduler<W>,
    /// In whose queue, and whose it is.
    place: Option<(W::Key, W::Owner)>,
}

impl<W: Work> Permit<W> {
    /// Queues the work at the promised place.
    pub fn submit(mut self, work: W) {
        let Some((key, owner)) = self.place.take() else { return };
        let mut state = self.scheduler.0.lock();
        let lane = state.lanes.entry(key.clone()).or_default();
        lane.reserved -= 1;
        let id = work.id();
        // Of two that were made durable at once, either may come here first: after a restart the ids decide, so here they do, too.
        let place = lane.waiting.iter().rposition(|other| other.id() < id).map_or(0, |before| before + 1);
        lane.waiting.insert(place, work);
        // A lane that has begun work gets its next turn when that work gives its own back.
        if lane.begun.is_none() && lane.waiting.len() == 1 {
            state.turns.push_back(owner, key);
        }
        self.scheduler.dispatch(state);
    }
}

impl<W: Work> Drop for Permit<W> {
    fn drop(&mut self) {
        let Some((key, owner)) = self.place.take() else { return };
        let mut state = self.scheduler.0.lock();
        if let Some(lane) = state.lanes.get_mut(&key) {
            lane.reserved -= 1;
        }
        state.forget(&key, &owner);
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
