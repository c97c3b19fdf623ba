//! `epochd train`: from a CSV file to a trained model and its score on rows that it has not seen.

mod dataset;
mod measuring;
mod network;
mod plan;
mod progress;
mod regularization;
mod report;
mod session;
mod training;
mod words;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use dataset::{Columns, Dataset};
pub(super) use session::Interrupted;
use session::{Trained, train};

use super::Outcome;
use super::csv_table::Table;
use super::local::with_server;
use super::output::print;
use super::picture;
use super::signals::StopSignals;
use crate::config::DATA_DIR_DEFAULT;
use crate::jobs::Threads;
use crate::rpc::client::Client;
use measuring::MeasuringArgs;
use network::NetworkArgs;
use plan::Plan;
use progress::Progress;
use regularization::RegularizationArgs;
use training::TrainingArgs;

const THREADS_DEADLINE: Duration = Duration::from_secs(2);

/// Train a model on a CSV file, and tell how well it does on rows that it has not seen.
#[derive(Clone, Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_long_help = "\
Columns are numbers; the target is a number (regression) or text (classification). Inputs are scaled inside the model, so
that a prediction takes raw numbers. A part of the rows is held out and never trained on; another part of the rest
validates: training stops when its loss stops falling, and the best epoch's weights are kept.

Example: epochd train examples/data/iris.csv --target species
\x20        epochd train examples/data/iris.csv --target species --hidden 32,16 --activation gelu --dropout 0.1 \\
           --optimizer adamw:learning_rate=0.01,weight_decay=0.1 --schedule cosine:t_0=10 --warm-up-epochs 5 \\
           --metric f1_macro --metric roc_auc --monitor f1_macro

Exit codes: 0 trained, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C (what was kept is told).")]
pub struct Args {
    /// A CSV file whose first line names the columns.
    file: PathBuf,

    /// The column to predict.
    #[arg(long, value_name = "COLUMN")]
    target: String,

    /// What the target is: `auto` takes numbers for regression and text for classification.
    #[arg(long, value_enum, default_value_t)]
    task: TaskChoice,

    /// What the splits, the initial weights and the order of rows are drawn from.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Name of the model [default: by the file's name, with a number where it is taken].
    #[arg(long, value_name = "ID")]
    model_id: Option<String>,

    /// Goes on with the last training of this model instead of making a new one: its weights, its optimizer's state, its epochs.
    /// Its network stays as it is.
    #[arg(long = "continue", value_name = "ID", conflicts_with_all = ["model_id", "hidden", "activation"])]
    continues: Option<String>,

    /// A running server to train on, such as http://127.0.0.1:50051 [default: one inside this process].
    #[arg(long, env = "EPOCHD_SERVER", value_name = "URL")]
    server: Option<String>,

    /// Folder for the model, where no server is named.
    #[arg(long, env = "EPOCHD_DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,

    /// Draw the losses by epoch into this SVG file, and for two inputs what the model says over the plane of them: the boundary
    /// between classes, or the number by its height.
    #[arg(long, value_name = "FILE", value_parser = picture::file)]
    plot: Option<PathBuf>,

    /// One line of JSON instead of the text.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    network: Box<NetworkArgs>,

    #[command(flatten)]
    training: Box<TrainingArgs>,

    #[command(flatten)]
    regularization: Box<RegularizationArgs>,

    #[command(flatten)]
    measuring: Box<MeasuringArgs>,
}

/// What the user says of the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskChoice {
    /// By its values.
    #[default]
    Auto,
    /// Each distinct value is a class.
    Classification,
    /// Numbers on a scale.
    Regression,
}

/// Trains, and prints how it went.
pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let table = Table::read(&args.file)?;
    let columns = Columns { target: &args.target, weights: args.training.sample_weights.as_deref() };
    let dataset = Dataset::new(&table, columns, args.task, args.measuring.test, args.seed)?;
    let plan = Plan::new(&args, &dataset)?;
    let train_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads::start(train_threads).context("the training threads cannot be started")?;
    let runtime = tokio::runtime::Runtime::new().context("the serving threads cannot be started")?;
    let handle = threads.handle();
    let trained = runtime.block_on(async {
        match &args.server {
            Some(url) => train_on(url.clone(), &dataset, plan).await,
            None => {
                let command = |url: String| train_on(url, &dataset, plan);
                with_server(args.data_dir.clone(), handle, train_threads, command).await
            }
        }
    });
    threads.shut_down(THREADS_DEADLINE);
    runtime.shutdown_timeout(THREADS_DEADLINE);
    let trained = trained?;
    let text = match args.json {
        true => report::json(&trained, &dataset)?,
        false => report::text(&trained, &dataset, args.server.as_deref(), &args.data_dir),
    };
    print(text.trim_end())?;
    if let Some(file) = &args.plot {
        let title = format!("{}: loss by epoch", trained.model_id);
        picture::draw(file, &title, &trained.losses, trained.plane.as_ref())?;
    }
    Ok(if trained.is_interrupted { Outcome::Interrupted } else { Outcome::Done })
}

async fn train_on(url: String, dataset: &Dataset, plan: Plan) -> anyhow::Result<Trained> {
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let mut client = Client::connect(&url).await?;
    let mut progress = Progress::new();
    train(&mut client, dataset, plan, &mut progress, async || signals.next().await).await
}

/// A model id out of a file's name: what is not allowed in one becomes a dash.
fn model_stem(file: &std::path::Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') { c } else { '-' };
    let stem: String = stem.chars().map(allowed).take(50).collect();
    let stem = stem.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if stem.is_empty() { "model".to_owned() } else { stem.to_owned() }
}
