//! `epochd download`: the weights of a version as a safetensors file.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::Outcome;
use super::output::file::{Sink, check_place, is_standard_output};
use super::output::print;
use super::remote::ServerArgs;
use super::signals::StopSignals;
use crate::rpc::client::Client;
use crate::rpc::pb;

/// Download the weights of a model as a safetensors file.
///
/// With the weights go the network's shape, its class labels and its scaling: all that it takes to predict elsewhere.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_long_help = "\
The tensors are layers.0.weights of shape [inputs, units] (a layer computes x·W + b), layers.0.bias,
and of a batch normalization layers.0.batch_normalization.scale, .shift, .mean and .variance.
The metadata are format, model_id, model_uid, version, and as JSON architecture, class_labels,
input_scaler and target_scaler.

Example: epochd download iris --version 2 --out iris.safetensors

Exit codes: 0 written, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C. After any but 0 no file was made
or replaced.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    /// The version [default: the latest].
    #[arg(long, value_name = "NUMBER")]
    version: Option<i32>,

    /// The file to write; `-` for standard output [default: MODEL-vVERSION.safetensors].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Replace the file where there is one.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the file, the model, the version and the bytes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    // What would fail at the end is told before anything is asked.
    if let Some(out) = args.out.as_deref() {
        check_place(out, args.force)?;
    }
    args.server.talk(async |client| download(client, &args).await)
}

async fn download(client: Client, args: &Args) -> anyhow::Result<Outcome> {
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let saved = tokio::select! {
        saved = save(client, args) => saved?,
        () = signals.next() => {
            eprintln!("stopped; the download is incomplete");
            return Ok(Outcome::Interrupted);
        }
    };
    let line = saved.told(args);
    // Beside the file on standard output there is no room for a word.
    if is_standard_output(&saved.out) {
        eprintln!("{line}")
    } else {
        print(&line)?
    }
    Ok(Outcome::Done)
}

/// What was written.
struct Saved {
    out: PathBuf,
    version: i32,
    size_bytes: i64,
}

impl Saved {
    fn told(&self, args: &Args) -> String {
        let Self { out, version, size_bytes } = self;
        let (file, model) = (out.display().to_string(), &args.model);
        if args.json {
            let line = serde_json::json!({
                "file": file, "modelId": model, "version": version, "sizeBytes": size_bytes
            });
            return line.to_string();
        }
        let place = if is_standard_output(out) { "standard output" } else { &file };
        format!("wrote version {version} of {model} to {place}: {size_bytes} bytes")
    }
}

async fn save(mut client: Client, args: &Args) -> anyhow::Result<Saved> {
    let request = pb::DownloadWeightsRequest { model_id: args.model.clone(), version: args.version };
    let mut parts = client.download_weights(request).await?;
    let first = parts.next().await?.context("the server sent no file")?;
    let (version, size_bytes) = (first.version, first.size_bytes);
    let out = args.out.clone().unwrap_or_else(|| format!("{}-v{version}.safetensors", args.model).into());
    let mut sink = Sink::open(&out, args.force)?;
    let (mut part, mut received) = (Some(first), 0);
    while let Some(chunk) = part {
        sink.write(&chunk.data)?;
        received += chunk.data.len() as i64;
        part = parts.next().await?;
    }
    if received != size_bytes {
        bail!("the server sent {received} of {size_bytes} bytes; download again");
    }
    sink.finish(args.force)?;
    Ok(Saved { out, version, size_bytes })
}
