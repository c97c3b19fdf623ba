//! What a later training needs to go on where one ended.

use super::matrix::Values;

/// The state of a training at its end: small things, encoded by whoever made them, and vectors as long as the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// Everything but the vectors.
    pub head: Vec<u8>,
    /// In the order of whoever made them.
    pub vectors: Vec<Values>,
}
