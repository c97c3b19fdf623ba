//! `epochd pin`: which versions are kept whatever their age.

use super::Outcome;
use super::output::{print, print_json};
use super::remote::ServerArgs;
use crate::rpc::pb;

/// Keep a version of a model whatever its age; others are given back once a server has so many newer ones.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd pin iris 2
\x20        epochd pin iris 2 --remove

Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    /// The version.
    version: i32,

    /// Pin it no longer.
    #[arg(long)]
    remove: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON: the model.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let Args { model: model_id, version, remove, server, json } = args;
    let request = pb::PinVersionRequest { model_id: model_id.clone(), version, pinned: Some(!remove) };
    let model = server.talk(async |mut client| Ok(client.pin_version(request).await?))?;
    if json {
        print_json(&model)?;
    } else {
        let pinned: Vec<String> = model.pinned_versions.iter().map(ToString::to_string).collect();
        let list = if pinned.is_empty() { "none".to_owned() } else { pinned.join(", ") };
        print(&format!("pinned versions of {model_id}: {list}"))?;
    }
    Ok(Outcome::Done)
}
