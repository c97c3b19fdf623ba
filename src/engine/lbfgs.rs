//! L-BFGS: Newton's direction, with the curvature learned from the last steps (Nocedal 1980; Nocedal and Wright 2006,
//! algorithms 7.4 and 7.5), and a line search for the strong Wolfe conditions.
//!
//! Scalars and sums over parameters are float64, whatever the element type.

mod line_search;

use self::line_search::{Line, LineSearch, Point};
use super::element::Element;
use super::optimizer::SavedOptimizer;
use crate::domain::optimizer::Lbfgs as Settings;

/// Below this y·s a step says too little about the curvature, or that there is none to follow (as PyTorch).
const CURVATURE_MIN: f64 = 1e-10;

/// Vectors beside the history: start, its gradients, direction, gradients of the best point.
const WORK_VECTORS: usize = 4;

/// The state of L-BFGS, and the room that an iteration needs.
#[derive(Clone, Debug)]
pub struct Lbfgs<T> {
    /// Oldest first; only the first `used` hold anything. Made once, so that an iteration allocates nothing.
    history: Vec<Pair<T>>,
    used: usize,
    /// γ = y·s ÷ y·y of the newest step: the first guess of the inverse Hessian is γ·I.
    scale: f64,
    /// Steps taken.
    steps: u64,

    // What an iteration writes before it reads.
    start: Vec<T>,
    start_gradients: Vec<T>,
    direction: Vec<T>,
    best_gradients: Vec<T>,
}

/// What one step told of the curvature.
#[derive(Clone, Debug)]
struct Pair<T> {
    /// s, the step.
    step: Vec<T>,
    /// y, the change of the gradients.
    change: Vec<T>,
    /// ρ = 1 ÷ y·s
    rho: f64,
    /// α of the two loops; nothing between iterations.
    alpha: f64,
}

/// What one iteration came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// The parameters moved.
    Moved {
        /// The loss at the new ones, below the one before.
        loss: f64,
        /// Evaluations that it took.
        evaluations: u32,
    },
    /// Nothing is left to improve: no gradient is above its tolerance, no step lowers the loss (the parameters are then as
    /// they were), or the step just made changed no parameter, or the loss, by more than the tolerance.
    Converged,
}

impl<T: Element> Lbfgs<T> {
    /// Before the first iteration.
    pub(super) fn new(settings: &Settings, parameter_count: usize) -> Self {
        let vector = || vec![T::ZERO; parameter_count];
        let pair = |_| Pair { step: vector(), change: vector(), rho: 0.0, alpha: 0.0 };
        Self {
            history: (0..settings.history_size).map(pair).collect(),
            used: 0,
            scale: 1.0,
            steps: 0,
            start: vector(),
            start_gradients: vector(),
            direction: vector(),
            best_gradients: vector(),
        }
    }

    /// Numbers a parameter.
    pub(super) fn slot_count(settings: &Settings) -> usize {
        2 * settings.history_size as usize + WORK_VECTORS
    }

    /// One iteration. `loss` and `gradients` are those at `parameters`, finite, and 0 for what is not to move; afterwards
    /// `gradients` are those at the new ones. `evaluate` tells the loss at some parameters and overwrites the gradients;
    /// a loss that is not finite counts as too high. Allocates nothing.
    pub fn iterate(
        &mut self,
        settings: &Settings,
        parameters: &mut [T],
        gradients: &mut [T],
        loss: f64,
        evaluate: &mut dyn FnMut(&[T], &mut [T]) -> f64,
    ) -> Progress {
        if largest(gradients) <= settings.tolerance_gradient {
            return Progress::Converged;
        }
        self.start.copy_from_slice(parameters);
        self.start_gradients.copy_from_slice(gradients);
        let mut evaluations = 0;
        loop {
            let slope = self.aim();
            let first_t = self.first_t(settings.learning_rate);
            let line = Line { start: &self.start, direction: &self.direction, loss, slope };
            let mut search =
                LineSearch::new(&line, settings, parameters, gradients, &mut self.best_gradients, evaluate);
            let best = search.run(first_t);
            evaluations += search.evaluations();
            if best.t > 0.0 {
                let change = self.accept(best, parameters, gradients);
                let is_change =
                    change > settings.tolerance_change && (loss - best.loss).abs() >= settings.tolerance_change;
                return if is_change { Progress::Moved { loss: best.loss, evaluations } } else { Progress::Converged };
            }
            if self.used == 0 {
                parameters.copy_from_slice(&self.start);
                gradients.copy_from_slice(&self.start_gradients);
                return Progress::Converged;
            }
            // Where what was learned of the curvature no longer holds, the gradient itself may still lead down (as in
            // L-BFGS-B).
            self.forget();
        }
    }

    /// Points `direction` down and returns its slope g·d. Curvature that does not lead down is forgotten.
    fn aim(&mut self) -> f64 {
        self.find_direction();
        let slope = dot(&self.start_gradients, &self.direction);
        // Not `slope >= 0`: NaN leads nowhere either.
        if slope < 0.0 || self.used == 0 {
            return slope;
        }
        self.forget();
        self.find_direction();
        dot(&self.start_gradients, &self.direction)
    }

    /// d = −H·g by the two loops: q = −g; from the newest step to the oldest α = ρ·(s·q), q ← q − α·y; then r = γ·q; from
    /// the oldest to the newest r ← r + (α − ρ·(y·r))·s. Without a history it is −g.
    fn find_direction(&mut self) {
        let direction = &mut self.direction;
        direction.iter_mut().zip(&self.start_gradients).for_each(|(d, &g)| *d = -g);
        let history = &mut self.history[..self.used];
        for pair in history.iter_mut().rev() {
            pair.alpha = pair.rho * dot(&pair.step, direction);
            add(direction, -pair.alpha, &pair.change);
        }
        let scale = T::from_f64(self.scale);
        direction.iter_mut().for_each(|d| *d *= scale);
        for pair in history {
            let beta = pair.rho * dot(&pair.change, direction);
            add(direction, pair.alpha - beta, &pair.step);
        }
    }

    /// The step tried first: the learning rate; without a history, whose scale tells how far, at most 1 ÷ ‖g‖₁ of it.
    fn first_t(&self, learning_rate: f64) -> f64 {
        if self.used > 0 {
            return learning_rate;
        }
        let norm: f64 = self.start_gradients.iter().map(|g| g.to_f64().abs()).sum();
        (1.0 / norm).min(1.0) * learning_rate
    }

    /// Moves to the best point of the line and learns from the step. Returns the largest change of a parameter.
    fn accept(&mut self, best: Point, parameters: &mut [T], gradients: &mut [T]) -> f64 {
        line_search::move_along(parameters, &self.start, best.t, &self.direction);
        gradients.copy_from_slice(&self.best_gradients);
        self.steps += 1;
        let curvature = best.t * dot_of_difference(gradients, &self.start_gradients, &self.direction);
        if curvature > CURVATURE_MIN {
            self.learn(best.t, gradients, curvature);
        }
        best.t * largest(&self.direction)
    }

    fn learn(&mut self, t: f64, gradients: &[T], curvature: f64) {
        if self.used == self.history.len() {
            // Moves a few pointers, not the vectors.
            self.history.rotate_left(1);
        } else {
            self.used += 1;
        }
        let pair = &mut self.history[self.used - 1];
        let t = T::from_f64(t);
        pair.step.iter_mut().zip(&self.direction).for_each(|(s, &d)| *s = t * d);
        let changes = gradients.iter().zip(&self.start_gradients);
        pair.change.iter_mut().zip(changes).for_each(|(y, (&new, &old))| *y = new - old);
        pair.rho = 1.0 / curvature;
        self.scale = curvature / dot(&pair.change, &pair.change);
    }

    fn forget(&mut self) {
        self.used = 0;
        self.scale = 1.0;
    }

    /// The history, oldest first: s and y in turn, then γ and each ρ.
    #[cfg(test)]
    fn save(&self) -> SavedOptimizer {
        let slots = self.saved_vectors().into_iter().map(|vector| T::values_from(vector.to_vec())).collect();
        SavedOptimizer { slots, scalars: self.saved_scalars(), steps: self.steps }
    }

    pub(super) fn saved_scalars(&self) -> Vec<f64> {
        std::iter::once(self.scale).chain(self.history[..self.used].iter().map(|pair| pair.rho)).collect()
    }

    pub(super) fn saved_vectors(&self) -> Vec<&[T]> {
        self.history[..self.used].iter().flat_map(|pair| [pair.step.as_slice(), &pair.change]).collect()
    }

    pub(super) fn into_saved_vectors(self) -> Vec<Vec<T>> {
        self.history.into_iter().take(self.used).flat_map(|pair| [pair.step, pair.change]).collect()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on from what was saved; of a longer history, with the newest steps. On an error nothing is changed.
    pub(super) fn restore(&mut self, saved: SavedOptimizer) -> Result<(), &'static str> {
        let used = saved.slots.len() / 2;
        if saved.slots.len() != 2 * used || saved.scalars.len() != used + 1 {
            return Err("its optimizer is another");
        }
        let count = self.start.len();
        if saved.slots.iter().any(|slot| slot.len() != count) {
            return Err("its optimizer is of another number of parameters");
        }
        if saved.slots.iter().any(|slot| slot.element_type() != T::ELEMENT_TYPE) {
            return Err("its optimizer is of another element type");
        }
        self.used = used.min(self.history.len());
        self.scale = saved.scalars[0];
        self.steps = saved.steps;
        let left_out = used - self.used;
        let mut vectors = saved.slots.into_iter().skip(2 * left_out).map(T::vec_from);
        for (pair, &rho) in self.history.iter_mut().zip(&saved.scalars[1 + left_out..]) {
            if let (Some(step), Some(change)) = (vectors.next(), vectors.next()) {
                (pair.step, pair.change, pair.rho) = (step, change, rho);
            }
        }
        Ok(())
    }
}

/// target ← target + factor·vector
fn add<T: Element>(target: &mut [T], factor: f64, vector: &[T]) {
    let factor = T::from_f64(factor);
    target.iter_mut().zip(vector).for_each(|(t, &v)| *t += factor * v);
}

/// The largest magnitude.
fn largest<T: Element>(vector: &[T]) -> f64 {
    vector.iter().fold(0.0, |max, x| x.to_f64().abs().max(max))
}

/// Sums that run side by side, so that a sum is not one long chain of additions.
const LANES: usize = 8;

/// Σ term(i) in float64.
#[inline(always)]
fn sum(count: usize, term: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let whole = count / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    let rest: f64 = (whole..count).map(term).sum();
    lanes.iter().sum::<f64>() + rest
}

/// a·b in float64
fn dot<T: Element>(a: &[T], b: &[T]) -> f64 {
    let b = &b[..a.len()];
    sum(a.len(), |i| a[i].to_f64() * b[i].to_f64())
}

/// (a − b)·c in float64
fn dot_of_difference<T: Element>(a: &[T], b: &[T], c: &[T]) -> f64 {
    let (b, c) = (&b[..a.len()], &c[..a.len()]);
    sum(a.len(), |i| (a[i].to_f64() - b[i].to_f64()) * c[i].to_f64())
}

#[cfg(test)]
mod tests;
