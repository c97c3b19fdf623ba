//! Models and lists of them.

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use tonic::Code;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_name_or_a_seed_is_given_both() {
    let server = Server::start();
    let api = server.api().await;
    let request = pb::CreateModelRequest { seed: None, ..xor_model("", 2) };
    let (first, second) = (api.create(request.clone()).await, api.create(request).await);
    assert!(!first.model_id.is_empty());
    assert_ne!((&first.model_id, first.seed), (&second.model_id, second.seed));
    // The seed told makes the same weights again.
    let again = pb::CreateModelRequest { seed: Some(first.seed), ..xor_model("again", 2) };
    api.create(again).await;
    assert_eq!(api.outputs("again", corners()).await, api.outputs(&first.model_id, corners()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_read_as_it_was_made() {
    let server = Server::start();
    let api = server.api().await;
    let mut request = xor_model("xor", 8);
    request.class_labels = vec!["same".into(), "different".into()];
    request.labels = [("team".to_owned(), "vision".to_owned())].into();
    let created = api.create(request.clone()).await;
    assert_eq!(api.model("xor").await, created);
    assert_eq!((created.parameter_count, created.latest_version), (2 * 8 + 8 + 8 + 1, 1));
    assert_eq!((&created.class_labels, &created.labels), (&request.class_labels, &request.labels));
    refused(api.models.clone().create_model(request).await, Code::AlreadyExists, "xor");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_in_order_and_miss_nothing() {
    let server = Server::start();
    let api = server.api().await;
    for index in 0..120 {
        api.create(xor_model(&format!("m-{index:03}"), 1)).await;
    }
    let list = async |page_size, page_token: String| {
        let request = pb::ListModelsRequest { page_size, page_token };
        api.models.clone().list_models(request).await.unwrap().into_inner()
    };
    let (mut token, mut names, mut sizes) = (String::new(), Vec::new(), Vec::new());
    loop {
        let page = list(0, token).await;
        sizes.push(page.models.len());
        names.extend(page.models.into_iter().map(|model| model.model_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(sizes, [50, 50, 20]);
    assert_eq!(names, (0..120).map(|index| format!("m-{index:03}")).collect::<Vec<_>>());
    // Past the largest page the size is clamped.
    assert_eq!(list(1_000_000, String::new()).await.models.len(), 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_newest_first_and_filtered_and_versions_in_order() {
    let server = Server::start();
    let api = server.api().await;
    let mut ids = Vec::new();
    for model_id in ["a", "b", "a"] {
        if ids.len() < 2 {
            api.create(xor_model(model_id, 1)).await;
        }
        let request = pb::TrainRequest { epochs: Some(2), ..truth_table(model_id, XOR) };
        ids.insert(0, api.train(request).await.job_id);
    }
    let list = async |request: pb::ListJobsRequest| api.jobs.clone().list_jobs(request).await.unwrap().into_inner();
    let all = list(pb::ListJobsRequest::default()).await;
    assert_eq!(all.jobs.iter().map(|job| job.job_id.clone()).collect::<Vec<_>>(), ids);
    let of_a = pb::ListJobsRequest { model_id: "a".into(), page_size: 1, ..Default::default() };
    let page = list(of_a.clone()).await;
    assert_eq!(page.jobs[0].job_id, ids[0]);
    let next = list(pb::ListJobsRequest { page_token: page.next_page_token.clone(), ..of_a }).await;
    assert_eq!((next.jobs[0].job_id.as_str(), next.next_page_token.as_str()), (ids[2].as_str(), ""));
    let failed = pb::ListJobsRequest { state: JobState::Failed.into(), ..Default::default() };
    assert!(list(failed).await.jobs.is_empty());
    // A token of one list is none of another's.
    let other = pb::ListJobsRequest { page_token: page.next_page_token, ..Default::default() };
    refused(api.jobs.clone().list_jobs(other).await, Code::InvalidArgument, "page_token");

    let versions = pb::ListVersionsRequest { model_id: "a".into(), ..Default::default() };
    let versions = api.models.clone().list_versions(versions).await.unwrap().into_inner().versions;
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(versions[2].job_id, ids[0]);
}
