//! Every epoch, once, in order, to every watcher, however late or slow.

use std::time::Duration;

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::*;

const EPOCHS: i32 = 5_000;

fn long(model_id: &str) -> pb::TrainRequest {
    pb::TrainRequest { epochs: Some(EPOCHS), ..truth_table(model_id, XOR) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_gets_every_epoch_once_and_in_order() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let (job_id, events) = api.start(long("xor")).await;
    // Twenty connections of their own, half of which come while it trains, and one of which reads a message a second.
    let mut watchers = JoinSet::new();
    for number in 0..20_u64 {
        let (address, job_id) = (server.address, job_id.clone());
        watchers.spawn(async move {
            let mut events = Api::connect(address).await.watch(&job_id, None).await.unwrap();
            let mut epochs = Vec::new();
            while let Some(event) = events.message().await.unwrap() {
                if let Some(pb::train_event::Event::Epochs(batch)) = event.event {
                    epochs.extend(batch.reports.into_iter().map(|report| report.epoch));
                }
                if number == 0 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            epochs
        });
    }
    let expected: Vec<i32> = (1..=EPOCHS).collect();
    assert_eq!(read(events).await.epochs(), expected);
    while let Some(epochs) = watchers.join_next().await {
        assert_eq!(epochs.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_does_not_slow_the_training() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    // This stream is not read before the job has ended.
    let (job_id, unread) = api.start(long("xor")).await;
    assert_eq!(read(api.watch(&job_id, None).await.unwrap()).await.finished.state(), JobState::Succeeded);
    assert_eq!(read(unread).await.epochs(), (1..=EPOCHS).collect::<Vec<i32>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_may_begin_at_any_epoch_of_a_running_or_finished_job() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let told = api.train(long("xor")).await;
    // 1,024 reports lie in a chunk: both sides of its border, and both ends.
    for from_epoch in [1, 2, 1_024, 1_025, 1_026, EPOCHS, EPOCHS + 1] {
        let later = read(api.watch(&told.job_id, Some(from_epoch)).await.unwrap()).await;
        assert_eq!(later.reports, told.reports[from_epoch as usize - 1..], "from {from_epoch}");
        assert_eq!((later.started, later.queued), (told.started.clone(), false));
    }
    let (job_id, mut events) = api.start(endless("xor")).await;
    while next_reports(&mut events).await.last().unwrap().epoch < 3 {}
    let mut later = api.watch(&job_id, Some(3)).await.unwrap();
    assert_eq!(next_reports(&mut later).await[0].epoch, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_come_every_so_many_epochs_and_the_last_one_always() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let request = pb::TrainRequest { epochs: Some(25), report_every: Some(10), ..truth_table("xor", XOR) };
    let told = api.train(request).await;
    assert_eq!(told.epochs(), [10, 20, 25]);
    let later = read(api.watch(&told.job_id, Some(11)).await.unwrap()).await;
    assert_eq!(later.epochs(), [20, 25]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_there_and_an_id_that_is_none_are_told_apart() {
    let server = Server::start();
    let api = server.api().await;
    let unknown = "01a20f80-a321-7279-a1ee-1710f302d098";
    refused(api.watch(unknown, None).await, Code::NotFound, unknown);
    refused(api.watch("xor", None).await, Code::InvalidArgument, "job_id");
    api.create(xor_model("xor", 2)).await;
    let told = api.train(truth_table("xor", XOR)).await;
    refused(api.watch(&told.job_id, Some(0)).await, Code::InvalidArgument, "from_epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_ahead_of_a_running_job_hears_from_its_epoch_on() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (job_id, mut events) = api.start(pb::TrainRequest { epochs: Some(1_000_000), ..truth_table("xor", XOR) }).await;
    let now = next_reports(&mut events).await.last().unwrap().epoch;
    // Some chunks of reports ahead, and in the middle of one.
    let from = now + 5_000;
    let mut ahead = api.watch(&job_id, Some(from)).await.unwrap();
    let mut epochs: Vec<i32> = Vec::new();
    while epochs.len() < 3_000 {
        epochs.extend(next_reports(&mut ahead).await.iter().map(|report| report.epoch));
    }
    assert_eq!(epochs, (from..from + epochs.len() as i32).collect::<Vec<_>>());
}
