//! The networks that predictions use: immutable, shared, and loaded from the store once for all who wait for one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use uuid::Uuid;

use super::error::AppError;
use crate::domain::{FittedPreprocessing, Model, ModelId};
use crate::engine::AnyNetwork;
use crate::limits::SNAPSHOT_CACHE_BYTES;
use crate::store::Store;

/// Snapshots that are expected in the cache, which sizes its tables.
const SNAPSHOTS_EXPECTED: usize = 1_000;
/// Models whose serving version is remembered: a record and a pointer each.
const SERVING_MAX: usize = 10_000;

/// A version, ready to predict: preprocessing and weights as one.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number.
    pub version: u32,
    /// The network.
    pub network: AnyNetwork,
    /// What was learned of the data before the weights.
    pub preprocessing: Option<FittedPreprocessing>,
}

/// A model with the version that it serves.
pub type Serving = (Arc<Model>, Arc<Snapshot>);

/// The cache of snapshots, by weight, and of which one a model serves.
pub struct Snapshots {
    by_version: Cache<(Uuid, u32), Arc<Snapshot>, BytesWeighter>,
    /// Records alone: a network here would escape the bound on bytes.
    models: Cache<ModelId, Arc<Model>>,
    /// Bumped, under the lock, when a change of a model begins and when it ends: a load that began before must not put it back.
    changes: AtomicU64,
    /// Models that are being changed, and how often: none of them is put into `models` meanwhile.
    changing: Mutex<HashMap<ModelId, usize>>,
}

#[derive(Clone)]
struct BytesWeighter;

impl Weighter<(Uuid, u32), Arc<Snapshot>> for BytesWeighter {
    fn weight(&self, _key: &(Uuid, u32), snapshot: &Arc<Snapshot>) -> u64 {
        // An entry costs something even where the network is tiny.
        256 + snapshot.network.size_bytes() as u64
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            by_version: one_cache(),
            models: Cache::new(SERVING_MAX),
            changes: AtomicU64::new(0),
            changing: Mutex::default(),
        }
    }
}

/// One shard: a network may take all the room that there is, not only a shard's part of it.
fn one_cache() -> Cache<(Uuid, u32), Arc<Snapshot>, BytesWeighter> {
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(SNAPSHOTS_EXPECTED)
        .weight_capacity(SNAPSHOT_CACHE_BYTES)
        .build();
    match options {
        Ok(options) => {
            Cache::with_options(options, BytesWeighter, DefaultHashBuilder::default(), DefaultLifecycle::default())
        }
        // Only where a capacity is missing, and both are here.
        Err(_) => Cache::with_weighter(SNAPSHOTS_EXPECTED, SNAPSHOT_CACHE_BYTES, BytesWeighter),
    }
}

impl Snapshots {
    /// The model and the version that it serves, if both are in memory.
    pub fn cached_serving(&self, model_id: &ModelId) -> Option<Serving> {
        let model = self.models.get(model_id)?;
        let snapshot = self.by_version.get(&(model.uid, model.served_version()))?;
        Some((model, snapshot))
    }

    /// The model and the version that it serves. Blocks on the store.
    pub fn load_serving(&self, store: &Store, model_id: &ModelId) -> Result<Serving, AppError> {
        if let Some(serving) = self.cached_serving(model_id) {
            return Ok(serving);
        }
        let mut changes = self.changes.load(Ordering::Acquire);
        let mut model = store.model(model_id)?.ok_or_else(|| AppError::no_model(model_id))?;
        let snapshot = loop {
            let loaded = self.load(store, &model, model.served_version());
            if !matches!(loaded, Err(AppError::NotFound(_))) {
                break loaded?;
            }
            // It may have been given back while it was read, since a later one came.
            changes = self.changes.load(Ordering::Acquire);
            let now = store.model(model_id)?.ok_or_else(|| AppError::no_model(model_id))?;
            if (now.uid, now.served_version()) == (model.uid, model.served_version()) {
                break loaded?;
            }
            model = now;
        };
        Ok((self.keep(Arc::new(model), changes), snapshot))
    }

    /// A model's record. Blocks on the store.
    pub fn load_model(&self, store: &Store, model_id: &ModelId) -> Result<Arc<Model>, AppError> {
        let changes = self.changes.load(Ordering::Acquire);
        let model = store.model(model_id)?.ok_or_else(|| AppError::no_model(model_id))?;
        Ok(self.keep(Arc::new(model), changes))
    }

    /// Keeps a record in memory, unless a change has begun since `changes` was read.
    fn keep(&self, model: Arc<Model>, changes: u64) -> Arc<Model> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes.load(Ordering::Acquire) == changes && !changing.contains_key(&model.model_id) {
            self.models.insert(model.model_id.clone(), model.clone());
        }
        model
    }

    /// A version that is in memory.
    pub fn cached(&self, uid: Uuid, version: u32) -> Option<Arc<Snapshot>> {
        self.by_version.get(&(uid, version))
    }

    /// A version of a model. Blocks on the store; callers that want the same one wait for one load.
    pub fn load(&self, store: &Store, model: &Model, version: u32) -> Result<Arc<Snapshot>, AppError> {
        self.by_version.get_or_insert_with(&(model.uid, version), || {
            let missing = || AppError::no_version(&model.model_id, version);
            let record = store.version(model.uid, version)?.ok_or_else(missing)?;
            let parameters = store.parameters(model.uid, version, &model.architecture)?.ok_or_else(missing)?;
            let network = AnyNetwork::new(&model.architecture, parameters);
            Ok(Arc::new(Snapshot { version, network, preprocessing: record.preprocessing }))
        })
    }

    /// A model that is in memory.
    pub fn cached_model(&self, model_id: &ModelId) -> Option<Arc<Model>> {
        self.models.get(model_id)
    }

    /// To be held while the model gets a new version, comes to serve another one, or is deleted. Predictions read the store as long, so
    /// that none is answered by the version before once anybody can see the new one.
    pub fn begin_change(&self, model_id: &ModelId) -> Change<'_> {
        let mut changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        *changing.entry(model_id.clone()).or_default() += 1;
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.models.remove(model_id);
        Change { snapshots: self, model_id: model_id.clone() }
    }

    /// Versions that are kept no longer: they answer no longer, either.
    pub fn forget_pruned(&self, uid: Uuid, versions: &[u32]) {
        for &version in versions {
            self.by_version.remove(&(uid, version));
        }
    }

    /// The model is gone: its versions need no memory.
    pub fn forget_versions(&self, uid: Uuid) {
        self.by_version.retain(|(of, _), _| *of != uid);
    }
}

/// A change of a model that is under way.
#[must_use]
pub struct Change<'a> {
    snapshots: &'a Snapshots,
    model_id: ModelId,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut changing = self.snapshots.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.snapshots.changes.fetch_add(1, Ordering::AcqRel);
        if let Some(count) = changing.get_mut(&self.model_id) {
            *count -= 1;
            if *count == 0 {
                changing.remove(&self.model_id);
            }
        }
    }
}
