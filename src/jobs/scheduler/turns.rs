//! Whose turn it is: owner after owner, and for each of them key after key, so that one who has many keys waits as long for a turn
//! as one who has a single one, and no longer makes the other wait.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Keys in the order of their turns.
pub(super) struct Turns<O, K> {
    /// Those with keys, each once.
    owners: VecDeque<O>,
    keys: HashMap<O, VecDeque<K>>,
}

impl<O, K> Default for Turns<O, K> {
    fn default() -> Self {
        Self { owners: VecDeque::new(), keys: HashMap::new() }
    }
}

impl<O: Clone + Eq + Hash, K: Eq> Turns<O, K> {
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub fn contains(&self, owner: &O, key: &K) -> bool {
        self.keys.get(owner).is_some_and(|keys| keys.contains(key))
    }

    /// Behind the owner's other keys, unless it is among them: a key that is there twice would have two turns a round.
    pub fn push_back(&mut self, owner: O, key: K) {
        let keys = self.keys.entry(owner.clone()).or_default();
        if keys.contains(&key) {
            return;
        }
        if keys.is_empty() {
            self.owners.push_back(owner);
        }
        keys.push_back(key);
    }

    /// Before the owner's other keys, and the owner before all others.
    pub fn push_front(&mut self, owner: O, key: K) {
        let keys = self.keys.entry(owner.clone()).or_default();
        keys.retain(|other| *other != key);
        keys.push_front(key);
        self.owners.retain(|other| *other != owner);
        self.owners.push_front(owner);
    }

    /// A key that has nothing left, whosever it is.
    pub fn remove(&mut self, key: &K) {
        for keys in self.keys.values_mut() {
            keys.retain(|other| other != key);
        }
        self.keys.retain(|_, keys| !keys.is_empty());
        let Self { owners, keys } = self;
        owners.retain(|owner| keys.contains_key(owner));
    }

    /// The next one, and whose it is. Its owner's other keys come after those of all other owners.
    pub fn pop_front(&mut self) -> Option<(O, K)> {
        let owner = self.owners.pop_front()?;
        let keys = self.keys.get_mut(&owner)?;
        let key = keys.pop_front()?;
        if keys.is_empty() {
            self.keys.remove(&owner);
        } else {
            self.owners.push_back(owner.clone());
        }
        Some((owner, key))
    }

    /// All, in the order of their turns.
    pub fn drain(&mut self) -> Vec<(O, K)> {
        std::iter::from_fn(|| self.pop_front()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_take_turns_whatever_they_have() {
        let mut turns = Turns::default();
        for key in 0..4 {
            turns.push_back("many", key);
        }
        turns.push_back("one", 10);
        turns.push_back("two", 20);
        turns.push_back("two", 21);
        turns.push_back("two", 21);
        assert!(turns.contains(&"two", &21) && !turns.contains(&"one", &21));
        let order: Vec<i32> = turns.drain().into_iter().map(|(_, key)| key).collect();
        assert_eq!(order, [0, 10, 20, 1, 21, 2, 3]);
        assert!(turns.is_empty() && turns.pop_front().is_none());
    }

    #[test]
    fn a_key_that_is_removed_has_no_place_and_an_owner_without_keys_no_turn() {
        let mut turns = Turns::default();
        turns.push_back("a", 1);
        turns.push_back("b", 2);
        turns.push_back("b", 1);
        turns.remove(&1);
        assert_eq!(turns.drain(), [("b", 2)]);
    }

    #[test]
    fn what_is_put_in_front_comes_next() {
        let mut turns = Turns::default();
        turns.push_back("a", 1);
        turns.push_back("b", 2);
        turns.push_front("b", 3);
        assert_eq!(turns.drain(), [("b", 3), ("a", 1), ("b", 2)]);
    }
}
