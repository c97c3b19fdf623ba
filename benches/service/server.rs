//! The servers that are measured, each in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, anyhow};
use epochd::rpc::pb;
use epochd::rpc::pb::job_service_client::JobServiceClient;
use epochd::rpc::pb::model_service_client::ModelServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;

#[path = "../support/program.rs"]
mod program;

/// The largest message: the rows of W4 are 188 MB.
pub const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// A server in a process of its own, killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    _folder: Option<TempDir>,
}

impl Server {
    /// `epochd serve` as it is by default, but for the bound on messages, over a new folder.
    pub fn epochd(arguments: &[&str]) -> anyhow::Result<Self> {
        // Beside the program: a folder for temporary files may be in memory, and is no disk then.
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))?;
        let mut command = program::command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        command.arg("--message-bytes-max").arg(MESSAGE_BYTES_MAX.to_string());
        command.arg("--data-dir").arg(folder.path()).args(arguments);
        let mut child = command.stderr(Stdio::piped()).spawn().context("epochd cannot be started")?;
        let mut log = BufReader::new(child.stderr.take().context("its log is a pipe")?);
        let address = loop {
            let mut line = String::new();
            if log.read_line(&mut line)? == 0 {
                return Err(anyhow!("epochd ended before it served"));
            }
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "serving" {
                break line["address"].as_str().context("it tells its address")?.parse()?;
            }
        };
        // A full pipe would drop lines, or halt what writes them.
        std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
        Ok(Self { child, address, _folder: Some(folder) })
    }

    /// The echo of this program.
    pub fn echo(answer_bytes: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["echo", &answer_bytes.to_string()]).stdout(Stdio::piped());
        let mut child = command.spawn().context("the echo cannot be started")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
        Ok(Self { child, address: line.trim().parse().context("the echo tells its address")?, _folder: None })
    }

    /// Resident memory in MB, where the system tells.
    pub fn resident_mb(&self) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes * 1024.0 / 1e6)
    }

    /// A connection to epochd.
    pub async fn api(&self) -> anyhow::Result<Api> {
        let channel = Channel::from_shared(format!("http://{}", self.address))?.tcp_nodelay(true).connect().await?;
        let models = ModelServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Api { models, jobs: JobServiceClient::new(channel.clone()), channel })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection to epochd.
pub struct Api {
    pub models: ModelServiceClient<Channel>,
    pub jobs: JobServiceClient<Channel>,
    pub channel: Channel,
}

/// Numbers as a program sends them.
pub fn packed(values: &[f32]) -> pb::Matrix {
    let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    pb::Matrix { packed: packed.into(), packed_type: pb::ElementType::Float32.into(), ..pb::Matrix::default() }
}
