//! Optimizers and learning-rate schedules to the wire, every number filled in.

use crate::domain::optimizer::Lbfgs;
use crate::domain::{Optimizer, Schedule, ScheduleKind};
use crate::rpc::pb;

/// An optimizer.
pub(in crate::rpc) fn optimizer(optimizer: Optimizer) -> pb::Optimizer {
    use pb::optimizer::Method;
    let method = match optimizer {
        Optimizer::Sgd { learning_rate, momentum, dampening, nesterov, weight_decay } => Method::Sgd(pb::Sgd {
            learning_rate: Some(learning_rate),
            momentum: Some(momentum),
            dampening: Some(dampening),
            nesterov,
            weight_decay: Some(weight_decay),
        }),
        Optimizer::Adam { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad } => Method::Adam(pb::Adam {
            learning_rate: Some(learning_rate),
            beta1: Some(beta1),
            beta2: Some(beta2),
            epsilon: Some(epsilon),
            weight_decay: Some(weight_decay),
            amsgrad,
        }),
        Optimizer::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad } => Method::Adamw(pb::AdamW {
            learning_rate: Some(learning_rate),
            beta1: Some(beta1),
            beta2: Some(beta2),
            epsilon: Some(epsilon),
            weight_decay: Some(weight_decay),
            amsgrad,
        }),
        Optimizer::RmsProp { learning_rate, decay, epsilon, momentum, centered, weight_decay } => {
            Method::Rmsprop(pb::RmsProp {
                learning_rate: Some(learning_rate),
                decay: Some(decay),
                epsilon: Some(epsilon),
                momentum: Some(momentum),
                centered,
                weight_decay: Some(weight_decay),
            })
        }
        Optimizer::Adagrad { learning_rate, learning_rate_decay, initial_accumulator, epsilon, weight_decay } => {
            Method::Adagrad(pb::Adagrad {
                learning_rate: Some(learning_rate),
                learning_rate_decay: Some(learning_rate_decay),
                initial_accumulator: Some(initial_accumulator),
                epsilon: Some(epsilon),
                weight_decay: Some(weight_decay),
            })
        }
        Optimizer::Adadelta { learning_rate, decay, epsilon, weight_decay } => Method::Adadelta(pb::Adadelta {
            learning_rate: Some(learning_rate),
            decay: Some(decay),
            epsilon: Some(epsilon),
            weight_decay: Some(weight_decay),
        }),
        Optimizer::Nadam { learning_rate, beta1, beta2, epsilon, momentum_decay, weight_decay } => {
            Method::Nadam(pb::Nadam {
                learning_rate: Some(learning_rate),
                beta1: Some(beta1),
                beta2: Some(beta2),
                epsilon: Some(epsilon),
                momentum_decay: Some(momentum_decay),
                weight_decay: Some(weight_decay),
            })
        }
        Optimizer::Rprop { learning_rate, eta_minus, eta_plus, step_min, step_max } => Method::Rprop(pb::Rprop {
            learning_rate: Some(learning_rate),
            eta_minus: Some(eta_minus),
            eta_plus: Some(eta_plus),
            step_min: Some(step_min),
            step_max: Some(step_max),
        }),
        Optimizer::Lbfgs(numbers) => Method::Lbfgs(lbfgs(numbers)),
    };
    pb::Optimizer { method: Some(method) }
}

fn lbfgs(numbers: Lbfgs) -> pb::Lbfgs {
    pb::Lbfgs {
        learning_rate: Some(numbers.learning_rate),
        history_size: Some(numbers.history_size as i32),
        max_evaluations: Some(numbers.max_evaluations as i32),
        tolerance_gradient: Some(numbers.tolerance_gradient),
        tolerance_change: Some(numbers.tolerance_change),
    }
}

/// A schedule.
pub(in crate::rpc) fn schedule(schedule: Schedule) -> pb::Schedule {
    pb::Schedule {
        warm_up_epochs: Some(schedule.warm_up_epochs as i32),
        warm_up_start_factor: Some(schedule.warm_up_start_factor),
        kind: Some(schedule_kind(schedule.kind)),
    }
}

fn schedule_kind(kind: ScheduleKind) -> pb::schedule::Kind {
    use pb::schedule::Kind;
    match kind {
        ScheduleKind::Constant => Kind::Constant(pb::ConstantSchedule {}),
        ScheduleKind::Step { step_size, gamma } => {
            Kind::Step(pb::StepSchedule { step_size: step_size as i32, gamma: Some(gamma) })
        }
        ScheduleKind::Exponential { gamma } => Kind::Exponential(pb::ExponentialSchedule { gamma: Some(gamma) }),
        ScheduleKind::Cosine { t_0, t_mult, eta_min } => Kind::Cosine(pb::CosineSchedule {
            t_0: Some(t_0 as i32),
            t_mult: Some(t_mult as i32),
            eta_min: Some(eta_min),
        }),
        ScheduleKind::OneCycle { epochs, pct_start, div_factor, final_div_factor } => {
            Kind::OneCycle(pb::OneCycleSchedule {
                epochs: Some(epochs as i32),
                pct_start: Some(pct_start),
                div_factor: Some(div_factor),
                final_div_factor: Some(final_div_factor),
            })
        }
        ScheduleKind::InverseTime { decay } => Kind::InverseTime(pb::InverseTimeSchedule { decay: Some(decay) }),
        ScheduleKind::ReduceOnPlateau { factor, patience, threshold, cooldown, min_lr } => {
            Kind::ReduceOnPlateau(pb::PlateauSchedule {
                factor: Some(factor),
                patience: Some(patience as i32),
                threshold: Some(threshold),
                cooldown: Some(cooldown as i32),
                min_lr: Some(min_lr),
            })
        }
    }
}

// Of the other crate's tests.
#[cfg(test)]
#[path = "../../domain/optimizer/examples.rs"]
mod examples;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::RawScheduleKind;
    use crate::domain::{At, Faults, RawSchedule};
    use crate::rpc::decode;

    #[test]
    fn every_optimizer_comes_back_as_it_went() {
        for told in examples::optimizers() {
            let raw = decode::optimizer::optimizer(Some(optimizer(told))).unwrap();
            let mut faults = Faults::new();
            let checked = raw.check(true, At::ROOT, &mut faults);
            assert_eq!(faults.finish(checked), Ok(told));
        }
    }

    #[test]
    fn an_optimizer_left_out_is_none_and_an_empty_one_is_all_defaults() {
        assert_eq!(decode::optimizer::optimizer(None), None);
        assert_eq!(decode::optimizer::optimizer(Some(pb::Optimizer { method: None })), None);
        let empty = pb::optimizer::Method::Nadam(pb::Nadam::default());
        let raw = decode::optimizer::optimizer(Some(pb::Optimizer { method: Some(empty) })).unwrap();
        let nadam = raw.check(false, At::ROOT, &mut Faults::new()).unwrap();
        assert!(examples::with_defaults().contains(&nadam));
    }

    #[test]
    fn every_schedule_comes_back_as_it_went() {
        let kinds = [
            ScheduleKind::Constant,
            ScheduleKind::Step { step_size: 3, gamma: 0.2 },
            ScheduleKind::Exponential { gamma: 0.9 },
            ScheduleKind::Cosine { t_0: 4, t_mult: 2, eta_min: 0.01 },
            ScheduleKind::OneCycle { epochs: 9, pct_start: 0.4, div_factor: 5.0, final_div_factor: 6.0 },
            ScheduleKind::InverseTime { decay: 0.7 },
            ScheduleKind::ReduceOnPlateau { factor: 0.6, patience: 7, threshold: 0.1, cooldown: 2, min_lr: 0.02 },
        ];
        for kind in kinds {
            let told = Schedule { warm_up_epochs: 2, warm_up_start_factor: 0.25, kind };
            let raw = decode::optimizer::schedule(Some(schedule(told)));
            let mut faults = Faults::new();
            let checked = raw.check(50, 0.1, At::ROOT, &mut faults);
            assert_eq!(faults.finish(checked), Ok(told));
        }
    }

    #[test]
    fn a_schedule_left_out_is_the_default() {
        assert_eq!(decode::optimizer::schedule(None), RawSchedule::default());
        let empty = decode::optimizer::schedule(Some(pb::Schedule::default()));
        assert_eq!(empty, RawSchedule::default());
        let step = pb::schedule::Kind::Step(pb::StepSchedule::default());
        let raw = decode::optimizer::schedule(Some(pb::Schedule { kind: Some(step), ..pb::Schedule::default() }));
        assert_eq!(raw.kind, RawScheduleKind::Step { step_size: Some(0), gamma: None });
    }
}
