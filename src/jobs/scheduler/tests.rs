//! Who takes a turn, and who waits.

use std::sync::mpsc;

use super::*;
use crate::jobs::Threads;

mod interleavings;

/// Work that reports each of its turns and takes as many as it is told to.
struct Turns {
    key: &'static str,
    owner: &'static str,
    id: u32,
    left: u32,
    told: mpsc::Sender<(u32, &'static str)>,
    gate: Option<mpsc::Receiver<()>>,
    bytes: u64,
}

impl Work for Turns {
    type Key = &'static str;
    type Id = u32;
    type Owner = &'static str;

    fn key(&self) -> Self::Key {
        self.key
    }

    fn id(&self) -> Self::Id {
        self.id
    }

    fn owner(&self) -> Self::Owner {
        self.owner
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn run(&mut self, _slice: &Slice) -> bool {
        self.told.send((self.id, "turn")).unwrap();
        if let Some(gate) = &self.gate {
            let _ = gate.recv();
        }
        assert!(self.left > 0, "no turn is left");
        self.left -= 1;
        if self.left == 0 {
            self.told.send((self.id, "done")).unwrap();
        }
        self.left == 0
    }

    fn panicked(&mut self, _message: &str) -> bool {
        self.told.send((self.id, "panicked")).unwrap();
        true
    }
}

const BOUNDS: Limits =
    Limits { threads: 1, slice: Duration::from_secs(1), bytes_max: 10, queued_max: 4, queued_per_key_max: 3 };

struct Bench {
    threads: Threads,
    scheduler: Scheduler<Turns>,
    told: mpsc::Receiver<(u32, &'static str)>,
    tell: mpsc::Sender<(u32, &'static str)>,
}

impl Bench {
    fn new(count: usize) -> Self {
        Self::with(count, BOUNDS)
    }

    fn with(count: usize, limits: Limits) -> Self {
        let threads = Threads::start(count).unwrap();
        let scheduler = Scheduler::new(threads.handle(), Limits { threads: count, ..limits });
        let (tell, told) = mpsc::channel();
        Self { threads, scheduler, told, tell }
    }

    fn submit(&self, key: &'static str, id: u32, turns: u32) {
        let work = Turns { key, owner: "caller", id, left: turns, told: self.tell.clone(), gate: None, bytes: 1 };
        self.scheduler.reserve(key, "caller").unwrap().submit(work);
    }

    fn submit_gated(&self, key: &'static str, id: u32, turns: u32) -> mpsc::Sender<()> {
        let (open, gate) = mpsc::channel();
        let work = Turns { key, owner: "caller", id, left: turns, told: self.tell.clone(), gate: Some(gate), bytes: 1 };
        self.scheduler.reserve(key, "caller").unwrap().submit(work);
        open
    }

    fn next(&self) -> (u32, &'static str) {
        self.told.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn finish(self) {
        self.threads.shut_down(Duration::from_secs(10));
    }
}

#[test]
fn work_of_one_key_runs_one_after_another_in_order() {
    let bench = Bench::new(2);
    for id in 1..=3 {
        bench.submit("a", id, 2);
    }
    let told: Vec<_> = (0..9).map(|_| bench.next()).collect();
    let expected = [1, 2, 3].into_iter().flat_map(|id| [(id, "turn"), (id, "turn"), (id, "done")]);
    assert_eq!(told, expected.collect::<Vec<_>>());
    bench.finish();
}

#[test]
fn a_short_job_ends_while_long_ones_still_run() {
    let bench = Bench::new(1);
    let open = bench.submit_gated("long", 1, 1_000);
    bench.submit("short", 2, 1);
    open.send(()).unwrap();
    let told: Vec<_> = (0..4).map(|_| bench.next()).collect();
    assert_eq!(told, [(1, "turn"), (2, "turn"), (2, "done"), (1, "turn")]);
    drop(open);
    bench.finish();
}

#[test]
fn work_of_two_keys_runs_at_once() {
    let bench = Bench::new(2);
    let first = bench.submit_gated("a", 1, 1);
    let second = bench.submit_gated("b", 2, 1);
    let mut both = [bench.next(), bench.next()];
    both.sort_unstable();
    assert_eq!(both, [(1, "turn"), (2, "turn")]);
    drop((first, second));
    bench.finish();
}

#[test]
fn a_full_queue_refuses_with_its_bound_and_a_dropped_permit_gives_its_place_back() {
    let bench = Bench::new(1);
    let scheduler = bench.scheduler.clone();
    let permits: Vec<_> = (0..3).map(|_| scheduler.reserve("a", "caller").unwrap()).collect();
    assert_eq!(scheduler.reserve("a", "caller").err(), Some(QueueFull::ForKey(3)));
    let other = scheduler.reserve("b", "other").unwrap();
    assert_eq!(scheduler.reserve("c", "third").err(), Some(QueueFull::Overall(4)));
    drop(permits);
    assert!(scheduler.reserve("a", "caller").is_ok());
    drop(other);
    bench.finish();
}

#[test]
fn an_owner_that_asks_for_all_places_leaves_some_to_each_who_comes_later() {
    let bench = Bench::with(1, Limits { queued_max: 100, queued_per_key_max: 100, ..BOUNDS });
    let scheduler = bench.scheduler.clone();
    let mut permits = Vec::new();
    let fill = |permits: &mut Vec<_>, owner| {
        let before = permits.len();
        let full = loop {
            match scheduler.reserve("a", owner) {
                Ok(permit) => permits.push(permit),
                Err(full) => break full,
            }
        };
        (permits.len() - before, full)
    };
    for (owner, count) in [("one", 75), ("two", 19), ("three", 5), ("four", 1)] {
        assert_eq!(
            fill(&mut permits, owner),
            (count, if owner == "four" { QueueFull::Overall(100) } else { QueueFull::ForOwner(count, 100) })
        );
    }
    // All but 70 of the first give their places back: those are shared out in the same way.
    permits.truncate(70);
    assert_eq!(fill(&mut permits, "two").0, 23);
    assert_eq!(fill(&mut permits, "one"), (0, QueueFull::ForOwner(70, 100)));
    drop(permits);
    assert_eq!(scheduler.0.lock().counts, HashMap::new());
    bench.finish();
}

#[test]
fn waiting_work_can_be_taken_back_and_begun_work_cannot() {
    let bench = Bench::new(1);
    let open = bench.submit_gated("a", 1, 1);
    bench.submit("a", 2, 1);
    assert_eq!(bench.next(), (1, "turn"));
    assert_eq!(bench.scheduler.begun(&"a"), Some(1));
    assert_eq!(bench.scheduler.ids(&"a"), [1, 2]);
    assert!(matches!(bench.scheduler.take_waiting(&"a", 1), Cancelled::Begun));
    assert!(matches!(bench.scheduler.take_waiting(&"a", 2), Cancelled::Waiting(work) if work.id == 2));
    assert!(matches!(bench.scheduler.take_waiting(&"a", 3), Cancelled::Unknown));
    drop(open);
    assert_eq!(bench.next(), (1, "done"));
    bench.finish();
}

#[test]
fn work_that_would_not_fit_into_memory_begins_when_there_is_room_and_is_not_overtaken() {
    let bench = Bench::new(3);
    let open = bench.submit_gated("a", 1, 1);
    let submit = |key, id, bytes| {
        let work = Turns { key, owner: "caller", id, left: 1, told: bench.tell.clone(), gate: None, bytes };
        bench.scheduler.reserve(key, work.owner).unwrap().submit(work);
    };
    submit("big", 2, 10);
    submit("small", 3, 1);
    assert_eq!(bench.next(), (1, "turn"));
    assert_eq!((bench.scheduler.begun(&"big"), bench.scheduler.begun(&"small")), (None, None));
    drop(open);
    let told: Vec<_> = (0..5).map(|_| bench.next()).collect();
    assert_eq!(told, [(1, "done"), (2, "turn"), (2, "done"), (3, "turn"), (3, "done")]);
    bench.finish();
}

#[test]
fn an_owner_of_many_keys_takes_no_more_turns_than_one_of_a_single_key() {
    let bench = Bench::with(1, Limits { queued_max: 100, ..BOUNDS });
    let gate = bench.submit_gated("first", 100, 1);
    let submit = |key, owner, id| {
        let work = Turns { key, owner, id, left: 20, told: bench.tell.clone(), gate: None, bytes: 0 };
        bench.scheduler.reserve(key, work.owner).unwrap().submit(work);
    };
    for (id, key) in (0..).zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        submit(key, "many", id);
    }
    submit("z", "one", 50);
    drop(gate);
    let turns: Vec<u32> = std::iter::from_fn(|| Some(bench.next()))
        .filter(|(_, what)| *what == "turn")
        .map(|(id, _)| id)
        .take(41)
        .collect();
    let of_one: Vec<usize> = (0..turns.len()).filter(|&place| turns[place] == 50).collect();
    assert_eq!(of_one.len(), 20, "{turns:?}");
    assert!(of_one.windows(2).all(|pair| pair[1] - pair[0] == 2), "{turns:?}");
    bench.finish();
}

#[test]
fn an_owner_with_nothing_begun_goes_once_before_those_that_wait_for_memory() {
    let bench = Bench::with(4, Limits { queued_max: 100, ..BOUNDS });
    let submit = |key, owner, id, bytes| {
        let (open, gate) = mpsc::channel();
        let work = Turns { key, owner, id, left: 1, told: bench.tell.clone(), gate: Some(gate), bytes };
        bench.scheduler.reserve(key, work.owner).unwrap().submit(work);
        open
    };
    let first = submit("a", "large", 1, 6);
    let second = submit("b", "large", 2, 6);
    let third = submit("c", "large", 3, 6);
    assert_eq!(bench.next(), (1, "turn"));
    // It fits beside the one that has begun, and need not wait for those of the other owner.
    let small = submit("d", "small", 4, 1);
    assert_eq!(bench.next(), (4, "turn"));
    drop(small);
    assert_eq!(bench.next(), (4, "done"));
    // A second time it waits like them.
    let again = submit("e", "small", 5, 1);
    assert_eq!(bench.scheduler.begun(&"e"), None);
    drop(first);
    let mut then = [bench.next(), bench.next(), bench.next()];
    then.sort_unstable();
    assert_eq!(then, [(1, "done"), (2, "turn"), (5, "turn")]);
    drop((second, third, again));
    bench.finish();
}

#[test]
fn work_that_was_made_durable_first_runs_first() {
    let bench = Bench::new(1);
    let open = bench.submit_gated("a", 1, 1);
    assert_eq!(bench.next(), (1, "turn"));
    bench.submit("a", 3, 1);
    bench.submit("a", 2, 1);
    drop(open);
    let turns: Vec<u32> = (0..5).map(|_| bench.next()).filter(|(_, what)| *what == "turn").map(|(id, _)| id).collect();
    assert_eq!(turns, [2, 3]);
    bench.finish();
}

#[test]
fn work_that_waited_for_memory_and_is_gone_holds_up_nobody() {
    let bench = Bench::new(3);
    let _open = bench.submit_gated("a", 1, 1);
    assert_eq!(bench.next(), (1, "turn"));
    let submit = |key, id, bytes| {
        let work = Turns { key, owner: "caller", id, left: 1, told: bench.tell.clone(), gate: None, bytes };
        bench.scheduler.reserve(key, work.owner).unwrap().submit(work);
    };
    submit("big", 2, 10);
    submit("small", 3, 1);
    assert!(matches!(bench.scheduler.take_waiting(&"big", 2), Cancelled::Waiting(work) if work.id == 2));
    assert_eq!((bench.next(), bench.next()), ((3, "turn"), (3, "done")));
    drop(_open);
    bench.finish();
}

/// Takes work that waits.
fn taken(bench: &Bench, key: &'static str, id: u32) -> Turns {
    match bench.scheduler.take_waiting(&key, id) {
        Cancelled::Waiting(work) => work,
        Cancelled::Begun | Cancelled::Unknown => panic!("work {id} should wait"),
    }
}

#[test]
fn work_that_is_taken_and_queued_anew_gets_no_more_turns_than_others() {
    let bench = Bench::new(1);
    let open = bench.submit_gated("long", 1, 1_000);
    for id in 2..=4 {
        bench.submit("a", id, 2);
        drop(taken(&bench, "a", id));
    }
    bench.submit("a", 5, 2);
    drop(open);
    let told: Vec<_> = (0..5).map(|_| bench.next()).collect();
    assert_eq!(told, [(1, "turn"), (5, "turn"), (1, "turn"), (5, "turn"), (5, "done")]);
    bench.finish();
}

#[test]
fn work_that_is_put_back_gets_its_key_no_more_turns_than_others() {
    let bench = Bench::new(1);
    let open = bench.submit_gated("long", 1, 1_000);
    bench.submit("a", 2, 1);
    bench.submit("a", 3, 1);
    bench.scheduler.put_back(taken(&bench, "a", 2));
    drop(open);
    let told: Vec<_> = (0..5).map(|_| bench.next()).collect();
    assert_eq!(told, [(1, "turn"), (2, "turn"), (2, "done"), (1, "turn"), (3, "turn")]);
    bench.finish();
}

#[test]
fn work_that_is_put_back_in_front_of_what_waits_for_memory_begins_where_it_fits() {
    let bench = Bench::new(2);
    let open = bench.submit_gated("a", 1, 1);
    for (id, bytes) in [(2, 10), (3, 1)] {
        let work = Turns { key: "b", owner: "caller", id, left: 1, told: bench.tell.clone(), gate: None, bytes };
        bench.scheduler.reserve("b", work.owner).unwrap().submit(work);
    }
    assert_eq!(bench.next(), (1, "turn"));
    bench.scheduler.put_back(taken(&bench, "b", 3));
    assert_eq!([bench.next(), bench.next()], [(3, "turn"), (3, "done")]);
    drop(open);
    bench.finish();
}

#[test]
fn work_that_is_brought_forward_has_the_next_turn_and_no_other_of_its_key_begins() {
    let bench = Bench::with(1, Limits { queued_max: 100, ..BOUNDS });
    let gates: Vec<_> = (1..).zip(["a", "b", "c", "d"]).map(|(id, key)| bench.submit_gated(key, id, 3)).collect();
    bench.submit("d", 5, 1);
    // All have begun, and the first has its second turn.
    for gate in &gates {
        gate.send(()).unwrap();
    }
    let told: Vec<_> = (0..5).map(|_| bench.next().0).collect();
    assert_eq!(told, [1, 2, 3, 4, 1]);
    bench.scheduler.bring_forward(&"d", 4);
    // What runs, what waits behind other work, and what is unknown stay as they are.
    for (key, id) in [("a", 1), ("d", 5), ("e", 6), ("b", 7)] {
        bench.scheduler.bring_forward(&key, id);
    }
    drop(gates);
    let told: Vec<_> = (0..4).map(|_| bench.next()).collect();
    assert_eq!(told, [(4, "turn"), (2, "turn"), (3, "turn"), (1, "turn")]);
    bench.finish();
}

#[test]
fn a_panic_ends_its_work_and_not_its_thread() {
    let bench = Bench::new(1);
    bench.submit("a", 1, 0);
    bench.submit("a", 2, 1);
    let told: Vec<_> = (0..4).map(|_| bench.next()).collect();
    assert_eq!(told, [(1, "turn"), (1, "panicked"), (2, "turn"), (2, "done")]);
    bench.finish();
}

#[tokio::test]
async fn a_stopped_scheduler_starts_nothing_more() {
    let bench = Bench::new(1);
    bench.submit("a", 1, 1_000_000_000);
    bench.next();
    bench.scheduler.stop().await;
    assert_eq!(bench.scheduler.reserve("b", "caller").err(), Some(QueueFull::Stopping));
    while bench.told.try_recv().is_ok() {}
    assert!(bench.told.try_recv().is_err());
    tokio::task::spawn_blocking(|| bench.finish()).await.unwrap();
}
