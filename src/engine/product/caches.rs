//! How large the caches are: it decides how a product is cut, and never its bits.

use std::sync::LazyLock;

/// Where the processor does not tell: what the cores of most servers have at least.
const SECOND_CACHE_BYTES: usize = 1 << 20;

/// Bytes of a core's second cache.
pub fn second_cache_bytes() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| told().unwrap_or(SECOND_CACHE_BYTES));
    *BYTES
}

#[cfg(target_arch = "x86_64")]
fn told() -> Option<usize> {
    let kilobytes = raw_cpuid::CpuId::new().get_l2_l3_cache_and_tlb_info()?.l2cache_size();
    (kilobytes > 0).then_some(usize::from(kilobytes) << 10)
}

#[cfg(not(target_arch = "x86_64"))]
fn told() -> Option<usize> {
    None
}
