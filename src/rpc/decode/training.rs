//! Trainings and jobs from the wire.

use uuid::Uuid;

use super::known;
use super::loss::loss;
use super::matrix::{must_be_there, packed_matrix, required_matrix};
use super::metrics::{metric, metrics};
use super::optimizer::{optimizer, schedule};
use super::request_hash::request_hash;
use crate::app::{GradientsRequest, TrainCommand};
use crate::domain::{
    At, Faults, JobState, ModelId, RawClassWeights, RawEarlyStopping, RawMatrix, RawRows, RawStopAt, RawTraining,
    RawValidation, Reduction, Start,
};
use crate::rpc::pb;

/// A training to start, and who asks for it.
pub(in crate::rpc) fn train_command(mut request: pb::TrainRequest, caller: String) -> Result<TrainCommand, Faults> {
    let mut faults = Faults::new();
    // Only a request that may come again is worth its hash.
    let request_hash = match request.request_id.as_str() {
        "" => [0; 16],
        _ => request_hash(&mut request),
    };
    let model_id = ModelId::new(&request.model_id, At::ROOT.field("model_id"), &mut faults);
    let request_id = request.request_id.clone();
    let training = training(request, &mut faults);
    let command = model_id.zip(training).map(|(model_id, training)| TrainCommand {
        model_id,
        training,
        request_id,
        caller,
        request_hash,
    });
    faults.finish(command)
}

fn training(request: pb::TrainRequest, faults: &mut Faults) -> Option<RawTraining> {
    let at = At::ROOT;
    let inputs = packed_rows(request.inputs, at.field("inputs"), faults);
    let targets = packed_rows(request.targets, at.field("targets"), faults);
    let weights = optional_matrix(request.sample_weights, at.field("sample_weights"), faults);
    let mask = optional_matrix(request.target_mask, at.field("target_mask"), faults);
    let validation = validation(request.validation, faults);
    let loss = loss(request.loss, faults);
    let reduction = reduction(request.reduction, faults);
    let start = start(request.start, faults);
    let early_stopping = early_stopping(request.early_stopping, faults);
    let stop_at = stop_at(request.stop_at, faults);
    let metrics = metrics(&request.metrics, at.field("metrics"), faults);
    let max_duration_micros = request.max_duration.map(micros);
    let checkpoint_interval_micros = request.checkpoint_interval.map(micros);
    Some(RawTraining {
        rows: RawRows { inputs: inputs?, targets: targets?, weights: weights?, mask: mask? },
        validation: validation?,
        loss: loss?,
        reduction: reduction?,
        optimizer: optimizer(request.optimizer),
        schedule: schedule(request.schedule),
        epochs: request.epochs.map(i64::from),
        batch_size: request.batch_size.map(i64::from),
        shuffle: request.shuffle,
        seed: request.seed,
        early_stopping: early_stopping?,
        report_every: request.report_every.map(i64::from),
        start: start?,
        cancel_on_disconnect: request.cancel_on_disconnect,
        l1: request.l1,
        l2: request.l2,
        max_gradient_norm: request.max_gradient_norm,
        max_gradient_value: request.max_gradient_value,
        class_weights: request.class_weights.map(|it| RawClassWeights { weights: it.weights, balanced: it.balanced }),
        metrics: metrics?,
        top_k: request.top_k.map(i64::from),
        diagnostics: request.diagnostics,
        stop_at: stop_at?,
        max_duration_micros,
        checkpoint_interval_micros,
        frozen_layers: request.frozen_layers.into_iter().map(i64::from).collect(),
    })
}

/// Rows that must be there, in the message's buffer.
fn packed_rows(matrix: Option<pb::Matrix>, at: At<'_>, faults: &mut Faults) -> Option<RawMatrix> {
    must_be_there(matrix.as_ref(), at, faults);
    packed_matrix(matrix?, at, faults)
}

/// Not there: `Some(None)`.
fn optional_matrix(message: Option<pb::Matrix>, at: At<'_>, faults: &mut Faults) -> Option<Option<RawMatrix>> {
    match message {
        None => Some(None),
        Some(matrix) => packed_matrix(matrix, at, faults).map(Some),
    }
}

/// A duration in microseconds; rounded up, so that what is above 0 stays so.
fn micros(duration: prost_types::Duration) -> i64 {
    let nanos = i64::from(duration.nanos);
    duration.seconds.saturating_mul(1_000_000).saturating_add(nanos.div_euclid(1_000) + i64::from(nanos % 1_000 > 0))
}

/// A batch whose gradients are asked for.
pub(in crate::rpc) fn gradients_request(request: pb::ComputeGradientsRequest) -> Result<GradientsRequest, Faults> {
    let mut faults = Faults::new();
    let at = At::ROOT;
    let model_id = ModelId::new(&request.model_id, at.field("model_id"), &mut faults);
    let inputs = required_matrix(request.inputs, at.field("inputs"), &mut faults);
    let targets = required_matrix(request.targets, at.field("targets"), &mut faults);
    let loss = loss(request.loss, &mut faults);
    let reduction = reduction(request.reduction, &mut faults);
    let decoded = (|| {
        Some(GradientsRequest {
            model_id: model_id?,
            inputs: inputs?,
            targets: targets?,
            version: request.version.map(i64::from),
            loss: loss?,
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
            let inputs = packed_rows(data.inputs, at.field("inputs"), faults);
            let targets = packed_rows(data.targets, at.field("targets"), faults);
            let weights = optional_matrix(data.sample_weights, at.field("sample_weights"), faults);
            let mask = optional_matrix(data.target_mask, at.field("target_mask"), faults);
            let rows = RawRows { inputs: inputs?, targets: targets?, weights: weights?, mask: mask? };
            Some(RawValidation::Given(Box::new(rows)))
        }
    }
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
        pb::TrainingStart::Continue => Start::Continue,
    })
}

fn early_stopping(message: Option<pb::EarlyStopping>, faults: &mut Faults) -> Option<Option<RawEarlyStopping>> {
    let Some(message) = message else { return Some(None) };
    let at = At::ROOT.field("early_stopping");
    Some(Some(RawEarlyStopping {
        patience: message.patience.map(i64::from),
        min_delta: message.min_delta,
        metric: metric(message.metric, at.field("metric"), faults)?,
        restore_best: message.restore_best,
    }))
}

fn stop_at(message: Option<pb::StopAt>, faults: &mut Faults) -> Option<Option<RawStopAt>> {
    let Some(message) = message else { return Some(None) };
    let at = At::ROOT.field("stop_at");
    Some(Some(RawStopAt { metric: metric(message.metric, at.field("metric"), faults)?, value: message.value }))
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::domain::{RawArchitecture, RawLayer};

    fn matrix(count: usize) -> Option<pb::Matrix> {
        let packed: Vec<u8> = (0..count).flat_map(|index| (index as f32).to_le_bytes()).collect();
        Some(pb::Matrix { packed: packed.into(), ..Default::default() })
    }

    #[test]
    fn packed_rows_are_checked_in_the_buffer_that_they_came_in() {
        let (rows, width) = (1_000, 20);
        let raw = RawArchitecture {
            input_width: width,
            layers: vec![Some(RawLayer { units: 1, ..RawLayer::default() })],
            ..RawArchitecture::default()
        };
        let architecture = raw.check(At::ROOT, &mut Faults::new()).unwrap();
        let some = || pb::ValidationData { inputs: matrix(rows * 20), targets: matrix(rows), ..Default::default() };
        let request = pb::TrainRequest {
            model_id: "m".into(),
            inputs: some().inputs,
            targets: some().targets,
            sample_weights: some().targets,
            validation: Some(pb::train_request::Validation::ValidationData(some())),
            ..Default::default()
        };
        let message = Bytes::from(request.encode_to_vec());
        let length = message.len() as u64;
        let mut data = None;
        let counted = allocation_counter::measure(|| {
            let request = pb::TrainRequest::decode(message).unwrap();
            let command = train_command(request, String::new()).unwrap();
            data = Some(command.training.check(&architecture, 1).unwrap().1);
        });
        assert!(counted.bytes_max < length / 10, "{counted:?} for a message of {length} bytes");
        assert_eq!(data.unwrap().training.inputs.get(999, 19), 19_999.0);
    }
}
