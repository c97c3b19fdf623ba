//! `epochd jobs`: the jobs of a server.

use super::Outcome;
use super::output::{print, print_json, table};
use super::remote::{Page, ServerArgs, every_page};
use crate::rpc::pb;
use crate::rpc::pb::JobState;

/// List the jobs of a server, newest first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd jobs --model iris --state running

Exit codes: 0 listed, 1 failed (or something could not be read), 2 wrong usage.")]
pub struct Args {
    /// Only the jobs of this model.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Only jobs in this state.
    #[arg(long, value_enum)]
    state: Option<State>,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON a job, as ListJobs answers.
    #[arg(long)]
    json: bool,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    /// Waiting for its turn.
    Queued,
    /// In training.
    Running,
    /// Ended with a new version.
    Succeeded,
    /// Ended by a fault.
    Failed,
    /// Ended because it was cancelled.
    Cancelled,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    let state = args.state.map_or(JobState::Unspecified, |state| match state {
        State::Queued => JobState::Queued,
        State::Running => JobState::Running,
        State::Succeeded => JobState::Succeeded,
        State::Failed => JobState::Failed,
        State::Cancelled => JobState::Cancelled,
    });
    let model_id = args.model.unwrap_or_default();
    let all = args.server.talk(async |mut client| {
        every_page(async |page_token| {
            let model_id = model_id.clone();
            let request = pb::ListJobsRequest { model_id, state: state.into(), page_token, page_size: 0 };
            let page = client.list_jobs(request).await?;
            Ok(Page { items: page.jobs, unreachable: page.unreachable, next_token: page.next_page_token })
        })
        .await
    })?;
    let jobs = &all.items;
    if args.json {
        jobs.iter().try_for_each(print_json)?;
    } else if jobs.is_empty() {
        print("no such jobs")?;
    } else {
        let header = ["job", "model", "state", "epoch", "of", "loss", "version"];
        print(&table(&header, &[3, 4, 5, 6], jobs.iter().map(row)))?;
    }
    Ok(all.outcome())
}

fn row(job: &pb::Job) -> Vec<String> {
    let report = job.last_report.as_ref();
    let epochs = job.settings.as_ref().map_or(0, |settings| settings.epochs);
    vec![
        job.job_id.clone(),
        job.model_id.clone(),
        state_word(job.state()),
        report.map_or_else(String::new, |report| report.epoch.to_string()),
        epochs.to_string(),
        report.map_or_else(String::new, |report| format!("{:.4}", report.loss)),
        if job.version > 0 { job.version.to_string() } else { String::new() },
    ]
}

/// `JOB_STATE_RUNNING` as `running`.
pub(super) fn state_word(state: JobState) -> String {
    state.as_str_name().trim_start_matches("JOB_STATE_").to_lowercase()
}
