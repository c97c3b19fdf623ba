//! Softmax over rows, and its logarithm.
//!
//! Short rows, as those of a classifier of few classes, go 16 at a time and side by side: one vector has a number of each of them.
//! So nothing waits for the sum over one row, and no vector is half empty. The order of operations within a row is the same as in a long
//! one, and so are the bits.

use std::sync::atomic::{Ordering, compiler_fence};

use crate::engine::element::Element;
use crate::engine::simd::vectorized;

/// Units of a row up to which rows go side by side.
const SHORT_MAX: usize = 32;
/// Rows that go side by side: a vector of float32, where vectors are widest.
const GROUP: usize = 16;
/// Long rows are exponentiated so many numbers at a time: they stay in the first cache, and fill vectors.
const BLOCK: usize = 2_048;
/// How many running values a sum over a row has. One alone would wait for itself at each number, and the compiler, which keeps the
/// order of a sum, could not make a vector of it.
const LANES: usize = 8;

/// The most rows of a block.
pub const ROWS_MAX: usize = BLOCK / (SHORT_MAX + 1);

/// Numbers of whole rows of so many units that are worked on at a time: a block.
pub fn block_length(units: usize) -> usize {
    let rows = if units <= SHORT_MAX { GROUP } else { (BLOCK / units).max(1) };
    rows * units
}

/// e^zᵢ / Σ e^zⱼ over each of some rows, in place, by the shifted z: zᵢ − max z. Nothing overflows in e^z then, and Σ e^z is at least 1.
///
/// Its derivative is a matrix, ∂pᵢ/∂zⱼ = pᵢ·(δᵢⱼ − pⱼ); the losses multiply by it (see `loss`).
pub fn softmax<T: Element>(units: usize, values: &mut [T]) {
    for block in values.chunks_mut(block_length(units)) {
        if units > SHORT_MAX {
            vectorized!({
                block.chunks_exact_mut(units).for_each(shift);
                block.iter_mut().for_each(|z| *z = z.exp());
                block.chunks_exact_mut(units).for_each(|row| _ = divide_by_sum(row));
            });
        } else {
            let mut z = [[T::ZERO; GROUP]; SHORT_MAX];
            vectorized!(softmax_of_group(&mut z[..units], block, &mut []));
        }
    }
}

/// z − ln Σ e^zⱼ over each of some rows, in place, by the shifted z.
///
/// Its derivative is a matrix, ∂aᵢ/∂zⱼ = δᵢⱼ − e^aⱼ.
pub fn log_softmax<T: Element>(units: usize, values: &mut [T]) {
    for block in values.chunks_mut(block_length(units)) {
        if units > SHORT_MAX {
            vectorized!(for row in block.chunks_exact_mut(units) {
                shift(row);
                let log_sum = fold(row, T::ZERO, T::exp, |sum, e| sum + e).ln();
                row.iter_mut().for_each(|z| *z -= log_sum);
            });
        } else {
            let mut z = [[T::ZERO; GROUP]; SHORT_MAX];
            vectorized!(log_softmax_of_group(&mut z[..units], block));
        }
    }
}

/// Softmax of a block of rows, in place; the shifted z go to `shifted`, and ln Σ e^z of each to `log_sums`.
pub fn softmax_of_block<T: Element>(units: usize, values: &mut [T], shifted: &mut [T], log_sums: &mut [T; ROWS_MAX]) {
    if units > SHORT_MAX {
        shifted.copy_from_slice(values);
        vectorized!({
            shifted.chunks_exact_mut(units).for_each(shift);
            values.iter_mut().zip(&*shifted).for_each(|(e, z)| *e = z.exp());
            for (row, log_sum) in values.chunks_exact_mut(units).zip(log_sums) {
                *log_sum = divide_by_sum(row).ln();
            }
        });
    } else {
        let mut z = [[T::ZERO; GROUP]; SHORT_MAX];
        let of_group = vectorized!(softmax_of_group(&mut z[..units], values, shifted));
        log_sums[..GROUP].copy_from_slice(&of_group);
    }
}

/// A number of each of some rows.
type Lanes<T> = [T; GROUP];

/// What [`softmax_of_block`] does, of short rows; `shifted` may be empty. `z` is room of zeros for them side by side, one unit below the
/// other: the zeros stand in for rows that are missing. Returns ln Σ e^z.
#[inline(always)]
fn softmax_of_group<T: Element>(z: &mut [Lanes<T>], values: &mut [T], shifted: &mut [T]) -> Lanes<T> {
    shift_group(z, values);
    put(z, shifted);
    z.iter_mut().for_each(|z| *z = lanewise(*z, *z, |z, _| z.exp()));
    let sums = fold(z, [T::ZERO; GROUP], |e| e, |sum, e| lanewise(sum, e, |sum, e| sum + e));
    for e in &mut *z {
        *e = lanewise(*e, sums, |e, sum| e / sum);
        rows_stay_side_by_side();
    }
    put(z, values);
    lanewise(sums, sums, |sum, _| sum.ln())
}

/// The same for [`log_softmax`].
#[inline(always)]
fn log_softmax_of_group<T: Element>(z: &mut [Lanes<T>], values: &mut [T]) {
    shift_group(z, values);
    let exp = |z: Lanes<T>| lanewise(z, z, |z, _| z.exp());
    let sums = fold(z, [T::ZERO; GROUP], exp, |sum, e| lanewise(sum, e, |sum, e| sum + e));
    let log_sums = lanewise(sums, sums, |sum, _| sum.ln());
    z.iter_mut().for_each(|z| *z = lanewise(*z, log_sums, |z, log_sum| z - log_sum));
    put(z, values);
}

/// Rows go side by side, and each is shifted.
#[inline(always)]
fn shift_group<T: Element>(z: &mut [Lanes<T>], rows: &[T]) {
    for (lane, row) in (0..GROUP).zip(rows.chunks_exact(z.len())) {
        for (z, &value) in z.iter_mut().zip(row) {
            z[lane] = value;
            rows_stay_side_by_side();
        }
    }
    let largest = fold(z, z[0], |z| z, |largest, z| lanewise(largest, z, larger));
    for z in z {
        *z = lanewise(*z, largest, |z, largest| z - largest);
        rows_stay_side_by_side();
    }
}

/// The compiler makes no vectors across this, in the loops over units that have it: else it takes several units for one vector, and gathers
/// their numbers one by one. Nothing of it is left in the program.
#[inline(always)]
fn rows_stay_side_by_side() {
    compiler_fence(Ordering::SeqCst);
}

/// Rows side by side go one below the other again, as many as there is room for.
#[inline(always)]
fn put<T: Element>(group: &[Lanes<T>], rows: &mut [T]) {
    for (lane, row) in (0..GROUP).zip(rows.chunks_exact_mut(group.len())) {
        for (value, lanes) in row.iter_mut().zip(group) {
            *value = lanes[lane];
            rows_stay_side_by_side();
        }
    }
}

/// f of each row's numbers.
#[inline(always)]
fn lanewise<T: Element>(mut a: Lanes<T>, b: Lanes<T>, f: impl Fn(T, T) -> T) -> Lanes<T> {
    for (a, &b) in a.iter_mut().zip(&b) {
        *a = f(*a, b);
    }
    a
}

/// f over all g(x) of a row, in an order that the row's length alone decides; `start` changes nothing.
#[inline(always)]
fn fold<X: Copy>(row: &[X], start: X, g: impl Fn(X) -> X, f: impl Fn(X, X) -> X) -> X {
    let (chunks, rest) = row.as_chunks::<LANES>();
    if chunks.is_empty() {
        return rest.iter().fold(start, |folded, &x| f(folded, g(x)));
    }
    let mut lanes = [start; LANES];
    // Loops, whose bodies are compiled in place: not every closure of an iterator's is.
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, g(x));
        }
    }
    let four = |lane: usize| f(lanes[lane], lanes[lane + 4]);
    let mut folded = f(f(four(0), four(2)), f(four(1), four(3)));
    for &x in rest {
        folded = f(folded, g(x));
    }
    folded
}

/// Σ xᵢ over one row.
#[inline(always)]
pub fn sum<T: Element>(row: &[T]) -> T {
    fold(row, T::ZERO, |x| x, |sum, x| sum + x)
}

/// The largest number of one row. NaN are passed over, unless the first is one: then NaN is returned.
#[inline(always)]
pub fn largest<T: Element>(row: &[T]) -> T {
    fold(row, row[0], |z| z, larger)
}

/// z where it is larger, not where it is NaN.
#[inline(always)]
fn larger<T: Element>(largest: T, z: T) -> T {
    if z > largest { z } else { largest }
}

/// zᵢ − max z over one row, in place.
#[inline(always)]
fn shift<T: Element>(row: &mut [T]) {
    let largest = largest(row);
    row.iter_mut().for_each(|z| *z -= largest);
}

/// Turns e^z of one row into p, and returns Σ e^z.
#[inline(always)]
fn divide_by_sum<T: Element>(e: &mut [T]) -> T {
    let sum = sum(e);
    e.iter_mut().for_each(|e| *e /= sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::random::{Purpose, Stream};

    /// Softmax, the shifted z and ln Σ e^z of one row, as long rows have them.
    fn row_alone<T: Element>(row: &[T]) -> (Vec<T>, Vec<T>, T) {
        let mut shifted = row.to_vec();
        shift(&mut shifted);
        let mut p: Vec<T> = shifted.iter().map(|z| z.exp()).collect();
        let log_sum = divide_by_sum(&mut p).ln();
        (p, shifted, log_sum)
    }

    fn check<T: Element>() {
        let mut stream = Stream::new(1, Purpose::Initializer, 0, 0);
        for units in (1..=SHORT_MAX + 3).chain([100, BLOCK + 1]) {
            for rows in [1, 2, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 5] {
                let mut z: Vec<T> = (0..rows * units).map(|_| T::from_f64(stream.normal() * 20.0)).collect();
                z[0] = T::from_f64(f64::INFINITY);
                z[units * (rows - 1)] = T::from_f64(f64::NAN);
                let (mut p, mut logs) = (z.clone(), z.clone());
                softmax(units, &mut p);
                log_softmax(units, &mut logs);
                let (mut of_blocks, mut shifted) = (z.clone(), z.clone());
                let mut log_sums = Vec::new();
                let length = block_length(units);
                for (values, shifted) in of_blocks.chunks_mut(length).zip(shifted.chunks_mut(length)) {
                    let mut some = [T::ZERO; ROWS_MAX];
                    softmax_of_block(units, values, shifted, &mut some);
                    log_sums.extend_from_slice(&some[..values.len() / units]);
                }
                // As text, since NaN is not NaN's equal.
                let same = |a: &[T], b: &[T]| assert_eq!(format!("{a:?}"), format!("{b:?}"), "{rows}×{units}");
                for (row, z) in z.chunks_exact(units).enumerate() {
                    let at = row * units..(row + 1) * units;
                    let (expected, expected_shifted, log_sum) = row_alone(z);
                    same(&p[at.clone()], &expected);
                    same(&of_blocks[at.clone()], &expected);
                    same(&shifted[at.clone()], &expected_shifted);
                    same(&[log_sums[row]], &[log_sum]);
                    let expected_logs: Vec<T> = expected_shifted.iter().map(|&z| z - log_sum).collect();
                    same(&logs[at], &expected_logs);
                }
            }
        }
    }

    #[test]
    fn rows_side_by_side_have_the_bits_of_a_row_alone() {
        check::<f32>();
        check::<f64>();
    }
}
