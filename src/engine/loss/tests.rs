use super::*;
use crate::domain::{ElementType, Expression};
use crate::engine::testing::{ACTIVATIONS, losses, losses_of, network};

fn objective(activation: Activation, units: usize, loss: Loss, reduction: Reduction) -> Objective {
    Objective::new(&network(ElementType::Float64, 1, &[(units, activation)]), &loss, reduction)
}

fn evaluate(objective: &Objective, targets: TargetRows<'_, f64>, z: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
    evaluate_weighted(objective, targets, z, None, None)
}

fn evaluate_weighted(
    objective: &Objective,
    targets: TargetRows<'_, f64>,
    z: &[f64],
    weights: Option<&[f64]>,
    mask: Option<&[f64]>,
) -> (f64, Vec<f64>, Vec<f64>) {
    let (mut outputs, mut gradient, mut kept) = (z.to_vec(), vec![0.0; z.len()], vec![0.0; z.len()]);
    let mut batch = LossBatch {
        targets,
        weights,
        mask,
        outputs: &mut outputs,
        pre_activations: &mut kept,
        gradient: &mut gradient,
        scratch: &mut objective.scratch(z.len() / objective.units()),
    };
    let sum = objective.evaluate(1.0, &mut batch);
    (sum, outputs, gradient)
}

fn bce() -> Loss {
    Loss::BinaryCrossEntropy { positive_weights: Vec::new() }
}

fn cross_entropy(label_smoothing: f64) -> Loss {
    Loss::SoftmaxCrossEntropy { label_smoothing }
}

fn custom(text: &str) -> Loss {
    Loss::Custom { expression: Expression::parse(text).unwrap() }
}

#[test]
fn fused_values_are_those_of_the_naive_formulas() {
    let (z, y) = ([0.3, -1.2, 2.0, -0.5], [1.0, 0.0, 0.0, 1.0]);
    let sigmoids = objective(Activation::Sigmoid, 2, bce(), Reduction::Mean);
    let naive = |z: f64, y: f64| {
        let p = 1.0 / (1.0 + (-z).exp());
        -y * p.ln() - (1.0 - y) * (1.0 - p).ln()
    };
    let expected: f64 = z.iter().zip(y).map(|(&z, y)| naive(z, y)).sum();
    assert!((evaluate(&sigmoids, TargetRows::Values(&y), &z).0 - expected).abs() < 1e-14);

    let softmax = objective(Activation::Softmax, 2, cross_entropy(0.0), Reduction::Mean);
    let naive = |a: f64, b: f64| -(a.exp() / (a.exp() + b.exp())).ln();
    let expected = naive(z[1], z[0]) + naive(z[2], z[3]);
    assert!((evaluate(&softmax, TargetRows::Classes(&[1, 0]), &z).0 - expected).abs() < 1e-14);

    let squared = objective(Activation::Identity, 2, Loss::SquaredError, Reduction::Sum);
    let expected: f64 = z.iter().zip(y).map(|(z, y)| (y - z) * (y - z)).sum();
    assert_eq!(evaluate(&squared, TargetRows::Values(&y), &z).0, expected);

    let sign = objective(Activation::Sign, 2, Loss::Perceptron, Reduction::Sum);
    let result = evaluate(&sign, TargetRows::Values(&[1.0, 1.0, -1.0, -1.0]), &z);
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
        let objective = objective(Activation::Identity, 2, loss.clone(), Reduction::Sum);
        let (sum, _, gradient) = evaluate(&objective, TargetRows::Values(&y), &z);
        assert!((sum - expected).abs() < 1e-14, "{loss:?}: {sum}");
        assert!(gradient.iter().zip(slopes).all(|(g, slope)| (g - slope).abs() < 1e-15), "{loss:?}: {gradient:?}");
    }
}

/// From 40 digits: `log(cosh(0.0099))`, which the terms of r² and r⁴ alone miss by 4e-10 of it.
#[test]
fn log_cosh_of_a_small_residual_has_its_digits() {
    let objective = objective(Activation::Identity, 1, Loss::LogCosh, Reduction::Sum);
    let (loss, _, _) = evaluate(&objective, TargetRows::Values(&[0.0]), &[0.0099]);
    assert!((loss / 4.900_419_952_424_615e-5 - 1.0).abs() < 1e-12, "{loss:e}");
}

#[test]
fn residuals_of_zero_have_no_derivative() {
    for loss in [Loss::AbsoluteError, Loss::Huber { delta: 0.6 }, Loss::LogCosh, Loss::Quantile { q: 0.3 }] {
        let objective = objective(Activation::Identity, 1, loss.clone(), Reduction::Sum);
        let (sum, _, gradient) = evaluate(&objective, TargetRows::Values(&[0.5]), &[0.5]);
        assert_eq!((sum, gradient), (0.0, vec![0.0]), "{loss:?}");
    }
}

#[test]
fn at_the_margin_hinge_has_no_derivative() {
    let objective = objective(Activation::Identity, 1, Loss::Hinge, Reduction::Sum);
    let (loss, _, gradient) = evaluate(&objective, TargetRows::Values(&[-1.0]), &[-1.0]);
    assert_eq!((loss, gradient), (0.0, vec![0.0]));
}

/// The terms without the mean, which no derivative shows, are there for that.
#[test]
fn a_deviance_is_zero_where_the_mean_is_met() {
    let y = 2.5_f64;
    for loss in [Loss::GammaDeviance, Loss::TweedieDeviance { power: 1.3 }] {
        for (activation, z) in [(Activation::Identity, y.ln()), (Activation::Softplus, y.exp_m1().ln())] {
            let objective = objective(activation, 1, loss.clone(), Reduction::Sum);
            let (sum, _, gradient) = evaluate(&objective, TargetRows::Values(&[y]), &[z]);
            assert!(sum.abs() < 1e-13 && gradient[0].abs() < 1e-13, "{loss:?} {activation}: {sum} {gradient:?}");
        }
    }
}

/// Σ over classes of p·Σq − q, whatever the q of a row add up to.
#[test]
fn the_derivatives_of_a_row_of_logits_add_up_to_zero() {
    let objective = objective(Activation::Softmax, 3, cross_entropy(0.0), Reduction::Sum);
    let (_, _, gradient) = evaluate(&objective, TargetRows::Values(&[0.2, 0.4, 0.1]), &[0.3, -1.2, 2.0]);
    assert!(gradient.iter().sum::<f64>().abs() < 1e-15, "{gradient:?}");
}

#[test]
fn softmax_of_two_is_one_sigmoid_of_the_difference() {
    let softmax = objective(Activation::Softmax, 2, cross_entropy(0.0), Reduction::Mean);
    let sigmoid = objective(Activation::Sigmoid, 1, bce(), Reduction::Mean);
    for (a, b, class) in [(0.2, -0.7, 0), (3.0, 9.0, 0), (-2.0, 2.5, 1)] {
        let (loss, p, gradient) = evaluate(&softmax, TargetRows::Classes(&[class]), &[a, b]);
        let target = [f64::from(class)];
        let (expected, q, slope) = evaluate(&sigmoid, TargetRows::Values(&target), &[b - a]);
        assert!((loss - expected).abs() < 1e-14 && (p[1] - q[0]).abs() < 1e-15);
        assert!((gradient[1] - slope[0]).abs() < 1e-15 && (gradient[0] + slope[0]).abs() < 1e-15);
    }
}

#[test]
fn a_wrong_row_at_zero_is_in_the_perceptron_s_sum_and_a_right_one_is_not() {
    let sign = objective(Activation::Sign, 1, Loss::Perceptron, Reduction::Sum);
    let (loss, _, gradient) = evaluate(&sign, TargetRows::Values(&[1.0, -1.0]), &[0.0, -0.0]);
    assert_eq!((loss, gradient), (0.0, vec![-1.0, 1.0]));
}

/// Targets that every loss on the output can be judged by.
fn some_targets<'a>(loss: &Loss, activation: Activation, signs: &'a [f64], bits: &'a [f64]) -> TargetRows<'a, f64> {
    match loss {
        Loss::Perceptron | Loss::Hinge | Loss::SquaredHinge => TargetRows::Values(signs),
        _ if activation.is_over_rows() => TargetRows::Classes(&[0]),
        Loss::GammaDeviance => TargetRows::Values(&[2.0, 0.5, 1.0]),
        _ => TargetRows::Values(bits),
    }
}

#[test]
fn huge_logits_give_finite_losses_and_gradients() {
    for activation in ACTIVATIONS {
        for loss in losses_of(activation) {
            // e^z is infinite there, and so is a loss whose output is a logarithm.
            let is_log = matches!(loss, Loss::Poisson | Loss::GammaDeviance | Loss::TweedieDeviance { .. });
            let largest = if activation == Activation::Exponential || is_log { 100.0 } else { 1e4 };
            let objective = objective(activation, 3, loss.clone(), Reduction::Mean);
            let targets = some_targets(&loss, activation, &[-1.0, 1.0, 1.0], &[0.0, 1.0, 0.0]);
            for z in [[1.0, -1.0, 1.0], [-1.0, 1.0, 0.5], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]] {
                let (sum, outputs, gradient) = evaluate(&objective, targets, &z.map(|z| z * largest));
                let all = [sum].into_iter().chain(outputs).chain(gradient);
                assert!(all.into_iter().all(f64::is_finite), "{activation} {loss:?} {z:?}");
            }
        }
    }
}

#[test]
fn means_divide_by_what_the_loss_counts() {
    let counts = |activation, loss| objective(activation, 3, loss, Reduction::Mean).count_of_row();
    assert_eq!(counts(Activation::Tanh, Loss::SquaredError), 3.0);
    assert_eq!(counts(Activation::Softmax, Loss::SquaredError), 1.0);
    assert_eq!(counts(Activation::Softmax, cross_entropy(0.1)), 1.0);
    assert_eq!(counts(Activation::LogSoftmax, Loss::NegativeLogLikelihood), 1.0);
    assert_eq!(counts(Activation::Sigmoid, bce()), 3.0);
    assert_eq!(counts(Activation::Tanh, custom("(y_pred - y_true)^2")), 3.0);
    assert_eq!(counts(Activation::Tanh, custom("sum((y_pred - y_true)^2)")), 1.0);
    let divisor = |reduction, count| objective(Activation::Tanh, 3, Loss::SquaredError, reduction).divisor(count);
    assert_eq!((divisor(Reduction::Mean, 30.0), divisor(Reduction::Sum, 30.0)), (30.0, 1.0));
    assert_eq!(divisor(Reduction::Mean, 0.0), 1.0);
}

#[test]
fn every_loss_fits_some_output() {
    for loss in losses() {
        assert!(ACTIVATIONS.iter().any(|&activation| loss.fits(activation)), "{loss:?}");
    }
}

#[test]
fn negative_log_likelihood_has_the_digits_of_cross_entropy() {
    let softmax = objective(Activation::Softmax, 3, cross_entropy(0.0), Reduction::Mean);
    let logarithm = objective(Activation::LogSoftmax, 3, Loss::NegativeLogLikelihood, Reduction::Mean);
    let z = [0.3, -1.2, 2.0, 1e4, 0.0, -1e4, 0.1, 0.1, 0.1];
    let targets = TargetRows::Classes(&[1, 2, 0]);
    let (loss, p, gradient) = evaluate(&softmax, targets, &z);
    let (other, log_p, other_gradient) = evaluate(&logarithm, targets, &z);
    assert_eq!((loss, gradient), (other, other_gradient));
    assert!(p.iter().zip(log_p).all(|(p, log_p)| (log_p.exp() - p).abs() < 1e-15));
}

#[test]
fn cross_entropy_is_entropy_and_kl_divergence() {
    let z = [0.3, -1.2, 2.0, 0.0, 0.5, -0.5];
    let q = [0.2, 0.5, 0.3, 0.0, 1.0, 0.0];
    let entropy: f64 = q.iter().filter(|&&q| q > 0.0).map(|q: &f64| -q * q.ln()).sum();
    let of = |loss| evaluate(&objective(Activation::Softmax, 3, loss, Reduction::Sum), TargetRows::Values(&q), &z);
    let ((cross, _, slope), (kl, _, other)) = (of(cross_entropy(0.0)), of(Loss::KlDivergence));
    assert!((cross - (entropy + kl)).abs() < 1e-14, "{cross} {entropy} {kl}");
    assert_eq!(slope, other);
}

#[test]
fn probabilities_of_one_and_zero_cost_what_the_formula_says() {
    // p is 1 for the right class, to the last bit: 0; for a wrong one it is the distance of the logits.
    let softmax = objective(Activation::Softmax, 2, cross_entropy(0.0), Reduction::Sum);
    assert_eq!(evaluate(&softmax, TargetRows::Classes(&[0]), &[800.0, 0.0]).0, 0.0);
    assert_eq!(evaluate(&softmax, TargetRows::Classes(&[1]), &[800.0, 0.0]).0, 800.0);
    let focal = objective(Activation::Softmax, 2, Loss::Focal { gamma: 2.0, alpha: None }, Reduction::Sum);
    assert_eq!(evaluate(&focal, TargetRows::Classes(&[0]), &[800.0, 0.0]).0, 0.0);
    let sigmoid = objective(Activation::Sigmoid, 1, bce(), Reduction::Sum);
    assert_eq!(evaluate(&sigmoid, TargetRows::Values(&[0.0]), &[800.0]).0, 800.0);
}

/// More rows than are exponentiated at a time.
#[test]
fn a_row_of_logits_has_the_same_gradient_alone_as_among_many() {
    let (rows, units) = (1_500, 3);
    let z: Vec<f64> = (0..rows * units).map(|index| (index * 37 % 101) as f64 / 10.0 - 5.0).collect();
    let classes: Vec<u32> = (0..rows as u32).map(|row| row % 3).collect();
    let objective = objective(Activation::Softmax, units, cross_entropy(0.0), Reduction::Sum);
    let (sum, outputs, gradient) = evaluate(&objective, TargetRows::Classes(&classes), &z);
    let (mut sum_alone, mut outputs_alone, mut gradient_alone) = (0.0, Vec::new(), Vec::new());
    for (class, z) in classes.chunks(1).zip(z.chunks(units)) {
        let (loss, outputs, gradient) = evaluate(&objective, TargetRows::Classes(class), z);
        sum_alone += loss;
        outputs_alone.extend(outputs);
        gradient_alone.extend(gradient);
    }
    assert_eq!((sum, outputs, gradient), (sum_alone, outputs_alone, gradient_alone));
}

#[test]
fn focal_without_focus_is_cross_entropy() {
    let z = [0.3, -1.2, 2.0, 40.0, -40.0, 0.0];
    let focal = Loss::Focal { gamma: 0.0, alpha: None };
    let close = |a: (f64, Vec<f64>, Vec<f64>), b: (f64, Vec<f64>, Vec<f64>)| {
        assert!((a.0 - b.0).abs() < 1e-13 * b.0.abs().max(1.0) && a.1 == b.1);
        assert!(a.2.iter().zip(b.2).all(|(a, b)| (a - b).abs() < 1e-15));
    };
    let classes = TargetRows::Classes(&[2, 0]);
    let of = |loss| evaluate(&objective(Activation::Softmax, 3, loss, Reduction::Sum), classes, &z);
    close(of(focal.clone()), of(cross_entropy(0.0)));
    let bits = TargetRows::Values(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    let of = |loss| evaluate(&objective(Activation::Sigmoid, 3, loss, Reduction::Sum), bits, &z);
    close(of(focal), of(bce()));
}

/// On the same formula a caller's expression and the built-in loss agree, value and gradient, on every output.
#[test]
fn expressions_agree_with_the_built_in_losses() {
    let z = [0.3, -1.2, 2.0, -0.5, 0.7, 0.1];
    let (y, q, signs) =
        ([1.0, 0.0, 0.5, 1.0, 2.0, -0.3], [0.2, 0.5, 0.3, 0.1, 0.1, 0.8], [1.0, -1.0, 1.0, 1.0, -1.0, 1.0]);
    use Activation::{Identity, Sigmoid, Softmax, Softplus, Tanh};
    for (activation, text, loss, targets) in [
        (Identity, "(y_pred-y_true)^2", Loss::SquaredError, &y),
        (Tanh, "(y_pred-y_true)**2", Loss::SquaredError, &y),
        (Softmax, "(y_pred-y_true)^2", Loss::SquaredError, &q),
        (Identity, "abs(y_pred-y_true)", Loss::AbsoluteError, &y),
        (Softplus, "abs(y_true-y_pred)", Loss::AbsoluteError, &y),
        (
            Identity,
            "where(abs(y_pred-y_true) <= 0.6, 0.5*(y_pred-y_true)^2, 0.6*(abs(y_pred-y_true)-0.3))",
            Loss::Huber { delta: 0.6 },
            &y,
        ),
        (Identity, "max(0.9*(y_true-y_pred), -0.1*(y_true-y_pred))", Loss::Quantile { q: 0.9 }, &y),
        (Identity, "exp(y_pred)-y_true*y_pred", Loss::Poisson, &y),
        (Tanh, "max(0, 1-y_true*y_pred)", Loss::Hinge, &signs),
        (Identity, "max(0, 1-y_true*y_pred)^2", Loss::SquaredHinge, &signs),
        (Softmax, "-sum(y_true*log(y_pred))", cross_entropy(0.0), &q),
        (Softmax, "sum(y_true*log(y_true/y_pred))", Loss::KlDivergence, &q),
        (Sigmoid, "(y_pred-y_true)^2", Loss::SquaredError, &y),
    ] {
        let of = |loss| evaluate(&objective(activation, 3, loss, Reduction::Sum), TargetRows::Values(targets), &z);
        let ((sum, outputs, gradient), (expected, same, slopes)) = (of(custom(text)), of(loss));
        assert!((sum - expected).abs() < 1e-13 && outputs == same, "{text}: {sum} for {expected}");
        assert!(gradient.iter().zip(slopes).all(|(a, b)| (a - b).abs() < 1e-14), "{text}: {gradient:?}");
    }
}

#[test]
fn what_counts_for_nothing_may_be_infinite() {
    for loss in [Loss::SquaredError, custom("(y_pred - y_true)^2")] {
        let objective = objective(Activation::Identity, 2, loss.clone(), Reduction::Sum);
        let (targets, z) = (TargetRows::Values(&[1.0, 2.0]), [3.0, f64::INFINITY]);
        let (sum, _, gradient) = evaluate_weighted(&objective, targets, &z, None, Some(&[1.0, 0.0]));
        assert_eq!((sum, gradient), (4.0, vec![4.0, 0.0]), "{loss:?}");
        let (sum, _, gradient) = evaluate_weighted(&objective, targets, &z, Some(&[0.0]), None);
        assert_eq!((sum, gradient), (0.0, vec![0.0; 2]), "{loss:?}");
    }
}

/// A row of weight w counts as w rows of it; what is masked may be anything.
#[test]
fn weights_multiply_and_masks_leave_out() {
    let (z, y) = ([0.3, -1.2, 2.0, -0.5, 0.7, 0.1], [1.0, 0.0, 0.5, 1.0, 2.0, 0.3]);
    let weights = [2.0, 0.5];
    for activation in ACTIVATIONS {
        for loss in losses_of(activation) {
            let objective = objective(activation, 3, loss.clone(), Reduction::Sum);
            let bits = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
            let signs = [1.0, -1.0, -1.0, -1.0, 1.0, -1.0];
            let row = |row: usize| {
                let range = row * 3..row * 3 + 3;
                let targets = match loss {
                    Loss::Perceptron | Loss::Hinge | Loss::SquaredHinge => TargetRows::Values(&signs[range.clone()]),
                    Loss::BinaryCrossEntropy { .. } | Loss::Focal { .. } if !activation.is_over_rows() => {
                        TargetRows::Values(&bits[range.clone()])
                    }
                    _ if activation.is_over_rows() => TargetRows::Classes(&[1]),
                    Loss::GammaDeviance => TargetRows::Values(&[2.0, 0.5, 1.0]),
                    _ => TargetRows::Values(&y[range.clone()]),
                };
                (targets, z[range].to_vec())
            };
            for (index, &weight) in weights.iter().enumerate() {
                let (targets, z) = row(index);
                let (plain, outputs, slopes) = evaluate(&objective, targets, &z);
                let (sum, same, gradient) = evaluate_weighted(&objective, targets, &z, Some(&[weight]), None);
                assert!((sum - plain * weight).abs() < 1e-12 * sum.abs().max(1.0), "{activation} {loss:?}");
                assert_eq!(outputs, same);
                let close = |(a, b): (&f64, f64)| (a - b * weight).abs() < 1e-13 * b.abs().max(1.0);
                assert!(gradient.iter().zip(slopes).all(close), "{activation} {loss:?}");
            }
            let (targets, z) = row(0);
            let (sum, _, gradient) = evaluate_weighted(&objective, targets, &z, Some(&[0.0]), None);
            assert_eq!((sum, gradient), (0.0, vec![0.0; 3]), "{activation} {loss:?}");
            if !objective.is_per_row() {
                let junk = [z[0], f64::NAN, z[2]];
                let (_, _, gradient) = evaluate_weighted(&objective, targets, &junk, None, Some(&[1.0, 0.0, 1.0]));
                let (_, _, slopes) = evaluate(&objective, targets, &z);
                let expected = [slopes[0], 0.0, slopes[2]];
                // What is not there has no loss; its output's derivative may be NaN, and 0 times that is.
                assert!((gradient[0] - expected[0]).abs() < 1e-15 && (gradient[2] - expected[2]).abs() < 1e-15);
            }
        }
    }
}

/// Where μ^(1−p) is infinite, y = 0 leaves it out; near the ends of the range the terms cancel, and enough digits stay.
#[test]
fn tweedie_has_a_value_for_no_claim_at_all_and_near_its_ends() {
    let of = |activation, power, z: f32, y: f32| {
        let architecture = network(ElementType::Float32, 1, &[(1, activation)]);
        let objective = Objective::new(&architecture, &Loss::TweedieDeviance { power }, Reduction::Sum);
        let (mut outputs, mut gradient) = ([z], [0.0]);
        let mut batch = LossBatch {
            targets: TargetRows::Values(&[y]),
            weights: None,
            mask: None,
            outputs: &mut outputs,
            pre_activations: &mut [],
            gradient: &mut gradient,
            scratch: &mut objective.scratch(1),
        };
        let loss = objective.evaluate(1.0, &mut batch);
        (loss, f64::from(gradient[0]))
    };
    for activation in [Activation::Identity, Activation::Exponential, Activation::Softplus] {
        for (power, z) in [(1.5, -200.0), (1.999, -100.0), (1.001, -104.0), (1.5, -800.0), (1.5, -2000.0)] {
            let (loss, slope) = of(activation, power, z, 0.0);
            assert!(loss.is_finite() && slope.is_finite() && loss >= 0.0, "{activation} {power} {z}: {loss} {slope}");
        }
    }
    // 4·e^−1 and 2·e^−1.
    let (loss, slope) = of(Activation::Identity, 1.5, -2.0, 0.0);
    assert!((loss - 4.0 * (-1.0_f64).exp()).abs() < 1e-7 && (slope - 2.0 * (-1.0_f64).exp()).abs() < 1e-7);
    // Next to Poisson's deviance, 2·(y·ln(y ÷ μ) − y + μ) with y = 2 and μ = 3.
    let (loss, _) = of(Activation::Identity, 1.001, 3.0_f32.ln(), 2.0);
    assert!((loss - 2.0 * (2.0 * (2.0_f64 / 3.0).ln() + 1.0)).abs() < 1e-3, "{loss}");
}

/// Both ways to the logarithm of the mean have the slopes of their losses.
#[test]
fn tweedie_s_derivatives_are_slopes_behind_each_output() {
    for activation in [Activation::Identity, Activation::Exponential, Activation::Softplus] {
        for (power, y) in [(1.5, 0.0), (1.5, 0.7), (1.2, 3.0), (1.9, 0.2)] {
            let objective = objective(activation, 1, Loss::TweedieDeviance { power }, Reduction::Sum);
            for z in [-40.0, -30.5, -29.5, -3.0, -0.4, 0.3, 2.0, 9.0] {
                let at = |z: f64| evaluate(&objective, TargetRows::Values(&[y]), &[z]);
                let (loss, _, slope) = at(z);
                let numeric = (at(z + 1e-5).0 - at(z - 1e-5).0) / 2e-5;
                let bound = 1e-9 * loss.abs().max(1.0) + 1e-6 * numeric.abs().max(slope[0].abs());
                assert!((numeric - slope[0]).abs() <= bound, "{activation} {power} {y} {z}: {numeric} {}", slope[0]);
            }
        }
    }
}
