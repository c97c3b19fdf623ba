//! How light the server is: bytes of the program, time from its start to SERVING over an empty folder and over one with many models,
//! memory while nobody asks it anything. `cargo bench --bench light`, or `cargo bench --profile dist --bench light` for the program that
//! is shipped.

#[path = "support/server.rs"]
mod server;

use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, ensure};
use epochd::rpc::pb;
use epochd::rpc::pb::model_service_client::ModelServiceClient;
use server::Server;
use server::program::PROGRAM;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const STARTS: usize = 20;
/// How long nobody asks anything before memory is looked at.
const IDLE: Duration = Duration::from_secs(1);
/// Models of the folder that has many.
const MODELS: usize = 10_000;
/// Calls at once that create them.
const CREATING: usize = 32;

fn main() -> anyhow::Result<()> {
    // Without arguments as `cargo test --benches` calls it: once, to see that it works.
    let is_brief = std::env::args_os().len() == 1;
    let starts = if is_brief { 1 } else { STARTS };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    empty(starts, is_brief, &runtime)?;
    many(starts, if is_brief { 2 * CREATING } else { MODELS }, &runtime)
}

/// Starts over empty folders, and memory after each.
fn empty(starts: usize, is_brief: bool, runtime: &Runtime) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut memory = [const { Vec::new() }; 3];
    for _ in 0..starts {
        let begun = Instant::now();
        let server = Server::start(&[])?;
        runtime.block_on(ask(&server))?;
        times.push(begun.elapsed());
        thread::sleep(if is_brief { Duration::ZERO } else { IDLE });
        for (name, held) in ["VmRSS", "RssAnon", "RssFile"].iter().zip(&mut memory) {
            held.push(server.bytes(name)?);
        }
    }
    println!("{PROGRAM}: {:.2} MB", fs::metadata(PROGRAM)?.len() as f64 / 1e6);
    tell("an empty folder", times);
    let [resident, own, files] = memory.map(|mut held| {
        held.sort_unstable();
        held[starts / 2] as f64 / 1e6
    });
    println!(
        "resident while idle: {resident:.1} MB, of them {own:.1} MB its own and {files:.1} MB pages of the program"
    );
    Ok(())
}

/// Starts over one folder with so many models.
fn many(starts: usize, models: usize, runtime: &Runtime) -> anyhow::Result<()> {
    let server = Server::start(&[])?;
    runtime.block_on(create(&server, models))?;
    let mut folder = server.stop()?;
    let mut times = Vec::new();
    for _ in 0..starts {
        let begun = Instant::now();
        let server = Server::start_over(Rc::clone(&folder), &[])?;
        runtime.block_on(ask(&server))?;
        times.push(begun.elapsed());
        folder = server.stop()?;
    }
    tell(&format!("{models} models"), times);
    Ok(())
}

fn tell(of: &str, mut times: Vec<Duration>) {
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (fastest, median, slowest) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!(
        "from start to SERVING, {of}: median {:.1} ms of {}, {:.1} to {:.1} ms",
        millis(median),
        times.len(),
        millis(fastest),
        millis(slowest),
    );
}

async fn connect(server: &Server) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{}", server.address))?.connect().await?)
}

async fn ask(server: &Server) -> anyhow::Result<()> {
    let answer = HealthClient::new(connect(server).await?).check(HealthCheckRequest::default()).await?.into_inner();
    ensure!(answer.status() == ServingStatus::Serving, "health says {:?}", answer.status());
    Ok(())
}

/// Creates models, some calls at once.
async fn create(server: &Server, models: usize) -> anyhow::Result<()> {
    let client = ModelServiceClient::new(connect(server).await?);
    let layer = |units| pb::Layer { units, ..pb::Layer::default() };
    let architecture =
        pb::Architecture { input_width: 4, layers: vec![layer(16), layer(3)], ..pb::Architecture::default() };
    let mut calls = JoinSet::new();
    for model in 0..models {
        if calls.len() >= CREATING {
            calls.join_next().await.context("there are calls")???;
        }
        let request = pb::CreateModelRequest {
            model_id: format!("model-{model}"),
            architecture: Some(architecture.clone()),
            ..pb::CreateModelRequest::default()
        };
        let mut client = client.clone();
        calls.spawn(async move { client.create_model(request).await.map(drop) });
    }
    for call in calls.join_all().await {
        call?;
    }
    Ok(())
}
