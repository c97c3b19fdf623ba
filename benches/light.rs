//! How light the server is: bytes of the program, time from its start to SERVING over an empty folder, memory while nobody asks it
//! anything. `cargo bench --bench light`, or `cargo bench --profile dist --bench light` for the program that is shipped.

#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::ensure;
use server::{PROGRAM, Server};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const STARTS: usize = 20;
/// How long nobody asks anything before memory is looked at.
const IDLE: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    // Without arguments as `cargo test --benches` calls it: once, to see that it works.
    let is_brief = std::env::args_os().len() == 1;
    let starts = if is_brief { 1 } else { STARTS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (fastest, median, slowest) = (times[0], times[starts / 2], times[starts - 1]);
    println!("{PROGRAM}: {:.2} MB", fs::metadata(PROGRAM)?.len() as f64 / 1e6);
    println!(
        "from start to SERVING, empty folder: median {:.1} ms of {starts}, {:.1} to {:.1} ms",
        millis(median),
        millis(fastest),
        millis(slowest),
    );
    let [resident, own, files] = memory.map(|mut held| {
        held.sort_unstable();
        held[starts / 2] as f64 / 1e6
    });
    println!(
        "resident while idle: {resident:.1} MB, of them {own:.1} MB its own and {files:.1} MB pages of the program"
    );
    Ok(())
}

async fn ask(server: &Server) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{}", server.address))?.connect().await?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await?.into_inner();
    ensure!(answer.status() == ServingStatus::Serving, "health says {:?}", answer.status());
    Ok(())
}
