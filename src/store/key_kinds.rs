//! What a key of the record file stands for, read back from its text: for those who go through all of them.

use uuid::Uuid;

use super::keys;

/// A key of the record table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKey<'a> {
    Name(&'a str),
    Model(Uuid),
    Version(Uuid, u32),
    ModelJob(Uuid, Uuid),
    Job(Uuid),
    Unfinished(Uuid),
    GoodStop,
    Request(&'a str),
}

impl<'a> RecordKey<'a> {
    /// `None` where no record has such a key.
    pub fn parse(key: &'a str) -> Option<Self> {
        if key == keys::GOOD_STOP {
            return Some(Self::GoodStop);
        }
        if let Some(name) = key.strip_prefix(keys::NAMES) {
            return Some(Self::Name(name));
        }
        if let Some(job_id) = key.strip_prefix(keys::JOBS) {
            return uuid(job_id).map(Self::Job);
        }
        if let Some(job_id) = key.strip_prefix(keys::UNFINISHED) {
            return uuid(job_id).map(Self::Unfinished);
        }
        if let Some(request_id) = key.strip_prefix(keys::REQUESTS) {
            return Some(Self::Request(request_id));
        }
        let (uid, rest) = key.strip_prefix("default/")?.split_once('/')?;
        let uid = uuid(uid)?;
        match rest.split_once('/') {
            None if rest == "model" => Some(Self::Model(uid)),
            Some(("version", number)) => numbered(number).map(|number| Self::Version(uid, number)),
            Some(("job", job_id)) => uuid(job_id).map(|job_id| Self::ModelJob(uid, job_id)),
            _ => None,
        }
    }
}

/// The job and the number of a chunk, from its key in the log table; `None` where no chunk has such a key.
pub(super) fn parse_chunk(key: &str) -> Option<(Uuid, u32)> {
    let (job_id, number) = key.strip_prefix("default/")?.split_once('/')?;
    Some((uuid(job_id)?, numbered(number)?))
}

/// A uuid as keys write it, and in no other way.
fn uuid(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|uuid| uuid.to_string() == text)
}

/// A number as keys write it, and in no other way.
fn numbered(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| format!("{number:08}") == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back_and_nothing_else_is_a_key() {
        let (uid, job_id) = (Uuid::now_v7(), Uuid::now_v7());
        for (key, kind) in [
            (format!("{}xor", keys::NAMES), RecordKey::Name("xor")),
            (keys::model(uid), RecordKey::Model(uid)),
            (keys::version(uid, 7), RecordKey::Version(uid, 7)),
            (keys::model_job(uid, job_id), RecordKey::ModelJob(uid, job_id)),
            (keys::job(job_id), RecordKey::Job(job_id)),
            (keys::unfinished(job_id), RecordKey::Unfinished(job_id)),
            (keys::request("a/b"), RecordKey::Request("a/b")),
            (keys::GOOD_STOP.to_owned(), RecordKey::GoodStop),
        ] {
            assert_eq!(RecordKey::parse(&key), Some(kind), "{key}");
        }
        assert_eq!(parse_chunk(&keys::chunk(job_id, 3)), Some((job_id, 3)));
        let upper = format!("default/{}/model", uid.to_string().to_uppercase());
        for key in ["", "default/", "other/stopped", "default/jobs/", "default/jobs/x", &upper] {
            assert_eq!(RecordKey::parse(key), None, "{key}");
        }
        for number in ["7", "+0000007", "000000007"] {
            assert_eq!(RecordKey::parse(&format!("default/{uid}/version/{number}")), None);
            assert_eq!(parse_chunk(&format!("default/{job_id}/{number}")), None);
        }
    }
}
