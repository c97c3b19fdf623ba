//! Stochastic gradient descent. Slot: the velocity v.

use crate::engine::element::Element;

/// The numbers of one step.
pub(super) struct Sgd<T> {
    rate: T,
    momentum: T,
    /// 1 − dampening
    gain: T,
    weight_decay: T,
}

impl<T: Element> Sgd<T> {
    pub(super) fn new(learning_rate: f64, momentum: f64, dampening: f64, weight_decay: f64) -> Self {
        Self {
            rate: T::from_f64(learning_rate),
            momentum: T::from_f64(momentum),
            gain: T::from_f64(1.0 - dampening),
            weight_decay: T::from_f64(weight_decay),
        }
    }

    /// w ← w − η·(g + λ·w)
    #[inline(always)]
    pub(super) fn descend(&self, parameters: &mut [T], gradients: &[T]) {
        parameters.iter_mut().zip(gradients).for_each(|(w, &g)| *w -= self.rate * (g + self.weight_decay * *w));
    }

    /// g ← g + λ·w, v ← μ·v + (1 − dampening)·g (v = g in the first step), w ← w − η·v
    #[inline(always)]
    pub(super) fn descend_with_momentum(&self, parameters: &mut [T], gradients: &[T], velocity: &mut [T]) {
        for ((w, v), &g) in parameters.iter_mut().zip(velocity).zip(gradients) {
            let g = g + self.weight_decay * *w;
            // Without a gradient, as behind a dead unit, v shrinks step by step: without the flush it would end up denormal.
            *v = (self.momentum * *v + self.gain * g).flush();
            *w -= self.rate * *v;
        }
    }

    /// g ← g + λ·w, v ← μ·v + g, w ← w − η·(g + μ·v)
    #[inline(always)]
    pub(super) fn descend_with_nesterov(&self, parameters: &mut [T], gradients: &[T], velocity: &mut [T]) {
        for ((w, v), &g) in parameters.iter_mut().zip(velocity).zip(gradients) {
            let g = g + self.weight_decay * *w;
            *v = (self.momentum * *v + g).flush();
            *w -= self.rate * (g + self.momentum * *v);
        }
    }
}
