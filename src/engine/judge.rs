//! How good the network is on some rows: loss and metrics of the same forward pass.

use super::data::RowSet;
use super::element::Element;
use super::loss::Objective;
use super::metrics::{MetricSums, Task};
use super::network::{Plan, forward};
use super::workspace::Workspace;

/// What rows are judged by.
pub struct Judge<'a> {
    /// The network's shape.
    pub plan: &'a Plan,
    /// The loss.
    pub objective: &'a Objective,
    /// What counts as right.
    pub task: Task,
}

impl Judge<'_> {
    /// The forward pass of the first `rows` rows of a workspace, up to δ of the last layer: the gradient of `scale` times
    /// the sum of their losses, which is returned. Adds their metrics to `sums`.
    pub fn pass<T: Element>(
        &self,
        parameters: &[T],
        scale: T,
        workspace: &mut Workspace<T>,
        rows: usize,
        sums: &mut MetricSums,
    ) -> f64 {
        let units = self.objective.units();
        forward(self.plan, parameters, &mut workspace.activations, rows);
        let (targets, outputs, delta) = workspace.output_parts(rows, units);
        let sum = self.objective.evaluate(targets, scale, outputs, delta);
        sums.add(self.task, units, outputs, targets);
        sum
    }

    /// All rows of a set, at most `tile_rows` at a time. Returns the sum of their losses; `sums` holds their metrics alone.
    pub fn validate<T: Element>(
        &self,
        parameters: &[T],
        set: &RowSet<T>,
        tile_rows: usize,
        workspace: &mut Workspace<T>,
        sums: &mut MetricSums,
    ) -> f64 {
        sums.clear();
        let mut sum = 0.0;
        for first in (0..set.rows).step_by(tile_rows) {
            let tile = first..set.rows.min(first + tile_rows);
            set.load(tile.clone(), workspace);
            sum += self.pass(parameters, T::ONE, workspace, tile.len(), sums);
        }
        sum
    }
}
