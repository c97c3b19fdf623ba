//! A disk that takes no byte more, under a real server: what writes is refused in words, all else goes on, and service returns
//! with the disk, in the same process.

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tonic::Code;

use crate::support::*;

/// Epochs that take longer than the calls meanwhile, and end soon after; of their reports all can wait in memory.
const EPOCHS: i32 = 600_000;
const REPORT_EVERY: i32 = 20;

/// Lets a process write no byte to any file, or all it likes again: a full disk that needs no mount and no rights.
fn set_room(process: &Process, has_room: bool) {
    let current = if has_room { None } else { Some(0) };
    let process = Pid::from_raw(process.id().cast_signed());
    prlimit(process, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

fn unavailable<T>(answer: Result<T, tonic::Status>) {
    refused(answer, Code::Unavailable, "cannot read or write its data folder now");
}

/// All that reads, of a model with two versions and of the job that made the second.
async fn reads(api: &Api, job_id: &str) -> (Vec<f64>, Vec<pb::Weights>, pb::Job, Vec<i32>) {
    let mut weights = Vec::new();
    for version in [1, 2] {
        let request = pb::GetWeightsRequest { version: Some(version), ..get_weights("xor") };
        weights.push(api.models.clone().get_weights(request).await.unwrap().into_inner());
    }
    let listed = api.models.clone().list_models(pb::ListModelsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.models.len(), 2);
    let history = read(api.watch(job_id, None).await.unwrap()).await.epochs();
    (api.outputs("xor", corners()).await, weights, api.job(job_id).await, history)
}

async fn writes_are_refused(api: &Api, weights: &pb::Weights) {
    unavailable(api.models.clone().create_model(xor_model("new", 4)).await);
    unavailable(api.models.clone().train(truth_table("xor", XOR)).await);
    let set = pb::SetWeightsRequest { model_id: "xor".into(), layers: weights.layers.clone() };
    unavailable(api.models.clone().set_weights(set).await);
    let delete = pb::DeleteModelRequest { model_id: "xor".into() };
    unavailable(api.models.clone().delete_model(delete).await);
    let serve = pb::SetServingVersionRequest { model_id: "xor".into(), version: Some(1) };
    unavailable(api.models.clone().set_serving_version(serve).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_writes_and_costs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve_past_file_limits(folder.path());
    let api = process.api().await;
    for model_id in ["xor", "busy"] {
        api.create(xor_model(model_id, 4)).await;
    }
    let trained = api.train(truth_table("xor", XOR)).await;
    let before = reads(&api, &trained.job_id).await;
    let checkpoints = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let request = pb::TrainRequest {
        epochs: Some(EPOCHS),
        report_every: Some(REPORT_EVERY),
        checkpoint_interval: checkpoints,
        ..truth_table("busy", XOR)
    };
    let (job_id, mut events) = api.start(request).await;
    next_reports(&mut events).await;
    for _ in 0..2 {
        set_room(&process, false);
        writes_are_refused(&api, &before.1[0]).await;
        assert_eq!(reads(&api, &trained.job_id).await, before);
        set_room(&process, true);
        api.create(xor_model("between", 4)).await;
        let delete = pb::DeleteModelRequest { model_id: "between".into() };
        api.models.clone().delete_model(delete).await.unwrap();
    }
    set_room(&process, false);
    // It trains to its end, which nobody is told before it is stored.
    while next_reports(&mut events).await.last().unwrap().epoch < EPOCHS {}
    assert_eq!(api.job(&job_id).await.state(), JobState::Running);
    writes_are_refused(&api, &before.1[0]).await;
    assert_eq!(reads(&api, &trained.job_id).await, before);
    set_room(&process, true);
    let told = read(events).await;
    assert_eq!((told.finished.state(), told.finished.version), (JobState::Succeeded, 2));
    let later = read(api.watch(&job_id, None).await.unwrap()).await;
    assert!(later.epochs().is_sorted_by(|before, after| before < after));
    assert!(later.epochs().len() >= (EPOCHS / REPORT_EVERY) as usize && later.epochs().ends_with(&[EPOCHS]));
    assert_eq!(api.train(truth_table("xor", XOR)).await.finished.version, 3);
    let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut kinds: Vec<String> =
        blobs.map(|name| name.to_str().unwrap().rsplit('.').next().unwrap().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["state", "state", "weights", "weights", "weights", "weights", "weights"]);
}
