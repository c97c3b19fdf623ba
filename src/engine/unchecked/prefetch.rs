//! Numbers that are fetched into the caches before they are read.

/// A line of the caches.
pub const LINE_BYTES: usize = 64;

/// Has the processor fetch the lines of `count` numbers that begin `ahead` after the first of `numbers`, and goes on without waiting for
/// them: as many lines as they fill; where they begin within one, that in which they end may be left out. They may lie past the end of `numbers`: where nothing lies, nothing is fetched. Does nothing on
/// processors for which Rust has no such instruction yet.
#[inline(always)]
pub fn prefetch<T>(numbers: &[T], ahead: usize, count: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in (0..count * size_of::<T>()).step_by(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = numbers.as_ptr().cast::<i8>().wrapping_add(ahead * size_of::<T>() + line);
        // SAFETY: a hint. It reads and writes nothing that the program could see, and faults at no address, so none has to be valid; the
        // address is computed without a promise that it lies within the numbers. The instruction is part of SSE, which every x86-64
        // processor has.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (numbers, ahead, count);
}

/// Has the processor fetch the line at an address into the second cache, so that the first keeps what is read now. Else as [`prefetch`].
#[inline(always)]
pub fn prefetch_line(address: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: see `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address)) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_and_no_address_is_wrong() {
        let numbers = [1.0_f32, 2.0, 3.0];
        for ahead in [0, 1, 3, 4_096, usize::MAX / 8] {
            prefetch(&numbers, ahead, 64);
            prefetch::<f64>(&[], ahead, 1);
        }
        for address in [0, 1, numbers.as_ptr().addr(), usize::MAX] {
            prefetch_line(address);
        }
        assert_eq!(numbers, [1.0, 2.0, 3.0]);
    }
}
