//! `epochd watch`: the epochs of a job, from any one on, as they come.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Outcome;
use super::jobs::state_word;
use super::output::{losses, print, print_json, sparkline};
use super::picture::{self, Losses};
use super::remote::ServerArgs;
use super::signals::StopSignals;
use crate::rpc::client::{Client, Events};
use crate::rpc::pb;
use crate::rpc::pb::JobState;
use crate::rpc::pb::train_event::Event;

/// Characters of the curve.
const SPARKLINE_WIDTH: usize = 60;

/// Follow a job.
///
/// A line an epoch, and at the end how it went. On a terminal a live curve of the loss instead of the lines. Ctrl-C ends the
/// watching, not the job.
#[derive(Debug, clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_long_help = "\
Example: epochd watch 01a20f80-a321-7279-a1ee-1710f302d098 --from-epoch 100

Exit codes: 0 the job ended with a version or was cancelled, 1 it failed or could not be followed, 2 wrong usage,
130 stopped by Ctrl-C.")]
pub struct Args {
    /// The job; `epochd jobs` lists them.
    job: String,

    /// The first epoch to show.
    #[arg(long, value_name = "EPOCH", default_value_t = 1)]
    from_epoch: i32,

    /// Draw the loss by epoch into this SVG file, at the end.
    #[arg(long, alias = "svg", value_name = "FILE", value_parser = picture::file)]
    plot: Option<PathBuf>,

    #[command(flatten)]
    server: ServerArgs,

    /// One line of JSON an event, as WatchJob streams them.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    args.server.talk(async |client| watch(client, &args).await)
}

async fn watch(mut client: Client, args: &Args) -> anyhow::Result<Outcome> {
    let mut signals = StopSignals::listen().context("signals cannot be listened for")?;
    let mut events = client.watch_job(&args.job, args.from_epoch).await?;
    let mut view = View::new(args.json);
    let followed = tokio::select! {
        followed = follow(&mut events, &mut view) => Some(followed?),
        () = signals.next() => None,
    };
    view.bar.finish_and_clear();
    match &followed {
        Some(finished) if !args.json => view.print_end(finished)?,
        Some(_) => {}
        None => eprintln!("no longer watched; the job goes on"),
    }
    if let Some(file) = &args.plot {
        let mut losses = Losses::default();
        view.reports.iter().for_each(|report| losses.add(report));
        picture::draw(file, &format!("job {}", args.job), &losses, None)?;
    }
    let Some(finished) = followed else { return Ok(Outcome::Interrupted) };
    Ok(if finished.state() == JobState::Failed { Outcome::Failed } else { Outcome::Done })
}

async fn follow(events: &mut Events, view: &mut View) -> anyhow::Result<pb::TrainingFinished> {
    while let Some(event) = events.next().await? {
        if view.is_json {
            print_json(&event)?;
        }
        match event.event {
            Some(Event::Epochs(batch)) => view.show(batch.reports)?,
            Some(Event::Started(started)) => view.begin(&started),
            Some(Event::Finished(finished)) => return Ok(finished),
            Some(Event::Queued(queued)) if !view.is_json => {
                eprintln!("waiting: {} job(s) of its model go before it", queued.jobs_ahead());
            }
            Some(Event::Queued(_) | Event::Progress(_)) | None => {}
        }
    }
    anyhow::bail!("the server ended the stream before the job did; watch it again once the server is back")
}

/// What has been seen, and how it is shown.
struct View {
    is_json: bool,
    is_live: bool,
    bar: ProgressBar,
    reports: Vec<pb::EpochReport>,
}

impl View {
    fn new(is_json: bool) -> Self {
        let is_live = !is_json && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        let target = if is_live { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self { is_json, is_live, bar: ProgressBar::with_draw_target(None, target), reports: Vec::new() }
    }

    fn begin(&self, started: &pb::TrainingStarted) {
        let epochs = started.settings.as_ref().map_or(0, |settings| settings.epochs);
        self.bar.set_length(u64::try_from(epochs).unwrap_or(0));
        // A template that does not parse would only leave the default look.
        if let Ok(style) = ProgressStyle::with_template("epoch {pos}/{len}  {msg}") {
            self.bar.set_style(style);
        }
    }

    fn show(&mut self, reports: Vec<pb::EpochReport>) -> anyhow::Result<()> {
        self.reports.extend(reports.iter().cloned());
        if self.is_live {
            if let Some(last) = reports.last() {
                self.bar.set_position(u64::try_from(last.epoch).unwrap_or(0));
                self.bar.set_message(format!("{}  {}", losses(last), self.curve()));
            }
            return Ok(());
        }
        if self.is_json {
            return Ok(());
        }
        let lines: Vec<String> = reports.iter().map(|it| format!("epoch {}  {}", it.epoch, losses(it))).collect();
        print(&lines.join("\n"))
    }

    fn curve(&self) -> String {
        let losses: Vec<f64> = self.reports.iter().map(|report| report.loss).collect();
        sparkline(&losses, SPARKLINE_WIDTH)
    }

    fn print_end(&self, finished: &pb::TrainingFinished) -> anyhow::Result<()> {
        if self.reports.len() > 1 {
            print(&self.curve())?;
        }
        let reason = finished.stop_reason().as_str_name().trim_start_matches("STOP_REASON_").to_lowercase();
        let reason = reason.replace('_', " ");
        let state = state_word(finished.state());
        let state = if reason == state { state } else { format!("{state} ({reason})") };
        let epoch = finished.last_report.as_ref().map_or(0, |report| report.epoch);
        let kept = if finished.version > 0 { format!("version {}", finished.version) } else { "no version".to_owned() };
        print(&format!("{state} after epoch {epoch}: {kept}"))?;
        finished.failure.as_ref().map_or(Ok(()), |failure| print(&failure.message))
    }
}
