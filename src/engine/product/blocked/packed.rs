//! Whole operands, copied once in the order in which tiles read them, for all parts of a product.
//!
//! It pays where each copy meets so many numbers of the other operand that several parts would copy the same. With 32 registers tiles are
//! lower and wider than elsewhere: they read less and take fewer instructions for as many multiply-adds, since each number of a is spread
//! over a vector for three vectors of b rather than two. That counts where a neighbour has its part of what the core begins in a cycle.

use ndarray::{ArrayViewMut2, Axis};
use pulp::{Simd, WithSimd};

use super::ahead::Plan;
use super::panels::{Block, Copy, turn};
use super::{COPIED, Operand, PANEL, Part, Registers, Strip};
use crate::engine::product::tiles::{Columns, Lanes, PackedRows, lanes};

/// Of this many rows strips are whole ones on every processor, so pieces of so many may be copied one by one, and parts that begin where one
/// does may be cut there.
pub const ROW_UNIT: usize = 24;
/// Of this many columns panels are whole ones on every processor.
pub const COLUMN_UNIT: usize = 48;

/// Rows and vectors of a tile where there are 32 registers.
const HIGH: usize = 8;
pub(super) const WIDE: usize = 3;
/// Rows of a tile where there are 16, of [`PANEL`] vectors.
const LOW: usize = 6;

const _: () = assert!(ROW_UNIT.is_multiple_of(HIGH) && ROW_UNIT.is_multiple_of(LOW));

/// Rows of a strip.
pub(super) fn height<S: Simd>() -> usize {
    if Registers::<S>::ARE_MANY { HIGH } else { LOW }
}

/// Rows of a strip on this processor: where the parts of a product may begin.
pub fn strip_rows() -> usize {
    struct StripRows;
    impl WithSimd for StripRows {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            height::<S>()
        }
    }
    pulp::Arch::new().dispatch(StripRows)
}

/// Vectors of a panel.
pub(super) const fn vectors<S: Simd>() -> usize {
    if Registers::<S>::ARE_MANY { WIDE } else { PANEL }
}

/// Columns of each block of so many, at most `max`: they are about equal, since a narrow one reads as much of a as a wide one.
pub(super) fn block_columns(columns: usize, max: usize) -> usize {
    let blocks = columns.div_ceil(max).max(1);
    columns.div_ceil(blocks).next_multiple_of(COLUMN_UNIT).max(COLUMN_UNIT)
}

/// Copies of whole operands. What there is too much of at their ends belongs to rows and columns that are not there.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a, T> {
    /// Of a: strip after strip, each `[depth, rows of a tile]`.
    pub left: &'a [T],
    /// Of b: panel after panel, each `[depth, columns of a tile]`. Where it is missing, parts copy what they need, block by block.
    pub right: Option<&'a [T]>,
}

impl<'a, T> Packed<'a, T> {
    /// Numbers of the copy of a.
    pub const fn left_len(rows: usize, depth: usize) -> usize {
        rows.next_multiple_of(ROW_UNIT) * depth
    }

    /// Numbers of the copy of b.
    pub const fn right_len(columns: usize, depth: usize) -> usize {
        columns.next_multiple_of(COLUMN_UNIT) * depth
    }

    pub(super) const fn strips(self, depth: usize) -> PackedStrips<'a, T> {
        PackedStrips { values: self.left, depth }
    }
}

/// Copies of all of a, see [`Packed::left`].
#[derive(Clone, Copy)]
pub(super) struct PackedStrips<'a, T> {
    values: &'a [T],
    depth: usize,
}

/// Some rows of a, or some columns of b, to be copied to their place in [`Packed`].
pub enum Pack<'a, T> {
    /// The rows of a from `first` on: a multiple of [`ROW_UNIT`], or all that are left.
    Left { a: Operand<'a, T>, first: usize, rows: usize, depth: usize, to: &'a mut [T] },
    /// The columns of b from `first` on: a multiple of [`COLUMN_UNIT`], or all that are left.
    Right { b: Operand<'a, T>, first: usize, columns: usize, depth: usize, to: &'a mut [T] },
}

impl<T: Lanes> WithSimd for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self {
            Self::Left { a, first, rows, depth, to } => {
                let strips = LeftRows { a, first, rows, depth, to };
                if Registers::<S>::ARE_MANY {
                    strips.copy::<S, HIGH>(simd);
                } else {
                    strips.copy::<S, LOW>(simd);
                }
            }
            Self::Right { b, first, columns, depth, to } => {
                let vectors = vectors::<S>();
                let block = Block { b, term: 0, terms: depth, column: first, width: columns, is_copied: true, vectors };
                let length = block.copied(vectors * lanes::<T, S>());
                simd.vectorize(Copy { from: block, to: &mut to[..length] });
            }
        }
    }
}

/// See [`Pack::Left`].
struct LeftRows<'a, T> {
    a: Operand<'a, T>,
    first: usize,
    rows: usize,
    depth: usize,
    to: &'a mut [T],
}

impl<T: Lanes> LeftRows<'_, T> {
    /// To strips of `H` rows.
    #[inline(always)]
    fn copy<S: Simd, const H: usize>(self, simd: S) {
        let Self { a, first, rows, depth, to } = self;
        let (strips, rest) = (rows / H, rows % H);
        let (whole, last) = to[..rows.next_multiple_of(H) * depth].split_at_mut(strips * H * depth);
        last.fill(T::zeroed());
        if a.is_transposed {
            copy_stored_columns::<T, H>(a, first, depth, whole);
            let columns = first + strips * H..first + rows;
            for (from, to) in a.values.chunks_exact(a.stride).zip(last.chunks_exact_mut(H)) {
                to[..rest].copy_from_slice(&from[columns.clone()]);
            }
            return;
        }
        for (index, to) in whole.chunks_exact_mut(H * depth).chain([last]).enumerate() {
            let from = Columns { values: &a.values[(first + index * H) * a.stride..], stride: a.stride, first: 0 };
            turn(simd, from, if index < strips { H } else { rest }, to, H);
        }
    }
}

/// Stored columns from `first` on, to strips of `H`. Those of several strips go together, so that whole lines of the cache do.
#[inline(always)]
fn copy_stored_columns<T: Lanes, const H: usize>(a: Operand<'_, T>, first: usize, depth: usize, strips: &mut [T]) {
    for (index, some) in strips.chunks_mut(COPIED * H * depth).enumerate() {
        let columns = first + index * COPIED * H..first + index * COPIED * H + some.len() / depth;
        let tiles = some.as_chunks_mut::<H>().0;
        for (term, row) in a.values.chunks_exact(a.stride).take(depth).enumerate() {
            let row = row[columns.clone()].as_chunks::<H>().0;
            for (from, to) in row.iter().zip(tiles[term..].iter_mut().step_by(depth)) {
                *to = *from;
            }
        }
    }
}

impl<T: Lanes> Part<'_, '_, T> {
    /// Strip by strip.
    #[inline(always)]
    pub(super) fn work_packed<S: Simd>(self, simd: S, packed: PackedStrips<'_, T>, c: ArrayViewMut2<'_, T>) {
        if Registers::<S>::ARE_MANY {
            self.packed_strips::<S, HIGH, WIDE>(simd, packed, c);
        } else {
            self.packed_strips::<S, LOW, PANEL>(simd, packed, c);
        }
    }

    #[inline(always)]
    fn packed_strips<S: Simd, const H: usize, const N: usize>(
        self,
        simd: S,
        packed: PackedStrips<'_, T>,
        mut c: ArrayViewMut2<'_, T>,
    ) {
        let Self { left, right, adds, next } = self;
        let tile = (H, right.block.vectors * lanes::<T, S>());
        let plan = Plan::new::<T>(next, tile, c.dim(), left.terms);
        debug_assert!(left.row.is_multiple_of(H), "no strip begins at row {}", left.row);
        for ((strip, c), first) in (0..).zip(c.axis_chunks_iter_mut(Axis(0), H)).zip((left.row..).step_by(H)) {
            let values = &packed.values[first * packed.depth + left.term * H..][..left.terms * H];
            let left = PackedRows { terms: values.as_chunks::<H>().0, ahead: plan.strip(strip) };
            simd.vectorize(Strip::<T, _, H, N> { left, right, c, adds });
        }
    }
}
