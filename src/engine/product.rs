//! Products of matrices.
//!
//! Matrices are row-major. A caller of Predict may ask for one row or for a thousand, and each row must come back with the
//! same bits; nor may they depend on the number of threads. Both kinds of products here give every element of the result one sequence of
//! operations, which follows from its row, its column and the layer's shape alone:
//!
//! - Layers of up to `SMALL_WEIGHTS_MAX` weights, and those with one input or one unit, go through loops ([`small`]) that the compiler
//!   makes vectors of.
//! - All others go in blocks and tiles ([`blocked`]).

use ndarray::{ArrayViewMut2, Axis};

use super::element::Element;
use super::simd::vectorized;
use super::team::Workers;
use blocked::{Operand, Product};

pub use tiles::Lanes;

mod blocked;
mod small;
mod tiles;

/// Weights of a layer up to which plain loops do its products.
const SMALL_WEIGHTS_MAX: usize = 256;

/// Multiply-adds of a part: tens of microseconds, which are worth another thread.
const PART_OPERATIONS_MIN: usize = 1 << 21;
/// Parts of a product: more than threads, so that one that is held up holds up little.
const PARTS: usize = 4;
/// Columns and rows of a part: of whole tiles.
const COLUMNS_MIN: usize = 64;
const ROWS_MIN: usize = 16;

/// Columns of a part up to which rows are shared instead, where that is wanted.
const SHARED_COLUMNS_MAX: usize = 512;

/// How threads share a product's result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// By columns: each thread copies what it needs of b, and no other does.
    Columns,
    /// By rows, which are runs of numbers to the optimizer after it, unless b would be copied too often.
    Rows,
}

impl Sharing {
    fn is_by_rows(self, rows: usize, columns: usize, parts: usize) -> bool {
        let is_low = rows < columns || rows < parts * ROWS_MIN;
        columns < 2 * COLUMNS_MIN || (self == Self::Rows && !is_low && columns < parts * SHARED_COLUMNS_MAX)
    }
}

/// c = a·b, or c += a·b, with sums of `depth` terms, by as many threads as there are.
fn gemm<T: Element>(
    workers: &Workers,
    sharing: Sharing,
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    depth: usize,
    c: ArrayViewMut2<'_, T>,
    adds: bool,
) {
    let (rows, columns) = c.dim();
    let product = |row: usize, column: usize, c: ArrayViewMut2<'_, T>| {
        T::with_copies(|copies| {
            pulp::Arch::new().dispatch(Product { a, b, row, column, depth, c, adds, copies });
        });
    };
    // An even number, for two threads.
    let parts = (rows * columns * depth / PART_OPERATIONS_MIN).min(PARTS) / 2 * 2;
    if parts < 2 || !workers.are_several() {
        return product(0, 0, c);
    }
    let by_rows = sharing.is_by_rows(rows, columns, parts);
    let (axis, length, unit) = if by_rows { (0, rows, ROWS_MIN) } else { (1, columns, COLUMNS_MIN) };
    let mut rest = Some(c);
    let parts = cuts(length, parts, unit).map_while(move |(first, length)| {
        let (part, after) = rest.take()?.split_at(Axis(axis), length);
        rest = Some(after);
        Some((first, part))
    });
    workers.for_each(parts, |(first, c)| if by_rows { product(first, 0, c) } else { product(0, first, c) });
}

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

/// c = x·W + b, with x `[rows, inputs]`, W `[inputs, units]`, b `[units]`, c `[rows, units]`. The bits of a row
/// of c depend on no other row, nor on their number. `then` goes over each piece of c, whole rows, while it is at hand.
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
    let operands = (matrix(x, inputs), matrix(weights, units));
    gemm(workers, Sharing::Columns, operands, inputs, view_mut(rows, units, c), false);
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
        let operands = (transposed(a, inputs), matrix(b, units));
        return gemm(workers, Sharing::Rows, operands, rows, view_mut(inputs, units, c), onto == Onto::Sum);
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

/// c = a·bᵀ, with a `[rows, units]`, b `[inputs, units]`, c `[rows, inputs]`.
pub fn product_with_transposed<T: Element>(workers: &Workers, shape: Shape, a: &[T], b: &[T], c: &mut [T]) {
    let Shape { rows, inputs, units } = shape;
    if !shape.is_small() && rows > 1 {
        let operands = (matrix(a, units), transposed(b, units));
        return gemm(workers, Sharing::Columns, operands, units, view_mut(rows, inputs, c), false);
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

fn matrix<T>(values: &[T], columns: usize) -> Operand<'_, T> {
    Operand { values, stride: columns, is_transposed: false }
}

/// The transposed of a matrix with so many columns.
fn transposed<T>(values: &[T], columns: usize) -> Operand<'_, T> {
    Operand { values, stride: columns, is_transposed: true }
}

/// The first `rows` rows of a row-major buffer as a matrix.
fn view_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), &mut values[..rows * columns]).expect("a slice of that length")
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ArrayView2, Slice};

    use super::*;
    use crate::engine::random::{Purpose, Stream};
    use crate::engine::team::Team;

    /// Small and large layers, vectors, sums over more than one group of 512 terms, and the edges between kernels.
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

    fn affine_product<T: Element>(a: ArrayView2<'_, T>, b: &Array2<T>) -> Array2<T> {
        let mut c = Array2::from_elem((a.nrows(), b.ncols()), T::from_f64(f64::NAN));
        let bias = vec![T::ONE; b.ncols()];
        let shape = Shape { rows: a.nrows(), inputs: b.nrows(), units: b.ncols() };
        affine(&Workers::default(), shape, a.to_slice().unwrap(), flat(b), Some(&bias), flat_mut(&mut c), |_| {});
        c
    }

    fn check_rows_alone<T: Element>() {
        for (inputs, units) in SHAPES {
            let a = random::<T>(1_024, inputs, 1);
            let b = random::<T>(inputs, units, 2);
            let all = affine_product(a.view(), &b);
            for rows in (1..=70).chain([127, 256, 513]) {
                // From an offset, so that pointers are aligned in another way.
                let first = rows % 7;
                let range = Slice::from(first..first + rows);
                let some = affine_product(a.slice_axis(Axis(0), range), &b);
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
    fn products_agree_with_the_definition() {
        let alone = Workers::default();
        for (inputs, units) in SHAPES {
            for rows in [1, 2, 5, 33] {
                let (a, b) = (random::<f64>(rows, inputs, 1), random::<f64>(inputs, units, 2));
                let product = naive(&a, &b);
                let close = |x: &Array2<f64>, y: &Array2<f64>| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-11);
                assert!(close(&affine_product(a.view(), &b), &(&product + 1.0)), "{rows} rows, {inputs}×{units}");

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
    /// Parts of rows and of columns, with sums over more than one group of terms, and what is left over at the ends.
    fn check_team<T: Element>() {
        let team = Workers::of(Team::new(3, || {}).unwrap());
        for (rows, inputs, units) in
            [(64, 784, 128), (33, 1_300, 401), (130, 700, 130), (2, 2_000, 2_100), (257, 520, 65)]
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
