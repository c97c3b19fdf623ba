//! Losses: value beside gradient, the formula above both.
//!
//! A loss is fused with the last activation: it starts from the last layer's pre-activations z and gives the gradient with
//! respect to them, since −ln σ(z) has all its digits where ln of a rounded probability has none.

use super::activation::{activate, multiply_by_derivative, sigmoid, sign, softmax};
use super::element::Element;
use crate::domain::{Activation, Architecture, Layer, Loss, Reduction};

/// What some rows should have given: one entry a row.
#[derive(Clone, Copy, Debug)]
pub enum TargetRows<'a, T> {
    /// The index of the right class of each row.
    Classes(&'a [u32]),
    /// A value an output, `[rows, units]`.
    Values(&'a [T]),
}

/// What is minimized: a loss on the outputs of a last layer.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    loss: Loss,
    activation: Activation,
    units: usize,
    reduction: Reduction,
}

impl Objective {
    /// A loss that fits the network's last activation (see [`Loss::fitting`]).
    pub fn new(architecture: &Architecture, loss: Loss, reduction: Reduction) -> Self {
        let Layer { units, activation, .. } = architecture.output_layer();
        Self { loss, activation, units, reduction }
    }

    /// The loss.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// The last activation.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Outputs of the network.
    pub fn units(&self) -> usize {
        self.units
    }

    /// What the sum of the losses of `rows` rows is divided by in a training step and in ComputeGradients: with `mean`,
    /// rows × outputs for element-wise losses and rows for row losses (those on softmax); with `sum`, 1.
    pub fn divisor(&self, rows: usize) -> f64 {
        match self.reduction {
            Reduction::Mean => self.report_divisor(rows),
            Reduction::Sum => 1.0,
        }
    }

    /// What the sum of the losses of an epoch's `rows` rows is divided by in its report, always a mean over rows: with
    /// `mean` as [`divisor`](Self::divisor); with `sum`, rows alone, since a row's loss is then its textbook sum over
    /// outputs. So reports of the same data compare whatever the number of rows or the batch size.
    pub fn report_divisor(&self, rows: usize) -> f64 {
        let outputs = match (self.reduction, self.activation) {
            (Reduction::Sum, _) | (_, Activation::Softmax) => 1,
            (Reduction::Mean, _) => self.units,
        };
        rows as f64 * outputs as f64
    }

    /// The sum, not divided yet, of the losses of some rows; and the gradient of `scale` times it.
    ///
    /// - `outputs`, `[rows, units]`: on entry z, on return what the network predicts, f(z); but z still for the perceptron
    ///   criterion, which judges by it.
    /// - `gradient`, `[rows, units]`: on return scale · ∂Σ/∂z.
    ///
    /// # Panics
    /// Where targets are not of the kind that the loss takes: `Targets::check` gives it the right one.
    pub fn evaluate<T: Element>(
        &self,
        targets: TargetRows<'_, T>,
        scale: T,
        outputs: &mut [T],
        gradient: &mut [T],
    ) -> f64 {
        match (self.loss, targets) {
            (Loss::SquaredError, targets) => {
                activate(self.activation, self.units, outputs);
                subtract_targets(outputs, targets, self.units, gradient);
                let sum = squared_error(scale, gradient);
                multiply_by_derivative(self.activation, self.units, outputs, gradient);
                sum
            }
            (Loss::AbsoluteError | Loss::Huber { .. } | Loss::LogCosh, targets) => {
                activate(self.activation, self.units, outputs);
                subtract_targets(outputs, targets, self.units, gradient);
                let sum = match self.loss {
                    Loss::Huber { delta } => huber(T::from_f64(delta), scale, gradient),
                    Loss::LogCosh => log_cosh(scale, gradient),
                    _ => absolute_error(scale, gradient),
                };
                multiply_by_derivative(self.activation, self.units, outputs, gradient);
                sum
            }
            (Loss::BinaryCrossEntropy, TargetRows::Values(targets)) => {
                binary_cross_entropy(targets, scale, outputs, gradient)
            }
            (Loss::SoftmaxCrossEntropy, TargetRows::Classes(classes)) => {
                softmax_cross_entropy(classes, self.units, scale, outputs, gradient)
            }
            (Loss::Perceptron, TargetRows::Values(targets)) => perceptron(targets, scale, outputs, gradient),
            (Loss::BinaryCrossEntropy | Loss::Perceptron, TargetRows::Classes(_))
            | (Loss::SoftmaxCrossEntropy, TargetRows::Values(_)) => {
                panic!("{} with targets of another kind", self.loss.name())
            }
        }
    }
}

/// ŷ − y; y is 1 for the right class and 0 for the others.
fn subtract_targets<T: Element>(outputs: &[T], targets: TargetRows<'_, T>, units: usize, residuals: &mut [T]) {
    match targets {
        TargetRows::Values(targets) => {
            let pairs = outputs.iter().zip(targets);
            residuals.iter_mut().zip(pairs).for_each(|(residual, (&output, &target))| *residual = output - target);
        }
        TargetRows::Classes(classes) => {
            residuals.copy_from_slice(outputs);
            for (row, &class) in residuals.chunks_exact_mut(units).zip(classes) {
                row[class as usize] -= T::ONE;
            }
        }
    }
}

/// Σ (ŷ − y)², without ½, over the residuals ŷ − y.
/// Gradient with respect to ŷ, in their place: 2·(ŷ − y)
fn squared_error<T: Element>(scale: T, residuals: &mut [T]) -> f64 {
    let mut sum = 0.0;
    for residual in residuals {
        sum += (*residual * *residual).to_f64();
        *residual = (T::TWO * *residual * scale).flush();
    }
    sum
}

/// Σ |ŷ − y| over the residuals ŷ − y.
/// Gradient with respect to ŷ, in their place: the sign of ŷ − y, 0 at 0
fn absolute_error<T: Element>(scale: T, residuals: &mut [T]) -> f64 {
    let mut sum = 0.0;
    for residual in residuals {
        sum += residual.abs().to_f64();
        *residual = sign(*residual) * scale;
    }
    sum
}

/// Σ ½·r² where |r| ≤ δ, else δ·(|r| − ½·δ), over the residuals r = ŷ − y.
/// Gradient with respect to ŷ, in their place: r where |r| ≤ δ, else δ·sign(r)
fn huber<T: Element>(delta: T, scale: T, residuals: &mut [T]) -> f64 {
    let half = T::ONE / T::TWO;
    let mut sum = 0.0;
    for residual in residuals {
        let r = *residual;
        let (loss, slope) =
            if r.abs() <= delta { (half * r * r, r) } else { (delta * (r.abs() - half * delta), delta * sign(r)) };
        sum += loss.to_f64();
        *residual = (slope * scale).flush();
    }
    sum
}

/// Σ ln cosh r over the residuals r = ŷ − y, as |r| + ln(1 + e^−2|r|) − ln 2, which does not overflow.
/// Gradient with respect to ŷ, in their place: tanh r
fn log_cosh<T: Element>(scale: T, residuals: &mut [T]) -> f64 {
    let mut sum = 0.0;
    for residual in residuals {
        let r = residual.abs();
        sum += (r + (-T::TWO * r).exp().ln_1p()).to_f64() - std::f64::consts::LN_2;
        *residual = (residual.tanh() * scale).flush();
    }
    sum
}

/// Σ −y·ln p − (1 − y)·ln(1 − p) with p = σ(z), as max(z, 0) − y·z + ln(1 + e^−|z|).
/// Gradient: p − y
fn binary_cross_entropy<T: Element>(targets: &[T], scale: T, outputs: &mut [T], gradient: &mut [T]) -> f64 {
    let mut sum = 0.0;
    for ((z, &y), g) in outputs.iter_mut().zip(targets).zip(gradient) {
        let positive_part = if *z > T::ZERO { *z } else { T::ZERO };
        sum += (positive_part - y * *z + (-z.abs()).exp().ln_1p()).to_f64();
        let p = sigmoid(*z);
        // 1 − σ(z) is σ(−z), which keeps its digits where p rounds to 1.
        *g = (scale * if y == T::ONE { -sigmoid(-*z) } else { p - y }).flush();
        *z = p;
    }
    sum
}

/// Σ over rows of −ln p of the right class c with p = softmax(z), as ln Σ e^z − z of c.
/// Gradient: pⱼ − 1 for j = c, else pⱼ
fn softmax_cross_entropy<T: Element>(
    classes: &[u32],
    units: usize,
    scale: T,
    outputs: &mut [T],
    gradient: &mut [T],
) -> f64 {
    let mut sum = 0.0;
    let rows = outputs.chunks_exact_mut(units).zip(gradient.chunks_exact_mut(units));
    for ((row, gradient), &class) in rows.zip(classes) {
        let class = class as usize;
        let right = row[class];
        let (largest, log_sum) = softmax(row);
        sum += ((largest - right) + log_sum).to_f64();
        gradient.iter_mut().zip(row.iter()).for_each(|(g, &p)| *g = (scale * p).flush());
        gradient[class] = (scale * (row[class] - T::ONE)).flush();
    }
    sum
}

/// Σ over M = {outputs with y·z ≤ 0} of −y·z, y being −1 or 1. z = 0 is in M: sign(0) = 0 is neither class.
/// Gradient: −y in M, else 0
fn perceptron<T: Element>(targets: &[T], scale: T, outputs: &mut [T], gradient: &mut [T]) -> f64 {
    let mut sum = 0.0;
    for ((&z, &y), g) in outputs.iter().zip(targets).zip(gradient) {
        // Written so that a NaN is in the sum, and is seen.
        let is_right = y * z > T::ZERO;
        sum += if is_right { 0.0 } else { (-y * z).to_f64() };
        *g = if is_right { T::ZERO } else { -y * scale };
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ElementType;
    use crate::engine::testing::{ACTIVATIONS, LOSSES, network};

    fn objective(activation: Activation, units: usize, loss: Loss, reduction: Reduction) -> Objective {
        Objective::new(&network(ElementType::Float64, 1, &[(units, activation)]), loss, reduction)
    }

    fn evaluate(objective: Objective, targets: TargetRows<'_, f64>, z: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let (mut outputs, mut gradient) = (z.to_vec(), vec![0.0; z.len()]);
        let sum = objective.evaluate(targets, 1.0, &mut outputs, &mut gradient);
        (sum, outputs, gradient)
    }

    #[test]
    fn fused_values_are_those_of_the_naive_formulas() {
        let (z, y) = ([0.3, -1.2, 2.0, -0.5], [1.0, 0.0, 0.0, 1.0]);
        let sigmoids = objective(Activation::Sigmoid, 2, Loss::BinaryCrossEntropy, Reduction::Mean);
        let naive = |z: f64, y: f64| {
            let p = 1.0 / (1.0 + (-z).exp());
            -y * p.ln() - (1.0 - y) * (1.0 - p).ln()
        };
        let expected: f64 = z.iter().zip(y).map(|(&z, y)| naive(z, y)).sum();
        assert!((evaluate(sigmoids, TargetRows::Values(&y), &z).0 - expected).abs() < 1e-14);

        let softmax = objective(Activation::Softmax, 2, Loss::SoftmaxCrossEntropy, Reduction::Mean);
        let naive = |a: f64, b: f64| -(a.exp() / (a.exp() + b.exp())).ln();
        let expected = naive(z[1], z[0]) + naive(z[2], z[3]);
        assert!((evaluate(softmax, TargetRows::Classes(&[1, 0]), &z).0 - expected).abs() < 1e-14);

        let squared = objective(Activation::Identity, 2, Loss::SquaredError, Reduction::Sum);
        let expected: f64 = z.iter().zip(y).map(|(z, y)| (y - z) * (y - z)).sum();
        assert_eq!(evaluate(squared, TargetRows::Values(&y), &z).0, expected);

        let sign = objective(Activation::Sign, 2, Loss::Perceptron, Reduction::Sum);
        let result = evaluate(sign, TargetRows::Values(&[1.0, 1.0, -1.0, -1.0]), &z);
        assert_eq!(result, (1.2 + 2.0, z.to_vec(), vec![0.0, -1.0, 1.0, 0.0]));
    }

    /// By hand, from the residuals −0.7, −1.2, 2 and −1.5: Σ|r| = 5.4, 0.6·(5.4 − 4·0.3) = 2.52, ½·Σr² = 4.09.
    #[test]
    fn losses_of_residuals_are_those_worked_out_by_hand() {
        let (z, y) = ([0.3, -1.2, 2.0, -0.5], [1.0, 0.0, 0.0, 1.0]);
        let log_cosh = [0.7, 1.2, 2.0, 1.5].iter().map(|r: &f64| r.cosh().ln()).sum::<f64>();
        for (loss, expected, slopes) in [
            (Loss::AbsoluteError, 5.4, [-1.0, -1.0, 1.0, -1.0]),
            (Loss::Huber { delta: 0.6 }, 2.52, [-0.6, -0.6, 0.6, -0.6]),
            (Loss::Huber { delta: 3.0 }, 4.09, [-0.7, -1.2, 2.0, -1.5]),
            (Loss::LogCosh, log_cosh, [-0.7, -1.2, 2.0, -1.5].map(f64::tanh)),
        ] {
            let objective = objective(Activation::Identity, 2, loss, Reduction::Sum);
            let (sum, _, gradient) = evaluate(objective, TargetRows::Values(&y), &z);
            assert!((sum - expected).abs() < 1e-14, "{loss:?}: {sum}");
            assert!(gradient.iter().zip(slopes).all(|(g, slope)| (g - slope).abs() < 1e-15), "{loss:?}: {gradient:?}");
        }
    }

    #[test]
    fn softmax_of_two_is_one_sigmoid_of_the_difference() {
        let softmax = objective(Activation::Softmax, 2, Loss::SoftmaxCrossEntropy, Reduction::Mean);
        let sigmoid = objective(Activation::Sigmoid, 1, Loss::BinaryCrossEntropy, Reduction::Mean);
        for (a, b, class) in [(0.2, -0.7, 0), (3.0, 9.0, 0), (-2.0, 2.5, 1)] {
            let (loss, p, gradient) = evaluate(softmax, TargetRows::Classes(&[class]), &[a, b]);
            let target = [f64::from(class)];
            let (expected, q, slope) = evaluate(sigmoid, TargetRows::Values(&target), &[b - a]);
            assert!((loss - expected).abs() < 1e-14 && (p[1] - q[0]).abs() < 1e-15);
            assert!((gradient[1] - slope[0]).abs() < 1e-15 && (gradient[0] + slope[0]).abs() < 1e-15);
        }
    }

    #[test]
    fn a_wrong_row_at_zero_is_in_the_perceptron_s_sum_and_a_right_one_is_not() {
        let sign = objective(Activation::Sign, 1, Loss::Perceptron, Reduction::Sum);
        let (loss, _, gradient) = evaluate(sign, TargetRows::Values(&[1.0, -1.0]), &[0.0, -0.0]);
        assert_eq!((loss, gradient), (0.0, vec![-1.0, 1.0]));
    }

    #[test]
    fn huge_logits_give_finite_losses_and_gradients() {
        // But for e^z, which is infinite there.
        for activation in ACTIVATIONS.into_iter().filter(|&it| it != Activation::Exponential) {
            for &loss in Loss::fitting(activation) {
                let objective = objective(activation, 2, loss, Reduction::Mean);
                let y = if loss == Loss::Perceptron { [-1.0, 1.0] } else { [0.0, 1.0] };
                let values = TargetRows::Values(&y);
                let targets = if activation == Activation::Softmax { TargetRows::Classes(&[0]) } else { values };
                for z in [[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [0.0, 0.0]] {
                    let (sum, outputs, gradient) = evaluate(objective, targets, &z);
                    let all = [sum].into_iter().chain(outputs).chain(gradient);
                    assert!(all.into_iter().all(f64::is_finite), "{activation} {loss:?} {z:?}");
                }
            }
        }
    }

    #[test]
    fn means_divide_by_what_the_loss_counts() {
        let divisors = |activation, loss, reduction| {
            let objective = objective(activation, 3, loss, reduction);
            (objective.divisor(10), objective.report_divisor(10))
        };
        use Reduction::{Mean, Sum};
        assert_eq!(divisors(Activation::Tanh, Loss::SquaredError, Mean), (30.0, 30.0));
        assert_eq!(divisors(Activation::Softmax, Loss::SquaredError, Mean), (10.0, 10.0));
        assert_eq!(divisors(Activation::Softmax, Loss::SoftmaxCrossEntropy, Mean), (10.0, 10.0));
        assert_eq!(divisors(Activation::Tanh, Loss::SquaredError, Sum), (1.0, 10.0));
        assert_eq!(divisors(Activation::Sigmoid, Loss::BinaryCrossEntropy, Mean), (30.0, 30.0));
    }

    #[test]
    fn every_loss_fits_some_output() {
        for loss in LOSSES {
            assert!(ACTIVATIONS.iter().any(|&activation| Loss::fitting(activation).contains(&loss)), "{loss:?}");
        }
    }
}
