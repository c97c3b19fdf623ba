//! Products with the weights of small layers. Columns go in blocks whose width is known when they are compiled, so that their sums
//! stay in vector registers, and rows in groups, so that a weight is read once for several of them.
//!
//! Every sum runs over its terms in order, whatever the block or the group: a row's bits depend on no other row.

use crate::engine::element::Element;

/// Rows of the result that go together.
const GROUP: usize = 4;

/// What runs over blocks of columns.
trait Kernel {
    /// The columns from `first` on, `N` of them.
    fn block<const N: usize>(&mut self, first: usize);
}

/// All columns, block by block.
#[inline(always)]
fn run(columns: usize, kernel: &mut impl Kernel) {
    let mut first = 0;
    while columns - first >= 16 {
        kernel.block::<16>(first);
        first += 16;
    }
    if columns - first >= 8 {
        kernel.block::<8>(first);
        first += 8;
    }
    if columns - first >= 4 {
        kernel.block::<4>(first);
        first += 4;
    }
    match columns - first {
        3 => kernel.block::<3>(first),
        2 => kernel.block::<2>(first),
        1 => kernel.block::<1>(first),
        _ => {}
    }
}

/// `N` numbers of a slice.
#[inline(always)]
fn block_at<T: Element, const N: usize>(slice: &[T], first: usize) -> [T; N] {
    std::array::from_fn(|index| slice[first..first + N][index])
}

#[inline(always)]
fn add_scaled<T: Element, const N: usize>(sums: &mut [T; N], scale: T, by: &[T; N]) {
    for (sum, &by) in sums.iter_mut().zip(by) {
        *sum += scale * by;
    }
}

/// c += a·b, with a `[rows, inputs]`, b `[inputs, units]`, c `[rows, units]`, all of whole rows.
#[inline(always)]
pub fn add_product<T: Element>(inputs: usize, units: usize, a: &[T], b: &[T], c: &mut [T]) {
    run(units, &mut Product { inputs, units, a, b, c });
}

struct Product<'a, T> {
    inputs: usize,
    units: usize,
    a: &'a [T],
    b: &'a [T],
    c: &'a mut [T],
}

impl<T: Element> Product<'_, T> {
    /// The next `R` rows: `a` and `c` begin with them.
    #[inline(always)]
    fn rows<const R: usize, const N: usize>(inputs: usize, units: usize, a: &[T], b: &[T], c: &mut [T], first: usize) {
        let a: [&[T]; R] = std::array::from_fn(|row| &a[row * inputs..][..inputs]);
        let mut sums: [[T; N]; R] = std::array::from_fn(|row| block_at(&c[row * units..][..units], first));
        for (input, weights) in b.chunks_exact(units).enumerate() {
            let weights = block_at::<T, N>(weights, first);
            for (sums, a) in sums.iter_mut().zip(&a) {
                add_scaled(sums, a[input], &weights);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            c[row * units + first..][..N].copy_from_slice(sums);
        }
    }
}

impl<T: Element> Kernel for Product<'_, T> {
    #[inline(always)]
    fn block<const N: usize>(&mut self, first: usize) {
        let Self { inputs, units, a, b, c } = self;
        let (inputs, units) = (*inputs, *units);
        let grouped = a.chunks_exact(GROUP * inputs);
        let mut results = c.chunks_exact_mut(GROUP * units);
        let rest = grouped.remainder();
        for (a, c) in grouped.zip(&mut results) {
            Self::rows::<GROUP, N>(inputs, units, a, b, c, first);
        }
        for (a, c) in rest.chunks_exact(inputs).zip(results.into_remainder().chunks_exact_mut(units)) {
            Self::rows::<1, N>(inputs, units, a, b, c, first);
        }
    }
}

/// c = aᵀ·b, or c += aᵀ·b, with a `[rows, inputs]`, b `[rows, units]`, c `[inputs, units]`.
#[inline(always)]
pub fn transposed_product<T: Element>(adds: bool, (inputs, units): (usize, usize), a: &[T], b: &[T], c: &mut [T]) {
    run(units, &mut TransposedProduct { adds, inputs, units, a, b, c });
}

struct TransposedProduct<'a, T> {
    adds: bool,
    inputs: usize,
    units: usize,
    a: &'a [T],
    b: &'a [T],
    c: &'a mut [T],
}

impl<T: Element> TransposedProduct<'_, T> {
    /// The `R` rows of the result from `input` on.
    #[inline(always)]
    fn inputs<const R: usize, const N: usize>(&mut self, input: usize, first: usize) {
        let (units, adds) = (self.units, self.adds);
        let mut sums: [[T; N]; R] = std::array::from_fn(|row| match adds {
            true => block_at(&self.c[(input + row) * units..][..units], first),
            false => [T::ZERO; N],
        });
        for (a, b) in self.a.chunks_exact(self.inputs).zip(self.b.chunks_exact(units)) {
            let a = block_at::<T, R>(a, input);
            let b = block_at::<T, N>(b, first);
            for (sums, &a) in sums.iter_mut().zip(&a) {
                add_scaled(sums, a, &b);
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            self.c[(input + row) * units + first..][..N].copy_from_slice(sums);
        }
    }
}

impl<T: Element> Kernel for TransposedProduct<'_, T> {
    #[inline(always)]
    fn block<const N: usize>(&mut self, first: usize) {
        let mut input = 0;
        while input + GROUP <= self.inputs {
            self.inputs::<GROUP, N>(input, first);
            input += GROUP;
        }
        while input < self.inputs {
            self.inputs::<1, N>(input, first);
            input += 1;
        }
    }
}

/// c = a·bᵀ, with a `[rows, units]`, b `[inputs, units]` of at most `B` numbers, c `[rows, inputs]`.
#[inline(always)]
pub fn product_with_transposed<T: Element, const B: usize>(
    (inputs, units): (usize, usize),
    a: &[T],
    b: &[T],
    c: &mut [T],
) {
    let mut turned = [T::ZERO; B];
    for (input, weights) in b.chunks_exact(units).enumerate() {
        for (unit, &weight) in weights.iter().enumerate() {
            turned[unit * inputs + input] = weight;
        }
    }
    c.fill(T::ZERO);
    add_product(units, inputs, a, &turned[..units * inputs], c);
}

/// to += scale · from
#[inline(always)]
pub fn add_scaled_row<T: Element>(to: &mut [T], scale: T, from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += scale * from);
}

/// Σ aᵢ·bᵢ in running sums, which the compiler keeps in vector registers; the order is fixed by the length alone.
#[inline(always)]
pub fn dot<T: Element>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 32;
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b.as_chunks::<LANES>();
    let mut sums = [T::ZERO; LANES];
    for (a, b) in a_body.iter().zip(b_body) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let tail = a_tail.iter().zip(b_tail).fold(T::ZERO, |sum, (&a, &b)| sum + a * b);
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0] + tail
}
