//! Products of matrices.
//!
//! Matrices are row-major. A caller of Predict may ask for one row or for a thousand, and each row must come back with the
//! same bits. So every element has one sequence of operations, which follows from its layer's shape alone:
//!
//! - Layers of up to `SMALL_WEIGHTS_MAX` weights, those with one input or one unit, and gradients of a single row go through loops that
//!   treat each row alone (`product/small.rs`). With few weights and several units the processor's widest vectors would be mostly empty:
//!   those are plain code.
//! - All others go through blocks and tiles (`product/blocked.rs`), in as many parts as there is work for threads (`product/large.rs`).

use ndarray::ArrayViewMut2;

use super::element::Element;
use super::simd::vectorized;
use super::unchecked::team::Workers;
use large::{Sharing, Target, matrix, transposed};

pub use large::Runs;

pub use tiles::Lanes;

mod blocked;
mod caches;
mod large;
mod packing;
mod small;
mod tiles;

/// Weights of a layer up to which its products are loops over rows.
const SMALL_WEIGHTS_MAX: usize = 256;

/// Weights of a layer from which on the product of a step is better seen part by part than kept.
const SEEN_WEIGHTS_MIN: usize = 1 << 16;

/// Where each of at most `parts` parts of a length begins, and how long it is: a multiple of `unit`, but for the last.
fn cuts(length: usize, parts: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = parts.min(length / unit).max(1);
    let begin = move |index: usize| if index == count { length } else { length * index / count / unit * unit };
    (0..count).map(move |index| (begin(index), begin(index + 1) - begin(index)))
}

fn is_small(inputs: usize, units: usize) -> bool {
    inputs * units <= SMALL_WEIGHTS_MAX || inputs == 1 || units == 1
}

/// Rows, and the layer that they meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of a batch.
    pub rows: usize,
    /// Rows of W.
    pub inputs: usize,
    /// Columns of W.
    pub units: usize,
}

impl Shape {
    fn is_small(self) -> bool {
        is_small(self.inputs, self.units)
    }
}

/// How the columns of x are shared out between two threads, where W's rows are: where the second's begin. So it is good to have
/// each thread write its own.
pub fn shared_inputs(shape: Shape) -> Option<usize> {
    let Shape { rows, inputs, units } = shape;
    let are_shared = can_be_seen(inputs, units) && large::shares_terms(rows, inputs, units);
    are_shared.then(|| blocked::groups(inputs).nth(1)).flatten().map(|(first, _)| first)
}

/// Numbers of the room that [`affine`] asks for with several threads, for so many rows or fewer.
pub fn room_len(shape: Shape) -> usize {
    let Shape { rows, inputs, units } = shape;
    if can_be_seen(inputs, units) { large::sharing_rows(rows, inputs, units) * units } else { 0 }
}

/// c = x·W + b, with x `[rows, inputs]`, W `[inputs, units]`, b `[units]`, c `[rows, units]`. The bits of a row of c depend on no other
/// row, nor on their number. `then` goes over each piece of c, whole rows, while it is at hand. `room` has
/// at least [`room_len`] numbers, or the threads share the work in a way that takes longer.
#[expect(clippy::too_many_arguments)]
pub fn affine<T: Element>(
    workers: &Workers,
    shape: Shape,
    x: &[T],
    weights: &[T],
    bias: Option<&[T]>,
    c: &mut [T],
    room: &mut [T],
    then: &(dyn Fn(&mut [T]) + Sync),
) {
    let Shape { rows, inputs, units } = shape;
    let c = &mut c[..rows * units];
    if shape.is_small() {
        match bias {
            Some(bias) => c.chunks_exact_mut(units).for_each(|row| row.copy_from_slice(bias)),
            None => c.fill(T::ZERO),
        }
        let x = &x[..rows * inputs];
        if units == 1 {
            vectorized!(x.chunks_exact(inputs).zip(&mut *c).for_each(|(x, c)| *c += small::dot(x, weights)));
        } else {
            small::add_product(inputs, units, x, weights, c);
        }
        return workers.for_each_piece(c, units, |_, piece| then(piece));
    }
    let product = view_mut(rows, units, c);
    let operands = (matrix(x, inputs), matrix(weights, units));
    let mut second: &[T] = &[];
    if workers.are_several() && room.len() >= rows * units && shared_inputs(shape).is_some() {
        large::product_by_terms(workers, operands, inputs, product, view_mut(rows, units, room));
        second = room;
    } else {
        large::product(workers, Sharing::Columns, operands, inputs, product, false);
    }
    workers.for_each_piece(c, units, |first, piece| {
        if let Some(second) = second.get(first..).filter(|second| !second.is_empty()) {
            vectorized!(for (z, &sum) in piece.iter_mut().zip(second) {
                *z += sum;
            });
        }
        if let Some(bias) = bias {
            vectorized!(for row in piece.chunks_exact_mut(units) {
                row.iter_mut().zip(bias).for_each(|(z, &bias)| *z += bias);
            });
        }
        then(piece);
    });
}

/// What becomes of what is in the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// The product takes its place.
    Nothing,
    /// The product is added to it.
    Sum,
}

/// c = aᵀ·b, or c += aᵀ·b, with a `[rows, inputs]`, b `[rows, units]`, c `[inputs, units]`.
pub fn transposed_product<T: Element>(workers: &Workers, onto: Onto, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
    let Shape { rows, inputs, units } = shape;
    if !shape.is_small() && rows > 1 {
        let (operands, c) = ((transposed(a, inputs), matrix(b, units)), view_mut(inputs, units, c));
        return large::product(workers, Sharing::Rows, operands, rows, c, onto == Onto::Sum);
    }
    let (a, b) = (&a[..rows * inputs], &b[..rows * units]);
    if units == 1 {
        if onto == Onto::Nothing {
            c.fill(T::ZERO);
        }
        vectorized!(a.chunks_exact(inputs).zip(b).for_each(|(a, &b)| small::add_scaled_row(c, b, a)));
    } else {
        small::transposed_product(onto == Onto::Sum, (inputs, units), a, b, c);
    }
}

/// The most rows of [`transposed_product_seen`]: those whose products are summed up in one group.
pub const SEEN_ROWS_MAX: usize = blocked::DEPTH;

/// Whether [`transposed_product_seen`] may stand in for [`transposed_product`] with 2 to [`SEEN_ROWS_MAX`] rows.
pub fn can_be_seen(inputs: usize, units: usize) -> bool {
    inputs * units >= SEEN_WEIGHTS_MIN && !is_small(inputs, units)
}

/// aᵀ·b with the bits of [`transposed_product`], of which nothing is kept: `see` is called with parts of it, and with the parts of `first`
/// and `others`, each `[inputs, units]`, that lie at the same places. So the product of a large layer does not go to memory and back.
pub fn transposed_product_seen<T: Element, const N: usize>(
    workers: &Workers,
    shape: Shape,
    a: &[T],
    b: &[T],
    first: &mut [T],
    others: [&mut [T]; N],
    see: &(dyn Fn(Runs<'_, T, N>) + Sync),
) {
    let Shape { rows, inputs, units } = shape;
    debug_assert!(can_be_seen(inputs, units) && (2..=SEEN_ROWS_MAX).contains(&rows));
    let target = Target { first: view_mut(inputs, units, first), others: others.map(|it| view_mut(inputs, units, it)) };
    large::seen_product(workers, (transposed(a, inputs), matrix(b, units)), rows, target, see);
}

/// c = a·bᵀ, with a `[rows, units]`, b `[inputs, units]`, c `[rows, inputs]`.
pub fn product_with_transposed<T: Element>(workers: &Workers, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
    let Shape { rows, inputs, units } = shape;
    if !shape.is_small() && rows > 1 {
        let operands = (matrix(a, units), transposed(b, units));
        return large::product(workers, Sharing::Columns, operands, units, view_mut(rows, inputs, c), false);
    }
    let (a, c) = (&a[..rows * units], &mut c[..rows * inputs]);
    if units > 1 && inputs * units <= SMALL_WEIGHTS_MAX {
        return small::product_with_transposed::<T, SMALL_WEIGHTS_MAX>((inputs, units), a, b, c);
    }
    let rows = a.chunks_exact(units).zip(c.chunks_exact_mut(inputs));
    vectorized!(if units == 1 {
        rows.for_each(|(a, c)| c.iter_mut().zip(b).for_each(|(c, &b)| *c = a[0] * b));
    } else {
        rows.for_each(|(a, c)| c.iter_mut().zip(b.chunks_exact(units)).for_each(|(c, b)| *c = small::dot(a, b)));
    });
}

/// The first `rows` rows of a row-major buffer as a matrix.
#[expect(clippy::expect_used, reason = "the slice is cut to that length")]
fn view_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), &mut values[..rows * columns]).expect("a slice of that length")
}

/// The products in float32, compiled here, for speed: a generic function is compiled where it is called from.
pub mod float32 {
    use super::{Onto, Shape, Workers};

    /// See [`affine`](super::affine); without a bias.
    #[inline(never)]
    pub fn product(workers: &Workers, shape: Shape, x: &[f32], weights: &[f32], c: &mut [f32], room: &mut [f32]) {
        super::affine(workers, shape, x, weights, None, c, room, &|_| {});
    }

    /// See [`transposed_product`](super::transposed_product); it takes the place of `c`.
    #[inline(never)]
    pub fn transposed_product(workers: &Workers, shape: Shape, a: &[f32], b: &[f32], c: &mut [f32]) {
        super::transposed_product(workers, Onto::Nothing, shape, a, b, c);
    }

    /// See [`product_with_transposed`](super::product_with_transposed).
    #[inline(never)]
    pub fn product_with_transposed(workers: &Workers, shape: Shape, a: &[f32], b: &[f32], c: &mut [f32]) {
        super::product_with_transposed(workers, shape, a, b, c);
    }
}

#[cfg(test)]
mod tests;
