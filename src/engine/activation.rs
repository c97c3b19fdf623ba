//! Activations: value beside derivative, the formula above both.
//!
//! A layer's outputs are computed in place over its pre-activations z. The derivative is told from the output alone, so z
//! need not be kept.

use super::element::Element;
use crate::domain::Activation;

/// 1 / (1 + e^−z), without overflow on either side.
#[inline]
pub fn sigmoid<T: Element>(z: T) -> T {
    let e = (-z.abs()).exp();
    if z >= T::ZERO { T::ONE / (T::ONE + e) } else { e / (T::ONE + e) }
}

/// The derivative of the sigmoid, from its output: a·(1 − a)
#[inline]
pub fn sigmoid_derivative<T: Element>(a: T) -> T {
    a * (T::ONE - a)
}

/// The derivative of tanh, from its output: 1 − a²
#[inline]
pub fn tanh_derivative<T: Element>(a: T) -> T {
    T::ONE - a * a
}

/// −1, 0 or 1; sign(0) = 0 (Rust's `signum` gives ±1 there). Its derivative is 0 wherever it has one.
#[inline]
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
#[inline]
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
#[inline]
pub fn relu<T: Element>(z: T) -> T {
    if z <= T::ZERO { T::ZERO } else { z }
}

/// The derivative of ReLU, from its output: 1 where a > 0, else 0
#[inline]
pub fn relu_derivative<T: Element>(a: T) -> T {
    if a > T::ZERO { T::ONE } else { T::ZERO }
}

/// z where z > 0, else α·z
#[inline]
pub fn leaky_relu<T: Element>(z: T, alpha: T) -> T {
    if z > T::ZERO { z } else { alpha * z }
}

/// The derivative of Leaky ReLU, from its output: 1 where a > 0, else α (α ≥ 0, so a has the sign of z)
#[inline]
pub fn leaky_relu_derivative<T: Element>(a: T, alpha: T) -> T {
    if a > T::ZERO { T::ONE } else { alpha }
}

/// z where z > 0, else α·(e^z − 1)
#[inline]
pub fn elu<T: Element>(z: T, alpha: T) -> T {
    if z > T::ZERO { z } else { alpha * z.exp_m1() }
}

/// The derivative of ELU, from its output: 1 where a > 0, else α·e^z = a + α
#[inline]
pub fn elu_derivative<T: Element>(a: T, alpha: T) -> T {
    if a > T::ZERO { T::ONE } else { a + alpha }
}

/// α of SELU, from Klambauer et al., "Self-Normalizing Neural Networks" (2017).
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// λ of SELU, from the same.
pub const SELU_LAMBDA: f64 = 1.050_700_987_355_480_5;

/// λ·z where z > 0, else λ·α·(e^z − 1)
#[inline]
pub fn selu<T: Element>(z: T) -> T {
    T::from_f64(SELU_LAMBDA) * elu(z, T::from_f64(SELU_ALPHA))
}

/// The derivative of SELU, from its output: λ where a > 0, else λ·α·e^z = a + λ·α
#[inline]
pub fn selu_derivative<T: Element>(a: T) -> T {
    if a > T::ZERO { T::from_f64(SELU_LAMBDA) } else { a + T::from_f64(SELU_LAMBDA * SELU_ALPHA) }
}

/// ln(1 + e^z), as max(0, z) + ln(1 + e^−|z|)
#[inline]
pub fn softplus<T: Element>(z: T) -> T {
    relu(z) + (-z.abs()).exp().ln_1p()
}

/// The derivative of softplus, from its output: σ(z) = 1 − e^−a
#[inline]
pub fn softplus_derivative<T: Element>(a: T) -> T {
    -(-a).exp_m1()
}

/// z / (1 + |z|)
#[inline]
pub fn softsign<T: Element>(z: T) -> T {
    z / (T::ONE + z.abs())
}

/// The derivative of softsign, from its output: 1 / (1 + |z|)² = (1 − |a|)²
#[inline]
pub fn softsign_derivative<T: Element>(a: T) -> T {
    let rest = T::ONE - a.abs();
    rest * rest
}

/// The derivative of e^z, from its output: a
#[inline]
pub fn exponential_derivative<T: Element>(a: T) -> T {
    a
}

/// min(max(z + 3, 0), 6) / 6
#[inline]
pub fn hard_sigmoid<T: Element>(z: T) -> T {
    let shifted = relu(z + T::from_f64(3.0));
    let six = T::from_f64(6.0);
    if shifted >= six { T::ONE } else { shifted / six }
}

/// The derivative of the hard sigmoid, from its output: 1/6 where 0 < a < 1, else 0
#[inline]
pub fn hard_sigmoid_derivative<T: Element>(a: T) -> T {
    if a > T::ZERO && a < T::ONE { T::from_f64(1.0 / 6.0) } else { T::ZERO }
}

/// e^zᵢ / Σ e^zⱼ over one row, in place; shifted by the largest z, so nothing overflows. Returns the largest z and
/// ln Σ e^(zⱼ − largest), whose sum is ln Σ e^zⱼ: apart, since the sum would round away what the losses need.
///
/// Its derivative is a matrix, ∂pᵢ/∂zⱼ = pᵢ·(δᵢⱼ − pⱼ); the losses multiply by it (see `loss`).
pub fn softmax<T: Element>(row: &mut [T]) -> (T, T) {
    let largest = row.iter().fold(row[0], |largest, &z| if z > largest { z } else { largest });
    let mut sum = T::ZERO;
    for z in row.iter_mut() {
        *z = (*z - largest).exp();
        sum += *z;
    }
    row.iter_mut().for_each(|e| *e /= sum);
    (largest, sum.ln())
}

/// Applies an activation in place to the pre-activations of some rows, `[rows, units]`.
pub fn activate<T: Element>(activation: Activation, units: usize, values: &mut [T]) {
    match activation {
        Activation::Identity => {}
        Activation::Sign => map(values, sign),
        Activation::Step => map(values, step),
        Activation::Sigmoid => map(values, sigmoid),
        Activation::Tanh => map(values, T::tanh),
        Activation::Relu => map(values, relu),
        Activation::LeakyRelu { alpha } => {
            let alpha = T::from_f64(alpha);
            map(values, |z| leaky_relu(z, alpha));
        }
        Activation::Elu { alpha } => {
            let alpha = T::from_f64(alpha);
            map(values, |z| elu(z, alpha));
        }
        Activation::Selu => map(values, selu),
        Activation::Softplus => map(values, softplus),
        Activation::Softsign => map(values, softsign),
        Activation::Exponential => map(values, T::exp),
        Activation::HardSigmoid => map(values, hard_sigmoid),
        Activation::Softmax => values.chunks_exact_mut(units).for_each(|row| {
            softmax(row);
        }),
    }
}

/// Turns the gradient with respect to a layer's outputs into that with respect to its pre-activations, in place:
/// gᵢ ← gᵢ·f′(zᵢ), told from the outputs aᵢ = f(zᵢ); for softmax gⱼ ← pⱼ·(gⱼ − Σ gᵢ·pᵢ) a row. What would soon be denormal
/// becomes zero: see [`Element::flush`].
pub fn multiply_by_derivative<T: Element>(activation: Activation, units: usize, outputs: &[T], gradient: &mut [T]) {
    match activation {
        Activation::Identity => {}
        // Flat: nothing comes back.
        Activation::Sign | Activation::Step => gradient.fill(T::ZERO),
        Activation::Sigmoid => scale(gradient, outputs, sigmoid_derivative),
        Activation::Tanh => scale(gradient, outputs, tanh_derivative),
        Activation::Relu => scale(gradient, outputs, relu_derivative),
        Activation::LeakyRelu { alpha } => {
            let alpha = T::from_f64(alpha);
            scale(gradient, outputs, |a| leaky_relu_derivative(a, alpha));
        }
        Activation::Elu { alpha } => {
            let alpha = T::from_f64(alpha);
            scale(gradient, outputs, |a| elu_derivative(a, alpha));
        }
        Activation::Selu => scale(gradient, outputs, selu_derivative),
        Activation::Softplus => scale(gradient, outputs, softplus_derivative),
        Activation::Softsign => scale(gradient, outputs, softsign_derivative),
        Activation::Exponential => scale(gradient, outputs, exponential_derivative),
        Activation::HardSigmoid => scale(gradient, outputs, hard_sigmoid_derivative),
        Activation::Softmax => {
            for (g, p) in gradient.chunks_exact_mut(units).zip(outputs.chunks_exact(units)) {
                let mean = g.iter().zip(p).fold(T::ZERO, |sum, (&g, &p)| sum + g * p);
                g.iter_mut().zip(p).for_each(|(g, &p)| *g = (p * (*g - mean)).flush());
            }
        }
    }
}

#[inline]
fn map<T: Element>(values: &mut [T], f: impl Fn(T) -> T) {
    values.iter_mut().for_each(|value| *value = f(*value));
}

#[inline]
fn scale<T: Element>(gradient: &mut [T], outputs: &[T], derivative: impl Fn(T) -> T) {
    gradient.iter_mut().zip(outputs).for_each(|(g, &a)| *g = (*g * derivative(a)).flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::ACTIVATIONS;

    fn value(activation: Activation, z: f64) -> f64 {
        let mut values = [z];
        activate(activation, 1, &mut values);
        values[0]
    }

    fn derivative(activation: Activation, z: f64) -> f64 {
        let mut gradient = [1.0];
        multiply_by_derivative(activation, 1, &[value(activation, z)], &mut gradient);
        gradient[0]
    }

    #[test]
    fn each_derivative_is_the_slope_of_its_value() {
        let h = 1e-6;
        for activation in ACTIVATIONS {
            for z in [-30.0, -2.5, -0.4, 0.3, 2.0, 30.0] {
                let slope = (value(activation, z + h) - value(activation, z - h)) / (2.0 * h);
                let derivative = derivative(activation, z);
                assert!((slope - derivative).abs() < 1e-8 * derivative.abs().max(1.0), "{activation} at {z}");
            }
        }
    }

    #[test]
    fn softmax_passes_gradients_through_its_full_jacobian() {
        let (z, upstream, h) = ([0.3, -1.2, 0.8], [0.7, -0.1, 0.4], 1e-6);
        let weighted = |z: [f64; 3]| {
            let mut p = z;
            softmax(&mut p);
            p.iter().zip(upstream).map(|(p, g)| p * g).sum::<f64>()
        };
        let mut p = z;
        softmax(&mut p);
        let mut gradient = upstream;
        multiply_by_derivative(Activation::Softmax, 3, &p, &mut gradient);
        for index in 0..3 {
            let (mut above, mut below) = (z, z);
            above[index] += h;
            below[index] -= h;
            let slope = (weighted(above) - weighted(below)) / (2.0 * h);
            assert!((slope - gradient[index]).abs() < 1e-9);
        }
    }

    /// From the formulas in mpmath with 30 digits, such as `log(1 + exp(-1))` and `lambda * alpha * (exp(-1) - 1)`.
    #[test]
    fn values_have_the_digits_of_the_formulas() {
        for (activation, below, above) in [
            (Activation::Selu, -1.111_330_737_812_562_5, 1.050_700_987_355_480_5),
            (Activation::Softplus, 0.313_261_687_518_222_8, 1.313_261_687_518_222_8),
            (Activation::Softsign, -0.5, 0.5),
            (Activation::HardSigmoid, 0.333_333_333_333_333_3, 0.666_666_666_666_666_6),
            (Activation::Exponential, 0.367_879_441_171_442_3, std::f64::consts::E),
        ] {
            assert!((value(activation, -1.0) - below).abs() < 1e-15, "{activation}");
            assert!((value(activation, 1.0) - above).abs() < 1e-15, "{activation}");
        }
    }

    #[test]
    fn kinks_are_as_documented() {
        assert_eq!(value(Activation::Sign, 0.0), 0.0);
        assert_eq!(value(Activation::Sign, -0.0), 0.0);
        assert_eq!(value(Activation::Step, 0.0), 0.0);
        assert_eq!(derivative(Activation::Relu, 0.0), 0.0);
        assert_eq!(derivative(Activation::LeakyRelu { alpha: 0.2 }, 0.0), 0.2);
        assert_eq!(derivative(Activation::Elu { alpha: 0.7 }, 0.0), 0.7);
        assert_eq!(derivative(Activation::Selu, 0.0), SELU_LAMBDA * SELU_ALPHA);
        assert_eq!(derivative(Activation::HardSigmoid, -3.0), 0.0);
        assert_eq!(derivative(Activation::HardSigmoid, 3.0), 0.0);
    }

    #[test]
    fn no_finite_input_is_too_large_and_no_nan_is_hidden() {
        for activation in ACTIVATIONS {
            // e^z alone has no bound: it says so in the contract.
            let largest = if activation == Activation::Exponential { 700.0 } else { 1e4 };
            for z in [-1e4, -700.0, 700.0, largest] {
                assert!(value(activation, z).is_finite() && derivative(activation, z).is_finite(), "{activation} {z}");
            }
            assert!(value(activation, f64::NAN).is_nan(), "{activation}");
        }
    }

    #[test]
    fn softmax_of_two_is_the_sigmoid_of_the_difference() {
        for (a, b) in [(0.0, 0.0), (1.5, -0.3), (-40.0, 3.0), (1e4, -1e4)] {
            let mut row: [f64; 2] = [a, b];
            softmax(&mut row);
            assert!((row[0] - sigmoid(a - b)).abs() < 1e-15 && (row[0] + row[1] - 1.0).abs() < 1e-15);
        }
    }
}
