//! What the engine's tests share.

use super::element::Element;
use super::random::{Purpose, Stream};
use crate::domain::{
    Activation, Architecture, At, ElementType, Faults, Loss, Optimizer, RawArchitecture, RawLayer, Reduction, Settings,
    Start, Validation,
};

/// Every activation. A test in `gradients` fails to compile where one is missing.
pub const ACTIVATIONS: [Activation; 14] = [
    Activation::Identity,
    Activation::Sign,
    Activation::Step,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Relu,
    Activation::LeakyRelu { alpha: 0.1 },
    Activation::Elu { alpha: 0.8 },
    Activation::Selu,
    Activation::Softplus,
    Activation::Softsign,
    Activation::Exponential,
    Activation::HardSigmoid,
    Activation::Softmax,
];

/// Every loss.
pub const LOSSES: [Loss; 7] = [
    Loss::SquaredError,
    Loss::BinaryCrossEntropy,
    Loss::SoftmaxCrossEntropy,
    Loss::Perceptron,
    Loss::AbsoluteError,
    Loss::Huber { delta: 1.0 },
    Loss::LogCosh,
];

/// A checked architecture.
pub fn network(element_type: ElementType, input_width: usize, layers: &[(usize, Activation)]) -> Architecture {
    let layer = |&(units, activation): &(usize, Activation)| {
        Some(RawLayer { units: units as i64, activation, activation_alpha: None, bias: true })
    };
    let layers = layers.iter().map(layer).collect();
    let raw = RawArchitecture { input_width: input_width as i64, element_type, layers };
    let mut faults = Faults::new();
    raw.check(At::ROOT, &mut faults).unwrap_or_else(|| panic!("{faults}"))
}

/// Numbers between −1 and 1.
pub fn uniform<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let mut stream = Stream::new(seed, Purpose::Test, 0, 0);
    (0..count).map(|_| T::from_f64(2.0 * stream.uniform() - 1.0)).collect()
}

/// Adam with its defaults but for the rate.
pub fn adam(learning_rate: f64) -> Optimizer {
    Optimizer::Adam { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
}

/// The full batch in one order, ten epochs, nothing else.
pub fn settings(loss: Loss, optimizer: Optimizer, rows: usize) -> Settings {
    Settings {
        loss,
        reduction: Reduction::Mean,
        optimizer,
        epochs: 10,
        batch_size: rows as u32,
        shuffle: false,
        seed: 1,
        early_stopping: None,
        report_every: 1,
        start: Start::Latest,
        validation: Validation::None,
        rows: rows as u64,
        cancel_on_disconnect: false,
    }
}
