//! Health, reflection, logs, and how a server stops.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use epochd::config::RawConfig;
use epochd::rpc::pb::JobState;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::*;

async fn health(api: &Api, service: &str) -> Result<ServingStatus, tonic::Status> {
    let request = HealthCheckRequest { service: service.into() };
    Ok(HealthClient::new(api.channel.clone()).check(request).await?.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_overall_and_for_each_service() {
    let server = Server::start();
    let api = server.api().await;
    for service in ["", "epochd.v1.ModelService", "epochd.v1.JobService"] {
        assert_eq!(health(&api, service).await.unwrap(), ServingStatus::Serving, "{service:?}");
    }
    refused(health(&api, "epochd.v1.NoService").await, Code::NotFound, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_says_so_takes_no_new_work_and_lets_calls_end() {
    let mut server = Server::with(RawConfig { ephemeral: true, drain_seconds: 60, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let (_job, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let mut statuses = {
        let request = HealthCheckRequest { service: String::new() };
        HealthClient::new(api.channel.clone()).watch(request).await.unwrap().into_inner()
    };
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.begin_stop();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // The stream that runs goes on.
    next_reports(&mut events).await;
    // On this connection no other call can begin, and nobody listens for another connection.
    let answer = api.models.clone().create_model(xor_model("late", 2)).await;
    assert!(matches!(answer.unwrap_err().code(), Code::Unavailable | Code::Cancelled));
    assert_eq!(TcpStream::connect(server.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop((events, statuses, api));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_every_service_in_both_versions_of_the_protocol() {
    let server = Server::start();
    let channel = server.api().await.channel;
    macro_rules! listed {
        ($version:ident) => {{
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let requests = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol("epochd.v1.JobService".into())),
            ];
            let stream = tokio_stream::iter(requests);
            let answers = ServerReflectionClient::new(channel.clone()).server_reflection_info(stream).await;
            let mut answers = answers.unwrap().into_inner();
            let Some(MessageResponse::ListServicesResponse(services)) =
                answers.message().await.unwrap().unwrap().message_response
            else {
                panic!("no list of services")
            };
            let file = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::FileDescriptorResponse(file)) = file else { panic!("no file: {file:?}") };
            assert!(!file.file_descriptor_proto[0].is_empty());
            let mut names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
            names.sort();
            names
        }};
    }
    let expected = [
        "epochd.v1.AdminService",
        "epochd.v1.JobService",
        "epochd.v1.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(listed!(v1), expected);
    assert_eq!(listed!(v1alpha), expected);
}

/// A peer that opened a connection and then fell silent holds a graceful shutdown for an hour where nobody ends it.
#[test]
fn sigterm_ends_the_process_with_code_0_within_its_deadline_whoever_stalls() {
    for name in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::serve(folder.path(), &["--drain-seconds", "1"]);
        // A client that speaks HTTP/2 as far as the preface and its settings, and one that never says a word.
        let mut stalled = TcpStream::connect(process.address).unwrap();
        stalled.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        assert!(stalled.read(&mut [0; 64]).unwrap() > 0);
        let _silent = TcpStream::connect(process.address).unwrap();
        let clock = Instant::now();
        signal(process.id(), name);
        let (status, log) = process.wait();
        assert_eq!(status.code(), Some(0), "SIG{name}: {log}");
        assert!(clock.elapsed() < Duration::from_secs(10), "SIG{name}: {:?}", clock.elapsed());
        assert!(log.contains("stopped"), "{log}");
    }
}

#[test]
fn a_peer_that_says_nothing_is_let_go() {
    let server = Server::start();
    let mut silent = TcpStream::connect(server.address).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server speaks first, and closes when no answer comes.
    let mut said = Vec::new();
    let ended = silent.read_to_end(&mut said);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == ErrorKind::ConnectionReset);
}

/// A client that does not read: its stream's window is full, so its goodbye cannot be sent.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_process_while_a_watcher_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--drain-seconds", "1"]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let (_job, unread) = api.start(endless("xor")).await;
    signal(process.id(), "TERM");
    let (status, log) = tokio::task::spawn_blocking(|| process.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_span_for_calls_and_jobs_with_their_ids_and_no_row_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let process =
        Process::serve(folder.path(), &["--log", "trace,h2=info,hyper=info,tower=info", "--drain-seconds", "1"]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let telltale = 123_456.789_012_5;
    let mut request = truth_table("xor", XOR);
    request.inputs = Some(values(&[telltale, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]));
    let told = api.train(request).await;
    api.outputs("xor", values(&[telltale, telltale])).await;
    let bad = api.models.clone().predict(predict("xor", values(&[telltale, telltale, telltale]))).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    drop(api);
    signal(process.id(), "TERM");
    let log = tokio::task::spawn_blocking(|| process.wait()).await.unwrap().1;
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let in_span = |name: &str, key: &str, value: &str| {
        let mut spans = lines.iter().filter_map(|line| line["spans"].as_array()).flatten();
        spans.any(|span| span["name"] == name && span[key].to_string().contains(value))
    };
    assert!(in_span("call", "method", "/epochd.v1.ModelService/Train"), "{log}");
    assert!(in_span("call", "id", ""), "{log}");
    assert!(in_span("job", "job_id", &told.job_id), "{log}");
    assert!(!log.contains("123456.7"), "{log}");
}

/// A call in which nothing is logged has no span, so one must be made late: on the thread that logs, which is another.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_logs_is_told_with_its_id_and_method_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--drain-seconds", "1"]);
    let api = process.api().await;
    let answer = api.models.clone().create_model(xor_model("xor", 4)).await.unwrap();
    let call_id = answer.metadata().get("epochd-call-id").unwrap().to_str().unwrap().to_owned();
    drop(api);
    signal(process.id(), "TERM");
    let log = tokio::task::spawn_blocking(|| process.wait()).await.unwrap().1;
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let created: Vec<_> = lines.filter(|line| line["message"] == "model created").collect();
    let span = &created[0]["span"];
    assert_eq!(
        (&span["name"], &span["method"]),
        (&"call".into(), &"/epochd.v1.ModelService/CreateModel".into()),
        "{log}"
    );
    assert_eq!((span["id"].to_string(), created.len()), (call_id, 1), "{log}");
}

/// As where a log goes into a pipe whose reader has ended, or onto a disk that is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve_unread(folder.path(), &["--log", "debug"]);
    let api = process.api().await;
    for model_id in ["a", "b", "c"] {
        api.create(xor_model(model_id, 4)).await;
        assert_eq!(api.train(truth_table(model_id, XOR)).await.finished.state(), JobState::Succeeded);
    }
    signal(process.id(), "TERM");
    assert!(process.wait().0.success());
}

/// As where whatever collects the log is stuck: a pipe holds 64 kilobytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve_stuck(folder.path(), &["--log", "debug"]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    for _ in 0..2_000 {
        api.outputs("xor", corners()).await;
    }
    assert_eq!(api.train(truth_table("xor", XOR)).await.finished.state(), JobState::Succeeded);
    signal(process.id(), "TERM");
    assert!(process.wait().0.success());
}
