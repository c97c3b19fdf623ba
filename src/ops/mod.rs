//! Operations: connections, the layer around every call, health, reflection, logs.

mod call;
mod connection;
pub mod health;
mod reflection;
mod span;
pub mod telemetry;
mod transport;

pub use transport::{Transport, TransportError};
