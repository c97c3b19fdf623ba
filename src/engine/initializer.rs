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
        let bound = uniform_bound(layer.activation, layout.inputs, layout.units);
        for weight in &mut parameters[layout.weights] {
            *weight = T::from_f64((2.0 * stream.uniform() - 1.0) * bound);
        }
    }
    parameters
}

/// Weights are uniform in −bound to bound:
///
/// - He, for the ReLU family, which passes about half of the variance: √(6 ÷ inputs);
/// - Glorot, for all else: √(6 ÷ (inputs + units)).
fn uniform_bound(activation: Activation, inputs: usize, units: usize) -> f64 {
    match activation {
        Activation::Relu | Activation::LeakyRelu { .. } | Activation::Elu { .. } => (6.0 / inputs as f64).sqrt(),
        Activation::Identity
        | Activation::Sign
        | Activation::Step
        | Activation::Sigmoid
        | Activation::Tanh
        | Activation::Softmax => (6.0 / (inputs + units) as f64).sqrt(),
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
