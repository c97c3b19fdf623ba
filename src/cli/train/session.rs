//! The calls of one training: create a model, train it, ask it for the rows that it has not seen.

use anyhow::{Context as _, bail};

use tokio::task::JoinSet;

use super::dataset::{Dataset, Rows, Task};
use super::progress::Progress;
use super::report::Score;
use crate::rpc::client::{Client, Events};
use crate::rpc::pb;
use crate::rpc::pb::train_event::Event;

/// Names that are tried for a model whose file's name is taken.
const NAMES_MAX: u32 = 10_000;
/// Rows of one prediction.
const PREDICT_ROWS: usize = 4_096;

/// How to train.
#[derive(Clone, Debug)]
pub struct Options {
    /// Units of the hidden layers.
    pub hidden: Vec<i32>,
    /// `None`: the server's default.
    pub epochs: Option<i32>,
    /// Rows of a mini-batch.
    pub batch_size: i32,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Epochs without a lower validation loss before training stops.
    pub patience: i32,
    /// Share of the training rows that validates.
    pub validation: f64,
    /// What everything random is drawn from.
    pub seed: u64,
    /// The model's name; `None`: one that is free.
    pub model_id: Option<String>,
    /// What a free name begins with.
    pub model_stem: String,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The model.
    pub model_id: String,
    /// How the training ended.
    pub finished: pb::TrainingFinished,
    /// How it does on the rows that it has not seen; `None` where there are none, or no weights were kept.
    pub score: Option<Score>,
    /// Whether it was stopped by a signal.
    pub is_interrupted: bool,
}

/// Trains over gRPC. `interrupted` completes when the user wants to stop, and when called again, to leave at once.
pub async fn train(
    client: &mut Client,
    dataset: &Dataset,
    options: &Options,
    progress: &mut Progress,
    mut interrupted: impl AsyncFnMut(),
) -> anyhow::Result<Trained> {
    // Until the job has begun nothing is worth keeping, and leaving is at once.
    let (model_id, mut events) = tokio::select! {
        started = start(client.clone(), dataset, options) => started?,
        () = interrupted() => return Err(Interrupted::Early.into()),
    };
    let (finished, is_interrupted) = follow(client, &mut events, progress, &mut interrupted).await?;
    if let Some(failure) = &finished.failure {
        bail!("the training of model {model_id} failed: {}", failure.message);
    }
    if finished.state() == pb::JobState::Cancelled && !is_interrupted {
        let kept =
            if finished.version > 0 { format!("version {} keeps", finished.version) } else { "nothing keeps".into() };
        bail!("the training of model {model_id} was cancelled by somebody else; {kept} what it had learned");
    }
    let has_score = finished.version > 0 && !dataset.test.targets.is_empty();
    let score = if has_score { Some(score(client, &model_id, dataset).await?) } else { None };
    Ok(Trained { model_id, finished, score, is_interrupted })
}

/// Stopped by the user before there was anything to keep, or a second time.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Interrupted {
    #[error("stopped before the training began")]
    Early,
    #[error("left at once; job {0} may go on where the server does")]
    Twice(String),
}

/// Creates the model and begins to train it. A model whose training is refused is not left behind.
async fn start(mut client: Client, dataset: &Dataset, options: &Options) -> anyhow::Result<(String, Events)> {
    let model_id = create_model(&mut client, dataset, options).await?;
    match client.train(train_request(&model_id, dataset, options)).await {
        Ok(events) => Ok((model_id, events)),
        Err(error) => {
            if let Err(left) = client.delete_model(&model_id).await {
                return Err(error).context(format!("model {model_id} was created and is still there: {left}"));
            }
            Err(error.into())
        }
    }
}

async fn create_model(client: &mut Client, dataset: &Dataset, options: &Options) -> anyhow::Result<String> {
    for number in 1..=NAMES_MAX {
        let free = if number == 1 { options.model_stem.clone() } else { format!("{}-{number}", options.model_stem) };
        let model_id = options.model_id.clone().unwrap_or(free);
        match client.create_model(model_request(model_id, dataset, options)).await {
            Ok(model) => return Ok(model.model_id),
            Err(error) if error.is_already_exists() && options.model_id.is_none() => {}
            Err(error) => return Err(error).context("the model could not be created"),
        }
    }
    bail!("{NAMES_MAX} models are named {}-N; choose a name with --model-id", options.model_stem)
}

fn model_request(model_id: String, dataset: &Dataset, options: &Options) -> pb::CreateModelRequest {
    let standard = || Some(pb::Scaling { method: Some(pb::scaling::Method::Standard(pb::StandardScaling {})) });
    let (output, class_labels, targets) = match &dataset.task {
        Task::Regression => (layer(1, pb::Activation::Identity), Vec::new(), standard()),
        Task::Classification(classes) => (layer(classes.len() as i32, pb::Activation::Softmax), classes.clone(), None),
    };
    let hidden = options.hidden.iter().map(|&units| layer(units, pb::Activation::Relu));
    pb::CreateModelRequest {
        model_id,
        architecture: Some(pb::Architecture {
            input_width: dataset.inputs.len() as i32,
            element_type: pb::ElementType::Float32.into(),
            layers: hidden.chain([output]).collect(),
            input_dropout: None,
        }),
        seed: Some(options.seed),
        class_labels,
        preprocessing: Some(pb::Preprocessing { inputs: standard(), targets }),
        ..pb::CreateModelRequest::default()
    }
}

fn layer(units: i32, activation: pb::Activation) -> pb::Layer {
    pb::Layer { units, activation: activation.into(), ..pb::Layer::default() }
}

fn train_request(model_id: &str, dataset: &Dataset, options: &Options) -> pb::TrainRequest {
    let adam = pb::Adam { learning_rate: Some(options.learning_rate), ..pb::Adam::default() };
    pb::TrainRequest {
        model_id: model_id.to_owned(),
        inputs: Some(matrix(&dataset.training.inputs, dataset.inputs.len())),
        targets: Some(matrix(&dataset.training.targets, 1)),
        validation: Some(pb::train_request::Validation::ValidationFraction(options.validation)),
        optimizer: Some(pb::Optimizer { method: Some(pb::optimizer::Method::Adam(adam)) }),
        epochs: options.epochs,
        batch_size: Some(options.batch_size),
        seed: Some(options.seed),
        early_stopping: Some(pb::EarlyStopping { patience: Some(options.patience), ..Default::default() }),
        ..pb::TrainRequest::default()
    }
}

/// Numbers as a program sends them.
fn matrix(values: &[f64], columns: usize) -> pb::Matrix {
    pb::Matrix {
        columns: Some(columns as i32),
        packed: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        packed_type: pb::ElementType::Float64.into(),
        ..pb::Matrix::default()
    }
}

/// Shows the events until the last; whether the user stopped the job.
async fn follow(
    client: &mut Client,
    events: &mut Events,
    progress: &mut Progress,
    interrupted: &mut impl AsyncFnMut(),
) -> anyhow::Result<(pb::TrainingFinished, bool)> {
    let job_id = events.job_id().to_owned();
    let mut stopping = JoinSet::new();
    let mut is_interrupted = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event.with_context(|| format!("job {job_id} may go on; follow it with: epochd watch {job_id}"))?,
            () = interrupted() => {
                if is_interrupted {
                    return Err(Interrupted::Twice(job_id).into());
                }
                is_interrupted = true;
                progress.say("stopping at the next batch; press Ctrl-C again to leave at once");
                // Not waited for: the stream tells the end.
                let (mut client, job_id) = (client.clone(), job_id.clone());
                stopping.spawn(async move {
                    client.cancel_job(pb::CancelJobRequest { job_id, commit: true }).await.map(drop)
                });
                continue;
            }
        };
        let Some(event) = event else { bail!("the server ended the stream before job {job_id} was finished") };
        match event.event {
            Some(Event::Queued(queued)) => progress.queued(queued.jobs_ahead()),
            Some(Event::Started(started)) => progress.started(started.settings.unwrap_or_default().epochs),
            Some(Event::Epochs(epochs)) => epochs.reports.iter().for_each(|report| progress.epoch(report)),
            Some(Event::Finished(finished)) => {
                progress.finished();
                return Ok((finished, is_interrupted));
            }
            Some(Event::Progress(_)) | None => {}
        }
    }
}

async fn score(client: &mut Client, model_id: &str, dataset: &Dataset) -> anyhow::Result<Score> {
    let Rows { inputs, targets } = &dataset.test;
    let width = dataset.inputs.len();
    let mut said = Vec::with_capacity(targets.len());
    for rows in inputs.chunks(PREDICT_ROWS * width) {
        let inputs = pb::Matrix { columns: Some(width as i32), values: rows.to_vec(), ..pb::Matrix::default() };
        let request =
            pb::PredictRequest { model_id: model_id.to_owned(), inputs: Some(inputs), ..pb::PredictRequest::default() };
        let answer = client.predict(request).await?;
        match dataset.task {
            Task::Regression => said.extend(answer.outputs.unwrap_or_default().values),
            Task::Classification(_) => said.extend(answer.classes.iter().map(|class| f64::from(class.index()))),
        }
    }
    Ok(Score::new(&dataset.task, targets, &said))
}
