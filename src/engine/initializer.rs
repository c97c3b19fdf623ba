//! Initial parameters.

use orthogonal::orthonormalize;

use super::aligned::Aligned;
use super::element::Element;
use super::random::{Purpose, Stream};
use crate::domain::{Architecture, ElementType, Initializer, Values};

mod orthogonal;

/// The initial parameters of a network, flat in the order of [`Architecture::layout`]: weights by each layer's initializer,
/// biases 0; γ and the running variance of a batch normalization 1, β and the running mean 0. Each layer draws from a stream of
/// its own, so its weights do not depend on the other layers' sizes. They are drawn in float64 and rounded, so float32 and
/// float64 networks of one seed start alike.
pub fn draw_parameters(architecture: &Architecture, seed: u64) -> Values {
    match architecture.element_type() {
        ElementType::Float32 => f32::values_from(draw(architecture, seed)),
        ElementType::Float64 => f64::values_from(draw(architecture, seed)),
    }
}

fn draw<T: Element>(architecture: &Architecture, seed: u64) -> Vec<T> {
    let mut parameters = Aligned::<T>::zeros(architecture.parameter_count());
    for (index, (layer, layout)) in architecture.layers().iter().zip(architecture.layout()).enumerate() {
        let mut stream = Stream::new(seed, Purpose::Initializer, index as u64, 0);
        let (inputs, units) = (layout.inputs, layout.units);
        let weights = &mut parameters[layout.weights];
        match layer.initializer() {
            Initializer::Orthogonal { gain } => draw_orthogonal(weights, inputs, units, gain, &mut stream),
            initializer => {
                let distribution = Distribution::new(initializer, inputs, units);
                weights.iter_mut().for_each(|weight| *weight = T::from_f64(distribution.draw(&mut stream)));
            }
        }
        if let Some(normalization) = layout.normalization {
            parameters[normalization.scale].fill(T::ONE);
            parameters[normalization.variance].fill(T::ONE);
        }
    }
    parameters.into()
}

/// What the weights of a layer are drawn from, one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    /// All the same.
    Constant(f64),
    /// Between two bounds.
    Uniform { low: f64, high: f64 },
    /// With this standard deviation.
    Normal { mean: f64, deviation: f64 },
}

impl Distribution {
    /// With n inputs and m units:
    ///
    /// - Glorot (Glorot and Bengio 2010): uniform within ±√(6 ÷ (n + m)), or normal with variance 2 ÷ (n + m);
    /// - He (He et al. 2015), for the ReLU family, which passes about half of the variance: uniform within ±√(6 ÷ n), or
    ///   normal with variance 2 ÷ n;
    /// - LeCun (LeCun et al. 1998; for SELU, which needs the variance kept): uniform within ±√(3 ÷ n), or normal with variance
    ///   1 ÷ n.
    #[expect(clippy::panic, reason = "`draw_parameters` draws orthogonal weights as a whole")]
    fn new(initializer: Initializer, inputs: usize, units: usize) -> Self {
        let (n, both) = (inputs as f64, (inputs + units) as f64);
        let within = |bound: f64| Self::Uniform { low: -bound, high: bound };
        let normal = |variance: f64| Self::Normal { mean: 0.0, deviation: variance.sqrt() };
        match initializer {
            Initializer::Zeros => Self::Constant(0.0),
            Initializer::Constant { value } => Self::Constant(value),
            Initializer::Uniform { minimum, maximum } => Self::Uniform { low: minimum, high: maximum },
            Initializer::Normal { mean, deviation } => Self::Normal { mean, deviation },
            Initializer::GlorotUniform => within((6.0 / both).sqrt()),
            Initializer::GlorotNormal => normal(2.0 / both),
            Initializer::HeUniform => within((6.0 / n).sqrt()),
            Initializer::HeNormal => normal(2.0 / n),
            Initializer::LecunUniform => within((3.0 / n).sqrt()),
            Initializer::LecunNormal => normal(1.0 / n),
            Initializer::Orthogonal { .. } => panic!("an orthogonal matrix is not drawn number by number"),
        }
    }

    fn draw(self, stream: &mut Stream) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Uniform { low, high } if low == -high => (2.0 * stream.uniform() - 1.0) * high,
            // Halves, so that the span between the largest floats does not overflow.
            Self::Uniform { low, high } => low + 2.0 * (high / 2.0 - low / 2.0) * stream.uniform(),
            Self::Normal { mean, deviation } => mean + stream.normal() * deviation,
        }
    }
}

/// gain · Q, with Q from the QR decomposition of a normal matrix, R's diagonal positive, so that every orthogonal matrix is as likely (Saxe
/// et al. 2014; Mezzadri 2007). With more inputs than units the columns of W are orthonormal, else its rows.
fn draw_orthogonal<T: Element>(weights: &mut [T], inputs: usize, units: usize, gain: f64, stream: &mut Stream) {
    let length = inputs.max(units);
    let mut vectors: Vec<f64> = (0..inputs * units).map(|_| stream.normal()).collect();
    orthonormalize(&mut vectors, length);
    for row in 0..inputs {
        for unit in 0..units {
            let at = if inputs >= units { unit * length + row } else { row * length + unit };
            weights[row * units + unit] = T::from_f64(gain * vectors[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Activation;
    use crate::engine::testing::{network, network_with};

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

    /// The weights of a layer of 40 inputs and 60 units, and the network's other numbers.
    fn weights(initializer: Initializer) -> Vec<f64> {
        let architecture = network_with(ElementType::Float64, 40, &[(60, Activation::Tanh)], |raw| {
            raw.layers[0].as_mut().unwrap().initializer = Some(initializer);
        });
        f64::slice_of(&draw_parameters(&architecture, 1)).unwrap()[..2_400].to_vec()
    }

    #[test]
    fn every_initializer_has_the_mean_and_the_variance_of_its_formula() {
        for (initializer, mean, variance) in [
            (Initializer::Zeros, 0.0, 0.0),
            (Initializer::Constant { value: 0.25 }, 0.25, 0.0),
            (Initializer::Uniform { minimum: 1.0, maximum: 4.0 }, 2.5, 0.75),
            (Initializer::Normal { mean: -1.0, deviation: 0.5 }, -1.0, 0.25),
            (Initializer::GlorotUniform, 0.0, 2.0 / 100.0),
            (Initializer::GlorotNormal, 0.0, 2.0 / 100.0),
            (Initializer::HeUniform, 0.0, 2.0 / 40.0),
            (Initializer::HeNormal, 0.0, 2.0 / 40.0),
            (Initializer::LecunUniform, 0.0, 1.0 / 40.0),
            (Initializer::LecunNormal, 0.0, 1.0 / 40.0),
            (Initializer::Orthogonal { gain: 1.5 }, 0.0, 2.25 / 60.0),
        ] {
            let weights = weights(initializer);
            let count = weights.len() as f64;
            let found = weights.iter().sum::<f64>() / count;
            let spread = weights.iter().map(|w| (w - found) * (w - found)).sum::<f64>() / count;
            // Four standard errors of a mean, and of a normal distribution's variance.
            assert!((found - mean).abs() <= 4.0 * (variance / count).sqrt(), "{initializer:?}: mean {found}");
            assert!((spread - variance).abs() <= 4.0 * variance * (2.0 / count).sqrt(), "{initializer:?}: {spread}");
        }
    }

    #[test]
    fn orthogonal_rows_are_orthonormal_up_to_the_gain() {
        let weights = weights(Initializer::Orthogonal { gain: 1.5 });
        for (i, a) in weights.chunks(60).enumerate() {
            for (j, b) in weights.chunks(60).enumerate() {
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let expected = if i == j { 2.25 } else { 0.0 };
                assert!((product - expected).abs() < 1e-12, "{i} {j}: {product}");
            }
        }
    }

    #[test]
    fn an_orthogonal_matrix_may_be_any() {
        // The decomposition alone would give its first element one sign for every seed.
        let first = |seed| {
            let architecture = network_with(ElementType::Float64, 4, &[(3, Activation::Tanh)], |raw| {
                raw.layers[0].as_mut().unwrap().initializer = Some(Initializer::Orthogonal { gain: 1.0 });
            });
            draw_parameters(&architecture, seed).get(0) > 0.0
        };
        let positive = (0..64).filter(|&seed| first(seed)).count();
        // 64 fair coins: all but one time in ten million between 11 and 53.
        assert!((11..=53).contains(&positive), "{positive} of 64");
    }

    #[test]
    fn a_batch_normalization_starts_by_changing_nothing() {
        let architecture = network_with(ElementType::Float32, 2, &[(3, Activation::Tanh)], |raw| {
            raw.layers[0].as_mut().unwrap().batch_normalization = Some(Default::default());
        });
        let parameters = draw_parameters(&architecture, 1);
        let places = architecture.layout()[0].normalization.clone().unwrap();
        for (range, value) in [(places.scale, 1.0), (places.shift, 0.0), (places.mean, 0.0), (places.variance, 1.0)] {
            assert!(range.clone().all(|index| parameters.get(index) == value), "{range:?}");
        }
    }

    #[test]
    fn a_seed_means_the_same_weights() {
        let architecture = network(ElementType::Float32, 4, &[(8, Activation::Relu), (3, Activation::Softmax)]);
        assert_eq!(draw_parameters(&architecture, 9), draw_parameters(&architecture, 9));
        assert_ne!(draw_parameters(&architecture, 9), draw_parameters(&architecture, 10));
    }
}
