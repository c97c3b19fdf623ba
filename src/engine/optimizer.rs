//! Optimizers: how parameters follow their gradients. Names and placement as in PyTorch; one file a family.
//!
//! Every step is one pass over flat slices; what is the same for all parameters is computed before it, in float64.

mod adadelta;
mod adagrad;
mod adam;
mod nadam;
mod rmsprop;
mod rprop;
mod sgd;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use self::adadelta::Adadelta;
use self::adagrad::Adagrad;
use self::adam::{Adam, WeightDecay};
use self::nadam::Nadam;
use self::rmsprop::RmsProp;
use self::rprop::Rprop;
use self::sgd::Sgd;
use super::aligned::Aligned;
use super::element::Element;
use super::lbfgs::Lbfgs;
use super::product::{Shape, transposed_product_seen};
use super::simd::vectorized;
use super::unchecked::team::{Workers, piece_length};
use crate::domain::{Optimizer, Values};

/// Numbers a parameter that any optimizer but L-BFGS keeps, at most.
const SLOTS: usize = 3;
/// A piece of parameters is a whole number of the widest vectors.
const LANES: usize = 16;

/// What an optimizer remembers from step to step.
#[derive(Debug)]
pub struct OptimizerState<T> {
    /// In the order of the parameters each, or empty where the optimizer needs fewer. Each family's file tells which is
    /// what.
    slots: [Aligned<T>; SLOTS],
    /// Nadam's Π β₁ over the steps so far, in float64.
    momentum_product: Option<f64>,
    /// Steps taken.
    steps: u64,
    lbfgs: Option<Lbfgs<T>>,
}

/// An optimizer's state as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedOptimizer {
    /// Numbers in the order of the parameters.
    pub slots: Vec<Values>,
    /// Numbers of all parameters together.
    pub scalars: Vec<f64>,
    /// Steps taken.
    pub steps: u64,
}

/// Numbers a parameter that an optimizer keeps, its work space too: for estimates of memory.
pub fn slot_count(optimizer: &Optimizer) -> usize {
    match optimizer {
        Optimizer::Lbfgs(numbers) => Lbfgs::<f64>::slot_count(numbers),
        _ => slots_needed(optimizer).iter().filter(|&&is_needed| is_needed).count(),
    }
}

/// Which of the slots an optimizer needs.
fn slots_needed(optimizer: &Optimizer) -> [bool; SLOTS] {
    match *optimizer {
        Optimizer::Sgd { momentum, .. } => [momentum != 0.0, false, false],
        Optimizer::Adam { amsgrad, .. } | Optimizer::AdamW { amsgrad, .. } => [true, true, amsgrad],
        Optimizer::RmsProp { momentum, centered, .. } => [true, centered, momentum != 0.0],
        Optimizer::Adagrad { .. } => [true, false, false],
        Optimizer::Adadelta { .. } | Optimizer::Nadam { .. } | Optimizer::Rprop { .. } => [true, true, false],
        Optimizer::Lbfgs(_) => [false; SLOTS],
    }
}

impl<T: Element> OptimizerState<T> {
    /// Before the first step.
    pub fn new(optimizer: &Optimizer, parameter_count: usize) -> Self {
        let lbfgs = match optimizer {
            Optimizer::Lbfgs(numbers) => Some(Lbfgs::new(numbers, parameter_count)),
            _ => None,
        };
        // All slots start at 0 but for the first of these two.
        let first = match *optimizer {
            Optimizer::Adagrad { initial_accumulator, .. } => T::from_f64(initial_accumulator),
            Optimizer::Rprop { learning_rate, .. } => T::from_f64(learning_rate),
            _ => T::ZERO,
        };
        let needed = slots_needed(optimizer);
        let slot = |index: usize| {
            let value = if index == 0 { first } else { T::ZERO };
            Aligned::filled(value, if needed[index] { parameter_count } else { 0 })
        };
        Self {
            slots: std::array::from_fn(slot),
            momentum_product: matches!(optimizer, Optimizer::Nadam { .. }).then_some(1.0),
            steps: 0,
            lbfgs,
        }
    }

    /// One step at a learning rate that the schedule tells: moves `parameters` along `gradients` in `segments`, which are
    /// sorted and disjoint, and leaves all others as they are. Allocates nothing.
    ///
    /// # Panics
    /// With L-BFGS, which has no steps of this kind: see [`as_lbfgs_mut`](Self::as_lbfgs_mut).
    pub fn step(
        &mut self,
        workers: &Workers,
        optimizer: &Optimizer,
        learning_rate: f64,
        segments: &[Range<usize>],
        parameters: &mut [T],
        gradients: &[T],
    ) {
        let begun = self.begin(optimizer);
        self.go_on(&begun, optimizer, learning_rate, Segments { workers, segments, parameters, gradients });
    }

    /// Counts a step, all of whose parts are told what it returns.
    pub fn begin(&mut self, optimizer: &Optimizer) -> Begun {
        self.steps += 1;
        let momentum = match *optimizer {
            Optimizer::Nadam { beta1, momentum_decay, .. } => {
                let product = self.momentum_product.get_or_insert(1.0);
                Some(nadam::Momentum::next(product, beta1, momentum_decay, self.steps))
            }
            _ => None,
        };
        Begun { momentum }
    }

    /// A part of the step that has begun: moves the parameters of `target`, which no other part does.
    ///
    /// # Panics
    /// With L-BFGS.
    #[expect(clippy::panic, reason = "a trainer with L-BFGS searches instead, by `as_lbfgs_mut`")]
    pub fn go_on(&mut self, begun: &Begun, optimizer: &Optimizer, learning_rate: f64, target: impl Target<T>) {
        let steps = self.steps;
        let [a, b, c] = &mut self.slots;
        match *optimizer {
            Optimizer::Sgd { momentum, dampening, nesterov, weight_decay, .. } => {
                let dampening = if steps == 1 { 0.0 } else { dampening };
                let sgd = Sgd::new(learning_rate, momentum, dampening, weight_decay);
                match (momentum, nesterov) {
                    (0.0, _) => target.update([], |w, g, []| sgd.descend(w, g)),
                    (_, false) => target.update([a], |w, g, [v]| sgd.descend_with_momentum(w, g, v)),
                    (_, true) => target.update([a], |w, g, [v]| sgd.descend_with_nesterov(w, g, v)),
                }
            }
            Optimizer::Adam { beta1, beta2, epsilon, weight_decay, amsgrad, .. } => {
                let decay = WeightDecay::OfGradient(weight_decay);
                step_adam(&Adam::new(learning_rate, [beta1, beta2], epsilon, decay, steps), amsgrad, target, [a, b, c]);
            }
            Optimizer::AdamW { beta1, beta2, epsilon, weight_decay, amsgrad, .. } => {
                let decay = WeightDecay::OfParameter(weight_decay);
                step_adam(&Adam::new(learning_rate, [beta1, beta2], epsilon, decay, steps), amsgrad, target, [a, b, c]);
            }
            Optimizer::RmsProp { decay, epsilon, momentum, centered, weight_decay, .. } => {
                let rmsprop = RmsProp::new(learning_rate, decay, epsilon, momentum, weight_decay);
                match (centered, momentum) {
                    (false, 0.0) => target.update([a], |w, g, [s]| rmsprop.plain(w, g, s)),
                    (false, _) => target.update([a, c], |w, g, [s, v]| rmsprop.with_momentum(w, g, s, v)),
                    (true, 0.0) => target.update([a, b], |w, g, [s, m]| rmsprop.centered(w, g, s, m)),
                    (true, _) => {
                        target.update([a, b, c], |w, g, [s, m, v]| rmsprop.centered_with_momentum(w, g, s, m, v));
                    }
                }
            }
            Optimizer::Adagrad { learning_rate_decay, epsilon, weight_decay, .. } => {
                let rate = learning_rate / (1.0 + (steps - 1) as f64 * learning_rate_decay);
                let adagrad = Adagrad::new(rate, epsilon, weight_decay);
                target.update([a], |w, g, [s]| adagrad.step(w, g, s));
            }
            Optimizer::Adadelta { decay, epsilon, weight_decay, .. } => {
                let adadelta = Adadelta::new(learning_rate, decay, epsilon, weight_decay);
                target.update([a, b], |w, g, [s, u]| adadelta.step(w, g, s, u));
            }
            Optimizer::Nadam { beta1, beta2, epsilon, weight_decay, .. } => {
                let Some(momentum) = &begun.momentum else { return };
                let nadam = Nadam::new(learning_rate, [beta1, beta2], epsilon, weight_decay, momentum, steps);
                target.update([a, b], |w, g, [m, v]| nadam.step(w, g, m, v));
            }
            Optimizer::Rprop { eta_minus, eta_plus, step_min, step_max, .. } => {
                let rprop = Rprop::new([eta_minus, eta_plus], [step_min, step_max]);
                target.update([a, b], |w, g, [size, last]| rprop.step(w, g, size, last));
            }
            Optimizer::Lbfgs(_) => panic!("L-BFGS searches along a line and cannot step"),
        }
    }

    /// The state of L-BFGS, whose iterations need more than a gradient; `None` for all others.
    pub fn as_lbfgs_mut(&mut self) -> Option<&mut Lbfgs<T>> {
        self.lbfgs.as_mut()
    }

    /// Everything that the next steps depend on, but for the numbers in the slots: as many slots, all empty.
    pub fn save_without_slots(&self) -> SavedOptimizer {
        let slots = vec![T::values_from(Vec::new()); self.saved_slots().len()];
        match &self.lbfgs {
            Some(lbfgs) => SavedOptimizer { slots, scalars: lbfgs.saved_scalars(), steps: lbfgs.steps() },
            None => SavedOptimizer { slots, scalars: self.momentum_product.into_iter().collect(), steps: self.steps },
        }
    }

    /// Everything that the next steps depend on.
    #[cfg(test)]
    pub fn save(&self) -> SavedOptimizer {
        let slots = self.saved_slots().into_iter().map(|slot| T::values_from(slot.to_vec())).collect();
        SavedOptimizer { slots, ..self.save_without_slots() }
    }

    /// What stands in the slots, in the order of [`SavedOptimizer::slots`].
    pub fn saved_slots(&self) -> Vec<&[T]> {
        match &self.lbfgs {
            Some(lbfgs) => lbfgs.saved_vectors(),
            None => self.slots.iter().map(|slot| &**slot).collect(),
        }
    }

    /// The same at the end of a training, which needs them no more.
    pub fn into_saved_slots(self) -> Vec<Vec<T>> {
        match self.lbfgs {
            Some(lbfgs) => lbfgs.into_saved_vectors(),
            None => self.slots.into_iter().map(Vec::from).collect(),
        }
    }

    /// Goes on from what a state of the same optimizer saved. Its numbers may be others: what they need and was not saved
    /// begins anew, such as the velocity of an SGD that had no momentum before. On an error nothing is changed.
    pub fn restore(&mut self, saved: SavedOptimizer) -> Result<(), &'static str> {
        if let Some(lbfgs) = &mut self.lbfgs {
            return lbfgs.restore(saved);
        }
        let has_product = self.momentum_product.is_some();
        if saved.slots.len() > SLOTS || saved.scalars.len() != usize::from(has_product) {
            return Err("its optimizer is another");
        }
        let pairs =
            || self.slots.iter().zip(&saved.slots).filter(|(slot, saved)| !slot.is_empty() && !saved.is_empty());
        if pairs().any(|(slot, saved)| saved.len() != slot.len()) {
            return Err("its optimizer is of another number of parameters");
        }
        if pairs().any(|(_, saved)| saved.element_type() != T::ELEMENT_TYPE) {
            return Err("its optimizer is of another element type");
        }
        for (slot, saved) in self.slots.iter_mut().zip(saved.slots) {
            if !slot.is_empty() && !saved.is_empty() {
                *slot = T::vec_from(saved).into();
            }
        }
        self.momentum_product = saved.scalars.first().copied();
        self.steps = saved.steps;
        Ok(())
    }
}

/// What all parts of a step have in common.
#[derive(Debug)]
pub struct Begun {
    /// Nadam's.
    momentum: Option<nadam::Momentum>,
}

fn step_adam<T: Element>(adam: &Adam<T>, amsgrad: bool, target: impl Target<T>, [a, b, c]: [&mut Aligned<T>; SLOTS]) {
    if amsgrad {
        target.update([a, b, c], |w, g, [m, v, max]| adam.step_with_maximum(w, g, m, v, max));
    } else {
        target.update([a, b], |w, g, [m, v]| adam.step(w, g, m, v));
    }
}

/// The parameters that a part of a step moves, and along what.
pub trait Target<T> {
    /// Calls `update` with parameters, their gradients and their numbers in the slots, piece by piece.
    fn update<const N: usize>(self, slots: [&mut [T]; N], update: impl Fn(&mut [T], &[T], [&mut [T]; N]) + Sync);
}

/// Parameters whose gradients are there.
pub struct Segments<'a, T> {
    /// Who computes.
    pub workers: &'a Workers,
    /// Where they are: sorted, and disjoint.
    pub segments: &'a [Range<usize>],
    /// All parameters.
    pub parameters: &'a mut [T],
    /// In the order of the parameters.
    pub gradients: &'a [T],
}

impl<T: Element> Target<T> for Segments<'_, T> {
    fn update<const N: usize>(self, mut slots: [&mut [T]; N], update: impl Fn(&mut [T], &[T], [&mut [T]; N]) + Sync) {
        for segment in self.segments {
            let piece = piece_length(segment.len(), LANES);
            let mut slots = slots.each_mut().map(|slot| slot[segment.clone()].chunks_mut(piece));
            let parameters = self.parameters[segment.clone()].chunks_mut(piece);
            let pieces =
                parameters.zip(self.gradients[segment.clone()].chunks(piece)).map(|(parameters, gradients)| {
                    let slots = slots.each_mut().map(|slot| slot.next().unwrap_or_default());
                    (parameters, gradients, slots)
                });
            self.workers.for_each(pieces, |(parameters, gradients, slots)| {
                vectorized!(update(parameters, gradients, slots));
            });
        }
    }
}

/// The weights of a layer, whose gradient is a product that is seen run by run and kept nowhere: the largest ones would go to memory and
/// back.
pub struct Weights<'a, T> {
    /// Who computes.
    pub workers: &'a Workers,
    /// Of the layer and the rows.
    pub shape: Shape,
    /// What went into the layer, `[rows, inputs]`.
    pub inputs: &'a [T],
    /// δ, `[rows, units]`.
    pub delta: &'a [T],
    /// All parameters.
    pub parameters: &'a mut [T],
    /// Where the weights are among them.
    pub range: Range<usize>,
}

impl<T: Element> Target<T> for Weights<'_, T> {
    fn update<const N: usize>(self, slots: [&mut [T]; N], update: impl Fn(&mut [T], &[T], [&mut [T]; N]) + Sync) {
        let Self { workers, shape, inputs, delta, parameters, range } = self;
        let slots = slots.map(|slot| &mut slot[range.clone()]);
        transposed_product_seen(workers, shape, inputs, delta, &mut parameters[range], slots, &|runs| {
            vectorized!(for (g, w, slots) in runs {
                update(w, g, slots);
            });
        });
    }
}

/// 1 − βᵗ of step t. Where (1 − β)·t is more than 38, βᵗ ≤ e^−(1−β)·t is less than 2⁻⁵⁴, and the difference rounds to 1: the power, which
/// takes longer than the step of a small layer, is left out.
fn bias_correction(beta: f64, steps: u64) -> f64 {
    /// e⁻³⁸ < 2⁻⁵⁴
    const NOTHING_LEFT: f64 = 38.0;
    let steps = steps as f64;
    if (1.0 - beta) * steps > NOTHING_LEFT { 1.0 } else { 1.0 - libm::pow(beta, steps) }
}

/// g², or 0 where it would come near the denormal numbers: each of those costs tens of ordinary operations. What is left
/// out would move a root by far less than any ε.
#[inline(always)]
fn square<T: Element>(g: T) -> T {
    let base = if g.abs() < T::TINY_ROOT { T::ZERO } else { g };
    base * base
}

#[cfg(test)]
pub use crate::domain::optimizer::examples;

#[cfg(test)]
mod tests;
