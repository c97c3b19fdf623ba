//! Losses over whole batches. The formulas, value beside gradient, are in the files below this one.
//!
//! A loss is fused with the last activation: it starts from the last layer's pre-activations z and gives the gradient with
//! respect to them, since −ln σ(z) has all its digits where ln of a rounded probability has none.

use super::activation::{activate, multiply_by_derivative};
use super::data::RowSet;
use super::element::Element;
use super::expression::{Slots, Tape};
use super::simd::vectorized;
use crate::domain::{Activation, Architecture, Layer, Loss, Reduction};

mod amounts;
mod bits;
mod classes;
mod custom;
mod margins;
mod residuals;

/// What some rows should have given: one entry a row.
#[derive(Clone, Copy, Debug)]
pub enum TargetRows<'a, T> {
    /// The index of the right class of each row.
    Classes(&'a [u32]),
    /// A value an output, `[rows, units]`.
    Values(&'a [T]),
}

/// What is minimized: a loss on the outputs of a last layer.
#[derive(Clone, Debug)]
pub struct Objective {
    loss: Loss,
    activation: Activation,
    units: usize,
    reduction: Reduction,
    /// A caller's expression, compiled.
    tape: Option<Tape>,
}

/// Some rows on their way through a loss.
pub struct LossBatch<'a, T> {
    /// What they should have given.
    pub targets: TargetRows<'a, T>,
    /// How much each row counts; `None`: all alike.
    pub weights: Option<&'a [T]>,
    /// Which targets are there, 1 or 0, `[rows, units]`; `None`: all. Only for losses an output.
    pub mask: Option<&'a [T]>,
    /// `[rows, units]`: on entry z, on return what the network predicts, f(z); but z still for the perceptron criterion, which
    /// judges by it.
    pub outputs: &'a mut [T],
    /// `[rows, units]`: room for z, where the activation needs it; else empty.
    pub pre_activations: &'a mut [T],
    /// `[rows, units]`: on return scale · ∂Σ/∂z.
    pub gradient: &'a mut [T],
    /// See [`Scratch`].
    pub scratch: &'a mut Scratch<T>,
}

/// Buffers of a loss, made once.
#[derive(Clone, Debug, Default)]
pub struct Scratch<T> {
    /// Classes as one-hot rows, `[rows, units]`, where a loss wants them so.
    one_hot: Vec<T>,
    /// Of a caller's expression.
    slots: Option<Slots>,
    /// What each of its losses counts, where they do not all alike.
    seeds: Vec<f64>,
}

impl Objective {
    /// A loss that fits the network's last activation (see [`Loss::fits`]).
    pub fn new(architecture: &Architecture, loss: &Loss, reduction: Reduction) -> Self {
        let Layer { units, activation, .. } = architecture.output_layer();
        let tape = match loss {
            Loss::Custom { expression } => Some(Tape::new(expression, units)),
            _ => None,
        };
        Self { loss: loss.clone(), activation, units, reduction, tape }
    }

    /// The loss.
    pub fn loss(&self) -> &Loss {
        &self.loss
    }

    /// The last activation.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Outputs of the network.
    pub fn units(&self) -> usize {
        self.units
    }

    /// Buffers for at most `rows` rows.
    pub fn scratch<T: Element>(&self, rows: usize) -> Scratch<T> {
        let wants_one_hot = self.activation == Activation::Softmax && self.loss == Loss::SquaredError;
        let one_hot = vec![T::ZERO; if wants_one_hot { rows * self.units } else { 0 }];
        let losses = self.tape.as_ref().map_or(0, |tape| tape.loss_count(rows));
        Scratch { one_hot, slots: self.tape.as_ref().map(Tape::slots), seeds: Vec::with_capacity(losses) }
    }

    /// What a row with weight 1 and every target adds to the divisor of a mean: its outputs; 1 for a loss a row.
    pub fn count_of_row(&self) -> f64 {
        if self.is_per_row() { 1.0 } else { self.units as f64 }
    }

    /// Whether the loss is one number a row.
    pub fn is_per_row(&self) -> bool {
        self.loss.is_per_row(self.activation)
    }

    /// What the sum of the losses of some rows is divided by in a training step and in ComputeGradients: with `mean`, the sum of
    /// their [counts](Self::count_of_row), each times its weight; with `sum`, 1. Rows that all count for nothing have no mean, and
    /// their sum is 0.
    pub fn divisor(&self, count: f64) -> f64 {
        match self.reduction {
            Reduction::Mean if count > 0.0 => count,
            Reduction::Mean | Reduction::Sum => 1.0,
        }
    }

    /// What the sum of the losses of an epoch is divided by in its report, always a mean over rows: with `mean` as
    /// [`divisor`](Self::divisor); with `sum`, rows (each times its weight) alone, since a row's loss is then its textbook sum
    /// over outputs. So reports of the same data compare whatever the number of rows or the batch size.
    pub fn report_divisor<T: Element>(&self, rows: &RowSet<T>) -> f64 {
        let divisor = match self.reduction {
            Reduction::Mean => rows.count_of_all(self),
            Reduction::Sum => rows.weight_of_all(),
        };
        if divisor > 0.0 { divisor } else { 1.0 }
    }

    /// The sum, not divided yet, of the losses of some rows, each times its weight; and the gradient of `scale` times it.
    ///
    /// # Panics
    /// Where targets are not of the kind that the loss takes: `Targets::check` gives it the right one.
    pub fn evaluate<T: Element>(&self, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
        if self.activation.needs_pre_activation() {
            batch.pre_activations.copy_from_slice(batch.outputs);
        }
        if self.is_told_from_logits() {
            self.evaluate_logits(scale, batch)
        } else {
            activate(self.activation, self.units, batch.outputs);
            let sum = self.evaluate_outputs(scale, batch);
            let LossBatch { outputs, pre_activations, gradient, .. } = batch;
            multiply_by_derivative(self.activation, self.units, outputs, pre_activations, gradient);
            sum
        }
    }

    /// Whether it is computed from z, with its own gradient by z.
    fn is_told_from_logits(&self) -> bool {
        match self.loss {
            Loss::BinaryCrossEntropy { .. }
            | Loss::SoftmaxCrossEntropy { .. }
            | Loss::NegativeLogLikelihood
            | Loss::KlDivergence
            | Loss::Focal { .. }
            | Loss::Perceptron => true,
            Loss::Poisson => self.activation == Activation::Identity,
            Loss::GammaDeviance => matches!(self.activation, Activation::Identity | Activation::Exponential),
            Loss::TweedieDeviance { .. } => true,
            Loss::SquaredError
            | Loss::AbsoluteError
            | Loss::Huber { .. }
            | Loss::LogCosh
            | Loss::Quantile { .. }
            | Loss::Hinge
            | Loss::SquaredHinge
            | Loss::Custom { .. } => false,
        }
    }

    #[expect(clippy::panic, reason = "`is_told_from_logits` lists the same losses")]
    fn evaluate_logits<T: Element>(&self, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
        match &self.loss {
            Loss::Perceptron => return self.each(scale, batch, margins::perceptron),
            Loss::SoftmaxCrossEntropy { .. } | Loss::NegativeLogLikelihood | Loss::KlDivergence => {
                return classes::evaluate(self, scale, batch);
            }
            &Loss::Focal { gamma, .. } if self.activation == Activation::Softmax => {
                return classes::focal(self.units, T::from_f64(gamma), scale, batch);
            }
            _ => {}
        }
        let sum = match &self.loss {
            Loss::BinaryCrossEntropy { positive_weights } => bits::cross_entropy(self, positive_weights, scale, batch),
            &Loss::Focal { gamma, alpha } => {
                let focal = bits::Focal::new(gamma, alpha);
                self.each(scale, batch, |z, y| focal.evaluate(z, y))
            }
            Loss::Poisson => self.each(scale, batch, amounts::poisson_of_log_rate),
            Loss::GammaDeviance => self.each(scale, batch, amounts::gamma_of_log_mean),
            &Loss::TweedieDeviance { power } => {
                let tweedie = amounts::Tweedie::new(power);
                match self.activation {
                    Activation::Softplus => self.each(scale, batch, |z, y| tweedie.of_softplus(z, y)),
                    _ => self.each(scale, batch, |z, y| tweedie.of_log_mean(z, y)),
                }
            }
            other => panic!("{} is told from outputs", other.name()),
        };
        activate(self.activation, self.units, batch.outputs);
        sum
    }

    #[expect(clippy::panic, reason = "`is_told_from_logits` lists the same losses")]
    fn evaluate_outputs<T: Element>(&self, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
        if let Some(tape) = &self.tape {
            return custom::evaluate(tape, self.units, scale, batch);
        }
        match &self.loss {
            Loss::SquaredError => self.each(scale, batch, residuals::squared_error),
            Loss::AbsoluteError => self.each(scale, batch, residuals::absolute_error),
            &Loss::Huber { delta } => {
                let delta = T::from_f64(delta);
                self.each(scale, batch, |output, y| residuals::huber(delta, output, y))
            }
            Loss::LogCosh => self.each(scale, batch, residuals::log_cosh),
            &Loss::Quantile { q } => {
                let q = T::from_f64(q);
                self.each(scale, batch, |output, y| residuals::quantile(q, output, y))
            }
            Loss::Hinge => self.each(scale, batch, margins::hinge),
            Loss::SquaredHinge => self.each(scale, batch, margins::squared_hinge),
            Loss::Poisson => self.each(scale, batch, amounts::poisson_of_rate),
            Loss::GammaDeviance => self.each(scale, batch, amounts::gamma_of_mean),
            other => panic!("{} is told from logits", other.name()),
        }
    }

    /// A loss an output: `f` gives its value and its derivative by the output (or the logit), from that and the target.
    fn each<T: Element>(&self, scale: T, batch: &mut LossBatch<'_, T>, f: impl Fn(T, T) -> (T, T)) -> f64 {
        if batch.weights.is_some() || batch.mask.is_some() {
            return self.each_weighted(scale, batch, |_, output, y| f(output, y));
        }
        let targets = dense_targets(batch.targets, self.units, &mut batch.scratch.one_hot);
        let (outputs, gradient) = (&*batch.outputs, &mut *batch.gradient);
        vectorized!({
            let mut sum = 0.0;
            for ((&output, &y), g) in outputs.iter().zip(targets).zip(gradient) {
                let (loss, slope) = f(output, y);
                sum += loss.to_f64();
                *g = (slope * scale).flush();
            }
            sum
        })
    }

    /// The same with a weight a row, with missing targets, and for functions that look at the output's index.
    fn each_weighted<T: Element>(
        &self,
        scale: T,
        batch: &mut LossBatch<'_, T>,
        f: impl Fn(usize, T, T) -> (T, T),
    ) -> f64 {
        let units = self.units;
        let targets = dense_targets(batch.targets, units, &mut batch.scratch.one_hot);
        let rows = batch.outputs.chunks_exact(units).zip(targets.chunks_exact(units));
        let mut sum = 0.0;
        for (row, ((outputs, targets), gradient)) in rows.zip(batch.gradient.chunks_exact_mut(units)).enumerate() {
            let row_weight = batch.weights.map_or(T::ONE, |weights| weights[row]);
            for unit in 0..units {
                let weight = batch.mask.map_or(row_weight, |mask| row_weight * mask[row * units + unit]);
                // What does not count may be anything, infinite losses among it.
                if weight == T::ZERO {
                    gradient[unit] = T::ZERO;
                    continue;
                }
                let (loss, slope) = f(unit, outputs[unit], targets[unit]);
                sum += loss.to_f64() * weight.to_f64();
                gradient[unit] = (slope * scale * weight).flush();
            }
        }
        sum
    }
}

/// Targets as a value an output: 1 for the right class and 0 for the others.
fn dense_targets<'a, T: Element>(targets: TargetRows<'a, T>, units: usize, one_hot: &'a mut [T]) -> &'a [T] {
    match targets {
        TargetRows::Values(values) => values,
        TargetRows::Classes(classes) => {
            let dense = &mut one_hot[..classes.len() * units];
            dense.fill(T::ZERO);
            dense.chunks_exact_mut(units).zip(classes).for_each(|(row, &class)| row[class as usize] = T::ONE);
            dense
        }
    }
}

#[cfg(test)]
mod tests;
