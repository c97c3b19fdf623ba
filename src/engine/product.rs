//! Products of matrices: the only place that has faer multiply.
//!
//! Matrices are row-major. A caller of Predict may ask for one row or for a thousand, and each row must come back with the
//! same bits. faer chooses among several kernels by the size of the product, the number of rows included, so:
//!
//! - Layers of up to `SMALL_WEIGHTS_MAX` weights, and those with one input or one unit, go through kernels of ours that
//!   treat each row alone. They are also quicker than faer there.
//! - Layers of `LARGE_WEIGHTS_MIN` weights and more go through blocks and tiles of ours (`product/blocked.rs`), a tenth quicker than faer there,
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
use super::team::Workers;
use large::{Sharing, Target, matrix, transposed};

pub use tiles::Lanes;

mod blocked;
mod large;
mod small;
mod tiles;

/// Weights of a layer up to which our own kernels do its products.
const SMALL_WEIGHTS_MAX: usize = 256;

/// Weights of a layer from which on our blocks and tiles do its products.
const LARGE_WEIGHTS_MIN: usize = 1 << 19;

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

/// c = x·W + b, with x `[rows, inputs]`, W `[inputs, units]`, b `[units]`, c `[rows, units]` and at least [`rows_min`] rows. The bits of
/// a row of c depend on no other row, nor on their number. `then` goes over each piece of c, whole rows, while it is at hand.
pub fn affine<T: Element>(
    workers: &Workers,
    shape: Shape,
    x: &[T],
    weights: &[T],
    bias: Option<&[T]>,
    c: &mut [T],
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
    if shape.is_large() {
        let operands = (matrix(x, inputs), matrix(weights, units));
        large::product(workers, Sharing::Columns, operands, inputs, product, false);
    } else {
        let (x, weights) = (view(rows, inputs, x), view(inputs, units, weights));
        gemm(workers, FORWARD, faer(&x), faer(&weights), faer_mut(product), Accum::Replace);
    }
    workers.for_each_piece(c, units, |_, piece| {
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
        if shape.is_large() || inputs * units >= GRADIENT_TILES_MIN {
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

/// Weights of a layer from which on our tiles do the product of its gradient.
const GRADIENT_TILES_MIN: usize = 1 << 15;

/// The most rows of [`transposed_product_seen`].
pub const SEEN_ROWS_MAX: usize = blocked::DEPTH;

/// Whether [`transposed_product_seen`] may stand in for [`transposed_product`].
pub fn can_be_seen(shape: Shape) -> bool {
    shape.inputs * shape.units >= GRADIENT_TILES_MIN && !shape.is_small() && (2..=SEEN_ROWS_MAX).contains(&shape.rows)
}

/// aᵀ·b as [`transposed_product`] computes it, of which nothing is kept: `see` is called with runs of it and with the parts of `first`
/// and `others`, each `[inputs, units]`, that lie at the same place.
pub fn transposed_product_seen<T: Element, const N: usize>(
    workers: &Workers,
    shape: Shape,
    a: &[T],
    b: &[T],
    first: &mut [T],
    others: [&mut [T]; N],
    see: impl Fn(&[T], &mut [T], [&mut [T]; N]) + Sync,
) {
    let Shape { rows, inputs, units } = shape;
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
mod tests {
    use ndarray::{Array2, Axis, Slice};

    use super::*;
    use crate::engine::random::{Purpose, Stream};
    use crate::engine::team::Team;

    /// Small and large layers, vectors, sums over more than one of faer's blocks of 512, and the edges between kernels.
    const SHAPES: [(usize, usize); 25] = [
        (1, 1),
        (1, 300),
        (300, 1),
        (2, 8),
        (8, 2),
        (16, 16),
        (16, 17),
        (2, 129),
        (129, 2),
        (257, 2),
        (3, 100),
        (37, 11),
        (64, 10),
        (64, 64),
        (65, 33),
        (784, 30),
        (30, 784),
        (513, 5),
        (1_025, 3),
        (1_300, 70),
        (2, 2_000),
        (100, 101),
        (31, 600),
        (32, 257),
        (600, 1_030),
    ];

    fn random<T: Element>(rows: usize, columns: usize, salt: u64) -> Array2<T> {
        let mut stream = Stream::new(salt, Purpose::Initializer, rows as u64, columns as u64);
        Array2::from_shape_simple_fn((rows, columns), || T::from_f64(stream.uniform() * 2.0 - 1.0))
    }

    fn flat<T>(matrix: &Array2<T>) -> &[T] {
        matrix.as_slice().unwrap()
    }

    fn flat_mut<T>(matrix: &mut Array2<T>) -> &mut [T] {
        matrix.as_slice_mut().unwrap()
    }

    fn naive(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
        Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| (0..a.ncols()).map(|k| a[(i, k)] * b[(k, j)]).sum())
    }

    fn padded_product<T: Element>(a: ArrayView2<'_, T>, b: &Array2<T>) -> Array2<T> {
        let rows = a.nrows();
        let padded = rows.max(rows_min(b.nrows(), b.ncols()));
        // The padding holds what no row may notice.
        let mut wide = Array2::from_elem((padded, a.ncols()), T::from_f64(f64::NAN));
        wide.slice_axis_mut(Axis(0), Slice::from(..rows)).assign(&a);
        let mut c = Array2::from_elem((padded, b.ncols()), T::from_f64(f64::NAN));
        let bias = vec![T::ONE; b.ncols()];
        let shape = Shape { rows: padded, inputs: b.nrows(), units: b.ncols() };
        affine(&Workers::default(), shape, flat(&wide), flat(b), Some(&bias), flat_mut(&mut c), |_| {});
        c.slice_axis(Axis(0), Slice::from(..rows)).to_owned()
    }

    fn check_rows_alone<T: Element>() {
        for (inputs, units) in SHAPES {
            let a = random::<T>(1_024, inputs, 1);
            let b = random::<T>(inputs, units, 2);
            let all = padded_product(a.view(), &b);
            for rows in (1..=70).chain([127, 256, 513]) {
                // From an offset, so that pointers are aligned in another way.
                let first = rows % 7;
                let range = Slice::from(first..first + rows);
                let some = padded_product(a.slice_axis(Axis(0), range), &b);
                assert_eq!(some, all.slice_axis(Axis(0), range), "{rows} rows, {inputs}×{units}");
            }
        }
    }

    #[test]
    fn a_row_alone_has_the_bits_of_the_same_row_in_any_batch() {
        check_rows_alone::<f32>();
        check_rows_alone::<f64>();
    }

    #[test]
    fn no_layer_needs_more_padding_than_buffers_have() {
        for inputs in 1..100 {
            for units in 1..100 {
                let rows = rows_min(inputs, units);
                assert!(rows <= PADDED_ROWS);
                assert!(
                    is_small(inputs, units)
                        || is_large(inputs, units)
                        || rows * inputs * units > FAER_TINY_OPERATIONS_MAX
                );
            }
        }
    }

    #[test]
    fn products_agree_with_the_definition() {
        let alone = Workers::default();
        for (inputs, units) in SHAPES {
            for rows in [1, 2, 5, 33] {
                let (a, b) = (random::<f64>(rows, inputs, 1), random::<f64>(inputs, units, 2));
                let product = naive(&a, &b);
                let close = |x: &Array2<f64>, y: &Array2<f64>| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-11);
                assert!(close(&padded_product(a.view(), &b), &(&product + 1.0)), "{rows} rows, {inputs}×{units}");

                let mut weights = Array2::ones((inputs, units));
                let turned = naive(&a.t().to_owned(), &product);
                let shape = Shape { rows, inputs, units };
                let (x, z) = (flat(&a), flat(&product));
                transposed_product(&alone, Onto::Sum, shape, x, z, flat_mut(&mut weights));
                assert!(close(&weights, &(&turned + 1.0)), "{rows} rows, {inputs}×{units}");
                transposed_product(&alone, Onto::Nothing, shape, x, z, flat_mut(&mut weights));
                assert!(close(&weights, &turned), "{rows} rows, {inputs}×{units}");

                let mut back = Array2::ones((rows, inputs));
                product_with_transposed(&alone, shape, z, flat(&b), flat_mut(&mut back));
                let expected = naive(&product, &b.t().to_owned());
                assert!(close(&back, &expected), "{rows} rows, {inputs}×{units}");
            }
        }
    }
    /// Parts of rows and of columns, with sums over more than one of faer's blocks, and what is left over at the ends.
    fn check_team<T: Element>() {
        let team = Workers::of(Team::new(3, || {}).unwrap());
        for (rows, inputs, units) in
            [(64, 784, 128), (33, 1_300, 401), (130, 700, 130), (2, 2_000, 2_100), (257, 520, 65), (257, 800, 700)]
        {
            let (a, b) = (random::<T>(rows, inputs, 1), random::<T>(inputs, units, 2));
            let by = |workers: &Workers| {
                let mut c = Array2::from_elem((rows, units), T::ZERO);
                let shape = Shape { rows, inputs, units };
                affine(workers, shape, flat(&a), flat(&b), None, flat_mut(&mut c), |_| {});
                let mut weights = Array2::from_elem((inputs, units), T::ONE);
                transposed_product(workers, Onto::Sum, shape, flat(&a), flat(&c), flat_mut(&mut weights));
                let mut back = Array2::from_elem((rows, inputs), T::ZERO);
                product_with_transposed(workers, shape, flat(&c), flat(&b), flat_mut(&mut back));
                (c, weights, back)
            };
            let (alone, together) = (by(&Workers::default()), by(&team));
            assert!(alone == together, "{rows}×{inputs}×{units}: {:?}", {
                let differ = |x: &Array2<T>, y: &Array2<T>| x.iter().zip(y).filter(|(x, y)| x != y).count();
                [differ(&alone.0, &together.0), differ(&alone.1, &together.1), differ(&alone.2, &together.2)]
            });
        }
    }

    #[test]
    fn a_team_comes_to_the_bits_of_one_thread() {
        check_team::<f32>();
        check_team::<f64>();
    }
}
