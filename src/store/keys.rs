//! Every key of the record table. All start with the namespace; what belongs to a model goes on with its uid.
//!
//! The first segment after the namespace is a uid or one of the fixed words below, and no uid spells a word. Text sorts as
//! bytes: names in the order of names, job ids (UUIDv7) in the order of time, eight digits in the order of numbers.

use std::fmt::Display;

use uuid::Uuid;

use crate::domain::ModelId;

/// What every key of the records starts with.
pub(super) const NAMESPACE: &str = "default/";
/// What the key of a model ends with.
pub(super) const MODEL_SUFFIX: &str = "/model";

pub(super) const NAMES: &str = "default/names/";
pub(super) const JOBS: &str = "default/jobs/";
/// The jobs that are not finished: keys alone say it.
pub(super) const UNFINISHED: &str = "default/unfinished/";

pub(super) const REQUESTS: &str = "default/requests/";

/// Whether the last process stopped in good order: the key alone says it.
pub(super) const GOOD_STOP: &str = "default/stopped";

pub(super) fn name(model_id: &ModelId) -> String {
    format!("{NAMES}{model_id}")
}

pub(super) fn model(uid: Uuid) -> String {
    format!("{NAMESPACE}{uid}{MODEL_SUFFIX}")
}

pub(super) fn versions(uid: Uuid) -> String {
    format!("default/{uid}/version/")
}

pub(super) fn version(uid: Uuid, version: u32) -> String {
    numbered(versions(uid), version)
}

pub(super) fn job(job_id: Uuid) -> String {
    format!("{JOBS}{job_id}")
}

pub(super) fn unfinished(job_id: Uuid) -> String {
    format!("{UNFINISHED}{job_id}")
}

/// The jobs of one model, as an index: keys alone say it.
pub(super) fn model_jobs(uid: Uuid) -> String {
    format!("default/{uid}/job/")
}

pub(super) fn model_job(uid: Uuid, job_id: Uuid) -> String {
    format!("{}{job_id}", model_jobs(uid))
}

pub(super) fn request(request_id: &str) -> String {
    format!("{REQUESTS}{request_id}")
}

/// The chunks of a job's history, in the log table.
pub(super) fn chunks(job_id: Uuid) -> String {
    format!("default/{job_id}/")
}

/// One of them.
pub(super) fn chunk(job_id: Uuid, chunk: u32) -> String {
    numbered(chunks(job_id), chunk)
}

/// Eight digits; a number that needs more cannot come from 20,000,000 epochs, and would still be a key of its own.
fn numbered(prefix: impl Display, number: u32) -> String {
    format!("{prefix}{number:08}")
}

/// The first text after every text that starts with `prefix`.
pub(super) fn end_of(prefix: &str) -> String {
    // '0' follows '/', with which each prefix of ours ends.
    format!("{}0", prefix.trim_end_matches('/'))
}

/// The number that a key ends with; `None` where it does not.
pub(super) fn last_number(key: &str) -> Option<u32> {
    key.rsplit('/').next()?.parse().ok()
}

/// The uuid that a key ends with; `None` where it does not.
pub(super) fn last_uuid(key: &str) -> Option<Uuid> {
    Uuid::parse_str(key.rsplit('/').next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_neighbours() {
        let inside = |key: &str| key >= NAMES && key < end_of(NAMES).as_str();
        assert!(inside("default/names/a") && inside("default/names/\u{10ffff}"));
        assert!(!inside("default/namesake/a") && !inside("default/names") && !inside(JOBS) && !inside(UNFINISHED));
    }

    #[test]
    fn numbers_sort_as_numbers() {
        assert!(version(Uuid::nil(), 9) < version(Uuid::nil(), 10));
        assert!(chunk(Uuid::nil(), 99) < chunk(Uuid::nil(), 1_000));
    }
}
