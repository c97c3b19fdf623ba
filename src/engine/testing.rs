//! What the engine's tests share.

use bytes::Bytes;

use super::element::Element;
use super::random::{Purpose, Stream};
use super::unchecked::prefetch::LINE_BYTES;
use crate::domain::{
    Activation, Architecture, At, ElementType, Expression, Faults, Loss, Metric, Optimizer, Packed, RawArchitecture,
    RawLayer, Reduction, Schedule, Settings, Start, Task, Validation, Values,
};

/// Every activation. A test in `gradients` fails to compile where one is missing.
pub const ACTIVATIONS: [Activation; 19] = [
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
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Mish,
    Activation::Softmax,
    Activation::LogSoftmax,
];

/// Every loss, with its options and without, and some that a caller writes.
pub fn losses() -> Vec<Loss> {
    let custom = |text| Loss::Custom { expression: Expression::parse(text).unwrap() };
    let with_options = [
        Loss::BinaryCrossEntropy { positive_weights: vec![2.5] },
        Loss::BinaryCrossEntropy { positive_weights: vec![0.5, 3.0, 1.5] },
        Loss::SoftmaxCrossEntropy { label_smoothing: 0.2 },
        Loss::Quantile { q: 0.9 },
        Loss::Focal { gamma: 0.5, alpha: None },
        Loss::Focal { gamma: 2.0, alpha: Some(0.25) },
        Loss::TweedieDeviance { power: 1.2 },
        custom("(y_pred-y_true)^2"),
        custom("softplus(-y_true*y_pred)"),
        custom("-sum(y_true*log(0.1+abs(y_pred)))"),
    ];
    Loss::built_in().into_iter().chain(with_options).collect()
}

/// The losses that fit an output of three units.
pub fn losses_of(activation: Activation) -> Vec<Loss> {
    let has_alpha_on_rows =
        |loss: &Loss| activation.is_over_rows() && matches!(loss, Loss::Focal { alpha: Some(_), .. });
    losses().into_iter().filter(|loss| loss.fits(activation) && !has_alpha_on_rows(loss)).collect()
}

/// A checked architecture.
pub fn network(element_type: ElementType, input_width: usize, layers: &[(usize, Activation)]) -> Architecture {
    network_with(element_type, input_width, layers, |_| {})
}

/// A checked architecture with options of its layers.
pub fn network_with(
    element_type: ElementType,
    input_width: usize,
    layers: &[(usize, Activation)],
    change: impl FnOnce(&mut RawArchitecture),
) -> Architecture {
    let layer = |&(units, activation): &(usize, Activation)| {
        Some(RawLayer { units: units as i64, activation, ..RawLayer::default() })
    };
    let layers = layers.iter().map(layer).collect();
    let mut raw = RawArchitecture { input_width: input_width as i64, element_type, layers, input_dropout: None };
    change(&mut raw);
    let mut faults = Faults::new();
    raw.check(At::ROOT, &mut faults).unwrap_or_else(|| panic!("{faults}"))
}

/// Numbers between −1 and 1.
pub fn uniform<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let mut stream = Stream::new(seed, Purpose::Test, 0, 0);
    (0..count).map(|_| T::from_f64(2.0 * stream.uniform() - 1.0)).collect()
}

/// Whether the first of them is the first of a line of the caches.
pub fn begins_at_a_line<T>(numbers: &[T]) -> bool {
    numbers.as_ptr().addr().is_multiple_of(LINE_BYTES)
}

/// The same numbers packed, so many bytes after a place that suits them.
pub fn packed_at(values: &Values, offset: usize) -> Values {
    let size = values.element_type().size_bytes();
    let shifted = |pad: usize| Bytes::from([&vec![0; pad][..], values.as_bytes()].concat()).slice(pad..);
    let bytes = (0..size).map(shifted).find(|bytes| bytes.as_ptr().addr() % size == offset).unwrap();
    Values::Packed(Packed::new(bytes, values.element_type()).unwrap())
}

/// Adam with its defaults but for the rate.
pub fn adam(learning_rate: f64) -> Optimizer {
    Optimizer::Adam { learning_rate, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, amsgrad: false }
}

/// Plain SGD.
pub fn sgd(learning_rate: f64, momentum: f64) -> Optimizer {
    Optimizer::Sgd { learning_rate, momentum, dampening: 0.0, nesterov: false, weight_decay: 0.0 }
}

/// What counts as right, for an output and a loss on targets of 0 and 1.
pub fn task(loss: &Loss, activation: Activation) -> Task {
    match loss {
        Loss::Perceptron | Loss::Hinge | Loss::SquaredHinge => Task::Sides,
        _ if activation.is_over_rows() => Task::Classes,
        _ if activation == Activation::Sigmoid => Task::Bits,
        _ => Task::Numbers,
    }
}

/// The full batch in one order, ten epochs, nothing else.
pub fn settings(loss: Loss, optimizer: Optimizer, rows: usize) -> Settings {
    let task = match loss {
        Loss::Perceptron | Loss::Hinge | Loss::SquaredHinge => Task::Sides,
        Loss::BinaryCrossEntropy { .. } => Task::Bits,
        Loss::SoftmaxCrossEntropy { .. } | Loss::NegativeLogLikelihood | Loss::KlDivergence => Task::Classes,
        _ => Task::Numbers,
    };
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
        is_seed_drawn: false,
        schedule: Schedule::default(),
        l1: 0.0,
        l2: 0.0,
        max_gradient_norm: None,
        max_gradient_value: None,
        class_weights: None,
        has_sample_weights: false,
        has_target_mask: false,
        metrics: Metric::defaults(task).to_vec(),
        top_k: 1,
        diagnostics: false,
        stop_at: None,
        max_duration_micros: None,
        checkpoint_interval_micros: 10_000_000,
        frozen_layers: Vec::new(),
        task,
    }
}

/// The settings for an output on which the task does not follow from the loss alone.
pub fn settings_on(activation: Activation, loss: Loss, optimizer: Optimizer, rows: usize) -> Settings {
    let task = task(&loss, activation);
    Settings { task, metrics: Metric::defaults(task).to_vec(), ..settings(loss, optimizer, rows) }
}
