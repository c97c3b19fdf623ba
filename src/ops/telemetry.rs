//! Logs: to standard error, so that standard output stays free for what a command prints.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;

use super::span::Lazily;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Checks a filter such as `info` or `epochd=debug,tonic=warn`.
pub fn check_filter(filter: &str) -> Result<(), String> {
    Targets::from_str(filter).map(drop).map_err(|error| error.to_string())
}

/// Standard error, for those who must go on when nobody can be told any more: where the log lies on a full disk, or its reader has
/// gone, lines are lost. By default a line that cannot be written panics in whatever thread writes it.
struct Unfailing(io::Stderr);

impl io::Write for Unfailing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A part of a line that was written is told, so that the rest follows it.
        Ok(self.0.write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> io::Result<()> {
        drop(self.0.flush());
        Ok(())
    }
}

/// Lines that wait to be written; later ones are dropped. A line is some hundred bytes.
const LINES_WAITING_MAX: usize = 4_096;

/// Starts logging; a second call in one process changes nothing. A thread of its own writes, so that a log whose reader is stuck holds
/// up neither calls nor trainings; what waits is written when the guard is dropped.
pub fn start(filter: &str, format: LogFormat) -> WorkerGuard {
    let filter = Targets::from_str(filter).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let builder =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX).thread_name("epochd-log");
    let (writer, guard) = builder.finish(Unfailing(io::stderr()));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()))
        .with_span_events(FmtSpan::NONE)
        .with_target(false);
    let started = match format {
        LogFormat::Text => Lazily::start(subscriber.finish().with(filter)),
        LogFormat::Json => Lazily::start(subscriber.json().flatten_event(true).finish().with(filter)),
    };
    // Tests start many servers in one process: the first one's choice stands.
    drop(started);
    guard
}
