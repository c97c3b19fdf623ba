//! Trainings and jobs to the wire.

use std::time::Duration;

use uuid::Uuid;

use super::loss::loss;
use super::metrics::{diagnostics, metric, metrics};
use super::optimizer::{optimizer, schedule};
use super::reports::epoch_reports;
use super::{duration, timestamp};
use crate::app::{Event, JobView};
use crate::domain::settings::validation_rows;
use crate::domain::{ClassWeights, EpochReport, Job, JobState, Reduction, Settings, Start, StopReason, Validation};
use crate::rpc::pb;
use crate::rpc::status::failure_status;

/// What is told of a training.
pub(in crate::rpc) fn train_event(job_id: Uuid, event: &Event) -> pb::TrainEvent {
    use pb::train_event::Event as Told;
    let told = match event {
        Event::Queued { jobs_ahead } => Told::Queued(pb::TrainingQueued { jobs_ahead: Some(*jobs_ahead as i32) }),
        Event::Started(job) => Told::Started(pb::TrainingStarted {
            settings: Some(settings(&job.settings)),
            base_version: job.base_version.unwrap_or(0) as i32,
            start_time: job.start_time.map(timestamp),
        }),
        &Event::Progress { epoch, rows_done, rows } => {
            Told::Progress(pb::TrainingProgress { epoch: epoch as i32, rows_done: rows_done as i32, rows: rows as i32 })
        }
        Event::Epochs(reports) => Told::Epochs(epoch_reports(reports)),
        Event::Finished(job) => Told::Finished(finished(job)),
    };
    pb::TrainEvent { job_id: job_id.to_string(), event: Some(told) }
}

fn finished(job: &Job) -> pb::TrainingFinished {
    pb::TrainingFinished {
        state: state(job.state).into(),
        stop_reason: stop_reason(job.stop_reason).into(),
        failure: job.failure.as_ref().map(failure_status),
        version: job.version.unwrap_or(0) as i32,
        last_report: job.last_report.as_ref().map(epoch_report),
        best_report: job.best_report.as_ref().map(epoch_report),
    }
}

/// A job.
pub(in crate::rpc) fn job(view: &JobView) -> pb::Job {
    let job = &view.job;
    pb::Job {
        job_id: job.job_id.to_string(),
        model_id: job.model_id.to_string(),
        model_uid: job.model_uid.to_string(),
        state: state(job.state).into(),
        settings: Some(settings(&job.settings)),
        base_version: job.base_version.unwrap_or(0) as i32,
        version: job.version.unwrap_or(0) as i32,
        create_time: Some(timestamp(job.create_time)),
        start_time: job.start_time.map(timestamp),
        end_time: job.end_time.map(timestamp),
        attempt: job.attempt as i32,
        last_report: job.last_report.as_ref().map(epoch_report),
        best_report: job.best_report.as_ref().map(epoch_report),
        estimated_time_left: view.time_left.map(duration),
        stop_reason: stop_reason(job.stop_reason).into(),
        failure: job.failure.as_ref().map(failure_status),
        request_id: job.request_id.clone(),
        checkpoint_time: job.checkpoint.map(|checkpoint| timestamp(checkpoint.time)),
        checkpoint_epoch: job.checkpoint.map_or(0, |checkpoint| checkpoint.epoch as i32),
        trained_on: job.trained_on.clone(),
    }
}

/// An epoch.
pub(super) fn epoch_report(report: &EpochReport) -> pb::EpochReport {
    pb::EpochReport {
        epoch: report.epoch as i32,
        loss: report.loss,
        validation_loss: report.validation_loss,
        metrics: Some(metrics(&report.metrics)),
        validation_metrics: report.validation_metrics.as_ref().map(metrics),
        learning_rate: report.learning_rate,
        elapsed: Some(duration(Duration::from_micros(report.elapsed_micros))),
        samples_per_second: report.samples_per_second,
        diagnostics: diagnostics(&report.diagnostics),
    }
}

fn settings(settings: &Settings) -> pb::TrainingSettings {
    let (validation_fraction, validation_rows) = match settings.validation {
        Validation::None => (None, 0),
        Validation::Fraction(fraction) => (Some(fraction), validation_rows(settings.rows, fraction)),
        Validation::Given { rows } => (None, rows),
    };
    pb::TrainingSettings {
        loss: Some(loss(&settings.loss)),
        reduction: reduction(settings.reduction).into(),
        optimizer: Some(optimizer(settings.optimizer)),
        epochs: settings.epochs as i32,
        batch_size: settings.batch_size as i32,
        shuffle: settings.shuffle,
        seed: settings.seed,
        early_stopping: settings.early_stopping.map(|stopping| pb::EarlyStopping {
            patience: Some(stopping.patience as i32),
            min_delta: Some(stopping.min_delta),
            metric: metric(stopping.metric).into(),
            restore_best: Some(stopping.restore_best),
        }),
        report_every: settings.report_every as i32,
        start: start(settings.start).into(),
        validation_fraction,
        training_rows: settings.training_rows() as i32,
        validation_rows: validation_rows as i32,
        cancel_on_disconnect: settings.cancel_on_disconnect,
        schedule: Some(schedule(settings.schedule)),
        l1: settings.l1,
        l2: settings.l2,
        max_gradient_norm: settings.max_gradient_norm,
        max_gradient_value: settings.max_gradient_value,
        class_weights: settings.class_weights.as_ref().map(class_weights),
        has_sample_weights: settings.has_sample_weights,
        has_target_mask: settings.has_target_mask,
        metrics: settings.metrics.iter().map(|&it| metric(it).into()).collect(),
        top_k: settings.top_k as i32,
        diagnostics: settings.diagnostics,
        stop_at: settings
            .stop_at
            .map(|target| pb::StopAt { metric: metric(target.metric).into(), value: Some(target.value) }),
        checkpoint_interval: Some(duration(Duration::from_micros(settings.checkpoint_interval_micros))),
        max_duration: settings.max_duration_micros.map(|micros| duration(Duration::from_micros(micros))),
        frozen_layers: settings.frozen_layers.iter().map(|&layer| layer as i32).collect(),
    }
}

fn class_weights(weights: &ClassWeights) -> pb::ClassWeights {
    match weights {
        ClassWeights::Given(weights) => pb::ClassWeights { weights: weights.clone(), balanced: false },
        ClassWeights::Balanced => pb::ClassWeights { weights: Vec::new(), balanced: true },
    }
}

fn reduction(reduction: Reduction) -> pb::Reduction {
    match reduction {
        Reduction::Mean => pb::Reduction::Mean,
        Reduction::Sum => pb::Reduction::Sum,
    }
}

fn start(start: Start) -> pb::TrainingStart {
    match start {
        Start::Latest => pb::TrainingStart::Latest,
        Start::Initial => pb::TrainingStart::Initial,
        Start::Continue => pb::TrainingStart::Continue,
    }
}

fn state(state: JobState) -> pb::JobState {
    match state {
        JobState::Queued => pb::JobState::Queued,
        JobState::Running => pb::JobState::Running,
        JobState::Succeeded => pb::JobState::Succeeded,
        JobState::Failed => pb::JobState::Failed,
        JobState::Cancelled => pb::JobState::Cancelled,
    }
}

fn stop_reason(reason: Option<StopReason>) -> pb::StopReason {
    match reason {
        None => pb::StopReason::Unspecified,
        Some(StopReason::EpochsDone) => pb::StopReason::EpochsDone,
        Some(StopReason::Converged) => pb::StopReason::Converged,
        Some(StopReason::EarlyStopped) => pb::StopReason::EarlyStopped,
        Some(StopReason::Cancelled) => pb::StopReason::Cancelled,
        Some(StopReason::Diverged) => pb::StopReason::Diverged,
        Some(StopReason::Interrupted) => pb::StopReason::Interrupted,
        Some(StopReason::Internal) => pb::StopReason::Internal,
        Some(StopReason::TargetReached) => pb::StopReason::TargetReached,
        Some(StopReason::MaxDuration) => pb::StopReason::MaxDuration,
        Some(StopReason::Refused) => pb::StopReason::Refused,
    }
}
