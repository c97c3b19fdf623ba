//! A caller's own loss: its tape, with the weights of rows and of targets.

use super::{LossBatch, Objective, Scratch};
use crate::engine::activation::activate;
use crate::engine::element::Element;
use crate::engine::expression::{Quantity, Seeds, Tape};

/// Σ weight · loss of some rows, of outputs that are activated already; the gradient is by them.
pub(super) fn evaluate<T: Element>(tape: &Tape, units: usize, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let scale = scale.to_f64();
    weigh(tape, units, scale, batch);
    let LossBatch { targets, outputs, gradient, scratch, .. } = batch;
    let Scratch { slots: Some(slots), seeds, .. } = &mut **scratch else { return f64::NAN };
    let mut sum = 0.0;
    if seeds.is_empty() {
        let add = |_: usize, losses: &[f64]| sum += losses.iter().sum::<f64>();
        tape.evaluate(slots, outputs, *targets, Seeds::Uniform(scale), add, gradient);
    } else {
        let add = |first: usize, losses: &[f64]| {
            let weighted = losses.iter().zip(&seeds[first..]).filter(|(_, seed)| **seed != 0.0);
            sum += weighted.map(|(loss, seed)| loss * (seed / scale)).sum::<f64>();
        };
        tape.evaluate(slots, outputs, *targets, Seeds::Each(seeds), add, gradient);
    }
    sum
}

/// What each loss counts, into the scratch; nothing there where all count alike.
fn weigh<T: Element>(tape: &Tape, units: usize, scale: f64, batch: &mut LossBatch<'_, T>) {
    let seeds = &mut batch.scratch.seeds;
    seeds.clear();
    if batch.weights.is_none() && batch.mask.is_none() {
        return;
    }
    let losses = tape.loss_count(batch.outputs.len() / units);
    let losses_a_row = if tape.is_row_loss() { 1 } else { units };
    seeds.extend((0..losses).map(|index| {
        let weight = batch.weights.map_or(1.0, |weights| weights[index / losses_a_row].to_f64());
        let is_there = batch.mask.map_or(1.0, |mask| mask[index].to_f64());
        scale * weight * is_there
    }));
}

impl Objective {
    /// Bytes of the buffers of a caller's expression: one over whole rows needs room for rows of its own.
    pub fn expression_bytes(&self) -> usize {
        self.tape.as_ref().map_or(0, Tape::slots_bytes)
    }

    /// The first row whose loss, or its derivative, is not finite, by a caller's expression, and which of both; `None` for
    /// other losses. `outputs` are z, as for [`evaluate`](Self::evaluate), whose `scale` this is.
    pub fn expression_fault<T: Element>(
        &self,
        scale: T,
        batch: &mut LossBatch<'_, T>,
    ) -> Option<(usize, &'static str)> {
        let tape = self.tape.as_ref()?;
        activate(self.activation, self.units, batch.outputs);
        let scale = scale.to_f64();
        weigh(tape, self.units, scale, batch);
        let Scratch { slots: Some(slots), seeds, .. } = &mut *batch.scratch else { return None };
        let seeds = if seeds.is_empty() { Seeds::Uniform(scale) } else { Seeds::Each(seeds) };
        let fault = tape.first_fault(slots, batch.outputs, batch.targets, seeds)?;
        let what = match fault.quantity {
            Quantity::Value => "the value",
            Quantity::Derivative => "the derivative",
        };
        Some((fault.row, what))
    }
}
