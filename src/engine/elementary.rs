//! Elementary functions of float32 as loops over slices need them: without a branch, a table or a call, so that the compiler
//! makes them vectors as wide as the processor has. They are sums and products of float32 alone, never fused, so that they
//! have the same bits in a vector of any width and on every processor.
//!
//! | function | largest error, ulp | at |
//! |---|---|---|
//! | [`exp`] | 1.00 | −5.844485 |
//! | [`exp_m1`] | 1.65 | 0.38349497 |
//! | [`tanh`] | 1.99 | ±0.5191197 |
//! | [`ln`] | 0.84 | 1.3335308 |
//! | [`ln_1p`] | 1.59 | 0.33353075 |
//! | `activation::sigmoid` | 2.41 | −4.157294 |
//! | `activation::functions::softplus` | 1.87 | −1.0902219 |
//!
//! These are over every float32, against float64 functions of `libm`, in units in the last place of the exact value; of
//! subnormal values 2⁻¹⁴⁹. `EPOCHD_ALL_FLOATS=1 cargo test --release --lib engine::elementary` looks at all of them again.
//!
//! The reductions of the argument are Cody and Waite's (Software Manual for the Elementary Functions, 1980): ln 2 in two
//! parts, the first of so few bits that its multiples are exact. The coefficients are our own:
//! `tests/fixtures/elementary.py` computes them.

// The coefficients are as that script prints them.
#![allow(clippy::excessive_precision)]

/// Where a number of up to 22 bits is added, what is left of the sum is its nearest integer, in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;
/// The parts of ln 2.
const LN_2_HIGH: f32 = 0.693_145_75;
const LN_2_LOW: f32 = 1.428_606_8e-6;
/// Bits of the fraction of a float32.
const FRACTION_BITS: u32 = 23;
/// What is added to its exponent.
const BIAS: i32 = 127;

/// 2^n for −126 ≤ n ≤ 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(BIAS) << FRACTION_BITS) as u32)
}

/// n and r with x = n·ln 2 + r and |r| ≤ ln 2 ÷ 2, for |x| ≤ 128; of a NaN r is one, and n anything.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let shifted = x * std::f32::consts::LOG2_E + ROUNDER;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let k = shifted - ROUNDER;
    (n, (x - k * LN_2_HIGH) - k * LN_2_LOW)
}

/// e^r − 1 for |r| ≤ ln 2 ÷ 2, as r + r²·p(r).
#[inline(always)]
fn exp_m1_near_0(r: f32) -> f32 {
    let p = 1.386_243_2e-3;
    let p = p * r + 8.366_679e-3;
    let p = p * r + 4.166_752_5e-2;
    let p = p * r + 1.666_654_2e-1;
    let p = p * r + 4.999_999_7e-1;
    r + r * r * p
}

/// `x`, but at least `low`. NaN stays NaN.
#[inline(always)]
fn at_least(low: f32, x: f32) -> f32 {
    if x < low { low } else { x }
}

/// `x`, but at most `high`. NaN stays NaN.
#[inline(always)]
fn at_most(high: f32, x: f32) -> f32 {
    if x > high { high } else { x }
}

/// e^x; infinite above 88.72284, gradually smaller below −87.33655, where it is rounded to subnormal numbers, and 0 below
/// −103.97.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOW: f32 = -103.98;
    // What comes to 0 is not computed: a product that is too small for a normal number takes a processor many times as long.
    let is_zero = x < LOW;
    // Past 89 e^x is as it is there.
    let (n, r) = reduce(if is_zero { 0.0 } else { at_most(89.0, x) });
    // In two factors: 2^n may be too large or too small for a float32 where e^x is not.
    let half = n >> 1;
    let value = (1.0 + exp_m1_near_0(r)) * power_of_two(half) * power_of_two(n.wrapping_sub(half));
    if is_zero { 0.0 } else { value }
}

/// e^x − 1; infinite above 88.72284.
#[inline(always)]
pub fn exp_m1(x: f32) -> f32 {
    let (n, r) = reduce(at_most(89.0, at_least(-20.0, x)));
    // Of half the size, since 2^n is too large for n = 128.
    let half = power_of_two(n.wrapping_sub(1));
    let value = 2.0 * (half * exp_m1_near_0(r) + (half - 0.5));
    value.copysign(x)
}

/// tanh x, as (1 − e) ÷ (1 + e) with e = e^(−2·|x|).
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Past it the quotient is 1.
    let (n, r) = reduce(at_least(-20.0, -2.0 * x.abs()));
    // e is scale + rest: apart, since for a small x the rest alone has the digits of 1 − e.
    let scale = power_of_two(n);
    let rest = scale * exp_m1_near_0(r);
    (((1.0 - scale) - rest) / ((1.0 + scale) + rest)).copysign(x)
}

/// The k for which 2^−k·x is in [⅔, 4⁄3), in the place of the exponent, for a positive normal number.
#[inline(always)]
fn exponent(x: f32) -> i32 {
    const TWO_THIRDS: i32 = 0x3f2a_aaab;
    ((x.to_bits() as i32).wrapping_sub(TWO_THIRDS)) & (-1 << FRACTION_BITS)
}

/// k·ln 2 + ln(1 + f) for |f| ≤ ⅓, as f − f²/2 + f³·p(f); `exponent` is k·2²³.
#[inline(always)]
fn log(exponent: i32, f: f32) -> f32 {
    let k = (exponent >> FRACTION_BITS) as f32;
    let p = -1.264_714_7e-1;
    let p = p * f + 1.400_881_6e-1;
    let p = p * f - 1.224_084_05e-1;
    let p = p * f + 1.400_010_4e-1;
    let p = p * f - 1.667_638_9e-1;
    let p = p * f + 2.001_083_5e-1;
    let p = p * f - 2.499_988_8e-1;
    let p = p * f + 3.333_320_6e-1;
    let square = f * f;
    // What is smaller comes first, so that f loses least.
    k * LN_2_HIGH + (f - (0.5 * square - (f * square * p + k * LN_2_LOW)))
}

/// ln x; −∞ of ±0, NaN below.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    const SHIFT: i32 = 23;
    let is_subnormal = x < f32::MIN_POSITIVE;
    let normal = if is_subnormal { x * power_of_two(SHIFT) } else { x };
    let exponent = exponent(normal);
    let f = f32::from_bits((normal.to_bits() as i32).wrapping_sub(exponent) as u32) - 1.0;
    let exponent = if is_subnormal { exponent.wrapping_sub(SHIFT << FRACTION_BITS) } else { exponent };
    let edge = if x == 0.0 { f32::NEG_INFINITY } else { not_negative(x) };
    if x > 0.0 && x < f32::INFINITY { log(exponent, f) } else { edge }
}

/// ln(1 + x); −∞ of −1, NaN below.
#[inline(always)]
pub fn ln_1p(x: f32) -> f32 {
    let exponent = exponent(1.0 + x);
    // 2^−k·x + (2^−k − 1): exact but for k = 1 and k > 24. As a quarter of 2^(2−k), since k may be 128.
    let scaled = f32::from_bits((x.to_bits() as i32).wrapping_sub(exponent) as u32);
    let quadruple = f32::from_bits((4.0_f32.to_bits() as i32).wrapping_sub(exponent) as u32);
    let f = scaled + (0.25 * quadruple - 1.0);
    let edge = if x == -1.0 { f32::NEG_INFINITY } else { not_negative(x) };
    if x > -1.0 && x < f32::INFINITY { log(exponent, f).copysign(x) } else { edge }
}

/// NaN where x < 0, else x: ∞ or NaN.
#[inline(always)]
fn not_negative(x: f32) -> f32 {
    if x < 0.0 { f32::NAN } else { x }
}

#[cfg(test)]
mod tests;
