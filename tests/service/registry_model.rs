//! Random orders of everything that one caller can ask of models and jobs, beside a reference of plain lists that foretells each
//! answer: `registry.rs` has callers that come at once, and can judge only what holds in every order.
//!
//! Three names and three request ids, so that names are soon another model's and ids are soon used again; and a server that keeps three
//! versions, so that most are given back. Before the next command everything has come to rest: no job is left that could go on but the
//! endless one at the head of a model's queue, and that one has told its first epoch. So each answer follows from the commands before
//! it, and a failure is repeatable and small.
//!
//! Not foretold are ids, times, and what a training makes of weights. Those are learned from the first answer, and stay so: a version's
//! weights as long as it is kept, a finished job's record and reports for ever, and the outcome of a training for every other of the
//! same weights, seed and settings.

use std::sync::OnceLock;
use std::time::Duration;

use epochd::config::RawConfig;
use epochd::rpc::pb::{JobState, TrainingStart};
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::support::Server;

mod follow;
mod jobs;
mod lists;
mod machine;
mod models;
mod pages;

use machine::Machine;

const NAMES: [&str; 3] = ["a", "b", "c"];
const REQUEST_IDS: [&str; 3] = ["one", "two", "three"];
/// Newest versions that the server keeps.
const VERSIONS_KEPT: i32 = 3;
/// Unfinished jobs of one model that the server takes.
const QUEUED_MAX: usize = 3;
/// For one command: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Chooses one of several things, however many there will be.
type Which = usize;

/// A version by its distance from the one after the latest: 0 is not there yet, and what lies far back is gone or was never there.
type Back = i32;

/// What is asked.
#[derive(Clone, Debug)]
enum Command {
    Create { name: usize, seed: u64, given: Option<i8> },
    Delete { name: usize },
    Train(Training),
    Cancel { job: Which, commit: bool },
    SetWeights { name: usize, layer: i32, value: i8 },
    GetWeights { name: usize, version: Option<Back> },
    Predict { name: usize, version: Option<Back> },
    Serve { name: usize, version: Option<Back> },
    Pin { name: usize, version: Back, pinned: Option<bool> },
    ListModels { size: i32 },
    ListVersions { name: usize, size: i32 },
    ListJobs { name: Option<usize>, state: JobState, size: i32 },
    Watch { job: Which, from: Which },
    GetJob { job: Which },
}

/// A training, as far as one differs from another.
#[derive(Clone, Debug)]
struct Training {
    name: usize,
    start: TrainingStart,
    /// `None`: more than any test waits for.
    epochs: Option<i32>,
    is_adam: bool,
    seed: Option<u64>,
    request_id: Option<usize>,
}

/// As many as `PROPTEST_CASES` asks for.
fn cases(by_default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(by_default)
}

fn name() -> impl Strategy<Value = usize> {
    // One of them more often, so that its versions and jobs are many.
    prop_oneof![5 => Just(0_usize), 2 => Just(1), 1 => Just(2)]
}

fn training() -> impl Strategy<Value = Training> {
    let start = prop_oneof![
        1 => Just(TrainingStart::Unspecified),
        1 => Just(TrainingStart::Latest),
        3 => Just(TrainingStart::Initial),
        3 => Just(TrainingStart::Continue),
    ];
    // Few kinds, so that many a training is another one once more.
    let epochs = prop_oneof![5 => Just(Some(2)), 1 => Just(Some(3)), 3 => Just(None)];
    let seed = prop_oneof![1 => Just(None), 4 => Just(Some(0)), 1 => Just(Some(1))];
    let is_adam = prop::bool::weighted(0.8);
    let request_id = prop::option::weighted(0.3, 0..REQUEST_IDS.len());
    (name(), start, epochs, is_adam, seed, request_id).prop_map(|(name, start, epochs, is_adam, seed, request_id)| {
        // A seed that the server draws would make each such training the only one of its kind.
        let seed = if start == TrainingStart::Continue { seed } else { seed.or(Some(0)) };
        Training { name, start, epochs, is_adam, seed, request_id }
    })
}

fn asking() -> impl Strategy<Value = Command> {
    let which = || 0_usize..100;
    let version = || prop::option::weighted(0.7, 0..7);
    let size = || 1..=3;
    let state = prop_oneof![
        2 => Just(JobState::Unspecified),
        1 => Just(JobState::Queued),
        1 => Just(JobState::Running),
        1 => Just(JobState::Succeeded),
        1 => Just(JobState::Failed),
        1 => Just(JobState::Cancelled),
    ];
    prop_oneof![
        2 => (name(), version()).prop_map(|(name, version)| Command::GetWeights { name, version }),
        3 => (name(), version()).prop_map(|(name, version)| Command::Predict { name, version }),
        1 => size().prop_map(|size| Command::ListModels { size }),
        2 => (name(), size()).prop_map(|(name, size)| Command::ListVersions { name, size }),
        2 => (prop::option::of(name()), state, size())
            .prop_map(|(name, state, size)| Command::ListJobs { name, state, size }),
        3 => (which(), which()).prop_map(|(job, from)| Command::Watch { job, from }),
        2 => which().prop_map(|job| Command::GetJob { job }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let which = || 0_usize..100;
    let given = prop::option::weighted(0.3, -1_i8..=1);
    let version = prop::option::weighted(0.7, 0..7);
    prop_oneof![
        5 => (name(), 0_u64..2, given).prop_map(|(name, seed, given)| Command::Create { name, seed, given }),
        1 => name().prop_map(|name| Command::Delete { name }),
        8 => training().prop_map(Command::Train),
        4 => (which(), prop::bool::weighted(0.7)).prop_map(|(job, commit)| Command::Cancel { job, commit }),
        6 => (name(), 0..2, -3_i8..=3).prop_map(|(name, layer, value)| Command::SetWeights { name, layer, value }),
        3 => (name(), version).prop_map(|(name, version)| Command::Serve { name, version }),
        5 => (name(), 0..6, prop_oneof![Just(None), Just(Some(true)), Just(Some(false)), Just(Some(false))])
            .prop_map(|(name, version, pinned)| Command::Pin { name, version, pinned }),
        12 => asking(),
    ]
}

/// The callers of all machines.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

/// A thread for each name, so that the endless jobs of two models leave one for the third.
fn server() -> Server {
    Server::with(RawConfig {
        ephemeral: true,
        train_threads: Some(NAMES.len()),
        versions_per_model: VERSIONS_KEPT as u32,
        queued_jobs_per_model_max: QUEUED_MAX,
        ..Server::raw()
    })
}

async fn run(commands: Vec<Command>) {
    let server = server();
    let mut machine = Machine::new(server.api().await);
    for command in commands {
        let told = format!("{command:?}");
        tokio::time::timeout(PATIENCE, machine.apply(command)).await.unwrap_or_else(|_| panic!("{told} hangs"));
    }
    tokio::time::timeout(PATIENCE, machine.finish()).await.expect("it should come to its end");
    server.stop().await;
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig { cases: cases(40), max_shrink_iters: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_one_caller_asks_in_whatever_order_each_answer_is_as_foretold(
        commands in prop::collection::vec(command(), 1..120),
    ) {
        runtime().block_on(run(commands));
    }
}
