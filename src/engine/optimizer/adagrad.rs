//! Adagrad. Slot: the sum of squares s.

use super::square;
use crate::engine::element::Element;

/// The numbers of one step.
pub(super) struct Adagrad<T> {
    rate: T,
    epsilon: T,
    weight_decay: T,
}

impl<T: Element> Adagrad<T> {
    /// `rate` is η ÷ (1 + (t − 1)·learning_rate_decay) in step t.
    pub(super) fn new(rate: f64, epsilon: f64, weight_decay: f64) -> Self {
        Self { rate: T::from_f64(rate), epsilon: T::from_f64(epsilon), weight_decay: T::from_f64(weight_decay) }
    }

    /// g ← g + λ·w, s ← s + g², w ← w − rate·g ÷ (√s + ε)
    #[inline(always)]
    pub(super) fn step(&self, parameters: &mut [T], gradients: &[T], sums: &mut [T]) {
        for ((w, s), &g) in parameters.iter_mut().zip(sums).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *s += square(g);
            *w -= self.rate * (g / (s.sqrt() + self.epsilon));
        }
    }
}
