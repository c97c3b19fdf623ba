//! Random orders of everything that happens to a scheduler, beside a model of it that is a few plain lists.
//!
//! Whatever threads do to a scheduler they do under its one lock, a function at a time. So the orders in which threads can come are
//! the orders of commands here: what callers ask, and slices that end, one after another on one thread, which makes each failure
//! repeatable and small. Slices run on real threads, and wait there until they are told how to end. What is not under the
//! lock (work while it runs, the flag of `stop` and its notification) is left to real threads, in `threads.rs`. loom or shuttle would
//! need copies of tokio's `Notify` and `spawn_blocking`, and would then go through the same orders of the same lock.
//!
//! The model does not foretell whose turn it is. It knows what waits and what runs, and judges each turn that was given.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::OnceLock;

use futures_util::future::poll_immediate;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::*;

mod model;
mod threads;

use model::{Model, Piece};

const KEYS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);

/// Chooses one of several things, however many there will be.
type Which = usize;

/// What happens.
#[derive(Clone, Debug)]
enum Command {
    Reserve { key: usize },
    Submit { permit: Which, bytes: u64 },
    DropPermit { permit: Which },
    Readmit { key: usize, bytes: u64 },
    TakeWaiting { piece: Which },
    PutBack { taken: Which },
    BringForward { piece: Which },
    EndSlice { slice: Which, how: How },
}

/// How a slice ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    HasMore,
    IsDone,
    Panics,
    /// Its clean-up could not be finished yet.
    PanicsAndHasMore,
    PanicsTwice,
}

impl How {
    fn is_done(self) -> bool {
        matches!(self, Self::IsDone | Self::Panics | Self::PanicsTwice)
    }
}

/// As many as `PROPTEST_CASES` asks for.
fn cases(by_default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(by_default)
}

fn command() -> impl Strategy<Value = Command> {
    // More than fits, now and then.
    let bytes = || prop_oneof![4 => 1_u64..=4, 1 => 5_u64..=12];
    let which = || 0_usize..100;
    let how = prop_oneof![
        6 => Just(How::HasMore),
        4 => Just(How::IsDone),
        1 => Just(How::Panics),
        1 => Just(How::PanicsAndHasMore),
        1 => Just(How::PanicsTwice),
    ];
    prop_oneof![
        4 => (0..KEYS).prop_map(|key| Command::Reserve { key }),
        4 => (which(), bytes()).prop_map(|(permit, bytes)| Command::Submit { permit, bytes }),
        1 => which().prop_map(|permit| Command::DropPermit { permit }),
        2 => (0..KEYS, bytes()).prop_map(|(key, bytes)| Command::Readmit { key, bytes }),
        2 => which().prop_map(|piece| Command::TakeWaiting { piece }),
        1 => which().prop_map(|taken| Command::PutBack { taken }),
        2 => which().prop_map(|piece| Command::BringForward { piece }),
        8 => (which(), how).prop_map(|(slice, how)| Command::EndSlice { slice, how }),
    ]
}

/// Bounds that are met often. With the larger `bytes_max` nothing ever waits for memory, so that all turns must be fair.
fn limits() -> impl Strategy<Value = Limits> {
    (1_usize..=3, prop_oneof![Just(10_u64), Just(1_000)], 3_usize..=8, 2_usize..=4).prop_map(
        |(threads, bytes_max, queued_max, queued_per_key_max)| Limits {
            threads,
            slice: Duration::from_secs(3_600),
            bytes_max,
            queued_max,
            queued_per_key_max,
        },
    )
}

/// Work whose slices last until they are told how to end.
struct Told {
    key: usize,
    piece: Piece,
    begun: mpsc::Sender<Turn>,
    how: How,
}

/// A slice that runs.
struct Turn {
    id: u32,
    end: mpsc::Sender<How>,
}

impl Work for Told {
    type Key = usize;
    type Id = u32;
    /// Among several owners turns are shared out by `Turns`, which has tests of its own.
    type Owner = ();

    fn owner(&self) {}

    fn key(&self) -> usize {
        self.key
    }

    fn id(&self) -> u32 {
        self.piece.id
    }

    fn bytes(&self) -> u64 {
        self.piece.bytes
    }

    fn run(&mut self, _slice: &Slice) -> bool {
        let (end, how) = mpsc::channel();
        // A machine that is gone asks no more.
        let _ = self.begun.send(Turn { id: self.piece.id, end });
        self.how = how.recv().unwrap_or(How::IsDone);
        match self.how {
            How::HasMore | How::IsDone => self.how.is_done(),
            // Not `panic!`, which would print each.
            _ => std::panic::resume_unwind(Box::new("as it was told")),
        }
    }

    fn panicked(&mut self, _message: &str) -> bool {
        if self.how == How::PanicsTwice {
            std::panic::resume_unwind(Box::new("as it was told"));
        }
        self.how.is_done()
    }
}

/// The threads of all machines: more than the slices of any, so that none that failed holds up the next.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap())
}

/// A scheduler, what callers hold of it, and its model.
struct Machine {
    scheduler: Scheduler<Told>,
    model: Model,
    permits: Vec<(usize, Permit<Told>)>,
    taken: Vec<Told>,
    running: Vec<Turn>,
    /// The keys of all work there ever was, by id.
    keys: Vec<usize>,
    begun: mpsc::Receiver<Turn>,
    tell_begun: mpsc::Sender<Turn>,
}

impl Machine {
    fn new(limits: Limits) -> Self {
        let (tell_begun, begun) = mpsc::channel();
        Self {
            scheduler: Scheduler::new(runtime().handle().clone(), limits),
            model: Model::new(limits, KEYS),
            permits: Vec::new(),
            taken: Vec::new(),
            running: Vec::new(),
            keys: Vec::new(),
            begun,
            tell_begun,
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Reserve { key } => match self.scheduler.reserve(key, ()) {
                Ok(permit) => {
                    assert_eq!(self.model.reserve(key), None, "a place was promised past a bound");
                    self.permits.push((key, permit));
                }
                Err(full) => assert_eq!(self.model.reserve(key), Some(full)),
            },
            Command::Submit { permit, bytes } => {
                let Some((key, permit)) = take(&mut self.permits, permit) else { return };
                let work = self.work(key, bytes);
                self.model.submit(key, work.piece);
                permit.submit(work);
            }
            Command::DropPermit { permit } => {
                let Some((key, permit)) = take(&mut self.permits, permit) else { return };
                self.model.drop_permit(key);
                drop(permit);
            }
            Command::Readmit { key, bytes } => {
                let work = self.work(key, bytes);
                self.model.readmit(key, work.piece);
                self.scheduler.readmit(work);
            }
            Command::TakeWaiting { piece } => self.take_waiting(piece),
            Command::PutBack { taken } => {
                let Some(work) = take(&mut self.taken, taken) else { return };
                self.model.put_back(work.key, work.piece);
                self.scheduler.put_back(work);
            }
            Command::BringForward { piece } => {
                let Some((key, id)) = self.piece(piece) else { return };
                self.model.bring_forward(key, id);
                self.scheduler.bring_forward(&key, id);
            }
            Command::EndSlice { slice, how } => self.end_slice(slice, how),
        }
        self.observe();
    }

    fn work(&mut self, key: usize, bytes: u64) -> Told {
        let piece = Piece { id: self.keys.len() as u32, bytes };
        self.keys.push(key);
        Told { key, piece, begun: self.tell_begun.clone(), how: How::IsDone }
    }

    /// The key and id of any work that there is or ever was.
    fn piece(&self, piece: Which) -> Option<(usize, u32)> {
        let id = piece.checked_rem(self.keys.len())?;
        Some((self.keys[id], id as u32))
    }

    /// Asks for any work that there is or ever was.
    fn take_waiting(&mut self, piece: Which) {
        let Some((key, id)) = self.piece(piece) else { return };
        let expected = self.model.take_waiting(key, id);
        match (self.scheduler.take_waiting(&key, id), expected) {
            (Cancelled::Waiting(work), Cancelled::Waiting(piece)) => {
                assert_eq!((work.key, work.piece), (key, piece));
                self.taken.push(work);
            }
            (Cancelled::Begun, Cancelled::Begun) | (Cancelled::Unknown, Cancelled::Unknown) => {}
            (Cancelled::Waiting(_), _) => panic!("work {id} was taken, but did not wait"),
            (Cancelled::Begun, _) => panic!("work {id} is said to have begun"),
            (Cancelled::Unknown, _) => panic!("work {id} is not known"),
        }
    }

    /// Ends a slice, and waits until the scheduler has it back.
    fn end_slice(&mut self, slice: Which, how: How) {
        let Some(turn) = take(&mut self.running, slice) else { return };
        self.model.end_slice(self.keys[turn.id as usize], how.is_done());
        // The scheduler notifies at the end of every slice, after it has given its thread away: whoever asked before is told.
        let given_back = self.scheduler.0.idle.notified();
        turn.end.send(how).unwrap();
        runtime().block_on(async { tokio::time::timeout(PATIENCE, given_back).await.unwrap() });
    }

    /// Holds the scheduler to the model, which learns whose turn it was.
    fn observe(&mut self) {
        let (threads, free) = (self.model.limits.threads, self.scheduler.0.lock().free_threads);
        assert!(free <= threads, "more threads were given back than there are");
        let mut turns = Vec::new();
        while self.running.len() < threads - free {
            let turn = self.begun.recv_timeout(PATIENCE).expect("a slice that holds a thread should run");
            turns.push((self.keys[turn.id as usize], turn.id));
            self.running.push(turn);
        }
        self.model.took_turns(&turns);
        self.model.must_be_busy();
        assert_eq!(self.running.len(), threads - free, "a slice runs without a thread of its own");
        let state = self.scheduler.0.lock();
        let lanes: HashMap<usize, usize> = state.lanes.iter().map(|(key, lane)| (*key, lane.len())).collect();
        assert_eq!((state.count, state.begun_bytes, lanes), self.model.counts());
        drop(state);
        for key in 0..KEYS {
            assert_eq!(self.scheduler.ids(&key), self.model.ids(key));
            assert_eq!(self.scheduler.begun(&key), self.model.begun(key));
        }
    }

    /// Everything comes to its end: nothing is lost on the way, and nothing is left.
    fn finish(mut self) {
        while let Some((key, permit)) = self.permits.pop() {
            self.model.drop_permit(key);
            drop(permit);
        }
        while let Some(work) = self.taken.pop() {
            self.model.put_back(work.key, work.piece);
            self.scheduler.put_back(work);
            self.observe();
        }
        while !self.running.is_empty() {
            self.end_slice(0, How::IsDone);
            self.observe();
        }
        assert_eq!(self.model.counts(), (0, 0, HashMap::new()), "work waits, and nothing runs");
        let state = self.scheduler.0.lock();
        assert!(state.turns.is_empty() && state.waiting_for_memory.is_empty());
        assert_eq!(state.free_threads, self.model.limits.threads);
    }

    /// Stops in the midst: `stop` waits for the slices that run, no other begins, and what is not done stays.
    fn stop(mut self) {
        let scheduler = self.scheduler.clone();
        let mut stop = pin!(scheduler.stop());
        let returned = runtime().block_on(poll_immediate(&mut stop)).is_some();
        assert_eq!(returned, self.running.is_empty(), "`stop` waits for what runs, and for nothing else");
        self.model.stop();
        self.apply(Command::Reserve { key: 0 });
        self.apply(Command::Submit { permit: 0, bytes: 1 });
        while !self.running.is_empty() {
            self.end_slice(0, How::HasMore);
            self.observe();
        }
        if !returned {
            runtime().block_on(async { tokio::time::timeout(PATIENCE, stop).await.expect("`stop` should return") });
        }
    }
}

/// Takes one out of several, if there is any.
fn take<T>(from: &mut Vec<T>, which: Which) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { cases: cases(200), max_shrink_iters: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_whatever_order_the_scheduler_keeps_its_promises(
        limits in limits(),
        commands in prop::collection::vec(command(), 1..100),
        is_stopped in any::<bool>(),
    ) {
        let mut machine = Machine::new(limits);
        commands.into_iter().for_each(|command| machine.apply(command));
        if is_stopped { machine.stop() } else { machine.finish() }
    }
}
