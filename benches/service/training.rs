//! The same training in the engine and over gRPC, in turn.

use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use epochd::domain::{Activation, Reports, Values};
use epochd::engine::{Step, Team, Workers};
use epochd::limits::{CHUNK_REPORTS, EPOCHS_MAX};
use epochd::rpc::pb;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;

use crate::codec::RawAnswers;
use crate::rounds::{in_turn, median};
use crate::server::{Api, MESSAGE_BYTES_MAX, Server, packed};
use crate::table::{head, row, verdict};
use crate::workloads::{Optimizer, Workload, workloads};

/// What may be asked of it.
#[derive(clap::Args, Clone)]
pub struct Plan {
    /// One of W1_xor, W2_iris, W3_digits, W4_mnist, W5_mnist_deep, W6_tabular and W7_gemm; all of them by default
    #[arg(long)]
    workload: Option<String>,
    /// Epochs from one report to the next: 100 and 1 for W1 and 1 for the others by default
    #[arg(long)]
    report_every: Option<u32>,
    /// Seconds of a run, at least
    #[arg(long, default_value_t = 5.0)]
    run_seconds: f64,
    /// The most rows: a brief run that shows whether it works, and no speed
    #[arg(long)]
    rows_max: Option<usize>,
    /// Keeps everything in memory: no disk is waited for
    #[arg(long)]
    ephemeral: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { workload: None, report_every: None, run_seconds: 5.0, rows_max: None, ephemeral: false }
    }
}

impl Plan {
    /// All of them, for no time.
    pub fn brief() -> Self {
        Self { run_seconds: 0.0, rows_max: Some(64), ..Self::default() }
    }
}

/// Measures and prints the table.
pub fn measure(plan: &Plan, rounds: usize) -> anyhow::Result<()> {
    let threads = std::thread::available_parallelism()?.get();
    let team = Team::new(threads, || {})?;
    let (report_every, chosen) = (plan.report_every, plan.workload.as_deref());
    let mut rows = Vec::new();
    for workload in workloads().into_iter().filter(|it| chosen.is_none_or(|name| name == it.name)) {
        let is_xor = workload.name == "W1_xor";
        let every = match report_every {
            Some(every) => vec![every],
            None if is_xor => vec![100, 1],
            None => vec![1],
        };
        rows.extend(
            every.into_iter().map(|every| (workload.clone(), every, if is_xor && every == 1 { 1.1 } else { 1.03 })),
        );
    }
    ensure!(!rows.is_empty(), "no workload has that name: --help lists them");
    let titles = [
        "workload",
        "reports every",
        "epochs",
        "engine, s",
        "server, s",
        "ratio",
        "at most",
        "verdict",
        "accepting, s",
        "whole call, s",
    ];
    head(&titles);
    for (mut workload, every, at_most) in rows {
        workload.rows = workload.rows.min(plan.rows_max.unwrap_or(usize::MAX));
        let epochs = epochs_of(&workload, every, plan.run_seconds, &team)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut engine, mut served) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Each round has a process of its own, which has trained nothing before: where a process has its memory is worth some hundredths of a small network's time.
            let server = Server::epochd(if plan.ephemeral { &["--ephemeral"] } else { &[] })?;
            let serve = || runtime.block_on(over_grpc(&server, &workload, epochs, every));
            let (alone, over_grpc) = in_turn(round, || in_engine(&workload, epochs, every, &team), serve)?;
            engine.push(alone);
            served.push(over_grpc);
        }
        let of = |it: fn(&Served) -> f64| median(served.iter().map(it));
        let ratio = median(served.iter().zip(&engine).map(|(served, engine)| served.seconds / engine));
        let (engine, seconds) = (median(engine), of(|it| it.seconds));
        let number = |value: f64| format!("{value:.3}");
        row(&[
            workload.name.to_owned(),
            every.to_string(),
            epochs.to_string(),
            number(engine),
            number(seconds),
            number(ratio),
            at_most.to_string(),
            verdict(ratio <= at_most),
            number(of(|it| it.accepting)),
            number(of(|it| it.whole)),
        ]);
    }
    Ok(())
}

/// Epochs that take so long in the engine. What a few of them took is no measure of many: the first ones pay for memory that is new.
fn epochs_of(workload: &Workload, every: u32, seconds: f64, team: &std::sync::Arc<Team>) -> anyhow::Result<u32> {
    let mut epochs = workload.epochs.div_ceil(2) + 1;
    loop {
        let took = in_engine(workload, epochs, every, team)?;
        if took >= seconds || epochs == EPOCHS_MAX {
            return Ok(epochs);
        }
        let longer = (f64::from(epochs) * seconds * 1.05 / took) as u32;
        epochs = longer.clamp(epochs + 1, EPOCHS_MAX);
    }
}

/// Seconds of a training in this process, from its rows in memory to its end, with as many threads as the server has.
fn in_engine(workload: &Workload, epochs: u32, every: u32, team: &std::sync::Arc<Team>) -> anyhow::Result<f64> {
    let input = workload.input(u64::from(epochs), every)?;
    let start = Instant::now();
    let _entered = team.enter();
    let mut trainer = epochd::engine::AnyTrainer::new(input);
    trainer.set_workers(Workers::of(team.clone()));
    let mut reports = Reports::with_capacity(CHUNK_REPORTS);
    loop {
        let Step::Epoch(end) = trainer.step_batch() else { continue };
        if end.is_reported {
            if reports.len() == CHUNK_REPORTS {
                reports.clear();
            }
            trainer.report().into_iter().for_each(|report| reports.push(report));
        }
        if end.stop.is_some() {
            std::hint::black_box(trainer.result());
            return Ok(start.elapsed().as_secs_f64());
        }
    }
}

/// What a training over gRPC took, in seconds.
struct Served {
    /// From started to finished, by the server's clock.
    seconds: f64,
    /// From the call to the answer that says that it is accepted, by the client's.
    accepting: f64,
    /// From the call to the end of the stream, by the client's.
    whole: f64,
}

async fn over_grpc(server: &Server, workload: &Workload, epochs: u32, every: u32) -> anyhow::Result<Served> {
    let mut api = server.api().await?;
    let model_id = workload.name.to_lowercase();
    let architecture = Some(architecture(workload));
    api.models
        .create_model(pb::CreateModelRequest {
            model_id: model_id.clone(),
            architecture,
            seed: Some(7),
            ..Default::default()
        })
        .await?;
    let request = request(workload, &model_id, epochs, every);
    let start = Instant::now();
    let (job_id, mut stream) = train(&api, request).await?;
    let accepting = start.elapsed().as_secs_f64();
    while stream.message().await?.is_some() {}
    let whole = start.elapsed().as_secs_f64();
    let job = api.jobs.get_job(pb::GetJobRequest { job_id }).await?.into_inner();
    ensure!(job.state() == pb::JobState::Succeeded, "the job ended as {:?}: {:?}", job.state(), job.failure);
    let seconds = |time: Option<prost_types::Timestamp>| time.map(|it| it.seconds as f64 + f64::from(it.nanos) / 1e9);
    let (start, end) = seconds(job.start_time).zip(seconds(job.end_time)).context("a finished job has both times")?;
    Ok(Served { seconds: end - start, accepting, whole })
}

/// Starts a training: its job's id, and its events as bytes.
async fn train(api: &Api, request: pb::TrainRequest) -> anyhow::Result<(String, tonic::Streaming<bytes::Bytes>)> {
    let mut client = Grpc::new(api.channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX);
    client.ready().await?;
    let path = PathAndQuery::from_static("/epochd.v1.ModelService/Train");
    let codec = RawAnswers::default();
    let answer = client.server_streaming(tonic::Request::new(request), path, codec).await?;
    let job_id = answer.metadata().get("epochd-job-id").context("the job's id")?.to_str()?.to_owned();
    Ok((job_id, answer.into_inner()))
}

/// A network's shape on the wire.
pub fn architecture(workload: &Workload) -> pb::Architecture {
    let last = workload.widths.len() - 2;
    let layers = workload.widths[1..].iter().enumerate().map(|(index, &units)| {
        let activation = if index == last { workload.output } else { workload.hidden };
        pb::Layer { units: units as i32, activation: activation_of(activation).into(), ..pb::Layer::default() }
    });
    pb::Architecture { input_width: workload.widths[0] as i32, layers: layers.collect(), ..Default::default() }
}

fn activation_of(activation: Activation) -> pb::Activation {
    match activation {
        Activation::Tanh => pb::Activation::Tanh,
        Activation::Relu => pb::Activation::Relu,
        Activation::Sigmoid => pb::Activation::Sigmoid,
        Activation::Softmax => pb::Activation::Softmax,
        _ => pb::Activation::Identity,
    }
}

/// The workload's training on the wire.
pub fn request(workload: &Workload, model_id: &str, epochs: u32, every: u32) -> pb::TrainRequest {
    use pb::optimizer::Method;
    let learning_rate = Some(workload.learning_rate);
    let sgd = |momentum| Method::Sgd(pb::Sgd { learning_rate, momentum: Some(momentum), ..pb::Sgd::default() });
    let method = match workload.optimizer {
        Optimizer::Sgd => sgd(0.0),
        Optimizer::Momentum => sgd(0.9),
        Optimizer::Adam => Method::Adam(pb::Adam { learning_rate, ..pb::Adam::default() }),
    };
    let (inputs, targets) = workload.data();
    let matrix = |values: Values| match values {
        Values::F32(values) => Some(packed(&values)),
        values => Some(pb::Matrix { values: values.iter().collect(), ..pb::Matrix::default() }),
    };
    pb::TrainRequest {
        model_id: model_id.to_owned(),
        inputs: matrix(inputs),
        targets: matrix(targets),
        optimizer: Some(pb::Optimizer { method: Some(method) }),
        epochs: Some(epochs as i32),
        batch_size: Some(workload.batch as i32),
        shuffle: Some(false),
        seed: Some(7),
        report_every: Some(every as i32),
        ..pb::TrainRequest::default()
    }
}

/// A workload by its name.
pub fn named(name: &str) -> anyhow::Result<Workload> {
    workloads().into_iter().find(|it| it.name == name).ok_or_else(|| anyhow!("there is no workload {name}"))
}
