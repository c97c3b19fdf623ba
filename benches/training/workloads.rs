//! The seven trainings of `benches/peers/workloads.py`: the same shapes, sizes, optimizers and batches.

use anyhow::anyhow;
use epochd::domain::{
    Activation, Architecture, At, Faults, Preprocessing, RawArchitecture, RawLayer, RawMatrix, RawOptimizer,
    RawTraining, Values,
};
use epochd::engine::random::Stream;
use epochd::engine::{AnyTrainer, Purpose, TrainerInput, draw_parameters};

/// Of the rows, and of the weights that a training starts from.
const SEED: u64 = 7;

/// How parameters follow their gradients; the learning rate stands in the workload.
#[derive(Clone, Copy)]
pub enum Optimizer {
    /// Plain gradient descent.
    Sgd,
    /// With 0.9 of the last step.
    Momentum,
    /// With its defaults.
    Adam,
}

/// One training. The loss follows from `output`: cross-entropy for softmax and sigmoid, squared error for identity.
#[derive(Clone)]
pub struct Workload {
    pub name: &'static str,
    /// Input width, hidden units, outputs.
    pub widths: &'static [usize],
    pub hidden: Activation,
    pub output: Activation,
    pub optimizer: Optimizer,
    pub learning_rate: f64,
    pub batch: usize,
    pub rows: usize,
    /// Epochs in one timed repeat.
    pub epochs: u32,
}

/// All of them, smallest first.
pub fn workloads() -> [Workload; 7] {
    use Activation::{Identity, Relu, Sigmoid, Softmax, Tanh};
    use Optimizer::{Adam, Momentum, Sgd};
    let workload = |name, widths, (hidden, output), (optimizer, learning_rate), batch, rows, epochs| Workload {
        name,
        widths,
        hidden,
        output,
        optimizer,
        learning_rate,
        batch,
        rows,
        epochs,
    };
    [
        workload("W1_xor", &[2, 4, 1], (Tanh, Sigmoid), (Sgd, 0.5), 4, 4, 5000),
        workload("W2_iris", &[4, 16, 3], (Relu, Softmax), (Adam, 1e-3), 16, 150, 100),
        workload("W3_digits", &[64, 64, 10], (Relu, Softmax), (Adam, 1e-3), 32, 1797, 10),
        workload("W4_mnist", &[784, 128, 10], (Relu, Softmax), (Momentum, 1e-2), 64, 60_000, 1),
        workload("W5_mnist_deep", &[784, 512, 256, 10], (Relu, Softmax), (Adam, 1e-3), 128, 60_000, 1),
        workload("W6_tabular", &[128, 1024, 1024, 1], (Relu, Identity), (Adam, 1e-3), 512, 50_000, 1),
        workload("W7_gemm", &[1024, 2048, 2048, 1000], (Relu, Softmax), (Adam, 1e-3), 512, 5_120, 1),
    ]
}

impl Workload {
    /// Steps of an epoch; the last one may have fewer rows.
    pub fn steps(&self) -> usize {
        self.rows.div_ceil(self.batch)
    }

    /// Layers as (inputs, units).
    pub fn layers(&self) -> impl Iterator<Item = (usize, usize)> {
        self.widths.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// Operations of an epoch's products, two for a multiply-add: forward, weight gradient and input gradient, which the first
    /// layer does without.
    pub fn operations_per_epoch(&self) -> f64 {
        let weights: usize = self.layers().map(|(inputs, units)| inputs * units).sum();
        (6 * weights - 2 * self.widths[0] * self.widths[1]) as f64 * self.rows as f64
    }

    /// A training of `epochs` that visits the rows in order, as the peers do.
    pub fn trainer(&self, epochs: u64, report_every: u32) -> anyhow::Result<AnyTrainer> {
        Ok(AnyTrainer::new(self.input(epochs, report_every)?))
    }

    /// What it starts from.
    pub fn input(&self, epochs: u64, report_every: u32) -> anyhow::Result<TrainerInput> {
        let architecture = self.architecture()?;
        let (inputs, targets) = self.data();
        let matrix = |values| RawMatrix { values, rows: None, columns: None };
        let training = RawTraining {
            optimizer: Some(self.raw_optimizer()),
            epochs: Some(i64::try_from(epochs)?),
            batch_size: Some(self.batch as i64),
            shuffle: Some(false),
            seed: Some(SEED),
            report_every: Some(i64::from(report_every)),
            ..RawTraining::new(matrix(inputs), matrix(targets))
        };
        let checked = training.check(&architecture, SEED);
        let (settings, data) = checked.map_err(|faults| anyhow!("{}: {faults:?}", self.name))?;
        let parameters = draw_parameters(&architecture, SEED);
        let preprocessing = Preprocessing::default();
        Ok(TrainerInput { architecture, settings, data, preprocessing, fitted: None, parameters })
    }

    fn architecture(&self) -> anyhow::Result<Architecture> {
        let units = &self.widths[1..];
        let activation = |layer| if layer + 1 == units.len() { self.output } else { self.hidden };
        let layers = units.iter().enumerate().map(|(layer, &units)| {
            Some(RawLayer { units: units as i64, activation: activation(layer), ..RawLayer::default() })
        });
        let input_width = self.widths[0] as i64;
        let raw = RawArchitecture { input_width, layers: layers.collect(), ..RawArchitecture::default() };
        let mut faults = Faults::new();
        raw.check(At::ROOT, &mut faults).ok_or_else(|| anyhow!("{}: {faults:?}", self.name))
    }

    fn raw_optimizer(&self) -> RawOptimizer {
        let learning_rate = Some(self.learning_rate);
        let sgd = |momentum| RawOptimizer::Sgd {
            learning_rate,
            momentum: Some(momentum),
            dampening: None,
            nesterov: false,
            weight_decay: None,
        };
        match self.optimizer {
            Optimizer::Sgd => sgd(0.0),
            Optimizer::Momentum => sgd(0.9),
            Optimizer::Adam => RawOptimizer::Adam {
                learning_rate,
                beta1: None,
                beta2: None,
                epsilon: None,
                weight_decay: None,
                amsgrad: false,
            },
        }
    }

    /// Inputs and targets: XOR's table, or normal numbers with classes (or numbers) drawn for them.
    pub fn data(&self) -> (Values, Values) {
        let outputs = self.widths[self.widths.len() - 1];
        if self.output == Activation::Sigmoid {
            let inputs = vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
            return (Values::F32(inputs), Values::F32(vec![0.0, 1.0, 1.0, 0.0]));
        }
        let mut stream = Stream::new(SEED, Purpose::Initializer, 0, 0);
        let inputs = (0..self.rows * self.widths[0]).map(|_| stream.normal() as f32).collect();
        let targets = match self.output {
            Activation::Softmax => (0..self.rows).map(|_| stream.below(outputs as u32) as f32).collect(),
            _ => (0..self.rows * outputs).map(|_| stream.normal() as f32).collect(),
        };
        (Values::F32(inputs), Values::F32(targets))
    }
}
