//! The process that is killed, from its first instruction on, and its log as it comes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

/// Small bounds, so that versions and jobs are given back all the time.
pub const VERSIONS: i32 = 3;
pub const JOBS_PER_MODEL: usize = 3;
pub const JOBS: usize = 8;
pub const KEPT_REPORTS: usize = 7_000;

/// What the server says before it serves.
pub const SERVING: &str = "serving";
/// What it says before it compacts its record file, and after.
pub const COMPACTING: &str = "the record file is being compacted";
pub const COMPACTED: &str = "the record file was compacted";
/// The one error that a kill may lead to: the process ended under a job again and again.
const SET_ASIDE: &str = "an unfinished job is set aside";

/// A process; killed when dropped.
pub struct Victim {
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Vec<Value>,
    is_over: bool,
}

impl Victim {
    /// Begins a process over a folder.
    pub fn start(folder: &Path) -> Self {
        let bounds = [
            ("--versions-per-model", VERSIONS as usize),
            ("--finished-jobs-per-model", JOBS_PER_MODEL),
            ("--finished-jobs", JOBS),
            ("--kept-reports", KEPT_REPORTS),
        ];
        let mut command = program();
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"]).arg(folder);
        command.args(bounds.iter().flat_map(|(name, bound)| [(*name).to_owned(), bound.to_string()]));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new((Mutex::new(Log::default()), Condvar::new()));
        let shared = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                shared.0.lock().unwrap().lines.push(serde_json::from_str(&line).unwrap_or(json!({"not_json": line})));
                shared.1.notify_all();
            }
            shared.0.lock().unwrap().is_over = true;
            shared.1.notify_all();
        });
        Self { child, log, reader: Some(reader) }
    }

    /// Waits until the log says it, at most so long; the line.
    pub fn said(&self, message: &str, time_max: Duration) -> Option<Value> {
        let find = |log: &Log| log.lines.iter().find(|line| line["message"] == message).cloned();
        let log = self.log.0.lock().unwrap();
        let is_awaited = |log: &mut Log| find(log).is_none() && !log.is_over;
        let (log, _) = self.log.1.wait_timeout_while(log, time_max, is_awaited).unwrap();
        find(&log)
    }

    /// The address, once it serves.
    pub fn address(&self) -> SocketAddr {
        let line = self.said(SERVING, Duration::from_secs(60));
        let line = line.unwrap_or_else(|| panic!("it does not serve: {:#?}", self.log.0.lock().unwrap().lines));
        line["address"].as_str().unwrap().parse().unwrap()
    }

    /// SIGKILL; all that it had said.
    pub fn kill(mut self) -> Vec<Value> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let lines = std::mem::take(&mut self.log.0.lock().unwrap().lines);
        check_log(&lines);
        lines
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Nothing may look like a fault to the server: the last line may be cut short, all others say what is meant to happen.
fn check_log(lines: &[Value]) {
    for (index, line) in lines.iter().enumerate() {
        let is_cut = line.get("not_json").is_some() && index + 1 == lines.len();
        let is_meant = line["level"] == "INFO" || line["message"] == SET_ASIDE;
        assert!(is_cut || is_meant, "the server's log: {line}");
    }
}
