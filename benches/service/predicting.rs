//! Predictions over gRPC beside what they cannot do without: a call, and the product.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use epochd::domain::{At, ElementType, Faults, Matrix, RawMatrix, Values};
use epochd::engine::{AnyNetwork, draw_parameters};
use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use prost::Message;

use crate::echo::{self, Payload};
use crate::load::{Load, Measured};
use crate::rounds::{in_turn, median};
use crate::server::{Api, Server, packed};
use crate::table::{head, row, verdict};
use crate::training::{architecture, named, request};
use crate::workloads::Workload;

const PATH: &str = "/epochd.v1.ModelService/Predict";
const MODEL: &str = "model";
/// As many connections with as many streams each as h2load has where epochd is compared with other servers.
const CONNECTIONS: usize = 8;
/// See [`CONNECTIONS`].
const STREAMS: usize = 4;
const CLIENTS: [usize; 3] = [1, 16, 256];
const BATCH_ROWS: usize = 1_000;

/// A server with one model, and a question to it.
struct Asked {
    server: Server,
    question: Bytes,
    answer_bytes: usize,
}

impl Asked {
    fn new(workload: &Workload, rows: usize) -> anyhow::Result<Self> {
        let server = Server::epochd(&[])?;
        let question = question(workload, rows);
        let answer = block_on(async {
            let mut api = server.api().await?;
            create(&mut api, MODEL, workload).await?;
            Ok(api.models.predict(question.clone()).await?.into_inner())
        })?;
        ensure!(!answer.classes.is_empty(), "a classifier names classes");
        Ok(Self { server, question: question.encode_to_vec().into(), answer_bytes: answer.encoded_len() })
    }

    fn load(&self) -> Load {
        Load::new(self.server.address, PATH, self.question.clone())
    }

    /// The echo with messages of the same sizes.
    fn echo(&self) -> anyhow::Result<(Server, Load)> {
        let server = Server::echo(self.answer_bytes)?;
        let payload = Payload::of_length(self.question.len());
        let load = Load::new(server.address, echo::PATH, payload.encode_to_vec().into());
        Ok((server, load))
    }
}

/// Calls a second of both, then how long they take with more and more clients.
pub fn one_row(time: Duration, rounds: usize) -> anyhow::Result<()> {
    let asked = Asked::new(&named("W3_digits")?, 1)?;
    let (echo, echo_load) = asked.echo()?;
    let sides = [asked.load(), echo_load];
    let [ours, bare] = &sides;
    let speed = |load: &Load| Ok(load.run(CONNECTIONS, STREAMS, time)?.calls_per_second());
    let speeds: Vec<(f64, f64)> =
        (0..rounds).map(|round| in_turn(round, || speed(ours), || speed(bare))).collect::<anyhow::Result<_>>()?;
    let ratio = median(speeds.iter().map(|(ours, bare)| ours / bare));
    let (ours, bare) = (median(speeds.iter().map(|it| it.0)), median(speeds.iter().map(|it| it.1)));
    println!(
        "\nOne row of a 64-64-10 network, {} bytes, answered with {}; {CONNECTIONS} connections of {STREAMS} streams.",
        asked.question.len(),
        asked.answer_bytes
    );
    head(&["server", "calls a second", "ratio", "at least", "verdict", "resident, MB"]);
    let memory = |server: &Server| server.resident_mb().map_or_else(|| "–".to_owned(), |it| format!("{it:.1}"));
    let name = "epochd, Predict".to_owned();
    let ratio_cells = [format!("{ratio:.3}"), "0.9".to_owned(), verdict(ratio >= 0.9)];
    row(&[vec![name, format!("{ours:.0}")], ratio_cells.to_vec(), vec![memory(&asked.server)]].concat());
    let blank = || "–".to_owned();
    row(&["tonic, echo".to_owned(), format!("{bare:.0}"), blank(), blank(), blank(), memory(&echo)]);

    head(&["clients", "server", "calls a second", "p50, µs", "p99, µs", "p99.9, µs"]);
    for clients in CLIENTS {
        let mut measured: [Vec<Measured>; 2] = Default::default();
        for round in 0..rounds {
            let (ours, bare) = in_turn(round, || sides[0].run(clients, 1, time), || sides[1].run(clients, 1, time))?;
            measured[0].push(ours);
            measured[1].push(bare);
        }
        for (name, measured) in ["epochd", "echo"].into_iter().zip(&measured) {
            let of = |it: &dyn Fn(&Measured) -> f64| median(measured.iter().map(it));
            let micros = |share: f64| format!("{:.0}", of(&|it| it.micros(share)));
            let speed = format!("{:.0}", of(&Measured::calls_per_second));
            row(&[clients.to_string(), name.to_owned(), speed, micros(0.5), micros(0.99), micros(0.999)]);
        }
    }
    Ok(())
}

/// What a call with many rows takes beside the decoding and the product.
pub fn batch(time: Duration, rounds: usize) -> anyhow::Result<()> {
    let workload = named("W4_mnist")?;
    let asked = Asked::new(&workload, BATCH_ROWS)?;
    let (_echo, echo_load) = asked.echo()?;
    let parts = Parts::new(&workload)?;
    let micros = |load: &Load| Ok(load.run(1, 1, time)?.micros(0.5));
    let mut measured = Vec::new();
    for round in 0..rounds {
        let (call, echo) = in_turn(round, || micros(&asked.load()), || micros(&echo_load))?;
        let [decode, compute, share] = parts.measure(&asked.question, time)?;
        measured.push(BatchRound { call, echo, decode, compute, share });
    }
    let of = |it: fn(&BatchRound) -> f64| median(measured.iter().map(it));
    println!(
        "\n{BATCH_ROWS} rows of a 784-128-10 network, {} bytes, one call at a time; medians.",
        asked.question.len()
    );
    head(&["what", "µs"]);
    let line = |name: &str, value: f64| row(&[name.to_owned(), format!("{value:.0}")]);
    line("the call", of(|it| it.call));
    line("an echo of the same sizes", of(|it| it.echo));
    line("decoding in this process", of(|it| it.decode));
    line("the product in this process, one thread", of(|it| it.compute));
    line("the product in this process, a thread a core", of(|it| it.share));
    head(&["measured as", "added to decoding + product", "at most", "verdict"]);
    let told = |name: &str, added: fn(&BatchRound) -> f64| {
        let share = of(added);
        row(&[name.to_owned(), format!("{:.1} %", share * 100.0), "10 %".to_owned(), verdict(share <= 0.1)]);
    };
    told("beside a call that echoes, product of one thread", |it| it.added(it.call - it.echo, it.compute));
    told("beside a call that echoes, product of a thread a core", |it| it.added(it.call - it.echo, it.share));
    told("all of the call, product of one thread", |it| it.added(it.call, it.compute));
    Ok(())
}

/// What each took in one round, in microseconds.
struct BatchRound {
    call: f64,
    echo: f64,
    decode: f64,
    /// The product by one thread,
    compute: f64,
    /// and by a thread a core.
    share: f64,
}

impl BatchRound {
    /// What was taken beyond decoding and product, as a share of them.
    fn added(&self, taken: f64, product: f64) -> f64 {
        taken / (self.decode + product) - 1.0
    }
}

/// Decoding and product in this process.
struct Parts {
    network: AnyNetwork,
    columns: usize,
}

impl Parts {
    fn new(workload: &Workload) -> anyhow::Result<Self> {
        let architecture = workload.input(1, 1)?.architecture;
        let parameters = draw_parameters(&architecture, 7);
        Ok(Self { network: AnyNetwork::new(&architecture, parameters), columns: workload.widths[0] })
    }

    /// The median time of decoding, of the product and of the product by a thread a core, in microseconds.
    fn measure(&self, question: &Bytes, time: Duration) -> anyhow::Result<[f64; 3]> {
        let (mut decoding, mut product, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        let end = Instant::now() + time;
        while decoding.is_empty() || Instant::now() < end {
            let start = Instant::now();
            let request = pb::PredictRequest::decode(question.clone())?;
            let bytes = request.inputs.context("the question has rows")?.packed;
            let values = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            let raw = RawMatrix { values: Values::F32(values), rows: None, columns: None };
            let inputs = raw.check(self.columns, ElementType::Float32, At::ROOT, &mut Faults::new());
            let inputs = inputs.context("the rows are sound")?;
            decoding.push(start.elapsed().as_secs_f64() * 1e6);
            let start = Instant::now();
            black_box(self.network.predict(&inputs, None));
            product.push(start.elapsed().as_secs_f64() * 1e6);
            let start = Instant::now();
            self.share(&inputs)?;
            shared.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok([median(decoding), median(product), median(shared)])
    }

    /// The product, by rows.
    fn share(&self, inputs: &Matrix) -> anyhow::Result<()> {
        let (rows, threads) = (inputs.rows(), std::thread::available_parallelism()?.get());
        let part = |index: usize| {
            let rows = rows * index / threads..rows * (index + 1) / threads;
            black_box(self.network.predict_with_layers(inputs, rows, None, &[], false));
        };
        let part = &part;
        std::thread::scope(|scope| {
            (1..threads).for_each(|index| drop(scope.spawn(move || part(index))));
            part(0);
        });
        Ok(())
    }
}

/// How long predictions take while every thread trains.
pub fn while_training(time: Duration, rounds: usize) -> anyhow::Result<()> {
    let asked = Asked::new(&named("W3_digits")?, 1)?;
    let load = asked.load();
    println!("\nOne row of a 64-64-10 network, while nothing trains and while W7 does on every thread.");
    head(&["clients", "", "calls a second", "p50, µs", "p99, µs", "p99.9, µs", "p99 × idle", "at most", "verdict"]);
    for clients in [1, 16] {
        let (mut idle, mut busy): (Vec<Measured>, Vec<Measured>) = Default::default();
        let alone = || load.run(clients, 1, time);
        let beside = || {
            let job_id = block_on(start_training(&asked.server))?;
            let measured = load.run(clients, 1, time);
            block_on(stop_training(&asked.server, job_id))?;
            measured
        };
        for round in 0..rounds {
            let (alone, beside) = in_turn(round, alone, beside)?;
            idle.push(alone);
            busy.push(beside);
        }
        let of = |runs: &[Measured], it: &dyn Fn(&Measured) -> f64| median(runs.iter().map(it));
        let ratio = median(busy.iter().zip(&idle).map(|(busy, idle)| busy.micros(0.99) / idle.micros(0.99)));
        let blank = || vec!["–".to_owned(); 3];
        let told = vec![format!("{ratio:.2}"), "3".to_owned(), verdict(ratio <= 3.0)];
        for (name, runs, rest) in [("idle", &idle, blank()), ("W7 trains", &busy, told)] {
            let micros = |share: f64| format!("{:.0}", of(runs, &|it| it.micros(share)));
            let speed = format!("{:.0}", of(runs, &Measured::calls_per_second));
            let cells = vec![clients.to_string(), name.to_owned(), speed, micros(0.5), micros(0.99), micros(0.999)];
            row(&[cells, rest].concat());
        }
    }
    Ok(())
}

/// Starts W7 for longer than anybody measures; the job's id, once it has begun.
async fn start_training(server: &Server) -> anyhow::Result<String> {
    let mut api = server.api().await?;
    let workload = named("W7_gemm")?;
    if api.models.get_model(pb::GetModelRequest { model_id: workload.name.to_lowercase() }).await.is_err() {
        create(&mut api, &workload.name.to_lowercase(), &workload).await?;
    }
    let request = request(&workload, &workload.name.to_lowercase(), 10_000, 1);
    let mut events = api.models.train(request).await?.into_inner();
    while let Some(event) = events.message().await? {
        if matches!(event.event, Some(Event::Started(_))) {
            return Ok(event.job_id);
        }
    }
    anyhow::bail!("the training ended before it began")
}

async fn stop_training(server: &Server, job_id: String) -> anyhow::Result<()> {
    let mut api = server.api().await?;
    api.jobs.cancel_job(pb::CancelJobRequest { job_id: job_id.clone(), ..Default::default() }).await?;
    let mut events = api.jobs.watch_job(pb::WatchJobRequest { job_id, from_epoch: Some(10_000) }).await?.into_inner();
    while events.message().await?.is_some() {}
    Ok(())
}

async fn create(api: &mut Api, model_id: &str, workload: &Workload) -> anyhow::Result<()> {
    let architecture = Some(architecture(workload));
    let request =
        pb::CreateModelRequest { model_id: model_id.to_owned(), architecture, seed: Some(7), ..Default::default() };
    api.models.create_model(request).await?;
    Ok(())
}

fn question(workload: &Workload, rows: usize) -> pb::PredictRequest {
    let numbers = rows * workload.widths[0];
    let values: Vec<f32> = (0..numbers).map(|index| (index as f32 * 0.618_034).fract()).collect();
    pb::PredictRequest { model_id: MODEL.to_owned(), inputs: Some(packed(&values)), ..pb::PredictRequest::default() }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
