//! Optimizers and learning-rate schedules from the wire.

use crate::domain::optimizer::LbfgsOf;
use crate::domain::schedule::RawScheduleKind;
use crate::domain::{RawOptimizer, RawSchedule};
use crate::rpc::pb;

/// An optimizer; `None` where the default is meant.
pub(in crate::rpc) fn optimizer(message: Option<pb::Optimizer>) -> Option<RawOptimizer> {
    use pb::optimizer::Method;
    Some(match message?.method? {
        Method::Sgd(pb::Sgd { learning_rate, momentum, dampening, nesterov, weight_decay }) => {
            RawOptimizer::Sgd { learning_rate, momentum, dampening, nesterov, weight_decay }
        }
        Method::Adam(pb::Adam { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad }) => {
            RawOptimizer::Adam { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad }
        }
        Method::Adamw(pb::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad }) => {
            RawOptimizer::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad }
        }
        Method::Rmsprop(pb::RmsProp { learning_rate, decay, epsilon, momentum, centered, weight_decay }) => {
            RawOptimizer::RmsProp { learning_rate, decay, epsilon, momentum, centered, weight_decay }
        }
        Method::Adagrad(message) => adagrad(message),
        Method::Adadelta(pb::Adadelta { learning_rate, decay, epsilon, weight_decay }) => {
            RawOptimizer::Adadelta { learning_rate, decay, epsilon, weight_decay }
        }
        Method::Nadam(pb::Nadam { learning_rate, beta1, beta2, epsilon, momentum_decay, weight_decay }) => {
            RawOptimizer::Nadam { learning_rate, beta1, beta2, epsilon, momentum_decay, weight_decay }
        }
        Method::Rprop(pb::Rprop { learning_rate, eta_minus, eta_plus, step_min, step_max }) => {
            RawOptimizer::Rprop { learning_rate, eta_minus, eta_plus, step_min, step_max }
        }
        Method::Lbfgs(message) => lbfgs(message),
    })
}

fn adagrad(message: pb::Adagrad) -> RawOptimizer {
    let pb::Adagrad { learning_rate, learning_rate_decay, initial_accumulator, epsilon, weight_decay } = message;
    RawOptimizer::Adagrad { learning_rate, learning_rate_decay, initial_accumulator, epsilon, weight_decay }
}

fn lbfgs(message: pb::Lbfgs) -> RawOptimizer {
    RawOptimizer::Lbfgs(LbfgsOf {
        learning_rate: message.learning_rate,
        history_size: message.history_size.map(i64::from),
        max_evaluations: message.max_evaluations.map(i64::from),
        tolerance_gradient: message.tolerance_gradient,
        tolerance_change: message.tolerance_change,
    })
}

/// A schedule; the default where there is none.
pub(in crate::rpc) fn schedule(message: Option<pb::Schedule>) -> RawSchedule {
    let Some(message) = message else { return RawSchedule::default() };
    RawSchedule {
        warm_up_epochs: message.warm_up_epochs.map(i64::from),
        warm_up_start_factor: message.warm_up_start_factor,
        kind: message.kind.map_or(RawScheduleKind::Constant, schedule_kind),
    }
}

fn schedule_kind(kind: pb::schedule::Kind) -> RawScheduleKind {
    use pb::schedule::Kind;
    match kind {
        Kind::Constant(_) => RawScheduleKind::Constant,
        Kind::Step(pb::StepSchedule { step_size, gamma }) => {
            RawScheduleKind::Step { step_size: Some(step_size.into()), gamma }
        }
        Kind::Exponential(pb::ExponentialSchedule { gamma }) => RawScheduleKind::Exponential { gamma },
        Kind::Cosine(message) => RawScheduleKind::Cosine {
            t_0: message.t_0.map(i64::from),
            t_mult: message.t_mult.map(i64::from),
            eta_min: message.eta_min,
        },
        Kind::OneCycle(message) => RawScheduleKind::OneCycle {
            epochs: message.epochs.map(i64::from),
            pct_start: message.pct_start,
            div_factor: message.div_factor,
            final_div_factor: message.final_div_factor,
        },
        Kind::InverseTime(pb::InverseTimeSchedule { decay }) => RawScheduleKind::InverseTime { decay },
        Kind::ReduceOnPlateau(message) => RawScheduleKind::ReduceOnPlateau {
            factor: message.factor,
            patience: message.patience.map(i64::from),
            threshold: message.threshold,
            cooldown: message.cooldown.map(i64::from),
            min_lr: message.min_lr,
        },
    }
}
