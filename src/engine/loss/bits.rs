//! Losses of a sigmoid's logit z, the target y being 0 or 1: each gives its value and its derivative by z.

use super::{LossBatch, Objective};
use crate::engine::activation::sigmoid;
use crate::engine::element::Element;

/// −w·y·ln p − (1 − y)·ln(1 − p) with p = σ(z); derivative (1 + (w − 1)·y)·p − w·y. `weights` has w for all outputs, or one
/// an output; none is 1.
#[inline(always)]
pub(super) fn cross_entropy<T: Element>(
    objective: &Objective,
    weights: &[f64],
    scale: T,
    batch: &mut LossBatch<'_, T>,
) -> f64 {
    match weights {
        [] => objective.each(scale, batch, |z, y| of_target(T::ONE, z, y)),
        &[weight] => objective.each(scale, batch, |z, y| of_target(T::from_f64(weight), z, y)),
        weights => objective.each_weighted(scale, batch, |unit, z, y| of_target(T::from_f64(weights[unit]), z, y)),
    }
}

/// ln(1 + e^−z) is −ln σ(z), and σ(−z) is 1 − σ(z): both keep their digits where p rounds to 1. Without a branch, since which side
/// a target is on cannot be foretold.
#[inline(always)]
fn of_target<T: Element>(positive_weight: T, z: T, y: T) -> (T, T) {
    let tail = (-z.abs()).exp().ln_1p();
    let is_positive = y == T::ONE;
    // Of the side that is wrong.
    let wrong = if is_positive { -z } else { z };
    let above = if wrong > T::ZERO { wrong } else { wrong * T::ZERO };
    let weight = if is_positive { positive_weight } else { T::ONE };
    let slope = weight * sigmoid(wrong);
    (weight * (above + tail), if is_positive { -slope } else { slope })
}

/// −a·(1 − p)^γ·ln p with p the probability of what is right, σ(z) or σ(−z), and a the weight of its side (Lin et al. 2017).
pub(super) struct Focal {
    gamma: f64,
    alpha: Option<f64>,
}

impl Focal {
    pub(super) fn new(gamma: f64, alpha: Option<f64>) -> Self {
        Self { gamma, alpha }
    }

    /// With s = ±z: derivative by s a·(γ·p·q^γ·ln p − q^(γ+1)) with q = 1 − p.
    #[inline(always)]
    pub(super) fn evaluate<T: Element>(&self, z: T, y: T) -> (T, T) {
        let is_positive = y == T::ONE;
        let s = if is_positive { z } else { -z };
        let (p, q) = (sigmoid(s), sigmoid(-s));
        let below = if s < T::ZERO { s } else { s * T::ZERO };
        let log_p = below - (-s.abs()).exp().ln_1p();
        let focus = q.pow(T::from_f64(self.gamma));
        let weight = self.alpha.map_or(1.0, |alpha| if is_positive { alpha } else { 1.0 - alpha });
        let (weight, gamma) = (T::from_f64(weight), T::from_f64(self.gamma));
        let slope = weight * focus * (gamma * p * log_p - q);
        (-weight * focus * log_p, if is_positive { slope } else { -slope })
    }
}
