//! What layers go through in an epoch: see [`LayerDiagnostics`].

use std::ops::Range;

use super::update::norm;
use crate::domain::LayerDiagnostics;
use crate::engine::activation::multiply_by_derivative;
use crate::engine::element::Element;
use crate::engine::network::{Plan, PlanLayer};
use crate::engine::workspace::Activations;

/// What is seen of the layers in the course of an epoch.
pub(super) struct Diagnostics<T> {
    /// Whether a unit had a derivative other than 0 in some row of the epoch, layer after layer.
    is_alive: Vec<bool>,
    /// Of each layer, in the epoch's last batch.
    gradient_norms: Vec<f64>,
    update_ratios: Vec<f64>,
    /// The parameters before the epoch's last step.
    before: Vec<T>,
    /// Derivatives of one layer, `[rows, units]`.
    slopes: Vec<T>,
}

impl<T: Element> Diagnostics<T> {
    pub(super) fn new(plan: &Plan, parameter_count: usize, rows: usize) -> Self {
        let units = || plan.layers.iter().map(|layer| layer.layout.units);
        Self {
            is_alive: vec![false; units().sum()],
            gradient_norms: vec![0.0; plan.layers.len()],
            update_ratios: vec![0.0; plan.layers.len()],
            before: vec![T::ZERO; parameter_count],
            slopes: vec![T::ZERO; rows * units().max().unwrap_or(0)],
        }
    }

    /// Notes which units have a derivative somewhere in some rows. The outputs of the last layer are there already.
    pub(super) fn see_units(&mut self, plan: &Plan, activations: &Activations<T>, rows: usize) {
        let mut first = 0;
        for (index, layer) in plan.layers.iter().enumerate() {
            let units = layer.layout.units;
            let is_alive = &mut self.is_alive[first..first + units];
            first += units;
            if layer.activation.is_over_rows() {
                is_alive.fill(true);
                continue;
            }
            let slopes = &mut self.slopes[..rows * units];
            slopes.fill(T::ONE);
            let (outputs, z) = (&activations.layers[index][..rows * units], &activations.pre_activations[index]);
            multiply_by_derivative(layer.activation, units, outputs, z, slopes);
            for row in slopes.chunks_exact(units) {
                is_alive.iter_mut().zip(row).for_each(|(is_alive, &slope)| *is_alive |= slope != T::ZERO);
            }
        }
    }

    /// Notes the gradients of the epoch's last batch, and the parameters before its step.
    pub(super) fn see_gradients(&mut self, plan: &Plan, parameters: &[T], gradients: &[T]) {
        self.before.copy_from_slice(parameters);
        for (to, layer) in self.gradient_norms.iter_mut().zip(&plan.layers) {
            *to = if layer.is_frozen { 0.0 } else { norm(gradients[trained(layer)].iter()) };
        }
    }

    /// Notes how far that step went.
    pub(super) fn see_update(&mut self, plan: &Plan, parameters: &[T]) {
        for (to, layer) in self.update_ratios.iter_mut().zip(&plan.layers) {
            let (after, before) = (&parameters[trained(layer)], &self.before[trained(layer)]);
            let change = |(after, before): (&T, &T)| {
                let change = after.to_f64() - before.to_f64();
                change * change
            };
            let change = after.iter().zip(before).map(change).sum::<f64>().sqrt();
            let length = norm(before.iter());
            *to = if change == 0.0 { 0.0 } else { change / length.max(f64::MIN_POSITIVE) };
        }
    }

    /// What is told of the epoch; the next begins.
    pub(super) fn end_epoch(&mut self, plan: &Plan, parameters: &[T]) -> Vec<LayerDiagnostics> {
        let mut first = 0;
        let told = plan.layers.iter().enumerate().map(|(index, layer)| {
            let units = layer.layout.units;
            let is_alive = &self.is_alive[first..first + units];
            first += units;
            LayerDiagnostics {
                gradient_norm: self.gradient_norms[index],
                weight_norm: norm(parameters[layer.layout.weights.clone()].iter()),
                update_ratio: self.update_ratios[index],
                dead_units: is_alive.iter().filter(|&&it| !it).count() as f64 / units as f64,
            }
        });
        let told = told.collect();
        self.is_alive.fill(false);
        self.gradient_norms.fill(0.0);
        self.update_ratios.fill(0.0);
        told
    }

    /// What an interruption in the midst of an epoch must keep.
    pub(super) fn is_alive(&self) -> &[bool] {
        &self.is_alive
    }

    /// Goes on from what was kept.
    pub(super) fn restore(&mut self, is_alive: &[bool]) {
        self.is_alive.copy_from_slice(is_alive);
    }
}

fn trained(layer: &PlanLayer) -> Range<usize> {
    layer.layout.trainable()
}
