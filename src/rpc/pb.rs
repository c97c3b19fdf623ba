//! The messages and services that `build.rs` made from `proto/`. Nothing outside `rpc` and the command line, which is a
//! client, uses them.

// The comments of the contract are for its readers in every language, not for rustdoc.
#![allow(missing_docs, rustdoc::all, clippy::all, clippy::pedantic)]

tonic::include_proto!("epochd.v1");

mod clients {
    include!(concat!(env!("OUT_DIR"), "/clients/epochd.v1.rs"));
}
pub use super::epoch_reports::EpochReports;
pub use clients::{admin_service_client, job_service_client, model_service_client};

/// Every file of the contract, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("epochd_descriptor_set");
