//! Losses of a row of logits z of softmax, p = softmax(z), or of its logarithm.

use std::ops::Range;

use super::{LossBatch, Objective, TargetRows};
use crate::domain::Loss;
use crate::engine::activation::softmax::{ROWS_MAX, block_length, softmax_of_block};
use crate::engine::element::Element;
use crate::engine::simd::vectorized;

/// Cross-entropy, negative log-likelihood and KL divergence: Σ q·(ln Σ e^z − z), less the entropy of q for KL; the derivative
/// is p·Σq − q. On return the outputs are p, or ln p for the negative log-likelihood.
#[expect(clippy::panic, reason = "`Targets::check` gives a loss the kind it takes")]
pub(super) fn evaluate<T: Element>(objective: &Objective, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let units = objective.units();
    match (objective.loss(), batch.targets) {
        (Loss::NegativeLogLikelihood, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row| negative_log_likelihood(classes[row.index] as usize, row))
        }
        (Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 }, TargetRows::Classes(classes)) => {
            right_classes(classes, units, scale, batch)
        }
        // Of a single class the entropy is 0.
        (Loss::KlDivergence, TargetRows::Classes(classes)) => right_classes(classes, units, scale, batch),
        (&Loss::SoftmaxCrossEntropy { label_smoothing }, targets) => {
            let smooth = Smoothing::new(label_smoothing, units);
            rows(units, scale, batch, |row| {
                let index = row.index;
                distribution(|unit| smooth.apply(probability(targets, units, index, unit)), row)
            })
        }
        (Loss::KlDivergence, targets) => rows(units, scale, batch, |row| {
            let index = row.index;
            let q = |unit: usize| probability::<T>(targets, units, index, unit);
            let entropy = (0..units).fold(T::ZERO, |sum, unit| sum - q(unit) * log_or_zero(q(unit)));
            distribution(q, row) - entropy
        }),
        (loss, _) => panic!("{} with targets of another kind", loss.name()),
    }
}

/// −(1 − p)^γ·ln p of the right class; derivative by z (δ − p)·(γ·p·(1 − p)^(γ−1)·ln p − (1 − p)^γ) (Lin et al. 2017)
#[expect(clippy::panic, reason = "`Targets::check` gives a loss the kind it takes")]
pub(super) fn focal<T: Element>(units: usize, gamma: T, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let TargetRows::Classes(classes) = batch.targets else { panic!("focal with targets of another kind") };
    rows(units, scale, batch, |Row { index, log_sum, p, z }| {
        let class = classes[index] as usize;
        let log_p = z[class] - log_sum;
        // 1 − p with all its digits.
        let rest = -log_p.exp_m1();
        let focus = rest.pow(gamma);
        // For p = 1 its limit, 0: (1 − p)^(γ−1) may be infinite there.
        let bend = if rest > T::ZERO { gamma * p[class] * focus / rest * log_p } else { T::ZERO };
        let slope = bend - focus;
        z.iter_mut().zip(&*p).for_each(|(g, &p)| *g = -p * slope);
        z[class] = rest * slope;
        -focus * log_p
    })
}

/// A row on its way through a loss.
struct Row<'a, T> {
    index: usize,
    /// ln Σ e^z
    log_sum: T,
    /// softmax(z), which becomes the outputs.
    p: &'a mut [T],
    /// z less their largest, where the gradient by z belongs.
    z: &'a mut [T],
}

/// A loss a row: `f` turns p into outputs, z into the gradient, and returns the loss.
fn rows<T: Element>(units: usize, scale: T, batch: &mut LossBatch<'_, T>, f: impl Fn(Row<'_, T>) -> T) -> f64 {
    let (weights, mut total) = (batch.weights, 0.0);
    blocks(units, scale, batch, |Block { rows, log_sums, p, z }| {
        let values = p.chunks_exact_mut(units).zip(z.chunks_exact_mut(units)).zip(log_sums);
        for (index, ((p, z), &log_sum)) in rows.zip(values) {
            total += weighted(f(Row { index, log_sum, p, z }), weights, index);
        }
    });
    total
}

/// ln Σ e^z − z of the right class; derivative p, less 1 for that class.
fn right_classes<T: Element>(classes: &[u32], units: usize, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let (weights, mut total) = (batch.weights, 0.0);
    blocks(units, scale, batch, |Block { rows, log_sums, p, z }| {
        let classes = &classes[rows.clone()];
        for (index, ((z, &class), log_sum)) in rows.zip(z.chunks_exact(units).zip(classes).zip(log_sums)) {
            total += weighted(*log_sum - z[class as usize], weights, index);
        }
        z.copy_from_slice(p);
        z.chunks_exact_mut(units).zip(classes).for_each(|(g, &class)| g[class as usize] -= T::ONE);
    });
    total
}

/// Rows whose softmax is computed at once.
struct Block<'a, T> {
    rows: Range<usize>,
    /// ln Σ e^z of each.
    log_sums: &'a [T],
    /// As in [`Row`], of one row after another.
    p: &'a mut [T],
    z: &'a mut [T],
}

/// The softmax of all rows, block by block: `f` turns p into outputs and z into the gradient, which then is scaled.
#[inline(always)]
fn blocks<T: Element>(units: usize, scale: T, batch: &mut LossBatch<'_, T>, mut f: impl FnMut(Block<'_, T>)) {
    let length = block_length(units);
    let mut first = 0;
    for (p, z) in batch.outputs.chunks_mut(length).zip(batch.gradient.chunks_mut(length)) {
        let rows = first..first + p.len() / units;
        let mut log_sums = [T::ZERO; ROWS_MAX];
        softmax_of_block(units, p, z, &mut log_sums);
        first = rows.end;
        let weights = batch.weights.map(|weights| &weights[rows.clone()]);
        f(Block { log_sums: &log_sums[..rows.len()], rows, p, z: &mut *z });
        scale_rows(units, scale, weights, z);
    }
}

/// A row's loss times its weight. What does not count may be anything, infinite losses among it.
#[inline(always)]
fn weighted<T: Element>(loss: T, weights: Option<&[T]>, row: usize) -> f64 {
    let weight = weights.map_or(T::ONE, |weights| weights[row]);
    if weight == T::ZERO { 0.0 } else { loss.to_f64() * weight.to_f64() }
}

/// Each row's gradient, times its weight; of rows that do not count it is 0, whatever it was.
fn scale_rows<T: Element>(units: usize, scale: T, weights: Option<&[T]>, gradient: &mut [T]) {
    let Some(weights) = weights else {
        return vectorized!(gradient.iter_mut().for_each(|g| *g = (*g * scale).flush()));
    };
    for (gradient, &weight) in gradient.chunks_exact_mut(units).zip(weights) {
        if weight == T::ZERO {
            gradient.fill(T::ZERO);
        } else {
            let scale = scale * weight;
            gradient.iter_mut().for_each(|g| *g = (*g * scale).flush());
        }
    }
}

#[inline(always)]
fn negative_log_likelihood<T: Element>(class: usize, Row { log_sum, p, z, .. }: Row<'_, T>) -> T {
    let right = z[class];
    for (p, z) in p.iter_mut().zip(z.iter_mut()) {
        (*p, *z) = (*z - log_sum, *p);
    }
    z[class] -= T::ONE;
    log_sum - right
}

#[inline(always)]
fn distribution<T: Element>(q: impl Fn(usize) -> T, Row { log_sum, p, z, .. }: Row<'_, T>) -> T {
    let (mut loss, mut total) = (T::ZERO, T::ZERO);
    for (unit, &z) in z.iter().enumerate() {
        loss += q(unit) * (log_sum - z);
        total += q(unit);
    }
    z.iter_mut().zip(&*p).enumerate().for_each(|(unit, (g, &p))| *g = p * total - q(unit));
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
