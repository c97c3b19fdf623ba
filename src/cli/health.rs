//! `epochd health`: whether a server serves; what a container asks.

use anyhow::Context as _;

use super::Outcome;
use super::output::print;
use super::remote::ServerArgs;
use crate::rpc::SERVICE_NAMES;

/// Ask a server whether it serves.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd health epochd.v1.ModelService

Exit codes: 0 SERVING, 1 anything else (not serving, no such service, nobody there), 2 wrong usage.")]
pub struct Args {
    /// One service [default: the server as a whole].
    #[arg(default_value = "")]
    service: String,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let health = args.server.talk(async |mut client| {
        let services = || format!("the services are {}; without a name, the whole server", SERVICE_NAMES.join(" and "));
        client.health(&args.service).await.with_context(services)
    })?;
    let word = health.err().unwrap_or("SERVING");
    print(&if args.json { format!("{{\"status\":\"{word}\"}}") } else { word.to_owned() })?;
    Ok(if health.is_ok() { Outcome::Done } else { Outcome::Failed })
}
