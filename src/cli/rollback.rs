//! `epochd rollback`: which version predictions use.

use super::Outcome;
use super::output::{print, print_json};
use super::remote::ServerArgs;
use crate::rpc::pb;

/// Have predictions use another version of a model, at once: an earlier one, or the latest again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd rollback iris 2
\x20        epochd rollback iris --latest

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    /// The version.
    #[arg(required_unless_present = "latest", conflicts_with = "latest")]
    version: Option<i32>,

    /// Serve the latest version, whichever that will be.
    #[arg(long)]
    latest: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the model.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let request = pb::SetServingVersionRequest { model_id: args.model.clone(), version: args.version };
    let model = args.server.talk(async |mut client| Ok(client.set_serving_version(request).await?))?;
    if args.json {
        print_json(&model)?;
    } else {
        let version = model.serving_version.unwrap_or(model.latest_version);
        let how = if model.serving_version.is_some() { "" } else { ", and each later one in its turn" };
        print(&format!("{} serves version {version}{how}", args.model))?;
    }
    Ok(Outcome::Done)
}
