use serde::Deserialize;

use super::*;
use crate::engine::testing::uniform;

/// What is wanted where everything is.
fn everything(task: Task, activation: Activation, units: usize, top_k: usize) -> MetricPlan {
    MetricPlan::new(task, activation, units, &Metric::ALL, top_k)
}

fn measure<T: Element>(
    plan: &MetricPlan,
    outputs: &[T],
    targets: TargetRows<'_, T>,
    mask: Option<&[T]>,
    scale: Option<&[f64]>,
) -> Metrics {
    let rows = outputs.len() / plan.units;
    let mut sums = MetricSums::new(plan, rows);
    sums.add(plan, outputs, targets, mask);
    sums.finish(plan, rows, &TargetSpread::new(targets, plan.units, mask), scale)
}

/// A case of `tests/fixtures/metrics.py`.
#[derive(Deserialize)]
struct Case {
    task: String,
    form: String,
    units: usize,
    top_k: usize,
    outputs: Vec<f64>,
    classes: Option<Vec<u32>>,
    targets: Option<Vec<f64>>,
    mask: Option<Vec<f64>>,
    scale: Option<Vec<f64>>,
    metrics: std::collections::BTreeMap<String, Option<f64>>,
}

impl Case {
    fn all() -> Vec<Self> {
        #[derive(Deserialize)]
        struct Fixture {
            cases: Vec<Case>,
        }
        serde_json::from_str::<Fixture>(include_str!("../../../tests/fixtures/metrics.json")).unwrap().cases
    }

    fn plan(&self) -> MetricPlan {
        let task = match self.task.as_str() {
            "classes" => Task::Classes,
            "bits" => Task::Bits,
            "sides" => Task::Sides,
            "numbers" => Task::Numbers,
            other => panic!("{other}"),
        };
        let activation = match self.form.as_str() {
            "softmax" => Activation::Softmax,
            "log_softmax" => Activation::LogSoftmax,
            "sigmoid" => Activation::Sigmoid,
            "identity" => Activation::Identity,
            other => panic!("{other}"),
        };
        everything(task, activation, self.units, self.top_k)
    }

    fn rows(&self) -> usize {
        self.outputs.len() / self.units
    }

    /// The targets of some rows.
    fn targets(&self, rows: std::ops::Range<usize>) -> TargetRows<'_, f64> {
        match (&self.classes, &self.targets) {
            (Some(classes), _) => TargetRows::Classes(&classes[rows]),
            (None, targets) => TargetRows::Values(self.part(targets.as_ref().unwrap(), rows)),
        }
    }

    fn part<'a>(&self, values: &'a [f64], rows: std::ops::Range<usize>) -> &'a [f64] {
        &values[rows.start * self.units..rows.end * self.units]
    }

    fn spread(&self) -> TargetSpread {
        TargetSpread::new(self.targets(0..self.rows()), self.units, self.mask.as_deref())
    }

    fn add(&self, plan: &MetricPlan, sums: &mut MetricSums, rows: std::ops::Range<usize>) {
        let mask = self.mask.as_ref().map(|mask| self.part(mask, rows.clone()));
        sums.add(plan, self.part(&self.outputs, rows.clone()), self.targets(rows), mask);
    }

    fn finish(&self, plan: &MetricPlan, sums: &mut MetricSums) -> Metrics {
        sums.finish(plan, self.rows(), &self.spread(), self.scale.as_deref())
    }
}

#[test]
fn every_metric_is_that_of_scikit_learn() {
    let mut told = std::collections::HashSet::new();
    for (index, case) in Case::all().iter().enumerate() {
        let plan = case.plan();
        let mut sums = MetricSums::new(&plan, case.rows());
        case.add(&plan, &mut sums, 0..case.rows());
        let metrics = case.finish(&plan, &mut sums);
        for metric in Metric::ALL {
            let name = metric.name();
            let Some(expected) = case.metrics.get(name) else {
                // Masks: scikit-learn has none, so not everything can be put together from its answers.
                assert!(case.mask.is_some() || metrics.get(metric).is_none(), "case {index}: {name} {metrics:?}");
                continue;
            };
            let ours = metrics.get(metric);
            let is_close = match (ours, expected) {
                (Some(ours), Some(expected)) => (ours - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                (ours, expected) => ours == *expected,
            };
            assert!(is_close, "case {index}, {}: {name} is {ours:?}, not {expected:?}", case.task);
            told.insert((case.task.clone(), name));
        }
    }
    let of = |task: &str| told.iter().filter(|(it, _)| it == task).count();
    assert_eq!(["classes", "bits", "sides", "numbers"].map(of), [14, 13, 12, 3]);
}

#[test]
fn rows_in_two_parts_saved_between_them_are_the_rows_in_one() {
    for case in Case::all() {
        let (plan, rows) = (case.plan(), case.rows());
        let mut whole = MetricSums::new(&plan, rows);
        case.add(&plan, &mut whole, 0..rows);
        let mut saved = MetricSums::new(&plan, rows);
        case.add(&plan, &mut saved, 0..rows / 2);
        let bytes = rmp_serde::to_vec_named(&saved).unwrap();
        let mut parts = MetricSums::new(&plan, rows);
        case.add(&plan, &mut parts, 0..rows);
        assert!(parts.has_shape_of(&saved));
        parts.resume(rmp_serde::from_slice(&bytes).unwrap());
        assert_eq!(parts, saved);
        case.add(&plan, &mut parts, rows / 2..rows);
        assert_eq!(parts, whole);
        assert_eq!(case.finish(&plan, &mut parts), case.finish(&plan, &mut whole));
        parts.clear();
        assert_eq!(parts, MetricSums::new(&plan, rows));
    }
}

#[test]
fn after_new_and_after_resume_nothing_is_allocated() {
    for case in Case::all() {
        let (plan, rows, spread) = (case.plan(), case.rows(), case.spread());
        let mut sums = MetricSums::new(&plan, rows);
        let mut metrics = Metrics::default();
        let mut count = |sums: &mut MetricSums, from: usize| {
            let counted = allocation_counter::measure(|| {
                case.add(&plan, sums, from..rows);
                metrics = sums.finish(&plan, rows, &spread, case.scale.as_deref());
                sums.clear();
            });
            counted.count_total
        };
        assert_eq!([count(&mut sums, 0), count(&mut sums, 0)], [0, 0]);
        let mut saved = MetricSums::new(&plan, rows);
        case.add(&plan, &mut saved, 0..rows / 2);
        sums.resume(rmp_serde::from_slice(&rmp_serde::to_vec(&saved).unwrap()).unwrap());
        assert_eq!(count(&mut sums, rows / 2), 0);
    }
}

#[test]
fn what_is_not_wanted_is_neither_kept_nor_told() {
    for case in Case::all() {
        let everything = case.plan();
        let activation = match everything.form {
            OutputForm::Raw => Activation::Identity,
            OutputForm::Probabilities => Activation::Softmax,
            OutputForm::LogProbabilities => Activation::LogSoftmax,
        };
        let mut all = MetricSums::new(&everything, case.rows());
        case.add(&everything, &mut all, 0..case.rows());
        let all_metrics = case.finish(&everything, &mut all);
        for metric in Metric::ALL {
            let plan = MetricPlan::new(everything.task, activation, case.units, &[metric], case.top_k);
            let mut sums = MetricSums::new(&plan, case.rows());
            sums.add(&plan, &case.outputs, case.targets(0..case.rows()), case.mask.as_deref());
            assert_eq!(sums.wrong_rows, all.wrong_rows);
            // Errors are one sum for all.
            assert_eq!(sums.has_shape_of(&all), plan.task == Task::Numbers && plan.wants(metric));
            let metrics = sums.finish(&plan, case.rows(), &case.spread(), case.scale.as_deref());
            for other in Metric::ALL {
                let expected = if other == metric { all_metrics.get(other) } else { None };
                assert_eq!(metrics.get(other), expected, "{metric:?} {other:?}");
            }
            assert_eq!(plan.bytes(1_000) > 0, metric == Metric::RocAuc && plan.wants(metric));
        }
    }
}

#[test]
fn a_row_is_right_where_all_its_outputs_are() {
    let wrong = |task, units, outputs: &[f64], targets| {
        measure(&everything(task, Activation::Sigmoid, units, 1), outputs, targets, None, None).misclassified_rows
    };
    let classes = TargetRows::Classes(&[1, 0]);
    assert_eq!(wrong(Task::Classes, 3, &[0.2, 0.5, 0.3, 0.4, 0.4, 0.2], classes), Some(0));
    let bits = TargetRows::Values(&[1.0, 0.0, 1.0, 1.0]);
    assert_eq!(wrong(Task::Bits, 2, &[0.5, 0.4, 0.9, 0.1], bits), Some(1));
    let sides = TargetRows::Values(&[1.0, -1.0, 1.0, -1.0]);
    assert_eq!(wrong(Task::Sides, 1, &[0.0, -0.0, 0.1, -0.1], sides), Some(2));
}

#[test]
fn of_equal_outputs_the_first_is_highest() {
    let hits = |top_k| {
        let plan = everything(Task::Classes, Activation::Softmax, 4, top_k);
        let classes = TargetRows::Classes(&[0, 1, 2, 3]);
        measure(&plan, &[0.25; 16], classes, None, None).top_k_accuracy
    };
    assert_eq!([1, 2, 3, 4].map(hits), [Some(0.25), Some(0.5), Some(0.75), Some(1.0)]);
}

/// What stands in the place of a missing target, or is said of it, does not matter.
#[test]
fn masked_targets_are_left_out_of_everything() {
    let (mask, junk) = ([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0], 1e3);
    for (task, activation, low) in [
        (Task::Bits, Activation::Sigmoid, 0.0),
        (Task::Sides, Activation::Identity, -1.0),
        (Task::Numbers, Activation::Identity, 0.0),
    ] {
        let plan = everything(task, activation, 2, 1);
        let masked = |targets: [f64; 8], outputs: [f64; 8]| {
            measure(&plan, &outputs, TargetRows::Values(&targets), Some(&mask), None)
        };
        let outputs = [0.9, 0.1, 0.6, 0.7, 0.2, 0.8, 0.3, 0.4];
        let metrics = masked([1.0, low, low, 1.0, 1.0, low, 1.0, low], outputs);
        let mut others = outputs;
        [1, 4, 5, 6].into_iter().for_each(|index| others[index] = 1.0 - outputs[index]);
        assert_eq!(metrics, masked([1.0, 1.0, low, 1.0, low, 1.0, low, low], others), "{task:?}");
        others[1] = junk;
        if task == Task::Numbers {
            assert_eq!(metrics, masked([1.0, junk, low, 1.0, junk, junk, junk, low], others));
            // By hand: |0.1|, |0.6| and |0.3|, |0.4|.
            assert!((metrics.mean_absolute_error.unwrap() - 0.35).abs() < 1e-15);
        } else {
            // Of three rows with a target, the second is wrong in its first output (0.6 against no); on sides, also the
            // fourth in its second one (0.4 against −1). The third has none.
            let wrong = if task == Task::Bits { 1 } else { 2 };
            assert_eq!(metrics.misclassified_rows, Some(wrong));
            assert_eq!(metrics.accuracy, Some((3 - wrong) as f64 / 3.0));
        }
    }
}

#[test]
fn where_every_target_is_missing_nothing_is_told_but_that_no_row_is_wrong() {
    for task in [Task::Classes, Task::Bits, Task::Sides, Task::Numbers] {
        for units in [1, 2, 3] {
            let plan = everything(task, Activation::Softmax, units, 1);
            let ones = vec![1.0; units];
            let metrics = measure(&plan, &ones, TargetRows::Values(&ones), Some(&vec![0.0; units]), None);
            let wrong = (task != Task::Numbers).then_some(0);
            assert_eq!(metrics, Metrics { misclassified_rows: wrong, ..Metrics::default() }, "{task:?}");
        }
    }
}

#[test]
fn a_class_row_with_a_missing_target_is_left_out_whole() {
    let plan = everything(Task::Classes, Activation::Softmax, 2, 1);
    let outputs = [0.9, 0.1, 0.8, 0.2, 0.3, 0.7];
    let mask = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let metrics = measure(&plan, &outputs, TargetRows::Classes(&[0, 1, 1]), Some(&mask), None);
    assert_eq!((metrics.accuracy, metrics.misclassified_rows, metrics.roc_auc), (Some(1.0), Some(0), Some(1.0)));
}

#[test]
fn classes_among_numbers_are_one_hot_rows() {
    let plan = everything(Task::Numbers, Activation::Softmax, 3, 1);
    let outputs = [0.5, 0.3, 0.2, 0.1, 0.7, 0.2, 0.6, 0.3, 0.1, 0.2, 0.2, 0.6];
    let one_hot = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0];
    let classes = TargetRows::Classes(&[0, 1, 1, 0]);
    for mask in [None, Some([1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0])] {
        let mask = mask.as_ref().map(|mask| mask.as_slice());
        let expected = measure(&plan, &outputs, TargetRows::Values(&one_hot), mask, None);
        let metrics = measure(&plan, &outputs, classes, mask, None);
        assert!((metrics.r2.unwrap() - expected.r2.unwrap()).abs() < 1e-14, "{metrics:?} {expected:?}");
        assert_eq!(Metrics { r2: expected.r2, ..metrics }, expected);
    }
}

#[test]
fn constant_targets_have_r2_one_if_hit_and_zero_if_missed() {
    let plan = everything(Task::Numbers, Activation::Identity, 1, 1);
    let r2 = |outputs: &[f64]| measure(&plan, outputs, TargetRows::Values(&vec![0.1; outputs.len()]), None, None).r2;
    assert_eq!(r2(&[0.1; 3]), Some(1.0));
    assert_eq!(r2(&[0.1, 0.1, 0.2]), Some(0.0));
    assert_eq!(r2(&[0.1]), None);
}

#[test]
fn probabilities_that_were_rounded_to_nothing_cost_the_log_of_the_type_s_epsilon() {
    fn cost<T: Element>(activation: Activation, outputs: [f64; 2], class: u32) -> f64 {
        let plan = everything(Task::Classes, activation, 2, 1);
        let outputs = outputs.map(T::from_f64);
        measure(&plan, &outputs, TargetRows::Classes(&[class]), None, None).log_loss.unwrap()
    }
    let sure = [f64::EPSILON, f64::from(f32::EPSILON)].map(|epsilon| [-epsilon.ln(), -(-epsilon).ln_1p()]);
    for (activation, outputs) in [(Activation::Softmax, [0.0, 1.0]), (Activation::LogSoftmax, [-1e4, 0.0])] {
        for class in [0, 1] {
            let costs = [cost::<f64>(activation, outputs, class), cost::<f32>(activation, outputs, class)];
            let expected = sure.map(|costs| costs[class as usize]);
            assert!(
                costs.iter().zip(expected).all(|(cost, expected)| (cost - expected).abs() <= 1e-15 * expected.max(1.0))
            );
        }
    }
}

#[test]
fn the_largest_of_a_long_row_is_the_one_that_a_plain_loop_finds() {
    let plain = |row: &[f32]| (1..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best });
    for length in (1..=LONG_MIN + 40).chain([200, 1_000]) {
        let row: Vec<f32> = uniform(length, length as u64);
        for (place, value) in [(0, f32::NAN), (length / 2, f32::NAN), (length - 1, f32::INFINITY), (0, 0.0)] {
            let mut other = row.clone();
            other[place] = value;
            // Several that are equal, and zeros of both signs, which are.
            let equal: Vec<f32> = other.iter().map(|x| (x * 2.0).round()).collect();
            let negative: Vec<f32> = equal.iter().map(|x| -x.abs()).collect();
            for row in [&row, &other, &equal, &negative] {
                assert_eq!(arg_max(row), plain(row), "{length} {place} {row:?}");
            }
        }
    }
    assert_eq!(arg_max(&[f32::NAN; 100]), 0);
    assert_eq!(arg_max(&[f32::NEG_INFINITY; 100]), 0);
}
