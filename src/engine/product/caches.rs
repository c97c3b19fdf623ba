//! How large the caches are: it decides how a product is cut, and never its bits.

use std::sync::LazyLock;

/// Where the processor does not tell: what the cores of most servers have at least.
const SECOND_CACHE_BYTES: usize = 1 << 20;

/// Bytes of a core's second cache, by the core that asks first.
pub fn second_cache_bytes() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| told().unwrap_or(SECOND_CACHE_BYTES));
    #[cfg(test)]
    if let Some(bytes) = tests::TOLD.get() {
        return bytes;
    }
    *BYTES
}

/// The larger of the two that processors tell: some hypervisors leave one of them at what processors had long ago.
#[cfg(target_arch = "x86_64")]
fn told() -> Option<usize> {
    let processor = raw_cpuid::CpuId::new();
    let size = processor.get_l2_l3_cache_and_tlb_info().map(|caches| usize::from(caches.l2cache_size()) << 10);
    let caches = processor.get_cache_parameters().into_iter().flatten().filter(|cache| cache.level() == 2);
    let products = caches.map(|cache| {
        cache.sets() * cache.associativity() * cache.physical_line_partitions() * cache.coherency_line_size()
    });
    products.chain(size).max().filter(|&bytes| bytes > 0)
}

#[cfg(not(target_arch = "x86_64"))]
fn told() -> Option<usize> {
    None
}

#[cfg(test)]
pub mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// What this thread is told in the place of what there is.
        pub static TOLD: Cell<Option<usize>> = const { Cell::new(None) };
    }

    #[test]
    fn a_core_has_a_second_cache_of_some_size() {
        // None has less than 128 KB, and a cluster of cores shares no more than 64 MB.
        assert!((1 << 17..=1 << 26).contains(&second_cache_bytes()), "{}", second_cache_bytes());
    }
}
