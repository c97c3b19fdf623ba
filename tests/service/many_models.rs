//! Many models in one folder: how soon a server starts over them, and what it holds. EPOCHD_MODELS=10000 is the whole of it.

use std::path::Path;
use std::time::{Duration, Instant};

use epochd::rpc::pb;
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::*;

const FULL: usize = 10_000;
const CLIENTS: usize = 16;
const STARTS: usize = 5;
const PAGES: usize = 11;
/// Of the whole size: the records' cache of 8 MiB, and a kilobyte or three for the network of each small model.
const RESIDENT_MAX: u64 = 128 << 20;

fn model_id(number: usize) -> String {
    format!("model-{number:06}")
}

/// Has concurrent clients do something with each model.
async fn with_each_model<F>(process: &Process, count: usize, work: impl Fn(Api, String) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let api = process.api().await;
        clients.spawn(async move {
            for number in (client..count).step_by(CLIENTS) {
                work(api.clone(), model_id(number)).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

async fn is_serving(api: &Api) -> bool {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(api.channel.clone()).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

/// Starts a server: the time from before its process was made until health said SERVING.
async fn start(folder: &Path) -> (Process, Duration) {
    let begun = Instant::now();
    let process = Process::serve(folder, &[]);
    let api = process.api().await;
    while !is_serving(&api).await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (process, begun.elapsed())
}

async fn stop(process: Process) {
    signal(process.id(), "TERM");
    assert!(process.wait().0.success());
}

async fn page(api: &Api, size: usize, token: &str) -> pb::ListModelsResponse {
    let request = pb::ListModelsRequest { page_size: size as i32, page_token: token.into() };
    api.models.clone().list_models(request).await.unwrap().into_inner()
}

/// The names on all pages of a size, and the token of the page in the middle.
async fn all_pages(api: &Api, size: usize) -> (Vec<String>, String) {
    let (mut names, mut tokens) = (Vec::new(), vec![String::new()]);
    loop {
        let answer = page(api, size, tokens.last().unwrap()).await;
        names.extend(answer.models.into_iter().map(|model| model.model_id));
        if answer.next_page_token.is_empty() {
            return (names, tokens.swap_remove(tokens.len() / 2));
        }
        tokens.push(answer.next_page_token);
    }
}

/// The time of a page in the middle; every page of this size is listed first.
async fn page_time(api: &Api, size: usize, count: usize) -> Duration {
    let (names, middle) = all_pages(api, size).await;
    assert_eq!(names, (0..count).map(model_id).collect::<Vec<_>>());
    let mut times = Vec::new();
    for _ in 0..PAGES {
        let begun = Instant::now();
        page(api, size, &middle).await;
        times.push(begun.elapsed());
    }
    median(times)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_and_lists_over_many_models_in_bounded_memory() {
    let count = size("EPOCHD_MODELS", 200);
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    with_each_model(&process, count, |api, name| async move { drop(api.create(xor_model(&name, 8)).await) }).await;
    stop(process).await;

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (process, time) = start(folder.path()).await;
        starts.push(time);
        stop(process).await;
    }
    // The records are written once more then.
    let mut starts_after_a_kill = Vec::new();
    start(folder.path()).await.0.kill();
    for _ in 0..STARTS {
        let (process, time) = start(folder.path()).await;
        starts_after_a_kill.push(time);
        process.kill();
    }
    let (process, _) = start(folder.path()).await;
    let api = process.api().await;
    let at_start = Held::by(process.id());
    let small_page = page_time(&api, 50, count).await;
    let large_page = page_time(&api, 1_000, count).await;
    let listed = Held::by(process.id());
    let ask = |api: Api, name: String| async move { assert_eq!(api.outputs(&name, corners()).await.len(), 4) };
    with_each_model(&process, count, ask).await;
    let predicted = Held::by(process.id());

    println!("{count} models, {}: starts to SERVING {starts:.1?}, after a kill {starts_after_a_kill:.1?}", build());
    let (start, after_a_kill) = (median(starts), median(starts_after_a_kill));
    println!(
        "SERVING after {:.1} ms, after a kill {:.1} ms; a page of 50 {:.2} ms, of 1,000 {:.2} ms; resident {:.1} MiB at start, {:.1} MiB after \
         listing all, {:.1} MiB after predicting on all; records.redb {:.1} MiB",
        millis(start),
        millis(after_a_kill),
        millis(small_page),
        millis(large_page),
        mib(at_start.resident),
        mib(listed.resident),
        mib(predicted.resident),
        mib(bytes_in(&folder.path().join("records.redb"))),
    );
    if count >= FULL {
        let slower = start.max(after_a_kill);
        assert!(slower < Duration::from_millis(200), "SERVING only after {slower:?}");
        assert!(small_page < Duration::from_millis(10), "a page of 50 took {small_page:?}");
        assert!(predicted.peak < RESIDENT_MAX, "{:.1} MiB were resident", mib(predicted.peak));
    }
}
