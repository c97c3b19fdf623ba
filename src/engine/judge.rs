//! How good the network is on some rows: loss and metrics of the same forward pass.

use super::data::RowSet;
use super::element::Element;
use super::loss::Objective;
use super::metrics::{MetricPlan, MetricSums};
use super::network::{Pass, Plan, forward};
use super::workspace::{Tile, Workspace};

/// What rows are judged by.
pub struct Judge<'a> {
    /// The network's shape.
    pub plan: &'a Plan,
    /// The loss.
    pub objective: &'a Objective,
    /// What else is told.
    pub metrics: &'a MetricPlan,
}

impl Judge<'_> {
    /// The forward pass of a tile whose targets are in a workspace, up to δ of the last layer: the gradient of `scale` times
    /// the sum of their losses, which is returned. Adds their metrics to `sums`, where there are any.
    pub fn pass<T: Element>(
        &self,
        parameters: &[T],
        scale: T,
        workspace: &mut Workspace<T>,
        tile: Tile<'_, T>,
        pass: Pass,
        sums: Option<&mut MetricSums>,
    ) -> f64 {
        let (rows, units) = (tile.rows, self.objective.units());
        forward(self.plan, parameters, &mut workspace.activations, tile, pass);
        let sum = self.objective.evaluate(scale, &mut workspace.loss_batch(rows, units));
        if let Some(sums) = sums {
            sums.add(self.metrics, workspace.outputs(rows, units), workspace.targets(), workspace.mask());
        }
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
            let count = tile_rows.min(set.rows - first);
            let tile = set.load(count, first..set.rows, workspace);
            sum += self.pass(parameters, T::ONE, workspace, tile, Pass::Inference, Some(sums));
        }
        sum
    }
}
