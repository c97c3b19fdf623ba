//! Trainings and jobs to the wire.

use std::time::Duration;

use uuid::Uuid;

use super::{duration, timestamp};
use crate::app::{Event, JobView};
use crate::domain::training::validation_rows;
use crate::domain::{
    EpochReport, Job, JobState, Loss, Metrics, Optimizer, Reduction, Settings, Start, StopReason, Validation,
};
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
        Event::Epochs(reports) => {
            Told::Epochs(pb::EpochReports { reports: reports.iter().map(epoch_report).collect() })
        }
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
    }
}

fn metrics(metrics: &Metrics) -> pb::Metrics {
    pb::Metrics {
        accuracy: metrics.accuracy,
        misclassified_rows: metrics.misclassified_rows.map(|rows| rows as i32),
        mean_absolute_error: metrics.mean_absolute_error,
        r2: metrics.r2,
    }
}

fn settings(settings: &Settings) -> pb::TrainingSettings {
    let (validation_fraction, validation_rows) = match settings.validation {
        Validation::None => (None, 0),
        Validation::Fraction(fraction) => (Some(fraction), validation_rows(settings.rows, fraction)),
        Validation::Given { rows } => (None, rows),
    };
    pb::TrainingSettings {
        loss: Some(loss(settings.loss)),
        reduction: reduction(settings.reduction).into(),
        optimizer: Some(optimizer(settings.optimizer)),
        epochs: settings.epochs as i32,
        batch_size: settings.batch_size as i32,
        shuffle: settings.shuffle,
        seed: settings.seed,
        early_stopping: settings.early_stopping.map(|stopping| pb::EarlyStopping {
            patience: Some(stopping.patience as i32),
            min_delta: Some(stopping.min_delta),
        }),
        report_every: settings.report_every as i32,
        start: start(settings.start).into(),
        validation_fraction,
        training_rows: settings.training_rows() as i32,
        validation_rows: validation_rows as i32,
        cancel_on_disconnect: settings.cancel_on_disconnect,
    }
}

fn loss(loss: Loss) -> pb::Loss {
    pb::Loss {
        kind: Some(match loss {
            Loss::SquaredError => pb::loss::Kind::SquaredError(pb::SquaredErrorLoss {}),
            Loss::BinaryCrossEntropy => pb::loss::Kind::BinaryCrossEntropy(pb::BinaryCrossEntropyLoss {}),
            Loss::SoftmaxCrossEntropy => pb::loss::Kind::SoftmaxCrossEntropy(pb::SoftmaxCrossEntropyLoss {}),
            Loss::Perceptron => pb::loss::Kind::Perceptron(pb::PerceptronLoss {}),
            Loss::AbsoluteError => pb::loss::Kind::AbsoluteError(pb::AbsoluteErrorLoss {}),
            Loss::Huber { delta } => pb::loss::Kind::Huber(pb::HuberLoss { delta: Some(delta) }),
            Loss::LogCosh => pb::loss::Kind::LogCosh(pb::LogCoshLoss {}),
        }),
    }
}

fn reduction(reduction: Reduction) -> pb::Reduction {
    match reduction {
        Reduction::Mean => pb::Reduction::Mean,
        Reduction::Sum => pb::Reduction::Sum,
    }
}

fn optimizer(optimizer: Optimizer) -> pb::Optimizer {
    pb::Optimizer {
        method: Some(match optimizer {
            Optimizer::Sgd { learning_rate, momentum } => {
                pb::optimizer::Method::Sgd(pb::Sgd { learning_rate: Some(learning_rate), momentum: Some(momentum) })
            }
            Optimizer::Adam { learning_rate, beta1, beta2, epsilon } => pb::optimizer::Method::Adam(pb::Adam {
                learning_rate: Some(learning_rate),
                beta1: Some(beta1),
                beta2: Some(beta2),
                epsilon: Some(epsilon),
            }),
        }),
    }
}

fn start(start: Start) -> pb::TrainingStart {
    match start {
        Start::Latest => pb::TrainingStart::Latest,
        Start::Initial => pb::TrainingStart::Initial,
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
    }
}
