//! Losses of the residual r = ŷ − y: each gives its value and its derivative by ŷ.

use crate::engine::activation::sign;
use crate::engine::element::Element;

/// r², without ½; derivative 2·r
#[inline]
pub(super) fn squared_error<T: Element>(output: T, y: T) -> (T, T) {
    let r = output - y;
    (r * r, T::TWO * r)
}

/// |r|; derivative the sign of r, 0 at 0
#[inline]
pub(super) fn absolute_error<T: Element>(output: T, y: T) -> (T, T) {
    let r = output - y;
    (r.abs(), sign(r))
}

/// ½·r² where |r| ≤ δ, else δ·(|r| − ½·δ); derivative r where |r| ≤ δ, else δ·sign(r) (Huber 1964)
#[inline]
pub(super) fn huber<T: Element>(delta: T, output: T, y: T) -> (T, T) {
    let half = T::ONE / T::TWO;
    let r = output - y;
    if r.abs() <= delta { (half * r * r, r) } else { (delta * (r.abs() - half * delta), delta * sign(r)) }
}

/// ln cosh r, as |r| + ln(1 + e^−2|r|) − ln 2, which does not overflow; derivative tanh r
#[inline]
pub(super) fn log_cosh<T: Element>(output: T, y: T) -> (T, T) {
    let r = output - y;
    // Below this r²/2 has every digit, and the difference above has not.
    let small = T::from_f64(1e-2);
    let value = if r.abs() < small {
        let square = r * r;
        square * (T::from_f64(0.5) - square * (T::from_f64(1.0 / 12.0) - square * T::from_f64(1.0 / 45.0)))
    } else {
        r.abs() + (-T::TWO * r.abs()).exp().ln_1p() - T::from_f64(std::f64::consts::LN_2)
    };
    (value, r.tanh())
}

/// q·(y − ŷ) where y > ŷ, else (1 − q)·(ŷ − y); derivative −q or 1 − q, 0 at ŷ = y (Koenker and Bassett 1978)
#[inline]
pub(super) fn quantile<T: Element>(q: T, output: T, y: T) -> (T, T) {
    let r = output - y;
    if r < T::ZERO { (-q * r, -q) } else { ((T::ONE - q) * r, (T::ONE - q) * sign(r)) }
}
