//! Everything at once at a steady rate: what the server holds does not grow. EPOCHD_SOAK_SECONDS=3600 is the whole of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::support::*;

/// From this on growth is asserted: in a shorter time a warm-up is most of it.
const FULL_SECONDS: usize = 600;
const SAMPLES: usize = 60;
const CLIENTS: usize = 4;
/// How often each client begins a round.
const ROUND: Duration = Duration::from_millis(250);
const RETENTION: [&str; 8] = [
    "--versions-per-model",
    "5",
    "--finished-jobs-per-model",
    "20",
    "--finished-jobs",
    "50",
    "--kept-reports",
    "10000",
];
/// How much more the last quarter may hold than the second, on average: a tenth, and this for what moves by chance.
const BYTES_MARGIN: f64 = (8 << 20) as f64;
const COUNT_MARGIN: f64 = 4.0;

async fn cancelled_midway(api: &Api, model_id: &str, commit: bool) {
    let (job_id, mut events) = api.start(endless(model_id)).await;
    next_reports(&mut events).await;
    let job = api.jobs.clone().cancel_job(cancel(&job_id, commit)).await.unwrap().into_inner();
    assert_eq!(job.state(), JobState::Cancelled);
}

async fn serve_version(api: &Api, model_id: &str, version: Option<i32>) {
    let request = pb::SetServingVersionRequest { model_id: model_id.into(), version };
    api.models.clone().set_serving_version(request).await.unwrap();
}

async fn set_weights_again(api: &Api, model_id: &str) {
    let weights = api.models.clone().get_weights(get_weights(model_id)).await.unwrap().into_inner();
    let request = pb::SetWeightsRequest { model_id: model_id.into(), layers: weights.layers };
    api.models.clone().set_weights(request).await.unwrap();
}

/// What is done with a model that is there for the whole time, and with one that comes and goes.
async fn use_model(api: &Api, model_id: &str) {
    let request = pb::TrainRequest { epochs: Some(200), ..truth_table(model_id, XOR) };
    let (job_id, events) = api.start(request).await;
    let watched = api.watch(&job_id, Some(50)).await.unwrap();
    assert_eq!(read(events).await.reports.len(), 200);
    assert_eq!(read(watched).await.reports.len(), 151);
    api.outputs(model_id, corners()).await;
    set_weights_again(api, model_id).await;
    serve_version(api, model_id, Some(1)).await;
    api.outputs(model_id, corners()).await;
    serve_version(api, model_id, None).await;
}

/// A round over a connection of its own, so that handles that stay would be seen.
async fn round(address: SocketAddr, client: usize, number: u64) {
    let api = Api::connect(address).await;
    use_model(&api, &format!("kept-{client}")).await;
    let passing = format!("passing-{client}");
    api.create(xor_model(&passing, 8)).await;
    use_model(&api, &passing).await;
    cancelled_midway(&api, &passing, number.is_multiple_of(2)).await;
    // A model that is deleted takes its running job along.
    let (_, events) = api.start(endless(&passing)).await;
    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: passing }).await.unwrap();
    assert_eq!(read(events).await.finished.state(), JobState::Cancelled);
}

fn start_clients(address: SocketAddr, until: Instant, rounds: &Arc<AtomicU64>) -> JoinSet<()> {
    let run = |client: usize| {
        let rounds = rounds.clone();
        async move {
            let mut ticks = tokio::time::interval(ROUND);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while Instant::now() < until {
                ticks.tick().await;
                let number = rounds.fetch_add(1, Ordering::Relaxed);
                round(address, client, number).await;
            }
        }
    };
    (0..CLIENTS).map(run).collect()
}

/// What is held at an instant.
struct Sample {
    held: Held,
    records: u64,
    blobs: u64,
}

impl Sample {
    fn take(process: &Process, folder: &Path) -> Self {
        let records = bytes_in(&folder.join("records.redb"));
        Self { held: Held::by(process.id()), records, blobs: bytes_in(&folder.join("blobs")) }
    }

    fn print(&self, seconds: f64, rounds: u64) {
        let Held { resident, handles, threads, .. } = self.held;
        let [resident, records, blobs] = [resident, self.records, self.blobs].map(mib);
        println!("{seconds:8.1} {rounds:8} {resident:13.2} {handles:8} {threads:8} {records:17.2} {blobs:10.3}");
    }
}

/// A name, what of a sample it is, and how much it may grow beyond a tenth.
type Measure = (&'static str, fn(&Sample) -> u64, f64);

const MEASURES: [Measure; 5] = [
    ("bytes of resident memory", |sample| sample.held.resident, BYTES_MARGIN),
    ("file handles", |sample| sample.held.handles, COUNT_MARGIN),
    ("threads", |sample| sample.held.threads, COUNT_MARGIN),
    ("bytes of records", |sample| sample.records, BYTES_MARGIN),
    ("bytes of blobs", |sample| sample.blobs, BYTES_MARGIN),
];

fn mean(samples: &[Sample], of: fn(&Sample) -> u64) -> f64 {
    samples.iter().map(|sample| of(sample) as f64).sum::<f64>() / samples.len() as f64
}

/// Compares the last quarter with the second; the first is warm-up.
fn compare(samples: &[Sample], is_full: bool) {
    let quarter = samples.len() / 4;
    for (name, of, margin) in MEASURES {
        let second = mean(&samples[quarter..2 * quarter], of);
        let last = mean(&samples[samples.len() - quarter..], of);
        println!("{name}: {second:.1} in the second quarter, {last:.1} in the last");
        assert!(!is_full || last <= second * 1.1 + margin, "{name} grew from {second:.1} to {last:.1}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_grows_while_everything_is_used() {
    let seconds = size("EPOCHD_SOAK_SECONDS", 6);
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &RETENTION);
    let api = process.api().await;
    for client in 0..CLIENTS {
        api.create(xor_model(&format!("kept-{client}"), 8)).await;
    }

    let begun = Instant::now();
    let step = Duration::from_secs_f64(seconds as f64 / SAMPLES as f64);
    let rounds = Arc::new(AtomicU64::new(0));
    let mut clients = start_clients(process.address, begun + step * SAMPLES as u32, &rounds);
    println!("{seconds} s, {}", build());
    println!(" seconds   rounds  resident MiB  handles  threads  records.redb MiB  blobs MiB");
    let mut samples = Vec::new();
    for number in 1..=SAMPLES as u32 {
        tokio::time::sleep_until(begun + step * number).await;
        let sample = Sample::take(&process, folder.path());
        sample.print(begun.elapsed().as_secs_f64(), rounds.load(Ordering::Relaxed));
        samples.push(sample);
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    compare(&samples, seconds >= FULL_SECONDS);
}
