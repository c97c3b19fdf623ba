//! The log loss: the mean of −ln p of what is right, in nats; of several labels, the mean over them.

use serde::{Deserialize, Serialize};

use super::{MetricPlan, OutputForm, mean};
use crate::domain::{ElementType, Task};
use crate::engine::element::Element;

/// Sums over the known rows: one of all classes, or one a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LogLossSums {
    /// Σ −ln p
    sums: Vec<f64>,
    counts: Vec<u64>,
}

impl LogLossSums {
    pub(super) fn new(plan: &MetricPlan) -> Self {
        let width = if plan.task == Task::Classes { 1 } else { plan.units };
        Self { sums: vec![0.0; width], counts: vec![0; width] }
    }

    pub(super) fn clear(&mut self) {
        self.sums.fill(0.0);
        self.counts.fill(0);
    }

    pub(super) fn width(&self) -> usize {
        self.sums.len()
    }

    /// The output of the right class.
    pub(super) fn add_class<T: Element>(&mut self, form: OutputForm, output: T) {
        let loss = match form {
            OutputForm::LogProbabilities => from_log::<T>(output.to_f64()),
            OutputForm::Probabilities | OutputForm::Raw => from_probability::<T>(output.to_f64()),
        };
        self.add(0, loss);
    }

    /// The probability that a label is positive, and whether it is.
    pub(super) fn add_label<T: Element>(&mut self, unit: usize, p: T, is_positive: bool) {
        let p = p.to_f64();
        self.add(unit, from_probability::<T>(if is_positive { p } else { 1.0 - p }));
    }

    fn add(&mut self, unit: usize, loss: f64) {
        self.sums[unit] += loss;
        self.counts[unit] += 1;
    }

    /// `None` where nothing is known.
    pub(super) fn mean(&self) -> Option<f64> {
        let known = self.sums.iter().zip(&self.counts).filter(|&(_, &count)| count > 0);
        mean(known.map(|(sum, &count)| sum / count as f64))
    }
}

/// −ln p, with p between ε and 1 − ε as in scikit-learn: a probability that was rounded to 0 costs no infinity.
fn from_probability<T: Element>(p: f64) -> f64 {
    let epsilon = epsilon::<T>();
    -Element::ln(p.clamp(epsilon, 1.0 - epsilon))
}

/// The same of ln p.
fn from_log<T: Element>(log: f64) -> f64 {
    let epsilon = epsilon::<T>();
    -log.clamp(Element::ln(epsilon), Element::ln_1p(-epsilon))
}

/// The distance from 1 to the next larger number of the element type.
fn epsilon<T: Element>() -> f64 {
    match T::ELEMENT_TYPE {
        ElementType::Float32 => f64::from(f32::EPSILON),
        ElementType::Float64 => f64::EPSILON,
    }
}
