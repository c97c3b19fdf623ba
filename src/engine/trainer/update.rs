//! One step: gradients, penalties, clipping, the optimizer.

use std::ops::Range;

use super::Trainer;
use crate::domain::{Loss, Optimizer, Settings};
use crate::engine::activation::sign;
use crate::engine::backward::{Moving, Parameters, backward};
use crate::engine::data::RowSet;
use crate::engine::dropout::{self, Moment};
use crate::engine::element::Element;
use crate::engine::judge::Judge;
use crate::engine::lbfgs::Progress;
use crate::engine::metrics::MetricSums;
use crate::engine::network::{Pass, Plan, forward};
use crate::engine::normalization::update_running_values;
use crate::engine::optimizer::Segments;
use crate::engine::product::{Onto, SEEN_ROWS_MAX};
use crate::engine::workspace::Workspace;

/// Added to a norm that divides, as PyTorch's `clip_grad_norm_`.
const CLIP_EPSILON: f64 = 1e-6;

/// What a pass over a batch reads.
struct BatchPass<'a, T> {
    judge: Judge<'a>,
    training: &'a RowSet<T>,
    /// The rows of the batch, and those that come after it.
    rows: &'a [u32],
    /// Rows of the batch.
    count: usize,
    /// Rows that go through at once.
    tile_rows: usize,
    /// 1 ÷ what the sum of the losses is divided by.
    scale: T,
}

impl<T: Element> BatchPass<'_, T> {
    /// Fills `gradients` with those of the reduced loss, a tile of rows at a time, so that memory is bounded whatever the batch
    /// size; `each_tile` sees every tile's workspace before its forward pass, and after backpropagation. Returns the sum of the
    /// losses.
    fn run(
        &self,
        mut parameters: Parameters<'_, T>,
        workspace: &mut Workspace<T>,
        gradients: &mut [T],
        mut sums: Option<&mut MetricSums>,
        mut before: impl FnMut(u32, usize, &mut Workspace<T>),
        mut after: impl FnMut(usize, &Workspace<T>),
    ) -> f64 {
        let mut sum = 0.0;
        let mut onto = Onto::Nothing;
        for (index, first) in (0..self.count).step_by(self.tile_rows).enumerate() {
            let count = self.tile_rows.min(self.count - first);
            let tile = self.training.load(count, self.rows[first..].iter().map(|&row| row as usize), workspace);
            before(index as u32, count, workspace);
            let sums = sums.as_deref_mut();
            sum += self.judge.pass(parameters.values(), self.scale, workspace, tile, Pass::Training, sums);
            // A loss that is not finite moves nothing.
            let parameters =
                if sum.is_finite() { parameters.reborrow() } else { Parameters::Still(parameters.values()) };
            backward(self.judge.plan, parameters, workspace, tile, gradients, onto, Pass::Training);
            onto = Onto::Sum;
            after(count, workspace);
        }
        sum
    }
}

impl<T: Element> Trainer<T> {
    /// Fills `gradients` with those of the reduced loss of some rows of the order, and moves the running values of batch
    /// normalizations. Returns the sum of the losses.
    pub(super) fn accumulate_gradients(&mut self, rows: Range<usize>) -> f64 {
        let moment =
            Moment { seed: self.settings.seed, epoch: self.epoch.into(), batch: self.next_batch as u64, tile: 0 };
        let moves = self.moves_at_once(rows.len());
        let (count, batch) = (rows.len(), &self.order[rows.clone()]);
        let divisor = self.objective.divisor(self.training.count_of(&self.objective, batch));
        let pass = BatchPass {
            judge: Judge { plan: &self.plan, objective: &self.objective, metrics: &self.metrics },
            training: &self.training,
            rows: &self.order[rows.start..],
            count,
            tile_rows: self.step_rows,
            scale: T::from_f64(1.0 / divisor),
        };
        let (plan, diagnostics) = (&self.plan, &mut self.diagnostics);
        #[cfg(test)]
        let given_masks = &self.given_masks;
        let draw = |tile: u32, rows: usize, workspace: &mut Workspace<T>| {
            dropout::draw_masks(plan, &mut workspace.activations, rows, Moment { tile, ..moment });
            #[cfg(test)]
            for (dropped, given) in workspace.activations.drops.iter_mut().zip(given_masks.iter().flatten()) {
                dropped.mask[..given.len()].copy_from_slice(given);
            }
        };
        let is_perceptron = self.settings.loss == Loss::Perceptron;
        let (units, mut has_wrong_rows) = (self.objective.units(), !is_perceptron);
        let see = |rows: usize, workspace: &Workspace<T>| {
            // δ is 0 but in M.
            has_wrong_rows =
                has_wrong_rows || workspace.output_delta(rows, units).iter().any(|&delta| delta != T::ZERO);
            if let Some(diagnostics) = diagnostics {
                diagnostics.see_units(plan, &workspace.activations, rows);
            }
        };
        let sums = Some(&mut self.metric_sums);
        let parameters = if moves {
            Parameters::Moving(Moving {
                parameters: &mut self.parameters,
                state: &mut self.optimizer,
                begun: &mut self.begun,
                optimizer: &self.settings.optimizer,
                learning_rate: self.rate,
            })
        } else {
            Parameters::Still(&self.parameters)
        };
        let sum = pass.run(parameters, &mut self.workspace, &mut self.gradients, sums, draw, see);
        self.batch_has_wrong_rows = has_wrong_rows;
        for (layer, kept) in self.plan.layers.iter().zip(&self.workspace.activations.normalizations) {
            if layer.has_batch_statistics() {
                update_running_values(layer, &mut self.parameters, kept, count);
            }
        }
        sum
    }

    /// Whether the weights of large layers may move while a batch of so many rows is backpropagated: nobody asks for the gradient as a
    /// whole, and all of it is known after one pass.
    fn moves_at_once(&self, rows: usize) -> bool {
        let Settings { l1, l2, max_gradient_value, max_gradient_norm, diagnostics, loss, optimizer, .. } =
            &self.settings;
        let changes_gradient = *l1 != 0.0 || *l2 != 0.0 || max_gradient_value.is_some() || max_gradient_norm.is_some();
        let needs_gradient =
            *diagnostics || matches!(loss, Loss::Perceptron) || matches!(optimizer, Optimizer::Lbfgs(_));
        (2..=SEEN_ROWS_MAX.min(self.step_rows)).contains(&rows) && !changes_gradient && !needs_gradient
    }

    /// The optimizer's step along the gradients of a batch whose losses add up to `loss_sum`.
    pub(super) fn update(&mut self, rows: Range<usize>, loss_sum: f64) {
        add_penalties(&self.plan, self.settings.l1, self.settings.l2, &self.parameters, &mut self.gradients);
        let is_last = self.next_batch + 1 == self.batches_per_epoch();
        if let Some(diagnostics) = self.diagnostics.as_mut().filter(|_| is_last) {
            diagnostics.see_gradients(&self.plan, &self.parameters, &self.gradients);
        }
        if self.optimizer.as_lbfgs_mut().is_some() {
            self.search_line(rows, loss_sum);
        } else {
            self.clip();
            let Self {
                optimizer,
                settings,
                rate,
                segments,
                still_segments,
                parameters,
                gradients,
                workspace,
                begun,
                ..
            } = self;
            let workers = &workspace.activations.workers;
            if let Some(begun) = begun.take() {
                let target = Segments { workers, segments: still_segments, parameters, gradients };
                optimizer.go_on(&begun, &settings.optimizer, *rate, target);
            } else {
                optimizer.step(workers, &settings.optimizer, *rate, segments, parameters, gradients);
            }
            bound_norms(&self.plan, &mut self.parameters);
        }
        if let Some(diagnostics) = self.diagnostics.as_mut().filter(|_| is_last) {
            diagnostics.see_update(&self.plan, &self.parameters);
        }
    }

    /// First each element to ±`max_gradient_value`, then the whole to `max_gradient_norm`: g ← g·min(1, c ÷ (‖g‖ + 1e-6)).
    fn clip(&mut self) {
        if let Some(bound) = self.settings.max_gradient_value {
            let bound = T::from_f64(bound);
            for_each(&self.segments, &mut self.gradients, |g| {
                // Written so that a NaN stays one.
                if *g > bound {
                    *g = bound;
                } else if *g < -bound {
                    *g = -bound;
                }
            });
        }
        if let Some(bound) = self.settings.max_gradient_norm {
            let norm = norm(self.segments.iter().flat_map(|segment| &self.gradients[segment.clone()]));
            let factor = bound / (norm + CLIP_EPSILON);
            if factor < 1.0 {
                let factor = T::from_f64(factor);
                for_each(&self.segments, &mut self.gradients, |g| *g *= factor);
            }
        }
    }

    /// One iteration of L-BFGS: its line search evaluates loss and gradient at other weights on the way.
    fn search_line(&mut self, rows: Range<usize>, loss_sum: f64) {
        let Self { optimizer, settings, segments, parameters, gradients, workspace, .. } = self;
        let rows = &self.order[rows];
        let divisor = self.objective.divisor(self.training.count_of(&self.objective, rows));
        let (plan, l2) = (&self.plan, settings.l2);
        let pass = BatchPass {
            judge: Judge { plan, objective: &self.objective, metrics: &self.metrics },
            training: &self.training,
            rows,
            count: rows.len(),
            tile_rows: self.step_rows,
            scale: T::from_f64(1.0 / divisor),
        };
        let finish = |sum: f64, parameters: &[T], gradients: &mut [T]| {
            keep_only(segments, gradients);
            sum / divisor + squares_penalty(plan, l2, parameters)
        };
        let loss = finish(loss_sum, parameters, gradients);
        let mut evaluate = |parameters: &[T], gradients: &mut [T]| {
            let sum = pass.run(Parameters::Still(parameters), workspace, gradients, None, |_, _, _| {}, |_, _| {});
            add_penalties(plan, 0.0, l2, parameters, gradients);
            finish(sum, parameters, gradients)
        };
        let (Some(lbfgs), Optimizer::Lbfgs(numbers)) = (optimizer.as_lbfgs_mut(), &settings.optimizer) else { return };
        let progress = lbfgs.iterate(numbers, parameters, gradients, loss, &mut evaluate);
        self.has_converged = matches!(progress, Progress::Converged);
    }

    /// The first training row, as it was sent, at which a caller's expression is not finite before the first step, and whether
    /// that is its value or its derivative; `None` for other losses.
    pub fn first_faulty_row(&mut self) -> Option<(u32, &'static str)> {
        if !matches!(self.settings.loss, Loss::Custom { .. }) {
            return None;
        }
        self.order.sort_unstable();
        let faulty = self.faulty_row(0..self.training.rows);
        self.draw_order();
        faulty
    }

    /// The first row of a batch at which a caller's expression, or its derivative, is not finite, as it was sent, and which of
    /// both; `None` for other losses.
    pub(super) fn faulty_row(&mut self, rows: Range<usize>) -> Option<(u32, &'static str)> {
        let units = self.objective.units();
        let rows = &self.order[rows];
        let divisor = self.objective.divisor(self.training.count_of(&self.objective, rows));
        let scale = T::from_f64(1.0 / divisor);
        for tile in rows.chunks(self.step_rows) {
            let loaded = self.training.load(tile.len(), tile.iter().map(|&row| row as usize), &mut self.workspace);
            let workspace = &mut self.workspace;
            let activations = &mut workspace.activations;
            forward(&self.plan, &self.parameters, activations, loaded, Pass::Gradients);
            let batch = &mut workspace.loss_batch(tile.len(), units);
            if let Some((row, what)) = self.objective.expression_fault(scale, batch) {
                return Some((self.training.sent_row(tile[row]), what));
            }
        }
        None
    }
}

/// Adds λ₂·W + λ₁·sign(W), the gradient of the penalties, for the weights of layers that are not frozen, biases apart.
fn add_penalties<T: Element>(plan: &Plan, l1: f64, l2: f64, parameters: &[T], gradients: &mut [T]) {
    if l1 == 0.0 && l2 == 0.0 {
        return;
    }
    let (l1, l2) = (T::from_f64(l1), T::from_f64(l2));
    for layer in plan.layers.iter().filter(|layer| !layer.is_frozen) {
        let weights = layer.layout.weights.clone();
        let pairs = gradients[weights.clone()].iter_mut().zip(&parameters[weights]);
        pairs.for_each(|(g, &w)| *g += l2 * w + l1 * sign(w));
    }
}

/// λ/2·‖W‖² over the same weights.
fn squares_penalty<T: Element>(plan: &Plan, l2: f64, parameters: &[T]) -> f64 {
    if l2 == 0.0 {
        return 0.0;
    }
    let layers = plan.layers.iter().filter(|layer| !layer.is_frozen);
    let squares = |range: Range<usize>| parameters[range].iter().map(|w| w.to_f64() * w.to_f64()).sum::<f64>();
    l2 / 2.0 * layers.map(|layer| squares(layer.layout.weights.clone())).sum::<f64>()
}

/// Scales each unit's incoming weights, a column of W, back to the layer's bound where they are longer (Srivastava et al. 2014).
fn bound_norms<T: Element>(plan: &Plan, parameters: &mut [T]) {
    for layer in plan.layers.iter().filter(|layer| !layer.is_frozen) {
        let Some(bound) = layer.max_norm else { continue };
        let units = layer.layout.units;
        let weights = &mut parameters[layer.layout.weights.clone()];
        for unit in 0..units {
            let norm = norm(weights[unit..].iter().step_by(units));
            if norm > bound {
                let factor = T::from_f64(bound / norm);
                weights[unit..].iter_mut().step_by(units).for_each(|w| *w *= factor);
            }
        }
    }
}

/// Zero outside of some segments.
fn keep_only<T: Element>(segments: &[Range<usize>], values: &mut [T]) {
    let mut next = 0;
    for segment in segments {
        values[next..segment.start].fill(T::ZERO);
        next = segment.end;
    }
    values[next..].fill(T::ZERO);
}

fn for_each<T>(segments: &[Range<usize>], values: &mut [T], f: impl Fn(&mut T)) {
    segments.iter().for_each(|segment| values[segment.clone()].iter_mut().for_each(&f));
}

/// √Σ x², in float64.
pub(super) fn norm<'a, T: Element>(values: impl Iterator<Item = &'a T>) -> f64 {
    values.map(|x| x.to_f64() * x.to_f64()).sum::<f64>().sqrt()
}
