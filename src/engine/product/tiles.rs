//! Tiles of a product: a few rows by a few vectors of columns, whose sums stay in registers.

use std::cell::RefCell;
use std::ops::{Add, Range};

use bytemuck::Pod;
use pulp::Simd;

use super::blocked::{Copies, DEPTH};
use crate::engine::unchecked::prefetch::{prefetch, prefetch_line};

/// What tiles need of a number type: vectors of it, as wide as the processor has them. Implemented for `f32` and `f64` alone.
pub trait Lanes: Pod + Add<Output = Self> {
    /// A register full of them.
    type Vector<S: Simd>: Pod;

    /// `x` in each lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// a·b + c, rounded once; twice on processors that do not fuse it.
    fn mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// a + b
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The numbers, no more than a vector has, and zeros.
    fn load_some<S: Simd>(simd: S, from: &[Self]) -> Self::Vector<S>;
    /// The first numbers of a vector, as many as there is room for.
    fn store_some<S: Simd>(simd: S, to: &mut [Self], vector: Self::Vector<S>);
    /// The numbers as vectors, without those at the end that fill none.
    fn vectors<S: Simd>(numbers: &[Self]) -> &[Self::Vector<S>];
    /// See [`vectors`](Self::vectors).
    fn vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [Self::Vector<S>];
    /// Whether [`turned`](Self::turned) is more than its argument.
    fn turns<S: Simd>() -> bool;
    /// In each four lanes by themselves, four rows become four columns.
    fn turned<S: Simd>(simd: S, rows: [Self::Vector<S>; 4]) -> [Self::Vector<S>; 4];
    /// Calls `work` with this thread's room for copies.
    fn with_copies<R>(work: impl FnOnce(&mut Copies<Self>) -> R) -> R;
}

macro_rules! impl_lanes {
    ($t:ty, $vector:ident, $splat:ident, $mul_add:ident, $add:ident, ($vectors:ident, $vectors_mut:ident),
     ($turns:expr, $turn:ident), ($load_some:ident, $store_some:ident)) => {
        impl Lanes for $t {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$mul_add(a, b, c)
            }
            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn load_some<S: Simd>(simd: S, from: &[Self]) -> S::$vector { simd.$load_some(from) }
            #[inline(always)]
            fn store_some<S: Simd>(simd: S, to: &mut [Self], vector: S::$vector) { simd.$store_some(to, vector) }
            #[inline(always)]
            fn vectors<S: Simd>(numbers: &[Self]) -> &[S::$vector] {
                S::$vectors(numbers).0
            }
            #[inline(always)]
            fn vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [S::$vector] {
                S::$vectors_mut(numbers).0
            }
            #[inline(always)]
            fn turns<S: Simd>() -> bool {
                $turns && lanes::<Self, S>() >= 4
            }
            #[inline(always)]
            fn turned<S: Simd>(simd: S, rows: [S::$vector; 4]) -> [S::$vector; 4] {
                // With four lanes it is what its name says. With more it leaves the groups of four where they are: that is what the
                // name's ending stands for, and a test holds it.
                if Self::turns::<S>() { simd.$turn(rows) } else { rows }
            }
            fn with_copies<R>(work: impl FnOnce(&mut Copies<Self>) -> R) -> R {
                thread_local!(static COPIES: RefCell<Copies<$t>> = const { RefCell::new(Copies::empty()) });
                COPIES.with_borrow_mut(work)
            }
        }
    };
}
impl_lanes!(
    f32,
    f32s,
    splat_f32s,
    mul_add_e_f32s,
    add_f32s,
    (as_simd_f32s, as_mut_simd_f32s),
    (true, deinterleave_shfl_f32s),
    (partial_load_f32s, partial_store_f32s)
);
impl_lanes!(
    f64,
    f64s,
    splat_f64s,
    mul_add_e_f64s,
    add_f64s,
    (as_simd_f64s, as_mut_simd_f64s),
    (false, deinterleave_shfl_f64s),
    (partial_load_f64s, partial_store_f64s)
);

/// Terms that are fetched ahead of the one whose products are added. The wider side of a tile comes from the second cache, at the rate at which
/// it is read; where a neighbour on the same core has its part of the caches, waiting for it took up to a tenth of the time.
const TERMS_AHEAD: usize = 8;

/// Numbers of a vector.
#[inline(always)]
pub const fn lanes<T: Lanes, S: Simd>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}

/// Columns of a row-major matrix, one row a term.
#[derive(Clone, Copy)]
pub struct Columns<'a, T> {
    /// Whole rows.
    pub values: &'a [T],
    /// The length of a row.
    pub stride: usize,
    /// Where the columns begin in each.
    pub first: usize,
}

/// The left side of a tile: `H` numbers a term.
pub trait Left<T: Lanes, const H: usize>: Copy {
    /// The sums of `H` rows by `N` vectors: one multiply-add after the other, from zero, in the order of the terms.
    fn sums<S: Simd, const N: usize>(self, simd: S, right: Columns<'_, T>) -> [[T::Vector<S>; N]; H];

    /// The same rows for the tile beside this one: other lines are fetched with it.
    #[inline(always)]
    fn beside(self) -> Self {
        self
    }
}

/// Rows of a row-major matrix: a number of each is a term.
#[derive(Clone, Copy)]
pub struct Rows<'a, T, const H: usize>(pub [&'a [T]; H]);

impl<T: Lanes, const H: usize> Left<T, H> for Rows<'_, T, H> {
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(self, simd: S, right: Columns<'_, T>) -> [[T::Vector<S>; N]; H] {
        let mut sums = [[T::splat(simd, T::zeroed()); N]; H];
        let terms = right.values.len() / right.stride;
        let mut rows = self.0;
        for row in &mut rows {
            *row = &row[..terms];
        }
        for (term, right_row) in (0..terms).zip(right.values.chunks_exact(right.stride)) {
            let right_row = ahead::<T, S, N>(right, right_row);
            let mut left = [T::zeroed(); H];
            for (left, row) in left.iter_mut().zip(&rows) {
                *left = row[term];
            }
            add_term(simd, &left, right_row, &mut sums);
        }
        sums
    }
}

/// Copies of `H` rows, each in room for `LENGTH` numbers: their addresses follow from one.
#[derive(Clone, Copy)]
pub struct CopiedRows<'a, T, const LENGTH: usize>(pub &'a [[T; LENGTH]]);

impl<T: Lanes, const H: usize, const LENGTH: usize> Left<T, H> for CopiedRows<'_, T, LENGTH> {
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(self, simd: S, right: Columns<'_, T>) -> [[T::Vector<S>; N]; H] {
        let mut sums = [[T::splat(simd, T::zeroed()); N]; H];
        let rows = &self.0.as_chunks::<H>().0[0];
        for (term, right_row) in (0..LENGTH).zip(right.values.chunks_exact(right.stride)) {
            let right_row = ahead::<T, S, N>(right, right_row);
            let mut left = [T::zeroed(); H];
            for (left, row) in left.iter_mut().zip(rows) {
                *left = row[term];
            }
            add_term(simd, &left, right_row, &mut sums);
        }
        sums
    }
}

/// The most lines that are fetched with a tile.
pub const LINES_AHEAD: usize = DEPTH / TERMS_OF_LINE;
/// Terms that go by from one line to the next. They are also those between two looks at whether there are more: looking takes its part of
/// what a core begins in a cycle.
const TERMS_OF_LINE: usize = 4;

/// Lines that are fetched with a tile of so many terms, at most [`DEPTH`].
pub const fn lines_of_tile(terms: usize) -> usize {
    terms / TERMS_OF_LINE
}

/// Lines of memory that are fetched while a tile is computed, for what is read after it.
#[derive(Clone, Copy, Debug)]
pub struct LinesAhead<'a> {
    /// An address.
    pub base: usize,
    /// How far from it each line begins: as many as [`lines_of_tile`] says are fetched.
    pub offsets: &'a [usize; LINES_AHEAD],
    /// From its base to that of the tile beside it.
    pub step: usize,
}

/// Numbers of `H` rows, term after term.
#[derive(Clone, Copy)]
pub struct PackedRows<'a, T, const H: usize> {
    pub terms: &'a [[T; H]],
    pub ahead: LinesAhead<'a>,
}

impl<T: Lanes, const H: usize> Left<T, H> for PackedRows<'_, T, H> {
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(self, simd: S, right: Columns<'_, T>) -> [[T::Vector<S>; N]; H] {
        let mut sums = [[T::splat(simd, T::zeroed()); N]; H];
        let (fours, rest) = self.terms.as_chunks::<TERMS_OF_LINE>();
        let mut rights = right.values.chunks_exact(right.stride * TERMS_OF_LINE);
        let LinesAhead { base, offsets, .. } = self.ahead;
        debug_assert!(fours.len() <= offsets.len(), "terms would be left out");
        for ((four, rights), offset) in fours.iter().zip(&mut rights).zip(offsets) {
            prefetch_line(base.wrapping_add(*offset));
            for (left, right_row) in four.iter().zip(rights.chunks_exact(right.stride)) {
                add_term(simd, left, ahead::<T, S, N>(right, right_row), &mut sums);
            }
        }
        for (left, right_row) in rest.iter().zip(rights.remainder().chunks_exact(right.stride)) {
            add_term(simd, left, ahead::<T, S, N>(right, right_row), &mut sums);
        }
        sums
    }

    #[inline(always)]
    fn beside(mut self) -> Self {
        self.ahead.base = self.ahead.base.wrapping_add(self.ahead.step);
        self
    }
}

impl<T: Lanes, const H: usize> Left<T, H> for Columns<'_, T> {
    #[inline(always)]
    fn sums<S: Simd, const N: usize>(self, simd: S, right: Columns<'_, T>) -> [[T::Vector<S>; N]; H] {
        let mut sums = [[T::splat(simd, T::zeroed()); N]; H];
        for (left, right_row) in self.values.chunks_exact(self.stride).zip(right.values.chunks_exact(right.stride)) {
            let right_row = ahead::<T, S, N>(right, right_row);
            let left = &left[self.first..self.first + H].as_chunks::<H>().0[0];
            add_term(simd, left, right_row, &mut sums);
        }
        sums
    }
}

/// The vectors of a row of the right side that a tile reads. Some terms further on they are fetched: before anything is read for this term,
/// since the compiler moves no read past that, and registers are scarce.
#[inline(always)]
fn ahead<'a, T: Lanes, S: Simd, const N: usize>(right: Columns<'_, T>, row: &'a [T]) -> &'a [T::Vector<S>; N] {
    let width = N * lanes::<T, S>();
    let row = &row[right.first..right.first + width];
    prefetch(row, TERMS_AHEAD * right.stride, width);
    &T::vectors::<S>(row).as_chunks::<N>().0[0]
}

/// One multiply-add for every sum of a tile.
#[inline(always)]
fn add_term<T: Lanes, S: Simd, const H: usize, const N: usize>(
    simd: S,
    left: &[T; H],
    right: &[T::Vector<S>; N],
    sums: &mut [[T::Vector<S>; N]; H],
) {
    for (&left, sums) in left.iter().zip(sums) {
        let left = T::splat(simd, left);
        for (&right, sum) in right.iter().zip(sums) {
            *sum = T::mul_add(simd, left, right, *sum);
        }
    }
}

/// A tile's sums take the place of what is in the columns of c, or are added to it. Of c the first rows alone may be there.
#[inline(always)]
pub fn add_tile<T: Lanes, S: Simd, L: Left<T, H>, const H: usize, const N: usize>(
    simd: S,
    left: L,
    right: Columns<'_, T>,
    adds: bool,
    (rows, c): (usize, &mut [&mut [T]; H]),
    columns: Range<usize>,
) {
    let sums = left.sums::<S, N>(simd, right);
    if rows == H && columns.len() == N * lanes::<T, S>() {
        // Straight from the registers.
        for (c, sums) in c.iter_mut().zip(&sums) {
            let c = T::vectors_mut::<S>(&mut c[columns.clone()]);
            for (c, &sum) in c.iter_mut().zip(sums) {
                *c = if adds { T::plus(simd, *c, sum) } else { sum };
            }
        }
        return;
    }
    let width = lanes::<T, S>();
    // By value, and with a number of turns that is known: else sums would lie in memory on the way above, too.
    for (index, (c, sums)) in c.iter_mut().zip(sums).enumerate() {
        if index < rows {
            let mut rest = &mut c[columns.clone()];
            for sum in sums {
                let (c, after) = rest.split_at_mut(width.min(rest.len()));
                let sum = if adds { T::plus(simd, T::load_some(simd, c), sum) } else { sum };
                T::store_some(simd, c, sum);
                rest = after;
            }
        }
    }
}
