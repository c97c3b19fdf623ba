//! Dropout (Srivastava et al. 2014), inverted: what is kept is multiplied by 1 ÷ (1 − share), so that predictions need no
//! scaling.

use super::element::Element;
use super::network::Plan;
use super::random::{Purpose, Stream};
use super::workspace::Activations;

/// Where in a training the masks are for.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The training's seed.
    pub seed: u64,
    /// Whole epochs done.
    pub epoch: u64,
    /// The batch, from 0.
    pub batch: u64,
    /// The tile of its rows, from 0.
    pub tile: u32,
}

/// Draws what a step drops of the first `rows` rows, from the moment alone.
pub fn draw_masks<T: Element>(plan: &Plan, buffers: &mut Activations<T>, rows: usize, moment: Moment) {
    let inputs = std::iter::once((plan.input_dropout, plan.input_width));
    let places = inputs.chain(plan.layers.iter().map(|layer| (layer.dropout, layer.layout.units)));
    for (place, ((share, units), dropped)) in places.zip(&mut buffers.drops).enumerate() {
        if dropped.mask.is_empty() {
            continue;
        }
        // There are fewer places than 2⁹ and, within the bounds of a batch, fewer tiles than 2²³.
        let index = moment.tile << 9 | place as u32;
        let mut stream = Stream::with_index(moment.seed, Purpose::Dropout, moment.epoch, moment.batch, index);
        let kept = T::from_f64(1.0 / (1.0 - share));
        let mask = &mut dropped.mask[..rows * units];
        mask.iter_mut().for_each(|it| *it = if stream.happens(share) { T::ZERO } else { kept });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Activation, ElementType};
    use crate::engine::testing::network_with;

    #[test]
    fn a_mask_drops_its_share_and_keeps_the_mean() {
        let architecture =
            network_with(ElementType::Float64, 3, &[(50, Activation::Relu), (1, Activation::Identity)], |raw| {
                raw.layers[0].as_mut().unwrap().dropout = Some(0.3);
            });
        let plan = Plan::new(&architecture);
        let mut buffers = Activations::<f64>::for_training(&plan, 400);
        let moment = Moment { seed: 1, epoch: 2, batch: 3, tile: 4 };
        draw_masks(&plan, &mut buffers, 400, moment);
        assert!(buffers.drops[0].mask.is_empty() && buffers.drops[2].mask.is_empty());
        let mask = buffers.drops[1].mask[..20_000].to_vec();
        let dropped = mask.iter().filter(|&&it| it == 0.0).count() as f64 / 20_000.0;
        // Four standard errors.
        assert!((dropped - 0.3).abs() < 0.013, "{dropped}");
        assert!(mask.iter().all(|&it| it == 0.0 || it == 1.0 / 0.7));
        draw_masks(&plan, &mut buffers, 400, moment);
        assert_eq!(buffers.drops[1].mask[..20_000], mask);
        draw_masks(&plan, &mut buffers, 400, Moment { tile: 5, ..moment });
        assert_ne!(buffers.drops[1].mask[..20_000], mask);
    }
    #[test]
    fn each_place_has_a_mask_of_its_own() {
        let layers = [(50, Activation::Relu), (50, Activation::Relu), (1, Activation::Identity)];
        let architecture = network_with(ElementType::Float64, 3, &layers, |raw| {
            raw.layers[..2].iter_mut().for_each(|layer| layer.as_mut().unwrap().dropout = Some(0.3));
        });
        let plan = Plan::new(&architecture);
        let mut buffers = Activations::<f64>::for_training(&plan, 8);
        draw_masks(&plan, &mut buffers, 8, Moment { seed: 1, epoch: 2, batch: 3, tile: 4 });
        assert_ne!(buffers.drops[1].mask[..], buffers.drops[2].mask[..]);
    }
}
