//! What initial weights are drawn from, with ranges and defaults.

use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::fault::{At, Faults, RealRange};

/// What the initial weights of a layer are drawn from. Formulas stand in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Initializer {
    /// All 0.
    Zeros,
    /// All the same.
    Constant {
        /// This.
        value: f64,
    },
    /// Uniform between two bounds.
    Uniform {
        /// The lower.
        minimum: f64,
        /// The upper.
        maximum: f64,
    },
    /// Normal.
    Normal {
        /// Its mean.
        mean: f64,
        /// Its standard deviation.
        deviation: f64,
    },
    /// Uniform, by inputs and units.
    GlorotUniform,
    /// Normal, by inputs and units.
    GlorotNormal,
    /// Uniform, by inputs, for the ReLU family.
    HeUniform,
    /// Normal, by inputs, for the ReLU family.
    HeNormal,
    /// Uniform, by inputs.
    LecunUniform,
    /// Normal, by inputs.
    LecunNormal,
    /// Orthonormal rows or columns.
    Orthogonal {
        /// What they are multiplied by.
        gain: f64,
    },
}

impl Initializer {
    const GAIN_RANGE: RealRange = RealRange::above(0.0, 1_000.0);
    /// Every finite float32, so that no weight is infinite in either element type.
    const WEIGHT_RANGE: RealRange = RealRange::closed(-F32_MAX, F32_MAX);
    const DEVIATION_RANGE: RealRange = RealRange::closed(0.0, F32_MAX / 10.0);

    /// The default behind an activation: He, uniform, for the ReLU family and what is like it, which passes about half of the
    /// variance; LeCun, normal, for SELU, which needs it kept; Glorot, uniform, for all else.
    pub fn default_for(activation: Activation) -> Self {
        match activation {
            Activation::Relu
            | Activation::LeakyRelu { .. }
            | Activation::Elu { .. }
            | Activation::Gelu
            | Activation::GeluTanh
            | Activation::Silu
            | Activation::Mish
            | Activation::Softplus => Self::HeUniform,
            Activation::Selu => Self::LecunNormal,
            Activation::Identity
            | Activation::Sign
            | Activation::Step
            | Activation::Sigmoid
            | Activation::Tanh
            | Activation::Softsign
            | Activation::Exponential
            | Activation::HardSigmoid
            | Activation::Softmax
            | Activation::LogSoftmax => Self::GlorotUniform,
        }
    }

    /// Refuses numbers that are out of range.
    pub(super) fn check(self, at: At<'_>, faults: &mut Faults) -> Option<Self> {
        match self {
            Self::Constant { value } => {
                faults.real(at.field("constant").field("value"), value, Self::WEIGHT_RANGE)?;
            }
            Self::Uniform { minimum, maximum } => {
                let at = at.field("uniform");
                let low = faults.real(at.field("minimum"), minimum, Self::WEIGHT_RANGE);
                let high = faults.real(at.field("maximum"), maximum, Self::WEIGHT_RANGE);
                if high? < low? {
                    faults
                        .add(at.field("maximum"), format!("must be at least the minimum, {minimum}, but is {maximum}"));
                    return None;
                }
            }
            Self::Normal { mean, deviation } => {
                let at = at.field("normal");
                let mean = faults.real(at.field("mean"), mean, Self::WEIGHT_RANGE);
                faults.real(at.field("deviation"), deviation, Self::DEVIATION_RANGE).and(mean)?;
            }
            Self::Orthogonal { gain } => {
                faults.real(at.field("orthogonal").field("gain"), gain, Self::GAIN_RANGE)?;
            }
            Self::Zeros
            | Self::GlorotUniform
            | Self::GlorotNormal
            | Self::HeUniform
            | Self::HeNormal
            | Self::LecunUniform
            | Self::LecunNormal => {}
        }
        Some(self)
    }
}

const F32_MAX: f64 = f32::MAX as f64;
