//! Names that callers choose.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fault::{At, Faults};
use crate::limits::MODEL_ID_BYTES_MAX;

/// The name of a model: lower-case letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit, at most
/// 63 bytes. An index into models, never a file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelId(String);

impl ModelId {
    /// The shape in words, for errors.
    pub const SHAPE: &'static str =
        "1 to 63 characters from a-z, 0-9, '-', '_' and '.', starting and ending with a letter or digit";

    /// Checks a name.
    pub fn new(name: &str, at: At<'_>, faults: &mut Faults) -> Option<Self> {
        if Self::is_well_formed(name) {
            return Some(Self(name.to_owned()));
        }
        let problem = if name.is_empty() { "is required".to_owned() } else { format!("{name:.80?} is not a model id") };
        faults.add(at, format!("{problem}: use {}", Self::SHAPE));
        None
    }

    /// A name of the server's own making, from a number that was drawn for it.
    pub fn generated(number: u32) -> Self {
        Self(format!("model-{number:08x}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_well_formed(name: &str) -> bool {
        let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = name.as_bytes();
        let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
        bytes.len() <= MODEL_ID_BYTES_MAX
            && alphanumeric(first)
            && alphanumeric(last)
            && bytes.iter().all(|&byte| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.'))
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_names_are_model_ids() {
        let accepts = |name: &str| ModelId::new(name, At::ROOT, &mut Faults::new()).is_some();
        assert!(accepts(ModelId::generated(7).as_str()));
        for good in ["a", "xor", "iris-2", "v1.2_b", &"a".repeat(63)] {
            assert!(accepts(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "ä", "a b", "../x", "a/b", &"a".repeat(64)] {
            assert!(!accepts(bad), "{bad}");
        }
    }
}
