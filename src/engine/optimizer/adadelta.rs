//! Adadelta. Slots: the mean of squared gradients s, the mean of squared steps u.

use super::square;
use crate::engine::element::Element;

/// The numbers of one step.
pub(super) struct Adadelta<T> {
    rate: T,
    decay: T,
    one_minus_decay: T,
    epsilon: T,
    weight_decay: T,
}

impl<T: Element> Adadelta<T> {
    pub(super) fn new(learning_rate: f64, decay: f64, epsilon: f64, weight_decay: f64) -> Self {
        Self {
            rate: T::from_f64(learning_rate),
            decay: T::from_f64(decay),
            one_minus_decay: T::from_f64(1.0 - decay),
            epsilon: T::from_f64(epsilon),
            weight_decay: T::from_f64(weight_decay),
        }
    }

    /// g ← g + λ·w, s ← decay·s + (1 − decay)·g², d = g·√(u + ε) ÷ √(s + ε), u ← decay·u + (1 − decay)·d²,
    /// w ← w − η·d
    #[inline(always)]
    pub(super) fn step(&self, parameters: &mut [T], gradients: &[T], squares: &mut [T], steps: &mut [T]) {
        for (((w, s), u), &g) in parameters.iter_mut().zip(squares).zip(steps).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *s = (self.decay * *s + self.one_minus_decay * square(g)).flush();
            let d = (*u + self.epsilon).sqrt() / (*s + self.epsilon).sqrt() * g;
            *u = (self.decay * *u + self.one_minus_decay * square(d)).flush();
            *w -= self.rate * d;
        }
    }
}
