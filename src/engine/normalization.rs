//! Batch normalization (Ioffe and Szegedy 2015), a unit at a time: γ·(z − mean) ÷ √(variance + ε) + β.
//!
//! Sums over a batch are kept in float64. The definitions are PyTorch's: the biased variance normalizes, the unbiased one goes
//! into the running value.

use std::ops::Range;

use super::element::Element;
use super::network::PlanLayer;
use super::workspace::Normalized;

/// Units whose numbers are kept at hand while the rows go by: rows are walked along, not across, whatever the width.
const UNITS_AT_ONCE: usize = 64;

/// Normalizes `[rows, units]` by the running mean and variance, in place, where the layer is to be normalized. With `kept`, what
/// backpropagation needs is kept, too.
pub fn by_running_values<T: Element>(
    layer: &PlanLayer,
    parameters: &[T],
    values: &mut [T],
    mut kept: Option<&mut Normalized<T>>,
) {
    let (Some(settings), Some(layout)) = (layer.normalization, &layer.layout.normalization) else { return };
    let units = layer.layout.units;
    let numbers = |range: &Range<usize>, some: &Range<usize>| &parameters[range.start..][some.clone()];
    for some in chunks(units) {
        let (scale, shift) = (numbers(&layout.scale, &some), numbers(&layout.shift, &some));
        let mean = numbers(&layout.mean, &some);
        let mut inverse = [T::ZERO; UNITS_AT_ONCE];
        for (inverse, variance) in inverse.iter_mut().zip(numbers(&layout.variance, &some)) {
            *inverse = T::from_f64(1.0 / (variance.to_f64() + settings.epsilon).sqrt());
        }
        if let Some(kept) = &mut kept {
            kept.inverse_deviations[some.clone()].copy_from_slice(&inverse[..some.len()]);
        }
        for (index, row) in values.chunks_exact_mut(units).enumerate() {
            for (unit, value) in row[some.clone()].iter_mut().enumerate() {
                let normalized = (*value - mean[unit]) * inverse[unit];
                *value = scale[unit] * normalized + shift[unit];
                if let Some(kept) = &mut kept {
                    kept.values[index * units + some.start + unit] = normalized;
                }
            }
        }
    }
}

/// The units of a layer, some at a time.
fn chunks(units: usize) -> impl Iterator<Item = Range<usize>> {
    (0..units).step_by(UNITS_AT_ONCE).map(move |first| first..units.min(first + UNITS_AT_ONCE))
}

/// Normalizes `[rows, units]` by their own mean and biased variance, in place, and keeps what backpropagation and the running
/// values need.
pub fn by_batch<T: Element>(layer: &PlanLayer, parameters: &[T], values: &mut [T], kept: &mut Normalized<T>) {
    let (Some(settings), Some(layout)) = (layer.normalization, &layer.layout.normalization) else { return };
    let units = layer.layout.units;
    let rows = values.len() / units;
    moments(values, units, &mut kept.means, &mut kept.variances);
    for (inverse, variance) in kept.inverse_deviations.iter_mut().zip(&kept.variances) {
        *inverse = T::from_f64(1.0 / (variance + settings.epsilon).sqrt());
    }
    let (scale, shift) = (&parameters[layout.scale.clone()], &parameters[layout.shift.clone()]);
    let normalized = kept.values[..rows * units].chunks_exact_mut(units);
    for (row, normalized) in values.chunks_exact_mut(units).zip(normalized) {
        for unit in 0..units {
            // The mean is taken off in float64: where all rows are alike, nothing is left, whatever the mean rounds to.
            let centred = T::from_f64(row[unit].to_f64() - kept.means[unit]);
            normalized[unit] = centred * kept.inverse_deviations[unit];
            row[unit] = scale[unit] * normalized[unit] + shift[unit];
        }
    }
}

/// Mean and biased variance of each column, by two passes, row after row.
fn moments<T: Element>(values: &[T], units: usize, means: &mut [f64], variances: &mut [f64]) {
    let rows = (values.len() / units) as f64;
    means.fill(0.0);
    variances.fill(0.0);
    for row in values.chunks_exact(units) {
        means.iter_mut().zip(row).for_each(|(mean, &value)| *mean += value.to_f64());
    }
    means.iter_mut().for_each(|mean| *mean /= rows);
    for row in values.chunks_exact(units) {
        for ((variance, &mean), &value) in variances.iter_mut().zip(&*means).zip(row) {
            let distance = value.to_f64() - mean;
            *variance += distance * distance;
        }
    }
    variances.iter_mut().for_each(|variance| *variance /= rows);
}

/// r ← (1 − momentum)·r + momentum·batch for the running mean and variance, the batch's variance unbiased. A batch of one row
/// has no unbiased variance: the running one stays.
pub fn update_running_values<T: Element>(layer: &PlanLayer, parameters: &mut [T], kept: &Normalized<T>, rows: usize) {
    let (Some(settings), Some(layout)) = (layer.normalization, &layer.layout.normalization) else { return };
    let moved =
        |running: T, batch: f64| T::from_f64((1.0 - settings.momentum) * running.to_f64() + settings.momentum * batch);
    for (running, &batch) in parameters[layout.mean.clone()].iter_mut().zip(&kept.means) {
        *running = moved(*running, batch);
    }
    if rows > 1 {
        let unbiased = rows as f64 / (rows as f64 - 1.0);
        for (running, &batch) in parameters[layout.variance.clone()].iter_mut().zip(&kept.variances) {
            *running = moved(*running, batch * unbiased);
        }
    }
}

/// From δ, the gradient by what comes out, `[rows, units]`: adds Σ δ·x̂ to that of γ and Σ δ to that of β, and writes the gradient
/// by what went in to `to`. With N rows and x̂ the normalized values:
///
/// - by the batch's own mean and variance: γ ÷ (N·√(variance + ε)) · (N·δ − Σ δ − x̂·Σ δ·x̂)
/// - by running values: γ ÷ √(variance + ε) · δ
pub fn backward<T: Element>(
    layer: &PlanLayer,
    parameters: &[T],
    kept: &Normalized<T>,
    delta: &[T],
    to: &mut [T],
    gradients: &mut [T],
) {
    let Some(layout) = &layer.layout.normalization else { return };
    let units = layer.layout.units;
    let rows = (delta.len() / units) as f64;
    let goes_by_batch = layer.has_batch_statistics();
    for some in chunks(units) {
        let (sums, products) = column_sums(units, &some, delta, &kept.values);
        let (mut means, mut slopes) = ([T::ZERO; UNITS_AT_ONCE], [T::ZERO; UNITS_AT_ONCE]);
        let mut factors = [T::ZERO; UNITS_AT_ONCE];
        for (index, unit) in some.clone().enumerate() {
            gradients[layout.shift.start + unit] += T::from_f64(sums[index]);
            gradients[layout.scale.start + unit] += T::from_f64(products[index]);
            factors[index] = parameters[layout.scale.start + unit] * kept.inverse_deviations[unit];
            if goes_by_batch {
                means[index] = T::from_f64(sums[index] / rows);
                slopes[index] = T::from_f64(products[index] / rows);
            }
        }
        let both = delta.chunks_exact(units).zip(kept.values.chunks_exact(units));
        for ((delta, normalized), to) in both.zip(to.chunks_exact_mut(units)) {
            for (index, unit) in some.clone().enumerate() {
                let rest = delta[unit] - means[index] - normalized[unit] * slopes[index];
                to[unit] = (factors[index] * rest).flush();
            }
        }
    }
}

/// Σ δ and Σ δ·x̂ of some units over all rows.
fn column_sums<T: Element>(
    units: usize,
    some: &Range<usize>,
    delta: &[T],
    normalized: &[T],
) -> ([f64; UNITS_AT_ONCE], [f64; UNITS_AT_ONCE]) {
    let (mut sums, mut products) = ([0.0; UNITS_AT_ONCE], [0.0; UNITS_AT_ONCE]);
    for (delta, normalized) in delta.chunks_exact(units).zip(normalized.chunks_exact(units)) {
        let pairs = delta[some.clone()].iter().zip(&normalized[some.clone()]);
        for ((sum, product), (&delta, &normalized)) in sums.iter_mut().zip(&mut products).zip(pairs) {
            *sum += delta.to_f64();
            *product += delta.to_f64() * normalized.to_f64();
        }
    }
    (sums, products)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_all_alike_have_no_variance() {
        let values = [0.1_f32, 3.0, 0.1, 5.0, 0.1, 7.0];
        let (mut means, mut variances) = ([1.0; 2], [1.0; 2]);
        moments(&values, 2, &mut means, &mut variances);
        assert!((means[0] - f64::from(0.1_f32)).abs() < 1e-16 && variances[0] < 1e-30);
        assert_eq!((means[1], variances[1]), (5.0, 8.0 / 3.0));
    }
}
