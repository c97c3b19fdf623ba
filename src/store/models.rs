//! Models and their versions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::blobs::BlobName;
use super::error::StoreError;
use super::listed::Listed;
use super::raw::{self, Parts};
use super::record::Stored;
use super::records::{Entry, Expect, Transaction, View};
use super::retention::{self, Retention, Superfluous};
use super::{Store, keys};
use crate::domain::{
    Architecture, Continuation, FittedPreprocessing, Model, ModelId, Timestamp, Values, Version, VersionSource,
};

/// A version without its number, which it gets when it is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionDraft {
    /// The version that it started from.
    pub base_version: Option<u32>,
    /// Whether it can only be committed right after that one, since it repeats a part of it.
    pub follows_base: bool,
    /// Where the weights come from.
    pub source: VersionSource,
    /// What was learned of the data before the weights.
    pub preprocessing: Option<FittedPreprocessing>,
    /// When it is committed: the model's update time, too.
    pub create_time: Timestamp,
}

impl VersionDraft {
    fn fits(&self, model: &Model) -> bool {
        !self.follows_base || self.base_version == Some(model.latest_version)
    }

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

/// A version that was committed, and those that need not be kept any more.
#[derive(Clone, Debug, PartialEq)]
pub struct CommittedVersion {
    /// The new one.
    pub version: Version,
    /// The numbers of those that are gone with it.
    pub pruned: Vec<u32>,
}

/// A version's record: the version, and which blob holds its weights.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredVersion {
    pub version: Version,
    pub blob: Uuid,
    /// Whether the end of its training was kept beside the weights, under the same id. Only that of the latest version stays, and those
    /// that unfinished jobs go on from.
    #[serde(default)]
    pub has_continuation: bool,
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
        let weights = self.write_weights(model.uid, Parts::of_values(parameters), None)?;
        let (model_key, version_key) = (keys::model(model.uid), keys::version(model.uid, version.version));
        let transaction = Transaction::new()
            .only_if(&name, Expect::Absent)
            .only_if(&model_key, Expect::Absent)
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
    pub fn models(&self, after: Option<&ModelId>, limit: usize) -> Result<Vec<Listed<Model>>, StoreError> {
        self.records().read(|view| {
            let names = view.scan(keys::NAMES, after.map(ModelId::as_str), None)?;
            let model = |entry: Result<Entry, StoreError>| {
                let entry = entry?;
                Listed::of(&entry.key, model_of_name(view, &entry))
            };
            names.take(limit).map(model).collect()
        })
    }

    /// One version of a model.
    pub fn version(&self, uid: Uuid, version: u32) -> Result<Option<Version>, StoreError> {
        Ok(self.stored_version(uid, version)?.map(|stored| stored.version))
    }

    /// Up to `limit` versions of a model in the order of their numbers, those after `after`.
    pub fn versions(&self, uid: Uuid, after: u32, limit: usize) -> Result<Vec<Listed<Version>>, StoreError> {
        self.records().read(|view| {
            let entries = view.scan(&keys::versions(uid), Some(&format!("{after:08}")), None)?;
            let version = |entry: Result<Entry, StoreError>| {
                let entry = entry?;
                Listed::of(&entry.key, entry.decode::<StoredVersion>().map(|stored| stored.version))
            };
            entries.take(limit).map(version).collect()
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

    /// Commits the next version of a model; `None` where the model is gone. A draft that follows its base is a [`StoreError::Conflict`]
    /// where another version came first.
    pub fn commit_version(
        &self,
        uid: Uuid,
        draft: VersionDraft,
        parameters: &Values,
    ) -> Result<Option<CommittedVersion>, StoreError> {
        let weights = self.write_weights(uid, Parts::of_values(parameters), None)?;
        loop {
            let Some(base) = self.records().read(|view| base_of_next(view, uid, self.retention))? else {
                self.discard_weights(weights);
                return Ok(None);
            };
            if !draft.fits(&base.model.value) {
                self.discard_weights(weights);
                return Err(StoreError::Conflict { key: keys::model(uid) });
            }
            let superfluous = base.superfluous.clone();
            let (transaction, version) = next_version(Transaction::new(), base, &draft, weights)?;
            match self.records().commit(transaction) {
                Ok(()) => {
                    self.forget_continuation(uid, version.version - 1);
                    self.remove_superfluous(uid, &superfluous);
                    return Ok(Some(CommittedVersion::of(version, &superfluous)));
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
        parameters: Parts<'_>,
        continuation: Option<&Continuation>,
    ) -> Result<WrittenWeights, StoreError> {
        let weights = WrittenWeights { uid, blob: Uuid::now_v7(), has_continuation: continuation.is_some() };
        self.blobs().write(weights.name(), parameters.as_slice())?;
        if let Some(continuation) = continuation {
            let written = self.blobs().write(weights.continuation(), Parts::of_continuation(continuation).as_slice());
            // Else each attempt on a disk that is short of room would leave another copy.
            written.inspect_err(|_| self.discard_weights(weights))?;
        }
        Ok(weights)
    }

    /// Where the training of a version ended; `None` where no training made it, or where it was given back: it is kept for the latest
    /// version, and for those that unfinished jobs go on from.
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

    /// Gives back the space of a version's continuation, where the version is not the latest any more and no unfinished job goes on
    /// from it. None can choose it later: a job chooses the latest version, in a transaction.
    pub(super) fn forget_continuation(&self, uid: Uuid, version: u32) {
        let superfluous = self.records().read(|view| {
            let stored = view.get::<StoredVersion>(&keys::version(uid, version))?.map(|stored| stored.value);
            let Some(StoredVersion { blob, has_continuation: true, .. }) = stored else { return Ok(None) };
            let is_latest =
                view.get::<Model>(&keys::model(uid))?.is_some_and(|model| model.value.latest_version == version);
            let is_kept = is_latest || retention::continued_bases(view, Some(uid))?.contains(&(uid, version));
            Ok((!is_kept).then_some(BlobName::Continuation { uid, blob }))
        });
        // What cannot be read is swept at the next start.
        if let Ok(Some(name)) = superfluous {
            self.blobs().remove(name);
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

impl CommittedVersion {
    fn of(version: Version, superfluous: &[Superfluous]) -> Self {
        Self { version, pruned: superfluous.iter().map(|gone| gone.version).collect() }
    }
}

/// A model as it was read, and what its next version makes superfluous.
pub(super) struct BaseOfNext {
    pub model: Stored<Model>,
    pub superfluous: Vec<Superfluous>,
}

/// `None` where the model is gone.
pub(super) fn base_of_next(view: &View, uid: Uuid, retention: Retention) -> Result<Option<BaseOfNext>, StoreError> {
    let Some(model) = view.get::<Model>(&keys::model(uid))? else { return Ok(None) };
    let next = model.value.latest_version + 1;
    let superfluous = retention::superfluous(view, &model.value, next, retention)?;
    Ok(Some(BaseOfNext { model, superfluous }))
}

/// Adds to a transaction what commits a draft as the model's next version, and gives back the versions that it makes superfluous,
/// if the model is still as it was read.
pub(super) fn next_version(
    transaction: Transaction,
    base: BaseOfNext,
    draft: &VersionDraft,
    weights: WrittenWeights,
) -> Result<(Transaction, Version), StoreError> {
    let Stored { revision, value: mut model } = base.model;
    let delete =
        |transaction: Transaction, gone: &Superfluous| transaction.delete(keys::version(weights.uid, gone.version));
    let transaction = base.superfluous.iter().fold(transaction, delete);
    let version = draft.numbered(model.latest_version + 1);
    model.latest_version = version.version;
    model.update_time = draft.create_time;
    let model_key = keys::model(weights.uid);
    let version_key = keys::version(weights.uid, version.version);
    let transaction = transaction
        .only_if(&model_key, Expect::Revision(revision))
        .only_if(&version_key, Expect::Absent)
        .put(model_key, &model)?
        .put(version_key, &weights.record(&version))?;
    Ok((transaction, version))
}

fn model_of_name(view: &View, name: &Entry) -> Result<Model, StoreError> {
    let key = keys::model(name.decode()?);
    let stored: Stored<Model> = view.get(&key)?.ok_or_else(|| StoreError::corrupt(key))?;
    Ok(stored.value)
}

/// The uid of the model that says it has this name: for a name whose own record is damaged.
pub(super) fn uid_by_record(view: &View, name: &str) -> Result<Option<Uuid>, StoreError> {
    for entry in view.scan(keys::NAMESPACE, None, None)? {
        let entry = entry?;
        let has_name = |model: Model| model.model_id.as_str() == name && entry.key == keys::model(model.uid);
        if entry.key.ends_with(keys::MODEL_SUFFIX)
            && let Ok(model) = entry.decode::<Model>()
            && let uid = model.uid
            && has_name(model)
        {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}
