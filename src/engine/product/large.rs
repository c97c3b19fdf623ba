//! Products of the largest layers: shared out among threads, in the blocks and tiles of [`blocked`](super::blocked).

use ndarray::{ArrayViewMut2, Axis};

use super::blocked::{Operand, Product};
use super::cuts;
use crate::engine::element::Element;
use crate::engine::team::Workers;

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

/// A row-major matrix with so many columns.
pub fn matrix<T>(values: &[T], columns: usize) -> Operand<'_, T> {
    Operand { values, stride: columns, is_transposed: false }
}

/// The transposed of a matrix with so many columns.
pub fn transposed<T>(values: &[T], columns: usize) -> Operand<'_, T> {
    Operand { values, stride: columns, is_transposed: true }
}
