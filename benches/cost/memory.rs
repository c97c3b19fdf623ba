//! What a server process holds at most in one training: with much data, and with a large network.

use crate::client::{connect, create, train, training};
use crate::server::Server;
use crate::training::Network;

const BYTES_OF_FLOAT: u64 = 4;
/// Copies of the parameters while it trains: 4 with Adam, one that is served, 2 more; and 3 while a checkpoint is written.
const COPIES: u64 = 4 + 1 + 2;
const COPIES_OF_CHECKPOINT: u64 = 3;

/// Where a server keeps things, and what a checkpoint's interval is.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    InFolder,
    InFolderWithCheckpoints,
    InMemory,
}

impl Kept {
    fn name(self) -> &'static str {
        match self {
            Self::InFolder => "folder",
            Self::InFolderWithCheckpoints => "folder, checkpoints often",
            Self::InMemory => "memory",
        }
    }
}

pub fn measure(is_brief: bool) -> anyhow::Result<()> {
    println!("\n### memory of a server process, of one training\n");
    println!("| network | rows | kept in | data, MB | parameters, MB | peak − idle, MB | the formula, MB | × |");
    println!("|---|---:|---|---:|---:|---:|---:|---:|");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let size = |full: usize, brief: usize| if is_brief { brief } else { full };
    let networks = [
        ("much data", Network { widths: vec![100, 8, 1], rows: size(500_000, 500), batch: 256 }, 2),
        ("large network", Network { widths: vec![1_024, size(8_192, 8), 1_024, 1], rows: 256, batch: 128 }, 4),
    ];
    for (name, network, epochs) in networks {
        for kept in [Kept::InFolder, Kept::InFolderWithCheckpoints, Kept::InMemory] {
            runtime.block_on(peak(name, &network, epochs, kept))?;
        }
    }
    Ok(())
}

async fn peak(name: &str, network: &Network, epochs: i32, kept: Kept) -> anyhow::Result<()> {
    // A server in memory takes no checkpoints.
    let mut arguments = vec!["--message-bytes-max", "1000000000"];
    arguments.extend((kept == Kept::InMemory).then_some("--ephemeral"));
    let server = Server::start(&arguments)?;
    let mut client = connect(&server).await?;
    create(&mut client, "model", network).await?;
    // A training of next to nothing comes first: what the process needs for its first one, its code in memory among it, is not the other's.
    let small = Network { widths: vec![2, 2, 1], rows: 4, batch: 2 };
    create(&mut client, "small", &small).await?;
    train(&mut client, training("small", &small, 1)).await?;
    let idle = server.bytes("VmRSS")?;
    let mut request = training("model", network, epochs);
    let has_checkpoints = kept == Kept::InFolderWithCheckpoints;
    let nanos = if has_checkpoints { 1_000_000 } else { 0 };
    let seconds = if has_checkpoints { 0 } else { 3_600 };
    request.checkpoint_interval = Some(prost_types::Duration { seconds, nanos });
    train(&mut client, request).await?;
    let held = server.bytes("VmHWM")? - idle;
    let parameters = network.parameters() as u64 * BYTES_OF_FLOAT;
    let copies = COPIES + if has_checkpoints { COPIES_OF_CHECKPOINT } else { 0 };
    let formula = network.data_bytes() as u64 + copies * parameters + network.workspace_bytes() as u64;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "| {name} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} |",
        network.rows,
        kept.name(),
        megabytes(network.data_bytes() as u64),
        megabytes(parameters),
        megabytes(held),
        megabytes(formula),
        held as f64 / formula as f64
    );
    Ok(())
}
