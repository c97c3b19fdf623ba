//! What products promise: the definition, a row's bits, and a thread's.

use ndarray::{Array2, ArrayView2, Axis, Slice};

use super::*;
use crate::engine::random::{Purpose, Stream};
use crate::engine::unchecked::team::Team;

/// Small and large layers, vectors, sums over more than one group of 512, and the edges between kernels.
const SHAPES: [(usize, usize); 25] = [
    (1, 1),
    (1, 300),
    (300, 1),
    (2, 8),
    (8, 2),
    (16, 16),
    (16, 17),
    (2, 129),
    (129, 2),
    (257, 2),
    (3, 100),
    (37, 11),
    (64, 10),
    (64, 64),
    (65, 33),
    (784, 30),
    (30, 784),
    (513, 5),
    (1_025, 3),
    (1_300, 70),
    (2, 2_000),
    (100, 101),
    (31, 600),
    (32, 257),
    (600, 1_030),
];

fn random<T: Element>(rows: usize, columns: usize, salt: u64) -> Array2<T> {
    let mut stream = Stream::new(salt, Purpose::Initializer, rows as u64, columns as u64);
    Array2::from_shape_simple_fn((rows, columns), || T::from_f64(stream.uniform() * 2.0 - 1.0))
}

fn flat<T>(matrix: &Array2<T>) -> &[T] {
    matrix.as_slice().unwrap()
}

fn flat_mut<T>(matrix: &mut Array2<T>) -> &mut [T] {
    matrix.as_slice_mut().unwrap()
}

fn naive(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    Array2::from_shape_fn((a.nrows(), b.ncols()), |(i, j)| (0..a.ncols()).map(|k| a[(i, k)] * b[(k, j)]).sum())
}

fn product_plus_one<T: Element>(a: ArrayView2<'_, T>, b: &Array2<T>) -> Array2<T> {
    let (x, bias) = (a.to_slice().expect("whole rows"), vec![T::ONE; b.ncols()]);
    let mut c = Array2::from_elem((a.nrows(), b.ncols()), T::from_f64(f64::NAN));
    let shape = Shape { rows: a.nrows(), inputs: b.nrows(), units: b.ncols() };
    affine(&Workers::default(), shape, x, flat(b), Some(&bias), flat_mut(&mut c), &mut [], &|_| {});
    c
}

fn check_rows_alone<T: Element>() {
    for (inputs, units) in SHAPES {
        let a = random::<T>(1_024, inputs, 1);
        let b = random::<T>(inputs, units, 2);
        let all = product_plus_one(a.view(), &b);
        for rows in (1..=70).chain([127, 256, 513]) {
            // From an offset, so that pointers are aligned in another way.
            let first = rows % 7;
            let range = Slice::from(first..first + rows);
            let some = product_plus_one(a.slice_axis(Axis(0), range), &b);
            assert_eq!(some, all.slice_axis(Axis(0), range), "{rows} rows, {inputs}×{units}");
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_of_the_same_row_in_any_batch() {
    check_rows_alone::<f32>();
    check_rows_alone::<f64>();
}

#[test]
fn products_agree_with_the_definition() {
    let alone = Workers::default();
    for (inputs, units) in SHAPES {
        for rows in [1, 2, 5, 33] {
            let (a, b) = (random::<f64>(rows, inputs, 1), random::<f64>(inputs, units, 2));
            let product = naive(&a, &b);
            let close = |x: &Array2<f64>, y: &Array2<f64>| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-11);
            assert!(close(&product_plus_one(a.view(), &b), &(&product + 1.0)), "{rows} rows, {inputs}×{units}");

            let mut weights = Array2::ones((inputs, units));
            let turned = naive(&a.t().to_owned(), &product);
            let shape = Shape { rows, inputs, units };
            let (x, z) = (flat(&a), flat(&product));
            transposed_product(&alone, Onto::Sum, shape, x, z, flat_mut(&mut weights));
            assert!(close(&weights, &(&turned + 1.0)), "{rows} rows, {inputs}×{units}");
            transposed_product(&alone, Onto::Nothing, shape, x, z, flat_mut(&mut weights));
            assert!(close(&weights, &turned), "{rows} rows, {inputs}×{units}");

            let mut back = Array2::ones((rows, inputs));
            product_with_transposed(&alone, shape, z, flat(&b), flat_mut(&mut back));
            let expected = naive(&product, &b.t().to_owned());
            assert!(close(&back, &expected), "{rows} rows, {inputs}×{units}");
        }
    }
}

/// Parts of rows and of columns, with sums over more than one group, and what is left over at the ends.
fn check_team<T: Element>() {
    let team = Workers::of(Team::new(3, || {}).unwrap());
    for (rows, inputs, units) in [
        (64, 784, 128),
        (33, 1_300, 401),
        (130, 700, 130),
        (2, 2_000, 2_100),
        (257, 520, 130),
        (257, 800, 700),
        // Operands are copied before by a team: x and δ, of xᵀ·δ both, where rows are shared.
        (512, 1_400, 1_500),
        (512, 1_500, 1_403),
    ] {
        let (a, b) = (random::<T>(rows, inputs, 1), random::<T>(inputs, units, 2));
        let by = |workers: &Workers| {
            let mut c = Array2::from_elem((rows, units), T::ZERO);
            let shape = Shape { rows, inputs, units };
            let mut room = vec![T::ZERO; room_len(shape)];
            affine(workers, shape, flat(&a), flat(&b), None, flat_mut(&mut c), &mut room, &|_| {});
            let mut weights = Array2::from_elem((inputs, units), T::ONE);
            transposed_product(workers, Onto::Sum, shape, flat(&a), flat(&c), flat_mut(&mut weights));
            let mut back = Array2::from_elem((rows, inputs), T::ZERO);
            product_with_transposed(workers, shape, flat(&c), flat(&b), flat_mut(&mut back));
            (c, weights, back)
        };
        let (alone, together) = (by(&Workers::default()), by(&team));
        assert!(alone == together, "{rows}×{inputs}×{units}: {:?}", {
            let differ = |x: &Array2<T>, y: &Array2<T>| x.iter().zip(y).filter(|(x, y)| x != y).count();
            [differ(&alone.0, &together.0), differ(&alone.1, &together.1), differ(&alone.2, &together.2)]
        });
    }
}

/// The product that is kept, and the one that is seen where another matrix lies, by one thread and by three.
fn check_seen<T: Element>() {
    let teams = [Workers::default(), Workers::of(Team::new(3, || {}).unwrap())];
    for (rows, inputs, units) in
        [(64, 784, 128), (2, 300, 700), (500, 131, 512), (300, 700, 800), (512, 800, 700), (512, 1_500, 1_403)]
    {
        let (a, b) = (random::<T>(rows, inputs, 1), random::<T>(rows, units, 2));
        let shape = Shape { rows, inputs, units };
        assert!(can_be_seen(inputs, units));
        let mut expected = None;
        for workers in &teams {
            let mut kept = Array2::from_elem((inputs, units), T::ZERO);
            transposed_product(workers, Onto::Nothing, shape, flat(&a), flat(&b), flat_mut(&mut kept));
            let mut places = Array2::from_shape_fn((inputs, units), |(i, j)| T::from_f64((i * units + j) as f64));
            let mut seen = Array2::from_elem((inputs, units), T::ZERO);
            let targets = (flat_mut(&mut places), [flat_mut(&mut seen)]);
            transposed_product_seen(workers, shape, flat(&a), flat(&b), targets.0, targets.1, &|runs| {
                for (part, places, [to]) in runs {
                    for ((to, place), &value) in to.iter_mut().zip(places).zip(part) {
                        *to += value;
                        *place += T::ONE;
                    }
                }
            });
            assert!(kept == seen && *expected.get_or_insert(kept) == seen, "{rows}×{inputs}×{units}");
            let mut places = flat(&places).iter().enumerate();
            assert!(places.all(|(index, &it)| it == T::from_f64(index as f64 + 1.0)), "{rows}×{inputs}×{units}");
        }
    }
}

#[test]
fn a_product_that_is_seen_is_the_one_that_is_kept() {
    check_seen::<f32>();
    check_seen::<f64>();
}

/// Whatever the workspace's rows: a smaller batch may be shared where a larger one is not.
#[test]
fn there_is_room_for_every_number_of_rows_that_is_shared() {
    let is_shared = |rows, inputs, units| shared_inputs(Shape { rows, inputs, units }).is_some();
    for (inputs, units) in [(784, 128), (784, 512), (1_024, 700), (513, 128), (1_024, 1_000), (600, 800), (520, 65)] {
        let mut needed = 0;
        for rows in 1..=4_500 {
            if is_shared(rows, inputs, units) {
                needed = rows * units;
            }
            assert_eq!(room_len(Shape { rows, inputs, units }), needed, "{rows}×{inputs}×{units}");
        }
    }
    assert!(is_shared(64, 784, 128) && is_shared(512, 784, 512) && !is_shared(700, 784, 512));
    // Their steps are shared by columns.
    assert!(!is_shared(128, 600, 800) && !is_shared(128, 1_024, 1_024));
}

#[test]
fn a_team_comes_to_the_bits_of_one_thread() {
    check_team::<f32>();
    check_team::<f64>();
}
