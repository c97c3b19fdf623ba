//! What is kept of what is over, as callers see it; and what they see of damage.

use std::net::IpAddr;
use std::path::Path;

use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use epochd::rpc::pb::model_service_client::ModelServiceClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::support::*;

fn pin(model_id: &str, version: i32, pinned: Option<bool>) -> pb::PinVersionRequest {
    pb::PinVersionRequest { model_id: model_id.into(), version, pinned }
}

/// Commits the latest weights again.
async fn set_again(api: &Api, model_id: &str) -> i32 {
    let weights = api.models.clone().get_weights(get_weights(model_id)).await.unwrap().into_inner();
    let request = pb::SetWeightsRequest { model_id: model_id.into(), layers: weights.layers };
    api.models.clone().set_weights(request).await.unwrap().into_inner().version
}

async fn versions(api: &Api, model_id: &str) -> Vec<i32> {
    let request = pb::ListVersionsRequest { model_id: model_id.into(), ..Default::default() };
    let answer = api.models.clone().list_versions(request).await.unwrap().into_inner();
    answer.versions.iter().map(|version| version.version).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_given_back_but_for_those_pinned_or_served() {
    let server = Server::with(RawConfig { versions_per_model: 2, ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    let mut models = api.models.clone();
    for version in 2..=4 {
        assert_eq!(set_again(&api, "xor").await, version);
    }
    assert_eq!(versions(&api, "xor").await, [1, 3, 4]);
    let pinned = models.pin_version(pin("xor", 3, None)).await.unwrap().into_inner();
    assert_eq!(pinned.pinned_versions, [3]);
    let serve = |version| pb::SetServingVersionRequest { model_id: "xor".into(), version };
    models.set_serving_version(serve(Some(4))).await.unwrap();
    let ask = pb::PredictRequest { version: Some(4), ..predict("xor", corners()) };
    let before = models.predict(ask.clone()).await.unwrap().into_inner();
    for _ in 0..3 {
        set_again(&api, "xor").await;
    }
    assert_eq!(versions(&api, "xor").await, [1, 3, 4, 6, 7]);
    assert_eq!(models.predict(predict("xor", corners())).await.unwrap().into_inner().outputs, before.outputs);

    // What was in memory for predictions is gone with its version.
    models.set_serving_version(serve(None)).await.unwrap();
    set_again(&api, "xor").await;
    assert_eq!(versions(&api, "xor").await, [1, 3, 7, 8]);
    refused(models.predict(ask).await, Code::NotFound, "given back");
    refused(models.pin_version(pin("xor", 4, None)).await, Code::NotFound, "has no version 4");
    refused(models.set_serving_version(serve(Some(4))).await, Code::NotFound, "has no version 4");
    models.pin_version(pin("xor", 3, Some(false))).await.unwrap();
    set_again(&api, "xor").await;
    assert_eq!(versions(&api, "xor").await, [1, 8, 9]);

    // The initial weights are there for whoever trains from them.
    let mut request = truth_table("xor", XOR);
    request.start = pb::TrainingStart::Initial.into();
    let told = api.train(request).await;
    assert_eq!(told.finished.state(), JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_are_refused_in_words() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    let mut models = api.models.clone();
    let zero = models.pin_version(pin("xor", 0, None)).await.unwrap_err();
    assert_eq!(fields(&zero), ["version"]);
    refused(models.pin_version(pin("xor", 9, None)).await, Code::NotFound, "its latest is 1");
    refused(models.pin_version(pin("nobody", 1, None)).await, Code::NotFound, "nobody");
    // What is not pinned is not pinned afterwards either.
    let model = models.pin_version(pin("xor", 1, Some(false))).await.unwrap().into_inner();
    assert_eq!(model.pinned_versions, [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_past_the_bound_are_gone_with_their_histories_and_the_newest_are_there() {
    let server = Server::with(RawConfig { finished_jobs: 3, ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    let mut jobs = Vec::new();
    for index in 0..9 {
        let mut request = truth_table("xor", XOR);
        (request.epochs, request.request_id) = (Some(2), format!("request {index}"));
        jobs.push(api.train(request).await.job_id);
    }
    refused(api.jobs.clone().get_job(get_job(&jobs[0])).await, Code::NotFound, "no job");
    refused(api.watch(&jobs[0], None).await.map(drop), Code::NotFound, "no job");
    assert_eq!(read(api.watch(&jobs[8], None).await.unwrap()).await.epochs(), [1, 2]);
    let listed = api.jobs.clone().list_jobs(pb::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
    assert!((3..=6).contains(&listed.len()), "{}", listed.len());
    assert!(listed.iter().zip(jobs.iter().rev()).all(|(listed, job_id)| listed.job_id == *job_id));
    // Its request id is free again: the same request is another job.
    let mut request = truth_table("xor", XOR);
    (request.epochs, request.request_id) = (Some(2), "request 0".into());
    assert_ne!(api.train(request).await.job_id, jobs[0]);
}

/// However few of them end while a process lives.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_past_a_lowered_bound_are_given_back_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let raw = RawConfig { data_dir: folder.path().to_owned(), ..Server::raw() };
    let server = Server::with(raw.clone());
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(api.train(pb::TrainRequest { epochs: Some(2), ..truth_table("xor", XOR) }).await.job_id);
    }
    server.stop().await;
    let server = Server::with(RawConfig { finished_jobs: 2, ..raw });
    let api = server.api().await;
    // It serves before the pass is over.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let listed = api.jobs.clone().list_jobs(pb::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
        let kept: Vec<&str> = listed.iter().map(|job| job.job_id.as_str()).collect();
        if kept == [&jobs[4], &jobs[3]] {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{kept:?} of {jobs:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_full_by_its_bound_refuses_what_would_add_to_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    // A network of this width has a megabyte, and its training is promised seven.
    let raw = RawConfig { disk_bytes_max: Some(12 << 20), data_dir: folder.path().to_owned(), ..Server::raw() };
    let server = Server::with(raw.clone());
    let api = server.api().await;
    let wide = |model_id: &str| model(model_id, 1_000, &[(256, pb::Activation::Tanh), (1, pb::Activation::Sigmoid)]);
    let mut count = 0;
    let refusal = loop {
        match api.models.clone().create_model(wide(&format!("m-{count}"))).await {
            Ok(_) => count += 1,
            Err(refusal) => break refusal,
        }
        assert!(count < 13, "thirteen megabytes are in a folder of twelve");
    };
    assert!(count > 6, "{refusal:?}");
    refused::<()>(Err(refusal), Code::ResourceExhausted, "--disk-bytes-max");
    let rows = pb::Matrix { rows: Some(2), columns: Some(1_000), ..values(&vec![0.5; 2_000]) };
    let training = || pb::TrainRequest {
        model_id: "m-0".into(),
        inputs: Some(rows.clone()),
        targets: Some(values(&[0.0, 1.0])),
        epochs: Some(1),
        optimizer: sgd(0.1, 0.0),
        ..Default::default()
    };
    refused(api.models.clone().train(training()).await.map(drop), Code::ResourceExhausted, "--disk-bytes-max");
    let weights = api.models.clone().get_weights(get_weights("m-0")).await.unwrap().into_inner();
    let set = pb::SetWeightsRequest { model_id: "m-0".into(), layers: weights.layers };
    refused(api.models.clone().set_weights(set).await, Code::ResourceExhausted, "--disk-bytes-max");
    api.models.clone().predict(predict("m-0", rows.clone())).await.unwrap();

    // What is there counts after a start, too; and what is deleted makes room.
    server.stop().await;
    let server = Server::with(raw);
    let api = server.api().await;
    refused(api.models.clone().create_model(wide("late")).await, Code::ResourceExhausted, "--disk-bytes-max");
    for index in 1..count {
        let request = pb::DeleteModelRequest { model_id: format!("m-{index}") };
        api.models.clone().delete_model(request).await.unwrap();
    }
    api.create(wide("late")).await;
    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: "late".into() }).await.unwrap();
    assert_eq!(api.train(training()).await.finished.state(), JobState::Succeeded);
}

/// Flips a bit in the middle of each place in the record file where `needle` stands.
fn damage(folder: &Path, needle: &[u8]) {
    let path = folder.join("records.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..=bytes.len() - needle.len()).filter(|&at| bytes[at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + needle.len() / 2] ^= 1);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_model_is_listed_as_unreachable_and_can_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    let labels = [("needle".to_owned(), "of the damaged model".to_owned())].into();
    api.create(pb::CreateModelRequest { labels, ..xor_model("bad", 2) }).await;
    api.create(xor_model("good", 2)).await;
    server.stop().await;
    damage(folder.path(), b"of the damaged model");

    let server = Server::over(folder.path());
    let api = server.api().await;
    refused(api.models.clone().get_model(get_model("bad")).await, Code::DataLoss, "model");
    let page = api.models.clone().list_models(pb::ListModelsRequest::default()).await.unwrap().into_inner();
    assert_eq!(page.models.iter().map(|model| model.model_id.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(page.unreachable, ["bad"]);
    let url = format!("http://{}", server.address);
    let output = tokio::task::spawn_blocking(move || run(Path::new("."), &["models", "--server", &url])).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("good"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("damaged: bad"));

    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: "bad".into() }).await.unwrap();
    api.create(xor_model("bad", 2)).await;
    let page = api.models.clone().list_models(pb::ListModelsRequest::default()).await.unwrap().into_inner();
    assert_eq!((page.models.len(), page.unreachable.len()), (2, 0));
}

/// Callers are told apart by their addresses; every address of 127.0.0.0/8 is this machine on Linux.
#[cfg(target_os = "linux")]
async fn models_from(server: &Server, address: &str) -> ModelServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.local_address(Some(address.parse::<IpAddr>().unwrap()));
    ModelServiceClient::new(endpoint.connect().await.unwrap())
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_all_places_it_gets_leaves_some_to_others() {
    let server = Server::with(RawConfig { queued_jobs_max: 8, ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let mut jobs = Vec::new();
    for _ in 0..6 {
        jobs.push(api.start(endless("xor")).await.0);
    }
    for part in ["6 jobs from your address", "the 8 ", "--queued-jobs-max"] {
        refused(api.models.clone().train(endless("xor")).await, Code::ResourceExhausted, part);
    }
    let _other = models_from(&server, "127.0.0.2").await.train(endless("xor")).await.unwrap();
    api.jobs.clone().cancel_job(cancel(&jobs[5], false)).await.unwrap();
    // Five of the seven that are taken: there are three free ones for each two.
    api.start(endless("xor")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_many_jobs_takes_no_more_of_the_threads_than_one_with_a_single_job() {
    let server = Server::with(RawConfig { train_threads: Some(1), ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    let mut many = Vec::new();
    for index in 0..6 {
        let model_id = format!("many-{index}");
        api.create(xor_model(&model_id, 4)).await;
        many.push(api.start(endless(&model_id)).await.0);
    }
    api.create(xor_model("one", 4)).await;
    let mut models = models_from(&server, "127.0.0.2").await;
    let mut events = models.train(endless("one")).await.unwrap().into_inner();
    next_reports(&mut events).await;
    let epochs = async |job_id: &str| api.job(job_id).await.last_report.map_or(0, |report| report.epoch);
    let one = api.model("one").await.active_job_id;
    // Once each of the six has had its turn, the one has had as many turns as all of them. Taken one by one it had one.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let mut of_many = Vec::new();
        for job_id in &many {
            of_many.push(epochs(job_id).await);
        }
        let of_one = epochs(&one).await;
        if of_many.iter().all(|&epochs| epochs > 0 && epochs * 2 < of_one) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{of_one} epochs against {of_many:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
