//! Products of matrices: the only place that has faer multiply.
//!
//! Matrices are row-major. A caller of Predict may ask for one row or for a thousand, and each row must come back with the
//! same bits. faer chooses among several kernels by the size of the product, the number of rows included, so:
//!
//! - Layers of up to `SMALL_WEIGHTS_MAX` weights, and those with one input or one unit, go through kernels of ours that
//!   treat each row alone. They are also quicker than faer there.
//! - Layers of `LARGE_WEIGHTS_MIN` weights and more go through blocks and tiles of ours (`product/blocked.rs`), up to a tenth quicker than faer there,
//!   which give every element one sequence of operations.
//! - All others go to faer, which is quicker there, with at least [`rows_min`] rows, so that it takes its blocked kernel, whose sums run over the
//!   inputs in a fixed order whatever the number of rows. Who has fewer rows pads them; what stands in the padding does not
//!   matter. That is so for its kernels for AVX2 and AVX-512; elsewhere a row alone may have other bits than in a batch there.

use faer::linalg::matmul::matmul;
use faer::reborrow::ReborrowMut;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{ArrayView2, ArrayViewMut2};

use super::element::Element;
use super::simd::vectorized;
use super::unchecked::team::Workers;
use large::{Sharing, Target, matrix, transposed};

pub use large::Runs;

pub use tiles::Lanes;

mod blocked;
mod large;
mod packing;
mod small;
mod tiles;

/// Weights of a layer up to which our own kernels do its products.
const SMALL_WEIGHTS_MAX: usize = 256;

/// Weights of a layer from which on our blocks and tiles do its products.
const LARGE_WEIGHTS_MIN: usize = 1 << 16;

/// Up to this many multiply-adds faer takes its kernel for tiny products (its `NANO_GEMM_THRESHOLD`), which sums in another
/// way.
const FAER_TINY_OPERATIONS_MAX: usize = 16 * 16 * 16;

/// Multiply-adds of a part: tens of microseconds, which are worth another thread.
const PART_OPERATIONS_MIN: usize = 1 << 21;
/// Parts of a product: more than threads, so that one that is held up holds up little.
const PARTS: usize = 4;
/// Columns and rows of a part: those of faer's kernels.
const COLUMNS_MIN: usize = 64;
const ROWS_MIN: usize = 16;
/// Terms of a sum from which on columns go in blocks: two rows, and a block of half the width, are more than
/// [`FAER_TINY_OPERATIONS_MAX`].
const DEPTH_MIN: usize = 32;

/// Rows to which every buffer of a forward pass is padded: the most that [`rows_min`] asks for.
pub const PADDED_ROWS: usize = FAER_TINY_OPERATIONS_MAX / (SMALL_WEIGHTS_MAX + 1) + 1;

/// Matrix products in the type; implemented for `f32` and `f64` alone.
pub trait Gemm: Sized {
    /// c = a·b, or c += a·b.
    fn gemm(a: MatRef<'_, Self>, b: MatRef<'_, Self>, c: MatMut<'_, Self>, accum: Accum);
}

macro_rules! impl_gemm {
    ($t:ty) => {
        impl Gemm for $t {
            fn gemm(a: MatRef<'_, Self>, b: MatRef<'_, Self>, c: MatMut<'_, Self>, accum: Accum) {
                // One thread: faer's parallel mode allocates on every call.
                matmul(c, accum, a, b, 1.0, Par::Seq);
            }
        }
    };
}
impl_gemm!(f32);
impl_gemm!(f64);

/// How a large product is done: it decides the bits, and so follows from the product's kind alone.
#[derive(Clone, Copy)]
struct Blocking {
    /// Columns of c that go at once.
    columns: usize,
    /// Columns of a that go at once; their products are added up in order.
    depth: usize,
    /// Whether threads share c by rows, not by columns.
    by_rows: bool,
}

/// Of x·W and δ·Wᵀ. With 256 columns faer does 1.3 times what it does with 1,024 (docs/performance.md).
const FORWARD: Blocking = Blocking { columns: 256, depth: usize::MAX, by_rows: false };
/// Of xᵀ·δ. With 128 of a batch's 512 rows at a time faer does 1.8 times what it does with all. A thread has whole rows of the gradient,
/// which are a run of numbers to the optimizer after it.
const GRADIENT: Blocking = Blocking { columns: 512, depth: 128, by_rows: true };

impl Blocking {
    /// c = a·b, or c += a·b, on this thread.
    fn product<T: Element>(self, a: MatRef<'_, T>, b: MatRef<'_, T>, mut c: MatMut<'_, T>, accum: Accum) {
        let (columns, depth) = (c.ncols(), a.ncols());
        // Blocks of short sums would be so small that faer takes its kernel for tiny products.
        let blocks = if depth < DEPTH_MIN { 1 } else { columns.div_ceil(self.columns) };
        for (column, width) in cuts(columns, blocks, COLUMNS_MIN) {
            for (first, length) in cuts(depth, depth.div_ceil(self.depth), 1) {
                let accum = if first == 0 { accum } else { Accum::Add };
                let c = c.rb_mut().subcols_mut(column, width);
                T::gemm(a.subcols(first, length), b.submatrix(first, column, length, width), c, accum);
            }
        }
    }
}

/// c = a·b, or c += a·b, by as many threads as there are. Each element of a part has the bits that it has in one piece (a test); a part
/// of a single row would not, since faer has a kernel of its own for it.
fn gemm<T: Element>(
    workers: &Workers,
    blocking: Blocking,
    a: MatRef<'_, T>,
    b: MatRef<'_, T>,
    c: MatMut<'_, T>,
    accum: Accum,
) {
    let (rows, columns) = (c.nrows(), c.ncols());
    // An even number, for two threads.
    let parts = (rows * columns * a.ncols() / PART_OPERATIONS_MIN).min(PARTS) / 2 * 2;
    if parts < 2 || !workers.are_several() {
        return blocking.product(a, b, c, accum);
    }
    let mut rest = Some(c);
    if columns < 2 * COLUMNS_MIN || (blocking.by_rows && rows >= parts * ROWS_MIN) {
        let parts = cuts(rows, parts, ROWS_MIN).map_while(move |(first, height)| {
            let (part, after) = rest.take()?.split_at_row_mut(height);
            rest = Some(after);
            Some((a.subrows(first, height), part))
        });
        workers.for_each(parts, |(a, c)| blocking.product(a, b, c, accum));
    } else {
        let parts = cuts(columns, parts, COLUMNS_MIN).map_while(move |(first, width)| {
            let (part, after) = rest.take()?.split_at_col_mut(width);
            rest = Some(after);
            Some((b.subcols(first, width), part))
        });
        workers.for_each(parts, |(b, c)| blocking.product(a, b, c, accum));
    }
}

/// Where each of at most `parts` parts of a length begins, and how long it is: a multiple of `unit`, but for the last.
fn cuts(length: usize, parts: usize, unit: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = parts.min(length / unit).max(1);
    let begin = move |index: usize| if index == count { length } else { length * index / count / unit * unit };
    (0..count).map(move |index| (begin(index), begin(index + 1) - begin(index)))
}

/// Rows that [`affine`] needs with a layer of `inputs × units` weights, at most [`PADDED_ROWS`].
pub fn rows_min(inputs: usize, units: usize) -> usize {
    let weights = inputs * units;
    // faer takes yet other kernels for one row.
    if is_small(inputs, units) || is_large(inputs, units) { 1 } else { (FAER_TINY_OPERATIONS_MAX / weights + 1).max(2) }
}

fn is_small(inputs: usize, units: usize) -> bool {
    inputs * units <= SMALL_WEIGHTS_MAX || inputs == 1 || units == 1
}

fn is_large(inputs: usize, units: usize) -> bool {
    inputs * units >= LARGE_WEIGHTS_MIN && inputs > 1 && units > 1
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

    fn is_large(self) -> bool {
        is_large(self.inputs, self.units)
    }
}

/// How the columns of x are shared out between two threads, where W's rows are: where the second's begin. So it is good to have
/// each thread write its own.
pub fn shared_inputs(shape: Shape) -> Option<usize> {
    let Shape { rows, inputs, units } = shape;
    let are_shared = shape.is_large() && large::shares_terms(rows, inputs, units);
    are_shared.then(|| blocked::groups(inputs).nth(1)).flatten().map(|(first, _)| first)
}

/// Numbers of the room that [`affine`] asks for with several threads, for so many rows or fewer.
pub fn room_len(shape: Shape) -> usize {
    let Shape { rows, inputs, units } = shape;
    if shape.is_large() { large::sharing_rows(rows, inputs, units) * units } else { 0 }
}

/// c = x·W + b, with x `[rows, inputs]`, W `[inputs, units]`, b `[units]`, c `[rows, units]` and at least [`rows_min`] rows. The bits of
/// a row of c depend on no other row, nor on their number. `then` goes over each piece of c, whole rows, while it is at hand. `room` has
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
    then: impl Fn(&mut [T]) + Sync,
) {
    let Shape { rows, inputs, units } = shape;
    let c = &mut c[..rows * units];
    if shape.is_small() {
        match bias {
            Some(bias) => c.chunks_exact_mut(units).for_each(|row| row.copy_from_slice(bias)),
            None => c.fill(T::ZERO),
        }
        let x = &x[..rows * inputs];
        vectorized!(match units {
            1 => x.chunks_exact(inputs).zip(&mut *c).for_each(|(x, c)| *c += small::dot(x, weights)),
            _ => small::add_product(inputs, units, x, weights, c),
        });
        return workers.for_each_piece(c, units, |_, piece| then(piece));
    }
    debug_assert!(rows >= rows_min(inputs, units));
    let product = view_mut(rows, units, c);
    let operands = (matrix(x, inputs), matrix(weights, units));
    let mut second: &[T] = &[];
    if workers.are_several() && room.len() >= rows * units && shared_inputs(shape).is_some() {
        large::product_by_terms(workers, operands, inputs, product, view_mut(rows, units, room));
        second = room;
    } else if shape.is_large() {
        large::product(workers, Sharing::Columns, operands, inputs, product, false);
    } else {
        let (x, weights) = (view(rows, inputs, x), view(inputs, units, weights));
        gemm(workers, FORWARD, faer(&x), faer(&weights), faer_mut(product), Accum::Replace);
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
        if shape.is_large() {
            let (operands, c) = ((transposed(a, inputs), matrix(b, units)), view_mut(inputs, units, c));
            return large::product(workers, Sharing::Rows, operands, rows, c, onto == Onto::Sum);
        }
        let accum = if onto == Onto::Sum { Accum::Add } else { Accum::Replace };
        let (a, b) = (view(rows, inputs, a), view(rows, units, b));
        return gemm(workers, GRADIENT, faer(&a).transpose(), faer(&b), faer_mut(view_mut(inputs, units, c)), accum);
    }
    let (a, b) = (&a[..rows * inputs], &b[..rows * units]);
    vectorized!({
        if units == 1 {
            if onto == Onto::Nothing {
                c.fill(T::ZERO);
            }
            a.chunks_exact(inputs).zip(b).for_each(|(a, &b)| small::add_scaled_row(c, b, a));
        } else {
            small::transposed_product(onto == Onto::Sum, (inputs, units), a, b, c);
        }
    });
}

/// The most rows of [`transposed_product_seen`]: those whose products are summed up in one group.
pub const SEEN_ROWS_MAX: usize = blocked::DEPTH;

/// Whether [`transposed_product_seen`] may stand in for [`transposed_product`] with 2 to [`SEEN_ROWS_MAX`] rows.
pub fn can_be_seen(inputs: usize, units: usize) -> bool {
    is_large(inputs, units)
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
    see: impl Fn(Runs<'_, T, N>) + Sync,
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
        let c = view_mut(rows, inputs, c);
        if shape.is_large() {
            let operands = (matrix(a, units), transposed(b, units));
            return large::product(workers, Sharing::Columns, operands, units, c, false);
        }
        let (a, b) = (view(rows, units, a), view(inputs, units, b));
        return gemm(workers, FORWARD, faer(&a), faer(&b).transpose(), faer_mut(c), Accum::Replace);
    }
    let (a, c) = (&a[..rows * units], &mut c[..rows * inputs]);
    vectorized!({
        if units > 1 && inputs * units <= SMALL_WEIGHTS_MAX {
            return small::product_with_transposed::<T, SMALL_WEIGHTS_MAX>((inputs, units), a, b, c);
        }
        let rows = a.chunks_exact(units).zip(c.chunks_exact_mut(inputs));
        if units == 1 {
            rows.for_each(|(a, c)| c.iter_mut().zip(b).for_each(|(c, &b)| *c = a[0] * b));
        } else {
            rows.for_each(|(a, c)| c.iter_mut().zip(b.chunks_exact(units)).for_each(|(c, b)| *c = small::dot(a, b)));
        }
    });
}

/// The first `rows` rows of a row-major buffer as a matrix.
fn view<T>(rows: usize, columns: usize, values: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), &values[..rows * columns]).expect("a slice of that length")
}

/// See [`view`].
fn view_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), &mut values[..rows * columns]).expect("a slice of that length")
}

fn faer<'a, T>(matrix: &ArrayView2<'a, T>) -> MatRef<'a, T> {
    let (rows, columns) = matrix.dim();
    MatRef::from_row_major_slice(matrix.to_slice().expect("engine matrices are row-major"), rows, columns)
}

fn faer_mut<T>(matrix: ArrayViewMut2<'_, T>) -> MatMut<'_, T> {
    let (rows, columns) = matrix.dim();
    MatMut::from_row_major_slice_mut(matrix.into_slice().expect("engine matrices are row-major"), rows, columns)
}

#[cfg(test)]
mod tests;
