//! What whole trainings cost in the engine alone, on the workloads that `benches/peers/compare.py` also gives to other
//! libraries: `cargo bench --bench training -- --workload W3_digits`. Prints one line of JSON a workload, with the keys that the
//! peers' scripts print; docs/performance.md tells more.

mod products;
mod workloads;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use epochd::domain::Reports;
use epochd::engine::{AnyTrainer, Step, Team, Workers};
use epochd::limits;
use serde_json::{Value, json};
use workloads::{Workload, workloads};

/// Reports that are kept together before they go, as in the service's history.
const REPORTS_OF_CHUNK: usize = 256;

/// How long whole trainings take in the engine.
#[derive(Parser)]
struct Arguments {
    /// One of W1_xor, W2_iris, W3_digits, W4_mnist, W5_mnist_deep, W6_tabular and W7_gemm; all of them by default
    #[arg(long)]
    workload: Option<String>,
    /// Threads that a step may use
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    threads: u8,
    /// Timed runs at least, after one that warms up; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    /// Seconds that timed runs take at least together, with the products beside them, and half of which go by before: a processor takes a
    /// while to come to its speed. At most 5, since a training has a bound on its epochs
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// Epochs from one report to the next
    #[arg(long, default_value_t = 1)]
    report_every: u32,
    /// Epochs of a run, instead of the workload's own
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    epochs: Option<u32>,
    /// The most rows: a brief run that shows whether it works, and no speed
    #[arg(long)]
    rows_max: Option<usize>,
    /// Times the matrix products alone too, and tells their share of the training's time
    #[arg(long)]
    products: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = match std::env::args_os().len() {
        // As `cargo test --benches` calls it: all of them once and briefly, to see that they work.
        1 => Arguments::parse_from("training --repeats 1 --seconds 0 --epochs 1 --rows-max 512 --products".split(' ')),
        _ => Arguments::parse(),
    };
    let name = arguments.workload.as_deref();
    let chosen: Vec<_> = workloads().into_iter().filter(|it| name.is_none_or(|name| name == it.name)).collect();
    ensure!(!chosen.is_empty(), "no workload has that name: --help lists them");
    for mut workload in chosen {
        workload.epochs = arguments.epochs.unwrap_or(workload.epochs);
        workload.rows = workload.rows.min(arguments.rows_max.unwrap_or(usize::MAX).max(workload.batch));
        println!("{}", measure(&workload, &arguments)?);
    }
    Ok(())
}

/// The line of a workload. Repeats of the training and of its products take turns, so that a slow minute meets both.
fn measure(workload: &Workload, arguments: &Arguments) -> anyhow::Result<Value> {
    let threads = usize::from(arguments.threads);
    // More epochs than are trained: how many that are follows from the clock, and the last one of a training is not like the others.
    let mut trainer = workload.trainer(u64::from(limits::EPOCHS_MAX), arguments.report_every)?;
    let workers = workers(threads)?;
    trainer.set_workers(workers.clone());
    let mut products = arguments.products.then(|| products::of_step(workload));
    let mut run = Run { trainer, reports: Reports::with_capacity(REPORTS_OF_CHUNK), final_loss: f64::NAN };
    let begun = Instant::now();
    run.train(workload.epochs)?;
    while begun.elapsed().as_secs_f64() < arguments.seconds / 2.0 {
        run.train(workload.epochs)?;
    }
    let (mut times, mut product_times) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while times.len() < arguments.repeats as usize || begun.elapsed().as_secs_f64() < arguments.seconds {
        let start = Instant::now();
        run.train(workload.epochs)?;
        times.push(start.elapsed().as_secs_f64() / f64::from(workload.epochs));
        let products = products.as_deref_mut();
        product_times.extend(products.map(|it| products::seconds_per_epoch(it, workload, &workers)));
    }
    let mut line = line(workload, arguments, median(times), run.final_loss);
    if !product_times.is_empty() {
        add_products(&mut line, workload, median(product_times));
    }
    Ok(line)
}

fn seconds(text: &str) -> anyhow::Result<f64> {
    let seconds = text.parse()?;
    ensure!((0.0..=5.0).contains(&seconds), "from 0 to 5");
    Ok(seconds)
}

/// Who computes the steps of a training: as many threads, as in the server.
fn workers(threads: usize) -> anyhow::Result<Workers> {
    Ok(Workers::of(Team::new(threads, || {})?))
}

/// A training under way, and what the service would do with what it tells.
struct Run {
    trainer: AnyTrainer,
    reports: Reports,
    final_loss: f64,
}

impl Run {
    fn train(&mut self, epochs: u32) -> anyhow::Result<()> {
        for _ in 0..epochs {
            self.train_epoch()?;
        }
        Ok(())
    }

    /// Steps to the end of an epoch, and takes its report.
    fn train_epoch(&mut self) -> anyhow::Result<()> {
        let end = loop {
            if let Step::Epoch(end) = self.trainer.step_batch() {
                break end;
            }
        };
        if let Some(stop) = end.stop {
            bail!("the training ended too soon: {}", stop.message);
        }
        let report = self.trainer.report().context("an epoch ended")?;
        self.final_loss = report.loss;
        if end.is_reported {
            self.reports.push(report);
        }
        if self.reports.len() == REPORTS_OF_CHUNK {
            black_box(&self.reports);
            self.reports.clear();
        }
        Ok(())
    }
}

/// The keys of the peers' lines, and what a step takes.
fn line(workload: &Workload, arguments: &Arguments, seconds: f64, final_loss: f64) -> Value {
    json!({
        "peer": "epochd",
        "version": env!("CARGO_PKG_VERSION"),
        "workload": workload.name,
        "threads": arguments.threads,
        "report_every": arguments.report_every,
        "sec_per_epoch": seconds,
        "samples_per_s": workload.rows as f64 / seconds,
        "gflops": workload.operations_per_epoch() / seconds / 1e9,
        "ns_per_step": seconds / workload.steps() as f64 * 1e9,
        "final_loss": final_loss,
    })
}

fn add_products(line: &mut Value, workload: &Workload, seconds: f64) {
    let whole = line["sec_per_epoch"].as_f64().unwrap_or(f64::NAN);
    line["products_sec_per_epoch"] = seconds.into();
    line["products_gflops"] = (workload.operations_per_epoch() / seconds / 1e9).into();
    line["products_share"] = (seconds / whole).into();
}

/// The middle one; of an even number the mean of both.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
