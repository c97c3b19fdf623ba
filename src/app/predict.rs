//! Predictions: from an immutable snapshot of a version, or of the running job, never behind a training.

use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::snapshots::{Serving, Snapshot};
use super::weights::{version_number, wanted_layers};
use super::{App, AppError, done};
use crate::domain::{
    Activation, Architecture, At, ElementType, Faults, FittedPreprocessing, Matrix, Model, ModelId, RawMatrix,
};
use crate::engine::AnyNetwork;
use crate::limits::{PREDICT_AT_ONCE_OPERATIONS_MAX, PREDICT_INLINE_OPERATIONS_MAX, PREDICT_PART_OPERATIONS_MIN};

/// Copies of the parameters in memory while they are read: the file's bytes, and the numbers.
const LOAD_COPIES: usize = 2;

/// What is asked.
#[derive(Debug)]
pub struct PredictRequest {
    /// The model.
    pub model_id: ModelId,
    /// Rows in the caller's own units.
    pub inputs: RawMatrix,
    /// `None`: the one that the model serves.
    pub version: Option<i64>,
    /// Ask the running job.
    pub live: bool,
    /// Layers, by index, whose outputs are told, too.
    pub layers: Vec<i64>,
    /// Whether what goes into their activations is told instead.
    pub before_activation: bool,
}

/// What a classifier says of one row.
#[derive(Debug, PartialEq)]
pub struct ClassPrediction {
    /// The class.
    pub index: usize,
    /// Its name; empty where there is none.
    pub label: String,
    /// `None` where the output is no probability.
    pub probability: Option<f64>,
}

/// The answer.
#[derive(Debug)]
pub struct Prediction {
    /// A row for each input row.
    pub outputs: Matrix,
    /// What they say, where the network is a classifier.
    pub classes: Vec<ClassPrediction>,
    /// The version that answered, or that the job started from.
    pub version: u32,
    /// The job that answered, and its epoch.
    pub live: Option<(Uuid, u32)>,
    /// What the layers asked for made of the rows, by their index.
    pub layers: Vec<(usize, Matrix)>,
}

/// What answers: a network with what was learned of the data before it.
trait Answers: Send + Sync + 'static {
    fn network(&self) -> (&AnyNetwork, Option<&FittedPreprocessing>);
}

impl Answers for Snapshot {
    fn network(&self) -> (&AnyNetwork, Option<&FittedPreprocessing>) {
        (&self.network, self.preprocessing.as_ref())
    }
}

impl Answers for super::live::LiveSnapshot {
    fn network(&self) -> (&AnyNetwork, Option<&FittedPreprocessing>) {
        (&self.network, self.preprocessing.as_ref())
    }
}

impl App {
    /// The same as [`Self::predict`], where nothing has to be waited for: the version that is served, in memory, and few operations. `None`
    /// where it takes longer, and where it is refused: `predict` tells why.
    pub fn predict_at_once(&self, request: PredictRequest) -> Option<Prediction> {
        let is_plain = !request.live && request.version.is_none() && request.layers.is_empty();
        let (model, snapshot) = is_plain.then(|| self.core.snapshots.cached_serving(&request.model_id))??;
        let question = Question::new(request.inputs, &[], false, &model.architecture).ok()?;
        self.bound_answer(question.numbers(&model.architecture), "").ok()?;
        if work(&question.inputs, &model.architecture) > PREDICT_AT_ONCE_OPERATIONS_MAX {
            return None;
        }
        let outputs = finite(snapshot.network.predict(&question.inputs, snapshot.preprocessing.as_ref())).ok()?;
        let classes = classes(&outputs, &model.architecture, &model.class_labels);
        Some(Prediction { outputs, classes, version: snapshot.version, live: None, layers: Vec::new() })
    }

    /// Room for the rows of a large prediction. What is in it does not matter.
    pub fn row_buffer(&self, count: usize) -> Vec<f32> {
        self.core.buffers.take(count)
    }

    /// Computes the output of a network.
    pub async fn predict(&self, request: PredictRequest) -> Result<Prediction, AppError> {
        if request.live && request.version.is_some() {
            let message = "cannot be asked together with `live`, which answers from the running job";
            return Err(Faults::one(At::ROOT.field("version"), message).into());
        }
        // Another version, or a running job, answers whatever has become of the version that is served.
        let (model, serving) = match request.live || request.version.is_some() {
            true => (self.model_in_memory(&request.model_id).await?, None),
            false => self.serving(&request.model_id).await.map(|(model, serving)| (model, Some(serving)))?,
        };
        let question = Question::new(request.inputs, &request.layers, request.before_activation, &model.architecture)?;
        self.bound_answer(question.numbers(&model.architecture), "ask for fewer rows or `layers` at a time")?;
        if request.live {
            return self.predict_live(&model, question).await;
        }
        let snapshot = match serving {
            Some(serving) => serving,
            None => self.snapshot(&model, version_number(&model, request.version)?).await?,
        };
        let version = snapshot.version;
        let (outputs, layers) = self.compute(snapshot, question, &model.architecture).await?;
        let classes = classes(&outputs, &model.architecture, &model.class_labels);
        Ok(Prediction { outputs, classes, version, live: None, layers })
    }

    /// A model's record: late by no change that was answered.
    async fn model_in_memory(&self, model_id: &ModelId) -> Result<Arc<Model>, AppError> {
        match self.core.snapshots.cached_model(model_id) {
            Some(model) => Ok(model),
            None => {
                let model_id = model_id.clone();
                self.blocking(move |app| app.core.snapshots.load_model(&app.core.store, &model_id)).await
            }
        }
    }

    /// A version, from memory where it is there.
    async fn snapshot(&self, model: &Arc<Model>, version: u32) -> Result<Arc<Snapshot>, AppError> {
        if let Some(snapshot) = self.core.snapshots.cached(model.uid, version) {
            return Ok(snapshot);
        }
        let room = self.room_for(&model.architecture, LOAD_COPIES).await;
        let model = model.clone();
        let load = move |app: &App| {
            let _room = room;
            app.core.snapshots.load(&app.core.store, &model, version)
        };
        self.blocking(load).await
    }

    async fn predict_live(&self, model: &Model, question: Question) -> Result<Prediction, AppError> {
        let running = self.scheduler.begun(&model.uid);
        let live = running.and_then(|job_id| Some((job_id, self.core.live.get(job_id)?)));
        let answer = live.and_then(|(job_id, live)| Some((job_id, live.record().base_version?, live.snapshot()?)));
        let Some((job_id, version, snapshot)) = answer else {
            return Err(AppError::Precondition(format!(
                "no job is training model {:?} now; leave out `live` to ask the version that it serves",
                model.model_id.as_str()
            )));
        };
        let epoch = snapshot.epoch;
        let (outputs, layers) = self.compute(snapshot, question, &model.architecture).await?;
        let classes = classes(&outputs, &model.architecture, &model.class_labels);
        Ok(Prediction { outputs, classes, version, live: Some((job_id, epoch)), layers })
    }

    /// The model and the version that it serves, from memory where they are there.
    async fn serving(&self, model_id: &ModelId) -> Result<Serving, AppError> {
        if let Some(serving) = self.core.snapshots.cached_serving(model_id) {
            return Ok(serving);
        }
        let model = self.record(model_id).await?;
        let room = self.room_for(&model.architecture, LOAD_COPIES).await;
        let model_id = model_id.clone();
        self.blocking(move |app| {
            let _room = room;
            app.core.snapshots.load_serving(&app.core.store, &model_id)
        })
        .await
    }

    /// Small products run where they are; big ones leave the async workers, a bounded number of parts at a time.
    async fn compute(
        &self,
        answers: Arc<impl Answers>,
        question: Question,
        architecture: &Architecture,
    ) -> Result<(Matrix, Vec<(usize, Matrix)>), AppError> {
        let operations = operations(&question.inputs, architecture);
        let question = Arc::new(question);
        let parts = if operations <= PREDICT_INLINE_OPERATIONS_MAX {
            vec![question.ask(&*answers, 0..question.inputs.rows())]
        } else {
            self.compute_parts(&answers, &question, operations).await?
        };
        let (outputs, values): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let mut values: Vec<_> = values.into_iter().map(Vec::into_iter).collect();
        let layers = question.layers.iter().map(|&layer| {
            let values = stacked(values.iter_mut().filter_map(Iterator::next))?;
            Ok((layer, values))
        });
        let layers = layers.collect::<Result<_, AppError>>()?;
        if let Some(question) = Arc::into_inner(question) {
            self.core.buffers.give(question.inputs);
        }
        Ok((stacked(outputs)?, layers))
    }

    /// As many parts as are worth a thread and as may be at it now.
    async fn compute_parts(
        &self,
        answers: &Arc<impl Answers>,
        question: &Arc<Question>,
        operations: usize,
    ) -> Result<Vec<(Matrix, Vec<Matrix>)>, AppError> {
        let rows = question.inputs.rows();
        let mut permits = vec![self.big_predictions.clone().acquire_owned().await.ok()];
        let parts_max = rows.min(operations / PREDICT_PART_OPERATIONS_MIN);
        let more = std::iter::from_fn(|| self.big_predictions.clone().try_acquire_owned().ok());
        permits.extend(more.take(parts_max.saturating_sub(1)).map(Some));
        let parts = permits.len();
        let begin = |(index, permit)| {
            let (question, answers) = (question.clone(), answers.clone());
            // The permit goes along: a caller who goes away leaves the work behind.
            self.begin_blocking(move |_| {
                let _permit = permit;
                Ok(question.ask(&*answers, rows * index / parts..rows * (index + 1) / parts))
            })
        };
        let begun: Vec<_> = permits.into_iter().enumerate().map(begin).collect();
        let mut parts = Vec::with_capacity(begun.len());
        for part in begun {
            parts.push(done(part).await?);
        }
        Ok(parts)
    }
}

/// All parts of what a network made of rows, if every number is finite.
fn stacked(parts: impl IntoIterator<Item = Matrix>) -> Result<Matrix, AppError> {
    finite(Matrix::stacked(parts).ok_or_else(|| AppError::Internal("a prediction without a row".to_owned()))?)
}

/// What a network is asked, checked.
struct Question {
    inputs: Matrix,
    layers: Vec<usize>,
    before_activation: bool,
}

impl Question {
    fn new(
        inputs: RawMatrix,
        layers: &[i64],
        before_activation: bool,
        architecture: &Architecture,
    ) -> Result<Self, Faults> {
        let inputs = check_inputs(inputs, architecture)?;
        let layers = if layers.is_empty() { Vec::new() } else { wanted_layers(architecture, layers)? };
        Ok(Self { inputs, layers, before_activation })
    }

    /// What a network makes of some of the rows: its outputs, and those of the layers that are asked for.
    fn ask(&self, answers: &impl Answers, rows: Range<usize>) -> (Matrix, Vec<Matrix>) {
        let (network, preprocessing) = answers.network();
        network.predict_with_layers(&self.inputs, rows, preprocessing, &self.layers, self.before_activation)
    }

    /// Numbers of the answer.
    fn numbers(&self, architecture: &Architecture) -> usize {
        let units: usize = self.layers.iter().map(|&layer| architecture.layers()[layer].units).sum();
        self.inputs.rows().saturating_mul(architecture.output_layer().units + units)
    }
}

/// Outputs that are all finite. Inputs within range can lead out of it, and what is not a number names no class.
fn finite(outputs: Matrix) -> Result<Matrix, AppError> {
    match outputs.first_not_finite() {
        None => Ok(outputs),
        Some(row) => {
            let other = wider_or_smaller(outputs.values().element_type());
            let message = format!(
                "row {row} (from 0) leads to an output that is no finite number; use smaller inputs, or {other}"
            );
            Err(Faults::one(At::ROOT.field("inputs"), message).into())
        }
    }
}

/// What to use, beside smaller inputs, where a network's numbers leave the range of their type.
pub(super) fn wider_or_smaller(element_type: ElementType) -> &'static str {
    match element_type {
        ElementType::Float32 => "a model of float64",
        ElementType::Float64 => "a version with smaller weights",
    }
}

fn operations(inputs: &Matrix, architecture: &Architecture) -> usize {
    inputs.rows().saturating_mul(architecture.parameter_count())
}

/// The same, and what else is done for a row: activations, and the name of its class. In multiply-adds, about.
fn work(inputs: &Matrix, architecture: &Architecture) -> usize {
    const UNIT: usize = 8;
    const NAME: usize = 64;
    let units: usize = architecture.layers().iter().map(|layer| layer.units).sum();
    let others = units * UNIT + if architecture.class_count().is_some() { NAME } else { 0 };
    operations(inputs, architecture).saturating_add(inputs.rows().saturating_mul(others))
}

fn check_inputs(inputs: RawMatrix, architecture: &Architecture) -> Result<Matrix, Faults> {
    let mut faults = Faults::new();
    let at = At::ROOT.field("inputs");
    let matrix = inputs.check(architecture.input_width(), architecture.element_type(), at, &mut faults);
    faults.finish(matrix)
}

/// What each row of outputs says, where they name a class.
fn classes(outputs: &Matrix, architecture: &Architecture, labels: &[String]) -> Vec<ClassPrediction> {
    if architecture.class_count().is_none() {
        return Vec::new();
    }
    let activation = architecture.output_layer().activation;
    let class = |row: usize| {
        let (index, probability) = winner(outputs, row, activation);
        ClassPrediction { index, label: labels.get(index).cloned().unwrap_or_default(), probability }
    };
    (0..outputs.rows()).map(class).collect()
}

fn winner(outputs: &Matrix, row: usize, activation: Activation) -> (usize, Option<f64>) {
    let first = outputs.get(row, 0);
    match activation {
        Activation::Sigmoid if first >= 0.5 => (1, Some(first)),
        Activation::Sigmoid => (0, Some(1.0 - first)),
        Activation::Sign | Activation::Step => (usize::from(first > 0.0), None),
        Activation::LogSoftmax => {
            let (index, logarithm) = largest(outputs, row);
            (index, Some(libm::exp(logarithm)))
        }
        Activation::Softmax
        | Activation::Identity
        | Activation::Tanh
        | Activation::Relu
        | Activation::LeakyRelu { .. }
        | Activation::Elu { .. }
        | Activation::Selu
        | Activation::Softplus
        | Activation::Softsign
        | Activation::Exponential
        | Activation::HardSigmoid
        | Activation::Gelu
        | Activation::GeluTanh
        | Activation::Silu
        | Activation::Mish => {
            let (index, value) = largest(outputs, row);
            (index, Some(value))
        }
    }
}

/// The first of the largest outputs of a row.
fn largest(outputs: &Matrix, row: usize) -> (usize, f64) {
    (1..outputs.columns())
        .map(|column| (column, outputs.get(row, column)))
        .fold((0, outputs.get(row, 0)), |best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Values;

    #[test]
    fn an_output_out_of_range_names_its_row_and_what_its_type_can_change() {
        let told = |values| finite(Matrix::from_values(2, 1, values)).unwrap_err().to_string();
        let single = told(Values::F32(vec![1.0, f32::INFINITY]));
        assert!(single.contains("row 1 ") && single.contains("a model of float64"), "{single}");
        let double = told(Values::F64(vec![f64::NAN, 1.0]));
        assert!(double.contains("row 0 ") && double.contains("smaller weights"), "{double}");
        assert!(!double.contains("float64"), "it is of float64 already: {double}");
        assert!(finite(Matrix::from_values(2, 1, Values::F64(vec![f64::MAX, 0.0]))).is_ok());
    }
}
