//! Errors as gRPC tells them: the one place that chooses a code.

use std::borrow::Cow;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::app::AppError;
use crate::domain::{Failure, FailureKind, Fault, Faults};
use crate::limits::{VIOLATION_BYTES_MAX, VIOLATIONS_MAX};

impl From<AppError> for Status {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Invalid(faults) => invalid(&faults),
            AppError::NotFound(message) => Status::not_found(message),
            AppError::AlreadyExists(message) => Status::already_exists(message),
            AppError::Precondition(message) => Status::failed_precondition(message),
            AppError::Exhausted(message) => Status::resource_exhausted(message),
            AppError::Stopping => Status::unavailable(error.to_string()),
            AppError::Unavailable(message) => Status::unavailable(message),
            AppError::DataLoss(message) => {
                tracing::error!(what = message, "stored data is damaged");
                Status::data_loss(message)
            }
            AppError::Internal(cause) => {
                tracing::error!(cause, "internal error");
                Status::internal("a fault of the server; its log has the cause, under this call's epochd-call-id")
            }
        }
    }
}

/// INVALID_ARGUMENT with each field at fault, as many of them as fit into a trailer that clients still read.
pub(super) fn invalid(faults: &Faults) -> Status {
    let told = told(faults.as_slice());
    let left_out = faults.count() - told.len();
    let mut message = String::new();
    for fault in told.iter().take(3) {
        let separator = if message.is_empty() { "" } else { "; " };
        let path = if fault.path.is_empty() { "request" } else { &fault.path };
        message.push_str(&format!("{separator}{path}: {}", shortened(&fault.message, SUMMARY_BYTES_MAX)));
    }
    let more = faults.count() - told.len().min(3);
    if more > 0 {
        message.push_str(&format!("; and {more} more"));
    }
    let mut violations: Vec<FieldViolation> =
        told.iter().map(|fault| FieldViolation::new(&fault.path, shortened(&fault.message, FAULT_BYTES_MAX))).collect();
    if left_out > 0 {
        violations.push(FieldViolation::new("", format!("and {left_out} more")));
    }
    Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(violations))
}

/// The faults that fit.
fn told(faults: &[Fault]) -> &[Fault] {
    let mut bytes = 0;
    let fits = |fault: &&Fault| {
        bytes += fault.path.len() + shortened(&fault.message, FAULT_BYTES_MAX).len();
        bytes <= VIOLATION_BYTES_MAX
    };
    let count = faults.iter().take(VIOLATIONS_MAX - 1).take_while(fits).count();
    &faults[..count.max(1).min(faults.len())]
}

/// What the details say of one fault, at most.
const FAULT_BYTES_MAX: usize = 512;

/// What the status's own message says of one fault, at most: it travels twice, as a header and within the details.
const SUMMARY_BYTES_MAX: usize = 160;

/// What stands in the place of what is cut off.
const CUT: &str = " ...";

/// A word of at most so many bytes is left out rather than cut.
const WORD_BYTES_MAX: usize = 32;

/// A message that quotes a caller's text may be long: what it says of it is in its beginning. It is cut behind a word, but within a long one.
fn shortened(message: &str, bytes_max: usize) -> Cow<'_, str> {
    if message.len() <= bytes_max {
        return message.into();
    }
    let (kept, rest) = message.split_at(message.floor_char_boundary(bytes_max - CUT.len()));
    let last_word = kept.len() - kept.rfind(char::is_whitespace).unwrap_or(0);
    let is_cut = !rest.starts_with(char::is_whitespace) && last_word <= WORD_BYTES_MAX;
    let words = if is_cut { &kept[..kept.len() - last_word] } else { kept };
    format!("{}{CUT}", words.trim_end()).into()
}

/// Why a job failed, as a status.
pub(super) fn failure_status(failure: &Failure) -> tonic_types::Status {
    let code = match failure.kind {
        // The data or the settings led there: not a fault of the server's.
        FailureKind::Diverged | FailureKind::NotContinuable => Code::FailedPrecondition,
        FailureKind::TimeOver => Code::DeadlineExceeded,
        FailureKind::Interrupted => Code::Aborted,
        FailureKind::DataLoss => Code::DataLoss,
        FailureKind::Internal => Code::Internal,
    };
    tonic_types::Status { code: code.into(), message: failure.message.clone(), details: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::At;

    #[test]
    fn a_long_message_is_cut_behind_a_word() {
        assert_eq!(shortened("must be 1", 9), "must be 1");
        assert_eq!(shortened("must be 1 or 2", 12), "must be ...");
        assert_eq!(shortened("must be 1 or 2", 11), "must be ...");
        assert_eq!(shortened("must be 1 or 2", 10), "must ...");
        let name = "a".repeat(600);
        assert_eq!(shortened(&format!("is {name}"), 160), format!("is {} ...", &name[..153]));
        for bytes_max in 4..30 {
            for message in ["überüberüberüberüberüberüber", "ü ü ü ü ü ü ü ü ü ü ü ü ü ü ü"] {
                assert!(shortened(message, bytes_max).len() <= bytes_max);
            }
        }
    }

    #[test]
    fn five_hundred_faults_still_fit_into_a_trailer() {
        let mut faults = Faults::new();
        for index in 0..500 {
            let at = At::ROOT.field("layers");
            faults.add(at.index(index).field("units"), "must be between 1 and 65536, but is 0 ".repeat(20));
        }
        let status = invalid(&faults);
        let bytes = status.details().len() * 4 / 3 + status.message().len();
        assert!(bytes < 8_192, "{bytes}");
        assert!(status.message().ends_with("more"), "{}", status.message());
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "layers[0].units");
        let left_out = 500 - (violations.len() - 1);
        assert_eq!(violations.last().unwrap().description, format!("and {left_out} more"));
    }
}
