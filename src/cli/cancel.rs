//! `epochd cancel`: stops a job.

use super::Outcome;
use super::jobs::state_word;
use super::output::{print, print_json};
use super::remote::ServerArgs;
use crate::rpc::pb;

/// Stop a job at its next batch.
///
/// A job that has ended is left as it is.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd cancel 01a20f80-a321-7279-a1ee-1710f302d098 --commit

Exit codes: 0 the job has ended, 1 failed, 2 wrong usage.")]
pub struct Args {
    /// The job; `epochd jobs` lists them.
    job: String,

    /// Keep what it has learned as a version: its last whole epoch, or its best where it stops early.
    #[arg(long)]
    commit: bool,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON, as CancelJob answers.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let request = pb::CancelJobRequest { job_id: args.job.clone(), commit: args.commit };
    let job = args.server.talk(async |mut client| Ok(client.cancel_job(request).await?))?;
    if args.json {
        print_json(&job)?;
    } else {
        let kept = if job.version > 0 { format!("; version {} keeps it", job.version) } else { String::new() };
        let state = state_word(job.state());
        let told = match job.state() {
            pb::JobState::Cancelled => format!("is {state}{kept}"),
            pb::JobState::Queued | pb::JobState::Running | pb::JobState::Unspecified => {
                format!(
                    "is asked to stop, and is still {state}: it stops after its batch, or when the server's disk can be used; ask again"
                )
            }
            pb::JobState::Succeeded | pb::JobState::Failed => format!("had ended before: {state}{kept}"),
        };
        print(&format!("job {} {told}", job.job_id))?;
    }
    // What still runs is not cancelled yet.
    let is_over = !matches!(job.state(), pb::JobState::Queued | pb::JobState::Running);
    Ok(if is_over { Outcome::Done } else { Outcome::Failed })
}
