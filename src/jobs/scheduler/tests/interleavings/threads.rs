//! Many real threads over one scheduler, round after round: what is promised is read out of the log that their work writes.

use std::collections::{HashMap, HashSet};
use std::thread;

use super::*;

const CALLERS: u32 = 4;
const PIECES_EACH: u32 = 8;
const BYTES_MAX: u64 = 10;
const THREADS: usize = 2;

/// What became of a piece of work, in the order in which it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    SliceBegins,
    SliceEnds,
    IsDone,
    /// Taken out of its queue, for good.
    Taken,
    /// Taken, and put back to the front.
    PutBack,
}

/// A piece of work: its key and bytes follow from its id, which also tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Id {
    caller: u32,
    number: u32,
}

impl Id {
    fn key(self) -> usize {
        (self.caller * 3 + self.number * 5) as usize % 3
    }

    fn bytes(self) -> u64 {
        1 + u64::from((self.caller * 7 + self.number * 5) % 12)
    }
}

type Log = Arc<Mutex<Vec<(Id, Event)>>>;

/// Work of a few short slices; its last one panics now and then.
struct Logged {
    id: Id,
    left: u32,
    random: Random,
    log: Log,
    /// Dropped with the work: once all are, the round is over.
    _alive: mpsc::Sender<()>,
}

impl Logged {
    fn note(&self, event: Event) {
        self.log.lock().unwrap().push((self.id, event));
    }
}

impl Work for Logged {
    type Key = usize;
    type Id = Id;
    type Owner = ();

    fn owner(&self) {}

    fn key(&self) -> usize {
        self.id.key()
    }

    fn id(&self) -> Id {
        self.id
    }

    fn bytes(&self) -> u64 {
        self.id.bytes()
    }

    fn run(&mut self, slice: &Slice) -> bool {
        self.note(Event::SliceBegins);
        for _ in 0..self.random.below(4) {
            thread::yield_now();
        }
        self.left -= u32::from(!slice.is_last());
        self.note(Event::SliceEnds);
        if self.left == 0 {
            if self.random.below(4) == 0 {
                std::panic::resume_unwind(Box::new("now and then"));
            }
            self.note(Event::IsDone);
        }
        self.left == 0
    }

    fn panicked(&mut self, _message: &str) -> bool {
        self.note(Event::IsDone);
        true
    }
}

/// A generator for yields and choices: a seed tells its numbers, though not the order of threads.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

struct Caller {
    scheduler: Scheduler<Logged>,
    id: u32,
    random: Random,
    log: Log,
    alive: mpsc::Sender<()>,
}

impl Caller {
    /// Queues its pieces in order, and takes some of them out again.
    fn call(mut self) {
        for number in 0..PIECES_EACH {
            let id = Id { caller: self.id, number };
            for _ in 0..self.random.below(3) {
                thread::yield_now();
            }
            let left = 1 + self.random.below(3) as u32;
            let random = Random(self.random.below(u64::MAX >> 12) | 1);
            let work = Logged { id, left, random, log: self.log.clone(), _alive: self.alive.clone() };
            if self.random.below(8) == 0 {
                self.scheduler.readmit(work);
            } else {
                drop(self.scheduler.reserve(id.key(), ()));
                let Ok(permit) = self.scheduler.reserve(id.key(), ()) else { continue };
                permit.submit(work);
            }
            if self.random.below(3) == 0 {
                let number = self.random.below(u64::from(number) + 1) as u32;
                self.take_out(Id { caller: self.id, number });
            }
        }
    }

    fn take_out(&mut self, id: Id) {
        let Cancelled::Waiting(work) = self.scheduler.take_waiting(&id.key(), id) else { return };
        if self.random.below(2) == 0 {
            work.note(Event::Taken);
        } else {
            work.note(Event::PutBack);
            self.scheduler.put_back(work);
        }
    }
}

#[test]
fn threads_that_come_at_once_find_every_promise_kept() {
    // A thread switches where the system likes: rounds are many, and short.
    for round in 0..cases(200) * 5 {
        let limits = Limits {
            threads: THREADS,
            slice: Duration::from_secs(3_600),
            bytes_max: BYTES_MAX,
            queued_max: 24,
            queued_per_key_max: 10,
        };
        let scheduler = Scheduler::new(runtime().handle().clone(), limits);
        let log = Log::default();
        let (alive, over) = mpsc::channel();
        let callers = (0..CALLERS).map(|id| Caller {
            scheduler: scheduler.clone(),
            id,
            random: Random(u64::from(round * CALLERS + id + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            log: log.clone(),
            alive: alive.clone(),
        });
        let callers: Vec<_> = callers.map(|caller| thread::spawn(|| caller.call())).collect();
        drop(alive);
        let is_stopped = round % 4 == 0;
        if is_stopped {
            let stopped = async { tokio::time::timeout(PATIENCE, scheduler.stop()).await };
            runtime().block_on(stopped).expect("`stop` should return");
            assert_eq!(scheduler.0.lock().free_threads, THREADS, "a slice runs after `stop` has returned");
        }
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        if is_stopped {
            assert_eq!(scheduler.0.lock().free_threads, THREADS, "a slice began after the stop");
        } else {
            // Nothing is sent: all work is gone, or it is lost.
            let ended = over.recv_timeout(PATIENCE);
            assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected), "round {round}: work waits, and nothing runs");
            is_empty(&scheduler);
        }
        judge(&log.lock().unwrap(), is_stopped);
    }
}

#[track_caller]
fn is_empty(scheduler: &Scheduler<Logged>) {
    // The last work is gone before its thread and its bytes are given back.
    let deadline = Instant::now() + PATIENCE;
    while scheduler.0.lock().free_threads < THREADS && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let state = scheduler.0.lock();
    assert_eq!((state.count, state.begun_bytes, state.free_threads), (0, 0, THREADS));
    assert!(state.lanes.is_empty() && state.turns.is_empty() && state.waiting_for_memory.is_empty());
}

/// What must hold of every log. An event is written within the time that it is about, so that what overlaps in the log did overlap.
fn judge(log: &[(Id, Event)], is_stopped: bool) {
    let mut running = HashSet::new();
    let mut begun: HashMap<usize, Id> = HashMap::new();
    let mut ended = HashSet::new();
    let mut was_put_back = HashSet::new();
    let mut last_begun: HashMap<(u32, usize), u32> = HashMap::new();
    for &(id, event) in log {
        assert!(!ended.contains(&id), "{id:?} {event:?} after its end: {log:?}");
        match event {
            Event::SliceBegins => {
                assert!(running.insert(id), "{id:?} runs twice at once: {log:?}");
                assert!(running.len() <= THREADS, "more slices than threads: {log:?}");
                let is_first = !begun.contains_key(&id.key());
                assert_eq!(*begun.entry(id.key()).or_insert(id), id, "another of this key has begun: {log:?}");
                let bytes: u64 = begun.values().map(|id| id.bytes()).sum();
                assert!(bytes <= BYTES_MAX || begun.len() == 1, "more has begun than fits: {log:?}");
                if is_first && !was_put_back.contains(&id) {
                    let before = last_begun.insert((id.caller, id.key()), id.number);
                    assert!(before < Some(id.number), "{id:?} began out of its caller's order: {log:?}");
                }
            }
            Event::SliceEnds => assert!(running.remove(&id)),
            Event::IsDone => {
                assert_eq!(begun.remove(&id.key()), Some(id));
                ended.insert(id);
            }
            Event::Taken | Event::PutBack => {
                assert_ne!(begun.get(&id.key()), Some(&id), "{id:?} was taken, but has begun: {log:?}");
                if event == Event::Taken {
                    ended.insert(id)
                } else {
                    was_put_back.insert(id)
                };
            }
        }
    }
    assert!(running.is_empty());
    assert!(is_stopped || begun.is_empty(), "some of it is not done: {log:?}");
}
