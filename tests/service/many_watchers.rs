//! Many watchers on one job: none misses an epoch, stalled ones cost bounded memory, and the training hardly notices.
//! EPOCHD_WATCHERS=1000 EPOCHD_WATCHED_EPOCHS=12000 is the whole of it.

use std::net::SocketAddr;
use std::time::Duration;

use epochd::rpc::pb;
use epochd::rpc::pb::job_service_client::JobServiceClient;
use epochd::rpc::pb::train_event::Event;
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::support::*;

const FULL: usize = 1_000;
/// Well below the 256 streams that the server allows to a connection.
const WATCHERS_PER_CONNECTION: usize = 100;
/// Of a stream of a stalled watcher, in bytes: less than the reports of a thousand epochs. Their connection's window stays as it is:
/// the client's library ends a connection of which too many small frames wait to be read, many being a part of its window.
const SMALL_WINDOW: u32 = 16 << 10;
/// Of the whole size: what a watcher may cost the server at its worst, and what all together may besides.
const BYTES_PER_WATCHER_MAX: u64 = 128 << 10;
const BYTES_BESIDES_MAX: u64 = 32 << 20;
const SLOW_DOWN_MAX: f64 = 1.05;
const ROWS_TRIED: usize = 2_048;
const EPOCHS_TRIED: usize = 100;

/// A training on that many rows, in one batch an epoch.
fn training_on(rows: usize, epochs: usize) -> pb::TrainRequest {
    let inputs: Vec<f64> = (0..rows * 2).map(|index| (index % 7) as f64 / 7.0).collect();
    let targets: Vec<f64> = (0..rows).map(|index| (index % 2) as f64).collect();
    pb::TrainRequest {
        inputs: Some(values(&inputs)),
        targets: Some(values(&targets)),
        epochs: Some(epochs as i32),
        batch_size: Some(rows as i32),
        ..truth_table("xor", XOR)
    }
}

/// As many rows as make an epoch last that long here and now.
async fn rows_for(api: &Api, epoch: Duration) -> usize {
    let told = api.train(training_on(ROWS_TRIED, EPOCHS_TRIED)).await;
    let tried = api.trained_for(&told.job_id).await.as_secs_f64() / EPOCHS_TRIED as f64;
    ((epoch.as_secs_f64() / tried * ROWS_TRIED as f64) as usize).max(16)
}

/// Watchers of a job, some over connections with small windows.
async fn watchers(
    address: SocketAddr,
    job_id: &str,
    count: usize,
    window: Option<u32>,
) -> Vec<Streaming<pb::TrainEvent>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let endpoint = endpoint.initial_stream_window_size(window);
    let mut streams = Vec::new();
    while streams.len() < count {
        let mut jobs = JobServiceClient::new(endpoint.connect().await.unwrap());
        for _ in 0..WATCHERS_PER_CONNECTION.min(count - streams.len()) {
            streams.push(jobs.watch_job(watch(job_id, None)).await.unwrap().into_inner());
        }
    }
    streams
}

/// Reads a stream to its end, and holds no report: the next epoch is always the one after the last.
async fn count_epochs(mut events: Streaming<pb::TrainEvent>) -> i32 {
    let mut epochs = 0;
    let mut is_finished = false;
    while let Some(event) = events.message().await.unwrap() {
        assert!(!is_finished, "an event after `finished`");
        match event.event.unwrap() {
            Event::Epochs(batch) => batch.reports.iter().for_each(|report| {
                assert_eq!(report.epoch, epochs + 1);
                epochs = report.epoch;
            }),
            Event::Finished(_) => is_finished = true,
            _ => {}
        }
    }
    assert!(is_finished, "the stream ended without `finished`");
    epochs
}

fn read_all(streams: Vec<Streaming<pb::TrainEvent>>) -> JoinSet<i32> {
    streams.into_iter().map(count_epochs).collect()
}

async fn all_saw(mut watchers: JoinSet<i32>, epochs: usize) {
    while let Some(seen) = watchers.join_next().await {
        assert_eq!(seen.unwrap(), epochs as i32);
    }
}

/// Trains with that many watchers besides, half of them stalled until the job is over: how long the training took.
async fn train_watched(process: &Process, api: &Api, request: &pb::TrainRequest, count: usize) -> Duration {
    let epochs = request.epochs.unwrap() as usize;
    let (job_id, events) = api.start(request.clone()).await;
    drop(events);
    let stalled = watchers(process.address, &job_id, count / 2, Some(SMALL_WINDOW)).await;
    let reading = read_all(watchers(process.address, &job_id, count - count / 2, None).await);
    while api.job(&job_id).await.end_time.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    all_saw(reading, epochs).await;
    all_saw(read_all(stalled), epochs).await;
    api.trained_for(&job_id).await
}

/// A stream that nobody reads from is not polled: what it was about to read must not be kept from others.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_stand_still_hold_up_no_other_one() {
    let (folder, epochs) = (tempfile::tempdir().unwrap(), 20_000);
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 2)).await;
    let job_id = api.train(pb::TrainRequest { epochs: Some(epochs), ..truth_table("xor", XOR) }).await.job_id;
    process.kill();

    // The reports are in the store alone now.
    let process = Process::serve(folder.path(), &[]);
    let stalled = watchers(process.address, &job_id, 40, Some(SMALL_WINDOW)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let healthy = watchers(process.address, &job_id, 1, None).await.remove(0);
    let seen = tokio::time::timeout(Duration::from_secs(60), count_epochs(healthy)).await;
    assert_eq!(seen.expect("it waits for those that stand still"), epochs);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_see_every_epoch_and_hardly_slow_the_training() {
    let count = size("EPOCHD_WATCHERS", 40);
    let epochs = size("EPOCHD_WATCHED_EPOCHS", 2_000);
    let is_full = count >= FULL;
    let (pairs, epoch) = if is_full { (3, Duration::from_millis(5)) } else { (1, Duration::from_micros(500)) };
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    api.create(xor_model("xor", 8)).await;
    let request = training_on(rows_for(&api, epoch).await, epochs);

    println!("{count} watchers, {epochs} epochs, {}", build());
    let (mut ratios, mut growth) = (Vec::new(), 0);
    for _ in 0..pairs {
        let alone = train_watched(&process, &api, &request, 0).await;
        let before = Held::by(process.id());
        let watched = train_watched(&process, &api, &request, count).await;
        let after = Held::by(process.id());
        ratios.push(watched.as_secs_f64() / alone.as_secs_f64());
        growth = growth.max(after.peak.saturating_sub(before.resident));
        println!(
            "alone {alone:.2?}, watched {watched:.2?}; resident {:.1} MiB before, {:.1} MiB at the peak, {:.1} MiB after",
            mib(before.resident),
            mib(after.peak),
            mib(after.resident),
        );
    }
    let ratio = median(ratios);
    println!("slow-down by the median {ratio:.3}; memory grew by at most {:.1} MiB", mib(growth));
    if is_full {
        let growth_max = BYTES_PER_WATCHER_MAX * count as u64 + BYTES_BESIDES_MAX;
        assert!(growth < growth_max, "{:.1} MiB for {count} watchers", mib(growth));
        assert!(ratio < SLOW_DOWN_MAX, "watchers slow a training by {ratio:.3}");
    }
}
