//! Initial parameters.

use super::element::Element;
use super::random::{Purpose, Stream};
use crate::domain::{Activation, Architecture, ElementType, Values};

/// The initial parameters of a network, flat in the order of [`Architecture::layout`]: weights by the layer's activation,
/// biases 0. Each layer draws from a stream of its own, so its weights do not depend on the other layers' sizes. They are
/// drawn in float64 and rounded, so float32 and float64 networks of one seed start alike.
pub fn draw_parameters(architecture: &Architecture, seed: u64) -> Values {
    match architecture.element_type() {
        ElementType::Float32 => f32::values_from(draw(architecture, seed)),
        ElementType::Float64 => f64::values_from(draw(architecture, seed)),
    }
}

fn draw<T: Element>(architecture: &Architecture, seed: u64) -> Vec<T> {
    let mut parameters = vec![T::ZERO; architecture.parameter_count()];
    for (index, (layer, layout)) in architecture.layers().iter().zip(architecture.layout()).enumerate() {
        let mut stream = Stream::new(seed, Purpose::Initializer, index as u64, 0);
        let distribution = distribution(layer.activation, layout.inputs, layout.units);
        for weight in &mut parameters[layout.weights] {
            *weight = T::from_f64(match distribution {
                Distribution::Uniform { bound } => (2.0 * stream.uniform() - 1.0) * bound,
                Distribution::Normal { deviation } => stream.normal() * deviation,
            });
        }
    }
    parameters
}

/// What the weights of a layer are drawn from; the mean is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    /// From −bound to bound.
    Uniform { bound: f64 },
    /// With this standard deviation.
    Normal { deviation: f64 },
}

/// By the activation:
///
/// - He, uniform, for the ReLU family, which passes about half of the variance: bound √(6 ÷ inputs);
/// - LeCun, normal, for SELU, which needs the variance kept: deviation √(1 ÷ inputs);
/// - Glorot, uniform, for all else: bound √(6 ÷ (inputs + units)).
fn distribution(activation: Activation, inputs: usize, units: usize) -> Distribution {
    match activation {
        Activation::Relu | Activation::LeakyRelu { .. } | Activation::Elu { .. } | Activation::Softplus => {
            Distribution::Uniform { bound: (6.0 / inputs as f64).sqrt() }
        }
        Activation::Selu => Distribution::Normal { deviation: (1.0 / inputs as f64).sqrt() },
        Activation::Identity
        | Activation::Sign
        | Activation::Step
        | Activation::Sigmoid
        | Activation::Tanh
        | Activation::Softsign
        | Activation::Exponential
        | Activation::HardSigmoid
        | Activation::Softmax => Distribution::Uniform { bound: (6.0 / (inputs + units) as f64).sqrt() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::network;

    #[test]
    fn weights_fill_their_bounds_evenly_and_biases_are_zero() {
        for (activation, bound) in [(Activation::Relu, (6.0_f64 / 50.0).sqrt()), (Activation::Tanh, 0.2)] {
            let architecture = network(ElementType::Float64, 50, &[(100, activation)]);
            let parameters = draw_parameters(&architecture, 1);
            let parameters = f64::slice_of(&parameters).unwrap();
            let (weights, bias) = parameters.split_at(5_000);
            assert!(bias.iter().all(|&b| b == 0.0));
            assert!(weights.iter().all(|w| w.abs() <= bound));
            let variance = weights.iter().map(|w| w * w).sum::<f64>() / 5_000.0;
            assert!((variance / (bound * bound / 3.0) - 1.0).abs() < 0.05, "{variance}");
        }
    }

    #[test]
    fn weights_behind_selu_are_normal_with_the_deviation_that_keeps_the_variance() {
        let architecture = network(ElementType::Float64, 50, &[(400, Activation::Selu)]);
        let parameters = draw_parameters(&architecture, 1);
        let weights = &f64::slice_of(&parameters).unwrap()[..20_000];
        let moment = |power| weights.iter().map(|w| (w * 50.0_f64.sqrt()).powi(power)).sum::<f64>() / 20_000.0;
        // Of a standard normal: 0, 1, 0, 3; each within four standard errors.
        for (power, expected, error) in [(1, 0.0, 0.007), (2, 1.0, 0.01), (3, 0.0, 0.027), (4, 3.0, 0.07)] {
            assert!((moment(power) - expected).abs() < 4.0 * error, "{power}: {}", moment(power));
        }
    }

    #[test]
    fn a_layer_does_not_depend_on_the_other_layers_nor_on_the_element_type() {
        let wide = network(ElementType::Float64, 3, &[(70, Activation::Tanh), (4, Activation::Tanh)]);
        let narrow = network(ElementType::Float32, 3, &[(70, Activation::Tanh), (9, Activation::Tanh)]);
        let (wide, narrow) = (draw_parameters(&wide, 5), draw_parameters(&narrow, 5));
        assert!((0..280).all(|index| wide.get(index) as f32 == narrow.get(index) as f32));
        assert!((280..300).any(|index| wide.get(index) as f32 != narrow.get(index) as f32));
    }

    #[test]
    fn a_seed_means_the_same_weights() {
        let architecture = network(ElementType::Float32, 4, &[(8, Activation::Relu), (3, Activation::Softmax)]);
        assert_eq!(draw_parameters(&architecture, 9), draw_parameters(&architecture, 9));
        assert_ne!(draw_parameters(&architecture, 9), draw_parameters(&architecture, 10));
    }
}
