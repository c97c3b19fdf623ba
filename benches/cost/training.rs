//! One training in the engine, on one thread.

use std::time::Instant;

use anyhow::{anyhow, bail};
use epochd::domain::{
    Activation, Architecture, At, Faults, Preprocessing, RawArchitecture, RawLayer, RawMatrix, RawTraining, Values,
};
use epochd::engine::{AnyTrainer, Step, TrainerInput, draw_parameters};

/// How long epochs are timed at least, and how many at most.
const SECONDS_MIN: f64 = 0.5;
const EPOCHS_MAX: u32 = 1_000;
const BYTES_OF_FLOAT: usize = 4;

/// Dense layers of ReLU; the last one is softmax where there are several outputs, else the identity. Adam, float32.
pub struct Network {
    /// Input width, units of each layer.
    pub widths: Vec<usize>,
    pub rows: usize,
    pub batch: usize,
}

/// What a training costs.
pub struct Cost {
    /// Of an epoch, the fastest of those that were timed.
    pub seconds: f64,
    /// What the training had allocated at its peak, its rows among it.
    pub peak_bytes: u64,
    /// What it may have by the formula: the rows once, and six copies of the parameters.
    pub formula_bytes: u64,
}

pub fn cost(network: &Network) -> anyhow::Result<Cost> {
    let mut seconds = Err(anyhow!("nothing was timed"));
    let counted = allocation_counter::measure(|| seconds = seconds_of_epoch(network));
    Ok(Cost { seconds: seconds?, peak_bytes: counted.bytes_max, formula_bytes: network.formula_bytes() })
}

fn seconds_of_epoch(network: &Network) -> anyhow::Result<f64> {
    let mut trainer = network.trainer()?;
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    for _ in 0..EPOCHS_MAX {
        let start = Instant::now();
        let end = loop {
            if let Step::Epoch(end) = trainer.step_batch() {
                break end;
            }
        };
        if let Some(stop) = end.stop {
            bail!("the training ended too soon: {}", stop.message);
        }
        best = best.min(start.elapsed().as_secs_f64());
        if begun.elapsed().as_secs_f64() > SECONDS_MIN {
            break;
        }
    }
    Ok(best)
}

impl Network {
    pub fn outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    pub fn parameters(&self) -> usize {
        self.widths.windows(2).map(|pair| (pair[0] + 1) * pair[1]).sum()
    }

    /// The rows as they are trained on: inputs, and a target or a class.
    pub fn data_bytes(&self) -> usize {
        self.rows * (self.widths[0] + 1) * BYTES_OF_FLOAT
    }

    /// Outputs and δ of every layer for a batch, with the inputs that were gathered for it; and the order of the rows.
    pub fn workspace_bytes(&self) -> usize {
        let units: usize = self.widths[1..].iter().sum();
        self.batch.min(self.rows) * (self.widths[0] + 2 * units) * BYTES_OF_FLOAT + self.rows * size_of::<u32>()
    }

    /// Adam: parameters, gradients and two moments; beside them the last whole epoch and what is committed.
    fn formula_bytes(&self) -> u64 {
        (self.data_bytes() + 6 * BYTES_OF_FLOAT * self.parameters() + self.workspace_bytes()) as u64
    }

    pub fn architecture(&self) -> anyhow::Result<Architecture> {
        let units = &self.widths[1..];
        let last = if self.outputs() > 1 { Activation::Softmax } else { Activation::Identity };
        let layers = units.iter().enumerate().map(|(layer, &units)| {
            let activation = if layer + 2 == self.widths.len() { last } else { Activation::Relu };
            Some(RawLayer { units: units as i64, activation, ..RawLayer::default() })
        });
        let input_width = self.widths[0] as i64;
        let raw = RawArchitecture { input_width, layers: layers.collect(), ..RawArchitecture::default() };
        let mut faults = Faults::new();
        raw.check(At::ROOT, &mut faults).ok_or_else(|| anyhow!("{faults:?}"))
    }

    pub fn inputs(&self) -> Vec<f32> {
        (0..self.rows * self.widths[0]).map(|index| ((index % 65_536) as f32 * 0.618_034).fract() - 0.5).collect()
    }

    pub fn targets(&self) -> Vec<f32> {
        let outputs = self.outputs();
        (0..self.rows).map(|row| if outputs > 1 { (row % outputs) as f32 } else { (row % 7) as f32 / 7.0 }).collect()
    }

    fn trainer(&self) -> anyhow::Result<AnyTrainer> {
        let architecture = self.architecture()?;
        let matrix = |values| RawMatrix { values: Values::F32(values), rows: None, columns: None };
        let training = RawTraining {
            epochs: Some(i64::from(EPOCHS_MAX) + 1),
            batch_size: Some(self.batch as i64),
            seed: Some(1),
            ..RawTraining::new(matrix(self.inputs()), matrix(self.targets()))
        };
        let (settings, data) = training.check(&architecture, 1).map_err(|faults| anyhow!("{faults:?}"))?;
        let parameters = draw_parameters(&architecture, 1);
        let preprocessing = Preprocessing::default();
        Ok(AnyTrainer::new(TrainerInput { architecture, settings, data, preprocessing, fitted: None, parameters }))
    }
}
