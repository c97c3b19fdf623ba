//! RMSprop. Slots: the mean of squares s, with `centered` the mean m, with momentum the velocity v.

use super::square;
use crate::engine::element::Element;

/// The numbers of one step.
pub(super) struct RmsProp<T> {
    rate: T,
    decay: T,
    one_minus_decay: T,
    epsilon: T,
    momentum: T,
    weight_decay: T,
}

impl<T: Element> RmsProp<T> {
    pub(super) fn new(learning_rate: f64, decay: f64, epsilon: f64, momentum: f64, weight_decay: f64) -> Self {
        Self {
            rate: T::from_f64(learning_rate),
            decay: T::from_f64(decay),
            one_minus_decay: T::from_f64(1.0 - decay),
            epsilon: T::from_f64(epsilon),
            momentum: T::from_f64(momentum),
            weight_decay: T::from_f64(weight_decay),
        }
    }

    /// g ← g + λ·w, s ← decay·s + (1 − decay)·g², w ← w − η·g ÷ (√s + ε)
    #[inline(always)]
    pub(super) fn plain(&self, parameters: &mut [T], gradients: &[T], squares: &mut [T]) {
        for ((w, s), &g) in parameters.iter_mut().zip(squares).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *w -= self.rate * (g / self.root(g, s));
        }
    }

    /// The same, with v ← μ·v + g ÷ (√s + ε), w ← w − η·v
    #[inline(always)]
    pub(super) fn with_momentum(&self, parameters: &mut [T], gradients: &[T], squares: &mut [T], velocity: &mut [T]) {
        for (((w, s), v), &g) in parameters.iter_mut().zip(squares).zip(velocity).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *v = (self.momentum * *v + g / self.root(g, s)).flush();
            *w -= self.rate * *v;
        }
    }

    /// As `plain`, with m ← decay·m + (1 − decay)·g and √(s − m²) in the place of √s
    #[inline(always)]
    pub(super) fn centered(&self, parameters: &mut [T], gradients: &[T], squares: &mut [T], means: &mut [T]) {
        for (((w, s), m), &g) in parameters.iter_mut().zip(squares).zip(means).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *w -= self.rate * (g / self.centered_root(g, s, m));
        }
    }

    /// As `with_momentum`, centred
    #[inline(always)]
    pub(super) fn centered_with_momentum(
        &self,
        parameters: &mut [T],
        gradients: &[T],
        squares: &mut [T],
        means: &mut [T],
        velocity: &mut [T],
    ) {
        for ((((w, s), m), v), &g) in parameters.iter_mut().zip(squares).zip(means).zip(velocity).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *v = (self.momentum * *v + g / self.centered_root(g, s, m)).flush();
            *w -= self.rate * *v;
        }
    }

    #[inline(always)]
    fn root(&self, g: T, s: &mut T) -> T {
        *s = (self.decay * *s + self.one_minus_decay * square(g)).flush();
        s.sqrt() + self.epsilon
    }

    #[inline(always)]
    fn centered_root(&self, g: T, s: &mut T, m: &mut T) -> T {
        *s = (self.decay * *s + self.one_minus_decay * square(g)).flush();
        *m = (self.decay * *m + self.one_minus_decay * g).flush();
        // Once a gradient has hardly changed for long, rounding puts s − m² below 0, and PyTorch's root is NaN. It is 0 here.
        let variance = *s - square(*m);
        let variance = if variance < T::ZERO { T::ZERO } else { variance };
        variance.sqrt() + self.epsilon
    }
}
