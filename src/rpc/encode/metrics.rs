//! Metrics to the wire.

use crate::domain::{LayerDiagnostics, Metric, Metrics};
use crate::rpc::pb;

/// How well a network did.
pub(super) fn metrics(metrics: &Metrics) -> pb::Metrics {
    pb::Metrics {
        accuracy: metrics.accuracy,
        misclassified_rows: metrics.misclassified_rows.map(|rows| rows as i32),
        mean_absolute_error: metrics.mean_absolute_error,
        r2: metrics.r2,
        top_k_accuracy: metrics.top_k_accuracy,
        precision: metrics.precision,
        recall: metrics.recall,
        f1: metrics.f1,
        precision_macro: metrics.precision_macro,
        recall_macro: metrics.recall_macro,
        f1_macro: metrics.f1_macro,
        precision_weighted: metrics.precision_weighted,
        recall_weighted: metrics.recall_weighted,
        f1_weighted: metrics.f1_weighted,
        log_loss: metrics.log_loss,
        roc_auc: metrics.roc_auc,
        root_mean_squared_error: metrics.root_mean_squared_error,
    }
}

/// Which metric is meant.
pub(super) fn metric(metric: Metric) -> pb::Metric {
    match metric {
        Metric::Loss => pb::Metric::Loss,
        Metric::Accuracy => pb::Metric::Accuracy,
        Metric::MisclassifiedRows => pb::Metric::MisclassifiedRows,
        Metric::TopKAccuracy => pb::Metric::TopKAccuracy,
        Metric::Precision => pb::Metric::Precision,
        Metric::Recall => pb::Metric::Recall,
        Metric::F1 => pb::Metric::F1,
        Metric::PrecisionMacro => pb::Metric::PrecisionMacro,
        Metric::RecallMacro => pb::Metric::RecallMacro,
        Metric::F1Macro => pb::Metric::F1Macro,
        Metric::PrecisionWeighted => pb::Metric::PrecisionWeighted,
        Metric::RecallWeighted => pb::Metric::RecallWeighted,
        Metric::F1Weighted => pb::Metric::F1Weighted,
        Metric::LogLoss => pb::Metric::LogLoss,
        Metric::RocAuc => pb::Metric::RocAuc,
        Metric::MeanAbsoluteError => pb::Metric::MeanAbsoluteError,
        Metric::RootMeanSquaredError => pb::Metric::RootMeanSquaredError,
        Metric::R2 => pb::Metric::R2,
    }
}

/// What the layers went through.
pub(super) fn diagnostics(layers: &[LayerDiagnostics]) -> Vec<pb::LayerDiagnostics> {
    let layer = |&LayerDiagnostics { gradient_norm, weight_norm, update_ratio, dead_units }: &LayerDiagnostics| {
        pb::LayerDiagnostics { gradient_norm, weight_norm, update_ratio, dead_units }
    };
    layers.iter().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_called_on_the_wire_as_the_domain_calls_it() {
        for it in Metric::ALL {
            assert_eq!(metric(it).as_str_name(), format!("METRIC_{}", it.name().to_uppercase()));
        }
    }
}
