//! What can be told of a network's answers, beside the loss. Definitions are those of scikit-learn.

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults};

/// What counts as right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// One class a row: the largest output (the first of several) is the right class's.
    Classes,
    /// A yes or no an output: at least ½ where the target is 1, less where it is 0. A row is right where all its
    /// outputs are.
    Bits,
    /// A side of a plane an output: y·z > 0. A row is right where all its outputs are.
    Sides,
    /// Numbers: the nearer the better.
    Numbers,
}

/// One number that tells how well a network did on some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// The loss. Always told; only to be monitored.
    Loss,
    /// Share of rows classified rightly.
    Accuracy,
    /// Rows classified wrongly.
    MisclassifiedRows,
    /// Share of rows whose class is among the k highest outputs.
    TopKAccuracy,
    /// Of the rows said to be of class 1, the share that is.
    Precision,
    /// Of the rows of class 1, the share said to be.
    Recall,
    /// Harmonic mean of precision and recall.
    F1,
    /// Mean of the precisions of the classes, or labels, that there are.
    PrecisionMacro,
    /// Mean of the recalls of the classes, or labels, that there are.
    RecallMacro,
    /// Mean of the F1 of the classes, or labels, that there are.
    F1Macro,
    /// Mean of the precisions of the classes, or labels, weighted by the rows of each.
    PrecisionWeighted,
    /// Mean of the recalls of the classes, or labels, weighted by the rows of each.
    RecallWeighted,
    /// Mean of the F1 of the classes, or labels, weighted by the rows of each.
    F1Weighted,
    /// Mean of −ln p of what is right.
    LogLoss,
    /// Area under the receiver operating characteristic.
    RocAuc,
    /// Mean absolute error, in the targets' own unit.
    MeanAbsoluteError,
    /// Root of the mean squared error, in the targets' own unit.
    RootMeanSquaredError,
    /// Coefficient of determination.
    R2,
}

impl Metric {
    /// Every metric, in the order of the contract.
    pub const ALL: [Self; 18] = [
        Self::Loss,
        Self::Accuracy,
        Self::MisclassifiedRows,
        Self::TopKAccuracy,
        Self::Precision,
        Self::Recall,
        Self::F1,
        Self::PrecisionMacro,
        Self::RecallMacro,
        Self::F1Macro,
        Self::PrecisionWeighted,
        Self::RecallWeighted,
        Self::F1Weighted,
        Self::LogLoss,
        Self::RocAuc,
        Self::MeanAbsoluteError,
        Self::RootMeanSquaredError,
        Self::R2,
    ];

    /// Its name in the contract, without the prefix and in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
            Self::MisclassifiedRows => "misclassified_rows",
            Self::TopKAccuracy => "top_k_accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::PrecisionMacro => "precision_macro",
            Self::RecallMacro => "recall_macro",
            Self::F1Macro => "f1_macro",
            Self::PrecisionWeighted => "precision_weighted",
            Self::RecallWeighted => "recall_weighted",
            Self::F1Weighted => "f1_weighted",
            Self::LogLoss => "log_loss",
            Self::RocAuc => "roc_auc",
            Self::MeanAbsoluteError => "mean_absolute_error",
            Self::RootMeanSquaredError => "root_mean_squared_error",
            Self::R2 => "r2",
        }
    }

    /// Whether less of it is better.
    pub fn lower_is_better(self) -> bool {
        match self {
            Self::Loss
            | Self::MisclassifiedRows
            | Self::LogLoss
            | Self::MeanAbsoluteError
            | Self::RootMeanSquaredError => true,
            Self::Accuracy
            | Self::TopKAccuracy
            | Self::Precision
            | Self::Recall
            | Self::F1
            | Self::PrecisionMacro
            | Self::RecallMacro
            | Self::F1Macro
            | Self::PrecisionWeighted
            | Self::RecallWeighted
            | Self::F1Weighted
            | Self::RocAuc
            | Self::R2 => false,
        }
    }

    /// What is told where nothing is asked for.
    pub fn defaults(task: Task) -> &'static [Self] {
        match task {
            Task::Classes | Task::Bits | Task::Sides => &[Self::Accuracy, Self::MisclassifiedRows],
            Task::Numbers => &[Self::MeanAbsoluteError, Self::R2],
        }
    }

    /// Whether it has a meaning for `units` outputs of a task, which are probabilities (or their logarithms) or are
    /// not. The error is a sentence that names what has one. The loss always has.
    pub fn fits(self, task: Task, units: usize, has_probabilities: bool) -> Result<(), String> {
        if self.has_meaning(task, units, has_probabilities) {
            return Ok(());
        }
        let fitting = Self::ALL.into_iter().filter(|&it| it != Self::Loss);
        let fitting = fitting.filter(|it| it.has_meaning(task, units, has_probabilities)).map(Self::name);
        let outputs = match (task, units) {
            (Task::Classes, _) => format!("{units} classes"),
            (Task::Bits | Task::Sides, 1) => "one output of two classes".to_owned(),
            (Task::Bits | Task::Sides, _) => format!("{units} labels"),
            (Task::Numbers, _) => "outputs that are numbers".to_owned(),
        };
        let fitting = fitting.collect::<Vec<_>>().join(", ");
        Err(format!("{} has no meaning for {outputs} of this network: choose from {fitting}", self.name()))
    }

    fn has_meaning(self, task: Task, units: usize, has_probabilities: bool) -> bool {
        match self {
            Self::Loss => true,
            Self::Accuracy
            | Self::MisclassifiedRows
            | Self::PrecisionMacro
            | Self::RecallMacro
            | Self::F1Macro
            | Self::PrecisionWeighted
            | Self::RecallWeighted
            | Self::F1Weighted
            | Self::RocAuc => task != Task::Numbers,
            Self::TopKAccuracy => task == Task::Classes,
            Self::Precision | Self::Recall | Self::F1 => match task {
                Task::Classes => units == 2,
                Task::Bits | Task::Sides => units == 1,
                Task::Numbers => false,
            },
            Self::LogLoss => has_probabilities && matches!(task, Task::Classes | Task::Bits),
            Self::MeanAbsoluteError | Self::RootMeanSquaredError | Self::R2 => task == Task::Numbers,
        }
    }
}

/// Checks the metrics that a training asks for, each once however often it is named; the defaults where it asks for
/// none.
pub fn check_metrics(
    asked: &[Metric],
    task: Task,
    units: usize,
    has_probabilities: bool,
    at: At<'_>,
    faults: &mut Faults,
) -> Option<Vec<Metric>> {
    if asked.is_empty() {
        return Some(Metric::defaults(task).to_vec());
    }
    let mut metrics = Vec::new();
    let faults_before = faults.count();
    for (index, &metric) in asked.iter().enumerate() {
        let at = at.index(index);
        match metric.fits(task, units, has_probabilities) {
            _ if metric == Metric::Loss => faults.add(at, "loss is always told: leave it out"),
            Err(message) => faults.add(at, message),
            Ok(()) if metrics.contains(&metric) => {}
            Ok(()) => metrics.push(metric),
        }
    }
    (faults.count() == faults_before).then_some(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: &[Metric], task: Task, units: usize, has_probabilities: bool) -> Result<Vec<Metric>, Faults> {
        let mut faults = Faults::new();
        let metrics = check_metrics(asked, task, units, has_probabilities, At::ROOT.field("metrics"), &mut faults);
        faults.finish(metrics)
    }

    #[test]
    fn a_name_is_that_of_the_variant_in_snake_case() {
        for metric in Metric::ALL {
            let letters = metric.name().replace('_', "");
            assert_eq!(letters, format!("{metric:?}").to_lowercase());
        }
    }

    #[test]
    fn asking_for_nothing_gives_the_defaults() {
        assert_eq!(check(&[], Task::Bits, 3, true).unwrap(), [Metric::Accuracy, Metric::MisclassifiedRows]);
        assert_eq!(check(&[], Task::Numbers, 1, false).unwrap(), [Metric::MeanAbsoluteError, Metric::R2]);
    }

    #[test]
    fn a_metric_named_twice_is_told_once() {
        let asked = [Metric::RocAuc, Metric::F1, Metric::RocAuc];
        assert_eq!(check(&asked, Task::Sides, 1, false).unwrap(), [Metric::RocAuc, Metric::F1]);
    }

    #[test]
    fn each_metric_that_does_not_fit_is_told_with_those_that_do() {
        let faults = check(&[Metric::R2, Metric::Loss, Metric::MeanAbsoluteError, Metric::F1], Task::Numbers, 2, false);
        assert_eq!(
            faults.unwrap_err().to_string(),
            "metrics[1]: loss is always told: leave it out; metrics[3]: f1 has no \
            meaning for outputs that are numbers of this network: choose from mean_absolute_error, \
            root_mean_squared_error, r2"
        );
    }

    #[test]
    fn what_is_of_two_classes_takes_no_more() {
        for (task, units, fits) in [
            (Task::Classes, 2, true),
            (Task::Classes, 3, false),
            (Task::Bits, 1, true),
            (Task::Bits, 2, false),
            (Task::Sides, 1, true),
            (Task::Sides, 2, false),
        ] {
            assert_eq!(check(&[Metric::Recall], task, units, false).is_ok(), fits, "{task:?} {units}");
            assert!(check(&[Metric::RecallMacro], task, units, false).is_ok(), "{task:?} {units}");
        }
        assert!(Metric::TopKAccuracy.fits(Task::Bits, 4, true).is_err());
    }

    #[test]
    fn the_log_loss_needs_probabilities() {
        assert!(Metric::LogLoss.fits(Task::Classes, 3, true).is_ok());
        assert!(Metric::LogLoss.fits(Task::Bits, 1, false).is_err());
        assert!(Metric::LogLoss.fits(Task::Sides, 1, true).is_err());
    }
}
