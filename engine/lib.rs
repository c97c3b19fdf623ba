//! What epochd calculates, and the values that it calculates on: the modules [`limits`], [`domain`] and [`engine`] of `src/`, which
//! know nothing of the service.
//!
//! They are a crate of their own for how it is compiled: for speed, whatever the rest is compiled for, and only when they change. The
//! crate `epochd` has them under the same names, so that a path such as `crate::domain` is the same on both sides.

#![deny(unsafe_code)]
#![warn(missing_docs)]
// What panics by its name alone says why it does not.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

#[path = "../src/domain/mod.rs"]
pub mod domain;
#[path = "../src/engine/mod.rs"]
pub mod engine;
#[path = "../src/limits.rs"]
pub mod limits;
