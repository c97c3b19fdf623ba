//! Losses from the wire.

use crate::domain::{At, Expression, Faults, Loss};
use crate::rpc::pb;

/// A loss with the defaults of its options; `Some(None)` where none is named.
pub(super) fn loss(message: Option<pb::Loss>, faults: &mut Faults) -> Option<Option<Loss>> {
    use pb::loss::Kind;
    let Some(kind) = message.and_then(|message| message.kind) else { return Some(None) };
    Some(Some(match kind {
        Kind::SquaredError(_) => Loss::SquaredError,
        Kind::BinaryCrossEntropy(it) => Loss::BinaryCrossEntropy { positive_weights: it.positive_weights },
        Kind::SoftmaxCrossEntropy(it) => {
            Loss::SoftmaxCrossEntropy { label_smoothing: it.label_smoothing.unwrap_or(0.0) }
        }
        Kind::Perceptron(_) => Loss::Perceptron,
        Kind::AbsoluteError(_) => Loss::AbsoluteError,
        Kind::Huber(it) => Loss::Huber { delta: it.delta.unwrap_or(Loss::HUBER_DELTA_DEFAULT) },
        Kind::LogCosh(_) => Loss::LogCosh,
        Kind::Quantile(it) => Loss::Quantile { q: it.q.unwrap_or(Loss::QUANTILE_DEFAULT) },
        Kind::Poisson(_) => Loss::Poisson,
        Kind::NegativeLogLikelihood(_) => Loss::NegativeLogLikelihood,
        Kind::KlDivergence(_) => Loss::KlDivergence,
        Kind::Hinge(_) => Loss::Hinge,
        Kind::SquaredHinge(_) => Loss::SquaredHinge,
        Kind::Focal(it) => Loss::Focal { gamma: it.gamma.unwrap_or(Loss::FOCAL_GAMMA_DEFAULT), alpha: it.alpha },
        Kind::GammaDeviance(_) => Loss::GammaDeviance,
        Kind::TweedieDeviance(it) => Loss::TweedieDeviance { power: it.power.unwrap_or(Loss::TWEEDIE_POWER_DEFAULT) },
        Kind::Custom(it) => Loss::Custom { expression: expression(&it.expression, faults)? },
    }))
}

fn expression(text: &str, faults: &mut Faults) -> Option<Expression> {
    let at = At::ROOT.field("loss");
    let at = at.field("custom");
    Expression::parse(text).map_err(|error| faults.add(at.field("expression"), error.to_string())).ok()
}
