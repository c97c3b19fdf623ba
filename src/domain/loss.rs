//! What is minimized: the losses with their options, and which output each fits.

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::activation::Activation;
use super::expression::Expression;
use super::fault::{At, Faults, RealRange};

/// What is minimized. Formulas stand in the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Loss {
    /// (ŷ − y)², without ½.
    SquaredError,
    /// −w·y·ln p − (1 − y)·ln(1 − p), from the logit.
    BinaryCrossEntropy {
        /// w: none, one for all outputs, or one an output.
        positive_weights: Vec<f64>,
    },
    /// −Σ q·ln p over a row's classes, from the logits.
    SoftmaxCrossEntropy {
        /// ε of q' = (1 − ε)·q + ε ÷ classes.
        label_smoothing: f64,
    },
    /// −y·z over the misclassified rows, those with y·z ≤ 0.
    Perceptron,
    /// |ŷ − y|
    AbsoluteError,
    /// ½·(ŷ − y)² where |ŷ − y| ≤ δ, else δ·(|ŷ − y| − ½·δ)
    Huber {
        /// Where the parabola ends.
        delta: f64,
    },
    /// ln cosh(ŷ − y)
    LogCosh,
    /// q·(y − ŷ) where y ≥ ŷ, else (1 − q)·(ŷ − y)
    Quantile {
        /// The quantile.
        q: f64,
    },
    /// Poisson's negative log-likelihood, of the log of the rate or of the rate.
    Poisson,
    /// −ln p of the right class, from ln p.
    NegativeLogLikelihood,
    /// Σ q·ln(q ÷ p) over a row's classes, from the logits.
    KlDivergence,
    /// max(0, 1 − y·ŷ)
    Hinge,
    /// max(0, 1 − y·ŷ)²
    SquaredHinge,
    /// −α·(1 − p)^γ·ln p of what is right.
    Focal {
        /// γ.
        gamma: f64,
        /// α of positive targets; the negative ones have 1 − α.
        alpha: Option<f64>,
    },
    /// 2·(ln(ŷ ÷ y) + y ÷ ŷ − 1)
    GammaDeviance,
    /// Tweedie's deviance.
    TweedieDeviance {
        /// Its power, between Poisson's 1 and Gamma's 2.
        power: f64,
    },
    /// The caller's own.
    Custom {
        /// Over y_pred and y_true.
        expression: Expression,
    },
}

/// What a loss wants its targets to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Class indices or one-hot rows.
    Classes,
    /// Class indices, one-hot rows, or rows of probabilities.
    Distributions,
    /// Class indices, one-hot rows, or rows of any numbers.
    ClassesOrNumbers,
    /// 0 or 1.
    Bits,
    /// −1 or 1, or 0 or 1.
    Signs,
    /// Any number.
    Numbers,
    /// At least 0.
    NonNegative,
    /// Above 0.
    Positive,
}

impl Loss {
    /// Default δ of Huber's loss.
    pub const HUBER_DELTA_DEFAULT: f64 = 1.0;
    /// Default of the quantile: the median.
    pub const QUANTILE_DEFAULT: f64 = 0.5;
    /// Default γ of the focal loss.
    pub const FOCAL_GAMMA_DEFAULT: f64 = 2.0;
    /// Default power of Tweedie's deviance.
    pub const TWEEDIE_POWER_DEFAULT: f64 = 1.5;

    /// The built-in losses with the defaults of their options.
    pub fn built_in() -> [Loss; 16] {
        [
            Self::SquaredError,
            Self::BinaryCrossEntropy { positive_weights: Vec::new() },
            Self::SoftmaxCrossEntropy { label_smoothing: 0.0 },
            Self::NegativeLogLikelihood,
            Self::Perceptron,
            Self::AbsoluteError,
            Self::Huber { delta: Self::HUBER_DELTA_DEFAULT },
            Self::LogCosh,
            Self::Quantile { q: Self::QUANTILE_DEFAULT },
            Self::Poisson,
            Self::KlDivergence,
            Self::Hinge,
            Self::SquaredHinge,
            Self::Focal { gamma: Self::FOCAL_GAMMA_DEFAULT, alpha: None },
            Self::GammaDeviance,
            Self::TweedieDeviance { power: Self::TWEEDIE_POWER_DEFAULT },
        ]
    }

    /// Whether it can judge an output.
    pub fn fits(&self, activation: Activation) -> bool {
        use Activation::{Exponential, Identity, LogSoftmax, Sigmoid, Softmax, Softplus, Tanh};
        match self {
            Self::SquaredError | Self::Custom { .. } => activation.has_gradient() && activation != LogSoftmax,
            Self::AbsoluteError | Self::Huber { .. } => activation.has_gradient() && !activation.is_over_rows(),
            Self::LogCosh | Self::Hinge | Self::SquaredHinge => matches!(activation, Identity | Tanh),
            Self::Quantile { .. } => activation == Identity,
            Self::Poisson => activation == Identity || is_rate(activation),
            Self::GammaDeviance | Self::TweedieDeviance { .. } => {
                matches!(activation, Identity | Softplus | Exponential)
            }
            Self::BinaryCrossEntropy { .. } => activation == Sigmoid,
            Self::SoftmaxCrossEntropy { .. } | Self::KlDivergence => activation == Softmax,
            Self::NegativeLogLikelihood => activation == LogSoftmax,
            Self::Focal { .. } => matches!(activation, Sigmoid | Softmax),
            Self::Perceptron => !activation.has_gradient(),
        }
    }

    /// The loss of an output where none is asked for.
    pub fn default_for(activation: Activation) -> Self {
        match activation {
            Activation::Sigmoid => Self::BinaryCrossEntropy { positive_weights: Vec::new() },
            Activation::Softmax => Self::SoftmaxCrossEntropy { label_smoothing: 0.0 },
            Activation::LogSoftmax => Self::NegativeLogLikelihood,
            Activation::Sign | Activation::Step => Self::Perceptron,
            _ => Self::SquaredError,
        }
    }

    /// What its targets must be on an output that it fits.
    pub fn target_kind(&self, activation: Activation) -> TargetKind {
        let is_softmax = activation == Activation::Softmax;
        match self {
            Self::SoftmaxCrossEntropy { .. } | Self::KlDivergence => TargetKind::Distributions,
            Self::SquaredError if is_softmax => TargetKind::Distributions,
            Self::NegativeLogLikelihood => TargetKind::Classes,
            Self::Focal { .. } if is_softmax => TargetKind::Classes,
            Self::Custom { .. } if is_softmax => TargetKind::ClassesOrNumbers,
            Self::BinaryCrossEntropy { .. } | Self::Focal { .. } => TargetKind::Bits,
            Self::Perceptron | Self::Hinge | Self::SquaredHinge => TargetKind::Signs,
            Self::Poisson | Self::TweedieDeviance { .. } => TargetKind::NonNegative,
            Self::GammaDeviance => TargetKind::Positive,
            Self::SquaredError
            | Self::AbsoluteError
            | Self::Huber { .. }
            | Self::LogCosh
            | Self::Quantile { .. }
            | Self::Custom { .. } => TargetKind::Numbers,
        }
    }

    /// Whether it is one number a row, which cannot be cut into outputs: on softmax and its logarithm, and where a caller's
    /// expression says so.
    pub fn is_per_row(&self, activation: Activation) -> bool {
        let is_row_expression = matches!(self, Self::Custom { expression } if expression.is_row_loss());
        activation.is_over_rows() || is_row_expression
    }

    /// The loss for an output of `units`: the one asked for, where it fits and its options are in range, or the default.
    pub fn choose(
        asked: Option<Self>,
        activation: Activation,
        units: usize,
        at: At<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let Some(loss) = asked else { return Some(Self::default_for(activation)) };
        loss.check_options(activation, units, at, faults)?;
        if loss.fits(activation) {
            return Some(loss);
        }
        let default = Self::default_for(activation);
        let others = Self::built_in().into_iter().filter(|it| it.fits(activation) && it.name() != default.name());
        let mut names = vec![default.name()];
        names.extend(others.map(|loss| loss.name()));
        let message = format!("{} does not fit the output {activation}; use {}", loss.name(), names.join(" or "));
        faults.add(at, message);
        None
    }

    fn check_options(&self, activation: Activation, units: usize, at: At<'_>, faults: &mut Faults) -> Option<()> {
        let at = at.field(self.name());
        match self {
            Self::Huber { delta } => {
                faults.real(at.field("delta"), *delta, RealRange::MAGNITUDE)?;
            }
            Self::Quantile { q } => {
                faults.real(at.field("q"), *q, RealRange::closed(1e-6, 1.0 - 1e-6))?;
            }
            Self::TweedieDeviance { power } => {
                faults.real(at.field("power"), *power, RealRange::closed(1.001, 1.999))?;
            }
            Self::SoftmaxCrossEntropy { label_smoothing } => {
                faults.real(at.field("label_smoothing"), *label_smoothing, RealRange::below(0.0, 1.0))?;
            }
            Self::BinaryCrossEntropy { positive_weights } => {
                check_positive_weights(positive_weights, units, at.field("positive_weights"), faults)?;
            }
            Self::Focal { gamma, alpha } => {
                let gamma = faults.real(at.field("gamma"), *gamma, RealRange::closed(0.0, 100.0));
                check_focal_alpha(*alpha, activation, at.field("alpha"), faults).and(gamma)?;
            }
            Self::SquaredError
            | Self::Perceptron
            | Self::AbsoluteError
            | Self::LogCosh
            | Self::Poisson
            | Self::NegativeLogLikelihood
            | Self::KlDivergence
            | Self::Hinge
            | Self::SquaredHinge
            | Self::GammaDeviance
            | Self::Custom { .. } => {}
        }
        Some(())
    }

    /// The name of its field in a request.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SquaredError => "squared_error",
            Self::BinaryCrossEntropy { .. } => "binary_cross_entropy",
            Self::SoftmaxCrossEntropy { .. } => "softmax_cross_entropy",
            Self::Perceptron => "perceptron",
            Self::AbsoluteError => "absolute_error",
            Self::Huber { .. } => "huber",
            Self::LogCosh => "log_cosh",
            Self::Quantile { .. } => "quantile",
            Self::Poisson => "poisson",
            Self::NegativeLogLikelihood => "negative_log_likelihood",
            Self::KlDivergence => "kl_divergence",
            Self::Hinge => "hinge",
            Self::SquaredHinge => "squared_hinge",
            Self::Focal { .. } => "focal",
            Self::GammaDeviance => "gamma_deviance",
            Self::TweedieDeviance { .. } => "tweedie_deviance",
            Self::Custom { .. } => "custom",
        }
    }
}

/// Outputs that can stand for a rate: none of them falls far below 0.
fn is_rate(activation: Activation) -> bool {
    matches!(
        activation,
        Activation::Relu
            | Activation::LeakyRelu { .. }
            | Activation::Elu { .. }
            | Activation::Selu
            | Activation::Gelu
            | Activation::GeluTanh
            | Activation::Silu
            | Activation::Mish
            | Activation::Softplus
            | Activation::Exponential
    )
}

fn check_positive_weights(weights: &[f64], units: usize, at: At<'_>, faults: &mut Faults) -> Option<()> {
    if weights.len() > 1 && weights.len() != units {
        faults.add(
            at,
            format!("needs one weight for all outputs, or one for each of the {units}, but has {}", weights.len()),
        );
        return None;
    }
    let sound = weights
        .iter()
        .enumerate()
        .map(|(index, &weight)| faults.real(at.index(index), weight, RealRange::MAGNITUDE).map(|_| ()));
    // All of them are looked at, so that all their faults are told.
    sound.fold(Some(()), Option::and)
}

fn check_focal_alpha(alpha: Option<f64>, activation: Activation, at: At<'_>, faults: &mut Faults) -> Option<()> {
    let Some(alpha) = alpha else { return Some(()) };
    if activation == Activation::Softmax {
        faults.add(
            at,
            "weighs positive against negative targets, so it is for sigmoid outputs; on softmax use class_weights",
        );
        return None;
    }
    faults.real(at, alpha, RealRange::closed(0.0, 1.0)).map(|_| ())
}

impl Serialize for Loss {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Records that were written before the cross-entropies had options hold their bare names.
impl<'de> Deserialize<'de> for Loss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Stored {
            Name(String),
            WithOptions(#[serde(with = "Loss")] Loss),
        }
        match Stored::deserialize(deserializer)? {
            Stored::WithOptions(loss) => Ok(loss),
            Stored::Name(name) => match name.as_str() {
                "BinaryCrossEntropy" => Ok(Self::BinaryCrossEntropy { positive_weights: Vec::new() }),
                "SoftmaxCrossEntropy" => Ok(Self::SoftmaxCrossEntropy { label_smoothing: 0.0 }),
                name => Self::deserialize(name.into_deserializer()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_does_not_fit_is_refused_naming_what_does() {
        let mut faults = Faults::new();
        let asked = Some(Loss::BinaryCrossEntropy { positive_weights: Vec::new() });
        assert_eq!(Loss::choose(asked, Activation::Softmax, 2, At::ROOT.field("loss"), &mut faults), None);
        assert_eq!(
            faults.to_string(),
            "loss: binary_cross_entropy does not fit the output softmax; use softmax_cross_entropy or squared_error or \
             kl_divergence or focal"
        );
    }

    #[test]
    fn options_out_of_range_are_told_by_their_path() {
        let path = |loss: Loss, activation| {
            let mut faults = Faults::new();
            assert_eq!(Loss::choose(Some(loss), activation, 3, At::ROOT.field("loss"), &mut faults), None);
            faults.as_slice()[0].path.clone()
        };
        use Activation::{Identity, Sigmoid, Softmax};
        assert_eq!(path(Loss::Huber { delta: 0.0 }, Identity), "loss.huber.delta");
        assert_eq!(path(Loss::Quantile { q: 1.0 }, Identity), "loss.quantile.q");
        assert_eq!(path(Loss::TweedieDeviance { power: 2.0 }, Identity), "loss.tweedie_deviance.power");
        let smoothed = Loss::SoftmaxCrossEntropy { label_smoothing: 1.0 };
        assert_eq!(path(smoothed, Softmax), "loss.softmax_cross_entropy.label_smoothing");
        let weighted = |positive_weights| Loss::BinaryCrossEntropy { positive_weights };
        assert_eq!(path(weighted(vec![1.0; 2]), Sigmoid), "loss.binary_cross_entropy.positive_weights");
        assert_eq!(path(weighted(vec![1.0, 0.0, 1.0]), Sigmoid), "loss.binary_cross_entropy.positive_weights[1]");
        assert_eq!(path(Loss::Focal { gamma: -1.0, alpha: None }, Sigmoid), "loss.focal.gamma");
        assert_eq!(path(Loss::Focal { gamma: 2.0, alpha: Some(0.5) }, Softmax), "loss.focal.alpha");
    }

    #[test]
    fn losses_are_stored_and_read_back_also_those_of_older_records() {
        for loss in Loss::built_in() {
            let bytes = rmp_serde::to_vec_named(&loss).unwrap();
            assert_eq!(rmp_serde::from_slice::<Loss>(&bytes).unwrap(), loss);
        }
        for (name, loss) in [
            ("BinaryCrossEntropy", Loss::BinaryCrossEntropy { positive_weights: Vec::new() }),
            ("SoftmaxCrossEntropy", Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 }),
            ("SquaredError", Loss::SquaredError),
        ] {
            let bytes = rmp_serde::to_vec_named(name).unwrap();
            assert_eq!(rmp_serde::from_slice::<Loss>(&bytes).unwrap(), loss);
        }
    }
}
