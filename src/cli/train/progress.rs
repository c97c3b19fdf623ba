//! How a training looks while it runs: a bar with the live loss on a terminal, a few lines elsewhere.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::output::losses;
use crate::rpc::pb;

/// Lines that a run prints where there is no terminal.
const LINES: i32 = 10;

/// Shows the epochs of a training on standard error.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    epochs: i32,
    epochs_before: Option<i32>,
}

impl Progress {
    /// For a person.
    pub fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        Self { bar, is_terminal, epochs: 0, epochs_before: None }
    }

    /// A line beside the bar.
    pub(super) fn say(&self, line: &str) {
        if self.is_terminal { self.bar.println(line) } else { eprintln!("{line}") }
    }

    pub(super) fn queued(&self, jobs_ahead: i32) {
        if jobs_ahead > 0 {
            self.say(&format!("waiting for {jobs_ahead} job(s) of this model"));
        }
    }

    pub(super) fn started(&mut self, epochs: i32) {
        self.epochs = epochs;
        self.bar.set_length(epochs.max(1) as u64);
        // A template that does not parse would only leave the default look.
        if let Ok(style) = ProgressStyle::with_template("epoch {pos}/{len} {wide_bar} {msg}") {
            self.bar.set_style(style.progress_chars("━╸─"));
        }
    }

    pub(super) fn epoch(&mut self, report: &pb::EpochReport) {
        let losses = losses(report);
        // A training that goes on counts on where the one before ended.
        let before = *self.epochs_before.get_or_insert(report.epoch - 1);
        let done = report.epoch - before;
        self.bar.set_message(losses.clone());
        self.bar.set_position(done.max(0) as u64);
        let every = (self.epochs / LINES).max(1);
        if !self.is_terminal && (done == 1 || done % every == 0) {
            self.say(&format!("epoch {}/{}  {losses}", report.epoch, before + self.epochs));
        }
    }

    pub(super) fn finished(&self) {
        self.bar.abandon();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
