//! What a scheduler promises, as lists: it judges the turns that were given, and does not foretell them.

use std::collections::HashMap;

use super::{Cancelled, Limits, QueueFull};

/// A piece of work, as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub id: u32,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    begun: Option<Piece>,
    is_running: bool,
    waiting: Vec<Piece>,
    reserved: usize,
    /// Since when it could have had a turn: a number that grows. `None` where it runs, or has nothing to run.
    ready_since: Option<u64>,
    /// The slices that the other keys have begun since; those that they were brought forward for left out.
    passed_by: Vec<usize>,
    /// Whether its next turn comes before those of others.
    is_brought_forward: bool,
}

impl Lane {
    fn count(&self) -> usize {
        usize::from(self.begun.is_some()) + self.waiting.len() + self.reserved
    }

    /// The first of those that wait, where it is that which has the next turn.
    fn head(&self) -> Option<Piece> {
        if self.begun.is_some() { None } else { self.waiting.first().copied() }
    }
}

/// A scheduler's promises.
pub struct Model {
    pub limits: Limits,
    lanes: Vec<Lane>,
    is_stopping: bool,
    clock: u64,
}

impl Model {
    pub fn new(limits: Limits, keys: usize) -> Self {
        Self { limits, lanes: vec![Lane::default(); keys], is_stopping: false, clock: 0 }
    }

    /// Why there is no place, if there is none.
    pub fn reserve(&mut self, key: usize) -> Option<QueueFull> {
        let Limits { queued_max, queued_per_key_max, .. } = self.limits;
        if self.is_stopping {
            return Some(QueueFull::Stopping);
        }
        // All of it is one owner's.
        let count = self.lanes.iter().map(Lane::count).sum::<usize>();
        if count >= queued_max {
            return Some(QueueFull::Overall(queued_max));
        }
        if self.lanes[key].count() >= queued_per_key_max {
            return Some(QueueFull::ForKey(queued_per_key_max));
        }
        if count >= 3 * (queued_max - count) {
            return Some(QueueFull::ForOwner(count, queued_max));
        }
        self.lanes[key].reserved += 1;
        None
    }

    pub fn submit(&mut self, key: usize, piece: Piece) {
        self.lanes[key].reserved -= 1;
        self.readmit(key, piece);
    }

    pub fn readmit(&mut self, key: usize, piece: Piece) {
        self.lanes[key].waiting.push(piece);
        self.note_ready(key);
    }

    pub fn drop_permit(&mut self, key: usize) {
        self.lanes[key].reserved -= 1;
    }

    pub fn take_waiting(&mut self, key: usize, id: u32) -> Cancelled<Piece> {
        let lane = &mut self.lanes[key];
        if lane.begun.is_some_and(|begun| begun.id == id) {
            return Cancelled::Begun;
        }
        let Some(place) = lane.waiting.iter().position(|piece| piece.id == id) else { return Cancelled::Unknown };
        let piece = lane.waiting.remove(place);
        self.note_ready(key);
        Cancelled::Waiting(piece)
    }

    pub fn put_back(&mut self, key: usize, piece: Piece) {
        self.lanes[key].waiting.insert(0, piece);
        self.note_ready(key);
    }

    /// Only what has begun, and waits for a turn.
    pub fn bring_forward(&mut self, key: usize, id: u32) {
        let lane = &mut self.lanes[key];
        lane.is_brought_forward |= !lane.is_running && lane.begun.is_some_and(|begun| begun.id == id);
    }

    pub fn end_slice(&mut self, key: usize, is_done: bool) {
        let lane = &mut self.lanes[key];
        lane.is_running = false;
        if is_done {
            lane.begun = None;
        }
        self.note_ready(key);
    }

    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Begins to count turns from where a lane became ready.
    fn note_ready(&mut self, key: usize) {
        self.clock += 1;
        let keys = self.lanes.len();
        let lane = &mut self.lanes[key];
        let is_ready = !lane.is_running && (lane.begun.is_some() || !lane.waiting.is_empty());
        if !is_ready {
            lane.ready_since = None;
        } else if lane.ready_since.is_none() {
            lane.ready_since = Some(self.clock);
            lane.passed_by = vec![0; keys];
        }
    }

    /// Judges the turns, of key and id, that were given since the last command: all at once.
    pub fn took_turns(&mut self, turns: &[(usize, u32)]) {
        assert!(turns.is_empty() || !self.is_stopping, "a slice began after the stop");
        let before = self.lanes.clone();
        let begins: Vec<usize> = turns.iter().map(|turn| turn.0).filter(|key| before[*key].begun.is_none()).collect();
        for &(key, id) in turns {
            self.take_turn(key, id);
        }
        let threads = self.limits.threads;
        assert!(self.lanes.iter().filter(|lane| lane.is_running).count() <= threads, "more slices than threads");
        self.bytes_are_within_their_bound();
        for &key in &begins {
            let since = |key: usize| before[key].ready_since;
            let earlier = (0..self.lanes.len()).find(|&it| self.lanes[it].head().is_some() && since(it) < since(key));
            assert_eq!(earlier, None, "key {key} began before one that had waited longer to begin");
        }
        // What begins may have waited for memory, and tries before all others.
        if self.lanes.iter().any(|lane| lane.is_brought_forward) {
            let others = turns.iter().find(|(key, _)| before[*key].begun.is_some() && !before[*key].is_brought_forward);
            assert_eq!(others, None, "a turn was given before that of work that was brought forward");
        }
        let in_order = turns.iter().filter(|(key, _)| !before[*key].is_brought_forward).copied();
        self.turns_are_fair(&in_order.collect::<Vec<_>>());
    }

    fn take_turn(&mut self, key: usize, id: u32) {
        let lane = &mut self.lanes[key];
        assert!(!lane.is_running, "key {key} has two slices at once");
        match lane.begun {
            Some(begun) => assert_eq!(begun.id, id, "work of key {key} ran before that which had begun was done"),
            None => {
                assert!(!lane.waiting.is_empty(), "work {id} ran, but is done or was taken");
                assert_eq!(lane.waiting[0].id, id, "work of key {key} began out of its order");
                lane.begun = Some(lane.waiting.remove(0));
            }
        }
        (lane.is_running, lane.ready_since, lane.is_brought_forward) = (true, None, false);
    }

    fn bytes_are_within_their_bound(&self) {
        let is_alone = self.lanes.iter().filter(|lane| lane.begun.is_some()).count() == 1;
        assert!(self.begun_bytes() <= self.limits.bytes_max || is_alone, "more has begun than fits");
    }

    /// No key gets a second slice while another could have had its first. Not so while a key may wait for memory.
    fn turns_are_fair(&mut self, turns: &[(usize, u32)]) {
        let heads: u64 = self.lanes.iter().filter_map(Lane::head).map(|piece| piece.bytes).sum();
        let all_fit = self.begun_bytes() + heads <= self.limits.bytes_max;
        for lane in self.lanes.iter_mut().filter(|lane| lane.ready_since.is_some()) {
            for &(key, _) in turns {
                lane.passed_by[key] += 1;
            }
            if !all_fit && lane.begun.is_none() {
                lane.passed_by.fill(0);
            }
            let twice = lane.passed_by.iter().position(|&slices| slices > 1);
            assert_eq!(twice, None, "a key has a second slice, and {lane:?} none");
        }
    }

    /// No thread stays free while there is work that may run.
    pub fn must_be_busy(&self) {
        let running = self.lanes.iter().filter(|lane| lane.is_running).count();
        if running == self.limits.threads || self.is_stopping {
            return;
        }
        assert!(self.lanes.iter().all(|lane| lane.begun.is_none() || lane.is_running), "begun work has no turn");
        let first = self.lanes.iter().filter(|lane| lane.head().is_some()).min_by_key(|lane| lane.ready_since);
        if let Some(first) = first.and_then(Lane::head) {
            let begun = self.begun_bytes();
            assert!(begun > 0 && begun + first.bytes > self.limits.bytes_max, "{first:?} waits for nothing");
        }
    }

    fn begun_bytes(&self) -> u64 {
        self.lanes.iter().filter_map(|lane| lane.begun).map(|begun| begun.bytes).sum()
    }

    /// Pieces and promises in all; bytes that have begun; pieces and promises of each key that has any.
    pub fn counts(&self) -> (usize, u64, HashMap<usize, usize>) {
        let lanes = self.lanes.iter().map(Lane::count).enumerate().filter(|(_, count)| *count > 0);
        let lanes: HashMap<usize, usize> = lanes.collect();
        (lanes.values().sum(), self.begun_bytes(), lanes)
    }

    pub fn ids(&self, key: usize) -> Vec<u32> {
        let lane = &self.lanes[key];
        lane.begun.iter().chain(&lane.waiting).map(|piece| piece.id).collect()
    }

    pub fn begun(&self, key: usize) -> Option<u32> {
        self.lanes[key].begun.map(|begun| begun.id)
    }
}
