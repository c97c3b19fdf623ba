use std::thread;

use super::*;
use crate::engine::activation::functions::softplus;
use crate::engine::activation::sigmoid;

/// Every float32, or one in so many: a prime number, so that all bits change.
const STRIDE: usize = if option_env!("EPOCHD_ALL_FLOATS").is_some() { 1 } else { 997 };

/// Where functions change their ways, with what lies beside.
const EDGES: [f32; 14] = [
    0.0,
    f32::MIN_POSITIVE,
    1.0 / 3.0,
    0.5,
    1.0,
    // Past these e^x is infinite, subnormal and 0.
    88.722_84,
    87.336_55,
    103.972_08,
    9.010_913,
    89.0,
    105.0,
    16_777_216.0,
    f32::MAX,
    f32::INFINITY,
];

/// By how many units in the last place of the exact value the other is wrong.
fn ulps(value: f32, exact: f64) -> f64 {
    if value.is_nan() || exact.is_nan() {
        return if value.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if value.is_sign_negative() != exact.is_sign_negative() {
        return f64::INFINITY;
    }
    // Past the largest number the next one would be 2^128.
    let bounded = |x: f64| x.clamp(-128_f64.exp2(), 128_f64.exp2());
    let exponent = (((exact.to_bits() >> 52) & 0x7ff) as i32 - 1_023).clamp(-126, 127);
    (bounded(f64::from(value)) - bounded(exact)).abs() / f64::from(exponent - 23).exp2()
}

/// The largest error and where it is.
fn worst(bits: impl Iterator<Item = u32>, function: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> (f64, f32) {
    bits.map(f32::from_bits)
        .map(|x| (ulps(function(x), exact(f64::from(x))), x))
        .fold((0.0, 0.0), |worst, error| if error.0 > worst.0 { error } else { worst })
}

/// EPOCHD_ALL_FLOATS=1 is the whole of it: every float32. It is read when the tests are built, since the engine reads no
/// environment.
#[track_caller]
fn is_within(bound: f64, function: impl Fn(f32) -> f32 + Sync, exact: impl Fn(f64) -> f64 + Sync) {
    let edges = EDGES.iter().flat_map(|x| {
        let bits = x.to_bits();
        let beside = bits.saturating_sub(3)..=bits + 3;
        beside.flat_map(|bits| [bits, bits | 1 << 31])
    });
    let mut errors = vec![worst(edges, &function, &exact)];
    let parts = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        let (function, exact) = (&function, &exact);
        let start = |part: u64| (part << 32) / parts;
        let bits = move |part| (start(part)..start(part + 1)).step_by(STRIDE).map(|bits| bits as u32);
        let threads: Vec<_> = (0..parts).map(|it| scope.spawn(move || worst(bits(it), function, exact))).collect();
        errors.extend(threads.into_iter().map(|it| it.join().unwrap()));
    });
    let (error, x) = errors.into_iter().fold((0.0, 0.0), |worst, it| if it.0 > worst.0 { it } else { worst });
    println!("{error:.4} ulp at {x:e}");
    assert!(error <= bound, "{error} ulp at {x:e}");
}

#[test]
fn the_exponential_is_within_its_bound() {
    is_within(1.0, exp, libm::exp);
}

#[test]
fn the_exponential_less_one_is_within_its_bound() {
    is_within(1.7, exp_m1, libm::expm1);
}

#[test]
fn the_logarithm_is_within_its_bound() {
    is_within(0.9, ln, libm::log);
}

#[test]
fn the_logarithm_near_one_is_within_its_bound() {
    is_within(1.6, ln_1p, libm::log1p);
}

#[test]
fn the_hyperbolic_tangent_is_within_its_bound() {
    is_within(2.0, tanh, libm::tanh);
}

#[test]
fn the_sigmoid_is_within_its_bound() {
    is_within(2.5, sigmoid::<f32>, sigmoid::<f64>);
}

#[test]
fn softplus_is_within_its_bound() {
    is_within(2.0, softplus::<f32>, softplus::<f64>);
}

#[test]
fn edges_are_as_documented() {
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(88.722_84), f32::INFINITY);
    assert!(exp(88.722_83) < f32::INFINITY);
    assert_eq!(exp(-103.98), 0.0);
    assert_eq!(exp(-103.97), f32::from_bits(1));
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp_m1(f32::NEG_INFINITY), -1.0);
    assert_eq!(exp_m1(f32::INFINITY), f32::INFINITY);
    for function in [exp_m1, tanh, ln_1p] {
        assert_eq!(function(-0.0).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(function(-1e-38), -1e-38);
    }
    assert_eq!((tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, -1.0));
    assert_eq!((ln(0.0), ln(-0.0), ln(1.0)), (f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0));
    assert_eq!((ln(f32::INFINITY), ln_1p(f32::INFINITY)), (f32::INFINITY, f32::INFINITY));
    assert_eq!(ln_1p(-1.0), f32::NEG_INFINITY);
    assert!(ln(-f32::MIN_POSITIVE).is_nan() && ln_1p(-1.000_000_1).is_nan());
    for function in [exp, exp_m1, tanh, ln, ln_1p] {
        assert!(function(f32::NAN).is_nan() && function(-f32::NAN).is_nan());
    }
}
