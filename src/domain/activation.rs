//! What layers apply to their pre-activations.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fault::RealRange;

/// What a layer applies to x·W + b.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Activation {
    /// z
    #[default]
    Identity,
    /// −1, 0 or 1 by the sign of z; sign(0) = 0
    Sign,
    /// 1 where z > 0, else 0
    Step,
    /// 1 / (1 + e^−z)
    Sigmoid,
    /// tanh z
    Tanh,
    /// max(0, z)
    Relu,
    /// z where z > 0, else α·z
    LeakyRelu {
        /// Slope for z ≤ 0.
        alpha: f64,
    },
    /// z where z > 0, else α·(e^z − 1)
    Elu {
        /// What −z saturates to.
        alpha: f64,
    },
    /// λ·z where z > 0, else λ·α·(e^z − 1), with fixed λ and α
    Selu,
    /// ln(1 + e^z)
    Softplus,
    /// z / (1 + |z|)
    Softsign,
    /// e^z
    Exponential,
    /// min(max(z + 3, 0), 6) / 6
    HardSigmoid,
    /// e^z over the sum of e^z of the row; in the last layer only
    Softmax,
    /// z·Φ(z), by erf
    Gelu,
    /// GELU by its approximation with tanh
    GeluTanh,
    /// z·σ(z)
    Silu,
    /// z·tanh(ln(1 + e^z))
    Mish,
    /// ln of softmax; in the last layer only
    LogSoftmax,
}

impl Activation {
    /// Default slope of Leaky ReLU.
    pub const LEAKY_RELU_ALPHA_DEFAULT: f64 = 0.01;
    /// Default α of ELU.
    pub const ELU_ALPHA_DEFAULT: f64 = 1.0;
    /// Range of both.
    pub const ALPHA_RANGE: RealRange = RealRange::closed(0.0, 1_000.0);

    /// Whether backpropagation can pass through it: sign and step are flat, so no gradient comes back.
    pub fn has_gradient(self) -> bool {
        !matches!(self, Self::Sign | Self::Step)
    }

    /// Whether it goes over a whole row, so that it can only be the last layer's.
    pub fn is_over_rows(self) -> bool {
        matches!(self, Self::Softmax | Self::LogSoftmax)
    }

    /// Whether its outputs are probabilities, or their logarithms.
    pub fn has_probabilities(self) -> bool {
        matches!(self, Self::Sigmoid | Self::Softmax | Self::LogSoftmax)
    }

    /// Whether its derivative cannot be told from its output: it is not monotonic, so two z give the same output.
    pub fn needs_pre_activation(self) -> bool {
        matches!(self, Self::Gelu | Self::GeluTanh | Self::Silu | Self::Mish)
    }

    /// Whether an output layer of `units` of it names a class.
    pub fn is_classifier(self, units: usize) -> bool {
        match self {
            Self::Softmax | Self::LogSoftmax => true,
            Self::Sigmoid | Self::Sign | Self::Step => units == 1,
            Self::Identity
            | Self::Tanh
            | Self::Relu
            | Self::LeakyRelu { .. }
            | Self::Elu { .. }
            | Self::Selu
            | Self::Softplus
            | Self::Softsign
            | Self::Exponential
            | Self::HardSigmoid
            | Self::Gelu
            | Self::GeluTanh
            | Self::Silu
            | Self::Mish => false,
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Sign => "sign",
            Self::Step => "step",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Relu => "ReLU",
            Self::LeakyRelu { .. } => "Leaky ReLU",
            Self::Elu { .. } => "ELU",
            Self::Selu => "SELU",
            Self::Softplus => "softplus",
            Self::Softsign => "softsign",
            Self::Exponential => "exponential",
            Self::HardSigmoid => "hard sigmoid",
            Self::Softmax => "softmax",
            Self::Gelu => "GELU",
            Self::GeluTanh => "GELU (tanh)",
            Self::Silu => "SiLU",
            Self::Mish => "Mish",
            Self::LogSoftmax => "log-softmax",
        })
    }
}
