//! Room for the rows of large predictions, kept from one to the next: to have the system map and clear some megabytes takes longer than to
//! fill them.

use std::sync::{Mutex, PoisonError};

use crate::domain::{Matrix, Values};

/// Numbers of a buffer that is kept: fewer are had as quickly from the allocator, more would be held for nothing.
const KEPT_MIN: usize = 16 << 10;
const KEPT_MAX: usize = 2 << 20;
/// Buffers that are kept: 16 MB together.
const BUFFERS_MAX: usize = 2;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<f32>>>);

impl Buffers {
    /// An empty vector, or one with some numbers that do not matter, with room for so many: who announces many and sends none takes none.
    pub(super) fn take(&self, count: usize) -> Vec<f32> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = kept.iter().position(|buffer| buffer.capacity() >= count && count >= KEPT_MIN) else {
            drop(kept);
            return Vec::with_capacity(count);
        };
        let mut buffer = kept.swap_remove(place);
        drop(kept);
        buffer.truncate(count);
        buffer
    }

    /// Takes rows that are not needed any more.
    pub(super) fn give(&self, rows: Matrix) {
        let Values::F32(buffer) = rows.into_values() else { return };
        if (KEPT_MIN..=KEPT_MAX).contains(&buffer.capacity()) {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // The latest stays: it is as large as what is asked for now.
            if kept.len() == BUFFERS_MAX {
                kept.remove(0);
            }
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Matrix {
        Matrix::from_values(1, count, Values::F32(vec![1.0; count]))
    }

    #[test]
    fn a_buffer_that_is_large_enough_is_used_again() {
        let buffers = Buffers::default();
        buffers.give(rows(KEPT_MIN));
        assert!(buffers.take(KEPT_MIN + 1).is_empty());
        assert_eq!(buffers.take(KEPT_MIN), vec![1.0; KEPT_MIN]);
        assert!(buffers.take(KEPT_MIN).is_empty());
    }

    #[test]
    fn few_are_kept_and_no_huge_ones() {
        let buffers = Buffers::default();
        for count in [1, KEPT_MIN - 1, KEPT_MAX + 1, KEPT_MIN, KEPT_MIN + 1, KEPT_MIN + 2] {
            buffers.give(rows(count));
        }
        let kept = buffers.0.lock().unwrap();
        assert_eq!(kept.iter().map(Vec::len).collect::<Vec<_>>(), [KEPT_MIN + 1, KEPT_MIN + 2]);
    }
}
