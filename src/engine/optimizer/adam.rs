//! Adam and AdamW. Slots: the moments m and v, and with AMSGrad the largest v so far.

use super::{bias_correction, square};
use crate::engine::element::Element;

/// Where λ goes.
pub(super) enum WeightDecay {
    /// g ← g + λ·w
    OfGradient(f64),
    /// w ← w·(1 − η·λ), before the step
    OfParameter(f64),
}

/// The numbers of one step, from float64 so that 1 − βᵗ keeps its digits.
pub(super) struct Adam<T> {
    beta1: T,
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    epsilon: T,
    /// η ÷ (1 − β₁ᵗ)
    step_size: T,
    /// 1 ÷ √(1 − β₂ᵗ)
    root_correction: T,
    /// λ of the gradient; 0 with AdamW
    weight_decay: T,
    /// 1 − η·λ with AdamW, else 1
    kept: T,
}

impl<T: Element> Adam<T> {
    pub(super) fn new(
        learning_rate: f64,
        [beta1, beta2]: [f64; 2],
        epsilon: f64,
        decay: WeightDecay,
        steps: u64,
    ) -> Self {
        let correction = |beta: f64| bias_correction(beta, steps);
        let (weight_decay, kept) = match decay {
            WeightDecay::OfGradient(lambda) => (lambda, 1.0),
            WeightDecay::OfParameter(lambda) => (0.0, 1.0 - learning_rate * lambda),
        };
        Self {
            beta1: T::from_f64(beta1),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            epsilon: T::from_f64(epsilon),
            step_size: T::from_f64(learning_rate / correction(beta1)),
            root_correction: T::from_f64(1.0 / correction(beta2).sqrt()),
            weight_decay: T::from_f64(weight_decay),
            kept: T::from_f64(kept),
        }
    }

    /// m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w − η·m̂ ÷ (√v̂ + ε)
    /// with m̂ = m ÷ (1 − β₁ᵗ) and v̂ = v ÷ (1 − β₂ᵗ) in step t; before it g ← g + λ·w, or w ← w·(1 − η·λ) with AdamW
    #[inline(always)]
    pub(super) fn step(&self, parameters: &mut [T], gradients: &[T], first: &mut [T], second: &mut [T]) {
        for (((w, m), v), &g) in parameters.iter_mut().zip(first).zip(second).zip(gradients) {
            self.follow(*w, g, m, v);
            *w = self.moved(*w, *m, *v);
        }
    }

    /// The same with v̂ = max ÷ (1 − β₂ᵗ), max ← max(max, v) (AMSGrad)
    #[inline(always)]
    pub(super) fn step_with_maximum(
        &self,
        parameters: &mut [T],
        gradients: &[T],
        first: &mut [T],
        second: &mut [T],
        maximum: &mut [T],
    ) {
        for ((((w, m), v), max), &g) in parameters.iter_mut().zip(first).zip(second).zip(maximum).zip(gradients) {
            self.follow(*w, g, m, v);
            *max = if *v > *max { *v } else { *max };
            *w = self.moved(*w, *m, *max);
        }
    }

    #[inline(always)]
    fn follow(&self, w: T, g: T, m: &mut T, v: &mut T) {
        let g = g + self.weight_decay * w;
        // The moments of a dead unit's weights decay to denormal numbers. What is flushed would move √v by far less than ε.
        *m = (self.beta1 * *m + self.one_minus_beta1 * g).flush();
        *v = (self.beta2 * *v + self.one_minus_beta2 * square(g)).flush();
    }

    #[inline(always)]
    fn moved(&self, w: T, m: T, v: T) -> T {
        w * self.kept - self.step_size * m / (v.sqrt() * self.root_correction + self.epsilon)
    }
}
