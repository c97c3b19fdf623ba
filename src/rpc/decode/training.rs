//! Trainings and jobs from the wire.

use prost::Message as _;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::known;
use super::matrix::required_matrix;
use crate::app::{GradientsRequest, TrainCommand};
use crate::domain::{
    At, Faults, JobState, Loss, ModelId, RawEarlyStopping, RawOptimizer, RawTraining, RawValidation, Reduction, Start,
};
use crate::rpc::pb;

/// A training to start.
pub(in crate::rpc) fn train_command(request: pb::TrainRequest) -> Result<TrainCommand, Faults> {
    let mut faults = Faults::new();
    let at = At::ROOT;
    // Only a request that may come again is worth its hash.
    let request_hash = match request.request_id.as_str() {
        "" => [0; 16],
        _ => xxh3_128(&request.encode_to_vec()).to_le_bytes(),
    };
    let model_id = ModelId::new(&request.model_id, at.field("model_id"), &mut faults);
    let inputs = required_matrix(request.inputs, at.field("inputs"), &mut faults);
    let targets = required_matrix(request.targets, at.field("targets"), &mut faults);
    let validation = validation(request.validation, &mut faults);
    let reduction = reduction(request.reduction, &mut faults);
    let start = start(request.start, &mut faults);
    let command = (|| {
        let training = RawTraining {
            inputs: inputs?,
            targets: targets?,
            validation: validation?,
            loss: loss(request.loss),
            reduction: reduction?,
            optimizer: optimizer(request.optimizer),
            epochs: request.epochs.map(i64::from),
            batch_size: request.batch_size.map(i64::from),
            shuffle: request.shuffle,
            seed: request.seed,
            early_stopping: request.early_stopping.map(early_stopping),
            report_every: request.report_every.map(i64::from),
            start: start?,
            cancel_on_disconnect: request.cancel_on_disconnect,
        };
        Some(TrainCommand { model_id: model_id?, training, request_id: request.request_id, request_hash })
    })();
    faults.finish(command)
}

/// A batch whose gradients are asked for.
pub(in crate::rpc) fn gradients_request(request: pb::ComputeGradientsRequest) -> Result<GradientsRequest, Faults> {
    let mut faults = Faults::new();
    let at = At::ROOT;
    let model_id = ModelId::new(&request.model_id, at.field("model_id"), &mut faults);
    let inputs = required_matrix(request.inputs, at.field("inputs"), &mut faults);
    let targets = required_matrix(request.targets, at.field("targets"), &mut faults);
    let reduction = reduction(request.reduction, &mut faults);
    let decoded = (|| {
        Some(GradientsRequest {
            model_id: model_id?,
            inputs: inputs?,
            targets: targets?,
            version: request.version.map(i64::from),
            loss: loss(request.loss),
            reduction: reduction?,
        })
    })();
    faults.finish(decoded)
}

fn validation(message: Option<pb::train_request::Validation>, faults: &mut Faults) -> Option<RawValidation> {
    match message {
        None => Some(RawValidation::None),
        Some(pb::train_request::Validation::ValidationFraction(fraction)) => Some(RawValidation::Fraction(fraction)),
        Some(pb::train_request::Validation::ValidationData(data)) => {
            let at = At::ROOT.field("validation_data");
            let inputs = required_matrix(data.inputs, at.field("inputs"), faults);
            let targets = required_matrix(data.targets, at.field("targets"), faults);
            Some(RawValidation::Given { inputs: inputs?, targets: targets? })
        }
    }
}

fn loss(message: Option<pb::Loss>) -> Option<Loss> {
    Some(match message?.kind? {
        pb::loss::Kind::SquaredError(_) => Loss::SquaredError,
        pb::loss::Kind::BinaryCrossEntropy(_) => Loss::BinaryCrossEntropy,
        pb::loss::Kind::SoftmaxCrossEntropy(_) => Loss::SoftmaxCrossEntropy,
        pb::loss::Kind::Perceptron(_) => Loss::Perceptron,
        pb::loss::Kind::AbsoluteError(_) => Loss::AbsoluteError,
        pb::loss::Kind::Huber(huber) => Loss::Huber { delta: huber.delta.unwrap_or(Loss::HUBER_DELTA_DEFAULT) },
        pb::loss::Kind::LogCosh(_) => Loss::LogCosh,
    })
}

fn reduction(value: i32, faults: &mut Faults) -> Option<Reduction> {
    Some(match known(value, At::ROOT.field("reduction"), faults)? {
        pb::Reduction::Unspecified | pb::Reduction::Mean => Reduction::Mean,
        pb::Reduction::Sum => Reduction::Sum,
    })
}

fn start(value: i32, faults: &mut Faults) -> Option<Start> {
    Some(match known(value, At::ROOT.field("start"), faults)? {
        pb::TrainingStart::Unspecified | pb::TrainingStart::Latest => Start::Latest,
        pb::TrainingStart::Initial => Start::Initial,
    })
}

fn optimizer(message: Option<pb::Optimizer>) -> Option<RawOptimizer> {
    Some(match message?.method? {
        pb::optimizer::Method::Sgd(pb::Sgd { learning_rate, momentum }) => {
            RawOptimizer::Sgd { learning_rate, momentum }
        }
        pb::optimizer::Method::Adam(pb::Adam { learning_rate, beta1, beta2, epsilon }) => {
            RawOptimizer::Adam { learning_rate, beta1, beta2, epsilon }
        }
    })
}

fn early_stopping(message: pb::EarlyStopping) -> RawEarlyStopping {
    RawEarlyStopping { patience: message.patience.map(i64::from), min_delta: message.min_delta }
}

/// The id of a job.
pub(in crate::rpc) fn job_id(text: &str) -> Result<Uuid, Faults> {
    Uuid::try_parse(text).map_err(|_| {
        let problem = if text.is_empty() { "is required".to_owned() } else { format!("{text:.80?} is not a job id") };
        Faults::one(At::ROOT.field("job_id"), format!("{problem}: a UUID, as Train and ListJobs tell it"))
    })
}

/// The state that a filter names; `None`: any.
pub(in crate::rpc) fn job_state(value: i32, faults: &mut Faults) -> Option<Option<JobState>> {
    Some(match known(value, At::ROOT.field("state"), faults)? {
        pb::JobState::Unspecified => None,
        pb::JobState::Queued => Some(JobState::Queued),
        pb::JobState::Running => Some(JobState::Running),
        pb::JobState::Succeeded => Some(JobState::Succeeded),
        pb::JobState::Failed => Some(JobState::Failed),
        pb::JobState::Cancelled => Some(JobState::Cancelled),
    })
}
