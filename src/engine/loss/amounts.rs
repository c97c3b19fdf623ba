//! Losses of counts and positive amounts: each gives its value and its derivative by the output, or by z where the output is a
//! logarithm (or e^z), which never divides by a small mean.

use crate::engine::activation::functions::softplus;
use crate::engine::activation::sigmoid;
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
///
/// In float64 whatever the network computes in: near either end of its range the terms are large and cancel. For y = 0 only the
/// last term is there, also where μ^(1−p) is infinite.
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
        let (loss, slope) = self.evaluate(z.to_f64(), y.to_f64());
        (T::from_f64(loss), T::from_f64(slope))
    }

    /// With μ = ln(1 + e^z), which is e^z far below 0; the derivative by z is that by ln μ times σ(z) ÷ μ.
    #[inline]
    pub(super) fn of_softplus<T: Element>(&self, z: T, y: T) -> (T, T) {
        let z = z.to_f64();
        let (log_mean, bend) = if z < -30.0 {
            (z, 1.0)
        } else {
            let mean = softplus(z);
            (mean.ln(), sigmoid(z) / mean)
        };
        let (loss, slope) = self.evaluate(log_mean, y.to_f64());
        (T::from_f64(loss), T::from_f64(slope * bend))
    }

    /// From ln μ; the derivative by it.
    #[inline]
    fn evaluate(&self, log_mean: f64, y: f64) -> (f64, f64) {
        let (one, two) = (1.0 - self.power, 2.0 - self.power);
        let high = Element::exp(two * log_mean);
        if y == 0.0 {
            return (2.0 * high / two, 2.0 * high);
        }
        let low = y * Element::exp(one * log_mean);
        let own = Element::pow(y, two) / (one * two);
        (2.0 * (own - low / one + high / two), 2.0 * (high - low))
    }
}
