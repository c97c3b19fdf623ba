//! Scaling of columns: x′ = (x − shift) ÷ scale, learned from the training rows and applied ever after. All in float64.

use super::element::Element;
use crate::domain::{Scaler, Scaling};

/// Learns the scaling of `values`, `[rows, columns]`; `None` where there is to be none.
///
/// - Standard: shift is the mean, scale √(Σ(x − mean)² ÷ rows), the biased standard deviation;
/// - MinMax: shift is the minimum, scale the range.
///
/// A constant column has scale 1, so that it becomes 0 instead of a division by 0.
pub fn fit<T: Element>(scaling: Scaling, columns: usize, values: &[T]) -> Option<Scaler> {
    let fit_column = |index| {
        let column = Column { values, columns, index };
        match scaling {
            Scaling::None => None,
            Scaling::Standard => Some(column.standard()),
            Scaling::MinMax => Some(column.min_max()),
        }
    };
    let (shift, scale) = (0..columns).map(fit_column).collect::<Option<Vec<_>>>()?.into_iter().unzip();
    Some(Scaler { shift, scale })
}

struct Column<'a, T> {
    values: &'a [T],
    columns: usize,
    index: usize,
}

impl<T: Element> Column<'_, T> {
    fn iter(&self) -> impl Iterator<Item = f64> {
        self.values[self.index..].iter().step_by(self.columns).map(|value| value.to_f64())
    }

    fn bounds(&self) -> (f64, f64) {
        self.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)))
    }

    fn standard(&self) -> (f64, f64) {
        let (min, max) = self.bounds();
        // Told by the values themselves: the rounded mean of equal values may differ from them in the last bit, and the
        // column would be blown up to ±1.
        if min == max {
            return (min, 1.0);
        }
        let rows = (self.values.len() / self.columns) as f64;
        // Sums of quotients, so that values near the largest float do not overflow.
        let mean = self.iter().map(|x| x / rows).sum::<f64>();
        let largest = (max - mean).max(mean - min);
        let variance = self.iter().map(|x| ((x - mean) / largest).powi(2)).sum::<f64>() / rows;
        (mean, usable(largest * variance.sqrt()))
    }

    fn min_max(&self) -> (f64, f64) {
        let (min, max) = self.bounds();
        (min, usable(max - min))
    }
}

/// The scale, or 1 where it is no number to divide by.
fn usable(scale: f64) -> f64 {
    if scale.is_finite() && scale > 0.0 { scale } else { 1.0 }
}

/// x ← (x − shift) ÷ scale, in place, for rows of the scaler's width.
pub fn apply<T: Element>(scaler: &Scaler, values: &mut [T]) {
    for_each_value(scaler, values, |x, shift, scale| (x - shift) / scale);
}

/// x ← x·scale + shift: what [`apply`] did, undone.
pub fn invert<T: Element>(scaler: &Scaler, values: &mut [T]) {
    for_each_value(scaler, values, |x, shift, scale| x * scale + shift);
}

/// g ← g ÷ scale: turns the gradient with respect to scaled values into that with respect to the values before scaling.
pub fn apply_to_gradient<T: Element>(scaler: &Scaler, values: &mut [T]) {
    for_each_value(scaler, values, |g, _, scale| g / scale);
}

fn for_each_value<T: Element>(scaler: &Scaler, values: &mut [T], f: impl Fn(f64, f64, f64) -> f64) {
    for row in values.chunks_exact_mut(scaler.shift.len()) {
        let numbers = scaler.shift.iter().zip(&scaler.scale);
        row.iter_mut().zip(numbers).for_each(|(x, (&shift, &scale))| *x = T::from_f64(f(x.to_f64(), shift, scale)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_is_mean_and_biased_deviation_a_column() {
        let scaler = fit(Scaling::Standard, 2, &[1.0, 10.0, 2.0, 10.0, 6.0, 10.0]).unwrap();
        assert_eq!(scaler.shift, [3.0, 10.0]);
        assert!((scaler.scale[0] - (14.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(scaler.scale[1], 1.0);
    }

    #[test]
    fn min_max_brings_the_rows_between_zero_and_one() {
        let mut values = [1.0_f32, 5.0, -3.0, 5.0, 5.0, 5.0];
        let scaler = fit(Scaling::MinMax, 2, &values).unwrap();
        apply(&scaler, &mut values);
        assert_eq!(values, [0.5, 0.0, 0.0, 0.0, 1.0, 0.0]);
        invert(&scaler, &mut values);
        assert_eq!(values, [1.0, 5.0, -3.0, 5.0, 5.0, 5.0]);
        assert_eq!(fit(Scaling::None, 2, &values), None);
    }

    #[test]
    fn a_constant_column_becomes_zero_however_its_mean_rounds() {
        for constant in [0.1, 1e-300, 1e300, -7.3, 0.0] {
            let mut values = vec![constant; 1_000];
            apply(&fit(Scaling::Standard, 1, &values).unwrap(), &mut values);
            assert!(values.iter().all(|&x| x == 0.0), "{constant}");
        }
    }

    #[test]
    fn the_largest_floats_do_not_overflow() {
        for scaling in [Scaling::Standard, Scaling::MinMax] {
            let mut values = [f64::MAX / 4.0, -f64::MAX / 4.0, 0.0];
            apply(&fit(scaling, 1, &values).unwrap(), &mut values);
            assert!(values.iter().all(|x| x.abs() < 2.0), "{values:?}");
        }
    }
}
