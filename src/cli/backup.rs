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
use crate::rpc::pb::{BackupRequest, BackupResponse};

/// Write everything that a running server keeps, as it is at one moment, to a file; `epochd restore` makes a data folder of it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd backup epochd.tar
\x20        epochd backup - | gzip > epochd.tar.gz

The server goes on meanwhile. The file is a tar archive: `tar tf` lists what is in it. It gets its name when it is complete.

What is damaged ends a backup, and is named, unless it is to be left out: then it is told on standard error.

Exit codes: 0 complete and on the disk, 1 failed (nothing is left of it), 2 wrong usage, 130 stopped by Ctrl-C.")]
pub struct Args {
    /// The file to write; - is standard output.
    file: PathBuf,

    /// Replace the file where there is one.
    #[arg(long)]
    force: bool,

    /// Leave out what is damaged or missing, and tell it.
    #[arg(long)]
    skip_damaged: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the file, its bytes, and what was left out.
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
    let Saved { bytes, left_out } = tokio::select! {
        saved = save(client, args) => saved?,
        () = signals.next() => return Ok(Outcome::Interrupted),
    };
    for what in &left_out {
        eprintln!("left out, since it is damaged or missing: {what}");
    }
    let file = args.file.display().to_string();
    match args.json {
        // Beside the archive on standard output there is no room for a word.
        _ if is_standard_output(&args.file) => Ok(()),
        true => print(&json!({"file": file, "bytes": bytes, "leftOut": left_out}).to_string()),
        false => print(&format!("{file} is complete: {bytes} bytes")),
    }?;
    Ok(Outcome::Done)
}

/// What was written, and what was not.
#[derive(Default)]
struct Saved {
    bytes: u64,
    left_out: Vec<String>,
}

async fn save(mut client: Client, args: &Args) -> anyhow::Result<Saved> {
    let mut chunks = client.backup(BackupRequest { skip_damaged: args.skip_damaged }).await?;
    let mut sink = Sink::open(&args.file, args.force)?;
    let mut saved = Saved::default();
    while let Some(BackupResponse { chunk, left_out, left_out_count }) = chunks.next().await? {
        sink.write(&chunk)?;
        saved.bytes += chunk.len() as u64;
        let named = left_out.len() as i64;
        saved.left_out.extend(left_out);
        if left_out_count > named {
            saved.left_out.push(format!("and {} more, which the server's log names", left_out_count - named));
        }
    }
    sink.finish(args.force)?;
    Ok(saved)
}
