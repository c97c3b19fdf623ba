//! Operations: connections, the layer around every call, health, reflection, logs.

mod body;
mod call;
mod connection;
mod deadline;
pub mod health;
mod reading;
mod reflection;
mod serving;
mod span;
pub mod telemetry;
mod transport;
mod word;

pub use reading::{Answering, Gathering, PREFIX_BYTES, Quick};
pub use transport::{Transport, TransportError};
