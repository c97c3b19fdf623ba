//! What the command line says of the training, and the request that comes of it.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::Value;

use super::measuring::MeasuringArgs;
use super::regularization::RegularizationArgs;
use super::words;
use crate::rpc::{json, pb};

/// Step size of Adam, where no optimizer is named.
const LEARNING_RATE_DEFAULT: f64 = 0.005;
/// Rows of a mini-batch, where the optimizer takes any.
const BATCH_SIZE_DEFAULT: i32 = 16;

/// The training.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Epochs, at most [default: max(20, 2000 ÷ steps an epoch)].
    #[arg(long, value_name = "COUNT")]
    epochs: Option<i32>,

    /// Rows of a mini-batch [default: 16; all rows with lbfgs and rprop, 1 with the perceptron loss].
    #[arg(long, value_name = "ROWS")]
    batch_size: Option<i32>,

    /// How weights follow their gradients, such as adamw:weight_decay=0.1 [default: adam; sgd with the perceptron loss].
    #[arg(long, value_name = "OPTIMIZER", value_parser = words::choice_text::<pb::Optimizer>)]
    #[arg(long_help = words::choices_help::<pb::Optimizer>("How weights follow their gradients [default: adam; sgd with the perceptron loss]."))]
    optimizer: Option<String>,

    /// Step size of the optimizer [default: 0.005, or with --optimizer that optimizer's own].
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,

    /// How the learning rate changes, such as cosine:t_0=10,t_mult=2 [default: constant].
    #[arg(long, value_name = "SCHEDULE", value_parser = words::choice::<pb::Schedule>)]
    #[arg(long_help = words::choices_help::<pb::Schedule>("How the learning rate changes [default: constant]."))]
    schedule: Option<pb::Schedule>,

    /// Epochs in which the learning rate rises to its own height, before the schedule.
    #[arg(long, value_name = "COUNT")]
    warm_up_epochs: Option<i32>,

    /// Share of the learning rate that the warm-up starts from [default: 1/3].
    #[arg(long, value_name = "SHARE", requires = "warm_up_epochs")]
    warm_up_start_factor: Option<f64>,

    /// What is minimized, such as huber:delta=2 [default: by the output].
    #[arg(long, value_name = "LOSS", value_parser = words::choice::<pb::Loss>)]
    #[arg(long_help = words::choices_help::<pb::Loss>("What is minimized [default: by the output]."))]
    loss: Option<pb::Loss>,

    /// A loss of your own, over y_pred and y_true, such as `abs(y_pred-y_true)^1.5`.
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "loss")]
    loss_expression: Option<String>,

    /// How a batch's losses become one number: mean or sum [default: mean].
    #[arg(long, value_name = "REDUCTION", value_parser = words::word::<pb::Reduction>)]
    reduction: Option<pb::Reduction>,

    /// How much the rows of each class count: `balanced`, or a number a class in the order of their names.
    #[arg(long, value_name = "WEIGHTS", value_parser = words::class_weights)]
    class_weights: Option<pb::ClassWeights>,

    /// A column of how much each row counts, each at least 0; not learned from.
    #[arg(long, value_name = "COLUMN")]
    pub(super) sample_weights: Option<String>,

    /// Visit the rows in the same order every epoch.
    #[arg(long)]
    no_shuffle: bool,

    /// Epochs without a better validation before training stops.
    #[arg(long, value_name = "EPOCHS", default_value_t = 30)]
    patience: i32,

    /// What of the validation is to get better [default: loss].
    #[arg(long, value_name = "METRIC", value_parser = words::word::<pb::Metric>)]
    monitor: Option<pb::Metric>,

    /// How much better it must be to count [default: 0].
    #[arg(long, value_name = "AMOUNT")]
    min_delta: Option<f64>,

    /// Stop once a metric is this good, such as accuracy=0.95.
    #[arg(long, value_name = "METRIC=VALUE", value_parser = words::stop_at)]
    stop_at: Option<pb::StopAt>,

    /// Stop after this time, such as 90s, 5m or 1h.
    #[arg(long, value_name = "TIME", value_parser = words::duration)]
    max_duration: Option<Duration>,

    /// How often the job writes a checkpoint, from which it goes on after a crash, such as 30s [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = words::duration)]
    checkpoint_interval: Option<Duration>,

    /// Anything else of the training: JSON of an epochd.v1.TrainRequest, laid over it, such as '{"frozenLayers":[0]}'.
    ///
    /// A list takes the place of the one before, and null takes a field away: {"earlyStopping":null} runs all epochs.
    #[arg(long, value_name = "JSON", value_parser = words::patch::<pb::TrainRequest>)]
    request: Option<Value>,
}

impl TrainingArgs {
    /// The request, without its rows. `is_perceptron`: what the output is trained by unless a loss says otherwise.
    pub fn request(
        &self,
        is_perceptron: bool,
        regularization: &RegularizationArgs,
        measuring: &MeasuringArgs,
    ) -> anyhow::Result<pb::TrainRequest> {
        let loss = self.loss();
        let is_perceptron = loss.as_ref().map_or(is_perceptron, is_perceptron_loss);
        let max_duration = self.max_duration.map(TryInto::try_into).transpose();
        let checkpoint_interval = self.checkpoint_interval.map(TryInto::try_into).transpose();
        let mut request = pb::TrainRequest {
            validation: Some(pb::train_request::Validation::ValidationFraction(measuring.validation)),
            loss,
            reduction: self.reduction.map_or(0, i32::from),
            optimizer: Some(self.optimizer(is_perceptron).unwrap_or_else(|fault| misused(&fault))),
            epochs: self.epochs,
            batch_size: self.batch_size,
            shuffle: self.no_shuffle.then_some(false),
            early_stopping: Some(self.early_stopping()),
            schedule: self.schedule(),
            l1: regularization.l1,
            l2: regularization.l2,
            max_gradient_norm: regularization.max_gradient_norm,
            max_gradient_value: regularization.max_gradient_value,
            class_weights: self.class_weights.clone(),
            metrics: measuring.metrics.iter().map(|&metric| metric.into()).collect(),
            top_k: measuring.top_k,
            diagnostics: measuring.diagnostics,
            stop_at: self.stop_at,
            max_duration: max_duration.map_err(|_| anyhow!("--max-duration is longer than any training"))?,
            checkpoint_interval: checkpoint_interval
                .map_err(|_| anyhow!("--checkpoint-interval is longer than any training"))?,
            ..pb::TrainRequest::default()
        };
        let patch = self.request.as_ref();
        if let Some(patch) = patch {
            json::merge(&mut request, patch).context("--request does not fit")?;
        }
        let is_named = patch.is_some_and(|patch| patch.get("batchSize").or(patch.get("batch_size")).is_some());
        if self.batch_size.is_none() && !is_named && takes_any_batch(&request, is_perceptron) {
            request.batch_size = Some(BATCH_SIZE_DEFAULT);
        }
        Ok(request)
    }

    fn loss(&self) -> Option<pb::Loss> {
        let own = |expression: &String| pb::Loss {
            kind: Some(pb::loss::Kind::Custom(pb::CustomLoss { expression: expression.clone() })),
        };
        self.loss_expression.as_ref().map(own).or_else(|| self.loss.clone())
    }

    fn optimizer(&self, is_perceptron: bool) -> Result<pb::Optimizer, String> {
        let (text, rate) = match &self.optimizer {
            Some(text) => (text.as_str(), self.learning_rate),
            None if is_perceptron => ("sgd", self.learning_rate),
            None => ("adam", self.learning_rate.or(Some(LEARNING_RATE_DEFAULT))),
        };
        let Some(rate) = rate else { return words::choice(text) };
        words::choice(&words::with_setting(text, "learning_rate", rate))
            .map_err(|fault| format!("--learning-rate and --optimizer {text} do not go together: {fault}"))
    }

    fn schedule(&self) -> Option<pb::Schedule> {
        if self.schedule.is_none() && self.warm_up_epochs.is_none() {
            return None;
        }
        Some(pb::Schedule {
            warm_up_epochs: self.warm_up_epochs,
            warm_up_start_factor: self.warm_up_start_factor,
            ..self.schedule.unwrap_or_default()
        })
    }

    fn early_stopping(&self) -> pb::EarlyStopping {
        pb::EarlyStopping {
            patience: Some(self.patience),
            min_delta: self.min_delta,
            metric: self.monitor.map_or(0, i32::from),
            restore_best: None,
        }
    }
}

/// Ends the program as clap does where options contradict each other.
fn misused(fault: &str) -> ! {
    clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, format!("{fault}\n")).exit()
}

fn is_perceptron_loss(loss: &pb::Loss) -> bool {
    matches!(loss.kind, Some(pb::loss::Kind::Perceptron(_)))
}

/// Whether mini-batches are a matter of taste: not for optimizers that need all rows, and the perceptron's rule takes one.
fn takes_any_batch(request: &pb::TrainRequest, is_perceptron: bool) -> bool {
    use pb::optimizer::Method::{Lbfgs, Rprop};
    let method = request.optimizer.as_ref().and_then(|optimizer| optimizer.method.as_ref());
    !is_perceptron && !matches!(method, Some(Lbfgs(_) | Rprop(_)))
}
