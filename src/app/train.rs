//! Accepting a training: checked, durable, then queued.

use std::sync::Arc;

use uuid::Uuid;

use super::live::LiveJob;
use super::run::TrainingRun;
use super::watch::Watch;
use super::{App, AppError, now};
use crate::domain::{At, Faults, Job, JobState, Model, ModelId, RawTraining};
use crate::limits::LABEL_BYTES_MAX;
use crate::store::Accepted;

/// A training as a request asks for it.
#[derive(Debug)]
pub struct TrainCommand {
    /// The model.
    pub model_id: ModelId,
    /// Everything else, not checked yet.
    pub training: RawTraining,
    /// The caller's own id of the request; empty where there is none.
    pub request_id: String,
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

    fn accept(&self, command: TrainCommand) -> Result<Followed, AppError> {
        let store = &self.core.store;
        if command.request_id.len() > LABEL_BYTES_MAX {
            let message = format!("may have {LABEL_BYTES_MAX} bytes at most, but has {}", command.request_id.len());
            return Err(Faults::one(At::ROOT.field("request_id"), message).into());
        }
        let model = store.model(&command.model_id)?.ok_or_else(|| AppError::no_model(&command.model_id))?;
        check_trainable(&model)?;
        let (settings, data) = command.training.check(&model.architecture, draw_seed())?;
        let permit = self.scheduler.reserve(model.uid)?;
        let cancel_on_drop = settings.cancel_on_disconnect;
        let job = Job {
            job_id: new_job_id(),
            model_id: model.model_id,
            model_uid: model.uid,
            state: JobState::Queued,
            settings,
            request_id: command.request_id,
            base_version: None,
            version: None,
            create_time: now(),
            start_time: None,
            end_time: None,
            attempt: 0,
            stop_reason: None,
            failure: None,
            last_report: None,
            best_report: None,
            report_count: 0,
        };
        let job_id = job.job_id;
        match store.accept_job(&job, command.request_hash, &data)? {
            Accepted::New => {}
            Accepted::Same(known) => return Ok(Followed::Known(known.job_id)),
            Accepted::RequestIdTaken => {
                let message = "was used for another request; choose a new one, or send the same request again";
                return Err(Faults::one(At::ROOT.field("request_id"), message).into());
            }
        }
        tracing::info!(%job_id, model_id = %job.model_id, rows = job.settings.rows, "job accepted");
        let live = Arc::new(LiveJob::new(job));
        self.core.live.insert(job_id, live.clone());
        permit.submit(TrainingRun::new(self.core.clone(), model.uid, job_id, live.clone()));
        Ok(Followed::Live { job_id, live, cancel_on_drop })
    }
}

enum Followed {
    Live { job_id: Uuid, live: Arc<LiveJob>, cancel_on_drop: bool },
    Known(Uuid),
}

/// Refuses networks through whose hidden layers no gradient comes back.
pub(super) fn check_trainable(model: &Model) -> Result<(), AppError> {
    let layers = model.architecture.layers();
    let hidden = &layers[..layers.len() - 1];
    match hidden.iter().position(|layer| !layer.activation.has_gradient()) {
        None => Ok(()),
        Some(index) => Err(AppError::Precondition(format!(
            "model {:?} cannot be trained: architecture.layers[{index}].activation is {}, which is flat, so no gradient \
             passes it; use a model with sigmoid, tanh or ReLU there (weights set by hand work as they are)",
            model.model_id.as_str(),
            hidden[index].activation
        ))),
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

fn new_job_id() -> Uuid {
    new_uuid()
}
