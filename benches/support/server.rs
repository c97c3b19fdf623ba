//! `epochd serve` as a process, over a folder of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::rc::Rc;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[path = "program.rs"]
pub mod program;

/// A server; it is gone when it is dropped, and so is its folder, unless another has it.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: String,
    folder: Rc<TempDir>,
}

impl Server {
    /// Starts one on a free port, over a new folder; it serves.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        // Beside the program: a folder for temporary files may be in memory, and is no disk then.
        Self::start_over(Rc::new(TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?), arguments)
    }

    /// The same over a folder that another server had.
    pub fn start_over(folder: Rc<TempDir>, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = program::command();
        command.args(["--log-format", "json", "serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
        let child = command.args(arguments).stderr(Stdio::piped()).spawn()?;
        let mut server = Self { child, address: String::new(), folder };
        let log = server.child.stderr.take().context("its log is read already")?;
        for line in BufReader::new(log).lines() {
            let told: serde_json::Value = serde_json::from_str(&line?)?;
            if let Some(address) = told["address"].as_str() {
                address.clone_into(&mut server.address);
                return Ok(server);
            }
        }
        anyhow::bail!("it ended without serving")
    }

    /// Asks it to end, and waits for that. What it leaves.
    pub fn stop(mut self) -> anyhow::Result<Rc<TempDir>> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(Rc::clone(&self.folder))
    }

    /// Bytes of its memory, by a name in /proc/PID/status: VmRSS, or VmHWM for the most that it had.
    pub fn bytes(&self, name: &str) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        kibibytes.map(|it| it << 10).with_context(|| format!("the system tells no {name}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is told elsewhere.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
