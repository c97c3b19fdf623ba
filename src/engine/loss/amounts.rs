//! Losses of counts and positive amounts: each gives its value and its derivative by the output, or by z where the output is a
//! logarithm (or e^z), which never divides by a small mean.

use crate::engine::element::Element;

/// Below ŷ in Poisson's logarithm, as PyTorch's `poisson_nll_loss`: a rate of 0 then has a loss.
const POISSON_EPSILON: f64 = 1e-8;

/// e^z − y·z, z being the log of the rate; derivative e^z − y. Without ln y!, as the definitions say.
#[inline]
pub(super) fn poisson_of_log_rate<T: Element>(z: T, y: T) -> (T, T) {
    let rate = z.exp();
    (rate - y * z, rate - y)
}

/// ŷ − y·ln(ŷ + ε), with ln ε below 0; derivative 1 − y ÷ (ŷ + ε), 1 below 0
#[inline]
pub(super) fn poisson_of_rate<T: Element>(output: T, y: T) -> (T, T) {
    let epsilon = T::from_f64(POISSON_EPSILON);
    if output < T::ZERO {
        return (output - y * epsilon.ln(), T::ONE);
    }
    let rate = output + epsilon;
    (output - y * rate.ln(), T::ONE - y / rate)
}

/// 2·(z − ln y + y·e^−z − 1), z being the log of the mean; derivative 2·(1 − y·e^−z)
#[inline]
pub(super) fn gamma_of_log_mean<T: Element>(z: T, y: T) -> (T, T) {
    let ratio = y * (-z).exp();
    (T::TWO * (z - y.ln() + ratio - T::ONE), T::TWO * (T::ONE - ratio))
}

/// 2·(ln(ŷ ÷ y) + y ÷ ŷ − 1); derivative 2·(1 − y ÷ ŷ) ÷ ŷ
#[inline]
pub(super) fn gamma_of_mean<T: Element>(mean: T, y: T) -> (T, T) {
    let ratio = y / mean;
    (T::TWO * ((mean / y).ln() + ratio - T::ONE), T::TWO * (T::ONE - ratio) / mean)
}

/// Tweedie's deviance of power p, between 1 and 2 (Jørgensen 1987):
/// 2·(y^(2−p) ÷ ((1−p)·(2−p)) − y·μ^(1−p) ÷ (1−p) + μ^(2−p) ÷ (2−p))
pub(super) struct Tweedie {
    power: f64,
}

impl Tweedie {
    pub(super) fn new(power: f64) -> Self {
        Self { power }
    }

    /// With μ = e^z; derivative by z 2·(μ^(2−p) − y·μ^(1−p))
    #[inline]
    pub(super) fn of_log_mean<T: Element>(&self, z: T, y: T) -> (T, T) {
        let (one, two) = self.exponents::<T>();
        let (low, high) = ((one * z).exp(), (two * z).exp());
        (self.deviance(low, high, y), T::TWO * (high - y * low))
    }

    /// Derivative by μ 2·(μ^(1−p) − y·μ^−p)
    #[inline]
    pub(super) fn of_mean<T: Element>(&self, mean: T, y: T) -> (T, T) {
        let (one, two) = self.exponents();
        let (low, high) = (mean.pow(one), mean.pow(two));
        (self.deviance(low, high, y), T::TWO * (low - y * low / mean))
    }

    /// 1 − p and 2 − p.
    fn exponents<T: Element>(&self) -> (T, T) {
        (T::from_f64(1.0 - self.power), T::from_f64(2.0 - self.power))
    }

    /// From μ^(1−p) and μ^(2−p).
    #[inline]
    fn deviance<T: Element>(&self, low: T, high: T, y: T) -> T {
        let (one, two) = self.exponents();
        T::TWO * (y.pow(two) / (one * two) - y * low / one + high / two)
    }
}
