//! Products of matrices: the only place that calls faer.
//!
//! Matrices are row-major. A caller of Predict may ask for one row or for a thousand, and each row must come back with the
//! same bits. faer chooses among several kernels by the size of the product, the number of rows included, so:
//!
//! - Layers of up to `SMALL_WEIGHTS_MAX` weights, and those with one input or one unit, go through kernels of ours that
//!   treat each row alone. They are also quicker than faer there.
//! - All others go to faer with at least [`rows_min`] rows, so that it takes its blocked kernel, whose sums run over the
//!   inputs in a fixed order whatever the number of rows. Who has fewer rows pads them; what stands in the padding does not
//!   matter.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{ArrayView2, ArrayViewMut2};

use super::element::Element;

/// Weights of a layer up to which our own kernels do its products.
const SMALL_WEIGHTS_MAX: usize = 256;

/// Up to this many multiply-adds faer takes its kernel for tiny products (its `NANO_GEMM_THRESHOLD`), which sums in another
/// way.
const FAER_TINY_OPERATIONS_MAX: usize = 16 * 16 * 16;

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

/// Rows that [`add_product`] needs with a layer of `inputs × units` weights, at most [`PADDED_ROWS`].
pub fn rows_min(inputs: usize, units: usize) -> usize {
    let weights = inputs * units;
    // faer takes yet other kernels for one row.
    if is_small(inputs, units) { 1 } else { (FAER_TINY_OPERATIONS_MAX / weights + 1).max(2) }
}

fn is_small(inputs: usize, units: usize) -> bool {
    inputs * units <= SMALL_WEIGHTS_MAX || inputs == 1 || units == 1
}

/// c += a·b, with a `[rows, inputs]`, b `[inputs, units]`, c `[rows, units]` and at least [`rows_min`] rows. The bits of a
/// row of c depend on no other row, nor on their number.
pub fn add_product<T: Element>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>, mut c: ArrayViewMut2<'_, T>) {
    let (inputs, units) = b.dim();
    if !is_small(inputs, units) {
        debug_assert!(a.nrows() >= rows_min(inputs, units));
        return T::gemm(view(&a), view(&b), view_mut(&mut c), Accum::Add);
    }
    let (a, b, c) = (flat(&a), flat(&b), flat_mut(&mut c));
    let rows = a.chunks_exact(inputs).zip(c.chunks_exact_mut(units));
    if units == 1 {
        rows.for_each(|(a, c)| c[0] += dot(a, b));
    } else {
        rows.for_each(|(a, c)| a.iter().zip(b.chunks_exact(units)).for_each(|(&x, weights)| add_scaled(c, x, weights)));
    }
}

/// c += aᵀ·b, with a `[rows, inputs]`, b `[rows, units]`, c `[inputs, units]`.
pub fn add_transposed_product<T: Element>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>, mut c: ArrayViewMut2<'_, T>) {
    let (inputs, units) = c.dim();
    if !is_small(inputs, units) && a.nrows() > 1 {
        return T::gemm(view(&a).transpose(), view(&b), view_mut(&mut c), Accum::Add);
    }
    let (a, b, c) = (flat(&a), flat(&b), flat_mut(&mut c));
    let rows = a.chunks_exact(inputs).zip(b.chunks_exact(units));
    if units == 1 {
        rows.for_each(|(a, b)| add_scaled(c, b[0], a));
    } else {
        rows.for_each(|(a, b)| a.iter().zip(c.chunks_exact_mut(units)).for_each(|(&x, c)| add_scaled(c, x, b)));
    }
}

/// c = a·bᵀ, with a `[rows, units]`, b `[inputs, units]`, c `[rows, inputs]`.
pub fn product_with_transposed<T: Element>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>, mut c: ArrayViewMut2<'_, T>) {
    let (inputs, units) = b.dim();
    if !is_small(inputs, units) && a.nrows() > 1 {
        return T::gemm(view(&a), view(&b).transpose(), view_mut(&mut c), Accum::Replace);
    }
    let (a, b, c) = (flat(&a), flat(&b), flat_mut(&mut c));
    for (a, c) in a.chunks_exact(units).zip(c.chunks_exact_mut(inputs)) {
        c.iter_mut().zip(b.chunks_exact(units)).for_each(|(c, b)| *c = dot(a, b));
    }
}

/// to += scale · from
#[inline]
fn add_scaled<T: Element>(to: &mut [T], scale: T, from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += scale * from);
}

/// Σ aᵢ·bᵢ in eight running sums, which the compiler keeps in vector registers; the order is fixed by the length alone.
#[inline]
fn dot<T: Element>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 8;
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [T::ZERO; LANES];
    for (a, b) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail = a_tail.iter().zip(b_tail).fold(T::ZERO, |sum, (&a, &b)| sum + a * b);
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)) + tail
}

fn view<'a, T>(matrix: &'a ArrayView2<'_, T>) -> MatRef<'a, T> {
    MatRef::from_row_major_slice(flat(matrix), matrix.nrows(), matrix.ncols())
}

fn view_mut<'a, T>(matrix: &'a mut ArrayViewMut2<'_, T>) -> MatMut<'a, T> {
    let (rows, columns) = matrix.dim();
    MatMut::from_row_major_slice_mut(flat_mut(matrix), rows, columns)
}

fn flat<'a, T>(matrix: &'a ArrayView2<'_, T>) -> &'a [T] {
    matrix.as_slice().expect("engine matrices are row-major")
}

fn flat_mut<'a, T>(matrix: &'a mut ArrayViewMut2<'_, T>) -> &'a mut [T] {
    matrix.as_slice_mut().expect("engine matrices are row-major")
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis, Slice};

    use super::*;
    use crate::engine::random::{Purpose, Stream};

    /// Small and large layers, vectors, sums over more than one of faer's blocks of 512, and the edges between kernels.
    const SHAPES: [(usize, usize); 22] = [
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
    ];

    fn random<T: Element>(rows: usize, columns: usize, salt: u64) -> Array2<T> {
        let mut stream = Stream::new(salt, Purpose::Initializer, rows as u64, columns as u64);
        Array2::from_shape_simple_fn((rows, columns), || T::from_f64(stream.uniform() * 2.0 - 1.0))
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
        let mut c = Array2::from_elem((padded, b.ncols()), T::ONE);
        add_product(wide.view(), b.view(), c.view_mut());
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
                assert!(is_small(inputs, units) || rows * inputs * units > FAER_TINY_OPERATIONS_MAX);
            }
        }
    }

    #[test]
    fn products_agree_with_the_definition() {
        for (inputs, units) in SHAPES {
            for rows in [1, 2, 5, 33] {
                let (a, b) = (random::<f64>(rows, inputs, 1), random::<f64>(inputs, units, 2));
                let product = naive(&a, &b);
                let close = |x: &Array2<f64>, y: &Array2<f64>| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-11);
                assert!(close(&padded_product(a.view(), &b), &(&product + 1.0)), "{rows} rows, {inputs}×{units}");

                let mut weights = Array2::ones((inputs, units));
                add_transposed_product(a.view(), product.view(), weights.view_mut());
                let expected = naive(&a.t().to_owned(), &product) + 1.0;
                assert!(close(&weights, &expected), "{rows} rows, {inputs}×{units}");

                let mut back = Array2::ones((rows, inputs));
                product_with_transposed(product.view(), b.view(), back.view_mut());
                let expected = naive(&product, &b.t().to_owned());
                assert!(close(&back, &expected), "{rows} rows, {inputs}×{units}");
            }
        }
    }
}
