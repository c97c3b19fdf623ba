//! `epochd check`: every fault of a data folder, by name.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::Context as _;

use super::Outcome;
use super::output::print;
use crate::config::DATA_DIR_DEFAULT;
use crate::store::{Counts, Finding, Line, Look, check};

/// What Rust prints before it ends a process that gets no memory.
const NO_MEMORY: &str = "memory allocation of ";

/// Look at a data folder that no server uses, and name every fault in it. Nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example: epochd check --data-dir /var/lib/epochd

Exit codes: 0 sound, 1 faults (each is told), or no verdict (the folder is in use, or memory ran out), 2 wrong usage.")]
pub struct Args {
    /// The folder.
    #[arg(long, env = "EPOCHD_DATA_DIR", value_name = "FOLDER", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,

    /// A line of JSON for each finding, and one for the end.
    #[arg(long)]
    json: bool,

    /// Look in this process, which damaged bytes may end, and print what another one reads.
    #[arg(long, hide = true)]
    in_process: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<Outcome> {
    if args.in_process {
        let mut printed = Ok(());
        check(&args.data_dir, &mut |line| {
            if printed.is_ok() {
                printed = print_json_line(&line);
            }
        });
        return printed.map(|()| Outcome::Done);
    }
    let _look = Look::begin(&args.data_dir)?;
    let mut faults = 0_u64;
    let counts = look(&args, |line| {
        faults += u64::from(matches!(line, Line::Fault(_)));
        tell(&args, line)
    })?;
    if !args.json {
        let Counts { models, versions, jobs, unfinished_jobs, chunks, blobs } = counts;
        let [models, versions, jobs] = [(models, "model"), (versions, "version"), (jobs, "job")].map(counted);
        let [chunks, blobs] = [(chunks, "chunk"), (blobs, "blob")].map(counted);
        let all = format!("{models}, {versions}, {jobs} ({unfinished_jobs} unfinished), {chunks} of reports, {blobs}");
        let verdict = if faults == 0 { "sound".to_owned() } else { counted((faults, "fault")) };
        print(&format!("{}: {verdict}; {all}", args.data_dir.display()))?;
    }
    Ok(if faults == 0 { Outcome::Done } else { Outcome::Failed })
}

fn counted((count, thing): (u64, &str)) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// Looks in a process of its own, and takes its sudden end for a fault.
fn look(args: &Args, mut told: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<Counts> {
    let program = std::env::current_exe().context("the program does not find itself")?;
    let mut command = Command::new(program);
    // As one argument: the folder's name may begin with a dash.
    let mut folder = OsString::from("--data-dir=");
    folder.push(&args.data_dir);
    command.args(["--log", "off", "check", "--in-process"]).arg(folder);
    // What a panic prints there is told here in other words.
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.context("the checking process cannot be started")?;
    let printed = child.stderr.take().map(|stderr| std::thread::spawn(move || last_line(BufReader::new(stderr))));
    let mut counts = None;
    for line in child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines()) {
        let line = line.context("the checking process cannot be read")?;
        // A line that the process's end cut short.
        let Ok(line) = serde_json::from_str(&line) else { break };
        if let Line::Done(done) = &line {
            counts = Some(*done);
        }
        told(&line)?;
    }
    let status = child.wait().context("the checking process cannot be waited for")?;
    let last_words = printed.and_then(|printed| printed.join().ok()).unwrap_or_default();
    if counts.is_none() && (!is_by_itself(status) || last_words.starts_with(NO_MEMORY)) {
        anyhow::bail!(
            "the process that reads the folder was ended ({status}) by something else than the folder, so it is not known whether that is \
             sound; where memory ran out, make room, and check again. {last_words}"
        );
    }
    if counts.is_none() {
        let problem = format!("its pages are so damaged that reading them ended the process ({status})");
        told(&Line::Fault(Finding { what: "records.redb".to_owned(), problem, is_relation: false }))?;
    }
    Ok(counts.unwrap_or_default())
}

/// The last line that is printed.
fn last_line(printed: impl BufRead) -> String {
    printed.lines().map_while(Result::ok).last().unwrap_or_default()
}

/// Whether the process ended of what it did: a panic, an abort, an access to memory that is not its own.
#[cfg(unix)]
fn is_by_itself(status: ExitStatus) -> bool {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt as _;
    let own = [Signal::ABORT, Signal::SEGV, Signal::BUS, Signal::ILL, Signal::TRAP, Signal::FPE];
    status.signal().is_none_or(|signal| own.iter().any(|own| own.as_raw() == signal))
}

#[cfg(not(unix))]
fn is_by_itself(_status: ExitStatus) -> bool {
    true
}

fn tell(args: &Args, line: &Line) -> anyhow::Result<()> {
    if args.json {
        return print_json_line(line);
    }
    match line {
        Line::Fault(Finding { what, problem, .. }) => print(&format!("fault: {what}: {problem}")),
        Line::Note(Finding { what, problem, .. }) => print(&format!("note: {what}: {problem}")),
        Line::Done(_) => Ok(()),
    }
}

fn print_json_line(line: &Line) -> anyhow::Result<()> {
    print(&serde_json::to_string(line).context("a finding cannot be written as JSON")?)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn an_end_from_outside_says_nothing_of_the_folder() {
        let by_signal = |signal| is_by_itself(ExitStatus::from_raw(signal));
        assert!([6, 11, 7].into_iter().all(by_signal));
        assert!([9, 15, 2].into_iter().all(|signal| !by_signal(signal)));
        assert!(is_by_itself(ExitStatus::from_raw(101 << 8)));
    }
}
