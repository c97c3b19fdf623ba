//! What is wrong with a request: each fault with its path in it, all of them at once.

use std::fmt;
use std::ops::RangeInclusive;

use crate::limits::FAULTS_KEPT_MAX;

/// A place in a request, such as `architecture.layers[2].units`. Borrowed links, so that naming places costs nothing
/// until a fault is found.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    segment: Segment,
}

#[derive(Clone, Copy)]
enum Segment {
    Root,
    Field(&'static str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The request itself.
    pub const ROOT: At<'static> = At { parent: None, segment: Segment::Root };

    /// A field of the message at this place.
    pub fn field(&'a self, name: &'static str) -> At<'a> {
        At { parent: Some(self), segment: Segment::Field(name) }
    }

    /// An element of the repeated field at this place.
    pub fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), segment: Segment::Index(index) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        let below_root = self.parent.is_none_or(|parent| matches!(parent.segment, Segment::Root));
        match self.segment {
            Segment::Root => Ok(()),
            Segment::Field(name) if below_root => f.write_str(name),
            Segment::Field(name) => write!(f, ".{name}"),
            Segment::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// One fault: where, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field in the request; empty where the whole request is meant.
    pub path: String,
    /// A sentence without its subject's name: "must be between 1 and 65536, but is 0".
    pub message: String,
}

/// The faults found so far. Checks add to it and go on, so that one answer tells all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    kept: Vec<Fault>,
    left_out: usize,
}

impl Faults {
    /// No fault yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One fault alone.
    pub fn one(at: At<'_>, message: impl Into<String>) -> Self {
        let mut faults = Self::new();
        faults.add(at, message);
        faults
    }

    /// Adds a fault.
    pub fn add(&mut self, at: At<'_>, message: impl Into<String>) {
        if self.kept.len() < FAULTS_KEPT_MAX {
            self.kept.push(Fault { path: at.to_string(), message: message.into() });
        } else {
            self.left_out += 1;
        }
    }

    /// The faults in the order they were found, up to a bound.
    pub fn as_slice(&self) -> &[Fault] {
        &self.kept
    }

    /// How many were found.
    pub fn count(&self) -> usize {
        self.kept.len() + self.left_out
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// `value` where nothing was found and it could be built.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Faults> {
        match value {
            Some(value) if self.kept.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// Checks that a whole number lies in `range`; `None`, and a fault, where it does not.
    pub fn whole(&mut self, at: At<'_>, value: i64, range: RangeInclusive<i64>) -> Option<i64> {
        if range.contains(&value) {
            return Some(value);
        }
        self.add(at, format!("must be between {} and {}, but is {value}", range.start(), range.end()));
        None
    }

    /// Checks that a real number is finite and lies in `range`.
    pub fn real(&mut self, at: At<'_>, value: f64, range: RealRange) -> Option<f64> {
        if range.contains(value) {
            return Some(value);
        }
        self.add(at, format!("must be {range}, but is {}", short(value)));
        None
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.kept.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            match fault.path.as_str() {
                "" => write!(f, "{separator}{}", fault.message)?,
                path => write!(f, "{separator}{path}: {}", fault.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A number as a person would write it: 1e300 has three hundred digits otherwise, 1e-30 thirty.
pub(super) fn short(value: f64) -> String {
    let is_plain = value == 0.0 || (1e-5..1e9).contains(&value.abs());
    if is_plain { value.to_string() } else { format!("{value:e}") }
}

/// A range of finite real numbers, each end included or not. NaN and infinity are in none.
#[derive(Clone, Copy, Debug)]
pub struct RealRange {
    low: f64,
    low_included: bool,
    high: f64,
    high_included: bool,
}

impl RealRange {
    /// A positive number of which float32 holds also the root, the square root's reciprocal and products with usual numbers: what is
    /// smaller or larger would become 0 or infinite on its way.
    pub const MAGNITUDE: RealRange = RealRange::closed(1e-30, 1e30);

    /// `low ≤ x ≤ high`.
    pub const fn closed(low: f64, high: f64) -> Self {
        Self { low, low_included: true, high, high_included: true }
    }

    /// `low < x ≤ high`.
    pub const fn above(low: f64, high: f64) -> Self {
        Self { low, low_included: false, high, high_included: true }
    }

    /// `low ≤ x < high`.
    pub const fn below(low: f64, high: f64) -> Self {
        Self { low, low_included: true, high, high_included: false }
    }

    /// `low < x < high`.
    pub const fn open(low: f64, high: f64) -> Self {
        Self { low, low_included: false, high, high_included: false }
    }

    /// Whether a number is in it.
    pub(super) fn contains(&self, x: f64) -> bool {
        let above = if self.low_included { x >= self.low } else { x > self.low };
        let below = if self.high_included { x <= self.high } else { x < self.high };
        x.is_finite() && above && below
    }
}

impl fmt::Display for RealRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = if self.low_included { "at least" } else { "more than" };
        let high = if self.high_included { "at most" } else { "less than" };
        f.write_str("a finite number")?;
        if self.low > f64::MIN {
            write!(f, ", {low} {}", short(self.low))?;
        }
        if self.high < f64::MAX { write!(f, " and {high} {}", short(self.high)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_would_be_written_in_the_request() {
        let layers = At::ROOT.field("architecture");
        let layers = layers.field("layers");
        let layer = layers.index(2);
        assert_eq!(layer.field("units").to_string(), "architecture.layers[2].units");
        assert_eq!(At::ROOT.to_string(), "");
    }

    #[test]
    fn no_range_holds_a_number_that_is_not_finite() {
        let mut faults = Faults::new();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0] {
            assert_eq!(faults.real(At::ROOT.field("x"), value, RealRange::above(0.0, f64::MAX)), None);
        }
        assert_eq!(faults.as_slice().len(), 5);
        assert_eq!(faults.real(At::ROOT, 0.5, RealRange::open(0.0, 1.0)), Some(0.5));
        assert_eq!(faults.real(At::ROOT, 1.0, RealRange::below(0.0, 1.0)), None);
    }

    #[test]
    fn faults_join_into_one_sentence() {
        let mut faults = Faults::one(At::ROOT.field("epochs"), "must be positive");
        faults.add(At::ROOT, "needs inputs");
        assert_eq!(faults.to_string(), "epochs: must be positive; needs inputs");
        assert!(faults.finish(Some(())).is_err());
        assert!(Faults::new().finish(Some(())).is_ok());
    }
}
