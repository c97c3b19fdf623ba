//! The work of a server with two training threads, of one job and of many at once. All numbers of jobs take turns, so that a slow minute
//! meets all of them; the medians of the rounds are told.

use std::path::Path;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::client::{connect, create, train, training};
use crate::picture;
use crate::server::Server;
use crate::training::Network;

const JOBS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Epochs of all jobs together.
const EPOCHS: usize = 2_048;
const EPOCHS_BRIEF: usize = 4;
const ROUNDS: usize = 5;

/// A name, and what each job trains: one whose steps run on one thread, and one whose steps take both.
fn networks() -> [(&'static str, Network, usize); 2] {
    [
        ("64-64-10, batches of 32", Network { widths: vec![64, 64, 10], rows: 2_048, batch: 32 }, EPOCHS),
        ("784-128-10, batches of 64", Network { widths: vec![784, 128, 10], rows: 2_048, batch: 64 }, EPOCHS / 4),
    ]
}

pub fn measure(is_brief: bool, pictures: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for (place, (name, network, epochs)) in networks().into_iter().enumerate() {
        println!("\n### jobs ({name})\n\n| jobs | samples a second | × one job |\n|---:|---:|---:|");
        let (jobs, epochs, rounds) = if is_brief { (&JOBS[..2], EPOCHS_BRIEF, 1) } else { (&JOBS[..], epochs, ROUNDS) };
        let mut samples = vec![Vec::new(); jobs.len()];
        for _ in 0..rounds {
            for (samples, &count) in samples.iter_mut().zip(jobs) {
                samples.push(runtime.block_on(samples_per_second(&network, count, epochs / count))?);
            }
        }
        let points: Vec<_> =
            jobs.iter().zip(&mut samples).map(|(&count, samples)| (count as f64, median(samples))).collect();
        for &(count, samples) in &points {
            println!("| {count} | {samples:.0} | {:.2} |", samples / points[0].1);
        }
        if let Some(folder) = pictures {
            let file = folder.join(format!("cost_jobs_{place}.svg"));
            picture::draw(&file, "jobs", &[(&format!("samples a second, {name}"), &points)])?;
        }
    }
    Ok(())
}

/// From the first request to the end of the last job, with all that a server does for each.
async fn samples_per_second(network: &Network, jobs: usize, epochs: usize) -> anyhow::Result<f64> {
    let server = Server::start(&["--train-threads", "2"])?;
    let mut client = connect(&server).await?;
    let mut requests = Vec::new();
    for job in 0..jobs {
        let model_id = format!("model-{job}");
        create(&mut client, &model_id, network).await?;
        requests.push(training(&model_id, network, epochs as i32));
    }
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for request in requests {
        let mut client = client.clone();
        running.spawn(async move { train(&mut client, request).await });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok((jobs * epochs * network.rows) as f64 / begun.elapsed().as_secs_f64())
}

/// The middle of an odd number of numbers.
fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
