//! epochd
pub mod domain;
pub mod limits;
