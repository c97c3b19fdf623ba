//! Records: redb's pages, each record by itself, and what records and blobs say of one another.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{Counts, Findings, Sound};
use crate::domain::{Job, Model};
use crate::limits::CHUNK_REPORTS;
use crate::store::blobs::BlobName;
use crate::store::database::{builder, close_database, guarded, open_backend};
use crate::store::error::StoreError;
use crate::store::jobs::StoredRequest;
use crate::store::key_kinds::{RecordKey, parse_chunk};
use crate::store::models::StoredVersion;
use crate::store::overlay::Overlay;
use crate::store::records::View;
use crate::store::retention;
use crate::store::{BLOBS_FOLDER, RECORDS_FILE, histories, keys, record};

/// What the records say.
#[derive(Default)]
struct Facts {
    names: BTreeMap<String, Uuid>,
    models: BTreeMap<Uuid, Model>,
    /// The blob, and whether a continuation was kept.
    versions: BTreeMap<(Uuid, u32), (Uuid, bool)>,
    jobs: BTreeMap<Uuid, Job>,
    indexed: HashSet<(Uuid, Uuid)>,
    unfinished: BTreeSet<Uuid>,
    requests: HashMap<String, Uuid>,
    /// How many reports each chunk has, by its number.
    chunks: BTreeMap<Uuid, Vec<(u32, usize)>>,
}

/// Looks at a record file, and at the blobs that it refers to.
pub(super) fn check(file: File, sound: &Sound, damaged: &[BlobName], findings: &mut Findings<'_>) -> Counts {
    let Some(database) = verified(&file, findings) else { return Counts::default() };
    let mut facts = Facts::default();
    let read = guarded("read all records", || {
        let transaction = database.begin_read().map_err(StoreError::from_redb)?;
        let tables = transaction.list_tables().map_err(StoreError::from_redb)?;
        let count = tables.count();
        drop(transaction);
        if count != 2 {
            return Err(StoreError::corrupt(format!("{RECORDS_FILE} (it has {count} tables, not 2)")));
        }
        let view = View::begin(&database).map_err(StoreError::from_redb)?;
        facts.read(&view, findings)
    });
    if let Err(error) = read {
        findings.error(RECORDS_FILE, &error);
    }
    close_database(database);
    findings.is_relation = true;
    facts.relations(findings);
    facts.blobs(sound, damaged, findings);
    Counts {
        models: facts.models.len() as u64,
        versions: facts.versions.len() as u64,
        jobs: facts.jobs.len() as u64,
        unfinished_jobs: facts.unfinished.len() as u64,
        chunks: facts.chunks.values().map(|chunks| chunks.len() as u64).sum(),
        blobs: 0,
    }
}

/// The file, opened, after every page of it was compared with its checksum.
fn verified(file: &File, findings: &mut Findings<'_>) -> Option<Database> {
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        findings.fault(RECORDS_FILE, "it is empty");
        return None;
    }
    let mut database = match open(file) {
        Ok(database) => database,
        Err(error) => {
            findings.error(RECORDS_FILE, &error);
            return None;
        }
    };
    match guarded("verify its pages", || database.check_integrity().map_err(StoreError::from_redb)) {
        Ok(true) => return Some(database),
        Ok(false) => {
            findings.fault(RECORDS_FILE, "some of its pages are damaged: what they should hold is not what they do")
        }
        Err(error) => findings.error(RECORDS_FILE, &error),
    }
    close_database(database);
    // Without what the verification repaired: what still reads is looked at as it is.
    open(file).inspect_err(|error| findings.error(RECORDS_FILE, error)).ok()
}

fn open(file: &File) -> Result<Database, StoreError> {
    let file = file.try_clone().map_err(StoreError::io("open records.redb"))?;
    let backend = FileBackend::new(file).map_err(StoreError::from_redb)?;
    let overlay = Overlay::over(Box::new(backend)).map_err(StoreError::io("read records.redb"))?;
    guarded("open it", || open_backend(&builder(false), overlay))
}

impl Facts {
    fn read(&mut self, view: &View, findings: &mut Findings<'_>) -> Result<(), StoreError> {
        let [(_, records), (_, log)] = view.tables();
        each(records, findings, |key, bytes, findings| self.record(key, bytes, findings))?;
        each(log, findings, |key, bytes, findings| self.chunk(key, bytes, findings))
    }

    fn record(&mut self, key: &str, bytes: &[u8], findings: &mut Findings<'_>) {
        let Some(kind) = RecordKey::parse(key) else {
            return findings.fault(key, "it is no key of epochd's");
        };
        match kind {
            RecordKey::Name(name) => {
                if let Some(uid) = decoded(key, bytes, findings) {
                    self.names.insert(name.to_owned(), uid);
                }
            }
            RecordKey::Model(uid) => {
                if let Some(model) = decoded(key, bytes, findings) {
                    self.models.insert(uid, model);
                }
            }
            RecordKey::Version(uid, number) => {
                let Some(stored) = decoded::<StoredVersion>(key, bytes, findings) else { return };
                if stored.version.version != number {
                    findings.fault(key, format!("it holds version {}", stored.version.version));
                }
                self.versions.insert((uid, number), (stored.blob, stored.has_continuation));
            }
            RecordKey::Job(job_id) => {
                if let Some(job) = decoded::<Job>(key, bytes, findings) {
                    self.jobs.insert(job_id, job);
                }
            }
            RecordKey::Request(request_id) => {
                if let Some(request) = decoded::<StoredRequest>(key, bytes, findings) {
                    self.requests.insert(request_id.to_owned(), request.job_id);
                }
            }
            RecordKey::ModelJob(uid, job_id) => {
                mark(key, bytes, findings);
                self.indexed.insert((uid, job_id));
            }
            RecordKey::Unfinished(job_id) => {
                mark(key, bytes, findings);
                self.unfinished.insert(job_id);
            }
            RecordKey::GoodStop => mark(key, bytes, findings),
        }
    }

    fn chunk(&mut self, key: &str, bytes: &[u8], findings: &mut Findings<'_>) {
        let Some((job_id, number)) = parse_chunk(key) else {
            return findings.fault(key, "it is no key of a chunk of reports");
        };
        let reports = record::open(key, bytes).map(|(_, payload)| histories::decode(payload));
        let length = match reports {
            Ok(Ok(reports)) => reports.len(),
            Ok(Err(error)) => return findings.fault(key, format!("its reports cannot be read: {error}")),
            Err(_) => return findings.fault(key, "its checksum or its form is wrong"),
        };
        self.chunks.entry(job_id).or_default().push((number, length));
    }

    /// What records say of other records.
    fn relations(&self, findings: &mut Findings<'_>) {
        for (name, uid) in &self.names {
            if self.models.get(uid).is_none_or(|model| model.model_id.as_str() != name) {
                findings.fault(format!("{}{name}", keys::NAMES), format!("there is no model {uid} of this name"));
            }
        }
        for (uid, model) in &self.models {
            let is_there = |number: &u32| self.versions.contains_key(&(*uid, *number));
            if model.uid != *uid || self.names.get(model.model_id.as_str()) != Some(uid) {
                findings.fault(keys::model(*uid), format!("the name {} is not its own", model.model_id));
            }
            if !is_there(&model.latest_version) || !model.serving_version.as_ref().is_none_or(is_there) {
                findings.fault(keys::model(*uid), "its latest version or the one that it serves is missing");
            }
        }
        for (uid, number) in self.versions.keys() {
            if self.models.get(uid).is_none_or(|model| model.latest_version < *number) {
                findings.fault(keys::version(*uid, *number), "its model does not know it");
            }
        }
        for (uid, job_id) in &self.indexed {
            if self.jobs.get(job_id).is_none_or(|job| job.model_uid != *uid) {
                findings.fault(keys::model_job(*uid, *job_id), "the model has no such job");
            }
        }
        for (request_id, job_id) in &self.requests {
            if self.jobs.get(job_id).is_none_or(|job| job.request_id != *request_id) {
                findings.fault(keys::request(request_id), format!("job {job_id} is not of this request"));
            }
        }
        for job_id in self.unfinished.iter().filter(|job_id| !self.jobs.contains_key(job_id)) {
            findings.fault(keys::unfinished(*job_id), "there is no such job");
        }
        for job_id in self.chunks.keys().filter(|job_id| !self.jobs.contains_key(job_id)) {
            findings.fault(keys::chunk(*job_id, 0), "there is no such job");
        }
        for (job_id, job) in &self.jobs {
            self.job(*job_id, job, findings);
        }
    }

    fn job(&self, job_id: Uuid, job: &Job, findings: &mut Findings<'_>) {
        let mut fault = |problem: &str| findings.fault(keys::job(job_id), problem);
        if job.job_id != job_id {
            fault("it holds another job");
        }
        if !self.indexed.contains(&(job.model_uid, job_id)) {
            fault("it is not among its model's jobs");
        }
        if job.state.is_finished() == self.unfinished.contains(&job_id) {
            fault("its state is not what the list of unfinished jobs says");
        }
        if !job.request_id.is_empty() && self.requests.get(&job.request_id) != Some(&job_id) {
            fault("its request id is not known");
        }
        let chunks = self.chunks.get(&job_id).map(Vec::as_slice).unwrap_or_default();
        let reports: usize = chunks.iter().map(|(_, length)| length).sum();
        let last = chunks.len().saturating_sub(1);
        let is_whole = |(index, (number, length)): (usize, &(u32, usize))| {
            *number as usize == index && (*length == CHUNK_REPORTS || (index == last && *length < CHUNK_REPORTS))
        };
        if !chunks.iter().enumerate().all(is_whole) {
            fault("a chunk of its reports is missing, or is not full");
        } else if job.state.is_finished() && job.report_count != reports as u64 {
            fault(&format!("it has {} reports, but {reports} are stored", job.report_count));
        }
    }

    /// What records say of blobs.
    fn blobs(&self, sound: &Sound, damaged: &[BlobName], findings: &mut Findings<'_>) {
        let mut needed = HashSet::new();
        let mut need = |name: BlobName, findings: &mut Findings<'_>| {
            needed.insert(name);
            if !sound.contains_key(&name) && !damaged.contains(&name) {
                findings.fault(format!("{BLOBS_FOLDER}/{name}"), "it is missing");
            }
        };
        let mut continued: HashMap<(Uuid, u32), bool> = HashMap::new();
        for job in self.jobs.values() {
            if let Some(base) = retention::continued_base(job) {
                *continued.entry(base).or_default() |= job.checkpoint.is_none();
            }
        }
        for ((uid, number), (blob, has_continuation)) in &self.versions {
            let name = BlobName::Weights { uid: *uid, blob: *blob };
            need(name, findings);
            let Some(model) = self.models.get(uid) else { continue };
            let bits = model.architecture.element_type().size_bytes() as u64 * 8;
            let expected = [bits, model.architecture.parameter_count() as u64];
            if sound.get(&name).is_some_and(|numbers| *numbers != expected) {
                findings
                    .fault(format!("{BLOBS_FOLDER}/{name}"), "its weights are not as many as its model's network has");
            }
            let continuation = BlobName::Continuation { uid: *uid, blob: *blob };
            // What an unfinished job goes on from; one that has a checkpoint ends without it.
            let is_needed = continued.get(&(*uid, *number));
            let is_there = sound.contains_key(&continuation);
            if *has_continuation
                && (model.latest_version == *number || is_needed.is_some_and(|is_needed| *is_needed || is_there))
            {
                need(continuation, findings);
            }
        }
        for job_id in &self.unfinished {
            need(BlobName::Rows { job_id: *job_id }, findings);
            let checkpoint = BlobName::Checkpoint { job_id: *job_id };
            let is_there = sound.contains_key(&checkpoint) || damaged.contains(&checkpoint);
            if !is_there && self.jobs.get(job_id).is_some_and(|job| job.checkpoint.is_some()) {
                findings.fault(format!("{BLOBS_FOLDER}/{checkpoint}"), "it is missing: its job will begin anew");
            }
        }
        let in_use = |name: &BlobName| match name {
            BlobName::Checkpoint { job_id } => self.unfinished.contains(job_id),
            name => needed.contains(name),
        };
        for name in sound.keys().filter(|name| !in_use(name)) {
            findings.note(format!("{BLOBS_FOLDER}/{name}"), "no record refers to it; the next start removes it");
        }
    }
}

/// Goes through a table: keys in order, each found again by itself.
fn each(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    findings: &mut Findings<'_>,
    mut look: impl FnMut(&str, &[u8], &mut Findings<'_>),
) -> Result<(), StoreError> {
    let mut before: Option<String> = None;
    for entry in table.iter().map_err(StoreError::from_redb)? {
        let (key, bytes) = entry.map_err(StoreError::from_redb)?;
        let (key, bytes) = (key.value(), bytes.value());
        if before.as_deref().is_some_and(|before| before >= key) {
            findings.fault(key, "it is out of order: reads do not find it, or its neighbours");
        }
        let found = table.get(key).map_err(StoreError::from_redb)?;
        if found.is_none_or(|found| found.value() != bytes) {
            findings.fault(key, "it is there, but a read does not find it");
        }
        look(key, bytes, findings);
        before = Some(key.to_owned());
    }
    Ok(())
}

/// The value of a record, where it is right.
fn decoded<T: DeserializeOwned>(key: &str, bytes: &[u8], findings: &mut Findings<'_>) -> Option<T> {
    record::decode(key, bytes).map(|stored| stored.value).inspect_err(|error| findings.error(key, error)).ok()
}

/// A record whose key says all.
fn mark(key: &str, bytes: &[u8], findings: &mut Findings<'_>) {
    match record::open(key, bytes) {
        Ok((_, [])) => {}
        Ok(_) => findings.fault(key, "it holds something, where its key should say all"),
        Err(error) => findings.error(key, &error),
    }
}
