//! `epochd weights`: what a model has learned, in figures.

use super::Outcome;
use super::output::{print, print_json, table};
use super::remote::ServerArgs;
use crate::rpc::pb;

/// Show each layer of a model: shape, norm, mean, and the smallest and largest weight.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_long_help = "\
Example: epochd weights iris --version 1

Exit codes: 0 shown, 1 failed, 2 wrong usage.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    /// The version [default: the latest].
    #[arg(long, value_name = "NUMBER")]
    version: Option<i32>,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON with every weight, as GetWeights answers.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let request = pb::GetWeightsRequest { model_id: args.model, version: args.version, ..Default::default() };
    let weights = args.server.talk(async |mut client| Ok(client.weights(request).await?))?;
    if args.json {
        print_json(&weights)?;
        return Ok(Outcome::Done);
    }
    let rows = weights.layers.iter().flat_map(|layer| {
        let matrices = [("weights", layer.weights.as_ref()), ("bias", layer.bias.as_ref())];
        matrices.into_iter().filter_map(|(name, matrix)| Some(row(layer.layer(), name, matrix?)))
    });
    let header = ["layer", "parameters", "shape", "norm", "mean", "smallest", "largest"];
    print(&format!("{} version {}\n", weights.model_id, weights.version))?;
    print(&table(&header, &[0, 3, 4, 5, 6], rows))?;
    Ok(Outcome::Done)
}

fn row(layer: i32, name: &str, matrix: &pb::Matrix) -> Vec<String> {
    let values = &matrix.values;
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let smallest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let figures = [norm, mean, smallest, largest].map(|figure| format!("{figure:.4}"));
    let shape = format!("{} × {}", matrix.rows(), matrix.columns());
    [layer.to_string(), name.to_owned(), shape].into_iter().chain(figures).collect()
}
