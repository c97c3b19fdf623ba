//! What the command line says of rows to measure by, and of what is measured.

use super::words;
use crate::rpc::pb;

/// Measuring.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Measuring")]
pub struct MeasuringArgs {
    /// Share of the rows held out to score the model, 0 to below 1; 0 holds out none, and scores nothing.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub test: f64,

    /// Share of the remaining rows that validates, above 0 and below 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    pub validation: f64,

    /// What is told of each epoch beside the loss; may be given several times.
    #[arg(long = "metric", value_name = "METRIC", value_delimiter = ',', value_parser = words::word::<pb::Metric>)]
    #[arg(long_help = words::words_help::<pb::Metric>("What is told of each epoch beside the loss; may be given several times."))]
    pub metrics: Vec<pb::Metric>,

    /// k of the metric top_k_accuracy [default: 5, or the classes where they are fewer].
    #[arg(long, value_name = "K")]
    pub top_k: Option<i32>,

    /// Tell of gradients, weights and dead units, layer by layer.
    #[arg(long)]
    pub diagnostics: bool,
}
