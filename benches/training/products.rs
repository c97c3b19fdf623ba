//! The matrix products of a training alone, as our trainings have them done; `benches/peers/torch_products.py` does the same by
//! PyTorch.

use std::time::{Duration, Instant};

use epochd::engine::Workers;
use epochd::engine::aligned::Aligned;
use epochd::engine::product::{Shape, float32, room_len};

use crate::workloads::Workload;

/// How long a measurement takes at least.
const TIME_MIN: Duration = Duration::from_millis(300);

/// Seconds of the products of one epoch.
pub fn seconds_per_epoch(products: &mut [Product], workload: &Workload, workers: &Workers) -> f64 {
    let mut rounds = 1;
    loop {
        let time = time_of_rounds(products, workers, rounds);
        if time >= TIME_MIN {
            let batches = workload.rows as f64 / workload.batch as f64;
            return time.as_secs_f64() / rounds as f64 * batches;
        }
        rounds *= 2;
    }
}

/// The products of one step of a full batch, in its order: forward, then each layer's gradients from the last one down.
pub fn of_step(workload: &Workload) -> Vec<Product> {
    let rows = workload.batch;
    let layers: Vec<_> = workload.layers().enumerate().collect();
    let forward = layers.iter().map(|&(_, (inputs, units))| Product::new(Kind::Forward, rows, inputs, units));
    let backward = layers.iter().rev().flat_map(|&(layer, (inputs, units))| {
        let weights = Product::new(Kind::WeightGradient, inputs, rows, units);
        let input = (layer > 0).then(|| Product::new(Kind::InputGradient, rows, units, inputs));
        [Some(weights), input].into_iter().flatten()
    });
    forward.chain(backward).collect()
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

/// One product with operands of its own, which begin at a line of the caches as those of a training do: `[rows, inner]` by `[inner, columns]`.
pub struct Product {
    kind: Kind,
    rows: usize,
    inner: usize,
    columns: usize,
    left: Aligned<f32>,
    right: Aligned<f32>,
    result: Aligned<f32>,
    /// See [`room_len`].
    room: Aligned<f32>,
}

impl Product {
    fn new(kind: Kind, rows: usize, inner: usize, columns: usize) -> Self {
        let numbers = |count: usize| {
            Aligned::from((0..count).map(|index| (index as f32 * 0.618_034).fract() - 0.5).collect::<Vec<_>>())
        };
        let (left, right, result) = (numbers(rows * inner), numbers(inner * columns), Aligned::zeros(rows * columns));
        let room = Aligned::zeros(room_len(Shape { rows, inputs: inner, units: columns }));
        Self { kind, rows, inner, columns, left, right, result, room }
    }

    fn run(&mut self, workers: &Workers) {
        let Self { kind, rows, inner, columns, ref left, ref right, ref mut result, ref mut room, .. } = *self;
        match kind {
            Kind::Forward => {
                let shape = Shape { rows, inputs: inner, units: columns };
                float32::product(workers, shape, left, right, result, room);
            }
            Kind::WeightGradient => {
                let shape = Shape { rows: inner, inputs: rows, units: columns };
                float32::transposed_product(workers, shape, left, right, result);
            }
            Kind::InputGradient => {
                let shape = Shape { rows, inputs: columns, units: inner };
                float32::product_with_transposed(workers, shape, left, right, result);
            }
        }
    }
}

/// All the products so often.
fn time_of_rounds(products: &mut [Product], workers: &Workers, rounds: usize) -> Duration {
    let start = Instant::now();
    (0..rounds).for_each(|_| products.iter_mut().for_each(|product| product.run(workers)));
    start.elapsed()
}
