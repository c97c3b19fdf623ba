//! `epochd delete`: deletes a model.

use super::Outcome;
use super::output::print;
use super::remote::ServerArgs;

/// Delete a model with all its versions, and cancel its jobs. There is no way back.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd delete iris-2

Exit codes: 0 deleted, 1 failed, 2 wrong usage.")]
pub struct Args {
    /// The model; `epochd models` lists them.
    model: String,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    args.server.talk(async |mut client| Ok(client.delete_model(&args.model).await?))?;
    let line =
        if args.json { format!("{{\"modelId\":\"{}\"}}", args.model) } else { format!("deleted {}", args.model) };
    print(&line)?;
    Ok(Outcome::Done)
}
