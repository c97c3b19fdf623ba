//! How the cost of a training grows: seconds of an epoch and bytes at the peak against rows, width, depth and classes, and the work
//! that a server does of many jobs at once. `cargo bench --bench cost` prints tables with the exponents of the curves, and draws them
//! below docs/pictures/; docs/performance.md says what came out. `--only memory` asks a server process what it held at most.

mod client;
mod jobs;
mod memory;
mod picture;
#[path = "../support/server.rs"]
#[expect(dead_code, reason = "another benchmark starts servers again")]
mod server;
mod training;

use std::path::PathBuf;

use clap::Parser;
use training::{Cost, Network, cost};

/// How the cost of a training grows.
#[derive(Parser)]
struct Arguments {
    /// One of rows, width, depth, classes, jobs and memory; all of them by default
    #[arg(long)]
    only: Option<String>,
    /// Where pictures go; without it none is drawn
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// The first points alone: shows whether it works, and no cost
    #[arg(long)]
    brief: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// One thing that grows while all else stays.
struct Curve {
    name: &'static str,
    /// What stays.
    fixed: &'static str,
    sizes: &'static [usize],
    network: fn(usize) -> Network,
    /// The exponents that the mathematics says, of seconds and of bytes, where the term that grows dominates.
    expected: (f64, f64),
}

/// Points at the end of a curve whose slope is told: there what grows is more than what stays.
const FITTED_POINTS: usize = 3;

const CURVES: [Curve; 4] = [
    Curve {
        name: "rows",
        fixed: "8-32-1, batches of 256",
        sizes: &[1_000, 10_000, 100_000, 1_000_000, 10_000_000],
        network: |rows| Network { widths: vec![8, 32, 1], rows, batch: 256 },
        expected: (1.0, 1.0),
    },
    Curve {
        name: "width",
        fixed: "n-n-n-1, 512 rows in batches of 128",
        sizes: &[8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096],
        network: |width| Network { widths: vec![width, width, width, 1], rows: 512, batch: 128 },
        expected: (2.0, 2.0),
    },
    Curve {
        name: "depth",
        fixed: "n hidden layers of 64, 4,096 rows in batches of 64",
        sizes: &[1, 2, 5, 10, 20, 50, 100],
        network: |depth| Network { widths: [vec![64; depth + 1], vec![1]].concat(), rows: 4_096, batch: 64 },
        expected: (1.0, 1.0),
    },
    Curve {
        name: "classes",
        fixed: "64-64-n, softmax, 4,096 rows in batches of 64",
        sizes: &[2, 10, 100, 1_000, 4_000, 10_000],
        network: |classes| Network { widths: vec![64, 64, classes], rows: 4_096, batch: 64 },
        expected: (1.0, 1.0),
    },
];

fn main() -> anyhow::Result<()> {
    let arguments = match std::env::args_os().len() {
        // As `cargo test --benches` calls it.
        1 => Arguments::parse_from(["cost", "--brief", "--pictures", env!("CARGO_TARGET_TMPDIR")]),
        _ => Arguments::parse(),
    };
    let is_wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    for curve in CURVES.iter().filter(|curve| is_wanted(curve.name)) {
        measure(curve, &arguments)?;
    }
    if is_wanted("jobs") {
        jobs::measure(arguments.brief, arguments.pictures.as_deref())?;
    }
    if is_wanted("memory") {
        memory::measure(arguments.brief)?;
    }
    Ok(())
}

fn measure(curve: &Curve, arguments: &Arguments) -> anyhow::Result<()> {
    let Curve { name, fixed, sizes, .. } = curve;
    let sizes = if arguments.brief { &sizes[..2] } else { sizes };
    println!("\n### {name} ({fixed})\n\n| {name} | ms an epoch | peak, MB | × the formula |\n|---:|---:|---:|---:|");
    let mut costs: Vec<(f64, Cost)> = Vec::new();
    for &size in sizes {
        let cost = cost(&(curve.network)(size))?;
        let (ms, megabytes) = (cost.seconds * 1e3, cost.peak_bytes as f64 / 1e6);
        println!("| {size} | {ms:.3} | {megabytes:.2} | {:.2} |", cost.peak_bytes as f64 / cost.formula_bytes as f64);
        costs.push((size as f64, cost));
    }
    let seconds: Vec<_> = costs.iter().map(|(size, cost)| (*size, cost.seconds)).collect();
    let bytes: Vec<_> = costs.iter().map(|(size, cost)| (*size, cost.peak_bytes as f64)).collect();
    println!(
        "\nExponents at the end: time {:.2} (the mathematics: {}), memory {:.2} ({}).",
        exponent(&seconds),
        curve.expected.0,
        exponent(&bytes),
        curve.expected.1
    );
    if let Some(folder) = &arguments.pictures {
        let file = folder.join(format!("cost_{name}.svg"));
        let megabytes: Vec<_> = bytes.iter().map(|&(size, bytes)| (size, bytes / 1e6)).collect();
        picture::draw(&file, name, &[("seconds an epoch", &seconds), ("peak memory, MB", &megabytes)])?;
    }
    Ok(())
}

/// The slope of a curve's last points where both axes are logarithmic: b of y = a·xᵇ, by least squares.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let last = &points[points.len().saturating_sub(FITTED_POINTS)..];
    let mean = |values: &dyn Fn(&(f64, f64)) -> f64| last.iter().map(values).sum::<f64>() / last.len() as f64;
    let (x, y) = (mean(&|point| point.0.ln()), mean(&|point| point.1.ln()));
    let covariance = mean(&|point| (point.0.ln() - x) * (point.1.ln() - y));
    covariance / mean(&|point| (point.0.ln() - x).powi(2))
}
