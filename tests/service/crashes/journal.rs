//! What was asked and answered, in the order of time: printed where the test fails.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Lines that are printed; all of them are in the file.
const LINES_PRINTED: usize = 300;

/// A handle of the journal that clients, checker and driver share.
#[derive(Clone)]
pub struct Journal {
    begun: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Journal {
    pub fn new() -> Self {
        Self { begun: Instant::now(), lines: Arc::default() }
    }

    pub fn note(&self, who: &str, what: impl Display) {
        let line = format!("{:9.4} {who}: {what}", self.begun.elapsed().as_secs_f64());
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// Prints the journal when a panic drops it.
pub struct PrintedOnFailure {
    pub journal: Journal,
    pub seed: u64,
}

impl Drop for PrintedOnFailure {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let lines = self.journal.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let file = std::env::temp_dir().join(format!("epochd-crashes-{}-{}.log", self.seed, std::process::id()));
        let written = std::fs::write(&file, lines.join("\n"));
        let from = lines.len().saturating_sub(LINES_PRINTED);
        eprintln!("the last of {} lines with seed {}:\n{}", lines.len(), self.seed, lines[from..].join("\n"));
        eprintln!("all of them: {} ({written:?})", file.display());
    }
}
