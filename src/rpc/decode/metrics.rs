//! Metrics from the wire.

use super::known;
use crate::domain::{At, Faults, Metric};
use crate::rpc::pb;

/// The metric that is meant; `Some(None)` where none is named.
pub(super) fn metric(value: i32, at: At<'_>, faults: &mut Faults) -> Option<Option<Metric>> {
    Some(match known(value, at, faults)? {
        pb::Metric::Unspecified => None,
        pb::Metric::Loss => Some(Metric::Loss),
        pb::Metric::Accuracy => Some(Metric::Accuracy),
        pb::Metric::MisclassifiedRows => Some(Metric::MisclassifiedRows),
        pb::Metric::TopKAccuracy => Some(Metric::TopKAccuracy),
        pb::Metric::Precision => Some(Metric::Precision),
        pb::Metric::Recall => Some(Metric::Recall),
        pb::Metric::F1 => Some(Metric::F1),
        pb::Metric::PrecisionMacro => Some(Metric::PrecisionMacro),
        pb::Metric::RecallMacro => Some(Metric::RecallMacro),
        pb::Metric::F1Macro => Some(Metric::F1Macro),
        pb::Metric::PrecisionWeighted => Some(Metric::PrecisionWeighted),
        pb::Metric::RecallWeighted => Some(Metric::RecallWeighted),
        pb::Metric::F1Weighted => Some(Metric::F1Weighted),
        pb::Metric::LogLoss => Some(Metric::LogLoss),
        pb::Metric::RocAuc => Some(Metric::RocAuc),
        pb::Metric::MeanAbsoluteError => Some(Metric::MeanAbsoluteError),
        pb::Metric::RootMeanSquaredError => Some(Metric::RootMeanSquaredError),
        pb::Metric::R2 => Some(Metric::R2),
    })
}

/// The metrics of a list, each of which must be named.
pub(super) fn metrics(values: &[i32], at: At<'_>, faults: &mut Faults) -> Option<Vec<Metric>> {
    let faults_before = faults.count();
    let mut metrics = Vec::with_capacity(values.len());
    for (index, &value) in values.iter().enumerate() {
        match metric(value, at.index(index), faults) {
            Some(Some(metric)) => metrics.push(metric),
            Some(None) => faults.add(at.index(index), "must name a metric"),
            None => {}
        }
    }
    (faults.count() == faults_before).then_some(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_number() {
        let mut faults = Faults::new();
        // The numbers of the contract are those of the domain's order, from 1.
        let numbers: Vec<i32> = (1..=Metric::ALL.len() as i32).collect();
        assert_eq!(metrics(&numbers, At::ROOT.field("metrics"), &mut faults), Some(Metric::ALL.to_vec()));
        assert_eq!(metric(0, At::ROOT, &mut faults), Some(None));
        assert!(faults.is_empty());
    }

    #[test]
    fn an_element_without_a_name_is_a_fault() {
        let mut faults = Faults::new();
        assert_eq!(metrics(&[2, 0, 99], At::ROOT.field("metrics"), &mut faults), None);
        let paths: Vec<&str> = faults.as_slice().iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["metrics[1]", "metrics[2]"]);
    }
}
