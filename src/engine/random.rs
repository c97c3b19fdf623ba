//! Seeded randomness, keyed by what it is for.
//!
//! Each draw has a stream of its own, (seed, purpose, epoch, batch), so that what one draw takes shifts no other, and a
//! training can go on at any batch without a generator's state. The algorithms on top of ChaCha's words are written out
//! here: a crate that improves its own would change every result of ours.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What randomness is for. The numbers are part of what a seed means: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights; the epoch's place holds the layer's index.
    Initializer = 1,
    /// The order of the rows of an epoch.
    Order = 2,
    /// Which rows are held out for validation.
    Validation = 3,
    /// Which rows are held out for a test, before any training.
    Test = 4,
    /// What a training step drops; the index holds the place and the tile of rows.
    Dropout = 5,
}

/// A stream of random numbers.
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of (seed, purpose, epoch, batch), which make the 32 bytes of the key as they are: no two of them meet.
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, batch: u64) -> Self {
        Self::with_index(seed, purpose, epoch, batch, 0)
    }

    /// One of several streams of (seed, purpose, epoch, batch), by its index.
    pub fn with_index(seed: u64, purpose: Purpose, epoch: u64, batch: u64, index: u32) -> Self {
        let mut key = [0; 32];
        let purpose = purpose as u64 | u64::from(index) << 32;
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, purpose, epoch, batch]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in 0 ≤ x < 1: a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        (self.0.next_u64() >> 11) as f64 * UNIT
    }

    /// Whether an event of a probability between 0 and 1 happens; to a multiple of 2⁻³².
    pub fn happens(&mut self, probability: f64) -> bool {
        f64::from(self.0.next_u32()) < probability * (1_u64 << 32) as f64
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller, 1958; the cosine of the pair).
    pub fn normal(&mut self) -> f64 {
        // 1 − u is never 0, whose logarithm is infinite.
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(std::f64::consts::TAU * self.uniform())
    }

    /// Uniform among 0 .. `bound`, without bias (Lemire's multiplication, with rejection). `bound` is at least 1.
    pub fn below(&mut self, bound: u32) -> u32 {
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(bound);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts items into one of their orders, each as likely (Fisher–Yates, from the end).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_numbers_for_ever() {
        let mut stream = Stream::new(7, Purpose::Order, 1, 2);
        let first = [stream.uniform(), stream.uniform()];
        let mut items: Vec<u32> = (0..8).collect();
        stream.shuffle(&mut items);
        assert_eq!(first, [0.14734123427579804, 0.2898440488016989]);
        assert_eq!(items, [5, 2, 3, 4, 7, 6, 0, 1]);
    }

    #[test]
    fn streams_differ_by_every_part_of_their_key() {
        let first = |seed, purpose, epoch, batch| Stream::new(seed, purpose, epoch, batch).uniform();
        let reference = first(1, Purpose::Order, 1, 1);
        assert_ne!(reference, first(2, Purpose::Order, 1, 1));
        assert_ne!(reference, first(1, Purpose::Initializer, 1, 1));
        assert_ne!(reference, first(1, Purpose::Order, 2, 1));
        assert_ne!(reference, first(1, Purpose::Order, 1, 2));
        assert_eq!(reference, first(1, Purpose::Order, 1, 1));
        let indexed = |index| Stream::with_index(1, Purpose::Order, 1, 1, index).uniform();
        assert_eq!(indexed(0), reference);
        assert_ne!(indexed(1), reference);
    }

    #[test]
    fn numbers_are_uniform() {
        let mut stream = Stream::new(3, Purpose::Order, 0, 0);
        let draws: Vec<f64> = (0..30_000).map(|_| stream.uniform()).collect();
        assert!(draws.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");

        let mut counts = [0; 6];
        (0..30_000).for_each(|_| counts[stream.below(6) as usize] += 1);
        assert!(counts.iter().all(|&count| (4_700..5_300).contains(&count)), "{counts:?}");
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    fn every_order_of_three_is_as_likely() {
        let mut stream = Stream::new(3, Purpose::Order, 0, 0);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..12_000 {
            let mut items = [0, 1, 2];
            stream.shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
    }
}
