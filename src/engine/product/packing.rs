//! Operands of the largest products of trainings, copied as a whole before, by all threads.
//!
//! The thread whose training it is keeps the room for them, up to [`LENGTH_MAX`] numbers each: so only threads that train do this.

use std::mem;

use super::blocked::{COLUMN_UNIT, Operand, Pack, Packed, ROW_UNIT, room};
use super::cuts;
use crate::engine::element::Element;
use crate::engine::unchecked::team::Workers;

/// Multiply-adds from which on it pays: with fewer, threads wait for each other longer than they gain.
const OPERATIONS_MIN: usize = 1 << 28;
/// Rows from which on it pays: with fewer each number of b is read too seldom.
const ROWS_MIN: usize = 65;
/// The most numbers of a copy: 8 MB of float32. There is room for as many from the first on, since a later product may need more than an
/// earlier one and no step allocates; what is not touched takes no memory.
const LENGTH_MAX: usize = 1 << 21;
/// Pieces of an operand, which are shared out.
const PIECES: usize = 8;

/// Calls `work` with copies of a, and of b where threads share the result by rows; or with none, where the product is too small, they would
/// be too large, or nobody trains here.
pub fn with_packed<T: Element>(
    workers: &Workers,
    by_rows: bool,
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    (rows, columns, depth): (usize, usize, usize),
    work: impl FnOnce(Option<Packed<'_, T>>),
) {
    let left_len = Packed::<T>::left_len(rows, depth);
    let right_len = if by_rows { Packed::<T>::right_len(columns, depth) } else { 0 };
    let is_worth_it = rows >= ROWS_MIN && rows * columns * depth >= OPERATIONS_MIN;
    if !is_worth_it || !workers.are_a_team() || left_len.max(right_len) > LENGTH_MAX {
        return work(None);
    }
    // Parts of the work may run on this thread, and have its other room.
    let [mut left_room, mut right_room] = T::with_copies(|copies| mem::take(&mut copies.packed));
    let left = room(&mut left_room, left_len, LENGTH_MAX);
    let right: &mut [T] = if by_rows { room(&mut right_room, right_len, LENGTH_MAX) } else { &mut [] };
    {
        let (mut left, mut right) = (&mut *left, &mut *right);
        let lefts = cuts(rows, PIECES, ROW_UNIT).map(|(first, rows)| {
            let to = left.split_off_mut(..Packed::<T>::left_len(rows, depth)).unwrap_or_default();
            Pack::Left { a, first, rows, depth, to }
        });
        let rights = cuts(columns, PIECES, COLUMN_UNIT).filter(|_| by_rows).map(|(first, columns)| {
            let to = right.split_off_mut(..Packed::<T>::right_len(columns, depth)).unwrap_or_default();
            Pack::Right { b, first, columns, depth, to }
        });
        workers.for_each(lefts.chain(rights), |pack| pulp::Arch::new().dispatch(pack));
    }
    work(Some(Packed { left, right: by_rows.then_some(right) }));
    T::with_copies(|copies| copies.packed = [left_room, right_room]);
}
