//! Optimizers for tests, here and in other modules.

use crate::domain::optimizer::LbfgsOf;
use crate::domain::{At, Faults, Optimizer, RawOptimizer};

/// Every optimizer: each with its defaults, and each with every option on.
pub fn optimizers() -> Vec<Optimizer> {
    with_defaults().into_iter().chain(with_options()).collect()
}

/// Every optimizer with its defaults.
pub fn with_defaults() -> Vec<Optimizer> {
    let mut optimizers: Vec<Optimizer> = with_options().iter().map(default_of).collect();
    optimizers.dedup();
    optimizers
}

/// The same optimizer with its defaults.
pub fn default_of(optimizer: &Optimizer) -> Optimizer {
    let mut faults = Faults::new();
    let checked = raw_of(optimizer).check(false, At::ROOT, &mut faults);
    faults.finish(checked).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The same optimizer as a request brings it that names no number.
pub fn raw_of(optimizer: &Optimizer) -> RawOptimizer {
    let (learning_rate, epsilon, weight_decay) = (None, None, None);
    let (beta1, beta2, amsgrad) = (None, None, false);
    // A match without a wildcard: it fails to compile where an optimizer is missing.
    match optimizer {
        Optimizer::Sgd { .. } => RawOptimizer::default_for(true),
        Optimizer::Adam { .. } => RawOptimizer::default_for(false),
        Optimizer::AdamW { .. } => RawOptimizer::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad },
        Optimizer::RmsProp { .. } => {
            RawOptimizer::RmsProp { learning_rate, decay: None, epsilon, momentum: None, centered: false, weight_decay }
        }
        Optimizer::Adagrad { .. } => RawOptimizer::Adagrad {
            learning_rate,
            learning_rate_decay: None,
            initial_accumulator: None,
            epsilon,
            weight_decay,
        },
        Optimizer::Adadelta { .. } => RawOptimizer::Adadelta { learning_rate, decay: None, epsilon, weight_decay },
        Optimizer::Nadam { .. } => {
            RawOptimizer::Nadam { learning_rate, beta1, beta2, epsilon, momentum_decay: None, weight_decay }
        }
        Optimizer::Rprop { .. } => {
            let (eta_minus, eta_plus, step_min, step_max) = (None, None, None, None);
            RawOptimizer::Rprop { learning_rate, eta_minus, eta_plus, step_min, step_max }
        }
        Optimizer::Lbfgs(_) => RawOptimizer::Lbfgs(LbfgsOf {
            learning_rate,
            history_size: None,
            max_evaluations: None,
            tolerance_gradient: None,
            tolerance_change: None,
        }),
    }
}

/// Every optimizer with every option on, no number at its default.
pub fn with_options() -> Vec<Optimizer> {
    let (beta1, beta2, epsilon) = (0.8, 0.95, 1e-4);
    vec![
        Optimizer::Sgd { learning_rate: 0.05, momentum: 0.7, dampening: 0.2, nesterov: false, weight_decay: 0.1 },
        Optimizer::Sgd { learning_rate: 0.05, momentum: 0.7, dampening: 0.0, nesterov: true, weight_decay: 0.1 },
        Optimizer::Adam { learning_rate: 0.05, beta1, beta2, epsilon, weight_decay: 0.1, amsgrad: true },
        Optimizer::AdamW { learning_rate: 0.05, beta1, beta2, epsilon, weight_decay: 0.1, amsgrad: true },
        Optimizer::RmsProp {
            learning_rate: 0.02,
            decay: 0.9,
            epsilon,
            momentum: 0.5,
            centered: true,
            weight_decay: 0.1,
        },
        Optimizer::Adagrad {
            learning_rate: 0.1,
            learning_rate_decay: 0.1,
            initial_accumulator: 0.1,
            epsilon,
            weight_decay: 0.1,
        },
        Optimizer::Adadelta { learning_rate: 0.5, decay: 0.8, epsilon, weight_decay: 0.1 },
        Optimizer::Nadam { learning_rate: 0.05, beta1, beta2, epsilon, momentum_decay: 0.04, weight_decay: 0.1 },
        Optimizer::Rprop { learning_rate: 0.1, eta_minus: 0.4, eta_plus: 1.5, step_min: 1e-3, step_max: 0.2 },
        Optimizer::Lbfgs(LbfgsOf {
            learning_rate: 0.5,
            history_size: 3,
            max_evaluations: 20,
            tolerance_gradient: 1e-9,
            tolerance_change: 1e-12,
        }),
    ]
}
