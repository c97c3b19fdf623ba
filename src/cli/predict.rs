//! `epochd predict`: the rows of a CSV file through a model, as they are read.

use std::fs::File;
use std::io::{Read, Write as _, stdin};
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::Outcome;
use super::csv_table::{Source, Table};
use super::output::print_bytes;
use super::remote::ServerArgs;
use crate::rpc::client::Client;
use crate::rpc::pb;

/// Rows of one call, at most: enough to be quick, few enough that the first answers come soon.
const ROWS_MAX: usize = 1_024;
/// Numbers of one call, at most: far below the size of a message.
const NUMBERS_MAX: usize = 1 << 20;

/// Ask a model for a prediction of each row of a CSV file.
///
/// Rows are answered as they are read, so a file may be longer than memory, or standard input that goes on.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_long_help = "\
A classifier answers with `class` and `probability`, any other model with `prediction` (`prediction_0`, … where it has
several outputs). Columns are taken in the order of the file, which must be the order of the training.

Example: epochd predict iris examples/data/iris.csv --ignore species > classes.csv

Exit codes: 0 every row was answered, 1 failed (rows before the fault are answered), 2 wrong usage.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    /// A CSV file whose first line names the columns; `-` for standard input.
    file: PathBuf,

    /// The columns to take, in the order of the model's inputs [default: all].
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', conflicts_with = "ignore")]
    columns: Vec<String>,

    /// Columns to leave out, such as the target's.
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    ignore: Vec<String>,

    /// The version to ask [default: the one that the model serves, its latest unless another was chosen].
    #[arg(long, value_name = "NUMBER")]
    version: Option<i32>,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON a row instead of CSV.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let name = args.file.display().to_string();
    let source: Box<dyn Read> = if name == "-" {
        Box::new(stdin())
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot read {name}"))?)
    };
    let source = Source::open(source, name)?;
    args.server.talk(async |client| predict(client, source, &args).await)
}

async fn predict(mut client: Client, mut source: Source<Box<dyn Read>>, args: &Args) -> anyhow::Result<Outcome> {
    let model = client.model(&args.model).await?;
    let width = model.architecture.as_ref().map_or(0, |it| it.input_width);
    let rows = (NUMBERS_MAX / width.max(1) as usize).clamp(1, ROWS_MAX);
    // One version answers all rows, whatever is trained meanwhile.
    let served = model.serving_version.unwrap_or(model.latest_version);
    let version = args.version.unwrap_or(served);
    let mut writer = Writer::new(args.json);
    let mut columns = None;
    loop {
        let table = source.read(rows)?;
        let columns = match &columns {
            Some(columns) => columns,
            None => columns.insert(chosen(&table, args, width)?),
        };
        if table.is_empty() {
            return Ok(Outcome::Done);
        }
        let inputs = Some(inputs(&table, columns)?);
        let model_id = args.model.clone();
        let request = pb::PredictRequest { model_id, inputs, version: Some(version), ..pb::PredictRequest::default() };
        let answer = client.predict(request).await;
        let place = || format!("{}, rows of lines {} to {}", table.name, table.line(0), table.line(table.len() - 1));
        writer.write(&answer.with_context(place)?)?;
    }
}

/// The indices of the columns that the model is shown.
fn chosen(table: &Table, args: &Args, width: i32) -> anyhow::Result<Vec<usize>> {
    let indices =
        |names: &[String]| names.iter().map(|name| table.column(name.trim())).collect::<anyhow::Result<Vec<_>>>();
    let ignored = indices(&args.ignore)?;
    let chosen = if args.columns.is_empty() {
        (0..table.columns.len()).filter(|index| !ignored.contains(index)).collect()
    } else {
        indices(&args.columns)?
    };
    if chosen.len() != usize::try_from(width).unwrap_or(0) {
        bail!(
            "model {} takes {width} inputs, but {} has {} columns to show it: {}; choose them with --columns, or leave some \
             out with --ignore",
            args.model,
            table.name,
            chosen.len(),
            chosen.iter().map(|&index| table.columns[index].as_str()).collect::<Vec<_>>().join(", ")
        );
    }
    Ok(chosen)
}

fn inputs(table: &Table, columns: &[usize]) -> anyhow::Result<pb::Matrix> {
    let mut packed = Vec::with_capacity(table.len() * columns.len() * size_of::<f64>());
    for row in 0..table.len() {
        for &column in columns {
            packed.extend(table.required_number(row, column)?.to_le_bytes());
        }
    }
    let (packed, packed_type) = (packed.into(), pb::ElementType::Float64.into());
    Ok(pb::Matrix { columns: Some(columns.len() as i32), packed, packed_type, ..Default::default() })
}

/// Writes answers to standard output, each batch at once.
struct Writer {
    is_json: bool,
    has_header: bool,
}

impl Writer {
    fn new(is_json: bool) -> Self {
        Self { is_json, has_header: false }
    }

    fn write(&mut self, answer: &pb::PredictResponse) -> anyhow::Result<()> {
        let outputs = answer.outputs.as_ref().context("the server answered without outputs")?;
        let width = usize::try_from(outputs.columns()).unwrap_or(0).max(1);
        let numbers = unpacked(outputs);
        let rows = numbers.chunks(width).enumerate();
        let mut text = Vec::new();
        if self.is_json {
            for (row, outputs) in rows {
                writeln!(text, "{}", json(answer.classes.get(row), outputs))?;
            }
        } else {
            let mut writer = csv::Writer::from_writer(&mut text);
            if !self.has_header {
                writer.write_record(header(answer, width))?;
                self.has_header = true;
            }
            for (row, outputs) in rows {
                writer.write_record(cells(answer.classes.get(row), outputs))?;
            }
            writer.flush()?;
        }
        print_bytes(&text)
    }
}

/// The numbers of an answer that came packed.
fn unpacked(matrix: &pb::Matrix) -> Vec<f64> {
    match matrix.packed_type() {
        pb::ElementType::Float64 => {
            matrix.packed.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
        }
        _ => matrix.packed.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
    }
}

fn header(answer: &pb::PredictResponse, width: usize) -> Vec<String> {
    match answer.classes.first() {
        Some(class) if class.probability.is_some() => vec!["class".to_owned(), "probability".to_owned()],
        Some(_) => vec!["class".to_owned()],
        None if width == 1 => vec!["prediction".to_owned()],
        None => (0..width).map(|output| format!("prediction_{output}")).collect(),
    }
}

fn cells(class: Option<&pb::ClassPrediction>, outputs: &[f64]) -> Vec<String> {
    let Some(class) = class else { return outputs.iter().map(f64::to_string).collect() };
    [Some(class_name(class)), class.probability.map(|it| it.to_string())].into_iter().flatten().collect()
}

/// A class by its label, or by its number where it has none.
fn class_name(class: &pb::ClassPrediction) -> String {
    if class.label.is_empty() { class.index().to_string() } else { class.label.clone() }
}

fn json(class: Option<&pb::ClassPrediction>, outputs: &[f64]) -> serde_json::Value {
    let mut row = serde_json::json!({ "outputs": outputs });
    if let Some(class) = class {
        row["class"] = class_name(class).into();
        row["index"] = class.index().into();
        if let Some(probability) = class.probability {
            row["probability"] = probability.into();
        }
    }
    row
}
