//! The store's promises: those that a store in memory keeps as well, those of the folder, and those of a failing disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use uuid::Uuid;

use super::*;
use crate::domain::{
    Activation, Architecture, At, Continuation, EpochReport, Faults, FittedPreprocessing, Job, JobState, Matrix,
    Metrics, Model, ModelId, Preprocessing, RawArchitecture, RawLayer, RawMatrix, RawTraining, RawValidation, Reports,
    Rows, Scaler, StopReason, Targets, Timestamp, TrainingData, Values, Version, VersionSource,
};

mod backups;
mod damage;
pub(super) mod disk;
mod failing;
mod faults;
mod folder;
mod power_cut;
mod reference;
mod retention;
mod simulated;
mod verbs;

/// Runs a promise on a store in a folder and on one in memory.
fn on_both(promise: impl Fn(&Store)) {
    let folder = tempfile::tempdir().unwrap();
    promise(&Store::open(folder.path()).unwrap());
    promise(&Store::ephemeral().unwrap());
}

fn name(text: &str) -> ModelId {
    ModelId::new(text, At::ROOT, &mut Faults::new()).unwrap()
}

fn at(unix_micros: i64) -> Timestamp {
    Timestamp { unix_micros }
}

/// Two inputs, two units, one output: nine parameters.
fn architecture() -> Architecture {
    let layer = |units, activation| Some(RawLayer { units, activation, ..RawLayer::default() });
    let layers = vec![layer(2, Activation::Elu { alpha: 0.1 }), layer(1, Activation::Identity)];
    let raw = RawArchitecture { input_width: 2, layers, ..RawArchitecture::default() };
    raw.check(At::ROOT, &mut Faults::new()).unwrap()
}

fn model(model_id: &str) -> Model {
    Model {
        model_id: name(model_id),
        uid: Uuid::now_v7(),
        architecture: architecture(),
        seed: u64::MAX,
        latest_version: 1,
        serving_version: None,
        pinned_versions: BTreeSet::new(),
        class_labels: vec!["no".to_owned(), "yes".to_owned()],
        preprocessing: Preprocessing::default(),
        labels: BTreeMap::from([("owner".to_owned(), format!("needle of {model_id}"))]),
        create_time: at(1),
        update_time: at(1),
    }
}

fn first_version() -> Version {
    let source = VersionSource::Initial;
    Version { version: 1, base_version: None, source, preprocessing: None, create_time: at(1) }
}

fn weights(seed: f32) -> Values {
    Values::F32((0..9).map(|index| seed + 0.1 * index as f32).collect())
}

/// Creates a model whose initial weights are `weights(1.0)`.
fn create(store: &Store, model_id: &str) -> Model {
    let model = model(model_id);
    store.create_model(&model, &first_version(), &weights(1.0)).unwrap();
    model
}

fn draft(base_version: u32) -> VersionDraft {
    let scaler = Scaler { shift: vec![0.1, f64::MIN_POSITIVE], scale: vec![1.0 / 3.0, 1.0] };
    VersionDraft {
        base_version: Some(base_version),
        follows_base: false,
        source: VersionSource::Training { job_id: Uuid::nil(), report: Box::new(report(7)) },
        preprocessing: Some(FittedPreprocessing { inputs: Some(scaler), targets: None }),
        create_time: at(9),
    }
}

fn outcome(base_version: u32, seed: f32) -> Outcome {
    let continuation =
        Some(Continuation { head: vec![1, 2, 3], vectors: vec![weights(seed).into(), weights(-seed).into()] });
    Outcome { draft: draft(base_version), parameters: weights(seed).into(), continuation }
}

/// An attempt of a new process.
fn begin(time: i64) -> JobStart {
    let trained_on = "epochd on x86_64".to_owned();
    JobStart { attempts_before: u32::MAX, trained_on, is_after_good_stop: false, time: at(time) }
}

fn started(store: &Store, job_id: Uuid, start: JobStart) -> Job {
    match store.start_job(job_id, start).unwrap() {
        Started::Begun(job) => *job,
        other => panic!("the job did not start: {other:?}"),
    }
}

fn items<T>(listed: Vec<Listed<T>>) -> Vec<T> {
    listed.into_iter().map(|entry| entry.item().expect("nothing is damaged")).collect()
}

fn report(epoch: u32) -> EpochReport {
    EpochReport {
        epoch,
        loss: 1.0 / f64::from(epoch),
        validation_loss: epoch.is_multiple_of(2).then_some(0.1),
        metrics: Metrics { accuracy: Some(0.3), misclassified_rows: Some(2), ..Metrics::default() },
        validation_metrics: None,
        learning_rate: 1e-3,
        elapsed_micros: 1_000_000 * u64::from(epoch),
        samples_per_second: 1.5e6,
        diagnostics: Vec::new(),
    }
}

/// A report of which no number is like that of another.
fn noisy_report(epoch: u32) -> EpochReport {
    let noise = |place: u32| (f64::from(epoch) * 17.0 + f64::from(place)).sqrt().fract();
    EpochReport {
        epoch,
        loss: noise(0),
        validation_loss: Some(noise(1)),
        metrics: Metrics::from_words((0..17).step_by(2).map(|place| (place, noise(2 + place as u32).to_bits()))),
        ..EpochReport::default()
    }
}

fn job(model: &Model, request_id: &str) -> Job {
    let column = |values: Vec<f32>| RawMatrix { values: Values::F32(values), rows: None, columns: None };
    let training = RawTraining::new(column(vec![0.5; 6]), column(vec![0.0, 1.0, 2.0]));
    let training = RawTraining { validation: RawValidation::Fraction(0.2), epochs: Some(20), ..training };
    let (settings, _) = training.check(&architecture(), 3).unwrap();
    Job {
        job_id: Uuid::now_v7(),
        model_id: model.model_id.clone(),
        model_uid: model.uid,
        state: JobState::Queued,
        settings,
        request_id: request_id.to_owned(),
        caller: String::new(),
        fingerprint: Some(4),
        base_version: None,
        version: None,
        epochs_before: 0,
        create_time: at(2),
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
    }
}

fn rows() -> TrainingData {
    let matrix = |columns| Matrix::from_values(3, columns, Values::F32((0..3 * columns).map(|it| it as f32).collect()));
    let rows = |targets| Rows { inputs: matrix(2), targets, weights: Some(matrix(1)), mask: None };
    let validation = Some(rows(Targets::Classes(vec![0, 1, u32::MAX])));
    TrainingData { training: rows(Targets::Values(matrix(1))), validation }
}

/// Accepts a job without a request id.
fn accept(store: &Store, model: &Model) -> Job {
    let job = job(model, "");
    assert_eq!(store.accept_job(&job, [0; 16], &rows()).unwrap(), Accepted::New);
    job
}

fn finished(job: &Job) -> Job {
    let stop_reason = Some(StopReason::EpochsDone);
    Job { state: JobState::Succeeded, stop_reason, end_time: Some(at(5)), last_report: Some(report(20)), ..job.clone() }
}

fn blob_count(folder: &Path) -> usize {
    std::fs::read_dir(folder.join(BLOBS_FOLDER)).unwrap().count()
}

/// What a check of a folder that no store has open calls a fault.
fn faults(folder: &Path) -> Vec<String> {
    let mut faults = Vec::new();
    check(folder, &mut |line| {
        if let Line::Fault(Finding { what, problem, .. }) = line {
            faults.push(format!("{what}: {problem}"));
        }
    });
    faults
}
