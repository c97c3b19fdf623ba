//! epochd: a gRPC service that trains feed-forward neural networks on its callers' data and serves predictions from the
//! same process.
//!
//! Data flows one way: wire → domain → engine → store. `domain`, `engine` and `limits` are compiled as a crate of their own,
//! `engine/lib.rs`, and have the same names here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | one file a command |
//! | [`config`], [`limits`] | settings, raw and checked; every bound with its reason |
//! | [`server`] | the composition root |
//! | [`domain`] | checked plain values |
//! | [`engine`] | the mathematics |
//! | [`store`] | what is durable |
//! | [`jobs`] | the scheduler and the histories |
//! | [`app`] | the use cases |
//! | [`rpc`] | the wire |
//! | [`ops`] | connections, health, reflection, logs |
//!
//! Invariants, held by `tests/`: `domain` uses no other module but `limits`, which uses none; `engine` uses only
//! those two; `store` and
//! `jobs` know nothing of the wire; only `rpc` and `ops` know the gRPC libraries.

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

pub mod app;
pub mod cli;
pub mod config;
pub mod jobs;
pub mod ops;
pub mod rpc;
pub mod server;
pub mod store;

pub use epochd_engine::{domain, engine, limits};
