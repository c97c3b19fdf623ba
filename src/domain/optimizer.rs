//! Optimizers: their numbers, with ranges and defaults.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults, RealRange};
use crate::limits;

/// How parameters follow their gradients, every number checked. Formulas stand in the engine.
pub type Optimizer = OptimizerOf<f64, u32>;

/// An optimizer as a request brings it: numbers not checked yet, `None` where the default is meant.
pub type RawOptimizer = OptimizerOf<Option<f64>, Option<i64>>;

/// The optimizers. One definition for what a request brings and for what was checked, so that no number can be missing in
/// either.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum OptimizerOf<Real, Whole> {
    /// Stochastic gradient descent.
    Sgd {
        /// Step size. Default 0.01; 1 with the perceptron criterion.
        learning_rate: Real,
        /// How much of the last step is kept. Default 0.
        momentum: Real,
        /// How much of the gradient is left out of the velocity. Default 0.
        #[serde(default)]
        dampening: Real,
        /// Whether the momentum is Nesterov's.
        #[serde(default)]
        nesterov: bool,
        /// λ of g + λ·w. Default 0.
        #[serde(default)]
        weight_decay: Real,
    },
    /// Adam.
    Adam {
        /// Step size. Default 0.001.
        learning_rate: Real,
        /// Decay of the first moment. Default 0.9.
        beta1: Real,
        /// Decay of the second moment. Default 0.999.
        beta2: Real,
        /// Added to the root of the second moment. Default 1e-8.
        epsilon: Real,
        /// λ of g + λ·w. Default 0.
        #[serde(default)]
        weight_decay: Real,
        /// Whether the largest second moment so far is used.
        #[serde(default)]
        amsgrad: bool,
    },
    /// Adam with decoupled weight decay.
    AdamW {
        /// Step size. Default 0.001.
        learning_rate: Real,
        /// Decay of the first moment. Default 0.9.
        beta1: Real,
        /// Decay of the second moment. Default 0.999.
        beta2: Real,
        /// Added to the root of the second moment. Default 1e-8.
        epsilon: Real,
        /// λ of w·(1 − η·λ). Default 0.01.
        weight_decay: Real,
        /// Whether the largest second moment so far is used.
        amsgrad: bool,
    },
    /// By the running mean of squares.
    RmsProp {
        /// Step size. Default 0.01.
        learning_rate: Real,
        /// Smoothing of the squares. Default 0.99.
        decay: Real,
        /// Added to the root. Default 1e-8.
        epsilon: Real,
        /// How much of the last step is kept. Default 0.
        momentum: Real,
        /// Whether the squares are centred.
        centered: bool,
        /// λ of g + λ·w. Default 0.
        weight_decay: Real,
    },
    /// By the sum of squares.
    Adagrad {
        /// Step size. Default 0.01.
        learning_rate: Real,
        /// How fast the rate falls. Default 0.
        learning_rate_decay: Real,
        /// The sum before the first step. Default 0.
        initial_accumulator: Real,
        /// Added to the root. Default 1e-10.
        epsilon: Real,
        /// λ of g + λ·w. Default 0.
        weight_decay: Real,
    },
    /// By the running means of squares of gradients and of steps.
    Adadelta {
        /// Step size. Default 1.
        learning_rate: Real,
        /// Smoothing of both squares. Default 0.9.
        decay: Real,
        /// Added within both roots. Default 1e-6.
        epsilon: Real,
        /// λ of g + λ·w. Default 0.
        weight_decay: Real,
    },
    /// Adam with Nesterov's momentum.
    Nadam {
        /// Step size. Default 0.002.
        learning_rate: Real,
        /// Decay of the first moment. Default 0.9.
        beta1: Real,
        /// Decay of the second moment. Default 0.999.
        beta2: Real,
        /// Added to the root of the second moment. Default 1e-8.
        epsilon: Real,
        /// How fast the momentum grows. Default 0.004.
        momentum_decay: Real,
        /// λ of g + λ·w. Default 0.
        weight_decay: Real,
    },
    /// By signs.
    Rprop {
        /// The first step size of every parameter. Default 0.01.
        learning_rate: Real,
        /// What a step size is multiplied by where the gradient turned. Default 0.5.
        eta_minus: Real,
        /// What a step size is multiplied by where the gradient kept its sign. Default 1.2.
        eta_plus: Real,
        /// The smallest step size. Default 1e-6.
        step_min: Real,
        /// The largest step size. Default 50.
        step_max: Real,
    },
    /// Quasi-Newton, with a line search.
    Lbfgs(LbfgsOf<Real, Whole>),
}

/// The numbers of L-BFGS, checked.
pub type Lbfgs = LbfgsOf<f64, u32>;

/// The numbers of L-BFGS.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LbfgsOf<Real, Whole> {
    /// The step that a line search tries first. Default 1.
    pub learning_rate: Real,
    /// Steps that the curvature is learned from. Default 10.
    pub history_size: Whole,
    /// Evaluations in one line search, at most. Default 25.
    pub max_evaluations: Whole,
    /// The largest gradient that counts as none. Default 1e-7.
    pub tolerance_gradient: Real,
    /// The smallest change of a parameter or of the loss that counts as one. Default 1e-9.
    pub tolerance_change: Real,
}

impl<Real, Whole> OptimizerOf<Real, Whole> {
    /// The name of its field in a request.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Adam { .. } => "adam",
            Self::AdamW { .. } => "adamw",
            Self::RmsProp { .. } => "rmsprop",
            Self::Adagrad { .. } => "adagrad",
            Self::Adadelta { .. } => "adadelta",
            Self::Nadam { .. } => "nadam",
            Self::Rprop { .. } => "rprop",
            Self::Lbfgs(_) => "lbfgs",
        }
    }
}

impl Optimizer {
    /// Range of a learning rate.
    pub const LEARNING_RATE_RANGE: RealRange = RealRange::above(0.0, limits::LEARNING_RATE_MAX);
    /// Range of momentum, of β, and of every other share that is kept from step to step.
    pub const DECAY_RANGE: RealRange = RealRange::below(0.0, 1.0);
    /// Range of ε.
    pub const EPSILON_RANGE: RealRange = RealRange::closed(1e-30, 1.0);
    const AT_LEAST_ZERO: RealRange = RealRange::closed(0.0, 1e30);

    /// The step size in force at the start.
    pub fn learning_rate(&self) -> f64 {
        match *self {
            Self::Sgd { learning_rate, .. }
            | Self::Adam { learning_rate, .. }
            | Self::AdamW { learning_rate, .. }
            | Self::RmsProp { learning_rate, .. }
            | Self::Adagrad { learning_rate, .. }
            | Self::Adadelta { learning_rate, .. }
            | Self::Nadam { learning_rate, .. }
            | Self::Rprop { learning_rate, .. } => learning_rate,
            Self::Lbfgs(numbers) => numbers.learning_rate,
        }
    }

    /// λ, coupled or not; 0 for what has none.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. }
            | Self::RmsProp { weight_decay, .. }
            | Self::Adagrad { weight_decay, .. }
            | Self::Adadelta { weight_decay, .. }
            | Self::Nadam { weight_decay, .. } => weight_decay,
            Self::Rprop { .. } | Self::Lbfgs(_) => 0.0,
        }
    }

    /// Whether it compares the gradients of one step with those of the next, which must then be of the same rows.
    pub fn is_full_batch_only(&self) -> bool {
        matches!(self, Self::Rprop { .. } | Self::Lbfgs(_))
    }
}

impl RawOptimizer {
    /// Adam, or plain SGD for the perceptron criterion.
    pub fn default_for(is_perceptron: bool) -> Self {
        if is_perceptron {
            return Self::Sgd {
                learning_rate: None,
                momentum: None,
                dampening: None,
                nesterov: false,
                weight_decay: None,
            };
        }
        Self::Adam { learning_rate: None, beta1: None, beta2: None, epsilon: None, weight_decay: None, amsgrad: false }
    }

    /// Checks every number and fills in the defaults; `at` is the optimizer's place in the request.
    pub fn check(self, is_perceptron: bool, at: At<'_>, faults: &mut Faults) -> Option<Optimizer> {
        let mut check = Check::new(at.field(self.name()), faults);
        let optimizer = self.fill(is_perceptron, &mut check);
        check.of_sound(optimizer).and_then(|optimizer| optimizer.check_together(&mut check))
    }

    /// Each number by itself.
    fn fill(self, is_perceptron: bool, check: &mut Check<'_>) -> Optimizer {
        let (share, at_least_zero) = (Optimizer::DECAY_RANGE, Optimizer::AT_LEAST_ZERO);
        match self {
            Self::Sgd { learning_rate, momentum, dampening, nesterov, weight_decay } => Optimizer::Sgd {
                learning_rate: check.learning_rate(learning_rate, if is_perceptron { 1.0 } else { 0.01 }),
                momentum: check.real("momentum", momentum, 0.0, share),
                dampening: check.real("dampening", dampening, 0.0, RealRange::closed(0.0, 1.0)),
                nesterov,
                weight_decay: check.weight_decay(weight_decay, 0.0),
            },
            Self::Adam { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad } => Optimizer::Adam {
                learning_rate: check.learning_rate(learning_rate, 1e-3),
                beta1: check.real("beta1", beta1, 0.9, share),
                beta2: check.real("beta2", beta2, 0.999, share),
                epsilon: check.epsilon(epsilon, 1e-8),
                weight_decay: check.weight_decay(weight_decay, 0.0),
                amsgrad,
            },
            Self::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad } => Optimizer::AdamW {
                learning_rate: check.learning_rate(learning_rate, 1e-3),
                beta1: check.real("beta1", beta1, 0.9, share),
                beta2: check.real("beta2", beta2, 0.999, share),
                epsilon: check.epsilon(epsilon, 1e-8),
                weight_decay: check.weight_decay(weight_decay, 0.01),
                amsgrad,
            },
            Self::RmsProp { learning_rate, decay, epsilon, momentum, centered, weight_decay } => Optimizer::RmsProp {
                learning_rate: check.learning_rate(learning_rate, 0.01),
                decay: check.real("decay", decay, 0.99, share),
                epsilon: check.epsilon(epsilon, 1e-8),
                momentum: check.real("momentum", momentum, 0.0, share),
                centered,
                weight_decay: check.weight_decay(weight_decay, 0.0),
            },
            Self::Adagrad { learning_rate, learning_rate_decay, initial_accumulator, epsilon, weight_decay } => {
                Optimizer::Adagrad {
                    learning_rate: check.learning_rate(learning_rate, 0.01),
                    learning_rate_decay: check.real("learning_rate_decay", learning_rate_decay, 0.0, at_least_zero),
                    initial_accumulator: check.real("initial_accumulator", initial_accumulator, 0.0, at_least_zero),
                    epsilon: check.epsilon(epsilon, 1e-10),
                    weight_decay: check.weight_decay(weight_decay, 0.0),
                }
            }
            Self::Adadelta { learning_rate, decay, epsilon, weight_decay } => Optimizer::Adadelta {
                learning_rate: check.learning_rate(learning_rate, 1.0),
                decay: check.real("decay", decay, 0.9, share),
                epsilon: check.epsilon(epsilon, 1e-6),
                weight_decay: check.weight_decay(weight_decay, 0.0),
            },
            Self::Nadam { learning_rate, beta1, beta2, epsilon, momentum_decay, weight_decay } => Optimizer::Nadam {
                learning_rate: check.learning_rate(learning_rate, 2e-3),
                beta1: check.real("beta1", beta1, 0.9, share),
                beta2: check.real("beta2", beta2, 0.999, share),
                epsilon: check.epsilon(epsilon, 1e-8),
                momentum_decay: check.real("momentum_decay", momentum_decay, 4e-3, at_least_zero),
                weight_decay: check.weight_decay(weight_decay, 0.0),
            },
            Self::Rprop { learning_rate, eta_minus, eta_plus, step_min, step_max } => Optimizer::Rprop {
                learning_rate: check.learning_rate(learning_rate, 0.01),
                eta_minus: check.real("eta_minus", eta_minus, 0.5, RealRange::open(0.0, 1.0)),
                eta_plus: check.real("eta_plus", eta_plus, 1.2, RealRange::above(1.0, 100.0)),
                step_min: check.real("step_min", step_min, 1e-6, RealRange::MAGNITUDE),
                step_max: check.real("step_max", step_max, 50.0, RealRange::MAGNITUDE),
            },
            Self::Lbfgs(numbers) => Optimizer::Lbfgs(Lbfgs {
                learning_rate: check.learning_rate(numbers.learning_rate, 1.0),
                history_size: check.whole("history_size", numbers.history_size, 10, 1..=100),
                max_evaluations: check.whole("max_evaluations", numbers.max_evaluations, 25, 1..=1_000),
                tolerance_gradient: check.real("tolerance_gradient", numbers.tolerance_gradient, 1e-7, at_least_zero),
                tolerance_change: check.real("tolerance_change", numbers.tolerance_change, 1e-9, at_least_zero),
            }),
        }
    }
}

impl Optimizer {
    /// What numbers, each within its range, must be to one another.
    fn check_together(self, check: &mut Check<'_>) -> Option<Self> {
        match self {
            Self::Sgd { nesterov: true, momentum: 0.0, .. } => {
                let message = "needs a momentum: set momentum above 0, such as 0.9, or leave nesterov out";
                check.fault("nesterov", message);
            }
            Self::Sgd { nesterov: true, dampening, .. } if dampening != 0.0 => {
                check.fault("dampening", "must be 0 with nesterov: set it to 0, or leave nesterov out");
            }
            Self::Rprop { step_min, step_max, .. } if step_min > step_max => {
                let message = "raise it, or lower step_min";
                check.fault("step_max", format!("must be at least step_min, {step_min}, but is {step_max}: {message}"));
            }
            _ => {}
        }
        check.of_sound(self)
    }
}

/// Checks the numbers of one message. Each check gives a number in any case, so that all faults are found before the
/// message is given up for one.
pub(super) struct Check<'a> {
    at: At<'a>,
    faults: &'a mut Faults,
    faults_before: usize,
}

impl<'a> Check<'a> {
    /// `at` is the message's place in the request.
    pub(super) fn new(at: At<'a>, faults: &'a mut Faults) -> Self {
        let faults_before = faults.count();
        Self { at, faults, faults_before }
    }

    /// What was made of the numbers, where this has found no fault.
    pub(super) fn of_sound<T>(&self, made: T) -> Option<T> {
        (self.faults.count() == self.faults_before).then_some(made)
    }

    pub(super) fn fault(&mut self, name: &'static str, message: impl Into<String>) {
        self.faults.add(self.at.field(name), message);
    }

    pub(super) fn real(&mut self, name: &'static str, value: Option<f64>, default: f64, range: RealRange) -> f64 {
        self.faults.real(self.at.field(name), value.unwrap_or(default), range).unwrap_or(default)
    }

    /// A number that has no default.
    pub(super) fn required(&mut self, name: &'static str, value: Option<f64>, range: RealRange) -> f64 {
        match value {
            Some(value) => self.real(name, Some(value), value, range),
            None => {
                self.fault(name, format!("is required: {range}"));
                f64::NAN
            }
        }
    }

    /// A whole number whose range is one of `u32`.
    pub(super) fn whole(
        &mut self,
        name: &'static str,
        value: Option<i64>,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> u32 {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        let value = value.unwrap_or(i64::from(default));
        self.faults.whole(self.at.field(name), value, range).map_or(default, |value| value as u32)
    }

    fn learning_rate(&mut self, value: Option<f64>, default: f64) -> f64 {
        self.real("learning_rate", value, default, Optimizer::LEARNING_RATE_RANGE)
    }

    fn weight_decay(&mut self, value: Option<f64>, default: f64) -> f64 {
        self.real("weight_decay", value, default, Optimizer::AT_LEAST_ZERO)
    }

    fn epsilon(&mut self, value: Option<f64>, default: f64) -> f64 {
        self.real("epsilon", value, default, Optimizer::EPSILON_RANGE)
    }
}

#[cfg(test)]
pub mod examples;

#[cfg(test)]
mod tests;
