//! What is asked of the server: a model and its training, put together from the command line and the data.

use anyhow::bail;

use super::Args;
use super::dataset::{Dataset, Task};
use super::network::{output_activation, tells_classes};
use crate::rpc::pb;
use crate::rpc::pb::loss::Kind;

/// A model to create and to train.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model, yet without a name.
    pub model: pb::CreateModelRequest,
    /// Its training, yet without the model's name.
    pub training: pb::TrainRequest,
    /// The model's name; `None`: one that is free.
    pub model_id: Option<String>,
    /// What a free name begins with.
    pub model_stem: String,
    /// Whether that model is there already, and its last training goes on.
    pub continues: bool,
    /// Whether a picture of it is wanted.
    pub is_plotted: bool,
    /// How what comes out is read.
    pub reading: Reading,
    task: Task,
}

/// How the output becomes what is scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// As it is.
    Value,
    /// The output is the logarithm of the value.
    Logarithm,
    /// The server says the class.
    Class,
    /// The second of two classes from here on.
    Threshold(f64),
}

impl Plan {
    /// Puts it together.
    pub fn new(args: &Args, dataset: &Dataset) -> anyhow::Result<Self> {
        let input_width = dataset.inputs.len() as i32;
        let architecture = args.network.architecture(input_width, &dataset.task, &args.regularization)?;
        let activation = output_activation(&architecture);
        let is_perceptron = matches!(activation, pb::Activation::Sign | pb::Activation::Step);
        let mut training = args.training.request(is_perceptron, &args.regularization, &args.measuring)?;
        training.seed = training.seed.or(Some(args.seed));
        training.inputs = training.inputs.or_else(|| Some(matrix(&dataset.training.inputs, dataset.inputs.len())));
        training.targets = training.targets.or_else(|| Some(matrix(&dataset.training.targets, 1)));
        if !dataset.training.weights.is_empty() {
            training.sample_weights = Some(matrix(&dataset.training.weights, 1));
        }
        let loss = training.loss.as_ref().and_then(|loss| loss.kind.as_ref());
        let class_labels = match &dataset.task {
            Task::Classification(classes) if tells_classes(activation) => classes.clone(),
            _ => Vec::new(),
        };
        let model = pb::CreateModelRequest {
            architecture: Some(architecture),
            seed: Some(args.seed),
            class_labels,
            preprocessing: Some(pb::Preprocessing {
                inputs: Some(args.network.scale_inputs),
                targets: args.network.scale_target.or_else(|| usual_target_scaling(&dataset.task, activation, loss)),
            }),
            ..pb::CreateModelRequest::default()
        };
        let reading = reading(&dataset.task, activation, loss);
        let continues = args.continues.is_some();
        if continues && training.start() == pb::TrainingStart::Unspecified {
            training.start = pb::TrainingStart::Continue.into();
        }
        let model_id = args.continues.clone().or_else(|| args.model_id.clone());
        let (model_stem, task) = (super::model_stem(&args.file), dataset.task.clone());
        let is_plotted = args.plot.is_some();
        Ok(Self { model, training, model_id, model_stem, continues, is_plotted, reading, task })
    }

    /// How what comes out of a model that is there already is read; an error where it was made for other columns.
    pub fn reading_of(&self, model: &pb::Model) -> anyhow::Result<Reading> {
        let architecture = model.architecture.clone().unwrap_or_default();
        let activation = output_activation(&architecture);
        let width = self.model.architecture.as_ref().map_or(0, |architecture| architecture.input_width);
        let id = &model.model_id;
        if architecture.input_width != width {
            bail!("model {id} takes {} columns, but the file has {width} beside the target", architecture.input_width);
        }
        if let Task::Classification(classes) = &self.task
            && tells_classes(activation)
            && *classes != model.class_labels
        {
            let (known, found) = (model.class_labels.join(", "), classes.join(", "));
            bail!("model {id} tells apart the classes {known}, but the file has {found}; make a new model for them");
        }
        let loss = self.training.loss.as_ref().and_then(|loss| loss.kind.as_ref());
        Ok(reading(&self.task, activation, loss))
    }
}

/// Numbers on a scale are standardized, where neither the output nor the loss has a scale of its own.
fn usual_target_scaling(task: &Task, output: pb::Activation, loss: Option<&Kind>) -> Option<pb::Scaling> {
    let is_free = *task == Task::Regression && output == pb::Activation::Identity;
    let has_scale = is_of_logarithm(loss) || is_of_margin(loss);
    let standard = pb::Scaling { method: Some(pb::scaling::Method::Standard(pb::StandardScaling {})) };
    (is_free && !has_scale).then_some(standard)
}

fn reading(task: &Task, output: pb::Activation, loss: Option<&Kind>) -> Reading {
    match task {
        Task::Regression if output == pb::Activation::Identity && is_of_logarithm(loss) => Reading::Logarithm,
        Task::Regression => Reading::Value,
        Task::Classification(_) if tells_classes(output) => Reading::Class,
        // Two classes are −1 and 1 to a margin, 0 and 1 to anything else.
        Task::Classification(_) if is_of_margin(loss) => Reading::Threshold(0.0),
        Task::Classification(_) => Reading::Threshold(0.5),
    }
}

/// Whether an output that nothing is applied to is the logarithm of an amount.
fn is_of_logarithm(loss: Option<&Kind>) -> bool {
    matches!(loss, Some(Kind::Poisson(_) | Kind::GammaDeviance(_) | Kind::TweedieDeviance(_)))
}

fn is_of_margin(loss: Option<&Kind>) -> bool {
    matches!(loss, Some(Kind::Hinge(_) | Kind::SquaredHinge(_)))
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
