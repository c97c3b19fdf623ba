//! Whose a damaged record or blob is, in the words that a caller knows: keys and files carry internal ids.

use uuid::Uuid;

use crate::domain::{Job, Model};
use crate::store::error::StoreError;
use crate::store::key_kinds::{RecordKey, parse_chunk};
use crate::store::keys;
use crate::store::records::View;

/// As `blobs/….weights` becomes `blobs/….weights (version 3 of the model "xor")`. What owns nothing, and what no record tells the owner of,
/// stays as it is.
pub(super) fn named(what: &str, owner: Option<String>) -> String {
    owner.map_or_else(|| what.to_owned(), |owner| format!("{what} ({owner})"))
}

/// The same of an error that tells of damage.
pub(super) fn with_owner(error: StoreError, owner: impl FnOnce() -> Option<String>) -> StoreError {
    match error {
        StoreError::Corrupt { what } => StoreError::Corrupt { what: named(&what, owner()) },
        other => other,
    }
}

/// A version of a model.
pub(super) fn version(view: &View, uid: Uuid, version: u32) -> Option<String> {
    Some(format!("version {version} of {}", model(view, uid)?))
}

/// A job.
pub(super) fn job(view: &View, job_id: Uuid) -> Option<String> {
    let record = view.get::<Job>(&keys::job(job_id)).ok().flatten();
    let by_record = record.map(|job| format!("the model \"{}\"", job.value.model_id));
    let model = by_record.or_else(|| model(view, model_of_job(view, job_id)?));
    Some(format!("job {job_id}{}", model.map(|model| format!(" of {model}")).unwrap_or_default()))
}

/// By the index of a model's jobs, whose keys say all: for a job whose own record is damaged.
fn model_of_job(view: &View, job_id: Uuid) -> Option<Uuid> {
    let mut found = None;
    let looked = view.each_record(|key, _| {
        if let Some(RecordKey::ModelJob(uid, of)) = RecordKey::parse(key)
            && of == job_id
        {
            found = Some(uid);
        }
        Ok(())
    });
    looked.ok().and(found)
}

/// What a key's value is of.
pub(super) fn of_key(view: &View, key: &str) -> Option<String> {
    if let Some((job_id, _)) = parse_chunk(key) {
        return Some(format!("reports of {}", job(view, job_id)?));
    }
    match RecordKey::parse(key)? {
        RecordKey::Model(uid) => model(view, uid),
        RecordKey::Version(uid, number) => version(view, uid, number),
        RecordKey::Job(job_id) | RecordKey::ModelJob(_, job_id) | RecordKey::Unfinished(job_id) => job(view, job_id),
        // They say it themselves.
        RecordKey::Name(_) | RecordKey::Request(_) | RecordKey::GoodStop => None,
    }
}

/// By its record, or by the name that leads to it.
fn model(view: &View, uid: Uuid) -> Option<String> {
    let by_record = view.get::<Model>(&keys::model(uid)).ok().flatten().map(|model| model.value.model_id.to_string());
    let name = by_record.or_else(|| {
        let mut names = view.scan(keys::NAMES, None, None).ok()?.filter_map(Result::ok);
        let entry = names.find(|entry| entry.decode::<Uuid>().is_ok_and(|named| named == uid))?;
        entry.key.strip_prefix(keys::NAMES).map(str::to_owned)
    })?;
    Some(format!("the model \"{name}\""))
}
