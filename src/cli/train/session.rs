//! The calls of one training: create a model, train it, ask it for the rows that it has not seen.

use anyhow::{Context as _, bail};

use tokio::task::JoinSet;

use super::dataset::{Dataset, Rows, Task};
use super::plan::{Plan, Reading};
use super::progress::Progress;
use super::report::Score;
use crate::cli::picture::{Area, Losses, Plane};
use crate::rpc::client::{Client, Events};
use crate::rpc::pb;
use crate::rpc::pb::train_event::Event;

/// Names that are tried for a model whose file's name is taken.
const NAMES_MAX: u32 = 10_000;
/// Rows of one prediction.
const PREDICT_ROWS: usize = 4_096;

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
    /// What was to be told of it.
    pub asked: Asked,
    /// The losses of its epochs.
    pub losses: Losses,
    /// What the model says over the plane of its inputs; `None` unless a picture is wanted and the inputs are two.
    pub plane: Option<Plane>,
}

/// What the request says that a report must know.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The metrics that were asked for, as the contract numbers them.
    pub metrics: Vec<i32>,
    /// Whether layers are told of.
    pub diagnostics: bool,
    /// Whether the best epoch's weights are kept, and not the last one's.
    pub restores_best: bool,
}

impl Asked {
    fn of(request: &pb::TrainRequest) -> Self {
        let stopping = request.early_stopping.as_ref();
        Self {
            metrics: request.metrics.clone(),
            diagnostics: request.diagnostics,
            restores_best: stopping.is_some_and(|stopping| stopping.restore_best != Some(false)),
        }
    }
}

impl Trained {
    /// The report of the epoch whose weights are kept.
    pub fn kept_report(&self) -> Option<&pb::EpochReport> {
        let finished = &self.finished;
        if self.asked.restores_best { finished.best_report.as_ref() } else { finished.last_report.as_ref() }
    }
}

/// Trains over gRPC. `interrupted` completes when the user wants to stop, and when called again, to leave at once.
pub async fn train(
    client: &mut Client,
    dataset: &Dataset,
    plan: Plan,
    progress: &mut Progress,
    mut interrupted: impl AsyncFnMut(),
) -> anyhow::Result<Trained> {
    let (asked, is_plotted) = (Asked::of(&plan.training), plan.is_plotted);
    // Until the job has begun nothing is worth keeping, and leaving is at once.
    let (model_id, reading, mut events) = tokio::select! {
        started = start(client.clone(), plan) => started?,
        () = interrupted() => return Err(Interrupted::Early.into()),
    };
    let mut losses = Losses::default();
    let (finished, is_interrupted) = follow(client, &mut events, progress, &mut losses, &mut interrupted).await?;
    if let Some(failure) = &finished.failure {
        bail!("the training of model {model_id} failed: {}", failure.message);
    }
    if finished.state() == pb::JobState::Cancelled && !is_interrupted {
        let kept =
            if finished.version > 0 { format!("version {} keeps", finished.version) } else { "nothing keeps".into() };
        bail!("the training of model {model_id} was cancelled by somebody else; {kept} what it had learned");
    }
    let has_learned = finished.version > 0;
    let has_score = has_learned && !dataset.test.targets.is_empty();
    let score = if has_score { Some(score(client, &model_id, dataset, reading).await?) } else { None };
    let has_plane = has_learned && is_plotted && dataset.inputs.len() == 2;
    let plane = if has_plane { Some(plane(client, &model_id, dataset, reading).await?) } else { None };
    Ok(Trained { model_id, finished, score, is_interrupted, asked, losses, plane })
}

/// Stopped by the user before there was anything to keep, or a second time.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum Interrupted {
    #[error("stopped before the training began")]
    Early,
    #[error("left at once; job {0} may go on where the server does")]
    Twice(String),
}

/// Begins to train a model: one that is there already, or one that it creates.
async fn start(mut client: Client, plan: Plan) -> anyhow::Result<(String, Reading, Events)> {
    match plan.model_id.clone().filter(|_| plan.continues) {
        None => create_and_train(client, plan).await,
        Some(model_id) => {
            let reading = plan.reading_of(&client.model(&model_id).await?)?;
            let events = client.train(pb::TrainRequest { model_id: model_id.clone(), ..plan.training }).await?;
            Ok((model_id, reading, events))
        }
    }
}

/// A model whose training is refused is not left behind.
async fn create_and_train(mut client: Client, plan: Plan) -> anyhow::Result<(String, Reading, Events)> {
    let model_id = create_model(&mut client, &plan).await?;
    match client.train(pb::TrainRequest { model_id: model_id.clone(), ..plan.training }).await {
        Ok(events) => Ok((model_id, plan.reading, events)),
        Err(error) => {
            if let Err(left) = client.delete_model(&model_id).await {
                return Err(error).context(format!("model {model_id} was created and is still there: {left}"));
            }
            Err(error.into())
        }
    }
}

async fn create_model(client: &mut Client, plan: &Plan) -> anyhow::Result<String> {
    for number in 1..=NAMES_MAX {
        let free = if number == 1 { plan.model_stem.clone() } else { format!("{}-{number}", plan.model_stem) };
        let model_id = plan.model_id.clone().unwrap_or(free);
        match client.create_model(pb::CreateModelRequest { model_id, ..plan.model.clone() }).await {
            Ok(model) => return Ok(model.model_id),
            Err(error) if error.is_already_exists() && plan.model_id.is_none() => {}
            Err(error) => return Err(error).context("the model could not be created"),
        }
    }
    bail!("{NAMES_MAX} models are named {}-N; choose a name with --model-id", plan.model_stem)
}

/// Shows the events until the last; whether the user stopped the job.
async fn follow(
    client: &mut Client,
    events: &mut Events,
    progress: &mut Progress,
    losses: &mut Losses,
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
            Some(Event::Epochs(epochs)) => epochs.reports.iter().for_each(|report| {
                progress.epoch(report);
                losses.add(report);
            }),
            Some(Event::Finished(finished)) => {
                progress.finished();
                return Ok((finished, is_interrupted));
            }
            Some(Event::Progress(_)) | None => {}
        }
    }
}

async fn score(client: &mut Client, model_id: &str, dataset: &Dataset, reading: Reading) -> anyhow::Result<Score> {
    let Rows { inputs, targets, .. } = &dataset.test;
    let said = ask(client, model_id, inputs, dataset.inputs.len(), reading).await?;
    Ok(Score::new(&dataset.task, targets, &said))
}

/// What the model says around all rows, of two inputs each.
async fn plane(client: &mut Client, model_id: &str, dataset: &Dataset, reading: Reading) -> anyhow::Result<Plane> {
    let Dataset { training, test, .. } = dataset;
    let inputs = [&*training.inputs, &*test.inputs].concat();
    let targets = [&*training.targets, &*test.targets].concat();
    let area = Area::around(&inputs);
    let said = ask(client, model_id, &area.middles(), 2, reading).await?;
    let points = inputs.chunks_exact(2).zip(targets).map(|(at, target)| (at[0], at[1], target)).collect();
    let classes = match &dataset.task {
        Task::Regression => Vec::new(),
        Task::Classification(names) => names.clone(),
    };
    let names = [dataset.inputs[0].clone(), dataset.inputs[1].clone()];
    Ok(Plane { names, target: dataset.target.clone(), area, said, points, classes })
}

/// What the model says of rows of `width` inputs, a number each.
async fn ask(
    client: &mut Client,
    model_id: &str,
    inputs: &[f64],
    width: usize,
    reading: Reading,
) -> anyhow::Result<Vec<f64>> {
    let mut said = Vec::with_capacity(inputs.len() / width);
    for rows in inputs.chunks(PREDICT_ROWS * width) {
        let inputs = pb::Matrix { columns: Some(width as i32), values: rows.to_vec(), ..pb::Matrix::default() };
        let request =
            pb::PredictRequest { model_id: model_id.to_owned(), inputs: Some(inputs), ..pb::PredictRequest::default() };
        said.extend(read(client.predict(request).await?, reading));
    }
    Ok(said)
}

fn read(answer: pb::PredictResponse, reading: Reading) -> Vec<f64> {
    let outputs = answer.outputs.unwrap_or_default().values;
    match reading {
        Reading::Value => outputs,
        Reading::Logarithm => outputs.into_iter().map(f64::exp).collect(),
        Reading::Class => answer.classes.iter().map(|class| f64::from(class.index())).collect(),
        Reading::Threshold(least) => outputs.into_iter().map(|output| f64::from(u8::from(output >= least))).collect(),
    }
}
