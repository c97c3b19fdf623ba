//! Products of the largest layers: shared out among threads, in the blocks and tiles of [`blocked`](super::blocked).

use std::mem;

use ndarray::{ArrayViewMut2, Axis};

use super::blocked::{Operand, Product, SeenProduct};
use super::cuts;
use crate::engine::element::Element;
use crate::engine::team::Workers;

/// Multiply-adds of two parts: tens of microseconds each, which are worth another thread.
const TWO_PARTS_MIN: usize = 1 << 22;
/// Multiply-adds of four: more parts than threads, so that one that is held up holds up little, where each is long enough to pay for its
/// copies.
const FOUR_PARTS_MIN: usize = 1 << 28;
/// Multiply-adds of eight: with eight from 2²⁸ on products of half a thousand rows lost more by the narrow parts than they won.
const EIGHT_PARTS_MIN: usize = 1 << 30;
/// Columns and rows of a part: of whole tiles.
const COLUMNS_MIN: usize = 64;
const ROWS_MIN: usize = 16;
/// Columns of a part up to which rows are shared instead, where that is wanted.
const SHARED_COLUMNS_MAX: usize = 512;

/// Parts of a product of so many multiply-adds.
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
    let parts = parts_of(rows * columns * depth);
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

/// What lies where a product's result would, each of the result's shape.
pub struct Target<'a, T, const N: usize> {
    pub first: ArrayViewMut2<'a, T>,
    pub others: [ArrayViewMut2<'a, T>; N],
}

impl<'a, T, const N: usize> Target<'a, T, N> {
    /// What lies at a part of the product: some whole rows, or a piece of one.
    fn part(&mut self, row: usize, column: usize, length: usize) -> (&mut [T], [&mut [T]; N]) {
        (run(&mut self.first, row, column, length), self.others.each_mut().map(|all| run(all, row, column, length)))
    }

    fn is_in_one_run(&self) -> bool {
        self.first.is_standard_layout()
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

/// Calls `see` with runs of a·b and what of the target lies there; by as many threads as there are.
pub fn seen_product<T: Element, const N: usize>(
    workers: &Workers,
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    depth: usize,
    target: Target<'_, T, N>,
    see: impl Fn(&[T], &mut [T], [&mut [T]; N]) + Sync,
) {
    let (rows, columns) = target.first.dim();
    let product = |row: usize, column: usize, mut target: Target<'_, T, N>| {
        let shape = target.first.dim();
        let mut see = |row: usize, column: usize, c: &[T]| {
            // A part of the target that is some columns of it has rows apart.
            let length = if target.is_in_one_run() { c.len() } else { c.len().min(shape.1 - column) };
            for (index, c) in c.chunks(length).enumerate() {
                let (first, others) = target.part(row + index, column, length);
                see(c, first, others);
            }
        };
        T::with_copies(|copies| {
            pulp::Arch::new().dispatch(SeenProduct { a, b, row, column, shape, depth, see: &mut see, copies });
        });
    };
    let parts = parts_of(rows * columns * depth);
    if parts < 2 || !workers.are_several() {
        return product(0, 0, target);
    }
    let by_rows = Sharing::Rows.is_by_rows(rows, columns, parts);
    let (axis, length, unit) = if by_rows { (0, rows, ROWS_MIN) } else { (1, columns, COLUMNS_MIN) };
    let mut rest = target;
    let parts = cuts(length, parts, unit).map(move |(first, length)| (first, rest.cut(Axis(axis), length)));
    workers.for_each(parts, |(first, c)| if by_rows { product(first, 0, c) } else { product(0, first, c) });
}

/// So many numbers of a matrix from a place on: of one row, or of several where they are in one run.
fn run<'a, T>(all: &'a mut ArrayViewMut2<'_, T>, row: usize, column: usize, length: usize) -> &'a mut [T] {
    let columns = all.ncols();
    if all.is_standard_layout() {
        let first = row * columns + column;
        return &mut all.as_slice_mut().unwrap_or_default()[first..first + length];
    }
    &mut all.row_mut(row).into_slice().unwrap_or_default()[column..column + length]
}

/// A matrix of no rows.
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
