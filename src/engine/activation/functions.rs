//! Each activation's value, its derivative below it.

use crate::engine::element::Element;

/// 1 / (1 + e^−z), without overflow on either side.
#[inline(always)]
pub fn sigmoid<T: Element>(z: T) -> T {
    let e = (-z.abs()).exp();
    let above = if z >= T::ZERO { T::ONE } else { e };
    above / (T::ONE + e)
}

/// The derivative of the sigmoid, from its output: a·(1 − a)
#[inline(always)]
pub fn sigmoid_derivative<T: Element>(a: T) -> T {
    a * (T::ONE - a)
}

/// The derivative of tanh, from its output: 1 − a²
#[inline(always)]
pub fn tanh_derivative<T: Element>(a: T) -> T {
    T::ONE - a * a
}

/// −1, 0 or 1; sign(0) = 0 (Rust's `signum` gives ±1 there). Its derivative is 0 wherever it has one.
#[inline(always)]
pub fn sign<T: Element>(z: T) -> T {
    if z > T::ZERO {
        T::ONE
    } else if z < T::ZERO {
        -T::ONE
    } else {
        // 0 for ±0; a NaN stays one, so that it is not taken for a prediction.
        z + T::ZERO
    }
}

/// 1 where z > 0, else 0. Its derivative is 0 wherever it has one.
#[inline(always)]
pub fn step<T: Element>(z: T) -> T {
    if z > T::ZERO {
        T::ONE
    } else if z <= T::ZERO {
        T::ZERO
    } else {
        z
    }
}

/// max(0, z)
#[inline(always)]
pub fn relu<T: Element>(z: T) -> T {
    if z <= T::ZERO { T::ZERO } else { z }
}

/// The derivative of ReLU, from its output: 1 where a > 0, else 0
#[inline(always)]
pub fn relu_derivative<T: Element>(a: T) -> T {
    if a > T::ZERO { T::ONE } else { T::ZERO }
}

/// z where z > 0, else α·z
#[inline(always)]
pub fn leaky_relu<T: Element>(z: T, alpha: T) -> T {
    if z > T::ZERO { z } else { alpha * z }
}

/// The derivative of Leaky ReLU, from its output: 1 where a > 0, else α (α ≥ 0, so a has the sign of z)
#[inline(always)]
pub fn leaky_relu_derivative<T: Element>(a: T, alpha: T) -> T {
    if a > T::ZERO { T::ONE } else { alpha }
}

/// z where z > 0, else α·(e^z − 1)
#[inline(always)]
pub fn elu<T: Element>(z: T, alpha: T) -> T {
    if z > T::ZERO { z } else { alpha * z.exp_m1() }
}

/// The derivative of ELU, from its output: 1 where a > 0, else α·e^z = a + α
#[inline(always)]
pub fn elu_derivative<T: Element>(a: T, alpha: T) -> T {
    if a > T::ZERO { T::ONE } else { a + alpha }
}

/// α of SELU, from Klambauer et al., "Self-Normalizing Neural Networks" (2017).
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// λ of SELU, from the same.
pub const SELU_LAMBDA: f64 = 1.050_700_987_355_480_5;

/// λ·z where z > 0, else λ·α·(e^z − 1)
#[inline(always)]
pub fn selu<T: Element>(z: T) -> T {
    T::from_f64(SELU_LAMBDA) * elu(z, T::from_f64(SELU_ALPHA))
}

/// The derivative of SELU, from its output: λ where a > 0, else λ·α·e^z = a + λ·α
#[inline(always)]
pub fn selu_derivative<T: Element>(a: T) -> T {
    if a > T::ZERO { T::from_f64(SELU_LAMBDA) } else { a + T::from_f64(SELU_LAMBDA * SELU_ALPHA) }
}

/// ln(1 + e^z), as max(0, z) + ln(1 + e^−|z|)
#[inline(always)]
pub fn softplus<T: Element>(z: T) -> T {
    relu(z) + (-z.abs()).exp().ln_1p()
}

/// The derivative of softplus, from its output: σ(z) = 1 − e^−a
#[inline(always)]
pub fn softplus_derivative<T: Element>(a: T) -> T {
    -(-a).exp_m1()
}

/// z / (1 + |z|)
#[inline(always)]
pub fn softsign<T: Element>(z: T) -> T {
    z / (T::ONE + z.abs())
}

/// The derivative of softsign, from its output: 1 / (1 + |z|)² = (1 − |a|)²
#[inline(always)]
pub fn softsign_derivative<T: Element>(a: T) -> T {
    let rest = T::ONE - a.abs();
    rest * rest
}

/// The derivative of e^z, from its output: a
#[inline(always)]
pub fn exponential_derivative<T: Element>(a: T) -> T {
    a
}

/// min(max(z + 3, 0), 6) / 6
#[inline(always)]
pub fn hard_sigmoid<T: Element>(z: T) -> T {
    let shifted = relu(z + T::from_f64(3.0));
    let six = T::from_f64(6.0);
    if shifted >= six { T::ONE } else { shifted / six }
}

/// The derivative of the hard sigmoid, from its output: 1/6 where 0 < a < 1, else 0
#[inline(always)]
pub fn hard_sigmoid_derivative<T: Element>(a: T) -> T {
    if a > T::ZERO && a < T::ONE { T::from_f64(1.0 / 6.0) } else { T::ZERO }
}

/// Φ(z), the distribution function of a standard normal, as ½·erfc(−z/√2), which keeps its digits far below 0.
#[inline(always)]
fn normal_distribution<T: Element>(z: T) -> T {
    T::from_f64(0.5) * (-z * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erfc()
}

/// z·Φ(z)
#[inline(always)]
pub fn gelu<T: Element>(z: T) -> T {
    z * normal_distribution(z)
}

/// The derivative of GELU: Φ(z) + z·φ(z) with φ(z) = e^(−z²/2) ÷ √(2π)
#[inline(always)]
pub fn gelu_derivative<T: Element>(z: T) -> T {
    let inverse_root = T::from_f64(ROOT_2_BY_PI / 2.0);
    normal_distribution(z) + z * (inverse_root * (-z * z / T::TWO).exp())
}

/// √(2/π)
const ROOT_2_BY_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;

/// t = tanh u with u = √(2/π)·(z + 0.044715·z³), and u′.
#[inline(always)]
fn gelu_bend<T: Element>(z: T) -> (T, T) {
    let (root, cubic) = (T::from_f64(ROOT_2_BY_PI), T::from_f64(0.044_715));
    let square = z * z;
    ((root * z * (T::ONE + cubic * square)).tanh(), root * (T::ONE + T::from_f64(3.0) * cubic * square))
}

/// ½·z·(1 + tanh(√(2/π)·(z + 0.044715·z³)))
#[inline(always)]
pub fn gelu_tanh<T: Element>(z: T) -> T {
    T::from_f64(0.5) * z * (T::ONE + gelu_bend(z).0)
}

/// The derivative of GELU by tanh: ½·(1 + t) + ½·z·(1 − t²)·u′
#[inline(always)]
pub fn gelu_tanh_derivative<T: Element>(z: T) -> T {
    let half = T::from_f64(0.5);
    let (t, slope) = gelu_bend(z);
    let bend = T::ONE - t * t;
    // Where tanh is flat, z² may be past the largest float.
    let bent = if bend == T::ZERO { T::ZERO } else { half * z * bend * slope };
    half * (T::ONE + t) + bent
}

/// z·σ(z)
#[inline(always)]
pub fn silu<T: Element>(z: T) -> T {
    z * sigmoid(z)
}

/// The derivative of SiLU: σ(z)·(1 + z·(1 − σ(z))), with 1 − σ(z) as σ(−z)
#[inline(always)]
pub fn silu_derivative<T: Element>(z: T) -> T {
    sigmoid(z) * (T::ONE + z * sigmoid(-z))
}

/// z·tanh(ln(1 + e^z))
#[inline(always)]
pub fn mish<T: Element>(z: T) -> T {
    z * softplus(z).tanh()
}

/// The derivative of Mish: t + z·(1 − t²)·σ(z) with t = tanh(ln(1 + e^z))
#[inline(always)]
pub fn mish_derivative<T: Element>(z: T) -> T {
    let t = softplus(z).tanh();
    t + z * (T::ONE - t * t) * sigmoid(z)
}
