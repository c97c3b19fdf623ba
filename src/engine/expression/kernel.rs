//! The operations of a tape: value beside derivative, the formula above both.
//!
//! Each operation is written once, as its value and its slopes; a [`Pass`] says which of them runs over the vectors.

use super::compile::Op;
use crate::domain::expression::{Binary, OverRow, Unary};

/// One way through an operation.
pub trait Pass {
    /// Runs a function of one number; its slope takes (x, value).
    fn unary(self, x: &[f64], value: impl Fn(f64) -> f64, slope: impl Fn(f64, f64) -> f64);

    /// Runs a function of two numbers; each slope takes (a, b, value).
    fn binary(
        self,
        a: &[f64],
        b: &[f64],
        value: impl Fn(f64, f64) -> f64,
        slope_a: impl Fn(f64, f64, f64) -> f64,
        slope_b: impl Fn(f64, f64, f64) -> f64,
    );

    /// Runs `where(condition, a, b)`.
    fn choice(self, condition: &[f64], a: &[f64], b: &[f64]);

    /// Runs a copy of each row's number to each of its outputs.
    fn spread(self, x: &[f64], width: usize);

    /// Runs a function of a row; its slope takes (x, value, how many of the row are that value).
    fn over_row(self, x: &[f64], width: usize, value: impl Fn(&[f64]) -> f64, slope: impl Fn(f64, f64, usize) -> f64);
}

/// Computes values.
pub struct Forward<'a> {
    /// Where they go.
    pub out: &'a mut [f64],
}

/// Adds the adjoint of an operation, times its slope, to that of the operand at one side.
pub struct Reverse<'a> {
    /// The operation's values.
    pub value: &'a [f64],
    /// Its adjoints.
    pub adjoint: &'a [f64],
    /// Which of its operands, from 0.
    pub side: usize,
    /// That operand's adjoints.
    pub into: &'a mut [f64],
    /// Nothing was added yet: what is there is of another block.
    pub is_first: bool,
}

/// Runs an operation. Operands that it does not have are empty.
pub fn run(op: Op, [a, b, c]: [&[f64]; 3], width: usize, pass: impl Pass) {
    match op {
        Op::Constant(_) | Op::Prediction | Op::Target => {}
        Op::Unary(function) => unary(function, a, pass),
        Op::IntegerPower(n) => integer_power(n, a, pass),
        Op::HalfPower(n) => half_power(n, a, pass),
        Op::ConstantPower(exponent) => constant_power(exponent.get(), a, pass),
        Op::Binary(operator) => binary(operator, a, b, pass),
        Op::Where => pass.choice(a, b, c),
        Op::Spread => pass.spread(a, width),
        Op::OverRow(function) => over_row(function, a, width, pass),
    }
}

fn unary(function: Unary, x: &[f64], pass: impl Pass) {
    match function {
        // −x; −1
        Unary::Negative => pass.unary(x, |x| -x, |_, _| -1.0),
        // |x|; sign x, 0 at 0
        Unary::Abs => pass.unary(x, f64::abs, |x, _| sign(x)),
        // e^x; e^x
        Unary::Exp => pass.unary(x, libm::exp, |_, value| value),
        // ln x; 1 / x
        Unary::Log => pass.unary(x, libm::log, |x, _| 1.0 / x),
        // ln(1 + x); 1 / (1 + x)
        Unary::Log1p => pass.unary(x, libm::log1p, |x, _| 1.0 / (1.0 + x)),
        // e^x − 1; e^x
        Unary::Expm1 => pass.unary(x, libm::expm1, |x, _| libm::exp(x)),
        // √x; 1 / (2·√x)
        Unary::Sqrt => pass.unary(x, f64::sqrt, |_, value| 0.5 / value),
        // σ(x); σ(x)·σ(−x)
        Unary::Sigmoid => pass.unary(x, sigmoid, |x, _| bell(x)),
        // ln(1 + e^x), as max(x, 0) + ln(1 + e^−|x|); σ(x)
        Unary::Softplus => pass.unary(x, softplus, |x, _| sigmoid(x)),
        // tanh x; 1 − tanh² x, as 4·σ(2x)·σ(−2x), which keeps its digits where tanh rounds to 1
        Unary::Tanh => pass.unary(x, libm::tanh, |x, _| 4.0 * bell(2.0 * x)),
        // sign x; 0
        Unary::Sign => pass.unary(x, sign, |_, _| 0.0),
    }
}

fn binary(operator: Binary, a: &[f64], b: &[f64], pass: impl Pass) {
    match operator {
        // a + b; 1, 1
        Binary::Add => pass.binary(a, b, |a, b| a + b, |_, _, _| 1.0, |_, _, _| 1.0),
        // a − b; 1, −1
        Binary::Subtract => pass.binary(a, b, |a, b| a - b, |_, _, _| 1.0, |_, _, _| -1.0),
        // a·b; b, a
        Binary::Multiply => pass.binary(a, b, |a, b| a * b, |_, b, _| b, |a, _, _| a),
        // a / b; 1 / b, −(a / b) / b
        Binary::Divide => pass.binary(a, b, |a, b| a / b, |_, b, _| 1.0 / b, |_, b, value| -value / b),
        // a^b; b·a^(b − 1), a^b·ln a
        Binary::Power => pass.binary(a, b, libm::pow, power_slope, exponent_slope),
        // The smaller one; 1 for it, 0 for the other one, and 0 for both where they are equal
        Binary::Min => pass.binary(a, b, smaller, |a, b, _| one_if(a < b), |a, b, _| one_if(b < a)),
        // The larger one; as for the smaller one
        Binary::Max => pass.binary(a, b, larger, |a, b, _| one_if(a > b), |a, b, _| one_if(b > a)),
        // 1 where it holds, else 0; 0, 0
        Binary::Less => compare(a, b, pass, |a, b| a < b),
        Binary::LessOrEqual => compare(a, b, pass, |a, b| a <= b),
        Binary::Greater => compare(a, b, pass, |a, b| a > b),
        Binary::GreaterOrEqual => compare(a, b, pass, |a, b| a >= b),
        Binary::Equal => compare(a, b, pass, |a, b| a == b),
        Binary::NotEqual => compare(a, b, pass, |a, b| a != b),
    }
}

fn compare(a: &[f64], b: &[f64], pass: impl Pass, holds: impl Fn(f64, f64) -> bool) {
    pass.binary(a, b, |a, b| one_if(holds(a, b)), |_, _, _| 0.0, |_, _, _| 0.0);
}

/// x^n; n·x^(n − 1)
fn integer_power(n: i32, x: &[f64], pass: impl Pass) {
    match n {
        2 => pass.unary(x, |x| x * x, |x, _| 2.0 * x),
        3 => pass.unary(x, |x| x * x * x, |x, _| 3.0 * (x * x)),
        _ => pass.unary(x, |x| product_power(x, n), |x, _| f64::from(n) * product_power(x, n - 1)),
    }
}

/// x^(n + ½), as x^n·√x; (n + ½)·x^(n − 1)·√x
fn half_power(n: i32, x: &[f64], pass: impl Pass) {
    match n {
        1 => pass.unary(x, |x| x * x.sqrt(), |x, _| 1.5 * x.sqrt()),
        _ => pass.unary(
            x,
            |x| product_power(x, n) * x.sqrt(),
            |x, _| (f64::from(n) + 0.5) * (product_power(x, n - 1) * x.sqrt()),
        ),
    }
}

/// x^c; c·x^(c − 1)
fn constant_power(exponent: f64, x: &[f64], pass: impl Pass) {
    pass.unary(x, |x| libm::pow(x, exponent), |x, value| power_slope(x, exponent, value));
}

fn over_row(function: OverRow, x: &[f64], width: usize, pass: impl Pass) {
    let count = width as f64;
    match function {
        // Σ x; 1
        OverRow::Sum => pass.over_row(x, width, |row| row.iter().sum(), |_, _, _| 1.0),
        // Σ x / n; 1 / n
        OverRow::Mean => pass.over_row(x, width, |row| row.iter().sum::<f64>() / count, |_, _, _| 1.0 / count),
        // The largest x; 1 for it where it is alone, 0 for the others
        OverRow::Max => pass.over_row(
            x,
            width,
            |row| row.iter().copied().fold(f64::NEG_INFINITY, larger),
            |x, value, equal| one_if(x == value && equal == 1),
        ),
    }
}

/// −1, 0 or 1; NaN of NaN
fn sign(x: f64) -> f64 {
    if x == 0.0 || x.is_nan() { x.abs() } else { 1.0_f64.copysign(x) }
}

/// 1 / (1 + e^−x), by the exponential that does not overflow.
fn sigmoid(x: f64) -> f64 {
    let e = libm::exp(-x.abs());
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// σ(x)·σ(−x)
fn bell(x: f64) -> f64 {
    let e = libm::exp(-x.abs());
    e / ((1.0 + e) * (1.0 + e))
}

fn softplus(x: f64) -> f64 {
    larger(x, 0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// x^n by repeated squaring.
fn product_power(x: f64, n: i32) -> f64 {
    let (mut result, mut square, mut left) = (1.0, x, n.unsigned_abs());
    while left > 0 {
        if left % 2 == 1 {
            result *= square;
        }
        square *= square;
        left /= 2;
    }
    if n < 0 { 1.0 / result } else { result }
}

/// b·a^(b − 1), as b·a^b / a wherever that keeps its digits: `pow` costs as much as all the rest. 0 where b is 0.
fn power_slope(base: f64, exponent: f64, value: f64) -> f64 {
    match exponent {
        0.0 => 0.0,
        _ if value.is_normal() => exponent * (value / base),
        _ => exponent * libm::pow(base, exponent - 1.0),
    }
}

/// 0^b is 0 for every b above 0, whatever ln 0 is.
fn exponent_slope(base: f64, exponent: f64, value: f64) -> f64 {
    if base == 0.0 && exponent >= 0.0 { 0.0 } else { value * libm::log(base) }
}

/// NaN where either is.
fn smaller(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

/// NaN where either is.
fn larger(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

fn one_if(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// adjoint · slope, and 0 where either is 0: see the note on the reverse pass above.
#[inline(always)]
fn times(adjoint: f64, slope: f64) -> f64 {
    if adjoint == 0.0 || slope == 0.0 { 0.0 } else { adjoint * slope }
}

impl Pass for Forward<'_> {
    fn unary(self, x: &[f64], value: impl Fn(f64) -> f64, _: impl Fn(f64, f64) -> f64) {
        self.out.iter_mut().zip(x).for_each(|(out, &x)| *out = value(x));
    }

    fn binary(
        self,
        a: &[f64],
        b: &[f64],
        value: impl Fn(f64, f64) -> f64,
        _: impl Fn(f64, f64, f64) -> f64,
        _: impl Fn(f64, f64, f64) -> f64,
    ) {
        self.out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| *out = value(a, b));
    }

    fn choice(self, condition: &[f64], a: &[f64], b: &[f64]) {
        let branches = condition.iter().zip(a.iter().zip(b));
        self.out.iter_mut().zip(branches).for_each(|(out, (&it, (&a, &b)))| *out = if it != 0.0 { a } else { b });
    }

    fn spread(self, x: &[f64], width: usize) {
        self.out.chunks_exact_mut(width).zip(x).for_each(|(row, &x)| row.fill(x));
    }

    fn over_row(self, x: &[f64], width: usize, value: impl Fn(&[f64]) -> f64, _: impl Fn(f64, f64, usize) -> f64) {
        self.out.iter_mut().zip(x.chunks_exact(width)).for_each(|(out, row)| *out = value(row));
    }
}

impl Reverse<'_> {
    /// Adds one number to each adjoint of the operand, or overwrites it by the first.
    fn add(self, numbers: impl Iterator<Item = f64>) {
        if self.is_first {
            self.into.iter_mut().zip(numbers).for_each(|(into, number)| *into = number);
        } else {
            self.into.iter_mut().zip(numbers).for_each(|(into, number)| *into += number);
        }
    }
}

impl Pass for Reverse<'_> {
    fn unary(self, x: &[f64], _: impl Fn(f64) -> f64, slope: impl Fn(f64, f64) -> f64) {
        let known = self.adjoint.iter().zip(x.iter().zip(self.value));
        self.add(known.map(|(&adjoint, (&x, &value))| times(adjoint, slope(x, value))));
    }

    fn binary(
        self,
        a: &[f64],
        b: &[f64],
        _: impl Fn(f64, f64) -> f64,
        slope_a: impl Fn(f64, f64, f64) -> f64,
        slope_b: impl Fn(f64, f64, f64) -> f64,
    ) {
        let known = self.adjoint.iter().zip(self.value).zip(a.iter().zip(b));
        if self.side == 0 {
            self.add(known.map(|((&adjoint, &value), (&a, &b))| times(adjoint, slope_a(a, b, value))));
        } else {
            self.add(known.map(|((&adjoint, &value), (&a, &b))| times(adjoint, slope_b(a, b, value))));
        }
    }

    /// All of it to the branch that was taken.
    fn choice(self, condition: &[f64], _: &[f64], _: &[f64]) {
        let is_first_branch = self.side == 1;
        let known = self.adjoint.iter().zip(condition);
        self.add(known.map(|(&adjoint, &it)| if (it != 0.0) == is_first_branch { adjoint } else { 0.0 }));
    }

    /// The sum of the adjoints of all copies.
    fn spread(self, _: &[f64], width: usize) {
        let rows = self.adjoint.chunks_exact(width);
        self.add(rows.map(|row| row.iter().sum()));
    }

    fn over_row(self, x: &[f64], width: usize, _: impl Fn(&[f64]) -> f64, slope: impl Fn(f64, f64, usize) -> f64) {
        let rows = self.adjoint.iter().zip(self.value).zip(x.chunks_exact(width));
        let Self { is_first, into, .. } = self;
        for (((&adjoint, &value), row), into) in rows.zip(into.chunks_exact_mut(width)) {
            let equal = row.iter().filter(|&&x| x == value).count();
            for (into, &x) in into.iter_mut().zip(row) {
                let number = times(adjoint, slope(x, value, equal));
                *into = if is_first { number } else { *into + number };
            }
        }
    }
}
