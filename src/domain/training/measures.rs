//! What a training is measured by: metrics, early stopping, and when it is good enough.

use super::RawTraining;
use crate::domain::activation::Activation;
use crate::domain::architecture::Architecture;
use crate::domain::fault::{At, Faults, RealRange};
use crate::domain::loss::Loss;
use crate::domain::metric::{self, Metric, Task};
use crate::domain::rows::TrainingData;
use crate::domain::settings::{EarlyStopping, StopAt};
use crate::domain::targets::Targets;
use crate::limits;

/// Early stopping as a request brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawEarlyStopping {
    /// Default 10.
    pub patience: Option<i64>,
    /// Default 0.
    pub min_delta: Option<f64>,
    /// Default the loss.
    pub metric: Option<Metric>,
    /// Default true.
    pub restore_best: Option<bool>,
}

/// When it is good enough, as a request brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RawStopAt {
    /// Default the loss.
    pub metric: Option<Metric>,
    /// Required.
    pub value: Option<f64>,
}

/// What a training is measured by.
pub(super) struct Measures {
    pub(super) task: Task,
    pub(super) metrics: Vec<Metric>,
    pub(super) top_k: u32,
    pub(super) early_stopping: Option<EarlyStopping>,
    pub(super) stop_at: Option<StopAt>,
}

impl RawTraining {
    pub(super) fn check_measures(
        &self,
        loss: &Loss,
        data: &TrainingData,
        architecture: &Architecture,
        faults: &mut Faults,
    ) -> Option<Measures> {
        let activation = architecture.output_layer().activation;
        let validation = data.validation.as_ref().map(|rows| &rows.targets);
        let task = task(loss, activation, &data.training.targets, validation);
        let judge = MetricJudge { task, architecture };
        let early_stopping = self.check_early_stopping(&judge, faults);
        let stop_at = self.check_stop_at(&judge, faults);
        let (units, has_probabilities) = (architecture.output_width(), activation.has_probabilities());
        let at = At::ROOT.field("metrics");
        let metrics = metric::check_metrics(&self.metrics, task, units, has_probabilities, at, faults);
        let top_k = self.check_top_k(units, faults);
        let (early_stopping, stop_at, mut metrics) = (early_stopping?, stop_at?, metrics?);
        // What is monitored is told, too.
        let monitored = early_stopping.map(|it| it.metric).into_iter().chain(stop_at.map(|it| it.metric));
        for metric in monitored.filter(|&metric| metric != Metric::Loss) {
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        Some(Measures { task, metrics, top_k: top_k?, early_stopping, stop_at })
    }

    fn check_early_stopping(&self, judge: &MetricJudge<'_>, faults: &mut Faults) -> Option<Option<EarlyStopping>> {
        let Some(raw) = self.early_stopping else { return Some(None) };
        let at = At::ROOT.field("early_stopping");
        let patience = raw.patience.unwrap_or(i64::from(limits::PATIENCE_DEFAULT));
        let patience = faults.whole(at.field("patience"), patience, 1..=i64::from(limits::PATIENCE_MAX));
        let min_delta = raw.min_delta.unwrap_or(0.0);
        let min_delta = faults.real(at.field("min_delta"), min_delta, RealRange::closed(0.0, f64::MAX));
        let metric = judge.check(raw.metric, at.field("metric"), faults);
        let restore_best = raw.restore_best.unwrap_or(true);
        Some(Some(EarlyStopping { patience: patience? as u32, min_delta: min_delta?, metric: metric?, restore_best }))
    }

    fn check_stop_at(&self, judge: &MetricJudge<'_>, faults: &mut Faults) -> Option<Option<StopAt>> {
        let Some(raw) = self.stop_at else { return Some(None) };
        let at = At::ROOT.field("stop_at");
        let metric = judge.check(raw.metric, at.field("metric"), faults);
        let Some(value) = raw.value else {
            faults.add(at.field("value"), "is required: what the metric must reach");
            return None;
        };
        let value = faults.real(at.field("value"), value, RealRange::closed(f64::MIN, f64::MAX));
        Some(Some(StopAt { metric: metric?, value: value? }))
    }

    fn check_top_k(&self, units: usize, faults: &mut Faults) -> Option<u32> {
        let Some(top_k) = self.top_k else { return Some(limits::TOP_K_DEFAULT.min(units as u32)) };
        faults.whole(At::ROOT.field("top_k"), top_k, 1..=units as i64).map(|top_k| top_k as u32)
    }
}

/// What counts as right, by the loss, the output and the targets. A sigmoid output with a loss of residuals classifies where
/// every target is 0 or 1; a caller's own loss on softmax where every target is a class or a distribution.
pub(super) fn task(loss: &Loss, activation: Activation, targets: &Targets, validation: Option<&Targets>) -> Task {
    let all = |is: fn(&Targets) -> bool| is(targets) && validation.is_none_or(is);
    match loss {
        Loss::Perceptron | Loss::Hinge | Loss::SquaredHinge => Task::Sides,
        Loss::BinaryCrossEntropy { .. } => Task::Bits,
        Loss::Focal { .. } if activation == Activation::Sigmoid => Task::Bits,
        _ if activation == Activation::Sigmoid && all(Targets::are_bits) => Task::Bits,
        _ if activation.is_over_rows() && all(Targets::are_distributions) => Task::Classes,
        _ => Task::Numbers,
    }
}

struct MetricJudge<'a> {
    task: Task,
    architecture: &'a Architecture,
}

impl MetricJudge<'_> {
    /// A metric to be monitored; the loss where none is named.
    fn check(&self, asked: Option<Metric>, at: At<'_>, faults: &mut Faults) -> Option<Metric> {
        let metric = asked.unwrap_or(Metric::Loss);
        if metric == Metric::Loss {
            return Some(metric);
        }
        let output = self.architecture.output_layer();
        let fits = metric.fits(self.task, output.units, output.activation.has_probabilities());
        fits.map_err(|message| faults.add(at, message)).ok().map(|()| metric)
    }
}
