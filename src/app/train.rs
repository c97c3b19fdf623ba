//! Accepting a training: checked, durable, then queued.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use uuid::Uuid;

use super::continuation::{Ended, fingerprint};
use super::disk::{rows_disk_bytes, training_disk_bytes};
use super::live::LiveJob;
use super::run::{Room, TrainingRun};
use super::watch::Watch;
use super::{App, AppError, now};
use crate::domain::{
    Architecture, At, ElementType, Faults, Job, JobState, Layer, Loss, Model, ModelId, RawTraining, Settings, Start,
    TrainingData, Validation,
};
use crate::engine::{AnyTrainer, MetricPlan, TrainerInput, slot_count};
use crate::jobs::Permit;
use crate::limits::{EXPRESSION_CHECK_OPERATIONS_MAX, LABEL_BYTES_MAX};
use crate::store::{Accepted, StoreError};

/// From one look to the next whether a job was accepted.
const ACCEPTANCE_PAUSE: Duration = Duration::from_millis(500);

/// A training as a request asks for it.
#[derive(Debug)]
pub struct TrainCommand {
    /// The model.
    pub model_id: ModelId,
    /// Everything else, not checked yet.
    pub training: RawTraining,
    /// The caller's own id of the request; empty where there is none.
    pub request_id: String,
    /// Who asks: among callers threads and memory are shared out. The address of the peer, without its port.
    pub caller: String,
    /// A hash of the whole request, kept with `request_id`.
    pub request_hash: [u8; 16],
}

impl App {
    /// Accepts a training and follows it.
    pub async fn train(&self, command: TrainCommand) -> Result<Watch, AppError> {
        if self.is_draining() {
            return Err(AppError::Stopping);
        }
        let accepted = self.blocking(move |app| app.accept(command)).await?;
        match accepted {
            Followed::Live { job_id, live, cancel_on_drop } => Ok(self.watch_live(job_id, live, cancel_on_drop)),
            Followed::Known(job_id) => self.watch_job(job_id, 1).await,
        }
    }

    fn bound_training(&self, bytes: u64, element_type: ElementType) -> Result<(), AppError> {
        let max = self.bounds.training_bytes_max;
        if bytes <= max { Ok(()) } else { Err(too_large(bytes, max, element_type)) }
    }

    /// Tries a caller's own loss on the rows, as the network answers them now: a formula that leaves the range of numbers is told
    /// before it has cost a training. Only where that is quick; the job tries it in any case, on its own thread.
    fn check_expression(&self, model: &Model, settings: &Settings, data: &TrainingData) -> Result<(), AppError> {
        let operations = settings.rows.saturating_mul(model.architecture.parameter_count() as u64);
        if !matches!(settings.loss, Loss::Custom { .. }) || operations > EXPRESSION_CHECK_OPERATIONS_MAX {
            return Ok(());
        }
        let version = if settings.start == Start::Initial { 1 } else { model.latest_version };
        let snapshot = self.core.snapshots.load(&self.core.store, model, version)?;
        let mut trainer = AnyTrainer::new(TrainerInput {
            architecture: model.architecture.clone(),
            settings: settings.clone(),
            data: data.clone(),
            preprocessing: model.preprocessing,
            fitted: snapshot.preprocessing.clone(),
            parameters: snapshot.network.parameters(),
        });
        match trainer.first_faulty_row() {
            None => Ok(()),
            Some((row, what)) => Err(expression_fault(row, what).into()),
        }
    }

    /// Refuses to continue by another method. The version may be another when the job starts: then it is looked at again.
    fn check_continuation(&self, model: &Model, settings: &Settings) -> Result<(), AppError> {
        // Jobs ahead of it will change what it goes on from.
        let mut ids = self.scheduler.ids(&model.uid).into_iter();
        if settings.start != Start::Continue || ids.any(|job_id| self.is_unfinished(job_id)) {
            return Ok(());
        }
        match self.core.store.continuation(model.uid, model.latest_version)? {
            None => Ok(()),
            Some(ended) => Ended::new(ended)?.check(settings).map_err(AppError::Precondition),
        }
    }

    fn accept(&self, command: TrainCommand) -> Result<Followed, AppError> {
        let store = &self.core.store;
        if command.request_id.len() > LABEL_BYTES_MAX {
            let message = format!("may have {LABEL_BYTES_MAX} bytes at most, but has {}", command.request_id.len());
            return Err(Faults::one(At::ROOT.field("request_id"), message).into());
        }
        // Before anything else: what was accepted once stays so, whatever became of the model or the queue.
        if let Some(known) = store.known_request(&command.request_id, command.request_hash)? {
            return follow_known(known);
        }
        let model = store.model(&command.model_id)?.ok_or_else(|| AppError::no_model(&command.model_id))?;
        let (settings, data) = command.training.check(&model.architecture, draw_seed())?;
        check_trainable(&model, &settings.frozen_layers)?;
        let bytes = training_bytes(&model.architecture, &settings);
        self.bound_training(bytes, model.architecture.element_type())?;
        self.bound_expression(&model.architecture, &settings.loss)?;
        self.check_expression(&model, &settings, &data)?;
        self.check_continuation(&model, &settings)?;
        let disk_bytes = training_disk_bytes(&model.architecture, &settings);
        let rows_bytes = rows_disk_bytes(&model.architecture, &settings);
        self.bound_disk(disk_bytes)?;
        let permit = self.scheduler.reserve(model.uid, command.caller.as_str().into())?;
        let cancel_on_drop = settings.cancel_on_disconnect;
        let job = Job {
            job_id: new_uuid(),
            model_id: model.model_id,
            model_uid: model.uid,
            state: JobState::Queued,
            settings,
            request_id: command.request_id,
            caller: command.caller,
            fingerprint: Some(fingerprint(&data)),
            base_version: None,
            epochs_before: 0,
            version: None,
            create_time: now(),
            start_time: None,
            end_time: None,
            attempt: 0,
            starts_without_checkpoint: 0,
            checkpoint: None,
            trained_on: Vec::new(),
            stop_reason: None,
            failure: None,
            last_report: None,
            best_report: None,
            report_count: 0,
        };
        let job_id = job.job_id;
        // In memory first: whoever finds the record in the store finds the job here, too.
        let live = Arc::new(LiveJob::new(job.clone()));
        self.core.live.insert(job_id, live.clone());
        let mut disk = self.core.promises.make(disk_bytes);
        // In memory the job trains from the rows as they are here; in a folder they are read back, and given back before.
        let data = if store.is_durable() { data } else { data.into_packed() };
        let accepted = store.accept_job(&job, command.request_hash, &data);
        drop(data);
        disk.kept(rows_bytes);
        let room = Room { bytes, _disk: disk };
        let run = TrainingRun::new(self.core.clone(), job_id, live.clone(), room);
        match accepted {
            Ok(Accepted::New) => {}
            Err(error @ (StoreError::Io { .. } | StoreError::Unavailable { .. })) => {
                self.find_out_whether_accepted(job_id, run, permit);
                return Err(error.into());
            }
            known => {
                self.core.live.remove(job_id);
                return follow_known(known?);
            }
        }
        tracing::info!(%job_id, model_id = %job.model_id, rows = job.settings.rows, "job accepted");
        permit.submit(run);
        Ok(Followed::Live { job_id, live, cancel_on_drop })
    }

    /// After a fault of the disk nobody knows whether the job's record was written until the store can be read again. The job keeps its
    /// place as long, and is trained if it is there: whoever sends the same request again follows it.
    fn find_out_whether_accepted(&self, job_id: Uuid, run: TrainingRun, permit: Permit<TrainingRun>) {
        let app = self.clone();
        // Accepting runs on the blocking pool of a runtime.
        drop(Handle::current().spawn(async move {
            loop {
                tokio::time::sleep(ACCEPTANCE_PAUSE).await;
                match app.stored_job(job_id).await {
                    Ok(_) => {
                        tracing::warn!(%job_id, "a job was accepted although its caller was told of a fault; it is trained");
                        return permit.submit(run);
                    }
                    Err(AppError::NotFound(_)) => return app.core.live.remove(job_id),
                    Err(error) => tracing::warn!(%job_id, %error, "it is not known yet whether a job was accepted"),
                }
            }
        }));
    }
}

fn follow_known(known: Accepted) -> Result<Followed, AppError> {
    match known {
        Accepted::Same(job) => Ok(Followed::Known(job.job_id)),
        Accepted::RequestIdTaken => {
            let message = "was used for another request; choose a new one, or send the same request again";
            Err(Faults::one(At::ROOT.field("request_id"), message).into())
        }
        // Only a call that was the first is told so, and that one does not come here.
        Accepted::New => Err(AppError::Internal("a new job was taken for a known one".to_owned())),
    }
}

/// That a caller's own loss is not finite at a row of those that were sent.
pub(super) fn expression_fault(row: u32, what: &str) -> Faults {
    let at = At::ROOT.field("loss");
    let at = at.field("custom");
    let message = format!(
        "{what} is not finite at row {row} (from 0), as the network answers it now: keep arguments in range, such \
         as log(clip(y_pred, 1e-7, 1)) or sqrt(x + 1e-9)"
    );
    Faults::one(at.field("expression"), message)
}

/// What a training takes in memory, by estimate: its rows as they came and as the network wants them, the parameters with
/// gradients, what the optimizer remembers and the epochs that are kept, and the values of one batch on their way through the
/// network.
pub(super) fn training_bytes(architecture: &Architecture, settings: &Settings) -> u64 {
    /// Parameters, gradients, the last and the best epoch, what diagnostics compare with, and the network of live predictions, twice while
    /// another takes its place. What is written is written from these.
    const COPIES: u64 = 7;
    let element = architecture.element_type().size_bytes() as u64;
    let units: u64 = architecture.layers().iter().map(|layer| layer.units as u64).sum();
    let (width, rows) = (architecture.input_width() as u64, settings.rows + given_validation_rows(settings));
    let targets = architecture.output_layer().units as u64;
    let batch_rows = u64::from(settings.batch_size).min(rows);
    let extras = u64::from(settings.has_sample_weights) + u64::from(settings.has_target_mask) * targets;
    let data = rows.saturating_mul(2 * (width + targets + extras));
    // Outputs and δ; what is dropped, normalized, or kept for its derivative.
    let special = architecture.has_dropout() || architecture.has_batch_normalization();
    let batch = batch_rows.saturating_mul((width + 2 * units) * if special { 3 } else { 2 });
    let slots = slot_count(&settings.optimizer) as u64;
    let parameters = (COPIES + slots) * architecture.parameter_count() as u64;
    let metrics = metric_bytes(architecture, settings);
    element.saturating_mul(data.saturating_add(batch).saturating_add(parameters)).saturating_add(metrics)
}

/// What metrics keep of every row.
fn metric_bytes(architecture: &Architecture, settings: &Settings) -> u64 {
    let Layer { units, activation, .. } = architecture.output_layer();
    let plan = MetricPlan::new(settings.task, activation, units, &settings.metrics, settings.top_k as usize);
    plan.bytes((settings.rows + given_validation_rows(settings)) as usize)
}

pub(super) fn given_validation_rows(settings: &Settings) -> u64 {
    match settings.validation {
        Validation::Given { rows } => rows,
        Validation::None | Validation::Fraction(_) => 0,
    }
}

enum Followed {
    Live { job_id: Uuid, live: Arc<LiveJob>, cancel_on_drop: bool },
    Known(Uuid),
}

/// Refuses networks with hidden layers through which no gradient comes back, unless nothing before them is to learn: they and all
/// layers before them are frozen, by the architecture or by being named.
pub(super) fn check_trainable(model: &Model, frozen: &[u32]) -> Result<(), AppError> {
    let layers = model.architecture.layers();
    let learns = |&(index, layer): &(usize, &Layer)| !layer.frozen && !frozen.contains(&(index as u32));
    let first = layers.iter().enumerate().find(learns).map_or(layers.len(), |(index, _)| index);
    let hidden = layers[..layers.len() - 1].iter().enumerate().skip(first);
    match hidden.into_iter().find(|(_, layer)| !layer.activation.has_gradient()) {
        None => Ok(()),
        Some((index, layer)) => {
            let all_before = if index == 0 { "layer 0".to_owned() } else { format!("layers 0 to {index}") };
            Err(AppError::Precondition(format!(
                "model {:?} cannot be trained: architecture.layers[{index}].activation is {}, which is flat, so no gradient \
                 passes it; use a model with sigmoid, tanh or ReLU there, or freeze {all_before} (`frozen_layers`)",
                model.model_id.as_str(),
                layer.activation
            )))
        }
    }
}

/// A seed where the caller gave none. Below 2^53, so that every JSON reader keeps it exactly.
pub(super) fn draw_seed() -> u64 {
    // Where the system has no randomness to give, the time in a fresh UUID is what is left.
    getrandom::u64().unwrap_or_else(|_| Uuid::now_v7().as_u128() as u64) >> 11
}

/// A uid, or a job id: it sorts by time.
pub fn new_uuid() -> Uuid {
    Uuid::now_v7()
}

/// Past the bound of memory, in words that say what to change.
fn too_large(bytes: u64, max: u64, element_type: ElementType) -> AppError {
    let smaller = match element_type {
        ElementType::Float32 => "fewer rows or a smaller network",
        ElementType::Float64 => "fewer rows, a smaller network or one of float32",
    };
    AppError::Exhausted(format!(
        "this training would take about {bytes} bytes of memory, past the server's bound of {max}; use a smaller \
         `batch_size`, {smaller}, or raise the server's --training-bytes-max"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_the_bound_is_told_what_its_type_can_change() {
        let told = |element_type| too_large(2_000, 1_000, element_type).to_string();
        for element_type in [ElementType::Float32, ElementType::Float64] {
            let told = told(element_type);
            assert!(told.contains("2000 bytes") && told.contains("bound of 1000"), "{told}");
        }
        assert!(told(ElementType::Float64).contains("one of float32"));
        assert!(!told(ElementType::Float32).contains("float32"), "it is of float32 already");
    }
}
