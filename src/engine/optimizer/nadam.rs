//! Nadam. Slots: the moments m and v.

use super::{bias_correction, square};
use crate::engine::element::Element;

/// β₁ of a step and of the next, μₜ = β₁·(1 − ½·0.96^(t·momentum_decay)), and the products of all so far.
#[derive(Debug)]
pub(super) struct Momentum {
    mu: f64,
    mu_next: f64,
    /// Π μ to this step
    product: f64,
}

impl Momentum {
    /// Those of step t, whose product goes into `product`.
    pub(super) fn next(product: &mut f64, beta1: f64, momentum_decay: f64, steps: u64) -> Self {
        let mu = |t: f64| beta1 * (1.0 - 0.5 * libm::pow(0.96, t * momentum_decay));
        let (mu, mu_next) = (mu(steps as f64), mu((steps + 1) as f64));
        *product *= mu;
        Self { mu, mu_next, product: *product }
    }
}

/// The numbers of one step.
pub(super) struct Nadam<T> {
    beta1: T,
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    epsilon: T,
    weight_decay: T,
    /// 1 ÷ (1 − β₂ᵗ)
    correction: T,
    /// η·(1 − μₜ) ÷ (1 − Π μ)
    gradient_rate: T,
    /// η·μₜ₊₁ ÷ (1 − μₜ₊₁·Π μ)
    moment_rate: T,
}

impl<T: Element> Nadam<T> {
    pub(super) fn new(
        learning_rate: f64,
        [beta1, beta2]: [f64; 2],
        epsilon: f64,
        weight_decay: f64,
        momentum: &Momentum,
        steps: u64,
    ) -> Self {
        let &Momentum { mu, mu_next, product } = momentum;
        Self {
            beta1: T::from_f64(beta1),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            epsilon: T::from_f64(epsilon),
            weight_decay: T::from_f64(weight_decay),
            correction: T::from_f64(1.0 / bias_correction(beta2, steps)),
            gradient_rate: T::from_f64(learning_rate * (1.0 - mu) / (1.0 - product)),
            moment_rate: T::from_f64(learning_rate * mu_next / (1.0 - product * mu_next)),
        }
    }

    /// g ← g + λ·w, m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g²,
    /// w ← w − η·(g·(1 − μₜ) ÷ (1 − Π μ) + m·μₜ₊₁ ÷ (1 − μₜ₊₁·Π μ)) ÷ (√(v ÷ (1 − β₂ᵗ)) + ε)
    #[inline(always)]
    pub(super) fn step(&self, parameters: &mut [T], gradients: &[T], first: &mut [T], second: &mut [T]) {
        for (((w, m), v), &g) in parameters.iter_mut().zip(first).zip(second).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *m = (self.beta1 * *m + self.one_minus_beta1 * g).flush();
            *v = (self.beta2 * *v + self.one_minus_beta2 * square(g)).flush();
            let root = (*v * self.correction).sqrt() + self.epsilon;
            *w -= (self.gradient_rate * g + self.moment_rate * *m) / root;
        }
    }
}
