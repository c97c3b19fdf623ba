//! A product of which nothing is kept.

use ndarray::ArrayViewMut2;
use pulp::{Simd, WithSimd};

use super::ahead::{Beside, Next};
use super::panels::Block;
use super::{
    COPIED, Copies, DEPTH, Operand, PANEL, Packed, Part, ROW_UNIT, SEEN_MAX, Strips, TILE_ROWS_MAX,
    UNCOPIED_COLUMNS_MAX, Whole, block_columns, packed, room,
};
use crate::engine::product::tiles::Lanes;

/// Rows of a product of which nothing is kept that are there at once: those of the tiles that are copied together.
const SEEN_ROWS: usize = TILE_ROWS_MAX * COPIED;

/// The same where they are copied before: what lies beside so many is fetched meanwhile, and has to stay in the second cache with them.
const SEEN_ROWS_PACKED: usize = 48;

const _: () = assert!(SEEN_ROWS.is_multiple_of(ROW_UNIT) && SEEN_ROWS_PACKED.is_multiple_of(ROW_UNIT));

/// A part of a product.
pub struct SeenPart<'a, T> {
    /// Where it begins: its row and its column, counted from the first ones of the product.
    pub place: (usize, usize),
    /// Row by row.
    pub numbers: &'a [T],
    /// The length of a row.
    pub width: usize,
}

/// a·b of some rows of a and some columns of b, of which nothing is kept: `see` is called with parts of it, in which each element comes
/// once.
pub struct SeenProduct<'a, 's, T> {
    pub a: Operand<'a, T>,
    pub b: Operand<'a, T>,
    /// The row of a that the first row belongs to.
    pub row: usize,
    /// The column of b that the first column belongs to.
    pub column: usize,
    /// Rows and columns.
    pub shape: (usize, usize),
    /// Terms of a sum, at most [`DEPTH`].
    pub depth: usize,
    pub see: &'s mut dyn FnMut(SeenPart<'_, T>),
    pub copies: &'a mut Copies<T>,
    /// See [`Product::whole`](super::Product::whole).
    pub whole: Option<Whole>,
    /// See [`Product::packed`](super::Product::packed).
    pub packed: Option<Packed<'a, T>>,
    /// Where what `see` reads beside the product lies.
    pub beside: Beside<'a>,
}

impl<T: Lanes> WithSimd for SeenProduct<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, row, column, shape: (rows, columns), depth, see, copies, whole, packed, beside } = self;
        debug_assert!(depth <= DEPTH);
        let Copies { left, right, seen, .. } = copies;
        let block = block_columns::<T>(depth, columns, packed.is_some());
        let vectors = if packed.is_some() { packed::vectors::<S>() } else { PANEL };
        for begin in (0..columns).step_by(block) {
            let width = block.min(columns - begin);
            let block = Block { b, term: 0, terms: depth, column: column + begin, width, is_copied: true, vectors };
            let right = block.panels(simd, depth, packed.and_then(|packed| packed.right), whole, right);
            let seen_rows = if packed.is_some() { SEEN_ROWS_PACKED } else { SEEN_ROWS };
            for first in (0..rows).step_by(seen_rows) {
                let rows = seen_rows.min(rows - first);
                let c = room(seen, rows * width, SEEN_MAX);
                let is_copied = columns > UNCOPIED_COLUMNS_MAX;
                let packed = packed.map(|packed| packed.strips(depth));
                let (row, copies) = (row + first, &mut *left);
                let left = Strips { a, row, rows, term: 0, terms: depth, is_copied, copies, copied: None, packed };
                let Ok(view) = ArrayViewMut2::from_shape((rows, width), &mut *c) else { return };
                let next = Next::Beside(beside.from::<T>(first, begin));
                Part { left, right, adds: false, next }.work(simd, view);
                see(SeenPart { place: (first, begin), numbers: c, width });
            }
        }
    }
}
