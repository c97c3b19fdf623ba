//! The command line: one file a command.

mod backup;
mod cancel;
mod check;
mod completions;
mod csv_table;
mod delete;
mod download;
mod health;
mod jobs;
mod local;
mod models;
mod output;
mod picture;
mod pin;
mod predict;
mod remote;
mod restore;
mod rollback;
mod serve;
mod signals;
mod train;
mod versions;
mod watch;
mod weights;

use std::process::ExitCode;

use clap::error::Error as ClapError;
use clap::{ArgMatches, FromArgMatches, Parser, Subcommand};

use crate::ops::telemetry::{self, LogFormat};

/// Exit code after a failure that was told on standard error.
const FAILURE: u8 = 1;
/// Exit code for a command line or settings that make no sense; clap's own.
const USAGE: u8 = 2;
/// Exit code after Ctrl-C stopped a command: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Trains neural networks on your data over gRPC, streams the loss of every epoch, and serves predictions.
#[derive(Debug, Parser)]
#[command(name = "epochd", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage, 130 stopped by Ctrl-C."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What is logged to standard error: a level (error, warn, info, debug, trace), or levels by module, such as
    /// `epochd=debug,h2=warn` [default: info for serve, warn otherwise].
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    /// Train a model on a CSV file, and tell how well it does on rows that it has not seen.
    Train(Lazily<train::Args>),
    Predict(predict::Args),
    Models(models::Args),
    Versions(versions::Args),
    Jobs(jobs::Args),
    Watch(watch::Args),
    Cancel(cancel::Args),
    Delete(delete::Args),
    Rollback(rollback::Args),
    Pin(pin::Args),
    Weights(weights::Args),
    Download(download::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Check(check::Args),
    Health(health::Args),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

/// Options that are described only where their command is asked for: the help of some is written from the contract, which takes
/// milliseconds and megabytes to be read, and a server that starts needs none of it.
#[derive(Debug)]
struct Lazily<A>(A);

impl<A: clap::Args> clap::Args for Lazily<A> {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(A::augment_args)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        command.defer(A::augment_args_for_update)
    }
}

impl<A: FromArgMatches> FromArgMatches for Lazily<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, ClapError> {
        A::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), ClapError> {
        self.0.update_from_arg_matches(matches)
    }
}

/// How a command ended.
enum Outcome {
    Done,
    /// What there was to say of it has been said.
    Failed,
    Interrupted,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let default = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = cli.log.as_deref().unwrap_or(default);
    if let Err(error) = telemetry::check_filter(filter) {
        eprintln!("error: --log {filter:?} is not a filter: {error}");
        return ExitCode::from(USAGE);
    }
    let _log = telemetry::start(filter, cli.log_format);
    let outcome = match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Train(Lazily(args)) => train::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Models(args) => models::run(args),
        Command::Versions(args) => versions::run(args),
        Command::Jobs(args) => jobs::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Cancel(args) => cancel::run(args),
        Command::Delete(args) => delete::run(args),
        Command::Rollback(args) => rollback::run(args),
        Command::Pin(args) => pin::run(args),
        Command::Weights(args) => weights::run(args),
        Command::Download(args) => download::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Check(args) => check::run(args),
        Command::Health(args) => health::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => completions::run_man(args),
    };
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(FAILURE),
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        // As a program does that the signal ends: quietly.
        Err(error) if error.is::<output::NobodyReads>() => ExitCode::SUCCESS,
        Err(error) if error.is::<train::Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_usage = error.downcast_ref::<crate::config::ConfigFaults>().is_some();
            ExitCode::from(if is_usage { USAGE } else { FAILURE })
        }
    }
}
