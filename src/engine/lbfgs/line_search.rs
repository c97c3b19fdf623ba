//! A line search for the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6), with the
//! interpolation and the safeguards of PyTorch's.

use super::{dot, largest};
use crate::domain::optimizer::Lbfgs as Settings;
use crate::engine::element::Element;

/// c₁ of f(t) ≤ f(0) + c₁·t·f'(0): the loss must fall.
pub(super) const DECREASE: f64 = 1e-4;
/// c₂ of |f'(t)| ≤ c₂·|f'(0)|: the step must be long enough.
pub(super) const CURVATURE: f64 = 0.9;

/// f(t) = loss(start + t·direction), and what is known of it at 0.
#[derive(Clone, Copy)]
pub(super) struct Line<'a, T> {
    pub(super) start: &'a [T],
    pub(super) direction: &'a [T],
    pub(super) loss: f64,
    pub(super) slope: f64,
}

/// What is known at one t.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) t: f64,
    pub(super) loss: f64,
    pub(super) slope: f64,
}

/// One search. `low` is everywhere the point with the lowest loss of those that fulfil the first condition, or the start;
/// its gradients are kept.
pub(super) struct LineSearch<'a, T> {
    line: &'a Line<'a, T>,
    /// Those of the point evaluated last.
    parameters: &'a mut [T],
    gradients: &'a mut [T],
    low_gradients: &'a mut [T],
    evaluate: &'a mut dyn FnMut(&[T], &mut [T]) -> f64,
    evaluations: u32,
    evaluations_max: u32,
    /// The smallest difference of two t that moves a parameter by what counts.
    t_change_min: f64,
}

impl<'a, T: Element> LineSearch<'a, T> {
    pub(super) fn new(
        line: &'a Line<'a, T>,
        settings: &Settings,
        parameters: &'a mut [T],
        gradients: &'a mut [T],
        low_gradients: &'a mut [T],
        evaluate: &'a mut dyn FnMut(&[T], &mut [T]) -> f64,
    ) -> Self {
        Self {
            line,
            parameters,
            gradients,
            low_gradients,
            evaluate,
            evaluations: 0,
            evaluations_max: settings.max_evaluations,
            t_change_min: settings.tolerance_change / largest(line.direction),
        }
    }

    /// Evaluations so far.
    pub(super) fn evaluations(&self) -> u32 {
        self.evaluations
    }

    /// The point to move to: one that fulfils both conditions, or the best there was when evaluations or the room between
    /// two points ran out. Its t is 0 where no step lowered the loss.
    pub(super) fn run(&mut self, first_t: f64) -> Point {
        let mut previous = Point { t: 0.0, loss: self.line.loss, slope: self.line.slope };
        let mut point = self.evaluate_at(first_t);
        // Goes farther until a minimum is known to lie between two points.
        loop {
            if self.is_too_high(point) || point.loss >= previous.loss {
                return self.zoom(previous, point);
            }
            self.keep_gradients();
            if self.is_flat(point) {
                return point;
            }
            if point.slope >= 0.0 {
                return self.zoom(point, previous);
            }
            if self.evaluations == self.evaluations_max {
                return point;
            }
            let bounds = [point.t + 0.01 * (point.t - previous.t), 10.0 * point.t];
            let t = interpolate(previous, point, bounds);
            previous = point;
            point = self.evaluate_at(t);
        }
    }

    /// Narrows a bracket: between `low` and `high` there is a point that fulfils both conditions.
    fn zoom(&mut self, mut low: Point, mut high: Point) -> Point {
        let mut was_close = false;
        while self.evaluations < self.evaluations_max && (high.t - low.t).abs() > self.t_change_min {
            let point = self.evaluate_at(between(low, high, &mut was_close));
            if self.is_too_high(point) || point.loss >= low.loss {
                high = point;
                continue;
            }
            self.keep_gradients();
            if self.is_flat(point) {
                return point;
            }
            if point.slope * (high.t - low.t) >= 0.0 {
                high = low;
            }
            low = point;
        }
        low
    }

    fn evaluate_at(&mut self, t: f64) -> Point {
        move_along(self.parameters, self.line.start, t, self.line.direction);
        let loss = (self.evaluate)(self.parameters, self.gradients);
        self.evaluations += 1;
        let slope = dot(self.gradients, self.line.direction);
        let is_finite = loss.is_finite() && slope.is_finite();
        Point { t, loss: if is_finite { loss } else { f64::INFINITY }, slope }
    }

    /// Whether the first condition does not hold.
    fn is_too_high(&self, point: Point) -> bool {
        point.loss > self.line.loss + DECREASE * point.t * self.line.slope
    }

    /// Whether the second condition holds.
    fn is_flat(&self, point: Point) -> bool {
        point.slope.abs() <= -CURVATURE * self.line.slope
    }

    /// The point evaluated last is the new `low`.
    fn keep_gradients(&mut self) {
        self.low_gradients.copy_from_slice(self.gradients);
    }
}

/// parameters ← start + t·direction
pub(super) fn move_along<T: Element>(parameters: &mut [T], start: &[T], t: f64, direction: &[T]) {
    let t = T::from_f64(t);
    parameters.iter_mut().zip(start).zip(direction).for_each(|((w, &start), &d)| *w = start + t * d);
}

/// The next t within a bracket: where a cubic has its minimum, but a tenth of the bracket away from its ends where the
/// minimum is at one of them, or was close to one twice in a row.
fn between(low: Point, high: Point, was_close: &mut bool) -> f64 {
    let [left, right] = if low.t <= high.t { [low.t, high.t] } else { [high.t, low.t] };
    let margin = 0.1 * (right - left);
    let t = interpolate(low, high, [left, right]);
    let is_close = (right - t).min(t - left) < margin;
    if is_close && (*was_close || t >= right || t <= left) {
        *was_close = false;
        return if right - t < t - left { right - margin } else { left + margin };
    }
    *was_close = is_close;
    t
}

/// The minimum, within bounds, of the cubic through two points with their slopes; the middle of the bounds where there is
/// none, or a loss is not finite.
///
/// With a left of b: m = a.slope + b.slope − 3·(a.loss − b.loss) ÷ (a.t − b.t), r = √(m² − a.slope·b.slope), and
/// t = b.t − (b.t − a.t)·(b.slope + r − m) ÷ (b.slope − a.slope + 2·r).
fn interpolate(a: Point, b: Point, [low, high]: [f64; 2]) -> f64 {
    let (a, b) = if a.t <= b.t { (a, b) } else { (b, a) };
    let m = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t);
    let root = (m * m - a.slope * b.slope).sqrt();
    let t = b.t - (b.t - a.t) * ((b.slope + root - m) / (b.slope - a.slope + 2.0 * root));
    if t.is_finite() { t.clamp(low, high) } else { low + 0.5 * (high - low) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cubic_is_met_exactly() {
        // f(t) = t³ − 3t has its minimum at 1.
        let at = |t: f64| Point { t, loss: t * t * t - 3.0 * t, slope: 3.0 * t * t - 3.0 };
        assert!((interpolate(at(0.0), at(3.0), [0.0, 3.0]) - 1.0).abs() < 1e-15);
        assert!((interpolate(at(3.0), at(0.0), [0.0, 3.0]) - 1.0).abs() < 1e-15);
        assert_eq!(interpolate(at(0.0), at(3.0), [1.5, 3.0]), 1.5);
    }

    #[test]
    fn without_a_finite_cubic_the_bracket_is_halved() {
        let near = Point { t: 0.0, loss: 1.0, slope: -1.0 };
        for slope in [f64::NAN, f64::INFINITY, 3.0] {
            let far = Point { t: 1.0, loss: f64::INFINITY, slope };
            assert_eq!(interpolate(near, far, [0.0, 1.0]), 0.5);
        }
        // No minimum: m² < product of the slopes.
        let a = Point { t: 0.0, loss: 0.0, slope: -1.0 };
        let b = Point { t: 1.0, loss: -1.0, slope: -1.5 };
        assert_eq!(interpolate(a, b, [0.0, 1.0]), 0.5);
    }
}
