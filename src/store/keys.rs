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
    format!("default/requests/{request_id}")
}

/// The chunks of a job's history, in the log table.
pub(super) fn chunks(job_id: Uuid) -> String {
    format!("default/{job_id}/")
}

/// One of them.
pub(super) fn chunk(job_id: Uuid, chunk: u32) -> String {
    numbered(chunks(job_id), chunk)
}

/// Eight digits; a number that needs more cannot come from 1,000,000 epochs, and would still be a key of its own.
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

/// What a key of the record table stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A version of this model.
    Version { uid: Uuid },
    /// The mark of a job that is not finished.
    Unfinished { job_id: Uuid },
    /// Any other key of ours.
    Other,
}

impl Key {
    /// `None` where no key of ours has this form.
    pub fn parse(key: &str) -> Option<Self> {
        let uuid = |text: &str| Uuid::parse_str(text).ok();
        let rest = key.strip_prefix(NAMESPACE)?;
        let (first, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match (first, rest) {
            ("stopped", "") => Some(Self::Other),
            ("names" | "requests", rest) => (!rest.is_empty()).then_some(Self::Other),
            ("jobs", job_id) => uuid(job_id).map(|_| Self::Other),
            ("unfinished", job_id) => uuid(job_id).map(|job_id| Self::Unfinished { job_id }),
            (uid, rest) => {
                let uid = uuid(uid)?;
                match rest.split_once('/') {
                    None => (rest == "model").then_some(Self::Other),
                    Some(("job", job_id)) => uuid(job_id).map(|_| Self::Other),
                    Some(("version", number)) => number.parse::<u32>().ok().map(|_| Self::Version { uid }),
                    Some(_) => None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known_for_what_it_is_and_no_other_text_is() {
        let (uid, job_id) = (Uuid::now_v7(), Uuid::now_v7());
        let name = crate::domain::ModelId::generated(7);
        for key in
            [GOOD_STOP.to_owned(), self::name(&name), model(uid), job(job_id), model_job(uid, job_id), request("a/b")]
        {
            assert_eq!(Key::parse(&key), Some(Key::Other), "{key}");
        }
        assert_eq!(Key::parse(&version(uid, 3)), Some(Key::Version { uid }));
        assert_eq!(Key::parse(&unfinished(job_id)), Some(Key::Unfinished { job_id }));
        for key in ["", "default", "default/", "defaulu/stopped", "default/names/", "default/jobs/x", "default/stoppee"]
        {
            assert_eq!(Key::parse(key), None, "{key}");
        }
        assert_eq!(Key::parse(&format!("default/{uid}/modem")), None);
        assert_eq!(Key::parse(&format!("default/{uid}/version/0000000x")), None);
    }

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
