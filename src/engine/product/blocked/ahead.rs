//! What is read after a part of a large product, fetched while the part's tiles are computed.
//!
//! A block of b that is copied next, and what the optimizer reads beside a product of which nothing is kept, come from main memory: a core that
//! reads it only once it needs it waits for it, at 10 GB/s. Tiles read little from further away than the second cache, so a line every few
//! terms goes unnoticed beside them.

use crate::engine::product::tiles::{LINES_AHEAD, LinesAhead, lines_of_tile};
use crate::engine::unchecked::prefetch::LINE_BYTES;

/// What is read after a part.
#[derive(Clone, Copy)]
pub enum Next<'a> {
    /// What is in the caches, nothing, or what is not known here: the first block of another part.
    Near,
    /// All of it, so it is fetched with the last tiles: what is fetched before would have left the cache again.
    Matrix(Matrix),
    /// With each tile what lies where it does: its first rows where its terms are too few for more.
    Beside(Beside<'a>),
}

/// Where some rows and columns of a row-major matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The address of the first number.
    address: usize,
    rows: usize,
    /// Bytes of a row.
    bytes: usize,
    /// Bytes from row to row.
    stride: usize,
}

impl Matrix {
    /// So many rows and columns from a row and a column on, of a matrix whose rows have `stride` numbers.
    pub fn within<T>(
        values: &[T],
        stride: usize,
        (row, column): (usize, usize),
        (rows, columns): (usize, usize),
    ) -> Self {
        let size = size_of::<T>();
        let address = values.as_ptr().addr() + (row * stride + column) * size;
        Self { address, rows, bytes: columns * size, stride: stride * size }
    }

    /// Lines that a row lies in, wherever it begins.
    const fn lines(&self) -> usize {
        let begins_with_one = self.address.is_multiple_of(LINE_BYTES) && self.stride.is_multiple_of(LINE_BYTES);
        let lines = self.bytes.div_ceil(LINE_BYTES);
        if begins_with_one || self.bytes == 0 { lines } else { lines + 1 }
    }
}

/// Where matrices of a product's shape lie.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// Addresses of their first numbers; none where nothing is fetched.
    pub addresses: &'a [usize],
    /// Bytes from row to row, of each.
    pub stride: usize,
    /// Bytes from those first numbers on.
    pub offset: usize,
}

impl Beside<'_> {
    /// Nothing.
    #[cfg(test)]
    pub const NOTHING: Self = Self { addresses: &[], stride: 0, offset: 0 };

    /// From a row and a column on.
    pub const fn from<T>(self, row: usize, column: usize) -> Self {
        Self { offset: self.offset + row * self.stride + column * size_of::<T>(), ..self }
    }
}

/// Which lines are fetched with which tile of a part.
pub struct Plan {
    offsets: [usize; LINES_AHEAD],
    base: usize,
    /// From a tile's base to that of the tile beside it, and of the strip below it.
    steps: [usize; 2],
    /// Strips that fetch nothing.
    idle: usize,
}

/// Where nothing is fetched: what lies here, which is soon in a cache.
static NOTHING: [usize; LINES_AHEAD] = [0; LINES_AHEAD];

impl Plan {
    /// For a part of so many rows and columns, in tiles of so many, with sums of so many terms.
    pub fn new<T>(next: Next<'_>, tile: (usize, usize), part: (usize, usize), terms: usize) -> Self {
        let lines = lines_of_tile(terms);
        match next {
            Next::Matrix(matrix) if matrix.lines() <= lines => {
                Self::of_matrix(matrix, lines, (part.0.div_ceil(tile.0), part.1.div_ceil(tile.1)))
            }
            Next::Beside(beside) if !beside.addresses.is_empty() => {
                Self::of_beside(beside, tile.0, tile.1 * size_of::<T>())
            }
            _ => Self { offsets: NOTHING, base: 0, steps: [0; 2], idle: usize::MAX },
        }
    }

    /// As many whole rows with each tile as it has lines for.
    fn of_matrix(matrix: Matrix, lines_of_tile: usize, (strips, tiles): (usize, usize)) -> Self {
        let lines = matrix.lines();
        let rows = lines_of_tile / lines;
        let mut offsets = NOTHING;
        for (index, offset) in offsets.iter_mut().take(rows * lines).enumerate() {
            *offset = index / lines * matrix.stride + index % lines * LINE_BYTES;
        }
        let strips_needed = matrix.rows.div_ceil(rows).div_ceil(tiles);
        let step = rows * matrix.stride;
        Self { offsets, base: matrix.address, steps: [step, tiles * step], idle: strips.saturating_sub(strips_needed) }
    }

    /// What lies where a tile of so many rows, and so many bytes in each, does.
    fn of_beside(beside: Beside<'_>, rows: usize, bytes: usize) -> Self {
        let lines = bytes.div_ceil(LINE_BYTES);
        let first = beside.addresses[0];
        let places = (0..rows * lines).map(|index| index / lines * beside.stride + index % lines * LINE_BYTES);
        let addresses =
            |place| beside.addresses.iter().map(move |address| address.wrapping_sub(first).wrapping_add(place));
        let mut offsets = NOTHING;
        offsets.iter_mut().zip(places.flat_map(addresses)).for_each(|(to, offset)| *to = offset);
        let base = first.wrapping_add(beside.offset);
        Self { offsets, base, steps: [bytes, rows * beside.stride], idle: 0 }
    }

    /// What goes with the first tile of a strip.
    #[inline(always)]
    pub fn strip(&self, index: usize) -> LinesAhead<'_> {
        match index.checked_sub(self.idle) {
            None => LinesAhead { base: NOTHING.as_ptr().addr(), offsets: &NOTHING, step: 0 },
            Some(index) => {
                let base = self.base.wrapping_add(index * self.steps[1]);
                LinesAhead { base, offsets: &self.offsets, step: self.steps[0] }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// All lines that are fetched with the tiles of a part of so many strips, so many tiles in each, and so many terms.
    fn lines(plan: &Plan, (strips, tiles): (usize, usize), terms: usize) -> Vec<usize> {
        let mut lines = Vec::new();
        for strip in 0..strips {
            let LinesAhead { mut base, offsets, step } = plan.strip(strip);
            for _ in 0..tiles {
                let of_tile = offsets[..lines_of_tile(terms)].iter();
                lines.extend(of_tile.map(|offset| base.wrapping_add(*offset) / LINE_BYTES));
                base = base.wrapping_add(step);
            }
        }
        lines
    }

    /// Those in which the rows lie.
    fn lines_of(address: usize, rows: usize, bytes: usize, stride: usize) -> HashSet<usize> {
        let row =
            |row: usize| (address + row * stride) / LINE_BYTES..(address + row * stride + bytes).div_ceil(LINE_BYTES);
        (0..rows).flat_map(row).collect()
    }

    #[test]
    fn a_matrix_is_fetched_with_the_last_tiles_and_nothing_before() {
        // Rows, columns, the stride, the first column, and the terms of the tiles that it is fetched with.
        for (rows, columns, stride, column, terms) in [
            (512, 240, 1_024, 16, 512),
            (400, 240, 512, 0, 384),
            (240, 512, 2_048, 16, 512),
            (500, 100, 1_000, 7, 500),
            (64, 512, 512, 0, 400),
            (20, 16, 48, 16, 16),
        ] {
            let values = vec![0.0_f32; 640 * stride];
            let line = values.as_ptr().align_offset(LINE_BYTES);
            let matrix = Matrix::within(&values[line..], stride, (3, column), (rows, columns));
            let plan = Plan::new::<f32>(Next::Matrix(matrix), (8, 48), (512, 240), terms);
            let expected =
                lines_of(values[line + 3 * stride + column..].as_ptr().addr(), rows, columns * 4, stride * 4);
            let fetched: HashSet<_> = lines(&plan, (64, 5), terms).into_iter().collect();
            assert!(expected.is_subset(&fetched), "{rows}×{columns}");
            // Besides: nothing's, what comes after it to the end of the last strip, and a line of a row that begins within one.
            let more = 1 + 5 * LINES_AHEAD + rows;
            assert!(fetched.len() <= expected.len() + more, "{rows}×{columns}: {} lines", fetched.len());
            assert_eq!(plan.strip(0).step, 0, "{rows}×{columns} is fetched too soon");
        }
    }

    #[test]
    fn what_lies_beside_each_tile_is_fetched_with_it() {
        let values = vec![0.0_f32; 3 * 1_024 * 64];
        let line = values.as_ptr().align_offset(LINE_BYTES);
        let addresses = [0, 1, 2].map(|index| values[line..][index * 1_024 * 60..].as_ptr().addr());
        let beside = Beside { addresses: &addresses, stride: 4 * 1_024, offset: 0 }.from::<f32>(5, 96);
        let plan = Plan::new::<f32>(Next::Beside(beside), (8, 48), (48, 240), 512);
        let rows_of = |rows| move |address: &usize| lines_of(address + 4 * (5 * 1_024 + 96), rows, 4 * 240, 4 * 1_024);
        let expected: HashSet<_> = addresses.iter().flat_map(rows_of(48)).collect();
        let fetched = lines(&plan, (6, 5), 512);
        assert_eq!(fetched.iter().copied().collect::<HashSet<_>>(), expected);
        // The places of a tile that have no line fetch its first once more.
        assert_eq!(fetched.len() - 30 * (LINES_AHEAD - 8 * 3 * 3), expected.len());
        assert_eq!(plan.strip(1).base, addresses[0] + 4 * ((5 + 8) * 1_024 + 96));
        // With few terms the first rows of each tile.
        let fetched: HashSet<_> = lines(&plan, (1, 5), 64).into_iter().collect();
        assert!(fetched.is_superset(&addresses.iter().flat_map(rows_of(1)).collect()));
    }

    #[test]
    fn nothing_is_fetched_where_nothing_is_read_or_the_terms_are_too_few_for_a_row() {
        let wide = Next::Matrix(Matrix::within(&[0.0_f64], 512, (0, 0), (1, 512)));
        for (next, terms) in [(Next::Near, 512), (Next::Beside(Beside::NOTHING), 512), (wide, 100), (wide, 1)] {
            let plan = Plan::new::<f64>(next, (8, 24), (512, 240), terms);
            assert!(lines(&plan, (64, 10), 512).iter().all(|&line| line == NOTHING.as_ptr().addr() / LINE_BYTES));
        }
    }
}
