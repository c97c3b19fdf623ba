//! The program itself, as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
#[cfg(target_os = "linux")]
use std::time::{Duration, Instant};

use super::Api;

/// A process that serves; killed when dropped.
pub struct Process {
    child: Child,
    /// Reads the rest of the log as it comes: a full pipe would halt the server.
    log: Option<JoinHandle<String>>,
    /// Where nobody reads it, but might.
    _unread: Option<BufReader<ChildStderr>>,
    pub address: SocketAddr,
}

impl Process {
    /// `epochd serve` over a folder, on a free port, once it serves.
    pub fn serve(folder: &Path, arguments: &[&str]) -> Self {
        Self::with(program(), folder, arguments)
    }

    /// The same; a write past a limit on the size of files is an error to it, where it would else be a signal that ends it.
    pub fn serve_past_file_limits(folder: &Path) -> Self {
        let mut shell = own_settings(Command::new("sh"));
        shell.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#, env!("CARGO_BIN_EXE_epochd")]);
        Self::with(shell, folder, &[])
    }

    /// The same, or the log of a process that ended without serving.
    pub fn try_serve(folder: &Path) -> Result<Self, String> {
        try_start(program(), folder, &[]).map(Self::of)
    }

    fn with(command: Command, folder: &Path, arguments: &[&str]) -> Self {
        Self::of(start(command, folder, arguments))
    }

    fn of((child, mut stderr, address): Started) -> Self {
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            stderr.read_to_string(&mut log).unwrap();
            log
        });
        Self { child, log: Some(log), _unread: None, address }
    }

    /// The same, with a log whose reader is gone once it serves.
    pub fn serve_unread(folder: &Path, arguments: &[&str]) -> Self {
        let (child, _, address) = start(program(), folder, arguments);
        Self { child, log: None, _unread: None, address }
    }

    /// The same, with a log whose reader is stuck once it serves.
    pub fn serve_stuck(folder: &Path, arguments: &[&str]) -> Self {
        let (child, stderr, address) = start(program(), folder, arguments);
        Self { child, log: None, _unread: Some(stderr), address }
    }

    pub async fn api(&self) -> Api {
        Api::connect(self.address).await
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as `kill -9` sends it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end: how it ended, and the rest of its log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        // Its pipe is closed with the process.
        (status, self.log.take().map_or_else(String::new, |log| log.join().unwrap()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A process, its log and its address.
type Started = (Child, BufReader<ChildStderr>, SocketAddr);

/// `epochd serve`, once it serves.
fn start(command: Command, folder: &Path, arguments: &[&str]) -> Started {
    try_start(command, folder, arguments).unwrap_or_else(|log| panic!("it ended without serving: {log}"))
}

/// The same, or the log where it ended without serving.
fn try_start(mut command: Command, folder: &Path, arguments: &[&str]) -> Result<Started, String> {
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"]);
    let mut child = command.arg(folder).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut log = String::new();
    let address = loop {
        let mut line = String::new();
        if stderr.read_line(&mut line).unwrap() == 0 {
            child.wait().unwrap();
            return Err(log);
        }
        log.push_str(&line);
        // A panic's words are no JSON.
        let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        if line["message"] == "serving" {
            break line["address"].as_str().unwrap().parse().unwrap();
        }
    };
    Ok((child, stderr, address))
}

/// `epochd serve` with so much address space, until it ends by itself: how.
#[cfg(target_os = "linux")]
pub fn serve_to_death(folder: &Path, kilobytes: u64) -> ExitStatus {
    const PATIENCE: Duration = Duration::from_secs(60);
    let program = program();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"")]).arg(program.get_program());
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("it lives on with {kilobytes} KiB: {:?}", child.wait());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The address space of a process, in KiB.
#[cfg(target_os = "linux")]
pub fn address_space(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs the program in `folder` to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    program().current_dir(folder).args(arguments).output().unwrap()
}

/// Sends a signal, such as "TERM", to a process.
pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The program, without the settings that this process's environment may carry.
pub fn program() -> Command {
    own_settings(Command::new(env!("CARGO_BIN_EXE_epochd")))
}

fn own_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EPOCHD_") || name == "RUST_LOG") {
        command.env_remove(name);
    }
    command
}
