//! `epochd backup`: everything that a running server keeps, in one file.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::Outcome;
use super::output::file::{Sink, check_place, is_standard_output};
use super::output::print;
use super::remote::ServerArgs;
use super::signals::StopSignals;
use crate::rpc::client::Client;

/// Write everything that a running server keeps, as it is at one moment, to a file; `epochd restore` makes a data folder of it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd backup epochd.tar
\x20        epochd backup - | gzip > epochd.tar.gz

The server goes on meanwhile. The file is a tar archive: `tar tf` lists what is in it. It gets its name when it is complete.

Exit codes: 0 complete and on the disk, 1 failed (nothing is left of it), 2 wrong usage, 130 stopped by Ctrl-C.")]
pub struct Args {
    /// The file to write; - is standard output.
    file: PathBuf,

    /// Replace the file where there is one.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the file and its bytes.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    // What would fail at the end is told before anything is asked.
    check_place(&args.file, args.force)?;
    args.server.talk(async |client| backup(client, &args).await)
}

async fn backup(client: Client, args: &Args) -> anyhow::Result<Outcome> {
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let bytes = tokio::select! {
        bytes = save(client, args) => bytes?,
        () = signals.next() => return Ok(Outcome::Interrupted),
    };
    let file = args.file.display().to_string();
    match args.json {
        // Beside the archive on standard output there is no room for a word.
        _ if is_standard_output(&args.file) => Ok(()),
        true => print(&json!({"file": file, "bytes": bytes}).to_string()),
        false => print(&format!("{file} is complete: {bytes} bytes")),
    }?;
    Ok(Outcome::Done)
}

/// Writes the backup: how many bytes it has.
async fn save(mut client: Client, args: &Args) -> anyhow::Result<u64> {
    let mut chunks = client.backup().await?;
    let mut sink = Sink::open(&args.file, args.force)?;
    let mut bytes = 0;
    while let Some(chunk) = chunks.next().await? {
        sink.write(&chunk)?;
        bytes += chunk.len() as u64;
    }
    sink.finish(args.force)?;
    Ok(bytes)
}
