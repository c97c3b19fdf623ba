//! Values against a naive evaluator, gradients against finite differences, kinks and branches as they are defined.

use proptest::prelude::*;

use super::*;
use crate::domain::expression::{Binary, Node, OverRow, Unary};

const ONES: Seeds<'_> = Seeds::Uniform(1.0);

fn tape(text: &str, units: usize) -> Tape {
    Tape::new(&Expression::parse(text).unwrap(), units)
}

/// The losses, and the gradient of their weighted sum.
fn evaluate(tape: &Tape, p: &[f64], t: &[f64], seeds: Seeds<'_>) -> (Vec<f64>, Vec<f64>) {
    let mut losses = vec![f64::NAN; tape.loss_count(p.len() / tape.units)];
    let mut gradient = vec![f64::NAN; p.len()];
    let keep = |first: usize, block: &[f64]| losses[first..first + block.len()].copy_from_slice(block);
    tape.evaluate(&mut tape.slots(), p, TargetRows::Values(t), seeds, keep, &mut gradient);
    (losses, gradient)
}

/// Loss and derivative of one output.
fn at(text: &str, p: f64, t: f64) -> (f64, f64) {
    let (losses, gradient) = evaluate(&tape(text, 1), &[p], &[t], Seeds::Uniform(1.0));
    (losses[0], gradient[0])
}

#[track_caller]
fn gives(text: &str, p: f64, t: f64, value: f64, derivative: f64) {
    let found = at(text, p, t);
    let near = |a: f64, b: f64| a == b || (a - b).abs() <= 4.0 * f64::EPSILON * b.abs() || a.is_nan() && b.is_nan();
    assert!(near(found.0, value) && near(found.1, derivative), "{text} at {p}, {t}: {found:?}");
}

#[test]
fn operators_and_functions_have_their_values_and_derivatives() {
    let e = std::f64::consts::E;
    gives("y_pred + y_true", 3.0, 2.0, 5.0, 1.0);
    gives("y_true - y_pred", 3.0, 2.0, -1.0, -1.0);
    gives("y_pred * y_pred", 3.0, 0.0, 9.0, 6.0);
    gives("y_true / y_pred", 4.0, 2.0, 0.5, -0.125);
    gives("-y_pred^2", 2.0, 0.0, -4.0, -4.0);
    gives("y_pred*0 - 2^2", 2.0, 0.0, -4.0, 0.0);
    gives("y_pred*0 + 2^3^2", 2.0, 0.0, 512.0, 0.0);
    gives("y_pred^0", 0.0, 0.0, 1.0, 0.0);
    gives("y_pred^1", 3.0, 0.0, 3.0, 1.0);
    gives("y_pred^3", -2.0, 0.0, -8.0, 12.0);
    gives("y_pred^7", 2.0, 0.0, 128.0, 448.0);
    gives("y_pred^-1", -2.0, 0.0, -0.5, -0.25);
    gives("y_pred^20", 2.0, 0.0, 1_048_576.0, 10_485_760.0);
    gives("y_pred^0.5", 4.0, 0.0, 2.0, 0.25);
    gives("y_pred^1.5", 4.0, 0.0, 8.0, 3.0);
    gives("y_pred^2.5", 4.0, 0.0, 32.0, 20.0);
    gives("y_pred^1.25", 16.0, 0.0, 32.0, 2.5);
    gives("y_pred^y_true", 2.0, 3.0, 8.0, 12.0);
    gives("y_pred^y_true", 2.0, 0.0, 1.0, 0.0);
    gives("y_true^y_pred", 3.0, e, e.powi(3), e.powi(3));
    gives("abs(y_pred)", -3.0, 0.0, 3.0, -1.0);
    gives("exp(y_pred)", 1.0, 0.0, e, e);
    gives("log(y_pred)", 4.0, 0.0, 4_f64.ln(), 0.25);
    gives("log1p(y_pred)", 3.0, 0.0, 4_f64.ln(), 0.25);
    gives("expm1(y_pred)", 1.0, 0.0, e - 1.0, e);
    gives("sqrt(y_pred)", 4.0, 0.0, 2.0, 0.25);
    gives("sigmoid(y_pred)", 0.0, 0.0, 0.5, 0.25);
    gives("softplus(y_pred)", 0.0, 0.0, 2_f64.ln(), 0.5);
    gives("tanh(y_pred)", 0.0, 0.0, 0.0, 1.0);
    gives("sign(y_pred)", -2.0, 0.0, -1.0, 0.0);
    gives("clip(y_pred, 0, 1)", 0.5, 0.0, 0.5, 1.0);
    gives("clip(y_pred, 0, 1)", 2.0, 0.0, 1.0, 0.0);
    gives("(y_pred > y_true) + (y_pred >= 3) + (y_pred != 3) + (y_pred == 3)", 3.0, 2.0, 3.0, 0.0);
    gives("(y_pred < y_true) + 2*(y_pred <= 3)", 3.0, 2.0, 2.0, 0.0);
    gives("(y_pred < y_true) + 2*(y_pred > y_true)", 3.0, 3.0, 0.0, 0.0);
}

#[test]
fn far_out_nothing_overflows_and_no_digit_is_lost() {
    gives("softplus(y_pred)", 1e4, 0.0, 1e4, 1.0);
    gives("softplus(y_pred)", -40.0, 0.0, (-40_f64).exp(), (-40_f64).exp());
    gives("sigmoid(y_pred)", 40.0, 0.0, 1.0, (-40_f64).exp());
    gives("sigmoid(y_pred)", -1e4, 0.0, 0.0, 0.0);
    gives("tanh(y_pred)", 20.0, 0.0, 1.0, 4.0 * (-40_f64).exp());
    gives("log1p(y_pred)", 1e-20, 0.0, 1e-20, 1.0);
    gives("expm1(y_pred)", -40.0, 0.0, -1.0, (-40_f64).exp());
    gives("y_pred^1.25", 1e-260, 0.0, 0.0, 1.25e-65);
}

#[test]
fn the_derivative_at_a_kink_is_zero() {
    for (text, value) in [
        ("abs(y_pred)", 0.0),
        ("abs(y_pred)^1.5", 0.0),
        ("abs(y_pred)^1.25", 0.0),
        ("abs(y_pred)^0.25", 0.0),
        ("sqrt(y_pred^2)", 0.0),
        ("sqrt(sum(y_pred^2))", 0.0),
        ("min(y_pred, y_true)", 0.0),
        ("min(y_true, y_pred)", 0.0),
        ("max(y_pred, 0)", 0.0),
        ("max(0, y_pred)", 0.0),
        ("clip(y_pred, 0, 1)", 0.0),
        ("clip(y_pred, -1, 0)", 0.0),
        ("sign(y_pred)", 0.0),
        ("y_pred == 0", 1.0),
        ("y_pred^y_pred", 1.0),
    ] {
        gives(text, 0.0, 0.0, value, 0.0);
    }
    let (losses, gradient) = evaluate(&tape("max(y_pred)", 3), &[2.0, 2.0, 1.0, 1.0, 0.0, 2.0], &[0.0; 6], ONES);
    assert_eq!((losses, gradient), (vec![2.0, 2.0], vec![0.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
}

#[test]
fn what_is_not_finite_shows() {
    gives("log(y_pred)", 0.0, 0.0, f64::NEG_INFINITY, f64::INFINITY);
    gives("sqrt(y_pred)", 0.0, 0.0, 0.0, f64::INFINITY);
    gives("y_true*log(y_pred)", 0.0, 0.0, f64::NAN, 0.0);
    for text in ["log(y_pred)", "sqrt(y_pred)", "y_pred^1.5", "y_pred^0.3"] {
        assert!(at(text, -1.0, 0.0).0.is_nan(), "{text}");
    }
    for text in [
        "min(log(y_pred), 1)",
        "max(1, log(y_pred))",
        "clip(log(y_pred), 0, 1)",
        "max(log(y_pred))",
        "sign(log(y_pred))",
    ] {
        assert!(at(text, -1.0, 0.0).0.is_nan(), "{text}");
    }
}

#[test]
fn nothing_leaks_from_the_branch_that_where_did_not_take() {
    gives("where(y_pred > 0, log(y_pred), y_pred)", 0.0, 0.0, 0.0, 1.0);
    gives("where(y_pred > 0, log(y_pred), y_pred)", -1.0, 0.0, -1.0, 1.0);
    gives("where(y_pred > 0, log(y_pred), y_pred)", 2.0, 0.0, 2_f64.ln(), 0.5);
    gives("where(y_pred <= 0, 2*y_pred, 1/sqrt(y_pred))", 0.0, 0.0, 0.0, 2.0);
    gives("where(y_true, y_pred, exp(exp(exp(y_pred))))", 9.0, 1.0, 9.0, 1.0);
    gives("where(y_true, y_pred, (y_pred-10)^0.5^y_true)", 9.0, 1.0, 9.0, 1.0);
    gives("sum(where(y_pred > 0, -log(y_pred), 0))", 0.0, 0.0, 0.0, 0.0);
    gives("max(0, 1/y_pred - 1/0)", 1.0, 0.0, 0.0, 0.0);
}

#[test]
fn a_row_loss_sees_its_own_row_alone() {
    let (p, t) = ([0.5, 0.25, 0.25, 0.1, 0.7, 0.2], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    let (losses, gradient) = evaluate(&tape("-sum(y_true*log(y_pred))", 3), &p, &t, Seeds::Each(&[1.0, 10.0]));
    assert_eq!(losses, [-libm::log(0.5), -libm::log(0.7)]);
    assert_eq!(gradient, [-2.0, 0.0, 0.0, 0.0, -10.0 * (1.0 / 0.7), 0.0]);

    let (losses, gradient) = evaluate(&tape("mean(y_pred)", 2), &[1.0, 3.0], &[0.0; 2], ONES);
    assert_eq!((losses, gradient), (vec![2.0], vec![0.5, 0.5]));
    // Within a loss for each output, and of what is a number a row already.
    let (losses, gradient) =
        evaluate(&tape("(y_pred-mean(y_pred))^2", 2), &[1.0, 3.0], &[0.0; 2], Seeds::Each(&[1.0, 0.0]));
    assert_eq!((losses, gradient), (vec![1.0, 1.0], vec![-1.0, 1.0]));
    let (losses, gradient) =
        evaluate(&tape("sum(sum(y_pred)) + max(mean(y_pred))/sum(1)", 2), &[1.0, 3.0], &[0.0; 2], ONES);
    assert_eq!((losses, gradient), (vec![9.0], vec![2.25, 2.25]));
    let (losses, gradient) = evaluate(&tape("sum(y_pred) + y_pred^0", 2), &[1.0, 3.0], &[0.0; 2], ONES);
    assert_eq!((losses, gradient), (vec![5.0, 5.0], vec![2.0, 2.0]));
    let (losses, gradient) = evaluate(&tape("mean(y_pred^0)", 2), &[1.0, 3.0, 4.0, 5.0], &[0.0; 4], ONES);
    assert_eq!((losses, gradient), (vec![1.0, 1.0], vec![0.0; 4]));
}

#[test]
fn classes_stand_for_one_hot_rows() {
    let units = 3;
    let classes: Vec<u32> = (0..400).map(|row| (row * 7 + row / 5) % 3).collect();
    let hot: Vec<f64> =
        classes.iter().flat_map(|&class| (0..3).map(move |unit| f64::from(u8::from(unit == class)))).collect();
    let p: Vec<f64> = (0..hot.len()).map(|index| 0.1 + (index % 17) as f64 / 20.0).collect();
    for text in ["(y_pred-y_true)^2", "-sum(y_true*log(y_pred))"] {
        let tape = tape(text, units);
        let (losses, gradient) = evaluate(&tape, &p, &hot, ONES);
        let (mut found, mut found_gradient) = (Vec::new(), vec![0.0; p.len()]);
        let keep = |_: usize, block: &[f64]| found.extend_from_slice(block);
        tape.evaluate(&mut tape.slots(), &p, TargetRows::Classes(&classes), ONES, keep, &mut found_gradient);
        assert_eq!((found, found_gradient), (losses, gradient));
    }
}

#[test]
fn float32_networks_are_judged_in_float64() {
    let tape = tape("(y_pred-y_true)^2", 1);
    let (mut losses, mut gradient) = (Vec::new(), [0.0_f32; 2]);
    let keep = |_: usize, block: &[f64]| losses.extend_from_slice(block);
    let (p, t) = ([1.1_f32, 1e-33], [1.0_f32, 0.0]);
    tape.evaluate(&mut tape.slots(), &p, TargetRows::Values(&t), Seeds::Uniform(0.5), keep, &mut gradient);
    let difference = f64::from(1.1_f32) - 1.0;
    assert_eq!(losses[0], difference * difference);
    assert_eq!(gradient, [difference as f32, 0.0]);
}

#[test]
fn the_first_fault_is_found_and_what_counts_for_nothing_has_none() {
    let fault = |text: &str, p: &[f64], seeds: Seeds<'_>| {
        let tape = tape(text, 2);
        tape.first_fault(&mut tape.slots(), p, TargetRows::Values(&vec![0.0; p.len()]), seeds)
    };
    let value = |row| Some(NotFinite { row, quantity: Quantity::Value });
    let derivative = |row| Some(NotFinite { row, quantity: Quantity::Derivative });
    let mut p = vec![1.0; 1_000];
    assert_eq!(fault("log(y_pred)", &p, ONES), None);
    p[901] = 0.0;
    p[950] = -1.0;
    assert_eq!(fault("log(y_pred)", &p, ONES), value(450));
    assert_eq!(fault("sqrt(y_pred)", &p, ONES), derivative(450));
    assert_eq!(fault("sum(log(y_pred))", &p, ONES), value(450));
    let mut seeds = vec![1.0; 1_000];
    seeds[901] = 0.0;
    assert_eq!(fault("log(y_pred)", &p, Seeds::Each(&seeds)), value(475));
    assert_eq!(fault("sum(sqrt(y_pred))", &p, Seeds::Each(&seeds[..500])), derivative(450));
    seeds[450] = 0.0;
    assert_eq!(fault("sum(sqrt(y_pred))", &p, Seeds::Each(&seeds[..500])), value(475));
    // What float64 holds and float32 does not.
    let tape = tape("y_pred^3", 1);
    let fault = tape.first_fault(&mut tape.slots(), &[1.0_f32, 1e30], TargetRows::Values(&[0.0, 0.0]), ONES);
    assert_eq!(fault, derivative(1));
}

#[test]
fn what_is_the_same_is_computed_once_and_constants_not_at_all() {
    let steps = |text: &str| tape(text, 2).steps.len();
    assert_eq!(steps("(y_pred-y_true)^2"), 4);
    assert_eq!(steps("(y_pred-y_true)*(y_pred-y_true) + exp(2)*3"), 6);
    assert_eq!(steps("y_pred + 2*y_true + y_true*2"), 6);
    assert_eq!(steps("where(2 > 1, y_pred, log(y_pred)^0)"), 1);
    let tape = tape("exp(y_true)*y_pred + sign(y_pred)*(y_pred > 0)", 1);
    let with_adjoint = tape.steps.iter().filter(|step| step.adjoint.is_some()).count();
    assert_eq!((tape.steps.len(), with_adjoint), (9, 3));
}

#[test]
fn a_tape_is_as_long_as_its_text_allows_and_takes_what_it_says() {
    let text = format!("y_pred{}", "+1".repeat(2_000));
    assert_eq!(at(&text, 1.0, 0.0), (2_001.0, 1.0));
    let text = format!("y_pred{}", "*y_pred".repeat(500));
    assert_eq!(at(&text, 1.0, 0.0), (1.0, 501.0));
    // Where nothing is summed over rows, these may be of any length.
    assert_eq!(tape("y_pred-y_true", 65_536).slots_bytes(), 8 * (3 + 2) * BLOCK_NUMBERS);
    let tape = tape("sum(y_pred-y_true)", 1_000);
    assert_eq!(tape.slots_bytes(), 8 * (3 * 1_000 + 1 + 2 * 1_000 + 1));
}

#[test]
fn many_rows_give_the_bits_of_one_row_at_a_time() {
    let units = 7;
    let p: Vec<f64> = (0..units * 301).map(|index| libm::sin(index as f64)).collect();
    let t: Vec<f64> = (0..units * 301).map(|index| libm::cos(index as f64 * 1.3)).collect();
    for text in [
        "abs(y_pred-y_true)^1.5 + tanh(y_pred)",
        "sum(softplus(y_pred)*y_true)/max(y_pred)",
        "y_pred*mean(y_true-y_pred)",
    ] {
        let tape = tape(text, units);
        let whole = evaluate(&tape, &p, &t, ONES);
        let (mut losses, mut gradient) = (Vec::new(), Vec::new());
        for (p, t) in p.chunks(units).zip(t.chunks(units)) {
            let row = evaluate(&tape, p, t, ONES);
            losses.extend(row.0);
            gradient.extend(row.1);
        }
        assert_eq!(whole, (losses, gradient), "{text}");
        let mut values = Vec::new();
        tape.values(&mut tape.slots(), &p, TargetRows::Values(&t), |_, block| values.extend_from_slice(block));
        assert_eq!(values, whole.0);
    }
}

/// The slow and simple way: node by node for one output of a row. Notes how near it comes to a kink or a pole, and
/// whether all numbers on the way are finite and none large.
struct Naive<'a> {
    nodes: &'a [Node],
    p: &'a [f64],
    t: &'a [f64],
    nearest_kink: f64,
    is_tame: bool,
}

impl Naive<'_> {
    fn kink(&mut self, distance: f64) {
        self.nearest_kink = self.nearest_kink.min(distance.abs());
    }

    fn at(&mut self, node: usize, unit: usize) -> f64 {
        let value = match self.nodes[node] {
            Node::Number(value) => value,
            Node::Prediction => self.p[unit],
            Node::Target => self.t[unit],
            Node::Unary(function, x) => {
                let x = self.at(x, unit);
                self.unary(function, x)
            }
            Node::Binary(operator, a, b) => {
                let (a, b) = (self.at(a, unit), self.at(b, unit));
                self.binary(operator, a, b)
            }
            Node::Where(condition, a, b) => {
                let (condition, a, b) = (self.at(condition, unit), self.at(a, unit), self.at(b, unit));
                if condition != 0.0 { a } else { b }
            }
            Node::Clip(x, low, high) => {
                let (x, low, high) = (self.at(x, unit), self.at(low, unit), self.at(high, unit));
                self.kink(x - low);
                self.kink(x.max(low) - high);
                x.max(low).min(high)
            }
            Node::OverRow(function, x) => self.over_row(function, x),
        };
        self.is_tame &= value.abs() < 1e3;
        value
    }

    fn unary(&mut self, function: Unary, x: f64) -> f64 {
        match function {
            Unary::Abs | Unary::Sign | Unary::Log | Unary::Sqrt => self.kink(x),
            Unary::Log1p => self.kink(1.0 + x),
            _ => {}
        }
        match function {
            Unary::Negative => -x,
            Unary::Abs => x.abs(),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Log1p => x.ln_1p(),
            Unary::Expm1 => x.exp_m1(),
            Unary::Sqrt => x.sqrt(),
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Softplus => x.exp().ln_1p(),
            Unary::Tanh => x.tanh(),
            Unary::Sign => x.signum(),
        }
    }

    fn binary(&mut self, operator: Binary, a: f64, b: f64) -> f64 {
        match operator {
            Binary::Add | Binary::Subtract | Binary::Multiply => {}
            Binary::Divide => self.kink(b),
            Binary::Power => self.kink(a),
            _ => self.kink(a - b),
        }
        let one_if = |condition| f64::from(u8::from(condition));
        match operator {
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
            Binary::Power => a.powf(b),
            Binary::Min => a.min(b),
            Binary::Max => a.max(b),
            Binary::Less => one_if(a < b),
            Binary::LessOrEqual => one_if(a <= b),
            Binary::Greater => one_if(a > b),
            Binary::GreaterOrEqual => one_if(a >= b),
            Binary::Equal => one_if(a == b),
            Binary::NotEqual => one_if(a != b),
        }
    }

    fn over_row(&mut self, function: OverRow, x: usize) -> f64 {
        let mut row: Vec<f64> = (0..self.p.len()).map(|unit| self.at(x, unit)).collect();
        match function {
            OverRow::Sum => row.iter().sum(),
            OverRow::Mean => row.iter().sum::<f64>() / row.len() as f64,
            OverRow::Max => {
                row.sort_by(f64::total_cmp);
                self.kink(row[row.len() - 1] - row[row.len() - 2]);
                row[row.len() - 1]
            }
        }
    }
}

const UNITS: usize = 3;

/// The losses of one row; `None` where a kink or a pole is near or numbers become large.
fn naive(expression: &Expression, p: &[f64], t: &[f64]) -> Option<Vec<f64>> {
    let mut naive = Naive { nodes: expression.nodes(), p, t, nearest_kink: f64::INFINITY, is_tame: true };
    let losses = if expression.is_row_loss() { 1 } else { p.len() };
    let values = (0..losses).map(|unit| naive.at(expression.nodes().len() - 1, unit)).collect();
    (naive.nearest_kink > 0.01 && naive.is_tame).then_some(values)
}

/// Random expressions, as texts.
fn texts() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => Just("y_pred".to_owned()),
        1 => Just("y_true".to_owned()),
        1 => (1_u32..12).prop_map(|it| (f64::from(it) / 4.0).to_string()),
    ];
    leaf.prop_recursive(8, 64, 2, |inner| {
        let operators = prop::sample::select(vec!["+", "-", "*", "/", "<", ">=", "!="]);
        let exponents = prop::sample::select(vec!["2", "3", "-1", "5", "0.5", "1.5", "2.5", "-0.5", "1.3", "0"]);
        let names = vec![
            "-", "abs", "exp", "log", "log1p", "expm1", "sqrt", "sigmoid", "softplus", "tanh", "sign", "sum", "mean",
            "max",
        ];
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            4 => (operators, pair.clone()).prop_map(|(operator, (a, b))| format!("({a}) {operator} ({b})")),
            2 => (inner.clone(), exponents).prop_map(|(a, exponent)| format!("abs({a})^{exponent}")),
            1 => pair.clone().prop_map(|(a, b)| format!("(0.1+({a})^2)^({b})")),
            4 => (prop::sample::select(names), inner.clone()).prop_map(|(name, a)| format!("{name}({a})")),
            1 => pair.clone().prop_map(|(a, b)| format!("min({a}, {b})")),
            1 => pair.clone().prop_map(|(a, b)| format!("max({a}, {b})")),
            1 => (inner.clone(), pair).prop_map(|(it, (a, b))| format!("where(0.5 < ({it}), {a}, {b})")),
            1 => inner.prop_map(|a| format!("clip({a}, -0.5, 1.25)")),
        ]
    })
}

/// Σ seed · loss of one row.
fn weighted(expression: &Expression, p: &[f64], t: &[f64], seeds: &[f64]) -> Option<f64> {
    naive(expression, p, t).map(|losses| losses.iter().zip(seeds).map(|(loss, seed)| loss * seed).sum())
}

/// The central difference at one output; `None` where it is no good measure itself, as half the step shows.
fn difference(expression: &Expression, p: &[f64], t: &[f64], seeds: &[f64], unit: usize, bound: f64) -> Option<f64> {
    let slope = |step: f64| {
        let (mut above, mut below) = (p.to_vec(), p.to_vec());
        above[unit] += step;
        below[unit] -= step;
        Some((weighted(expression, &above, t, seeds)? - weighted(expression, &below, t, seeds)?) / (2.0 * step))
    };
    let (whole, half) = (slope(1e-5)?, slope(0.5e-5)?);
    ((whole - half).abs() <= 0.5 * bound.max(1e-6 * whole.abs())).then_some(whole)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn random_expressions_agree_with_the_naive_way_and_with_finite_differences(
        text in texts(),
        p in prop::collection::vec(-2.0..2.0, UNITS),
        t in prop::collection::vec(-2.0..2.0, UNITS),
        seeds in prop::collection::vec(0.1..1.0, UNITS),
    ) {
        let text = if text.contains("y_pred") { text } else { format!("({text})*y_pred") };
        let expression = Expression::parse(&text).unwrap();
        let tape = Tape::new(&expression, UNITS);
        let Some(expected) = naive(&expression, &p, &t) else { return Ok(()) };
        let (losses, gradient) = evaluate(&tape, &p, &t, Seeds::Each(&seeds[..expected.len()]));
        for (loss, expected) in losses.iter().zip(&expected) {
            prop_assert!((loss - expected).abs() <= 1e-11 * expected.abs().max(1.0), "{}: {} {}", text, loss, expected);
        }
        let sum: f64 = losses.iter().zip(&seeds).map(|(loss, seed)| loss * seed).sum();
        let bound = 1e-9 * sum.abs().max(1.0);
        for (unit, &analytic) in gradient.iter().enumerate() {
            let Some(numeric) = difference(&expression, &p, &t, &seeds, unit, bound) else { continue };
            let bound = bound + 1e-6 * numeric.abs().max(analytic.abs());
            prop_assert!((numeric - analytic).abs() <= bound, "{} by {}: {} {}", text, unit, analytic, numeric);
        }
    }
}
