//! Optimizers: their numbers, with ranges and defaults.

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults, RealRange};
use super::training::Loss;
use crate::limits;

/// How parameters follow their gradients. Formulas stand in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Step size.
        learning_rate: f64,
        /// How much of the last step is kept.
        momentum: f64,
    },
    /// Adam.
    Adam {
        /// Step size.
        learning_rate: f64,
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
    },
}

impl Optimizer {
    /// Range of a learning rate.
    pub const LEARNING_RATE_RANGE: RealRange = RealRange::above(0.0, limits::LEARNING_RATE_MAX);
    /// Range of SGD's momentum and of Adam's β.
    pub const DECAY_RANGE: RealRange = RealRange::below(0.0, 1.0);
    /// Range of Adam's ε.
    pub const EPSILON_RANGE: RealRange = RealRange::above(0.0, 1.0);

    /// The step size in force at the start.
    pub fn learning_rate(&self) -> f64 {
        match *self {
            Self::Sgd { learning_rate, .. } | Self::Adam { learning_rate, .. } => learning_rate,
        }
    }
}

/// An optimizer as a request brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RawOptimizer {
    /// See [`Optimizer::Sgd`].
    Sgd {
        /// Default 0.01; 1 with the perceptron criterion.
        learning_rate: Option<f64>,
        /// Default 0.
        momentum: Option<f64>,
    },
    /// See [`Optimizer::Adam`].
    Adam {
        /// Default 0.001.
        learning_rate: Option<f64>,
        /// Default 0.9.
        beta1: Option<f64>,
        /// Default 0.999.
        beta2: Option<f64>,
        /// Default 1e-8.
        epsilon: Option<f64>,
    },
}

impl RawOptimizer {
    /// Adam, or plain SGD for the perceptron criterion.
    pub(super) fn default_for(loss: Loss) -> Self {
        match loss {
            Loss::Perceptron => Self::Sgd { learning_rate: None, momentum: None },
            Loss::SquaredError
            | Loss::BinaryCrossEntropy
            | Loss::SoftmaxCrossEntropy
            | Loss::AbsoluteError
            | Loss::Huber { .. }
            | Loss::LogCosh => Self::Adam { learning_rate: None, beta1: None, beta2: None, epsilon: None },
        }
    }

    pub(super) fn check(self, loss: Loss, at: At<'_>, faults: &mut Faults) -> Option<Optimizer> {
        match self {
            Self::Sgd { learning_rate, momentum } => {
                let at = at.field("sgd");
                let default = if loss == Loss::Perceptron { 1.0 } else { 0.01 };
                let rate = learning_rate.unwrap_or(default);
                let rate = faults.real(at.field("learning_rate"), rate, Optimizer::LEARNING_RATE_RANGE);
                let momentum = faults.real(at.field("momentum"), momentum.unwrap_or(0.0), Optimizer::DECAY_RANGE);
                Some(Optimizer::Sgd { learning_rate: rate?, momentum: momentum? })
            }
            Self::Adam { learning_rate, beta1, beta2, epsilon } => {
                let at = at.field("adam");
                let rate = learning_rate.unwrap_or(1e-3);
                let rate = faults.real(at.field("learning_rate"), rate, Optimizer::LEARNING_RATE_RANGE);
                let beta1 = faults.real(at.field("beta1"), beta1.unwrap_or(0.9), Optimizer::DECAY_RANGE);
                let beta2 = faults.real(at.field("beta2"), beta2.unwrap_or(0.999), Optimizer::DECAY_RANGE);
                let epsilon = faults.real(at.field("epsilon"), epsilon.unwrap_or(1e-8), Optimizer::EPSILON_RANGE);
                Some(Optimizer::Adam { learning_rate: rate?, beta1: beta1?, beta2: beta2?, epsilon: epsilon? })
            }
        }
    }
}
