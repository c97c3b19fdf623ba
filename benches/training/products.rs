//! The matrix products of a training alone: what no training with the same products can be quicker than.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{hint, slice, thread};

use epochd::engine::Workers;
use epochd::engine::product::{Onto, Shape, affine, product_with_transposed, room_len, transposed_product};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::workloads::Workload;

/// How long a measurement takes at least: starting two threads is nothing beside it.
const TIME_MIN: Duration = Duration::from_millis(300);
/// The same while ways to share a product are tried.
const TRIAL_TIME_MIN: Duration = Duration::from_millis(10);
/// How often each way is tried: what else runs disturbs some of them.
const TRIALS: usize = 2;

/// Seconds of the products of one epoch with one thread or two: by faer, each product shared between them in the way that is quickest
/// for it alone, or by what multiplies in our trainings, whichever is quicker.
pub fn seconds_per_epoch(products: &mut [Product], workload: &Workload, workers: &Workers, threads: usize) -> f64 {
    let by_faer = measure(TIME_MIN, |rounds| time_of_rounds(products, threads, rounds));
    let ours = measure(TIME_MIN, |rounds| time_of_our_rounds(products, workers, rounds));
    by_faer.min(ours) * workload.rows as f64 / workload.batch as f64
}

/// The products of one step of a full batch, in its order: forward, then each layer's gradients from the last one down.
pub fn of_step(workload: &Workload, threads: usize) -> Vec<Product> {
    let rows = workload.batch;
    let layers: Vec<_> = workload.layers().enumerate().collect();
    let forward = layers.iter().map(|&(_, (inputs, units))| Product::new(Kind::Forward, rows, inputs, units));
    let backward = layers.iter().rev().flat_map(|&(layer, (inputs, units))| {
        let weights = Product::new(Kind::WeightGradient, inputs, rows, units);
        let input = (layer > 0).then(|| Product::new(Kind::InputGradient, rows, units, inputs));
        [Some(weights), input].into_iter().flatten()
    });
    let mut products: Vec<_> = forward.chain(backward).collect();
    products.iter_mut().for_each(|product| product.choose(threads));
    products
}

/// Which operand of a row-major pair is read transposed.
#[derive(Clone, Copy)]
enum Kind {
    /// x·w
    Forward,
    /// xᵀ·δ
    WeightGradient,
    /// δ·wᵀ
    InputGradient,
}

/// How two threads share a product.
#[derive(Clone, Copy)]
enum Split {
    /// The first one does it alone.
    Whole,
    /// The upper rows of the result, and the lower.
    Rows,
    /// The left columns of the result, and the right.
    Columns,
}

/// How much of a product a thread gives to faer at once: columns of the result, and terms of its sums.
#[derive(Clone, Copy)]
struct Block {
    columns: usize,
    terms: usize,
}

/// What is tried.
const BLOCKS: [Block; 6] = [
    Block { columns: usize::MAX, terms: usize::MAX },
    Block { columns: 512, terms: usize::MAX },
    Block { columns: 256, terms: usize::MAX },
    Block { columns: 128, terms: usize::MAX },
    Block { columns: 512, terms: 128 },
    Block { columns: usize::MAX, terms: 128 },
];

/// One product with operands of its own: `[rows, inner]` by `[inner, columns]`.
pub struct Product {
    kind: Kind,
    rows: usize,
    inner: usize,
    columns: usize,
    left: Vec<f32>,
    right: Vec<f32>,
    result: Vec<f32>,
    /// What our own product asks for.
    room: Vec<f32>,
    split: Split,
    block: Block,
}

/// What one thread has to do of a product.
struct Task<'a> {
    left: MatRef<'a, f32>,
    right: MatRef<'a, f32>,
    result: MatMut<'a, f32>,
    block: Block,
}

impl Product {
    fn new(kind: Kind, rows: usize, inner: usize, columns: usize) -> Self {
        let numbers = |count: usize| (0..count).map(|index| (index as f32 * 0.618_034).fract() - 0.5).collect();
        let (left, right) = (numbers(rows * inner), numbers(inner * columns));
        let room = vec![0.0; room_len(Shape { rows, inputs: inner, units: columns })];
        let (result, split, block) = (vec![0.0; rows * columns], Split::Whole, BLOCKS[0]);
        Self { kind, rows, inner, columns, left, right, result, room, split, block }
    }

    /// The quickest way for so many threads.
    fn choose(&mut self, threads: usize) {
        let splits = if threads == 1 { &[Split::Whole][..] } else { &[Split::Whole, Split::Rows, Split::Columns] };
        let ways = splits.iter().flat_map(|&split| BLOCKS.map(|block| (split, block)));
        let tried = ways.clone().cycle().take(TRIALS * ways.count()).map(|way| {
            (self.split, self.block) = way;
            let seconds = measure(TRIAL_TIME_MIN, |rounds| time_of_rounds(slice::from_mut(self), threads, rounds));
            (seconds, way)
        });
        if let Some((_, way)) = tried.min_by(|a, b| a.0.total_cmp(&b.0)) {
            (self.split, self.block) = way;
        }
    }

    /// The product as a training has it done.
    fn run_ours(&mut self, workers: &Workers) {
        let Self { kind, rows, inner, columns, ref left, ref right, ref mut result, ref mut room, .. } = *self;
        match kind {
            Kind::Forward => {
                let shape = Shape { rows, inputs: inner, units: columns };
                affine(workers, shape, left, right, None, result, room, |_| {});
            }
            Kind::WeightGradient => {
                let shape = Shape { rows: inner, inputs: rows, units: columns };
                transposed_product(workers, Onto::Nothing, shape, left, right, result);
            }
            Kind::InputGradient => {
                let shape = Shape { rows, inputs: columns, units: inner };
                product_with_transposed(workers, shape, left, right, result);
            }
        }
    }

    /// What the first thread does, and the second.
    fn tasks(&mut self) -> (Option<Task<'_>>, Option<Task<'_>>) {
        let (rows, inner, columns, block) = (self.rows, self.inner, self.columns, self.block);
        let left = match self.kind {
            Kind::WeightGradient => MatRef::from_row_major_slice(&self.left, inner, rows).transpose(),
            Kind::Forward | Kind::InputGradient => MatRef::from_row_major_slice(&self.left, rows, inner),
        };
        let right = match self.kind {
            Kind::InputGradient => MatRef::from_row_major_slice(&self.right, columns, inner).transpose(),
            Kind::Forward | Kind::WeightGradient => MatRef::from_row_major_slice(&self.right, inner, columns),
        };
        let result = MatMut::from_row_major_slice_mut(&mut self.result, rows, columns);
        match self.split {
            Split::Rows if rows > 1 => {
                let ((upper, lower), (a, b)) = (left.split_at_row(half(rows)), result.split_at_row_mut(half(rows)));
                (
                    Some(Task { left: upper, right, result: a, block }),
                    Some(Task { left: lower, right, result: b, block }),
                )
            }
            Split::Columns if columns > 1 => {
                let ((west, east), (a, b)) =
                    (right.split_at_col(half(columns)), result.split_at_col_mut(half(columns)));
                (Some(Task { left, right: west, result: a, block }), Some(Task { left, right: east, result: b, block }))
            }
            Split::Whole | Split::Rows | Split::Columns => (Some(Task { left, right, result, block }), None),
        }
    }
}

/// About the middle: where vectors of 16 still fit, if there are so many.
fn half(count: usize) -> usize {
    if count < 64 { count / 2 } else { (count / 2).next_multiple_of(16) }
}

/// Seconds of a round, of as many as fill the time.
fn measure(time_min: Duration, mut time_of_rounds: impl FnMut(usize) -> Duration) -> f64 {
    let mut rounds = 1;
    loop {
        let time = time_of_rounds(rounds);
        if time >= time_min {
            return time.as_secs_f64() / rounds as f64;
        }
        rounds *= 2;
    }
}

/// All the products so often, as a training has them done.
fn time_of_our_rounds(products: &mut [Product], workers: &Workers, rounds: usize) -> Duration {
    let start = Instant::now();
    (0..rounds).for_each(|_| products.iter_mut().for_each(|product| product.run_ours(workers)));
    start.elapsed()
}

/// All the products so often, by faer.
fn time_of_rounds(products: &mut [Product], threads: usize, rounds: usize) -> Duration {
    let (mut own, others): (Vec<_>, Vec<_>) = products.iter_mut().map(Product::tasks).unzip();
    if threads == 1 {
        let start = Instant::now();
        (0..rounds).for_each(|_| own.iter_mut().flatten().for_each(Task::run));
        return start.elapsed();
    }
    let barrier = Barrier::default();
    thread::scope(|scope| {
        let helper = &barrier;
        scope.spawn(move || work(others, rounds, helper));
        work(own, rounds, &barrier)
    })
}

/// One thread's part of every product, each begun when both threads are done with the one before; the time it took.
fn work(mut tasks: Vec<Option<Task<'_>>>, rounds: usize, barrier: &Barrier) -> Duration {
    let mut met = 0;
    barrier.meet(&mut met);
    let start = Instant::now();
    for _ in 0..rounds {
        for task in &mut tasks {
            task.iter_mut().for_each(Task::run);
            barrier.meet(&mut met);
        }
    }
    start.elapsed()
}

impl Task<'_> {
    fn run(&mut self) {
        let (columns, terms) = (self.result.ncols(), self.left.ncols());
        for column in (0..columns).step_by(self.block.columns.min(columns)) {
            let width = self.block.columns.min(columns - column);
            for first in (0..terms).step_by(self.block.terms.min(terms)) {
                let length = self.block.terms.min(terms - first);
                let accum = if first == 0 { Accum::Replace } else { Accum::Add };
                let right = self.right.submatrix(first, column, length, width);
                let result = self.result.as_mut().subcols_mut(column, width);
                matmul(result, accum, self.left.subcols(first, length), right, 1.0, Par::Seq);
            }
        }
    }
}

/// How often a thread looks for the other before it lets others run: on a machine with other work the other one may stand still.
const SPINS_MAX: u32 = 10_000;

/// Where two threads wait for each other without sleeping.
#[derive(Default)]
struct Barrier(AtomicUsize);

impl Barrier {
    /// Waits until both have come here once more; `met` counts how often they have.
    fn meet(&self, met: &mut usize) {
        *met += 1;
        self.0.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        while self.0.load(Ordering::Acquire) < 2 * *met {
            spins += 1;
            if spins < SPINS_MAX { hint::spin_loop() } else { thread::yield_now() }
        }
    }
}
