//! What is read after a part of a large product, fetched while the part's tiles are computed.
//!
//! A block of b that is copied next, and what the optimizer reads beside a product of which nothing is kept, come from main memory: a core that
//! reads it only once it needs it waits for it, at 10 GB/s. Tiles read little from further away than the second cache, so a line every few
//! terms goes unnoticed beside them.

use crate::engine::product::tiles::{LINES_AHEAD, LinesAhead};
use crate::engine::unchecked::prefetch::LINE_BYTES;

/// What is read after a part.
#[derive(Clone, Copy)]
pub enum Next<'a> {
    /// What is in the caches, or nothing.
    Near,
    /// All of it, so it is fetched with the last tiles: what is fetched before would have left the cache again.
    Matrix(Matrix),
    /// With each tile what lies where it does.
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
    /// For a part of so many rows and columns, in tiles of so many.
    pub fn new<T>(next: Next<'_>, tile: (usize, usize), part: (usize, usize)) -> Self {
        match next {
            Next::Matrix(matrix) => Self::of_matrix(matrix, (part.0.div_ceil(tile.0), part.1.div_ceil(tile.1))),
            Next::Beside(beside) if !beside.addresses.is_empty() => {
                Self::of_beside(beside, tile.0, tile.1 * size_of::<T>())
            }
            Next::Near | Next::Beside(_) => Self { offsets: NOTHING, base: 0, steps: [0; 2], idle: usize::MAX },
        }
    }

    /// Whole rows with each tile.
    fn of_matrix(matrix: Matrix, (strips, tiles): (usize, usize)) -> Self {
        let lines = matrix.bytes.div_ceil(LINE_BYTES).clamp(1, LINES_AHEAD);
        let rows = LINES_AHEAD / lines;
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

    /// All lines that are fetched with the tiles of a part of so many strips, and so many tiles in each.
    fn lines(plan: &Plan, strips: usize, tiles: usize) -> HashSet<usize> {
        let mut lines = HashSet::new();
        for strip in 0..strips {
            let LinesAhead { mut base, offsets, step } = plan.strip(strip);
            for _ in 0..tiles {
                lines.extend(offsets.iter().map(|offset| base.wrapping_add(*offset) / LINE_BYTES));
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
    fn a_matrix_is_fetched_once_and_with_the_last_tiles() {
        for (rows, columns, stride) in
            [(512, 240, 1_024), (240, 512, 2_048), (1, 16, 16), (500, 32, 48), (64, 512, 512)]
        {
            let values = vec![0.0_f32; 640 * stride];
            let line = values.as_ptr().align_offset(LINE_BYTES);
            let matrix = Matrix::within(&values[line..], stride, (3, 16), (rows, columns));
            let plan = Plan::new::<f32>(Next::Matrix(matrix), (8, 48), (512, 240));
            let at = values[line + 3 * stride + 16..].as_ptr().addr();
            let expected = lines_of(at, rows, columns * 4, stride * 4);
            let mut fetched = lines(&plan, 64, 5);
            assert!(expected.is_subset(&fetched), "{rows}×{columns}");
            fetched.remove(&(NOTHING.as_ptr().addr() / LINE_BYTES));
            // What comes after it, to the end of the last strip, and no more.
            let more = 5 * LINES_AHEAD;
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
        let plan = Plan::new::<f32>(Next::Beside(beside), (8, 48), (48, 240));
        let expected: HashSet<_> = addresses
            .iter()
            .flat_map(|address| lines_of(address + 4 * (5 * 1_024 + 96), 48, 4 * 240, 4 * 1_024))
            .collect();
        let fetched = lines(&plan, 6, 5);
        assert!(expected.is_subset(&fetched));
        // The places of a tile that have no line fetch its first once more.
        assert_eq!(fetched.len(), expected.len());
        let second = LinesAhead { base: plan.strip(1).base, ..plan.strip(1) };
        assert_eq!(second.base, addresses[0] + 4 * ((5 + 8) * 1_024 + 96));
    }

    #[test]
    fn nothing_is_fetched_where_nothing_is_read() {
        for next in [Next::Near, Next::Beside(Beside::NOTHING)] {
            let plan = Plan::new::<f64>(next, (8, 24), (512, 240));
            assert_eq!(lines(&plan, 64, 10), HashSet::from([NOTHING.as_ptr().addr() / LINE_BYTES]));
        }
    }
}
