//! Products shared out among threads, in the blocks and tiles of [`blocked`](super::blocked).

use std::mem;
use std::slice::ChunksExact;

use ndarray::iter::AxisIterMut;
use ndarray::{ArrayViewMut2, Axis, Ix1, s};

use super::blocked::{
    Beside, COLUMN_UNIT, Operand, Product, ROW_UNIT, SeenPart, SeenProduct, Whole, groups, is_one_block, strip_rows,
};
use super::packing::Packing;
use crate::engine::element::Element;
use crate::engine::unchecked::prefetch::prefetch;
use crate::engine::unchecked::team::{PARTS_MAX, Workers};

// Parts of products whose operands are not copied before; and all products' sharing by rows or columns follows from these numbers.

/// Multiply-adds of two parts, or of two threads' shares where those are cut into parts: tens of microseconds each, which are worth another
/// thread.
const TWO_PARTS_MIN: usize = 1 << 22;
/// Multiply-adds of four: more parts than threads, so that one that is held up holds up little, where each is long enough to pay for its
/// copies.
const FOUR_PARTS_MIN: usize = 1 << 28;
/// Multiply-adds of eight: with eight from 2²⁸ on products of half a thousand rows lost more by the narrow parts than they won.
const EIGHT_PARTS_MIN: usize = 1 << 30;
/// Columns and rows of a part: of whole tiles.
const COLUMNS_MIN: usize = 64;
const ROWS_MIN: usize = 16;
/// Where a thread's share of the columns, or of rows, may begin: with a line of the caches, and with a high tile. Shares are then as long as each
/// other; multiples of [`COLUMN_UNIT`] were 480 and 544 of 1,024 columns, and one thread waited for the other.
const SHARE_COLUMNS: usize = 16;
const SHARE_ROWS: usize = 12;
/// Columns of a part up to which rows are shared instead, where that is wanted.
const SHARED_COLUMNS_MAX: usize = 512;

/// Parts of a product of so many multiply-adds, or threads' shares: see [`Parts::new`].
fn parts_of(operations: usize) -> usize {
    match operations {
        0..TWO_PARTS_MIN => 1,
        TWO_PARTS_MIN..FOUR_PARTS_MIN => 2,
        FOUR_PARTS_MIN..EIGHT_PARTS_MIN => 4,
        _ => 8,
    }
}

/// How threads share a product's result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
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

/// Where the parts of a thread begin within its share, in eighths: one that is held up has not begun the last ones, and others take them.
/// This is for parts that find copies of operands, so that a short one costs little.
const SHARES: &[usize] = &[0, 4, 6, 7];
/// The same where each part copies what it needs.
const SHARES_COPYING: &[usize] = &[0, 4, 6];
/// Multiply-adds from which on the share of one of two threads is cut: of fewer, what the other takes is not in its caches, and that costs as
/// much.
const SHARES_MIN: usize = 1 << 24;

/// How a product's result is shared out.
#[derive(Clone, Copy, Debug)]
struct Parts {
    axis: Axis,
    /// Rows or columns of the result.
    length: usize,
    /// Parts are multiples of it, but for the last of a share.
    unit: usize,
    /// Shares begin at multiples of it.
    share_unit: usize,
    cuts: Cuts,
}

#[derive(Clone, Copy, Debug)]
enum Cuts {
    /// So many at most, all as long.
    Equal(usize),
    /// The shares of so many threads, each cut as [`SHARES`] or [`SHARES_COPYING`] say.
    Shares(usize, &'static [usize]),
}

impl Parts {
    fn new<T>(
        workers: &Workers,
        by_rows: bool,
        (rows, columns, depth): (usize, usize, usize),
        count: usize,
        is_packed: bool,
    ) -> Self {
        // With more threads the parts that all of them have would be short, and each copies for itself.
        let is_cut = rows * columns * depth >= SHARES_MIN && workers.threads() <= count;
        // Where b is a single block, a thread copies it once for all of its rows.
        let finds_copies = is_packed || (is_cut && by_rows && is_one_block::<T>(depth, columns));
        let (rows_min, columns_min) = if finds_copies { (ROW_UNIT, COLUMN_UNIT) } else { (ROWS_MIN, COLUMNS_MIN) };
        let (axis, length, unit) = if by_rows { (Axis(0), rows, rows_min) } else { (Axis(1), columns, columns_min) };
        let threads = workers.threads().min(PARTS_MAX / SHARES.len());
        let cuts = if finds_copies {
            Cuts::Shares(threads, SHARES)
        } else if is_cut && count == 2 {
            Cuts::Shares(threads, SHARES_COPYING)
        } else {
            Cuts::Equal(count.min(length / unit).max(1))
        };
        let share_unit = match (by_rows, is_packed) {
            (false, _) => SHARE_COLUMNS,
            (true, true) => strip_rows(),
            (true, false) => SHARE_ROWS,
        };
        Self { axis, length, unit, share_unit, cuts }
    }

    /// Where the share of one of so many threads begins: as near as can be to where equal ones would, since a thread whose share is longer is
    /// waited for.
    fn share(self, thread: usize, threads: usize) -> usize {
        let Self { length, share_unit, .. } = self;
        if thread == threads {
            return length;
        }
        length.min((length * thread / threads + share_unit / 2) / share_unit * share_unit)
    }

    /// Where each begins, and how long it is.
    fn places(self) -> impl Iterator<Item = (usize, usize)> {
        let Self { length, unit, cuts, .. } = self;
        let count = match cuts {
            Cuts::Equal(count) => count,
            Cuts::Shares(threads, shares) => threads * shares.len(),
        };
        let begin = move |part: usize| match cuts {
            Cuts::Equal(count) => length * part / count / unit * unit,
            Cuts::Shares(threads, shares) => {
                let (thread, eighths) = (part / shares.len(), shares[part % shares.len()]);
                let (first, end) = (self.share(thread, threads), self.share(thread + 1, threads));
                first + (end - first) * eighths / 8 / unit * unit
            }
        };
        let end = move |part: usize| if part + 1 == count { length } else { begin(part + 1) };
        (0..count).map(move |part| (begin(part), end(part) - begin(part))).filter(|&(_, length)| length > 0)
    }
}

/// c = a·b, or c += a·b, with sums of `depth` terms, by as many threads as there are.
pub fn product<T: Element>(
    workers: &Workers,
    sharing: Sharing,
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    depth: usize,
    c: ArrayViewMut2<'_, T>,
    adds: bool,
) {
    let (rows, columns) = c.dim();
    let count = parts_of(rows * columns * depth);
    let by_rows = sharing.is_by_rows(rows, columns, count);
    let mut packing = Packing::new(workers, by_rows, (a, b), (rows, columns, depth));
    let packed = packing.as_mut().map(Packing::packed);
    let whole = (count > 1 && workers.are_several()).then(Whole::new);
    let product = |row: usize, column: usize, c: ArrayViewMut2<'_, T>| {
        T::with_copies(|copies| {
            multiply(Product { a, b, row, column, depth, terms: 0..depth, c, adds, copies, whole, packed })
        });
    };
    if whole.is_none() {
        return product(0, 0, c);
    }
    let parts = Parts::new::<T>(workers, by_rows, (rows, columns, depth), count, packed.is_some());
    let mut rest = Some(c);
    let parts = parts.places().map_while(move |(first, length)| {
        let (part, after) = rest.take()?.split_at(parts.axis, length);
        rest = Some(after);
        Some((first, part))
    });
    workers.for_each(parts, |(first, c)| if by_rows { product(first, 0, c) } else { product(0, first, c) });
}

/// In the processor's vectors. Not inlined, as [`multiply_seen`]: callers are many, and each would have all of a product for a processor
/// without any.
#[inline(never)]
fn multiply<T: Element>(product: Product<'_, T>) {
    pulp::Arch::new().dispatch(product);
}

/// See [`multiply`].
#[inline(never)]
fn multiply_seen<T: Element>(product: SeenProduct<'_, '_, T>) {
    pulp::Arch::new().dispatch(product);
}

/// Whether two threads share the terms of x·W rather than its columns. That is so where they share the optimizer's step by rows of W, and
/// W is not larger than their caches together: then each finds most of the weights of its terms where it left them, and what they exchange are
/// sums, not weights.
pub fn shares_terms(rows: usize, depth: usize, columns: usize) -> bool {
    let steps_by_rows = Sharing::Rows.is_by_rows(depth, columns, 2);
    groups(depth).count() == 2 && steps_by_rows && parts_of(rows * columns * depth) == 2
}

/// The most rows, of so many, whose terms are shared.
pub fn sharing_rows(rows: usize, depth: usize, columns: usize) -> usize {
    let most = rows.min((FOUR_PARTS_MIN - 1) / (depth * columns));
    if shares_terms(most, depth, columns) { most } else { 0 }
}

/// a·b, of which the first group of terms goes to c, and the second to `second`; c + `second` is what [`product`] gives.
pub fn product_by_terms<T: Element>(
    workers: &Workers,
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    depth: usize,
    c: ArrayViewMut2<'_, T>,
    second: ArrayViewMut2<'_, T>,
) {
    let parts = groups(depth).map(|(first, count)| first..first + count).zip([c, second]);
    workers.for_each(parts, |(terms, c)| {
        T::with_copies(|copies| {
            multiply(Product {
                a,
                b,
                row: 0,
                column: 0,
                depth,
                terms,
                c,
                adds: false,
                copies,
                whole: None,
                packed: None,
            });
        });
    });
}

/// The most matrices of a [`Target`]: parameters, and what an optimizer remembers of each.
const TARGETS_MAX: usize = 4;

/// What lies where a product's result would, each of the result's shape.
pub struct Target<'a, T, const N: usize> {
    pub first: ArrayViewMut2<'a, T>,
    pub others: [ArrayViewMut2<'a, T>; N],
}

impl<'a, T, const N: usize> Target<'a, T, N> {
    /// Calls `see` with a part of the product, `[rows, width]`, and what lies there.
    fn see_part(&mut self, part: &SeenPart<'_, T>, see: &(dyn Fn(Runs<'_, T, N>) + Sync)) {
        let &SeenPart { place: (row, column), numbers: part, width } = part;
        let (rows, stride) = (part.len() / width, self.first.strides()[0].unsigned_abs());
        let area = s![row..row + rows, column..column + width];
        let mut views = (self.first.slice_mut(area), self.others.each_mut().map(|all| all.slice_mut(area)));
        let mut length = width;
        if width == stride {
            // One run of numbers.
            length = part.len();
            let one_row = |view| reshaped(view, length);
            views = (one_row(views.0), views.1.map(one_row));
        }
        let (first, others) = &mut views;
        let others = others.each_mut().map(|all| all.axis_iter_mut(Axis(0)));
        see(Runs { part: part.chunks_exact(length), first: first.axis_iter_mut(Axis(0)), others, stride });
    }

    /// Those of the first numbers; as many as there are matrices count.
    fn addresses(&self) -> [usize; TARGETS_MAX] {
        const { assert!(N < TARGETS_MAX) };
        let mut addresses = [self.first.as_ptr().addr(); TARGETS_MAX];
        addresses[1..].iter_mut().zip(&self.others).for_each(|(to, other)| *to = other.as_ptr().addr());
        addresses
    }

    /// The first rows or columns, which are taken off.
    fn cut(&mut self, axis: Axis, length: usize) -> Self {
        let cut = |all: &mut ArrayViewMut2<'a, T>| {
            let (part, after) = mem::replace(all, empty()).split_at(axis, length);
            *all = after;
            part
        };
        Self { first: cut(&mut self.first), others: self.others.each_mut().map(cut) }
    }
}

/// Runs of a product's numbers, one row below the other, and of what lies at the same places.
pub struct Runs<'a, T, const N: usize> {
    part: ChunksExact<'a, T>,
    first: AxisIterMut<'a, T, Ix1>,
    others: [AxisIterMut<'a, T, Ix1>; N],
    /// From one row to the next.
    stride: usize,
}

impl<'a, T, const N: usize> Iterator for Runs<'a, T, N> {
    type Item = (&'a [T], &'a mut [T], [&'a mut [T]; N]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        let part = self.part.next()?;
        let run = |rows: &mut AxisIterMut<'a, T, Ix1>| {
            let run = rows.next().and_then(|row| row.into_slice()).unwrap_or_default();
            if run.len() < self.stride {
                // The next one lies in another page of memory, so the processor does not foresee it.
                prefetch(run, self.stride, run.len());
            }
            run
        };
        Some((part, run(&mut self.first), self.others.each_mut().map(run)))
    }
}

/// Calls `see` with runs of a·b and what of the target lies there; by as many threads as there are.
pub fn seen_product<T: Element, const N: usize>(
    workers: &Workers,
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    depth: usize,
    target: Target<'_, T, N>,
    see: &(dyn Fn(Runs<'_, T, N>) + Sync),
) {
    let (rows, columns) = target.first.dim();
    let count = parts_of(rows * columns * depth);
    let by_rows = Sharing::Rows.is_by_rows(rows, columns, count);
    let mut packing = Packing::new(workers, by_rows, (a, b), (rows, columns, depth));
    let packed = packing.as_mut().map(Packing::packed);
    let whole = (count > 1 && workers.are_several()).then(Whole::new);
    let product = |row: usize, column: usize, mut target: Target<'_, T, N>| {
        let shape = target.first.dim();
        let addresses = target.addresses();
        let stride = target.first.strides()[0].unsigned_abs() * size_of::<T>();
        let beside = Beside { addresses: &addresses[..=N], stride, offset: 0 };
        let mut see = |part: SeenPart<'_, T>| target.see_part(&part, see);
        T::with_copies(|copies| {
            multiply_seen(SeenProduct {
                a,
                b,
                row,
                column,
                shape,
                depth,
                see: &mut see,
                copies,
                whole,
                packed,
                beside,
            });
        });
    };
    if whole.is_none() {
        return product(0, 0, target);
    }
    let parts = Parts::new::<T>(workers, by_rows, (rows, columns, depth), count, packed.is_some());
    let mut rest = target;
    let parts = parts.places().map(move |(first, length)| (first, rest.cut(parts.axis, length)));
    workers.for_each(parts, |(first, c)| if by_rows { product(first, 0, c) } else { product(0, first, c) });
}

/// A matrix whose rows are one run of numbers, as one row.
#[expect(clippy::expect_used, reason = "asked for where rows are as wide as they are apart")]
fn reshaped<T>(matrix: ArrayViewMut2<'_, T>, length: usize) -> ArrayViewMut2<'_, T> {
    matrix.into_shape_with_order((1, length)).expect("one run of numbers")
}

/// A matrix of no rows.
#[expect(clippy::expect_used, reason = "nothing has the shape 0 × 0")]
fn empty<'a, T>() -> ArrayViewMut2<'a, T> {
    ArrayViewMut2::from_shape((0, 0), &mut []).expect("no numbers for no places")
}

/// A row-major matrix with so many columns.
pub fn matrix<T>(values: &[T], columns: usize) -> Operand<'_, T> {
    Operand { values, stride: columns, is_transposed: false }
}

/// The transposed of a matrix with so many columns.
pub fn transposed<T>(values: &[T], columns: usize) -> Operand<'_, T> {
    Operand { values, stride: columns, is_transposed: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_of_the_result_once_and_shared_out_evenly() {
        for length in [24, 25, 30, 47, 48, 480, 784, 1_000, 1_024, 2_048, 5_000] {
            for (unit, share_unit) in [(16, 16), (24, 8), (24, 6), (24, 12), (48, 16), (64, 16)] {
                let equal = [1, 2, 8].map(Cuts::Equal).into_iter();
                let shares = [SHARES, SHARES_COPYING].into_iter();
                let shares = shares.flat_map(|shares| [1, 2, 3, 8].map(|threads| Cuts::Shares(threads, shares)));
                for cuts in equal.chain(shares) {
                    let parts = Parts { axis: Axis(0), length, unit, share_unit, cuts };
                    let mut next = 0;
                    for (first, part) in parts.places() {
                        // Each begins where a tile does.
                        assert!(first == next && part > 0 && first % share_unit == 0, "{length} {parts:?}");
                        next += part;
                    }
                    assert_eq!(next, length);
                    assert!(parts.places().count() <= PARTS_MAX);
                }
            }
        }
    }

    #[test]
    fn of_two_threads_none_has_more_than_a_tile_more_than_the_other() {
        let threads = 2;
        for (length, share_unit) in [(1_024, 16), (1_000, 16), (784, 12), (512, 8), (1_024, 6)] {
            let cuts = Cuts::Shares(threads, SHARES);
            let parts = Parts { axis: Axis(0), length, unit: 24, share_unit, cuts };
            let shares = (0..threads).map(|thread| parts.share(thread + 1, threads) - parts.share(thread, threads));
            let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
            assert!(most - least <= share_unit, "{length} {share_unit}: {least} to {most}");
        }
        // Parts of the first thread, and of the second.
        let parts = Parts { axis: Axis(1), length: 1_024, unit: 48, share_unit: 16, cuts: Cuts::Shares(2, SHARES) };
        let widths = parts.places().map(|(_, length)| length);
        assert!(widths.eq([240, 144, 48, 80, 240, 144, 48, 80]));
        let parts = Parts { axis: Axis(1), length: 1_024, unit: 64, share_unit: 16, cuts: Cuts::Shares(2, SHARES) };
        assert!(parts.places().map(|(_, length)| length).eq([256, 128, 64, 64, 256, 128, 64, 64]));
    }
}
