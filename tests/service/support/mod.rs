//! A server of its own for each test, on a port of its own, and what tests say to it.

mod circle;
mod files;
mod json;
#[cfg(target_os = "linux")]
mod measure;
mod process;
mod random;
mod refusals;
mod requests;
mod server;
mod training;

pub use circle::*;
pub use files::*;
pub use json::*;
#[cfg(target_os = "linux")]
pub use measure::*;
pub use process::{Process, program, run, signal};
#[cfg(target_os = "linux")]
pub use process::{address_space, serve_to_death};
pub use random::Random;
pub use refusals::{Failures, nested};
pub use requests::*;
pub use server::{Api, Server};
pub use training::*;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The paths of the fields that a status names.
pub fn fields(status: &Status) -> Vec<String> {
    let bad_request = status.get_details_bad_request();
    bad_request.map(|it| it.field_violations.into_iter().map(|it| it.field).collect()).unwrap_or_default()
}

/// Asserts the code of a refusal, and that it says `part`.
#[track_caller]
pub fn refused<T>(answer: Result<T, Status>, code: Code, part: &str) {
    let status = answer.err().expect("the call should have been refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{:?} does not say {part:?}", status.message());
}
