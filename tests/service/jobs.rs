//! Who trains when, and how jobs end before their last epoch.

use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use epochd::rpc::pb::{JobState, StopReason};
use tonic::Code;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_model_run_one_after_another_in_order() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (first, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let (second, mut waiting) = api.start(truth_table("xor", XOR)).await;
    let place = next(&mut waiting, |event| if let Event::Queued(it) = event { Some(it) } else { None }).await;
    assert_eq!(place.jobs_ahead, Some(1));
    assert_eq!(api.model("xor").await.active_job_id, first);
    api.jobs.clone().cancel_job(cancel(&first, true)).await.unwrap();
    let told = read(waiting).await;
    let (first, second) = (api.job(&first).await, api.job(&second).await);
    assert!(first.end_time.unwrap().nanos_since_epoch() <= second.start_time.unwrap().nanos_since_epoch());
    // The second began from what the first left.
    assert_eq!((first.version, told.started.unwrap().base_version, told.finished.version), (2, 2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_models_run_at_once() {
    let server = Server::start();
    let api = server.api().await;
    let mut streams = Vec::new();
    for model_id in ["a", "b"] {
        api.create(xor_model(model_id, 4)).await;
        streams.push(api.start(endless(model_id)).await.1);
    }
    // Each has begun, and neither has ended: neither ever does.
    for events in &mut streams {
        assert_eq!(next_reports(events).await[0].epoch, 1);
    }
    let running = pb::ListJobsRequest { state: JobState::Running.into(), ..Default::default() };
    assert_eq!(api.jobs.clone().list_jobs(running).await.unwrap().into_inner().jobs.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_job_ends_while_two_long_ones_hold_both_threads() {
    let server = Server::start();
    let api = server.api().await;
    for model_id in ["long-1", "long-2", "short"] {
        api.create(xor_model(model_id, 4)).await;
    }
    let (mut first, mut second) = (api.start(endless("long-1")).await.1, api.start(endless("long-2")).await.1);
    let mut last = 0;
    for events in [&mut first, &mut second] {
        last = last.max(next_reports(events).await[0].epoch);
    }
    let told = api.train(truth_table("short", XOR)).await;
    assert_eq!(told.finished.state(), JobState::Succeeded);
    // Both go on after it.
    for events in [&mut first, &mut second] {
        while next_reports(events).await.last().unwrap().epoch <= last {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_keeps_its_last_whole_epoch_only_when_asked() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    for (commit, version) in [(false, 0), (true, 2)] {
        let (job_id, mut events) = api.start(endless("xor")).await;
        next_reports(&mut events).await;
        let job = api.jobs.clone().cancel_job(cancel(&job_id, commit)).await.unwrap().into_inner();
        assert_eq!((job.state(), job.stop_reason()), (JobState::Cancelled, StopReason::Cancelled));
        assert_eq!(job.version, version);
        let told = read(events).await;
        assert_eq!(told.finished.state(), JobState::Cancelled);
        assert_eq!(told.finished.version, version);
        // Cancelling what has ended changes nothing.
        let again = api.jobs.clone().cancel_job(cancel(&job_id, true)).await.unwrap().into_inner();
        assert_eq!(again, job);
    }
    assert_eq!(api.model("xor").await.latest_version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_is_cancelled_at_once() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (first, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let (second, waiting) = api.start(truth_table("xor", XOR)).await;
    let job = api.jobs.clone().cancel_job(cancel(&second, true)).await.unwrap().into_inner();
    assert_eq!((job.state(), job.version, job.start_time), (JobState::Cancelled, 0, None));
    let told = read(waiting).await;
    assert!(told.started.is_none() && told.reports.is_empty());
    assert_eq!(api.job(&first).await.state(), JobState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_model_cancels_its_jobs_and_frees_its_name() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (first, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let (second, waiting) = api.start(endless("xor")).await;
    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: "xor".into() }).await.unwrap();
    for stream in [events, waiting] {
        assert_eq!(read(stream).await.finished.state(), JobState::Cancelled);
    }
    for job_id in [first, second] {
        assert_eq!(api.job(&job_id).await.state(), JobState::Cancelled);
    }
    refused(api.models.clone().get_model(get_model("xor")).await, Code::NotFound, "xor");
    let model = api.create(xor_model("xor", 2)).await;
    assert_eq!(model.latest_version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_its_job_running_unless_it_said_otherwise() {
    let server = Server::start();
    let api = server.api().await;
    for (model_id, cancel_on_disconnect) in [("stays", false), ("goes", true)] {
        api.create(xor_model(model_id, 4)).await;
        let request = pb::TrainRequest { cancel_on_disconnect, ..endless(model_id) };
        let (job_id, mut events) = api.start(request).await;
        next_reports(&mut events).await;
        drop(events);
        let mut watcher = api.watch(&job_id, None).await.unwrap();
        if cancel_on_disconnect {
            assert_eq!(read(watcher).await.finished.state(), JobState::Cancelled);
        } else {
            let seen = next_reports(&mut watcher).await.last().unwrap().epoch;
            while next_reports(&mut watcher).await.last().unwrap().epoch <= seen + 10 {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_id_follows_the_same_job_and_another_request_with_it_is_refused() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let request = pb::TrainRequest { request_id: "nightly-7".into(), ..truth_table("xor", XOR) };
    let first = api.train(request.clone()).await;
    let again = api.train(request.clone()).await;
    assert_eq!(first.job_id, again.job_id);
    assert_eq!(first.reports, again.reports);
    let other = pb::TrainRequest { epochs: Some(3), ..request.clone() };
    let status = api.models.clone().train(other).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["request_id".to_owned()]));
    assert_eq!(api.model("xor").await.latest_version, 2);
    // What was accepted stays so, also when its model is gone.
    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: "xor".into() }).await.unwrap();
    assert_eq!(api.train(request).await.job_id, first.job_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_with_its_bound() {
    let server =
        Server::with(RawConfig { queued_jobs_max: 3, queued_jobs_per_model_max: 2, ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("a", 4)).await;
    api.create(xor_model("b", 4)).await;
    for model_id in ["a", "a"] {
        api.start(endless(model_id)).await;
    }
    refused(api.models.clone().train(endless("a")).await, Code::ResourceExhausted, "2");
    api.start(endless("b")).await;
    refused(api.models.clone().train(endless("b")).await, Code::ResourceExhausted, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_past_the_memory_bound_is_refused_with_the_bound() {
    let raw = RawConfig { training_bytes_max: 100_000, ephemeral: true, ..Server::raw() };
    let server = Server::with(raw);
    let api = server.api().await;
    api.create(xor_model("small", 4)).await;
    api.create(xor_model("wide", 10_000)).await;
    refused(api.models.clone().train(truth_table("wide", XOR)).await, Code::ResourceExhausted, "100000");
    assert_eq!(api.train(truth_table("small", XOR)).await.finished.state(), JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_diverges_fails_says_at_which_epoch_and_leaves_the_last_version() {
    let server = Server::start();
    let api = server.api().await;
    api.create(model("line", 1, &[(1, pb::Activation::Identity)])).await;
    let request = pb::TrainRequest {
        model_id: "line".into(),
        inputs: Some(values(&[1.0, 2.0, 3.0, 4.0])),
        targets: Some(values(&[1e3, 2e3, 3e3, 4e3])),
        optimizer: sgd(1e6, 0.0),
        ..Default::default()
    };
    let told = api.train(request).await;
    assert_eq!((told.finished.state(), told.finished.stop_reason()), (JobState::Failed, StopReason::Diverged));
    let failure = told.finished.failure.clone().unwrap();
    assert_eq!(failure.code, Code::FailedPrecondition as i32);
    assert!(failure.message.contains("epoch"), "{}", failure.message);
    assert_eq!(api.model("line").await.latest_version, 1);
    let later = read(api.watch(&told.job_id, None).await.unwrap()).await;
    assert_eq!((later.finished, later.reports), (told.finished, told.reports));
}

/// Timestamps in the order of time.
trait InTime {
    fn nanos_since_epoch(&self) -> i128;
}

impl InTime for prost_types::Timestamp {
    fn nanos_since_epoch(&self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}
