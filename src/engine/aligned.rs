//! Numbers that begin at a line of the caches.
//!
//! An allocator begins them anywhere: then the widest vectors, which are a line long, lie in two lines each, and reading them takes twice as
//! long. How long a step takes would depend on what was allocated before. Large buffers begin at a large page of memory, and lie in such pages
//! where the system has them.

use std::ops::{Deref, DerefMut};

use bytemuck::Pod;

use super::unchecked::pages::{LARGE_PAGE_BYTES, prefer_large_pages};
use super::unchecked::prefetch::LINE_BYTES;

/// A buffer whose length stays as it is.
#[derive(Debug)]
pub struct Aligned<T> {
    /// With room for what lies before the line, or the page.
    numbers: Vec<T>,
    /// Which of them is the first that counts.
    first: usize,
}

impl<T> Aligned<T> {
    /// Nothing, for which nothing is allocated.
    pub const fn empty() -> Self {
        Self { numbers: Vec::new(), first: 0 }
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Pod> Aligned<T> {
    /// As many times the same value.
    pub fn filled(value: T, len: usize) -> Self {
        let mut zeros = Self::zeros(len);
        zeros.fill(value);
        zeros
    }

    /// Zeros. They take no memory before they are written.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::empty();
        }
        let mut numbers = vec![T::zeroed(); len + margin::<T>(len)];
        let first = first(&numbers, len);
        numbers.truncate(first + len);
        prefer_large_pages(&numbers[first..]);
        Self { numbers, first }
    }
}

/// A copy with room enough to become [`Aligned`] where it is. Copies of a network's parameters need it: else they are in memory twice for
/// that moment, and leave a hole that is a little too small for the next.
pub fn copy_with_room<T: Pod>(numbers: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity(numbers.len() + margin::<T>(numbers.len()));
    prefer_large_pages(copy.spare_capacity_mut());
    copy.extend_from_slice(numbers);
    copy
}

/// Copies them.
impl<T: Pod> From<&[T]> for Aligned<T> {
    fn from(numbers: &[T]) -> Self {
        let mut copy = Self::zeros(numbers.len());
        copy.copy_from_slice(numbers);
        copy
    }
}

/// Moves them within their own allocation, which grows by a line where there is no room for one.
impl<T: Pod> From<Vec<T>> for Aligned<T> {
    fn from(mut numbers: Vec<T>) -> Self {
        let len = numbers.len();
        if len == 0 {
            return Self::empty();
        }
        numbers.reserve_exact(LINE_BYTES / size_of::<T>() - 1);
        let first = first(&numbers, len);
        numbers.resize(first + len, T::zeroed());
        numbers.copy_within(..len, first);
        prefer_large_pages(&numbers[first..]);
        Self { numbers, first }
    }
}

/// Moves them to the beginning of their allocation.
impl<T> From<Aligned<T>> for Vec<T> {
    fn from(mut aligned: Aligned<T>) -> Self {
        aligned.numbers.drain(..aligned.first);
        aligned.numbers
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.first..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.first..]
    }
}

/// The most numbers before the next line, or before the next large page where so many fill one. Where nothing is written the system gives no
/// memory for them; a vector that is moved to its page leaves what it took before it, 2 MB at most.
const fn margin<T>(len: usize) -> usize {
    const { assert!(LINE_BYTES.is_multiple_of(size_of::<T>()), "a line holds whole numbers") };
    let unit = if len * size_of::<T>() < LARGE_PAGE_BYTES { LINE_BYTES } else { LARGE_PAGE_BYTES };
    unit / size_of::<T>() - 1
}

/// Which of the numbers `len` begin with: with a large page where these fill one and there is room, or with a line. What
/// [`pointer::align_offset`] cannot tell is told as 0: then it is slower, and no less right.
fn first<T>(numbers: &Vec<T>, len: usize) -> usize {
    let room = numbers.capacity() - len;
    let at = |unit: usize| Some(numbers.as_ptr().align_offset(unit)).filter(|&first| first <= room);
    let page = at(LARGE_PAGE_BYTES).filter(|_| len * size_of::<T>() >= LARGE_PAGE_BYTES);
    page.or_else(|| at(LINE_BYTES)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::element::Element;
    use crate::engine::testing::{begins_at_a_line, uniform};
    use crate::engine::unchecked::pages::tests::is_asked_for;

    /// Around a line's, and one that an allocator asks the system for.
    fn lengths() -> impl Iterator<Item = usize> {
        (1..70).chain([1_000, 100_003])
    }

    fn check<T: Element>() {
        let vectors: Vec<Vec<T>> = lengths().map(|len| uniform(len, 1)).collect();
        let aligned: Vec<Aligned<T>> = vectors.iter().map(|vector| Aligned::from(vector.clone())).collect();
        assert!(aligned.iter().any(|aligned| aligned.first > 0), "all lay at a line: this shows nothing");
        for (aligned, vector) in aligned.into_iter().zip(vectors) {
            assert!(begins_at_a_line(&aligned), "{}", vector.len());
            assert_eq!(aligned[..], vector);
            let copy = Aligned::from(&*aligned);
            assert!(begins_at_a_line(&copy), "{}", vector.len());
            assert_eq!((Vec::from(aligned), &copy[..]), (vector.clone(), &vector[..]));
        }
        for len in lengths() {
            let same = Aligned::filled(T::ONE, len);
            assert!(begins_at_a_line(&same), "{len}");
            assert_eq!(same[..], vec![T::ONE; len]);
        }
    }

    #[test]
    fn a_buffer_begins_at_a_line_and_holds_what_it_was_made_of() {
        check::<f32>();
        check::<f64>();
    }

    #[test]
    fn a_vector_with_room_for_a_line_is_moved_within_its_allocation() {
        let mut vector = copy_with_room(&uniform::<f32>(1_000, 1));
        let (at, expected) = (vector.as_ptr(), vector.clone());
        let counted = allocation_counter::measure(|| {
            let aligned = Aligned::from(std::mem::take(&mut vector));
            assert!(begins_at_a_line(&aligned));
            vector = aligned.into();
        });
        assert_eq!(counted.count_total, 0);
        assert_eq!((vector.as_ptr(), vector), (at, expected));
    }

    #[test]
    fn a_large_buffer_begins_at_a_large_page() {
        const PAGE: usize = LARGE_PAGE_BYTES / size_of::<f32>();
        let begins_at_a_page = |aligned: &[f32]| aligned.as_ptr().align_offset(LARGE_PAGE_BYTES) == 0;
        for len in [PAGE, PAGE + 5, 3 * PAGE - 1] {
            let zeros = Aligned::<f32>::zeros(len);
            assert!(begins_at_a_page(&zeros) && is_asked_for(&zeros), "{len}");
            let vector = uniform::<f32>(len, 1);
            let mut copy = copy_with_room(&vector);
            assert!(is_asked_for(&copy), "{len}");
            let counted = allocation_counter::measure(|| {
                let aligned = Aligned::from(std::mem::take(&mut copy));
                assert!(begins_at_a_page(&aligned) && is_asked_for(&aligned), "{len}");
                copy = aligned.into();
            });
            assert_eq!(counted.count_total, 0);
            assert!(copy == vector);
            // Without that room it begins with a line.
            let aligned = Aligned::from(vector.clone());
            assert!(begins_at_a_line(&aligned) && *aligned == vector && is_asked_for(&aligned), "{len}");
        }
        // Less than a page has no room for one.
        assert!(copy_with_room(&vec![0.0_f32; PAGE - 1]).capacity() < PAGE + LINE_BYTES);
    }

    #[test]
    fn a_changed_buffer_holds_what_was_written() {
        let mut aligned = Aligned::<f64>::zeros(5);
        aligned[4] = 2.0;
        aligned[..2].fill(1.0);
        assert_eq!(Vec::from(aligned), [1.0, 1.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn nothing_is_allocated_for_nothing() {
        let counted = allocation_counter::measure(|| {
            assert!(Aligned::<f32>::zeros(0).is_empty());
            assert!(Aligned::<f32>::from(Vec::new()).is_empty());
            assert!(Vec::from(Aligned::<f32>::default()).is_empty());
        });
        assert_eq!(counted.count_total, 0);
    }
}
