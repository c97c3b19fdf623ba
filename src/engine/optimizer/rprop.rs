//! Rprop, in PyTorch's form of it (Rprop− without weight backtracking, with the turned gradient forgotten). Slots: the
//! step sizes, the gradients of the last step.

use crate::engine::element::Element;

/// The numbers of one step.
pub(super) struct Rprop<T> {
    eta_minus: T,
    eta_plus: T,
    step_min: T,
    step_max: T,
}

impl<T: Element> Rprop<T> {
    pub(super) fn new([eta_minus, eta_plus]: [f64; 2], [step_min, step_max]: [f64; 2]) -> Self {
        Self {
            eta_minus: T::from_f64(eta_minus),
            eta_plus: T::from_f64(eta_plus),
            step_min: T::from_f64(step_min),
            step_max: T::from_f64(step_max),
        }
    }

    /// size ← size·η₊ where g·last > 0, size·η₋ (and then g ← 0) where g·last < 0, size where it is 0; within the bounds;
    /// w ← w − sign(g)·size, last ← g. The first step has last = 0, so that each size is the learning rate.
    #[inline(always)]
    pub(super) fn step(&self, parameters: &mut [T], gradients: &[T], sizes: &mut [T], last: &mut [T]) {
        for (((w, size), last), &g) in parameters.iter_mut().zip(sizes).zip(last).zip(gradients) {
            // Of signs, not of the gradients: their product may round to 0 where neither is.
            let g = sign(g);
            let turn = g * *last;
            let factor = if turn > T::ZERO { self.eta_plus } else { T::ONE };
            let factor = if turn < T::ZERO { self.eta_minus } else { factor };
            *size = self.bounded(*size * factor);
            *last = if turn < T::ZERO { T::ZERO } else { g };
            *w -= *last * *size;
        }
    }

    #[inline(always)]
    fn bounded(&self, size: T) -> T {
        let size = if size < self.step_min { self.step_min } else { size };
        if size > self.step_max { self.step_max } else { size }
    }
}

/// −1, 0 or 1; 0 for 0. (Rust's `signum` is ±1 there.)
#[inline(always)]
fn sign<T: Element>(x: T) -> T {
    let positive = if x > T::ZERO { T::ONE } else { T::ZERO };
    if x < T::ZERO { -T::ONE } else { positive }
}
