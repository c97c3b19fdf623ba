//! Losses of a row of logits z of softmax, p = softmax(z), or of its logarithm.

use super::{LossBatch, Objective, TargetRows};
use crate::domain::Loss;
use crate::engine::activation::{log_softmax, softmax};
use crate::engine::element::Element;

/// Cross-entropy, negative log-likelihood and KL divergence: Σ q·(ln Σ e^z − z), less the entropy of q for KL; the derivative
/// is p·Σq − q. On return the outputs are p, or ln p for the negative log-likelihood.
pub(super) fn evaluate<T: Element>(objective: &Objective, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let units = objective.units();
    match (objective.loss(), batch.targets) {
        (Loss::NegativeLogLikelihood, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row, z, gradient| negative_log_likelihood(classes[row] as usize, z, gradient))
        }
        (Loss::SoftmaxCrossEntropy { label_smoothing: 0.0 }, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row, z, gradient| right_class(classes[row] as usize, z, gradient))
        }
        // Of a single class the entropy is 0.
        (Loss::KlDivergence, TargetRows::Classes(classes)) => {
            rows(units, scale, batch, |row, z, gradient| right_class(classes[row] as usize, z, gradient))
        }
        (&Loss::SoftmaxCrossEntropy { label_smoothing }, targets) => {
            let smooth = Smoothing::new(label_smoothing, units);
            rows(units, scale, batch, |row, z, gradient| {
                let q = |unit: usize| smooth.apply(probability(targets, units, row, unit));
                distribution(q, z, gradient)
            })
        }
        (Loss::KlDivergence, targets) => rows(units, scale, batch, |row, z, gradient| {
            let q = |unit: usize| probability::<T>(targets, units, row, unit);
            let entropy = (0..units).fold(T::ZERO, |sum, unit| sum - q(unit) * log_or_zero(q(unit)));
            distribution(q, z, gradient) - entropy
        }),
        (loss, _) => panic!("{} with targets of another kind", loss.name()),
    }
}

/// −(1 − p)^γ·ln p of the right class; derivative by z (δ − p)·(γ·p·(1 − p)^(γ−1)·ln p − (1 − p)^γ) (Lin et al. 2017)
pub(super) fn focal<T: Element>(units: usize, gamma: T, scale: T, batch: &mut LossBatch<'_, T>) -> f64 {
    let TargetRows::Classes(classes) = batch.targets else { panic!("focal with targets of another kind") };
    rows(units, scale, batch, |row, z, gradient| {
        let class = classes[row] as usize;
        let right = z[class];
        let (largest, log_sum) = softmax(z);
        let log_p = (right - largest) - log_sum;
        // 1 − p with all its digits.
        let rest = -log_p.exp_m1();
        let focus = rest.pow(gamma);
        // For p = 1 its limit, 0: (1 − p)^(γ−1) may be infinite there.
        let bend = if rest > T::ZERO { gamma * z[class] * focus / rest * log_p } else { T::ZERO };
        let slope = bend - focus;
        gradient.iter_mut().zip(z.iter()).for_each(|(g, &p)| *g = -p * slope);
        gradient[class] = rest * slope;
        -focus * log_p
    })
}

/// A loss a row: `f` turns the row's z into outputs, writes the gradient by z, and returns the loss.
fn rows<T: Element>(
    units: usize,
    scale: T,
    batch: &mut LossBatch<'_, T>,
    f: impl Fn(usize, &mut [T], &mut [T]) -> T,
) -> f64 {
    let mut sum = 0.0;
    let both = batch.outputs.chunks_exact_mut(units).zip(batch.gradient.chunks_exact_mut(units));
    for (row, (outputs, gradient)) in both.enumerate() {
        let weight = batch.weights.map_or(T::ONE, |weights| weights[row]);
        let loss = f(row, outputs, gradient);
        if weight == T::ZERO {
            gradient.fill(T::ZERO);
            continue;
        }
        sum += loss.to_f64() * weight.to_f64();
        let scale = scale * weight;
        gradient.iter_mut().for_each(|g| *g = (*g * scale).flush());
    }
    sum
}

#[inline]
fn right_class<T: Element>(class: usize, z: &mut [T], gradient: &mut [T]) -> T {
    let right = z[class];
    let (largest, log_sum) = softmax(z);
    gradient.copy_from_slice(z);
    gradient[class] = z[class] - T::ONE;
    (largest - right) + log_sum
}

#[inline]
fn negative_log_likelihood<T: Element>(class: usize, z: &mut [T], gradient: &mut [T]) -> T {
    let right = z[class];
    gradient.copy_from_slice(z);
    softmax(gradient);
    gradient[class] -= T::ONE;
    let (largest, log_sum) = log_softmax(z);
    (largest - right) + log_sum
}

#[inline]
fn distribution<T: Element>(q: impl Fn(usize) -> T, z: &mut [T], gradient: &mut [T]) -> T {
    gradient.copy_from_slice(z);
    let (largest, log_sum) = softmax(z);
    let (mut loss, mut total) = (T::ZERO, T::ZERO);
    for (unit, &z) in gradient.iter().enumerate() {
        loss += q(unit) * ((largest - z) + log_sum);
        total += q(unit);
    }
    gradient.iter_mut().zip(z.iter()).enumerate().for_each(|(unit, (g, &p))| *g = p * total - q(unit));
    loss
}

/// q of a class in a row.
#[inline]
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

    #[inline]
    fn apply(&self, q: T) -> T {
        self.kept * q + self.shared
    }
}

/// ln q, 0 for q = 0: q·ln q has the limit 0.
#[inline]
fn log_or_zero<T: Element>(q: T) -> T {
    if q > T::ZERO { q.ln() } else { T::ZERO }
}
