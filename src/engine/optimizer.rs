//! Optimizers: how parameters follow their gradients. Names and placement as in PyTorch.

use super::element::Element;
use crate::domain::Optimizer;

/// What an optimizer remembers from step to step, in the order of the parameters; empty where it needs nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments<T> {
    /// SGD's velocity, or Adam's first moment.
    pub first: Vec<T>,
    /// Adam's second moment.
    pub second: Vec<T>,
    /// Steps taken.
    pub steps: u64,
}

impl<T: Element> Moments<T> {
    /// Before the first step.
    pub fn new(optimizer: &Optimizer, parameter_count: usize) -> Self {
        let (first, second) = match *optimizer {
            Optimizer::Sgd { momentum: 0.0, .. } => (0, 0),
            Optimizer::Sgd { .. } => (parameter_count, 0),
            Optimizer::Adam { .. } => (parameter_count, parameter_count),
        };
        Self { first: vec![T::ZERO; first], second: vec![T::ZERO; second], steps: 0 }
    }

    /// One step: moves `parameters` along `gradients`.
    pub fn step(&mut self, optimizer: &Optimizer, parameters: &mut [T], gradients: &[T]) {
        self.steps += 1;
        match *optimizer {
            Optimizer::Sgd { learning_rate, momentum: 0.0 } => descend(learning_rate, parameters, gradients),
            Optimizer::Sgd { learning_rate, momentum } => {
                descend_with_momentum(learning_rate, momentum, &mut self.first, parameters, gradients);
            }
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => {
                let rates = AdamRates::new(learning_rate, [beta1, beta2], epsilon, self.steps);
                adam(&rates, &mut self.first, &mut self.second, parameters, gradients);
            }
        }
    }
}

/// w ← w − η·g
fn descend<T: Element>(learning_rate: f64, parameters: &mut [T], gradients: &[T]) {
    let rate = T::from_f64(learning_rate);
    parameters.iter_mut().zip(gradients).for_each(|(w, &g)| *w -= rate * g);
}

/// v ← μ·v + g (so v = g in the first step), w ← w − η·v
fn descend_with_momentum<T: Element>(
    learning_rate: f64,
    momentum: f64,
    velocity: &mut [T],
    parameters: &mut [T],
    gradients: &[T],
) {
    let (rate, momentum) = (T::from_f64(learning_rate), T::from_f64(momentum));
    for ((w, v), &g) in parameters.iter_mut().zip(velocity).zip(gradients) {
        // Without a gradient, as behind a dead unit, v shrinks step by step: without the flush it would end up denormal.
        *v = (momentum * *v + g).flush();
        *w -= rate * *v;
    }
}

/// The numbers of one step of Adam, in float64 so that 1 − βᵗ keeps its digits.
struct AdamRates<T> {
    beta1: T,
    one_minus_beta1: T,
    beta2: T,
    one_minus_beta2: T,
    epsilon: T,
    /// η ÷ (1 − β₁ᵗ)
    step_size: T,
    /// √(1 − β₂ᵗ)
    root_correction: T,
}

impl<T: Element> AdamRates<T> {
    fn new(learning_rate: f64, [beta1, beta2]: [f64; 2], epsilon: f64, steps: u64) -> Self {
        let correction = |beta: f64| 1.0 - libm::pow(beta, steps as f64);
        Self {
            beta1: T::from_f64(beta1),
            one_minus_beta1: T::from_f64(1.0 - beta1),
            beta2: T::from_f64(beta2),
            one_minus_beta2: T::from_f64(1.0 - beta2),
            epsilon: T::from_f64(epsilon),
            step_size: T::from_f64(learning_rate / correction(beta1)),
            root_correction: T::from_f64(correction(beta2).sqrt()),
        }
    }
}

/// m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w − η·m̂ ÷ (√v̂ + ε)
/// with m̂ = m ÷ (1 − β₁ᵗ) and v̂ = v ÷ (1 − β₂ᵗ) in step t
fn adam<T: Element>(rates: &AdamRates<T>, first: &mut [T], second: &mut [T], parameters: &mut [T], gradients: &[T]) {
    for (((w, m), v), &g) in parameters.iter_mut().zip(first).zip(second).zip(gradients) {
        // The moments of a dead unit's weights decay to denormal numbers, and the square of a tiny gradient is one: each
        // costs tens of ordinary operations, every step from then on. What is flushed would move √v by far less than ε.
        let base = if g.abs() < T::TINY_ROOT { T::ZERO } else { g };
        *m = (rates.beta1 * *m + rates.one_minus_beta1 * g).flush();
        *v = (rates.beta2 * *v + rates.one_minus_beta2 * (base * base)).flush();
        *w -= rates.step_size * *m / (v.sqrt() / rates.root_correction + rates.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::adam as adam_settings;

    /// Minimizes w² from w = 1: the gradient is 2w. Returns w after each of three steps.
    fn trajectory(optimizer: Optimizer) -> [f64; 3] {
        let mut moments = Moments::new(&optimizer, 1);
        let mut w = [1.0];
        [(); 3].map(|()| {
            let gradient = [2.0 * w[0]];
            moments.step(&optimizer, &mut w, &gradient);
            w[0]
        })
    }

    fn assert_close(actual: [f64; 3], expected: [f64; 3]) {
        assert!(actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 1e-12), "{actual:?} for {expected:?}");
    }

    /// By hand, and the same from PyTorch:
    /// `w = torch.tensor([1.0], dtype=torch.float64, requires_grad=True); o = torch.optim.SGD([w], 0.1, 0.9)`
    #[test]
    fn momentum_starts_with_the_gradient_and_adds_up() {
        assert_close(trajectory(Optimizer::Sgd { learning_rate: 0.1, momentum: 0.0 }), [0.8, 0.64, 0.512]);
        // v: 2, 0.9·2 + 1.6 = 3.4, 0.9·3.4 + 0.92 = 3.98
        assert_close(trajectory(Optimizer::Sgd { learning_rate: 0.1, momentum: 0.9 }), [0.8, 0.46, 0.062]);
    }

    #[test]
    fn adam_corrects_its_moments_and_adds_epsilon_outside_the_root() {
        // The definition, written out in another form.
        let (rate, beta1, beta2, epsilon) = (0.1, 0.9, 0.999, 1e-8);
        let (mut w, mut m, mut v) = (1.0_f64, 0.0, 0.0);
        let expected = [1, 2, 3].map(|t| {
            let g = 2.0 * w;
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let (m_hat, v_hat) = (m / (1.0 - beta1.powi(t)), v / (1.0_f64 - f64::powi(beta2, t)));
            w -= rate * m_hat / (v_hat.sqrt() + epsilon);
            w
        });
        assert_close(trajectory(adam_settings(0.1)), expected);
        assert!((expected[0] - 0.9).abs() < 1e-9, "the first step is as long as the rate");
    }

    #[test]
    fn nothing_stays_denormal_behind_a_dead_unit() {
        let is_denormal = |x: &f32| *x != 0.0 && x.abs() < f32::MIN_POSITIVE;
        for optimizer in [adam_settings(1e-3), Optimizer::Sgd { learning_rate: 0.1, momentum: 0.9 }] {
            let mut moments = Moments::<f32>::new(&optimizer, 2);
            let mut w = [1.0, 1.0];
            moments.step(&optimizer, &mut w, &[1.0, 1e-22]);
            for _ in 0..100_000 {
                moments.step(&optimizer, &mut w, &[0.0, 1e-22]);
                assert!(!moments.first.iter().chain(&moments.second).any(is_denormal));
            }
            assert_eq!(moments.first[0], 0.0);
        }
    }
}
