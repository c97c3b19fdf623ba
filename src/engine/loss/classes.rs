//! Losses of a row of logits z of softmax, p = softmax(z), or of its logarithm.

use super::{LossBatch, Objective, TargetRows};
use crate::domain::Loss;
use crate::engine::activation::functions::{block_length, shift, sum};
use crate::engine::element::Element;

/// Cross-entropy, negative log-likelihood and KL divergence: Σ q·(ln Σ e^z − z), less the entropy of q for KL; the derivative
/// is p·Σq − q. On return the outputs are p, or ln p for the negative log-likelihood.
#[inline(always)]
pub(super) fn evaluate<T: Element>(objective: &Objective, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let units = objective.units();
    match (objective.loss(), batch.targets) {
        (Loss::NegativeLogLikelihood, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row, e, z| negative_log_likelihood(classes[row] as usize, e, z))
        }
        (Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 }, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row, e, z| right_class(classes[row] as usize, e, z))
        }
        // Of a single class the entropy is 0.
        (Loss::KlDivergence, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row, e, z| right_class(classes[row] as usize, e, z))
        }
        (&Loss::SoftmaxCrossEntropy { label_smoothing }, targets) => {
            let smooth = Smoothing::new(label_smoothing, units);
            rows(units, scale, batch, |row, e, z| {
                let q = |unit: usize| smooth.apply(probability(targets, units, row, unit));
                distribution(q, e, z)
            })
        }
        (Loss::KlDivergence, targets) => rows(units, scale, batch, |row, e, z| {
            let q = |unit: usize| probability::<T>(targets, units, row, unit);
            let entropy = (0..units).fold(T::ZERO, |sum, unit| sum - q(unit) * log_or_zero(q(unit)));
            distribution(q, e, z) - entropy
        }),
        (loss, _) => panic!("{} with targets of another kind", loss.name()),
    }
}

/// −(1 − p)^γ·ln p of the right class; derivative by z (δ − p)·(γ·p·(1 − p)^(γ−1)·ln p − (1 − p)^γ) (Lin et al. 2017)
#[inline(always)]
pub(super) fn focal<T: Element>(units: usize, gamma: T, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let TargetRows::Classes(classes) = batch.targets else { panic!("focal with targets of another kind") };
    rows(units, scale, batch, |row, e, z| {
        let class = classes[row] as usize;
        let right = z[class];
        let log_p = right - divide_by_sum(e).ln();
        // 1 − p with all its digits.
        let rest = -log_p.exp_m1();
        let focus = rest.pow(gamma);
        // For p = 1 its limit, 0: (1 − p)^(γ−1) may be infinite there.
        let bend = if rest > T::ZERO { gamma * e[class] * focus / rest * log_p } else { T::ZERO };
        let slope = bend - focus;
        z.iter_mut().zip(&*e).for_each(|(g, &p)| *g = -p * slope);
        z[class] = rest * slope;
        -focus * log_p
    })
}

/// A loss a row. `f` gets a row's e^z and, where its gradient belongs, its z, less their largest; it turns the first into outputs,
/// the second into the gradient by z, and returns the loss.
#[inline(always)]
fn rows<T: Element>(
    units: usize,
    scale: T,
    batch: &mut LossBatch<'_, T>,
    f: impl Fn(usize, &mut [T], &mut [T]) -> T,
) -> f64 {
    let (mut total, mut row) = (0.0, 0);
    let block = block_length(units);
    for (outputs, gradient) in batch.outputs.chunks_mut(block).zip(batch.gradient.chunks_mut(block)) {
        gradient.copy_from_slice(outputs);
        gradient.chunks_exact_mut(units).for_each(shift);
        outputs.iter_mut().zip(&*gradient).for_each(|(e, z)| *e = z.exp());
        for (outputs, gradient) in outputs.chunks_exact_mut(units).zip(gradient.chunks_exact_mut(units)) {
            let weight = batch.weights.map_or(T::ONE, |weights| weights[row]);
            let loss = f(row, outputs, gradient);
            row += 1;
            if weight == T::ZERO {
                gradient.fill(T::ZERO);
                continue;
            }
            total += loss.to_f64() * weight.to_f64();
            let scale = scale * weight;
            gradient.iter_mut().for_each(|g| *g = (*g * scale).flush());
        }
    }
    total
}

/// Turns e^z into p, and returns Σ e^z.
#[inline(always)]
fn divide_by_sum<T: Element>(e: &mut [T]) -> T {
    let sum = sum(e);
    e.iter_mut().for_each(|e| *e /= sum);
    sum
}

#[inline(always)]
fn right_class<T: Element>(class: usize, e: &mut [T], z: &mut [T]) -> T {
    let right = z[class];
    let log_sum = divide_by_sum(e).ln();
    z.copy_from_slice(e);
    z[class] -= T::ONE;
    log_sum - right
}

#[inline(always)]
fn negative_log_likelihood<T: Element>(class: usize, e: &mut [T], z: &mut [T]) -> T {
    let right = z[class];
    let sum = sum(e);
    let log_sum = sum.ln();
    for (e, z) in e.iter_mut().zip(z.iter_mut()) {
        (*e, *z) = (*z - log_sum, *e / sum);
    }
    z[class] -= T::ONE;
    log_sum - right
}

#[inline(always)]
fn distribution<T: Element>(q: impl Fn(usize) -> T, e: &mut [T], z: &mut [T]) -> T {
    let log_sum = divide_by_sum(e).ln();
    let (mut loss, mut total) = (T::ZERO, T::ZERO);
    for (unit, &z) in z.iter().enumerate() {
        loss += q(unit) * (log_sum - z);
        total += q(unit);
    }
    z.iter_mut().zip(&*e).enumerate().for_each(|(unit, (g, &p))| *g = p * total - q(unit));
    loss
}

/// q of a class in a row.
#[inline(always)]
fn probability<T: Element>(targets: TargetRows<'_, T>, units: usize, row: usize, unit: usize) -> T {
    match targets {
        TargetRows::Values(values) => values[row * units + unit],
        TargetRows::Classes(classes) if classes[row] as usize == unit => T::ONE,
        TargetRows::Classes(_) => T::ZERO,
    }
}

/// q' = (1 − ε)·q + ε ÷ classes (Szegedy et al. 2016). With class weights a row's whole loss is weighted by its right class's, as
/// every other loss's: Σ w·l ÷ Σ w. PyTorch weighs each class's part of the smoothing by that class's.
struct Smoothing<T> {
    kept: T,
    shared: T,
}

impl<T: Element> Smoothing<T> {
    fn new(epsilon: f64, classes: usize) -> Self {
        Self { kept: T::from_f64(1.0 - epsilon), shared: T::from_f64(epsilon / classes as f64) }
    }

    #[inline(always)]
    fn apply(&self, q: T) -> T {
        self.kept * q + self.shared
    }
}

/// ln q, 0 for q = 0: q·ln q has the limit 0.
#[inline(always)]
fn log_or_zero<T: Element>(q: T) -> T {
    if q > T::ZERO { q.ln() } else { T::ZERO }
}
