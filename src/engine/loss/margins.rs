//! Losses of the margin, y being −1 or 1: each gives its value and its derivative by the output.

use crate::engine::element::Element;

/// −y·z where y·z ≤ 0, else 0; derivative −y or 0 (Rosenblatt 1958). z = 0 is wrong: sign(0) = 0 is neither class.
#[inline]
pub(super) fn perceptron<T: Element>(z: T, y: T) -> (T, T) {
    // Written so that a NaN is in the sum, and is seen.
    let is_right = y * z > T::ZERO;
    if is_right { (T::ZERO, T::ZERO) } else { (-y * z, -y) }
}

/// max(0, 1 − y·ŷ); derivative −y where the margin is below 1, else 0
#[inline]
pub(super) fn hinge<T: Element>(output: T, y: T) -> (T, T) {
    let lack = T::ONE - y * output;
    if lack <= T::ZERO { (T::ZERO, T::ZERO) } else { (lack, -y) }
}

/// max(0, 1 − y·ŷ)²; derivative −2·y·(1 − y·ŷ) where the margin is below 1, else 0
#[inline]
pub(super) fn squared_hinge<T: Element>(output: T, y: T) -> (T, T) {
    let lack = T::ONE - y * output;
    if lack <= T::ZERO { (T::ZERO, T::ZERO) } else { (lack * lack, -T::TWO * y * lack) }
}
