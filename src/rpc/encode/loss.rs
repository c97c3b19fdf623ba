//! Losses to the wire, each of their numbers filled in.

use crate::domain::Loss;
use crate::rpc::pb;
use crate::rpc::pb::loss::Kind;

pub(super) fn loss(loss: &Loss) -> pb::Loss {
    let kind = match loss {
        Loss::SquaredError => Kind::SquaredError(pb::SquaredErrorLoss {}),
        Loss::BinaryCrossEntropy { positive_weights } => {
            Kind::BinaryCrossEntropy(pb::BinaryCrossEntropyLoss { positive_weights: positive_weights.clone() })
        }
        &Loss::SoftmaxCrossEntropy { label_smoothing } => {
            Kind::SoftmaxCrossEntropy(pb::SoftmaxCrossEntropyLoss { label_smoothing: Some(label_smoothing) })
        }
        Loss::Perceptron => Kind::Perceptron(pb::PerceptronLoss {}),
        Loss::AbsoluteError => Kind::AbsoluteError(pb::AbsoluteErrorLoss {}),
        &Loss::Huber { delta } => Kind::Huber(pb::HuberLoss { delta: Some(delta) }),
        Loss::LogCosh => Kind::LogCosh(pb::LogCoshLoss {}),
        &Loss::Quantile { q } => Kind::Quantile(pb::QuantileLoss { q: Some(q) }),
        Loss::Poisson => Kind::Poisson(pb::PoissonLoss {}),
        Loss::NegativeLogLikelihood => Kind::NegativeLogLikelihood(pb::NegativeLogLikelihoodLoss {}),
        Loss::KlDivergence => Kind::KlDivergence(pb::KlDivergenceLoss {}),
        Loss::Hinge => Kind::Hinge(pb::HingeLoss {}),
        Loss::SquaredHinge => Kind::SquaredHinge(pb::SquaredHingeLoss {}),
        &Loss::Focal { gamma, alpha } => Kind::Focal(pb::FocalLoss { gamma: Some(gamma), alpha }),
        Loss::GammaDeviance => Kind::GammaDeviance(pb::GammaDevianceLoss {}),
        &Loss::TweedieDeviance { power } => Kind::TweedieDeviance(pb::TweedieDevianceLoss { power: Some(power) }),
        Loss::Custom { expression } => Kind::Custom(pb::CustomLoss { expression: expression.text().to_owned() }),
    };
    pb::Loss { kind: Some(kind) }
}
