use super::*;
use crate::engine::element::Element;
use crate::engine::product::caches::tests::TOLD;
use crate::engine::random::{Purpose, Stream};

/// Rows of the result: around the heights of strips, and of all strips whose columns are copied together.
const ROWS: [usize; 32] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 24, 25, 29, 47, 48, 63, 64, 65, 96, 97,
    117,
];
/// Terms of a sum: around a group of them.
const DEPTHS: [usize; 10] = [1, 2, 3, 16, 67, 511, 512, 513, 1_023, 1_029];
/// Columns of the result: around the vectors and panels of all processors, what is read where it is, and a block.
const COLUMNS_AND_ONE: [usize; 26] =
    [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 65, 127, 128, 129, 144, 511, 513, 1_030];

/// Bytes of second caches: for the narrowest blocks, for some between, and for the widest.
const SECOND_CACHES: [usize; 3] = [0, 3 << 19, usize::MAX];

fn random<T: Element>(count: usize, salt: u64) -> Vec<T> {
    let mut stream = Stream::new(salt, Purpose::Initializer, count as u64, 0);
    (0..count).map(|_| T::from_f64(stream.uniform() * 2.0 - 1.0)).collect()
}

/// A stored matrix that is larger than the operand in it: the operand begins at a row and at a column of its own.
struct Stored<T> {
    values: Vec<T>,
    stride: usize,
    is_transposed: bool,
}

impl<T: Element> Stored<T> {
    fn new(rows: usize, columns: usize, is_transposed: bool, salt: u64) -> Self {
        let (stored, stride) = if is_transposed { (columns, rows) } else { (rows, columns) };
        Self { values: random(stored * stride, salt), stride, is_transposed }
    }

    fn operand(&self) -> Operand<'_, T> {
        Operand { values: &self.values, stride: self.stride, is_transposed: self.is_transposed }
    }

    fn at(&self, row: usize, column: usize) -> T {
        let (row, column) = if self.is_transposed { (column, row) } else { (row, column) };
        self.values[row * self.stride + column]
    }
}

#[test]
fn groups_hold_each_term_once_in_order_and_none_is_too_long() {
    for depth in 1..3 * DEPTH {
        let mut next = 0;
        for (first, count) in groups(depth) {
            assert!(first == next && (1..=DEPTH).contains(&count), "{depth}");
            next = first + count;
        }
        assert_eq!(next, depth);
    }
    assert!(groups(784).eq([(0, 384), (384, 400)]) && groups(1_024).eq([(0, 512), (512, 512)]));
}

/// One element of a·b, by the definition at this module's head.
fn element<T: Element>(
    mul_add: fn(T, T, T) -> T,
    (a, b): (&Stored<T>, &Stored<T>),
    (row, column, depth): (usize, usize, usize),
    before: Option<T>,
) -> T {
    let group = |(first, count): (usize, usize)| {
        (first..first + count).fold(T::ZERO, |sum, term| mul_add(a.at(row, term), b.at(term, column), sum))
    };
    let mut groups = groups(depth).map(group);
    let first = groups.next().unwrap();
    groups.fold(before.map_or(first, |before| before + first), |sum, group| sum + group)
}

fn check<T: Element>(mul_add: fn(T, T, T) -> T, rows: usize, depth: usize, columns: usize) {
    // A part of a larger product: two rows and three columns come before it, one of each after it.
    let (row, column) = (2, 3);
    for (turns_a, turns_b, adds) in
        [(false, false, false), (false, true, false), (true, false, false), (true, false, true)]
    {
        let a = Stored::<T>::new(row + rows + 1, depth, turns_a, 1);
        let b = Stored::<T>::new(depth, column + columns + 1, turns_b, 2);
        let before = random::<T>(rows * (columns + 2), 3);
        let mut all = before.clone();
        // The result lies in wider rows, too.
        let wide = ArrayViewMut2::from_shape((rows, columns + 2), &mut all).unwrap();
        let (_, c) = wide.split_at(Axis(1), 1);
        let (c, _) = c.split_at(Axis(1), columns);
        let mut copies = Copies::empty();
        let (a_operand, b_operand, copies) = (a.operand(), b.operand(), &mut copies);
        let product = Product {
            a: a_operand,
            b: b_operand,
            row,
            column,
            depth,
            terms: 0..depth,
            c,
            adds,
            copies,
            whole: None,
            packed: None,
        };
        pulp::Arch::new().dispatch(product);
        for (index, (&c, &before)) in all.iter().zip(&before).enumerate() {
            let (i, j) = (index / (columns + 2), index % (columns + 2));
            let is_outside = j == 0 || j == columns + 1;
            let place = || (row + i, column + j - 1, depth);
            let expected =
                if is_outside { before } else { element(mul_add, (&a, &b), place(), adds.then_some(before)) };
            assert!(
                c == expected,
                "{rows}×{depth}×{columns}, {turns_a} {turns_b} {adds}: {c:?} at {i}, {j}, not {expected:?}"
            );
        }
    }
}

/// Every number of rows with some depth and columns, and so on.
fn check_all<T: Element>(mul_add: fn(T, T, T) -> T) {
    let mul_add = here(mul_add);
    for (index, rows) in ROWS.into_iter().enumerate() {
        check(mul_add, rows, DEPTHS[index % 5], COLUMNS_AND_ONE[index % COLUMNS_AND_ONE.len()]);
        check(mul_add, rows, DEPTHS[(index + 1) % 5], COLUMNS_AND_ONE[(7 * index + 3) % COLUMNS_AND_ONE.len()]);
    }
    for columns in COLUMNS_AND_ONE {
        check(mul_add, 13, 5, columns);
        check(mul_add, 3, 9, columns);
    }
    for depth in DEPTHS {
        check(mul_add, 14, depth, 37);
        check(mul_add, 13, depth, 133);
        check(mul_add, 2, depth, 150);
    }
    check(mul_add, 70, 530, 600);
}

/// What is copied and goes in several blocks, of which the last is narrow; of few terms in fewer.
fn check_wide<T: Element>(mul_add: fn(T, T, T) -> T) {
    check(here(mul_add), 67, 1_029, 1_030);
    check(here(mul_add), 67, 100, 700);
}

/// As this processor multiplies and adds.
fn here<T: Element>(mul_add: fn(T, T, T) -> T) -> fn(T, T, T) -> T {
    if matches!(pulp::Arch::new(), pulp::Arch::Scalar) { |a, b, c| a * b + c } else { mul_add }
}

#[test]
fn every_element_is_one_sequence_of_operations_whatever_the_shape() {
    check_all::<f32>(f32::mul_add);
    check_all::<f64>(f64::mul_add);
}

#[test]
fn what_is_not_a_number_stays_in_its_row_and_column() {
    let (rows, depth, columns) = (30, 40, 50);
    let mut a = Stored::<f32>::new(rows, depth, false, 1);
    let mut b = Stored::<f32>::new(depth, columns, true, 2);
    a.values[7 * depth + 3] = f32::NAN;
    b.values[49 * depth + 5] = f32::INFINITY;
    let mut c = vec![0.0; rows * columns];
    let view = ArrayViewMut2::from_shape((rows, columns), &mut c).unwrap();
    let copies = &mut Copies::empty();
    let (a, b) = (a.operand(), b.operand());
    pulp::Arch::new().dispatch(Product {
        a,
        b,
        row: 0,
        column: 0,
        depth,
        terms: 0..depth,
        c: view,
        adds: false,
        copies,
        whole: None,
        packed: None,
    });
    for (index, c) in c.iter().enumerate() {
        assert_eq!(c.is_finite(), index / columns != 7 && index % columns != 49, "{index}");
    }
}

#[test]
fn a_copy_of_b_serves_the_parts_of_one_product_and_no_other_product() {
    let (depth, columns) = (20, 70);
    let a = Stored::<f32>::new(100, depth, true, 1);
    // Of the same shape, so that nothing but the product tells them apart.
    let [first, second] = [2, 3].map(|seed| Stored::<f32>::new(depth, columns, false, seed));
    let copies = &mut Copies::empty();
    let mut product = |rows: usize, b: &Stored<f32>, whole: Option<Whole>| {
        let mut c = vec![0.0; rows * columns];
        let view = ArrayViewMut2::from_shape((rows, columns), &mut c).unwrap();
        let (a, b, terms, adds) = (a.operand(), b.operand(), 0..depth, false);
        let product = Product { a, b, row: 0, column: 0, depth, terms, c: view, adds, copies, whole, packed: None };
        pulp::Arch::new().dispatch(product);
        let mut see = |part: SeenPart<'_, f32>| {
            let place = part.place.0 * columns + part.place.1;
            assert!(part.width == columns && c[place..][..part.numbers.len()] == *part.numbers);
        };
        let (shape, see) = ((rows, columns), &mut see);
        pulp::Arch::new().dispatch(SeenProduct {
            a,
            b,
            row: 0,
            column: 0,
            shape,
            depth,
            see,
            copies,
            whole,
            packed: None,
            beside: Beside::NOTHING,
        });
        c
    };
    let [of_first, of_second] = [&first, &second].map(|b| product(100, b, None));
    assert_ne!(of_first, of_second);
    let whole = Some(Whole::new());
    assert_eq!(product(100, &first, whole), of_first);
    // Parts of the same product have the same b: that another stands here shows that its copy is read, also for a few rows.
    assert_eq!(product(100, &second, whole), of_first);
    assert_eq!(product(10, &second, whole), of_first[..10 * columns]);
    assert_eq!(product(100, &second, Some(Whole::new())), of_second);
    assert_eq!(product(100, &first, None), of_first);
    // A few rows first, whose b is read where it is by what is kept of the product; what is seen copies it.
    let whole = Some(Whole::new());
    assert_eq!(product(10, &first, whole), of_first[..10 * columns]);
    assert_eq!(product(100, &second, whole), of_first);
    assert_eq!(product(100, &second, None), of_second);
}

/// Parts of the result that are seen once each, as [`Product`] computes them.
fn check_seen<T: Element>(rows: usize, depth: usize, columns: usize) {
    let (row, column) = (2, 3);
    let a = Stored::<T>::new(row + rows + 1, depth, true, 1);
    let b = Stored::<T>::new(depth, column + columns + 1, false, 2);
    let (a, b) = (a.operand(), b.operand());
    let mut expected = vec![T::ZERO; rows * columns];
    let c = ArrayViewMut2::from_shape((rows, columns), &mut expected).unwrap();
    let copies = &mut Copies::empty();
    pulp::Arch::new().dispatch(Product {
        a,
        b,
        row,
        column,
        depth,
        terms: 0..depth,
        c,
        adds: false,
        copies,
        whole: None,
        packed: None,
    });

    let mut seen = vec![None; rows * columns];
    let mut see = |SeenPart { place: (row, column), numbers: part, width }: SeenPart<'_, T>| {
        assert!(column + width <= columns && part.len().is_multiple_of(width));
        for (index, part) in part.chunks(width).enumerate() {
            for (to, &value) in seen[(row + index) * columns + column..].iter_mut().zip(part) {
                assert!(to.replace(value).is_none(), "{row}, {column} comes twice");
            }
        }
    };
    let shape = (rows, columns);
    pulp::Arch::new().dispatch(SeenProduct {
        a,
        b,
        row,
        column,
        shape,
        depth,
        see: &mut see,
        copies,
        whole: None,
        packed: None,
        beside: Beside::NOTHING,
    });
    assert!(seen.iter().copied().eq(expected.into_iter().map(Some)), "{rows}×{depth}×{columns}");
}

#[test]
fn a_product_that_is_seen_has_the_bits_of_one_that_is_kept() {
    for (rows, depth, columns) in
        [(1, 2, 1), (5, 3, 37), (96, 7, 512), (97, 5, 513), (192, 2, 64), (200, 512, 130), (301, 33, 1_030)]
    {
        check_seen::<f32>(rows, depth, columns);
        check_seen::<f64>(rows, depth, columns);
    }
}

/// Copies of whole operands, each made in two pieces where it is long enough.
fn copies_of<T: Element>(
    copy: impl Fn(Pack<'_, T>),
    (a, b): (Operand<'_, T>, Operand<'_, T>),
    (rows, depth, columns): (usize, usize, usize),
) -> [Vec<T>; 2] {
    // What was there before is not read.
    let nan = T::from_f64(f64::NAN);
    let mut left = vec![nan; Packed::<T>::left_len(rows, depth)];
    let mut right = vec![nan; Packed::<T>::right_len(columns, depth)];
    let (row_cut, column_cut) = (rows / 2 / ROW_UNIT * ROW_UNIT, columns / 2 / COLUMN_UNIT * COLUMN_UNIT);
    let (first, second) = left.split_at_mut(row_cut * depth);
    let (third, fourth) = right.split_at_mut(column_cut * depth);
    for pack in [
        Pack::Left { a, first: 0, rows: row_cut, depth, to: first },
        Pack::Left { a, first: row_cut, rows: rows - row_cut, depth, to: second },
        Pack::Right { b, first: 0, columns: column_cut, depth, to: third },
        Pack::Right { b, first: column_cut, columns: columns - column_cut, depth, to: fourth },
    ] {
        copy(pack);
    }
    [left, right]
}

/// Four parts of a product with copies of whole operands are what the product is without.
fn check_packed<T: Element, S: Simd>(simd: S, rows: usize, depth: usize, columns: usize) {
    for (turns_a, turns_b, packs_b, adds) in
        [(false, false, false, false), (false, true, false, true), (true, false, true, false), (true, true, true, true)]
    {
        let (a, b) = (Stored::<T>::new(rows, depth, turns_a, 1), Stored::<T>::new(depth, columns, turns_b, 2));
        let (a, b) = (a.operand(), b.operand());
        let copies = &mut Copies::empty();
        let mut expected = random::<T>(rows * columns, 3);
        let mut all = expected.clone();
        let terms = 0..depth;
        let c = ArrayViewMut2::from_shape((rows, columns), &mut expected).unwrap();
        simd.vectorize(Product { a, b, row: 0, column: 0, depth, terms, c, adds, copies, whole: None, packed: None });

        let [left, right] = &copies_of(|pack| simd.vectorize(pack), (a, b), (rows, depth, columns));
        let packed_operands = Some(Packed { left, right: packs_b.then_some(right) });
        let c = ArrayViewMut2::from_shape((rows, columns), &mut all).unwrap();
        // Parts begin with any strip, and, where b is not copied before, with any line.
        let height = packed::height::<S>();
        let unit = if packs_b { COLUMN_UNIT } else { 16 };
        let (row, column) = (rows / 2 / height * height, columns / 2 / unit * unit);
        let (above, below) = c.split_at(Axis(0), row);
        for (row, c) in [(0, above), (row, below)] {
            let (before, after) = c.split_at(Axis(1), column);
            for (column, c) in [(0, before), (column, after)] {
                let terms = 0..depth;
                let packed = packed_operands;
                simd.vectorize(Product { a, b, row, column, depth, terms, c, adds, copies, whole: None, packed });
            }
        }
        assert!(all == expected, "{rows}×{depth}×{columns}, {turns_a} {turns_b} {packs_b}");
    }
}

/// For every kind of vectors that this processor has, and none: heights of strips and widths of panels are theirs.
#[test]
fn copies_of_whole_operands_change_no_bit_whatever_the_second_cache() {
    for bytes in SECOND_CACHES {
        TOLD.set(Some(bytes));
        check_packed_on(pulp::Scalar::new());
        #[cfg(target_arch = "x86_64")]
        {
            pulp::x86::V3::try_new().into_iter().for_each(check_packed_on);
            pulp::x86::V4::try_new().into_iter().for_each(check_packed_on);
        }
        #[cfg(target_arch = "aarch64")]
        pulp::aarch64::Neon::try_new().into_iter().for_each(check_packed_on);
    }
    TOLD.set(None);
}

fn check_packed_on<S: Simd>(simd: S) {
    for (rows, depth, columns) in [
        (1, 1, 1),
        (5, 3, 2),
        (6, 4, 47),
        (8, 7, 48),
        (24, 5, 49),
        (25, 513, 96),
        (47, 16, 97),
        (48, 33, 130),
        (100, 512, 480),
        (131, 9, 481),
        (99, 1_029, 1_000),
    ] {
        check_packed::<f32, S>(simd, rows, depth, columns);
        check_packed::<f64, S>(simd, rows, depth, columns);
    }
}

#[test]
fn what_is_seen_of_a_product_with_copies_of_whole_operands_has_the_same_bits() {
    for (rows, depth, columns) in [(1, 2, 1), (97, 5, 513), (200, 512, 130), (301, 33, 1_030)] {
        let (a, b) = (Stored::<f32>::new(rows, depth, true, 1), Stored::<f32>::new(depth, columns, false, 2));
        let (a, b) = (a.operand(), b.operand());
        let [left, right] = &copies_of(|pack| pulp::Arch::new().dispatch(pack), (a, b), (rows, depth, columns));
        let seen = |packed: Option<Packed<'_, f32>>| {
            let mut seen = vec![f32::NAN; rows * columns];
            let mut see = |SeenPart { place: (row, column), numbers: part, width }: SeenPart<'_, f32>| {
                for (index, part) in part.chunks(width).enumerate() {
                    seen[(row + index) * columns + column..][..width].copy_from_slice(part);
                }
            };
            let (shape, see, copies) = ((rows, columns), &mut see, &mut Copies::empty());
            pulp::Arch::new().dispatch(SeenProduct {
                a,
                b,
                row: 0,
                column: 0,
                shape,
                depth,
                see,
                copies,
                whole: None,
                packed,
                beside: Beside::NOTHING,
            });
            seen
        };
        let expected = seen(None);
        for right in [None, Some(&right[..])] {
            assert_eq!(seen(Some(Packed { left, right })), expected, "{rows}×{depth}×{columns}");
        }
    }
}

#[test]
fn a_block_takes_half_of_a_second_cache() {
    const MEGABYTE: usize = 1 << 20;
    // Of 512 and of 128 float32 a column, for 2 MB and 1 MB.
    assert_eq!(columns_within(2 * MEGABYTE / 2, 512 * 4), 512);
    assert_eq!(columns_within(MEGABYTE / 2, 512 * 4), 256);
    assert_eq!(columns_within(MEGABYTE / 2, 400 * 4), 327);
    assert_eq!(columns_within(MEGABYTE / 2, 128 * 4), 512);
    assert_eq!((columns_within(usize::MAX, 4), columns_within(0, 512 * 8)), (COLUMNS, COLUMNS_MIN));
    for terms in [0, 1, 100, 400, DEPTH, 10 * DEPTH] {
        for unit in [COLUMN_UNIT, BLOCK_UNIT] {
            let columns = columns_max::<f64>(terms, unit);
            assert!(columns.is_multiple_of(unit) && (COLUMNS_MIN / unit * unit..=COLUMNS).contains(&columns));
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_second_cache() {
    for bytes in SECOND_CACHES {
        TOLD.set(Some(bytes));
        check_wide::<f32>(f32::mul_add);
        check_wide::<f64>(f64::mul_add);
    }
    TOLD.set(None);
}
