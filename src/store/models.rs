//! Models and their versions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::raw::{self, Parts};
use super::record::Stored;
use super::records::{Expect, Transaction, View};
use super::{Store, keys};
use crate::domain::{
    Architecture, Continuation, FittedPreprocessing, Model, ModelId, Timestamp, Values, Version, VersionSource,
};

/// A version without its number, which it gets when it is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionDraft {
    /// The version that it started from.
    pub base_version: Option<u32>,
    /// Where the weights come from.
    pub source: VersionSource,
    /// What was learned of the data before the weights.
    pub preprocessing: Option<FittedPreprocessing>,
    /// When it is committed: the model's update time, too.
    pub create_time: Timestamp,
}

impl VersionDraft {
    fn numbered(&self, version: u32) -> Version {
        Version {
            version,
            base_version: self.base_version,
            source: self.source.clone(),
            preprocessing: self.preprocessing.clone(),
            create_time: self.create_time,
        }
    }
}

/// A version's record: the version, and which blob holds its weights.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredVersion {
    pub(super) version: Version,
    pub(super) blob: Uuid,
    /// Whether the end of its training was kept beside the weights, under the same id. It is kept for the latest version alone.
    #[serde(default)]
    pub(super) has_continuation: bool,
}

/// Weights that are on the disk, but that no record refers to yet.
#[derive(Clone, Copy)]
pub(super) struct WrittenWeights {
    uid: Uuid,
    blob: Uuid,
    has_continuation: bool,
}

impl WrittenWeights {
    fn name(self) -> BlobName {
        BlobName::Weights { uid: self.uid, blob: self.blob }
    }

    fn record(self, version: &Version) -> StoredVersion {
        StoredVersion { version: version.clone(), blob: self.blob, has_continuation: self.has_continuation }
    }

    fn continuation(self) -> BlobName {
        BlobName::Continuation { uid: self.uid, blob: self.blob }
    }
}

impl Store {
    /// Creates a model with its first version.
    pub fn create_model(&self, model: &Model, version: &Version, parameters: &Values) -> Result<(), StoreError> {
        let taken = || StoreError::Exists { model_id: model.model_id.clone() };
        let name = keys::name(&model.model_id);
        if self.records().read(|view| view.contains(&name))? {
            return Err(taken());
        }
        let weights = self.write_weights(model.uid, parameters, None)?;
        let (model_key, version_key) = (keys::model(model.uid), keys::version(model.uid, version.version));
        let transaction = Transaction::new()
            .expect(&name, Expect::Absent)
            .expect(&model_key, Expect::Absent)
            .put(name.clone(), &model.uid)?
            .put(model_key, model)?
            .put(version_key, &weights.record(version))?;
        match self.records().commit(transaction) {
            Err(StoreError::Conflict { key }) => {
                self.discard_weights(weights);
                Err(if key == name { taken() } else { StoreError::Conflict { key } })
            }
            outcome => outcome,
        }
    }

    /// The model of a name.
    pub fn model(&self, model_id: &ModelId) -> Result<Option<Model>, StoreError> {
        self.records().read(|view| match view.get::<Uuid>(&keys::name(model_id))? {
            None => Ok(None),
            Some(uid) => view.get(&keys::model(uid.value)).map(|model| model.map(|stored| stored.value)),
        })
    }

    /// The model of a uid.
    pub fn model_by_uid(&self, uid: Uuid) -> Result<Option<Model>, StoreError> {
        Ok(self.records().get(&keys::model(uid))?.map(|stored| stored.value))
    }

    /// Up to `limit` models in the order of their names, those after `after`.
    pub fn models(&self, after: Option<&ModelId>, limit: usize) -> Result<Vec<Model>, StoreError> {
        self.records().read(|view| {
            let names = view.scan(keys::NAMES, after.map(ModelId::as_str), None)?;
            let model = |entry: Result<super::records::Entry, StoreError>| {
                let key = keys::model(entry?.decode()?);
                let stored: Stored<Model> = view.get(&key)?.ok_or_else(|| StoreError::corrupt(key))?;
                Ok(stored.value)
            };
            names.take(limit).map(model).collect()
        })
    }

    /// Deletes a model with all its versions; `false` where there is none. The records of its jobs stay.
    pub fn delete_model(&self, uid: Uuid) -> Result<bool, StoreError> {
        let key = keys::model(uid);
        loop {
            let found = self.records().read(|view| {
                let Some(stored) = view.get::<Model>(&key)? else { return Ok(None) };
                // A version that cannot be read does not keep its model alive: its blob is swept at the next start.
                let versions = view.scan(&keys::versions(uid), None, None)?;
                let blobs = versions.filter_map(|entry| entry.and_then(|entry| entry.decode::<StoredVersion>()).ok());
                Ok(Some((stored, blobs.map(|stored| stored.blob).collect::<Vec<Uuid>>())))
            })?;
            let Some((stored, blobs)) = found else { return Ok(false) };
            let transaction = Transaction::new()
                .expect(&key, Expect::Revision(stored.revision))
                .delete(key.clone())
                .delete(keys::name(&stored.value.model_id))
                .delete_prefix(keys::versions(uid));
            match self.records().commit(transaction) {
                Ok(()) => {
                    for blob in blobs {
                        self.blobs().remove(BlobName::Weights { uid, blob });
                        self.blobs().remove(BlobName::Continuation { uid, blob });
                    }
                    return Ok(true);
                }
                Err(StoreError::Conflict { .. }) => {} // A version was committed, or the model deleted: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// Chooses the version that a model serves, `None` for its latest; `None` where the model is gone.
    pub fn set_serving_version(&self, uid: Uuid, version: Option<u32>) -> Result<Option<Model>, StoreError> {
        let key = keys::model(uid);
        loop {
            let Some(Stored { revision, value: mut model }) = self.records().get::<Model>(&key)? else {
                return Ok(None);
            };
            model.serving_version = version;
            let transaction = Transaction::new().expect(&key, Expect::Revision(revision)).put(key.clone(), &model)?;
            match self.records().commit(transaction) {
                Ok(()) => return Ok(Some(model)),
                Err(StoreError::Conflict { .. }) => {} // A version was committed meanwhile: look again.
                Err(error) => return Err(error),
            }
        }
    }

    /// One version of a model.
    pub fn version(&self, uid: Uuid, version: u32) -> Result<Option<Version>, StoreError> {
        Ok(self.stored_version(uid, version)?.map(|stored| stored.version))
    }

    /// Up to `limit` versions of a model in the order of their numbers, those after `after`.
    pub fn versions(&self, uid: Uuid, after: u32, limit: usize) -> Result<Vec<Version>, StoreError> {
        self.records().read(|view| {
            let entries = view.scan(&keys::versions(uid), Some(&format!("{after:08}")), None)?;
            entries.take(limit).map(|entry| Ok(entry?.decode::<StoredVersion>()?.version)).collect()
        })
    }

    /// The weights of a version, as many and of the type that `architecture` wants; `None` where there is no such version.
    pub fn parameters(
        &self,
        uid: Uuid,
        version: u32,
        architecture: &Architecture,
    ) -> Result<Option<Values>, StoreError> {
        let Some(StoredVersion { blob, .. }) = self.stored_version(uid, version)? else { return Ok(None) };
        let name = BlobName::Weights { uid, blob };
        let missing = || StoreError::corrupt(format!("blobs/{name} (it is missing)"));
        let Some(reader) = self.blobs().open(name)? else {
            // Deleted between the two looks, or lost?
            let is_deleted = self.stored_version(uid, version)?.is_none();
            return if is_deleted { Ok(None) } else { Err(missing()) };
        };
        let values = raw::read_values(reader)?;
        let fits =
            values.len() == architecture.parameter_count() && values.element_type() == architecture.element_type();
        if fits {
            Ok(Some(values))
        } else {
            Err(StoreError::corrupt(format!("blobs/{name} (it is another network's)")))
        }
    }

    /// Commits the next version of a model; `None` where the model is gone.
    pub fn commit_version(
        &self,
        uid: Uuid,
        draft: VersionDraft,
        parameters: &Values,
    ) -> Result<Option<Version>, StoreError> {
        let weights = self.write_weights(uid, parameters, None)?;
        loop {
            let Some(model) = self.records().get::<Model>(&keys::model(uid))? else {
                self.discard_weights(weights);
                return Ok(None);
            };
            let (transaction, version) = next_version(Transaction::new(), model, &draft, weights)?;
            match self.records().commit(transaction) {
                Ok(()) => {
                    self.forget_continuation(uid, version.version - 1);
                    return Ok(Some(version));
                }
                Err(StoreError::Conflict { .. }) => {} // Another version, or a deletion, came first: take the next number.
                // What an unanswered commit left is only known once the file is open again: the blob stays, and is swept
                // at the next start if no record refers to it.
                Err(error) => return Err(error),
            }
        }
    }

    fn stored_version(&self, uid: Uuid, version: u32) -> Result<Option<StoredVersion>, StoreError> {
        Ok(self.records().get(&keys::version(uid, version))?.map(|stored| stored.value))
    }

    /// Writes weights under a name that no other attempt uses.
    pub(super) fn write_weights(
        &self,
        uid: Uuid,
        parameters: &Values,
        continuation: Option<&Continuation>,
    ) -> Result<WrittenWeights, StoreError> {
        let weights = WrittenWeights { uid, blob: Uuid::now_v7(), has_continuation: continuation.is_some() };
        self.blobs().write(weights.name(), Parts::of_values(parameters).as_slice())?;
        if let Some(continuation) = continuation {
            let written = self.blobs().write(weights.continuation(), Parts::of_continuation(continuation).as_slice());
            // Else each attempt on a disk that is short of room would leave another copy.
            written.inspect_err(|_| self.discard_weights(weights))?;
        }
        Ok(weights)
    }

    /// Where the training of a version ended; `None` where no training made it, or where it is not the latest.
    pub fn continuation(&self, uid: Uuid, version: u32) -> Result<Option<Continuation>, StoreError> {
        let Some(StoredVersion { blob, has_continuation: true, .. }) = self.stored_version(uid, version)? else {
            return Ok(None);
        };
        let name = BlobName::Continuation { uid, blob };
        if let Some(reader) = self.blobs().open(name)? {
            return raw::read_continuation(reader).map(Some);
        }
        // Given back, since a version came after it, or lost?
        match self.model_by_uid(uid)? {
            Some(model) if model.latest_version == version => {
                Err(StoreError::corrupt(format!("blobs/{name} (it is missing)")))
            }
            _ => Ok(None),
        }
    }

    /// Gives back the space of a version's continuation, once the version is not the latest any more.
    pub(super) fn forget_continuation(&self, uid: Uuid, version: u32) {
        // What cannot be read is swept at the next start.
        if let Ok(Some(StoredVersion { blob, has_continuation: true, .. })) = self.stored_version(uid, version) {
            self.blobs().remove(BlobName::Continuation { uid, blob });
        }
    }

    /// Removes weights that no record will ever refer to.
    pub(super) fn discard_weights(&self, weights: WrittenWeights) {
        self.blobs().remove(weights.name());
        if weights.has_continuation {
            self.blobs().remove(weights.continuation());
        }
    }
}

/// Adds to a transaction what commits a draft as the model's next version, if the model is still as it was read.
pub(super) fn next_version(
    transaction: Transaction,
    model: Stored<Model>,
    draft: &VersionDraft,
    weights: WrittenWeights,
) -> Result<(Transaction, Version), StoreError> {
    let Stored { revision, value: mut model } = model;
    let version = draft.numbered(model.latest_version + 1);
    model.latest_version = version.version;
    model.update_time = draft.create_time;
    let model_key = keys::model(weights.uid);
    let version_key = keys::version(weights.uid, version.version);
    let transaction = transaction
        .expect(&model_key, Expect::Revision(revision))
        .expect(&version_key, Expect::Absent)
        .put(model_key, &model)?
        .put(version_key, &weights.record(&version))?;
    Ok((transaction, version))
}

/// Every blob that a version refers to.
pub(super) fn referenced_weights(view: &View) -> Result<Vec<BlobName>, StoreError> {
    let mut names = Vec::new();
    for entry in view.scan(keys::NAMES, None, None)? {
        let uid: Uuid = entry?.decode()?;
        let mut latest = None;
        for entry in view.scan(&keys::versions(uid), None, None)? {
            let StoredVersion { blob, has_continuation, .. } = entry?.decode()?;
            names.push(BlobName::Weights { uid, blob });
            latest = has_continuation.then_some(BlobName::Continuation { uid, blob });
        }
        names.extend(latest);
    }
    Ok(names)
}
