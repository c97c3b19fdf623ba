//! Moments as values. The domain reads no clock: the use cases do, and hand the moment in.

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Microseconds since the Unix epoch.
    pub unix_micros: i64,
}
