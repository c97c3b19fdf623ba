//! Orthonormal vectors from independent ones, by Gram and Schmidt's method.
//!
//! Block by block: what lies along all vectors before is taken off a block by two matrix products, and then each vector is freed of those
//! before it within the block. All of it twice, which makes vectors orthogonal to the last digits whatever the first time left (Giraud,
//! Langou and Rozložník 2005, "twice is enough"); so the products do nearly all of the work.

use crate::engine::product::{Shape, affine, product_with_transposed};
use crate::engine::unchecked::team::Workers;

/// Vectors that are freed of all before them at once.
const BLOCK: usize = 32;

/// Makes `[vectors, length]`, independent and no more than their length, orthonormal, in place: each lies in the span of itself and of
/// those before, on its own side of what they span. That is Q of the QR decomposition of the matrix with these columns whose R has a positive
/// diagonal.
pub(super) fn orthonormalize(values: &mut [f64], length: usize) {
    let count = values.len() / length;
    let mut along = vec![0.0; BLOCK * count];
    let mut sums = vec![0.0; BLOCK * length];
    for first in (0..count).step_by(BLOCK) {
        let (before, rest) = values.split_at_mut(first * length);
        let block = &mut rest[..BLOCK.min(count - first) * length];
        for _ in 0..2 {
            take_off(before, block, length, &mut along, &mut sums);
            orthonormalize_alone(block, length);
        }
    }
}

/// block ← block − (block·beforeᵀ)·before
fn take_off(before: &[f64], block: &mut [f64], length: usize, along: &mut [f64], sums: &mut [f64]) {
    if before.is_empty() {
        return;
    }
    let workers = Workers::default();
    let (rows, count) = (block.len() / length, before.len() / length);
    let along = &mut along[..rows * count];
    let shape = Shape { rows, inputs: count, units: length };
    product_with_transposed(&workers, shape, block, before, along);
    affine(&workers, shape, along, before, None, sums, &mut [], &|_| {});
    block.iter_mut().zip(sums).for_each(|(value, sum)| *value -= *sum);
}

/// The same of a few vectors, one after the other.
fn orthonormalize_alone(block: &mut [f64], length: usize) {
    for index in 0..block.len() / length {
        let (before, rest) = block.split_at_mut(index * length);
        let vector = &mut rest[..length];
        for other in before.chunks_exact(length) {
            let along = dot(vector, other);
            vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
        }
        let norm = dot(vector, vector).sqrt();
        vector.iter_mut().for_each(|value| *value /= norm);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::random::{Purpose, Stream};

    #[test]
    fn vectors_become_orthonormal_and_keep_their_span_and_side() {
        for (count, length) in [(1, 1), (1, 5), (5, 5), (31, 40), (70, 70), (100, 333)] {
            let mut stream = Stream::new(1, Purpose::Initializer, count as u64, length as u64);
            let drawn: Vec<f64> = (0..count * length).map(|_| stream.normal()).collect();
            let mut made = drawn.clone();
            orthonormalize(&mut made, length);
            for (i, a) in made.chunks_exact(length).enumerate() {
                for (j, b) in made.chunks_exact(length).enumerate() {
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((dot(a, b) - expected).abs() < 1e-14, "{count}×{length} {i} {j}: {:e}", dot(a, b));
                }
                // R, whose parts below the diagonal are 0: a vector has nothing of those that are made after it.
                for (j, b) in drawn.chunks_exact(length).enumerate() {
                    let r = dot(a, b);
                    assert!(if i == j { r > 0.0 } else { i < j || r.abs() < 1e-13 }, "{count}×{length} {i} {j}: {r:e}");
                }
            }
        }
    }

    /// The second vector is nearly the first.
    #[test]
    fn vectors_that_nearly_fall_together_become_as_orthogonal() {
        let mut values = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0 + 1e-12];
        orthonormalize(&mut values, 3);
        let (a, b) = values.split_at(3);
        assert!(dot(a, b).abs() < 1e-15 && (dot(b, b) - 1.0).abs() < 1e-15, "{values:?}");
    }
}
