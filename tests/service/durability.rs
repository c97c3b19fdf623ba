//! What was acknowledged is there after a `kill -9`.

use std::time::{Duration, Instant};

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use epochd::rpc::pb::train_event::Event;
use tonic::Code;

use crate::support::*;

/// Everything that lists tell, and the weights of every version.
pub(crate) async fn everything(api: &Api) -> (Vec<pb::Model>, Vec<pb::Job>, Vec<(Vec<pb::Version>, Vec<pb::Weights>)>) {
    let models = api.models.clone().list_models(pb::ListModelsRequest::default()).await.unwrap().into_inner().models;
    let jobs = api.jobs.clone().list_jobs(pb::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    let mut versions = Vec::new();
    for model in &models {
        let request = pb::ListVersionsRequest { model_id: model.model_id.clone(), ..Default::default() };
        let listed = api.models.clone().list_versions(request).await.unwrap().into_inner().versions;
        let mut weights = Vec::new();
        for version in &listed {
            let request = pb::GetWeightsRequest { version: Some(version.version), ..get_weights(&model.model_id) };
            weights.push(api.models.clone().get_weights(request).await.unwrap().into_inner());
        }
        versions.push((listed, weights));
    }
    (models, jobs, versions)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_the_same_models_versions_and_finished_jobs_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    for model_id in ["kept", "deleted", "set"] {
        api.create(xor_model(model_id, 4)).await;
    }
    let told = api.train(truth_table("kept", XOR)).await;
    let weights = api.models.clone().get_weights(get_weights("kept")).await.unwrap().into_inner();
    let request = pb::SetWeightsRequest { model_id: "set".into(), layers: weights.layers };
    api.models.clone().set_weights(request).await.unwrap();
    let cancelled = {
        let (job_id, mut events) = api.start(endless("set")).await;
        next_reports(&mut events).await;
        api.jobs.clone().cancel_job(cancel(&job_id, true)).await.unwrap();
        read(events).await
    };
    let before = everything(&api).await;
    // The last answer before the kill.
    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: "deleted".into() }).await.unwrap();
    process.kill();

    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    refused(api.models.clone().get_model(get_model("deleted")).await, Code::NotFound, "deleted");
    api.create(xor_model("deleted", 4)).await;
    let after = everything(&api).await;
    let undated = |models: &[pb::Model]| models.iter().map(|it| it.model_id.clone()).collect::<Vec<_>>();
    assert_eq!(undated(&after.0), undated(&before.0));
    assert_eq!(after.0[1..], before.0[1..]);
    assert_eq!((&after.1, &after.2[1..]), (&before.1, &before.2[1..]));
    for job in [told, cancelled] {
        let later = read(api.watch(&job.job_id, None).await.unwrap()).await;
        assert_eq!(later.finished, job.finished);
        assert!(later.reports.ends_with(&job.reports) && later.reports[0].epoch == 1);
    }
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _process = Process::serve(&data, &[]);
    let second = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("in use by another epochd") && said.contains("--data-dir"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_outlives_the_server_and_memory_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for expected in [Code::NotFound, Code::Ok] {
        let server = Server::over(folder.path());
        let api = server.api().await;
        let found = api.models.clone().get_model(get_model("xor")).await;
        assert_eq!(found.err().map_or(Code::Ok, |status| status.code()), expected);
        if expected == Code::NotFound {
            api.create(xor_model("xor", 2)).await;
        }
        server.stop().await;
    }
    let ephemeral = Server::start();
    refused(ephemeral.api().await.models.get_model(get_model("xor")).await, Code::NotFound, "xor");
}

/// The folder of weights is gone for a while, as a disk may be: nothing is told before it is stored, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_end_cannot_be_stored_goes_on_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (job_id, mut events) = api.start(pb::TrainRequest { epochs: Some(200_000), ..truth_table("xor", XOR) }).await;
    let (blobs, away) = (folder.path().join("blobs"), folder.path().join("away"));
    let first = next_reports(&mut events).await.last().unwrap().epoch;
    std::fs::rename(&blobs, &away).unwrap();
    let mut epochs: Vec<i32> = Vec::new();
    while epochs.last() != Some(&200_000) {
        epochs.extend(next_reports(&mut events).await.iter().map(|report| report.epoch));
    }
    assert_eq!(epochs, (first + 1..=200_000).collect::<Vec<_>>());
    // Everybody hears the same: it runs.
    assert_eq!(api.job(&job_id).await.state(), JobState::Running);
    assert_eq!(api.model("xor").await.active_job_id, job_id);
    std::fs::rename(&away, &blobs).unwrap();
    let told = read(events).await;
    assert_eq!((told.finished.state(), told.finished.version), (JobState::Succeeded, 2));
    assert_eq!(api.job(&job_id).await.state(), JobState::Succeeded);
    let later = read(api.watch(&job_id, None).await.unwrap()).await;
    assert_eq!(later.epochs(), (1..=200_000).collect::<Vec<_>>());
}

/// A job whose turn comes meanwhile waits: what cannot be reached is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_begin_for_a_while_begins_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (running, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let (waiting, _events) = api.start(truth_table("xor", XOR)).await;
    let (blobs, away) = (folder.path().join("blobs"), folder.path().join("away"));
    std::fs::rename(&blobs, &away).unwrap();
    api.jobs.clone().cancel_job(cancel(&running, false)).await.unwrap();
    // Some attempts: the first come after 0.1, 0.2 and 0.4 seconds.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(api.job(&waiting).await.state(), JobState::Queued);
    std::fs::rename(&away, &blobs).unwrap();
    let told = read(api.watch(&waiting, None).await.unwrap()).await;
    assert_eq!((told.finished.state(), told.finished.version), (JobState::Succeeded, 2));
}

/// A folder in the place of the checkpoint stands for a disk that cannot be read for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_a_checkpoint_that_cannot_be_read_now() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let often = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let (job_id, _events) = api.start(pb::TrainRequest { checkpoint_interval: often, ..endless("xor") }).await;
    while api.job(&job_id).await.checkpoint_epoch == 0 {
        tokio::task::yield_now().await;
    }
    process.kill();
    let (checkpoint, away) = (folder.path().join(format!("blobs/{job_id}.checkpoint")), folder.path().join("away"));
    std::fs::rename(&checkpoint, &away).unwrap();
    std::fs::create_dir(&checkpoint).unwrap();

    let process = Process::serve(folder.path(), &["--drain-seconds", "0"]);
    let api = process.api().await;
    let mut events = api.watch(&job_id, None).await.unwrap();
    while api.job(&job_id).await.attempt == 1 {
        tokio::task::yield_now().await;
    }
    // It does not begin anew as long as the disk may be back soon: several tries come in this time.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(api.job(&job_id).await.state(), JobState::Queued);
    }
    std::fs::remove_dir(&checkpoint).unwrap();
    std::fs::rename(&away, &checkpoint).unwrap();
    next(&mut events, |event| matches!(event, Event::Started(_)).then_some(())).await;
    signal(process.id(), "TERM");
    let (_, log) = process.wait();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let started: Vec<_> = lines.filter(|line| line["message"] == "job started").collect();
    assert!(log.contains("the job cannot begin; it is tried again"), "{log}");
    assert!(started.len() == 1 && started[0]["epochs_done"].as_u64() > Some(0), "{started:?}");
}

/// It needs nothing of what it was to train with.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_data_cannot_be_read_now_is_cancelled_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let (job_id, mut events) = api.start(endless("xor")).await;
    let told = next_reports(&mut events).await.len() as u64;
    process.kill();
    let rows = folder.path().join(format!("blobs/{job_id}.rows"));
    std::fs::remove_file(&rows).unwrap();
    std::fs::create_dir(&rows).unwrap();

    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    while api.job(&job_id).await.attempt == 1 {
        tokio::task::yield_now().await;
    }
    let job = api.jobs.clone().cancel_job(cancel(&job_id, false)).await.unwrap().into_inner();
    assert_eq!(job.state(), JobState::Cancelled);
    assert!(told > 0 && job.end_time.is_some());
}
