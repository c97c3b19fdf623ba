//! Creating, reading, listing and deleting models and their versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::disk::version_bytes;
use super::page::{Page, PageRequest};
use super::weights::{RawLayerParameters, check_layers, merge_layers, version_number};
use super::{App, AppError, now, train};
use crate::domain::model::{check_class_labels, check_labels};
use crate::domain::{
    Architecture, At, Faults, Model, ModelId, Preprocessing, RawArchitecture, Values, Version, VersionSource,
};
use crate::engine::draw_parameters;
use crate::store::{Choice, StoreError};

/// A model as a request asks for it.
#[derive(Debug)]
pub struct CreateModel {
    /// Its name; `None`: the server names it.
    pub model_id: Option<ModelId>,
    /// Its shape.
    pub architecture: RawArchitecture,
    /// `None`: drawn.
    pub seed: Option<u64>,
    /// Layers whose weights are given.
    pub initial_weights: Vec<RawLayerParameters>,
    /// Names of the classes.
    pub class_labels: Vec<String>,
    /// How inputs and targets are scaled.
    pub preprocessing: Preprocessing,
    /// The caller's own notes.
    pub labels: BTreeMap<String, String>,
}

/// A model and what is going on with it.
#[derive(Debug)]
pub struct ModelView {
    /// The record.
    pub model: Arc<Model>,
    /// The job that trains it now.
    pub active_job: Option<Uuid>,
}

impl App {
    /// Creates a model with its first version.
    pub async fn create_model(&self, request: CreateModel) -> Result<ModelView, AppError> {
        let architecture = request.check()?;
        // Drawn, merged, and written.
        let room = self.room_for(&architecture, 3).await;
        self.blocking(move |app| {
            let _room = room;
            let seed = request.seed.unwrap_or_else(train::draw_seed);
            app.bound_disk(version_bytes(&architecture))?;
            let parameters = request.parameters(&architecture, seed)?;
            let create_time = now();
            let mut model = Model {
                model_id: request.model_id.clone().unwrap_or_else(server_named),
                uid: train::new_uuid(),
                architecture,
                seed,
                latest_version: 1,
                serving_version: None,
                pinned_versions: BTreeSet::new(),
                class_labels: request.class_labels,
                preprocessing: request.preprocessing,
                labels: request.labels,
                create_time,
                update_time: create_time,
            };
            let version = Version {
                version: 1,
                base_version: None,
                source: VersionSource::Initial,
                preprocessing: None,
                create_time,
            };
            loop {
                match app.core.store.create_model(&model, &version, &parameters) {
                    Ok(()) => break,
                    // A name of ours that is taken is no fault of the caller: try another.
                    Err(StoreError::Exists { .. }) if request.model_id.is_none() => model.model_id = server_named(),
                    Err(StoreError::Exists { .. }) => {
                        let name = model.model_id.as_str();
                        let message =
                            format!("there is a model {name:?} already; choose another model_id or delete it");
                        return Err(AppError::AlreadyExists(message));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            tracing::info!(model_id = %model.model_id, parameters = parameters.len(), "model created");
            Ok(ModelView { model: Arc::new(model), active_job: None })
        })
        .await
    }

    /// Reads a model.
    pub async fn model(&self, model_id: ModelId) -> Result<ModelView, AppError> {
        self.blocking(move |app| {
            let model = app.core.store.model(&model_id)?.ok_or_else(|| AppError::no_model(&model_id))?;
            Ok(app.view(model))
        })
        .await
    }

    /// Lists models by name.
    pub async fn models(&self, page: PageRequest) -> Result<Page<ModelView>, AppError> {
        self.blocking(move |app| {
            let page = page.of("models")?;
            let after = page.after.as_deref().and_then(|key| ModelId::new(key, At::ROOT, &mut Faults::new()));
            let models = app.core.store.models(after.as_ref(), page.read_limit())?;
            Ok(page.cut(models, |model| model.model_id.to_string()).map(|model| app.view(model)))
        })
        .await
    }

    /// Deletes a model and cancels its jobs.
    pub async fn delete_model(&self, model_id: ModelId) -> Result<(), AppError> {
        self.blocking(move |app| {
            let _change = app.core.snapshots.begin_change(&model_id);
            let deleted = app.core.store.delete_model(&model_id)?.ok_or_else(|| AppError::no_model(&model_id))?;
            if let Some(uid) = deleted.uid {
                app.core.snapshots.forget_versions(uid);
                app.cancel_jobs_of(uid)?;
            }
            tracing::info!(%model_id, "model deleted");
            Ok(())
        })
        .await
    }

    /// Chooses the version that predictions use unless they name one; `None`: the latest, whichever that will be.
    pub async fn set_serving_version(&self, model_id: ModelId, version: Option<i64>) -> Result<ModelView, AppError> {
        self.blocking(move |app| {
            let store = &app.core.store;
            let model = store.model(&model_id)?.ok_or_else(|| AppError::no_model(&model_id))?;
            let version = version.map(|version| version_number(&model, Some(version))).transpose()?;
            if let Some(version) = version
                && store.version(model.uid, version)?.is_none()
            {
                return Err(AppError::no_version(&model_id, version));
            }
            // One that cannot be read would take the model down.
            if let Some(version) = version {
                app.core.snapshots.load(store, &model, version)?;
            }
            let _change = app.core.snapshots.begin_change(&model_id);
            let model = chosen(&model_id, version, store.set_serving_version(model.uid, version)?)?;
            tracing::info!(%model_id, version, "serving version set");
            Ok(app.view(model))
        })
        .await
    }

    /// Keeps a version whatever its age, or no longer.
    pub async fn pin_version(&self, model_id: ModelId, version: i64, is_pinned: bool) -> Result<ModelView, AppError> {
        self.blocking(move |app| {
            let store = &app.core.store;
            let model = store.model(&model_id)?.ok_or_else(|| AppError::no_model(&model_id))?;
            let version = version_number(&model, Some(version))?;
            let _change = app.core.snapshots.begin_change(&model_id);
            let model = chosen(&model_id, Some(version), store.pin_version(model.uid, version, is_pinned)?)?;
            tracing::info!(%model_id, version, is_pinned, "version pinned, or not any more");
            Ok(app.view(model))
        })
        .await
    }

    /// Lists the versions of a model, oldest first.
    pub async fn versions(&self, model_id: ModelId, page: PageRequest) -> Result<Page<Version>, AppError> {
        self.blocking(move |app| {
            let model = app.core.store.model(&model_id)?.ok_or_else(|| AppError::no_model(&model_id))?;
            let page = page.of(&format!("versions of {}", model.uid))?;
            let after = page.after.as_deref().and_then(|key| key.parse().ok()).unwrap_or(0);
            let versions = app.core.store.versions(model.uid, after, page.read_limit())?;
            Ok(page.cut(versions, |version| version.version.to_string()))
        })
        .await
    }

    fn view(&self, model: Model) -> ModelView {
        let active_job = self.scheduler.begun(&model.uid).filter(|&job_id| self.is_unfinished(job_id));
        ModelView { active_job, model: Arc::new(model) }
    }
}

impl CreateModel {
    /// Checks everything before any weight is drawn.
    fn check(&self) -> Result<Architecture, Faults> {
        let mut faults = Faults::new();
        let at = At::ROOT;
        check_labels(&self.labels, at.field("labels"), &mut faults);
        let Some(architecture) = self.architecture.check(at.field("architecture"), &mut faults) else {
            return Err(faults);
        };
        check_class_labels(&self.class_labels, &architecture, at.field("class_labels"), &mut faults);
        self.preprocessing.check(&architecture, at.field("preprocessing"), &mut faults);
        check_layers(&architecture, &self.initial_weights, at.field("initial_weights"), &mut faults);
        faults.finish(Some(architecture))
    }

    /// Draws the weights that are not given.
    fn parameters(&self, architecture: &Architecture, seed: u64) -> Result<Values, Faults> {
        let mut faults = Faults::new();
        let drawn = draw_parameters(architecture, seed);
        let at = At::ROOT.field("initial_weights");
        let parameters = merge_layers(architecture, drawn, &self.initial_weights, at, &mut faults);
        faults.finish(parameters)
    }
}

fn chosen(model_id: &ModelId, version: Option<u32>, choice: Choice) -> Result<Model, AppError> {
    match choice {
        Choice::Done(model) => Ok(*model),
        Choice::NoModel => Err(AppError::no_model(model_id)),
        Choice::NoVersion => Err(AppError::no_version(model_id, version.unwrap_or_default())),
        Choice::TooMany(bound) => Err(AppError::Exhausted(format!(
            "{bound} versions of this model are pinned, as many as may be; unpin one, or keep a copy of its weights elsewhere"
        ))),
    }
}

/// A name for a model whose creator gave none.
fn server_named() -> ModelId {
    ModelId::generated(train::draw_seed() as u32)
}
