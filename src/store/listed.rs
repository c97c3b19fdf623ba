//! Entries of a list: one that is damaged does not keep the others from being told.

use super::error::StoreError;

/// An entry of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Listed<T> {
    /// It, verified.
    Item(T),
    /// The end of the key of one that cannot be read: a name, a number or an id.
    Unreachable(String),
}

impl<T> Listed<T> {
    /// The entry of a key; only damage is an entry, any other fault is the list's.
    pub(super) fn of(key: &str, item: Result<T, StoreError>) -> Result<Self, StoreError> {
        match item {
            Ok(item) => Ok(Self::Item(item)),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "an entry of a list cannot be read, and is told as unreachable");
                Ok(Self::Unreachable(key.rsplit('/').next().unwrap_or(key).to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// What is there, if it can be read.
    pub fn item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Unreachable(_) => None,
        }
    }
}
