//! Operands of the largest products of trainings, copied as a whole before, by all threads.
//!
//! A thread on which trainings take turns keeps the room for them, up to [`LENGTH_MAX`] numbers each: so only threads that train do this.

use std::mem;

use super::blocked::{COLUMN_UNIT, Operand, Pack, Packed, ROW_UNIT, room};
use super::cuts;
use crate::engine::aligned::Aligned;
use crate::engine::element::Element;
use crate::engine::unchecked::team::Workers;

/// Multiply-adds from which on it pays: with fewer, threads wait for each other longer than they gain.
const OPERATIONS_MIN: usize = 1 << 28;
/// Rows from which on it pays: with fewer each number of b is read too seldom.
const ROWS_MIN: usize = 65;
/// The most numbers of a copy: 8 MB of float32. There is room for as many from the first product on that is worth it, since a later one may
/// need more and no step allocates; what is not touched takes no memory.
const LENGTH_MAX: usize = 1 << 21;
/// Pieces of an operand, which are shared out.
const PIECES: usize = 8;

/// Copies of a, and of b where threads share the result by rows, in the room of this thread: it has it back when they are dropped.
pub struct Packing<T: Element> {
    rooms: [Aligned<T>; 2],
    left_len: usize,
    /// None where parts copy what they need of b.
    right_len: Option<usize>,
}

impl<T: Element> Packing<T> {
    /// None where the product is too small, they would be too large, or nobody trains here.
    pub fn new(
        workers: &Workers,
        by_rows: bool,
        (a, b): (Operand<'_, T>, Operand<'_, T>),
        (rows, columns, depth): (usize, usize, usize),
    ) -> Option<Self> {
        if rows < ROWS_MIN || rows * columns * depth < OPERATIONS_MIN || !workers.are_a_team() {
            return None;
        }
        let (left_len, right_len) = (Packed::<T>::left_len(rows, depth), Packed::<T>::right_len(columns, depth));
        let right_len = by_rows.then_some(right_len);
        // Parts of the product may run on this thread, and have its other room. What does not fit in this step may in a later one.
        let mut rooms = T::with_copies(|copies| mem::take(&mut copies.packed));
        room(&mut rooms[0], 0, LENGTH_MAX);
        if by_rows {
            room(&mut rooms[1], 0, LENGTH_MAX);
        }
        let mut packing = Self { rooms, left_len, right_len };
        if left_len.max(right_len.unwrap_or_default()) > LENGTH_MAX {
            return None;
        }
        packing.copy(workers, (a, b), (rows, columns, depth));
        Some(packing)
    }

    fn copy(
        &mut self,
        workers: &Workers,
        (a, b): (Operand<'_, T>, Operand<'_, T>),
        (rows, columns, depth): (usize, usize, usize),
    ) {
        let [left, right] = &mut self.rooms;
        let mut left = room(left, self.left_len, LENGTH_MAX);
        let mut right = self.right_len.map(|length| room(right, length, LENGTH_MAX));
        let lefts = cuts(rows, PIECES, ROW_UNIT).map(|(first, rows)| {
            let to = left.split_off_mut(..Packed::<T>::left_len(rows, depth)).unwrap_or_default();
            Pack::Left { a, first, rows, depth, to }
        });
        let rights = cuts(columns, PIECES, COLUMN_UNIT).map_while(|(first, columns)| {
            let to = right.as_mut()?.split_off_mut(..Packed::<T>::right_len(columns, depth))?;
            Some(Pack::Right { b, first, columns, depth, to })
        });
        workers.for_each(lefts.chain(rights), |pack| pulp::Arch::new().dispatch(pack));
    }

    /// What the parts of the product read.
    pub fn packed(&mut self) -> Packed<'_, T> {
        let [left, right] = &mut self.rooms;
        let right = self.right_len.map(|length| &*room(right, length, LENGTH_MAX));
        Packed { left: room(left, self.left_len, LENGTH_MAX), right }
    }
}

impl<T: Element> Drop for Packing<T> {
    fn drop(&mut self) {
        T::with_copies(|copies| copies.packed = mem::take(&mut self.rooms));
    }
}
