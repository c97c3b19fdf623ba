//! Loops compiled for the vectors of the processor at hand, whichever the build's own target is.
//!
//! What runs here is plain Rust: multiplications and additions are not fused, and sums run in an order that the code says, so that
//! vectors of any width give the same bits.

/// What a closure takes in that may be called once.
pub(crate) struct Once;

/// Runs an expression as it is compiled for the widest vectors that this processor has. Only what is inlined into it is: keep to small
/// functions, `#[inline(always)]`, and put the loop inside. Takes a few nanoseconds. No closure is taken, since one is inlined only
/// where it is written with the attribute; and only where it can be called no more than once: else what pulp calls is a function that the
/// compiler makes around it, which is not inlined where the closure is large.
macro_rules! vectorized {
    ($work:expr) => {{
        let once = $crate::engine::simd::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _taken = once;
                $work
            },
        )
    }};
}

pub(crate) use vectorized;

#[cfg(test)]
mod tests {

    #[test]
    fn what_runs_in_vectors_is_what_runs_without() {
        let numbers: Vec<f32> = (0..1_003).map(|index| (index as f32 * 0.618_034).fract()).collect();
        #[inline(always)]
        fn step(numbers: &[f32]) -> Vec<f32> {
            numbers.iter().map(|x| (x * 3.0 + 1.0) / (x.sqrt() + 0.1)).collect()
        }
        assert_eq!(vectorized!(step(&numbers)), step(&numbers));
    }
}
