//! Activations over whole layers. The functions themselves, value beside derivative, are in [`functions`].
//!
//! The loops run in the processor's own vectors, and the functions are inlined into them.
//!
//! A layer's outputs are computed in place over its pre-activations z. The derivative is told from the output alone where
//! that can be; activations that are not monotonic need z, which is kept for them
//! ([`Activation::needs_pre_activation`]).

use super::element::Element;
use super::simd::vectorized;
use crate::domain::Activation;

pub mod functions;
pub mod softmax;

use functions::*;
pub use functions::{sigmoid, sign};
use softmax::{log_softmax, softmax, sum};

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
        Activation::Gelu => map(values, gelu),
        Activation::GeluTanh => map(values, gelu_tanh),
        Activation::Silu => map(values, silu),
        Activation::Mish => map(values, mish),
        Activation::Softmax => softmax(units, values),
        Activation::LogSoftmax => log_softmax(units, values),
    }
}

/// Turns the gradient with respect to a layer's outputs into that with respect to its pre-activations, in place:
/// gᵢ ← gᵢ·f′(zᵢ), told from the outputs aᵢ = f(zᵢ), or from zᵢ where the activation needs it (`pre_activations` may be empty
/// otherwise); for softmax gⱼ ← pⱼ·(gⱼ − Σ gᵢ·pᵢ) a row, for its logarithm gⱼ ← gⱼ − e^aⱼ·Σ gᵢ. What would soon be denormal
/// becomes zero: see [`Element::flush`].
pub fn multiply_by_derivative<T: Element>(
    activation: Activation,
    units: usize,
    outputs: &[T],
    pre_activations: &[T],
    gradient: &mut [T],
) {
    debug_assert!(!activation.needs_pre_activation() || pre_activations.len() >= gradient.len());
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
        Activation::Gelu => scale(gradient, pre_activations, gelu_derivative),
        Activation::GeluTanh => scale(gradient, pre_activations, gelu_tanh_derivative),
        Activation::Silu => scale(gradient, pre_activations, silu_derivative),
        Activation::Mish => scale(gradient, pre_activations, mish_derivative),
        Activation::LogSoftmax => {
            for (g, a) in gradient.chunks_exact_mut(units).zip(outputs.chunks_exact(units)) {
                let sum = sum(g);
                g.iter_mut().zip(a).for_each(|(g, &a)| *g = (*g - a.exp() * sum).flush());
            }
        }
        Activation::Softmax => {
            for (g, p) in gradient.chunks_exact_mut(units).zip(outputs.chunks_exact(units)) {
                let mean = g.iter().zip(p).fold(T::ZERO, |sum, (&g, &p)| sum + g * p);
                g.iter_mut().zip(p).for_each(|(g, &p)| *g = (p * (*g - mean)).flush());
            }
        }
    }
}

#[inline(always)]
fn map<T: Element>(values: &mut [T], f: impl Fn(T) -> T) {
    vectorized!(values.iter_mut().for_each(|value| *value = f(*value)));
}

#[inline(always)]
fn scale<T: Element>(gradient: &mut [T], values: &[T], derivative: impl Fn(T) -> T) {
    vectorized!(gradient.iter_mut().zip(values).for_each(|(g, &a)| *g = (*g * derivative(a)).flush()));
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
        multiply_by_derivative(activation, 1, &[value(activation, z)], &[z], &mut gradient);
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

    /// Gradients pass an activation over a row as Σ gᵢ·aᵢ has slopes.
    fn check_jacobian(activation: Activation) {
        // What comes from above does not add up to 1, which would hide that its sum is a factor.
        let (z, upstream, h) = ([0.3, -1.2, 0.8], [0.7, -0.1, 0.9], 1e-6);
        let outputs = |z: [f64; 3]| {
            let mut row = z;
            activate(activation, 3, &mut row);
            row
        };
        let weighted = |z| outputs(z).iter().zip(upstream).map(|(a, g)| a * g).sum::<f64>();
        let mut gradient = upstream;
        multiply_by_derivative(activation, 3, &outputs(z), &z, &mut gradient);
        for index in 0..3 {
            let (mut above, mut below) = (z, z);
            above[index] += h;
            below[index] -= h;
            let slope = (weighted(above) - weighted(below)) / (2.0 * h);
            assert!((slope - gradient[index]).abs() < 1e-9, "{activation} {index}");
        }
    }

    #[test]
    fn softmax_passes_gradients_through_its_full_jacobian() {
        check_jacobian(Activation::Softmax);
    }

    #[test]
    fn log_softmax_passes_gradients_through_its_full_jacobian() {
        check_jacobian(Activation::LogSoftmax);
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
            (Activation::Gelu, -0.158_655_253_931_457_05, 0.841_344_746_068_542_9),
            (Activation::GeluTanh, -0.158_808_009_391_723_3, 0.841_191_990_608_276_7),
            (Activation::Silu, -0.268_941_421_369_995_1, 0.731_058_578_630_004_9),
            (Activation::Mish, -0.303_401_461_374_108_9, 0.865_098_388_267_310_4),
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
    fn numbers_have_the_same_bits_alone_as_among_others() {
        for activation in ACTIVATIONS {
            for units in [1, 3, 10, 41] {
                let z: Vec<f32> = (0..units * 77).map(|index| (index * 37 % 101) as f32 / 10.0 - 5.0).collect();
                let mut together = z.clone();
                activate(activation, units, &mut together);
                let mut alone = z;
                alone.chunks_exact_mut(units).for_each(|row| activate(activation, units, row));
                assert_eq!(together, alone, "{activation}, {units} units");
            }
        }
    }

    #[test]
    fn softmax_of_two_is_the_sigmoid_of_the_difference() {
        for (a, b) in [(0.0, 0.0), (1.5, -0.3), (-40.0, 3.0), (1e4, -1e4)] {
            let mut row: [f64; 2] = [a, b];
            softmax(2, &mut row);
            assert!((row[0] - sigmoid(a - b)).abs() < 1e-15 && (row[0] + row[1] - 1.0).abs() < 1e-15);
        }
    }
}
