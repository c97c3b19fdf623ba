//! What the service adds to the engine, and to the calls that carry its predictions: `cargo bench --bench service`. Prints tables;
//! docs/serving-performance.md tells more.

mod codec;
mod echo;
mod load;
mod predicting;
mod rounds;
mod server;
mod table;
mod training;
#[path = "../training/workloads.rs"]
#[allow(dead_code)] // what only the engine's benchmark asks of a workload
mod workloads;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use load::Load;

/// How quick trainings and predictions are over gRPC, beside the engine and beside a bare echo.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// The most seconds of a measurement of calls
    #[arg(long, global = true, default_value_t = 3.0)]
    seconds: f64,
    /// How often sides take turns; medians count
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,
    /// Given by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Part {
    /// Trainings, by the server's clock and in the engine
    Train(training::Plan),
    /// Predictions of one row, beside a bare echo
    Predict,
    /// Predictions of a thousand rows, beside what they are made of
    Batch,
    /// Predictions while every thread trains
    Busy,
    /// A server that answers with the beginning of what it is sent
    #[command(hide = true)]
    Echo {
        /// Bytes of an answer
        answer_bytes: usize,
    },
    /// Sends the same call again and again to any gRPC server, and prints one line of JSON
    Load {
        /// Of the server, such as 127.0.0.1:50051
        address: String,
        /// Of the method, such as /epochd.v1.ModelService/Predict
        path: String,
        /// The message, in a file
        message: PathBuf,
        #[arg(long, default_value_t = 8)]
        connections: usize,
        #[arg(long, default_value_t = 4)]
        streams: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = match std::env::args_os().len() {
        // As `cargo test --benches` calls it: all of it once and briefly, to see that it works.
        1 => Arguments::parse_from(["service", "--seconds", "0.05", "--rounds", "1"]),
        _ => Arguments::parse(),
    };
    let is_brief = std::env::args_os().len() == 1;
    let (seconds, rounds) = (Duration::from_secs_f64(arguments.seconds), arguments.rounds.max(1));
    match arguments.part {
        Some(Part::Train(plan)) => training::measure(&plan, rounds),
        Some(Part::Predict) => predicting::one_row(seconds, rounds),
        Some(Part::Batch) => predicting::batch(seconds, rounds),
        Some(Part::Busy) => predicting::while_training(seconds, rounds),
        Some(Part::Echo { answer_bytes }) => echo::serve(answer_bytes),
        Some(Part::Load { address, path, message, connections, streams }) => {
            let load = Load::new(address.parse()?, &path, std::fs::read(message)?.into());
            let measured = load.run(connections, streams, seconds)?;
            println!("{}", measured.to_json());
            Ok(())
        }
        None => {
            let plan = if is_brief { training::Plan::brief() } else { training::Plan::default() };
            training::measure(&plan, rounds)?;
            predicting::one_row(seconds, rounds)?;
            predicting::batch(seconds, rounds)?;
            predicting::while_training(seconds, rounds)
        }
    }
}
