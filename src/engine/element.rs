//! The two number types that networks compute in.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use bytemuck::Pod;

use super::elementary;
use super::product::Lanes;
use super::simd::vectorized;
use crate::domain::{ElementType, Values};

/// `f32` or `f64`. Of float32 exponentials, logarithms and tanh are those of [`elementary`]; all other transcendental functions
/// come from the `libm` crate. So a build gives the same bits whichever C library it runs on; square roots are exact by
/// IEEE 754 and need no library.
pub trait Element:
    Lanes
    + Copy
    + Debug
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Pod
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + SubAssign
    + Mul<Output = Self>
    + MulAssign
    + Div<Output = Self>
    + DivAssign
    + Neg<Output = Self>
    + Sum
{
    /// The name of the type in the domain.
    const ELEMENT_TYPE: ElementType;
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// 2
    const TWO: Self;
    /// Below this magnitude [`flush`](Self::flush) makes zero of a number: far above the denormal numbers (2⁻¹²⁶ in
    /// float32), so that a few more products stay normal, and far below anything that moves a weight.
    const TINY: Self;
    /// √[`TINY`](Self::TINY): what may be squared without coming near the denormal numbers.
    const TINY_ROOT: Self;

    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;
    /// The same number, widened.
    fn to_f64(self) -> f64;
    /// e^x
    fn exp(self) -> Self;
    /// e^x − 1, exact near 0
    fn exp_m1(self) -> Self;
    /// ln x
    fn ln(self) -> Self;
    /// ln(1 + x), exact near 0
    fn ln_1p(self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// The complementary error function, 1 − erf x, with all its digits where it is small.
    fn erfc(self) -> Self;
    /// x^y
    fn pow(self, y: Self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// |x|
    fn abs(self) -> Self;
    /// Whether it is neither NaN nor infinite.
    fn is_finite(self) -> bool;

    /// The numbers in this type, rounded where they are wider; no copy where they are of it already, unless they are packed.
    fn vec_from(values: Values) -> Vec<Self>;
    /// The numbers as the domain holds them.
    fn values_from(vec: Vec<Self>) -> Values;
    /// The numbers in place, where they are of this type.
    fn slice_of(values: &Values) -> Option<&[Self]>;

    /// 0 where |x| < [`TINY`](Self::TINY), else x. Products with denormal numbers cost tens of times as much as others,
    /// and a moment or an error signal that decays towards 0 would stay denormal for thousands of steps. Flushing by CPU
    /// mode would be quicker still, but is a thread's and not the program's. Compiles to a mask, without a branch.
    #[inline(always)]
    fn flush(self) -> Self {
        if self.abs() < Self::TINY { Self::ZERO } else { self }
    }
}

macro_rules! impl_element {
    ($t:ident, $name:ident, $variant:ident, $tiny:expr, $tiny_root:expr,
     $functions:ident::{$exp:ident, $exp_m1:ident, $ln:ident, $ln_1p:ident, $tanh:ident},
     libm::{$erfc:ident, $pow:ident}) => {
        impl Element for $t {
            const ELEMENT_TYPE: ElementType = ElementType::$name;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const TWO: Self = 2.0;
            const TINY: Self = $tiny;
            const TINY_ROOT: Self = $tiny_root;

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $functions::$exp(self)
            }
            #[inline(always)]
            fn exp_m1(self) -> Self {
                $functions::$exp_m1(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $functions::$ln(self)
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                $functions::$ln_1p(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $functions::$tanh(self)
            }
            #[inline]
            fn erfc(self) -> Self {
                libm::$erfc(self)
            }
            #[inline]
            fn pow(self, y: Self) -> Self {
                libm::$pow(self, y)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }

            fn vec_from(values: Values) -> Vec<Self> {
                match values.into_element_type(ElementType::$name).unpacked() {
                    Values::$variant(values) => values,
                    other => other.iter().map(Self::from_f64).collect(),
                }
            }
            fn values_from(vec: Vec<Self>) -> Values {
                Values::$variant(vec)
            }
            fn slice_of(values: &Values) -> Option<&[Self]> {
                match values {
                    Values::$variant(values) => Some(values),
                    _ => None,
                }
            }
        }
    };
}

/// 2⁻¹⁰⁰ and 2⁻⁵⁰.
const TINY_F32: f32 = f32::from_bits((127 - 100) << 23);
const TINY_ROOT_F32: f32 = f32::from_bits((127 - 50) << 23);
/// 2⁻⁹⁰⁰ and 2⁻⁴⁵⁰.
const TINY_F64: f64 = f64::from_bits((1023 - 900) << 52);
const TINY_ROOT_F64: f64 = f64::from_bits((1023 - 450) << 52);

impl_element!(
    f32,
    Float32,
    F32,
    TINY_F32,
    TINY_ROOT_F32,
    elementary::{exp, exp_m1, ln, ln_1p, tanh},
    libm::{erfcf, powf}
);
impl_element!(f64, Float64, F64, TINY_F64, TINY_ROOT_F64, libm::{exp, expm1, log, log1p, tanh}, libm::{erfc, pow});

/// Whether every number is finite.
pub fn all_finite<T: Element>(values: &[T]) -> bool {
    values.chunks(4_096).all(|chunk| vectorized!(is_finite_chunk(chunk)))
}

/// Branch-free, and in sums that do not wait for each other, so that it runs at memory speed: x·0 is 0 for a finite x and NaN otherwise.
#[inline(always)]
fn is_finite_chunk<T: Element>(chunk: &[T]) -> bool {
    const SUMS: usize = 64;
    let (groups, rest) = chunk.as_chunks::<SUMS>();
    let of_rest = rest.iter().fold(T::ZERO, |sum, &x| sum + x * T::ZERO);
    if groups.is_empty() {
        return of_rest == T::ZERO;
    }
    let mut sums = [of_rest; SUMS];
    for group in groups {
        for (sum, &x) in sums.iter_mut().zip(group) {
            *sum += x * T::ZERO;
        }
    }
    sums.iter().fold(true, |are_finite, &sum| are_finite & (sum == T::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_makes_zero_of_what_is_about_to_be_denormal_and_of_nothing_else() {
        assert_eq!(1e-38_f32.flush(), 0.0);
        assert_eq!((-1e-31_f32).flush(), 0.0);
        assert_eq!(1e-29_f32.flush(), 1e-29);
        assert_eq!(1e-300_f64.flush(), 0.0);
        assert_eq!(1e-200_f64.flush(), 1e-200);
        assert!(f32::NAN.flush().is_nan());
        assert_eq!(f32::TINY_ROOT * f32::TINY_ROOT, f32::TINY);
        assert_eq!(f64::TINY_ROOT * f64::TINY_ROOT, f64::TINY);
    }

    #[test]
    fn numbers_are_finite_or_not_whatever_their_count() {
        fn check<T: Element>(largest: T) {
            for count in [0, 1, 2, 63, 64, 65, 127, 128, 4_095, 4_096, 4_097, 4_160] {
                let mut values: Vec<T> = [largest, -largest, -T::ZERO].into_iter().cycle().take(count).collect();
                assert!(all_finite(&values), "{count}");
                for place in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|&place| place < count) {
                    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                        let right = std::mem::replace(&mut values[place], T::from_f64(wrong));
                        assert!(!all_finite(&values), "{wrong} at {place} of {count}");
                        values[place] = right;
                    }
                }
            }
        }
        check(f32::MAX);
        check(f64::MAX);
    }

    #[test]
    fn one_number_that_is_not_finite_is_found_among_many() {
        let mut values = vec![1e38_f32; 10_000];
        assert!(all_finite(&values));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // Within a group, and where numbers fill none.
            for place in [0, 7_777, 9_999] {
                let right = std::mem::replace(&mut values[place], wrong);
                assert!(!all_finite(&values));
                values[place] = right;
            }
        }
    }

    #[test]
    fn values_come_and_go_without_changing_a_bit() {
        let values = vec![0.1_f32, -3.5];
        assert_eq!(f32::vec_from(f32::values_from(values.clone())), values);
        assert_eq!(f64::vec_from(Values::F32(values)), [f64::from(0.1_f32), -3.5]);
        assert_eq!(f64::slice_of(&Values::F32(vec![1.0])), None);
    }
}
