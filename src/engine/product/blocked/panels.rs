//! A block of b, copied into panels as wide as a tile.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{array, slice};

use pulp::{Simd, WithSimd};

use super::ahead::Matrix;
use super::{COLUMN_UNIT, Operand, PANEL, RIGHT_MAX, packed, room};
use crate::engine::aligned::Aligned;
use crate::engine::product::tiles::{Columns, Lanes, lanes};
use crate::engine::unchecked::prefetch::prefetch;

/// A product in several parts, told from all other products: all its parts have the same a, b and depth, so what is copied of b for one may
/// serve the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole(u64);

impl Whole {
    /// One that was not there before.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A thread's copy of the block of b that it came to last.
#[derive(Debug)]
pub(super) struct RightCopy<T> {
    numbers: Aligned<T>,
    of: Option<CopiedFrom>,
}

/// What a copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CopiedFrom {
    whole: Whole,
    /// Of the block: its first term, its first column, its width, and the columns of a panel.
    block: [usize; 4],
}

impl<T> RightCopy<T> {
    pub const fn empty() -> Self {
        Self { numbers: Aligned::empty(), of: None }
    }
}

/// A block of b.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, T> {
    pub b: Operand<'a, T>,
    pub term: usize,
    pub terms: usize,
    pub column: usize,
    pub width: usize,
    /// Whether all of it is copied, or only the columns at its end that fill no panel.
    pub is_copied: bool,
    /// Vectors of a panel: 1, [`PANEL`] or, in copies of a whole operand, [`packed::WIDE`].
    pub vectors: usize,
}

impl<'a, T: Lanes> Block<'a, T> {
    /// Numbers of its copy in panels of so many columns.
    pub fn copied(&self, panel: usize) -> usize {
        let first = if self.is_copied { 0 } else { self.width / panel * panel };
        (self.width - first).next_multiple_of(panel) * self.terms
    }

    /// Where it is stored.
    pub fn stored(&self) -> Matrix {
        let Self { b, term, terms, column, width, .. } = *self;
        let (row, column, rows, width) =
            if b.is_transposed { (column, term, width, terms) } else { (term, column, terms, width) };
        Matrix::within(b.values, b.stride, (row, column), (rows, width))
    }

    /// As tiles read it: from copies of all of b, from what the part before left, or copied now.
    #[inline(always)]
    pub fn panels<S: Simd>(
        self,
        simd: S,
        depth: usize,
        packed: Option<&'a [T]>,
        whole: Option<Whole>,
        copy: &'a mut RightCopy<T>,
    ) -> Panels<'a, T> {
        let panel = self.vectors * lanes::<T, S>();
        if let Some(packed) = packed {
            debug_assert!(COLUMN_UNIT.is_multiple_of(panel));
            return Panels { block: self, copies: &packed[self.column * depth + self.term * panel..], depth };
        }
        let block = [self.term, self.column, self.width, panel];
        let from = whole.map(|whole| CopiedFrom { whole, block });
        let RightCopy { numbers, of } = copy;
        if from.is_some() && *of == from {
            // All of it is there, also for a part of so few rows that it would not be copied for them.
            let block = Self { is_copied: true, ..self };
            return Panels { block, copies: room(numbers, block.copied(panel), RIGHT_MAX), depth: self.terms };
        }
        *of = None;
        let panels = simd.vectorize(Copy { from: self, to: room(numbers, self.copied(panel), RIGHT_MAX) });
        *of = from.filter(|_| self.is_copied);
        panels
    }
}

/// A block of b as tiles read it.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, T> {
    pub block: Block<'a, T>,
    pub copies: &'a [T],
    /// Terms of a panel in `copies`.
    pub depth: usize,
}

impl<'a, T: Lanes> Panels<'a, T> {
    /// The columns from `at` on, where a panel of so many begins.
    #[inline(always)]
    pub fn at(self, at: usize, panel: usize) -> Columns<'a, T> {
        let Block { b, term, terms, column, width, is_copied, .. } = self.block;
        let first_copied = if is_copied { 0 } else { width / panel * panel };
        if at < first_copied {
            let values = &b.values[term * b.stride..(term + terms) * b.stride];
            return Columns { values, stride: b.stride, first: column + at };
        }
        let values = &self.copies[(at - first_copied) * self.depth..][..panel * terms];
        Columns { values, stride: panel, first: 0 }
    }
}

/// Copies a block of b into panels.
pub(super) struct Copy<'a, T> {
    pub from: Block<'a, T>,
    pub to: &'a mut [T],
}

impl<'a, T: Lanes> WithSimd for Copy<'a, T> {
    type Output = Panels<'a, T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Panels<'a, T> {
        match self.from.vectors {
            1 => self.copy::<S, 1>(simd),
            PANEL => self.copy::<S, PANEL>(simd),
            _ => self.copy::<S, { packed::WIDE }>(simd),
        }
    }
}

impl<'a, T: Lanes> Copy<'a, T> {
    /// Into panels of `N` vectors.
    #[inline(always)]
    fn copy<S: Simd, const N: usize>(self, simd: S) -> Panels<'a, T> {
        let Self { from, to } = self;
        let Block { b, term, terms, column, width, is_copied, .. } = from;
        let panel = N * lanes::<T, S>();
        if b.is_transposed {
            for (index, to) in to.chunks_exact_mut(panel * terms).enumerate() {
                let (first, columns) = (column + index * panel, panel.min(width - index * panel));
                if columns < panel {
                    to.fill(T::zeroed());
                }
                let from = Columns { values: &b.values[first * b.stride..], stride: b.stride, first: term };
                turn(simd, from, columns, to, panel);
            }
            return Panels { block: from, copies: to, depth: terms };
        }
        let whole = width / panel * panel;
        let (panels, last) = to.split_at_mut(if is_copied { whole * terms } else { 0 });
        if !panels.is_empty() {
            let rows = b.values[term * b.stride..].chunks_exact(b.stride).take(terms).map(
                #[inline(always)]
                |row| &row[column..column + whole],
            );
            copy_rows::<T, S, N>(rows, terms, panels);
        }
        let (first, rest) = (column + whole, width - whole);
        for (index, to) in last.chunks_exact_mut(panel).enumerate() {
            let at = (term + index) * b.stride + first;
            // What is too much belongs to columns of the result that are not there.
            if let Some(from) = b.values.get(at..at + panel) {
                T::vectors_mut::<S>(to).iter_mut().zip(T::vectors::<S>(from)).for_each(
                    #[inline(always)]
                    |(to, &from)| *to = from,
                );
            } else {
                to[..rest].copy_from_slice(&b.values[at..at + rest]);
                to[rest..].fill(T::zeroed());
            }
        }
        Panels { block: from, copies: to, depth: terms }
    }
}

/// Row by row into panels of `N` vectors, so that b is read in runs.
#[inline(always)]
fn copy_rows<'a, T: Lanes, S: Simd, const N: usize>(
    rows: impl Iterator<Item = &'a [T]>,
    terms: usize,
    panels: &mut [T],
) {
    let panels = T::vectors_mut::<S>(panels).as_chunks_mut::<N>().0;
    for (index, row) in rows.enumerate() {
        let row = T::vectors::<S>(row).as_chunks::<N>().0;
        for (from, to) in row.iter().zip(panels[index..].iter_mut().step_by(terms)) {
            *to = *from;
        }
    }
}

/// The first `columns` rows of `from`, from the term `first` on, become columns of `to`, whose rows have length `panel`.
#[inline(always)]
pub(super) fn turn<T: Lanes, S: Simd>(simd: S, from: Columns<'_, T>, columns: usize, to: &mut [T], panel: usize) {
    let (terms, vector) = (to.len() / panel, lanes::<T, S>());
    let fours = if T::turns::<S>() { columns / 4 * 4 } else { 0 };
    // As many terms at once as a vector has: of the widest that is a line of the cache.
    for (index, to) in to.chunks_mut(vector * panel).enumerate() {
        for column in (0..fours).step_by(4) {
            // Two calls, so that one has a number of terms that is known.
            if to.len() == vector * panel {
                turn_four(simd, from, (index * vector, vector), column, to, panel);
            } else {
                turn_four(simd, from, (index * vector, terms % vector), column, to, panel);
            }
        }
    }
    turn_rest(from, fours..columns, to, panel);
}

/// Terms ahead of those that are turned from which on rows are fetched: two lines of float32. So many rows are read side by side that the
/// processor does not foresee their next lines itself.
const TURNED_AHEAD: usize = 32;

/// Four columns, and at most as many terms as a vector has.
#[inline(always)]
fn turn_four<T: Lanes, S: Simd>(
    simd: S,
    from: Columns<'_, T>,
    (term, terms): (usize, usize),
    column: usize,
    to: &mut [T],
    panel: usize,
) {
    let mut rows = [T::splat(simd, T::zeroed()); 4];
    for (index, row) in rows.iter_mut().enumerate() {
        let at = (column + index) * from.stride + from.first + term;
        let numbers = &from.values[at..at + terms];
        prefetch(numbers, TURNED_AHEAD, 1);
        *row = match T::vectors::<S>(numbers).first() {
            Some(&row) => row,
            None => T::load_some(simd, numbers),
        };
    }
    let rows = T::turned(simd, rows);
    for (index, row) in rows.iter().enumerate() {
        let fours = bytemuck::cast_slice::<T::Vector<S>, T>(slice::from_ref(row)).as_chunks::<4>().0;
        for (group, four) in fours.iter().enumerate() {
            if 4 * group + index < terms {
                to[(4 * group + index) * panel + column..][..4].copy_from_slice(four);
            }
        }
    }
}

/// One number after the other, as many rows together as there are: their numbers lie side by side in the end.
#[inline(always)]
fn turn_rest<T: Lanes>(from: Columns<'_, T>, columns: Range<usize>, to: &mut [T], panel: usize) {
    let columns = turn_groups::<T, 8>(from, columns, to, panel);
    let columns = turn_groups::<T, 4>(from, columns, to, panel);
    turn_groups::<T, 1>(from, columns, to, panel);
}

/// Groups of `N` rows, as many as there are. Returns those that are left.
#[inline(always)]
fn turn_groups<T: Lanes, const N: usize>(
    from: Columns<'_, T>,
    mut columns: Range<usize>,
    to: &mut [T],
    panel: usize,
) -> Range<usize> {
    let length = to.len() / panel;
    while columns.len() >= N {
        let rows: [&[T]; N] =
            array::from_fn(|row| &from.values[(columns.start + row) * from.stride + from.first..][..length]);
        for (term, to) in to.chunks_exact_mut(panel).enumerate() {
            for (to, row) in to[columns.start..columns.start + N].iter_mut().zip(&rows) {
                *to = row[term];
            }
        }
        columns.start += N;
    }
    columns
}
