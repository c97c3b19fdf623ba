//! What checkpoints cost: trainings with many of them, with the usual ones and with none, in turn. EPOCHD_CHECKPOINT_SECONDS=30 is the
//! whole of it: half a minute each.

use std::time::Duration;

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, JobState};

use crate::support::*;

/// From this on the cost of the usual interval is asserted: in a shorter time noise is more than it.
const FULL_SECONDS: usize = 20;
const COST_MAX: f64 = 1.02;
const ROUNDS: usize = 5;
const ROWS: usize = 2_048;
const EPOCHS_TRIED: usize = 3;
/// As often as they may be, and never.
const MANY: Duration = Duration::from_millis(1);
const NONE: Duration = Duration::from_secs(365 * 24 * 3600);

struct Network {
    name: &'static str,
    widths: &'static [i32],
    batch_size: i32,
}

const SMALL: Network = Network { name: "digits", widths: &[64, 64, 10], batch_size: 32 };
const LARGE: [Network; 2] = [
    Network { name: "pictures", widths: &[784, 512, 256, 10], batch_size: 128 },
    Network { name: "wide", widths: &[128, 1_024, 1_024, 1], batch_size: 512 },
];

impl Network {
    fn model(&self) -> pb::CreateModelRequest {
        let layers: Vec<(i32, Activation)> = self.widths[1..].iter().map(|&units| (units, Activation::Tanh)).collect();
        model(self.name, self.widths[0], &layers)
    }

    fn training(&self, epochs: usize, interval: Duration) -> pb::TrainRequest {
        let numbers = |columns: i32, step: usize| -> pb::Matrix {
            let values = (0..ROWS * columns as usize).map(|index| (index * step % 97) as f64 / 97.0 - 0.5).collect();
            pb::Matrix { rows: Some(ROWS as i32), columns: Some(columns), values, ..Default::default() }
        };
        pb::TrainRequest {
            model_id: self.name.into(),
            inputs: Some(numbers(self.widths[0], 31)),
            targets: Some(numbers(self.widths[self.widths.len() - 1], 17)),
            epochs: Some(epochs as i32),
            batch_size: Some(self.batch_size),
            seed: Some(1),
            start: pb::TrainingStart::Initial.into(),
            checkpoint_interval: Some(interval.try_into().unwrap()),
            ..Default::default()
        }
    }

    /// How long a training took by the server's clock, and whether there was a checkpoint.
    async fn train(&self, api: &Api, epochs: usize, interval: Duration) -> (Duration, bool) {
        let told = api.train(self.training(epochs, interval)).await;
        assert_eq!(told.finished.state(), JobState::Succeeded);
        let job = api.job(&told.job_id).await;
        (api.trained_for(&told.job_id).await, job.checkpoint_time.is_some())
    }

    /// As many epochs as take so long here and now.
    async fn epochs_for(&self, api: &Api, time: Duration) -> usize {
        let (tried, _) = self.train(api, EPOCHS_TRIED, NONE).await;
        ((time.as_secs_f64() / tried.as_secs_f64() * EPOCHS_TRIED as f64) as usize).max(1)
    }

    async fn bits(&self, api: &Api) -> Vec<pb::LayerWeights> {
        bits(api, self.name).await
    }
}

/// Medians of the ratios to a training without checkpoints: with many, and with those that are usual.
async fn cost(api: &Api, network: &Network, time: Duration, rounds: usize) -> [f64; 2] {
    api.create(network.model()).await;
    let epochs = network.epochs_for(api, time).await;
    let usual = Duration::from_secs(10);
    let (mut with_many, mut with_usual) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (none, has_checkpoint) = network.train(api, epochs, NONE).await;
        assert!(!has_checkpoint);
        let expected = network.bits(api).await;
        let (many, has_checkpoint) = network.train(api, epochs, MANY).await;
        assert!(has_checkpoint, "{}: no checkpoint in {many:?}", network.name);
        assert_eq!(network.bits(api).await, expected);
        let (usual, _) = network.train(api, epochs, usual).await;
        println!("{}: {none:.2?} without, {many:.2?} with many, {usual:.2?} with one in ten seconds", network.name);
        with_many.push(many.as_secs_f64() / none.as_secs_f64());
        with_usual.push(usual.as_secs_f64() / none.as_secs_f64());
    }
    [with_many, with_usual].map(median)
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_change_no_bit_and_cost_little() {
    let seconds = size("EPOCHD_CHECKPOINT_SECONDS", 0);
    let is_full = seconds >= FULL_SECONDS;
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    let time = if is_full { Duration::from_secs(seconds as u64) } else { Duration::from_millis(300) };
    let rounds = if is_full { ROUNDS } else { 1 };
    let large = if is_full { &LARGE[..] } else { &[] };
    println!("{}", build());
    for network in [&SMALL].into_iter().chain(large) {
        let [many, usual] = cost(&api, network, time, rounds).await;
        println!("{}: {many:.3} times the time with many, {usual:.3} with one in ten seconds", network.name);
        if is_full {
            assert!(usual < COST_MAX, "checkpoints cost too much: {usual:.3}");
        }
    }
}
