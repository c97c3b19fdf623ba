//! A product of which nothing is kept.

use ndarray::ArrayViewMut2;
use pulp::{Simd, WithSimd};

use super::{
    Block, COLUMNS, COPIED, Copies, Copy, DEPTH, Operand, PANEL, Part, RIGHT_MAX, SEEN_MAX, Strips, TILE_ROWS_MAX,
    UNCOPIED_COLUMNS_MAX, room,
};
use crate::engine::product::tiles::{Lanes, lanes};

/// Rows of a product of which nothing is kept that are there at once: those of the tiles that are copied together.
const SEEN_ROWS: usize = TILE_ROWS_MAX * COPIED;

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
}

impl<T: Lanes> WithSimd for SeenProduct<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { a, b, row, column, shape: (rows, columns), depth, see, copies } = self;
        debug_assert!(depth <= DEPTH);
        let Copies { left, right, seen } = copies;
        for begin in (0..columns).step_by(COLUMNS) {
            let width = COLUMNS.min(columns - begin);
            let from = Block { b, term: 0, terms: depth, column: column + begin, width, is_copied: true };
            let to = room(right, from.copied(PANEL * lanes::<T, S>()), RIGHT_MAX);
            let right = simd.vectorize(Copy { from, to });
            for first in (0..rows).step_by(SEEN_ROWS) {
                let rows = SEEN_ROWS.min(rows - first);
                let c = room(seen, rows * width, SEEN_MAX);
                let is_copied = columns > UNCOPIED_COLUMNS_MAX;
                let left =
                    Strips { a, row: row + first, rows, term: 0, terms: depth, is_copied, copies: left, copied: None };
                let Ok(view) = ArrayViewMut2::from_shape((rows, width), &mut *c) else { return };
                Part { left, right, adds: false }.work(simd, view);
                see(SeenPart { place: (first, begin), numbers: c, width });
            }
        }
    }
}
