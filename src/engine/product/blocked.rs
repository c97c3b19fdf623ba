//! Products of matrices, in blocks that fit into the caches and tiles that fit into the registers.
//!
//! Every element of the result is one sequence of operations, whichever block, tile, vector or thread it falls into: its terms go in
//! [`groups`]; a group's sum begins at zero and takes one multiply-add a term, in order; the groups' sums are added up in order.
//! So its bits follow from its row of a and its column of b alone.
//!
//! A block of b, [`DEPTH`] terms by at most [`COLUMNS`], stays in the second cache while all rows of a meet it, a few at a time. It is copied into
//! panels as wide as a tile, each a run of numbers, where rows are many or far apart; b transposed always is. Of a what meets one block
//! at once stays in the first cache, and is copied, too, where it meets many columns. A thread's copy of a block of b serves the next part of
//! the same product, too ([`Whole`]). Of the largest products a is copied as a whole
//! before, and b where its columns are not shared out ([`Packed`]); what is read after a part of these is fetched while its tiles are computed
//! ([`Next`]).

use std::array;
use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{ArrayViewMut2, Axis};
use pulp::{Simd, WithSimd};

use crate::engine::aligned::Aligned;

use super::caches::second_cache_bytes;
use super::tiles::{Columns, CopiedRows, Lanes, Left, Rows, add_tile, lanes};

pub use ahead::Beside;
pub use packed::{COLUMN_UNIT, Pack, Packed, ROW_UNIT, strip_rows};
pub use panels::Whole;
pub use seen::{SeenPart, SeenProduct};

use ahead::Next;
use packed::PackedStrips;
use panels::{Block, Panels, RightCopy};

mod ahead;
mod packed;
mod panels;
mod seen;

/// The most terms of a sum that go at once. It decides the bits, as all of [`groups`].
pub const DEPTH: usize = 512;
/// The first of two groups is a multiple of this, unless the second would be too long: so it ends with a line of the cache in a row of a.
const GROUP_UNIT: usize = 16;
/// The most columns of a block: with `DEPTH` of float32 half of a second cache of 2 MB.
const COLUMNS: usize = 512;
/// The fewest, before blocks are made about equal: narrower ones were not measured.
const COLUMNS_MIN: usize = 256;
/// Blocks of what is not copied as a whole are multiples of this many columns.
const BLOCK_UNIT: usize = 64;
/// Vectors of a panel.
const PANEL: usize = 2;
/// Rows of the highest tiles.
const TILE_ROWS_MAX: usize = 12;
/// Tiles whose columns of a are copied together: so whole lines of the cache are.
const COPIED: usize = 8;

/// Up to so many rows each number of b is read so seldom that a copy costs more than it gives.
const UNCOPIED_ROWS_MAX: usize = 64;
/// The same where rows of b are far apart: so far that a line of them falls into a small part of the first cache.
const UNCOPIED_FAR_ROWS_MAX: usize = 8;
const FAR_BYTES: usize = 2_049;
/// Rows of a strip from which on they are copied: the addresses of fewer stay in registers.
const HEIGHT_COPIED_MIN: usize = 6;
/// Up to so many columns a is read where it is.
const UNCOPIED_COLUMNS_MAX: usize = 128;

/// What a kind of vectors has. Constants, so that a branch on one leaves nothing to compile of the other.
struct Registers<S>(PhantomData<S>);

impl<S: Simd> Registers<S> {
    /// Whether there are 32, not 16.
    const ARE_MANY: bool = S::REGISTER_COUNT >= 32;
    /// Whether there are no vectors: a processor for which these tiles are not made.
    const ARE_SCALAR: bool = S::F32_LANES == 1;
}

/// The groups in which the terms of a sum go: where each begins, and how many terms it has. Two are about equal, so that two threads may
/// have one each.
pub fn groups(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = depth.div_ceil(DEPTH);
    let length = if count == 2 { (depth / 2 / GROUP_UNIT * GROUP_UNIT).max(depth - DEPTH) } else { DEPTH };
    (0..count).map(move |group| {
        let first = group * length;
        (first, if group + 1 == count { depth - first } else { length })
    })
}

/// A row-major matrix, or the transposed of one.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a, T> {
    /// Whole rows, as they are stored.
    pub values: &'a [T],
    /// The length of a stored row.
    pub stride: usize,
    /// Whether the stored rows are its columns.
    pub is_transposed: bool,
}

/// Room for copies of parts of the operands, and for parts of a result. Each is made once, as large as any product needs it, since which part
/// of a product comes to a thread is chance, and no step allocates; what is not touched takes no memory.
#[derive(Debug)]
pub struct Copies<T> {
    left: Aligned<T>,
    right: RightCopy<T>,
    seen: Aligned<T>,
    /// Of whole operands, a and b, on a thread that trains.
    pub packed: [Aligned<T>; 2],
}

impl<T> Copies<T> {
    pub const fn empty() -> Self {
        Self {
            left: Aligned::empty(),
            right: RightCopy::empty(),
            seen: Aligned::empty(),
            packed: [Aligned::empty(), Aligned::empty()],
        }
    }
}

/// The most numbers that are copied of a and of b at once, and that are there of a result.
const LEFT_MAX: usize = TILE_ROWS_MAX * COPIED * DEPTH;
const RIGHT_MAX: usize = COLUMNS * DEPTH;
const SEEN_MAX: usize = TILE_ROWS_MAX * COPIED * COLUMNS;

/// The first `length` numbers, of at most `max`.
#[inline(always)]
pub fn room<T: Lanes>(numbers: &mut Aligned<T>, length: usize, max: usize) -> &mut [T] {
    if numbers.len() < max {
        *numbers = Aligned::zeros(max);
    }
    &mut numbers[..length]
}

/// The most columns of a block of b of so many terms, in multiples of `unit`: within those bounds it takes no more than half of a core's
/// second cache, since a's numbers pass through it, too.
fn columns_max<T>(terms: usize, unit: usize) -> usize {
    columns_within(second_cache_bytes() / 2, size_of::<T>() * terms.clamp(1, DEPTH)) / unit * unit
}

/// As many columns of so many bytes as there is room for.
fn columns_within(bytes: usize, column: usize) -> usize {
    (bytes / column).clamp(COLUMNS_MIN, COLUMNS)
}

/// Columns of each block, of so many.
fn block_columns<T>(terms: usize, columns: usize, is_packed: bool) -> usize {
    if is_packed {
        return packed::block_columns(columns, columns_max::<T>(terms, COLUMN_UNIT));
    }
    columns_max::<T>(terms, BLOCK_UNIT)
}

/// Whether b is a single block: a thread that works several parts of a product then copies it once.
pub fn is_one_block<T>(terms: usize, columns: usize) -> bool {
    terms <= DEPTH && columns <= columns_max::<T>(terms, BLOCK_UNIT)
}

/// c = a·b, or c += a·b, of some rows of a and some columns of b.
pub struct Product<'a, T> {
    pub a: Operand<'a, T>,
    pub b: Operand<'a, T>,
    /// The row of a that c's first one belongs to.
    pub row: usize,
    /// The column of b that c's first one belongs to.
    pub column: usize,
    /// Terms of a whole sum: columns of a, and rows of b.
    pub depth: usize,
    /// Those of them that are summed up here: whole [`groups`].
    pub terms: Range<usize>,
    pub c: ArrayViewMut2<'a, T>,
    /// Whether it is added to what is in c.
    pub adds: bool,
    pub copies: &'a mut Copies<T>,
    /// Which product it is a part of, where that has several parts.
    pub whole: Option<Whole>,
    /// Copies of all of a, and of all of b or none of it.
    pub packed: Option<Packed<'a, T>>,
}

impl<T: Lanes> WithSimd for Product<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, row, column, depth, terms: all, c, adds, copies, whole, packed } = self;
        let (rows, columns) = c.dim();
        let uncopied_max =
            if b.stride * size_of::<T>() < FAR_BYTES { UNCOPIED_ROWS_MAX } else { UNCOPIED_FAR_ROWS_MAX };
        let is_copied = packed.is_some() || b.is_transposed || rows > uncopied_max;
        // What is read where it is passes once.
        let block = if is_copied { block_columns::<T>(depth, columns, packed.is_some()) } else { COLUMNS };
        let vectors = match packed {
            Some(_) => packed::vectors::<S>(),
            // A wider panel would be mostly of what is not there.
            None if columns <= lanes::<T, S>() => 1,
            None => PANEL,
        };
        let blocks = (0..columns).step_by(block).flat_map(|begin| {
            let width = block.min(columns - begin);
            let groups = groups(depth).filter(|(term, _)| all.contains(term));
            groups.map(move |(term, terms)| Block { b, term, terms, column: column + begin, width, is_copied, vectors })
        });
        let mut blocks = blocks.peekable();
        let mut c = c;
        while let Some(block) = blocks.next() {
            let (begin, term) = (block.column - column, block.term);
            let next = match (packed, blocks.peek()) {
                (Some(Packed { right: None, .. }), Some(next)) => Next::Matrix(next.stored()),
                _ => Next::Near,
            };
            let right = block.panels(simd, depth, packed.and_then(|packed| packed.right), whole, &mut copies.right);
            let is_copied = columns > UNCOPIED_COLUMNS_MAX;
            let (copies, packed) = (&mut copies.left, packed.map(|packed| packed.strips(depth)));
            let left = Strips { a, row, rows, term, terms: block.terms, is_copied, copies, copied: None, packed };
            let c = c.slice_axis_mut(Axis(1), (begin..begin + block.width).into());
            Part { left, right, adds: adds || term > all.start, next }.work(simd, c);
        }
    }
}

/// Some rows of a, and a block of b.
struct Part<'a, 'b, T> {
    left: Strips<'a, 'b, T>,
    right: Panels<'b, T>,
    adds: bool,
    /// What is read after it.
    next: Next<'b>,
}

impl<T: Lanes> Part<'_, '_, T> {
    /// Strips as high as registers allow, and lower ones at the end.
    #[inline(always)]
    fn work<S: Simd>(mut self, simd: S, c: ArrayViewMut2<'_, T>) {
        if let Some(packed) = self.left.packed {
            return self.work_packed(simd, packed, c);
        }
        let mut rest = c;
        while rest.nrows() > 0 {
            // Every shape of a tile is compiled for every kind of vectors that may meet it.
            rest = if Registers::<S>::ARE_MANY {
                match rest.nrows() {
                    1 => self.strip::<S, 1, 8>(simd, rest),
                    2 => self.strip::<S, 2, 4>(simd, rest),
                    3 | 4 => self.strip::<S, 4, 4>(simd, rest),
                    5..=8 | 13..=16 => self.strip::<S, 8, PANEL>(simd, rest),
                    _ => self.strip::<S, 12, PANEL>(simd, rest),
                }
            } else if Registers::<S>::ARE_SCALAR {
                match rest.nrows() {
                    1 => self.strip::<S, 1, PANEL>(simd, rest),
                    _ => self.strip::<S, 4, PANEL>(simd, rest),
                }
            } else {
                match rest.nrows() {
                    1 => self.strip::<S, 1, 8>(simd, rest),
                    2 => self.strip::<S, 2, 4>(simd, rest),
                    3 | 4 | 7 | 8 => self.strip::<S, 4, PANEL>(simd, rest),
                    _ => self.strip::<S, 6, PANEL>(simd, rest),
                }
            };
        }
    }

    /// The first `H` rows of c, or as many as there are, in tiles of `N` vectors where so many lie side by side. Returns the other rows.
    #[inline(always)]
    fn strip<'c, S: Simd, const H: usize, const N: usize>(
        &mut self,
        simd: S,
        c: ArrayViewMut2<'c, T>,
    ) -> ArrayViewMut2<'c, T> {
        let (right, adds) = (self.right, self.adds);
        let (rows, first) = (H.min(c.nrows()), self.left.rows - c.nrows());
        let (c, rest) = c.split_at(Axis(0), rows);
        match (self.left.a.is_transposed, self.left.is_copied) {
            (true, false) if rows == H => {
                let left = self.left.columns(first);
                simd.vectorize(Strip::<T, _, H, N> { left, right, c, adds });
            }
            (true, _) => {
                let left = self.left.copied_columns::<H>(first);
                simd.vectorize(Strip::<T, _, H, N> { left, right, c, adds });
            }
            (false, true) if const { H >= HEIGHT_COPIED_MIN } => {
                let left = self.left.copied_rows::<H>(first);
                simd.vectorize(Strip::<T, _, H, N> { left, right, c, adds });
            }
            (false, _) => {
                let left = self.left.rows::<H>(first);
                simd.vectorize(Strip::<T, _, H, N> { left, right, c, adds });
            }
        }
        rest
    }
}

/// What meets a block of b of some rows of a, strip by strip.
struct Strips<'a, 'b, T> {
    a: Operand<'a, T>,
    /// The first row.
    row: usize,
    rows: usize,
    term: usize,
    terms: usize,
    /// Whether it is copied wherever that can be done without.
    is_copied: bool,
    copies: &'b mut Aligned<T>,
    /// Columns of a transposed that are in `copies`: the row they begin with, the height of their strips, how many these are.
    copied: Option<(usize, usize, usize)>,
    /// Copies of all of a, in place of these.
    packed: Option<PackedStrips<'a, T>>,
}

impl<T: Lanes> Strips<'_, '_, T> {
    /// The `H` rows from `first` on, where they are. The last one stands in for those that are missing.
    #[inline(always)]
    fn rows<const H: usize>(&self, first: usize) -> Rows<'_, T, H> {
        let row = |row: usize| {
            let at = self.row + (first + row).min(self.rows - 1);
            &self.a.values[at * self.a.stride + self.term..][..self.terms]
        };
        Rows(array::from_fn(row))
    }

    /// Copies of the `H` rows from `first` on, as many as there are.
    #[inline(always)]
    fn copied_rows<const H: usize>(&mut self, first: usize) -> CopiedRows<'_, T, DEPTH> {
        let copies = room(self.copies, H * DEPTH, LEFT_MAX).as_chunks_mut::<DEPTH>().0;
        for (index, to) in copies.iter_mut().enumerate().take(self.rows - first) {
            let row = &self.a.values[(self.row + first + index) * self.a.stride + self.term..][..self.terms];
            to[..self.terms].copy_from_slice(row);
        }
        CopiedRows(copies)
    }

    /// The stored columns from `first` on, where they are.
    #[inline(always)]
    fn columns(&self, first: usize) -> Columns<'_, T> {
        let Operand { values, stride, .. } = self.a;
        let values = &values[self.term * stride..(self.term + self.terms) * stride];
        Columns { values, stride, first: self.row + first }
    }

    /// Copies of `H` stored columns from `first` on, as many as there are. Those of some strips after them are copied with them.
    #[inline(always)]
    fn copied_columns<const H: usize>(&mut self, first: usize) -> Columns<'_, T> {
        let size = H * self.terms;
        let index = match self.copied {
            Some((begin, height, count)) if height == H && first < begin + H * count => (first - begin) / H,
            _ => {
                self.copy_columns::<H>(first);
                0
            }
        };
        let values = &room(self.copies, (index + 1) * size, LEFT_MAX)[index * size..];
        Columns { values, stride: H, first: 0 }
    }

    #[inline(always)]
    fn copy_columns<const H: usize>(&mut self, first: usize) {
        let Operand { values, stride, .. } = self.a;
        let values = &values[self.term * stride..(self.term + self.terms) * stride];
        let (at, rows) = (self.row + first, self.rows - first);
        let count = (rows / H).clamp(1, COPIED);
        let tiles = room(self.copies, H * self.terms * count, LEFT_MAX).as_chunks_mut::<H>().0;
        for (index, row) in values.chunks_exact(stride).enumerate() {
            if rows >= H {
                let row = row[at..at + count * H].as_chunks::<H>().0;
                for (from, to) in row.iter().zip(tiles[index..].iter_mut().step_by(self.terms)) {
                    *to = *from;
                }
            } else {
                tiles[index][..rows].copy_from_slice(&row[at..at + rows]);
                tiles[index][rows..].fill(T::zeroed());
            }
        }
        self.copied = Some((first, H, count));
    }
}

/// A few rows of the result.
struct Strip<'a, T, L, const H: usize, const N: usize> {
    left: L,
    right: Panels<'a, T>,
    c: ArrayViewMut2<'a, T>,
    adds: bool,
}

impl<T: Lanes, L: Left<T, H>, const H: usize, const N: usize> WithSimd for Strip<'_, T, L, H, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { mut left, right, mut c, adds } = self;
        let (rows, columns) = c.dim();
        let mut each = c.rows_mut().into_iter();
        let mut c: [&mut [T]; H] = array::from_fn(|_| each.next().and_then(|row| row.into_slice()).unwrap_or_default());
        let vector = lanes::<T, S>();
        let panel = right.block.vectors * vector;
        let mut at = 0;
        while N > PANEL && !right.block.is_copied && at + N * vector <= columns {
            add_tile::<T, S, _, H, N>(simd, left, right.at(at, panel), adds, (rows, &mut c), at..at + N * vector);
            left = left.beside();
            at += N * vector;
        }
        while at < columns {
            let (columns, right) = (at..columns.min(at + panel), right.at(at, panel));
            at = columns.end;
            if N > PANEL && right.stride == N * vector && columns.len() > PANEL * vector {
                add_tile::<T, S, _, H, N>(simd, left, right, adds, (rows, &mut c), columns);
            } else if columns.len() > vector {
                add_tile::<T, S, _, H, PANEL>(simd, left, right, adds, (rows, &mut c), columns);
            } else {
                add_tile::<T, S, _, H, 1>(simd, left, right, adds, (rows, &mut c), columns);
            }
            left = left.beside();
        }
    }
}

#[cfg(test)]
mod tests;
