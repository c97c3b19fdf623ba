//! Large pages of memory for large buffers.
//!
//! A processor keeps the places of some thousand pages at hand. Of 4 KB those are fewer than a network of a few million parameters takes, and
//! each row of a matrix is read from a page of its own: so it looks them up in memory again and again, and fetches what is read ahead late.
//! Of 2 MB a dozen hold all of it. Linux gives them where a program asks for them, by its usual setting (`madvise`).

/// Bytes of a large page, where a processor's smallest pages have 4 KB.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Asks for large pages under a buffer, and under what shares its first and its last page. Best before it is written: pages that are there stay
/// until the system comes to look at them. Does nothing for less than such a page, and where the system has none.
pub fn prefer_large_pages<T>(buffer: &[T]) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if size_of_val(buffer) >= LARGE_PAGE_BYTES {
        use rustix::mm::{Advice, madvise};
        let first = buffer.as_ptr().addr() / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
        let end = (buffer.as_ptr().addr() + size_of_val(buffer)).next_multiple_of(LARGE_PAGE_BYTES);
        let start = std::ptr::without_provenance_mut(first);
        // SAFETY: this advice changes in how large pieces memory is given to the process, and nothing that is or will be in it; so it may cover
        // memory of others, and addresses where nothing lies. No reference is made of the address.
        let answer = unsafe { madvise(start, end - first, Advice::LinuxHugepage) };
        #[cfg(test)]
        tests::ASKED.set(Some((first, end, answer)));
        // What is not granted is left as it was: the buffer works all the same.
        let _ = answer;
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = buffer;
}

/// What the tests of buffers ask, too.
#[cfg(test)]
pub mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", not(miri)))]
    thread_local! {
        /// For which addresses this thread asked last, and what it was answered.
        pub static ASKED: std::cell::Cell<Option<(usize, usize, rustix::io::Result<()>)>> = const { std::cell::Cell::new(None) };
    }

    #[test]
    fn a_buffer_keeps_what_is_in_it_and_its_neighbours_do() {
        let neighbours = [vec![1_u8; 5_000], vec![2; LARGE_PAGE_BYTES + 5_000]];
        for bytes in [0, 1, LARGE_PAGE_BYTES - 1, LARGE_PAGE_BYTES, 2 * LARGE_PAGE_BYTES + 12_345] {
            let mut buffer: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            prefer_large_pages(&buffer);
            assert!(buffer.iter().enumerate().all(|(index, &byte)| byte == index as u8), "{bytes}");
            buffer.fill(7);
            assert!(buffer.iter().all(|&byte| byte == 7));
        }
        assert!(neighbours.iter().zip([1, 2]).all(|(all, byte)| all.iter().all(|&it| it == byte)));
    }

    #[test]
    fn large_pages_are_asked_for() {
        let buffer = vec![0_u8; 8 * LARGE_PAGE_BYTES];
        assert!(CANNOT_ASK || !is_asked_for(&buffer));
        prefer_large_pages(&buffer);
        assert!(is_asked_for(&buffer));
        // A part of a page alone is not.
        prefer_large_pages(&buffer[..LARGE_PAGE_BYTES - 1]);
        assert!(is_asked_for(&buffer));
    }

    const CANNOT_ASK: bool = cfg!(any(miri, not(target_os = "linux")));

    /// Whether this thread asked for large pages last under all of this buffer, and the system knows them; true where nobody can ask.
    pub fn is_asked_for<T>(buffer: &[T]) -> bool {
        let first = buffer.as_ptr().addr();
        #[cfg(all(target_os = "linux", not(miri)))]
        if let Some((begin, end, answer)) = ASKED.get() {
            use rustix::io::Errno;
            // Under the first and the last page there may be a part where nothing lies, and a kernel may have been built without them.
            let is_known = matches!(answer, Ok(()) | Err(Errno::NOMEM | Errno::INVAL));
            return is_known && begin <= first && first + size_of_val(buffer) <= end;
        }
        let _ = first;
        CANNOT_ASK
    }
}
