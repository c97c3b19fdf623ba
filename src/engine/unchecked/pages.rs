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
        // What is not granted is left as it was: the buffer works all the same.
        let _ = unsafe { madvise(start, end - first, Advice::LinuxHugepage) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = buffer;
}

/// What the tests of buffers ask, too.
#[cfg(test)]
pub mod tests {
    use super::*;

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
        prefer_large_pages(&buffer);
        assert!(is_asked_for(&buffer));
    }

    /// Whether large pages were asked for in the midst of a buffer; true where nobody can ask.
    pub fn is_asked_for<T>(buffer: &[T]) -> bool {
        if cfg!(any(miri, not(target_os = "linux"))) || !std::fs::exists("/sys/kernel/mm/transparent_hugepage").unwrap()
        {
            return true;
        }
        let address = buffer[buffer.len() / 2..].as_ptr().addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_here = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let hex = |text: &str| usize::from_str_radix(text, 16).ok();
            if let Some((Some(first), Some(end))) = range.map(|(first, end)| (hex(first), hex(end))) {
                is_here = (first..end).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags: ").filter(|_| is_here) {
                return flags.split(' ').any(|flag| flag == "hg");
            }
        }
        panic!("nothing lies there");
    }
}
