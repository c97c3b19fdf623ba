//! What a later training needs to go on where one ended.

use std::sync::Arc;

use super::matrix::{Values, ValuesRef};

/// The state of a training at its end: small things, encoded by whoever made them, and vectors as long as the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// Everything but the vectors.
    pub head: Vec<u8>,
    /// In the order of whoever made them. One of them may be the weights of the version, too.
    pub vectors: Vec<Arc<Values>>,
}

/// The same in the midst of a training, which keeps its vectors: large networks are not copied to be written.
#[derive(Debug)]
pub struct ContinuationRef<'a> {
    /// Everything but the vectors.
    pub head: &'a [u8],
    /// In the order of whoever made them.
    pub vectors: Vec<ValuesRef<'a>>,
}

impl<'a> From<&'a Continuation> for ContinuationRef<'a> {
    fn from(continuation: &'a Continuation) -> Self {
        let vectors = continuation.vectors.iter().map(|values| values.as_ref().into()).collect();
        Self { head: &continuation.head, vectors }
    }
}
