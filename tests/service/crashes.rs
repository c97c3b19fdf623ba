//! A real process is killed at random instants, over one folder that lives on through all kills, while clients work; also while
//! it starts, and while it compacts its record file. After each start what clients wrote down is compared with what the server
//! shows.
//!
//! `EPOCHD_CRASHES` is the number of kills, `EPOCHD_CRASH_SEED` the seed of all choices. Where it fails it prints what was asked
//! and answered, and keeps the folder.

mod checker;
mod client;
mod journal;
mod ledger;
mod probe;
mod reference;
mod victim;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use epochd::rpc::pb;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::*;
use checker::{Seen, judge};
use client::Client;
use journal::{Journal, PrintedOnFailure};
use ledger::{KnownModel, Ledger};
use probe::Probe;
use reference::Whole;
use victim::{COMPACTED, COMPACTING, SERVING, Victim};

/// Clients that train, and one whose model has a large record.
const CLIENTS: u64 = 4;
/// A life ends at a random instant of it, from when clients begin.
const LIFE: Duration = Duration::from_millis(600);
/// How long a compaction is waited for, and the time after its beginning in which the process is killed.
const COMPACTION_WAIT: Duration = Duration::from_millis(2_500);
const COMPACTION: Duration = Duration::from_millis(12);
/// Kills in a row while it starts, at most.
const STARTS_IN_A_ROW: u64 = 4;
/// Every so many kills `epochd check` looks at the folder, as the kill left it.
const KILLS_BETWEEN_CHECKS: u64 = 7;

/// What is killed next.
enum Aim {
    Start,
    NewFolder,
    Work,
    Compaction,
}

struct Matrix {
    folder: TempDir,
    clients: Vec<Client>,
    probe: Probe,
    random: Random,
    journal: Journal,
    /// How long the last start took.
    start_time: Duration,
    kills: u64,
    counts: BTreeMap<String, u64>,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_every_kill() {
    let (kills, seed) = (setting("EPOCHD_CRASHES", 30), setting("EPOCHD_CRASH_SEED", 7));
    println!("EPOCHD_CRASHES={kills} EPOCHD_CRASH_SEED={seed}");
    let begun = Instant::now();
    let whole = Arc::new(Whole::train().await);
    let journal = Journal::new();
    let _printed = PrintedOnFailure { journal: journal.clone(), seed };
    let mut matrix = Matrix::new(whole, seed, journal);
    while matrix.kills < kills {
        match matrix.aim() {
            Aim::Start => matrix.kill_starts(kills).await,
            Aim::NewFolder => matrix.kill_first_starts(kills).await,
            Aim::Work => matrix.kill_work(false).await,
            Aim::Compaction => matrix.kill_work(true).await,
        }
    }
    matrix.end().await;
    matrix.tell(begun.elapsed());
}

impl Matrix {
    fn new(whole: Arc<Whole>, seed: u64, journal: Journal) -> Self {
        let mut folder = tempfile::tempdir().unwrap();
        // Kept for whoever looks into a failure; removed at the end.
        folder.disable_cleanup(true);
        let client = |index: u64| {
            let ledger = Ledger::new(format!("client-{index}"), journal.clone());
            Client::new(ledger, seed.wrapping_mul(31).wrapping_add(index + 1), Arc::clone(&whole), index + 1 == CLIENTS)
        };
        let clients = (0..CLIENTS).map(client).collect();
        let (probe, random) = (Probe::new(Arc::clone(&whole), seed), Random::new(seed));
        let (start_time, counts) = (Duration::from_millis(30), BTreeMap::new());
        Self { folder, clients, probe, random, journal, start_time, kills: 0, counts }
    }

    fn aim(&mut self) -> Aim {
        match self.random.below(16) {
            0..=2 => Aim::Start,
            3 => Aim::NewFolder,
            4..=7 => Aim::Compaction,
            _ => Aim::Work,
        }
    }

    fn count(&mut self, what: impl Into<String>, count: u64) {
        *self.counts.entry(what.into()).or_default() += count;
    }

    /// Kills before it serves, or just when it does, a few times in a row.
    async fn kill_starts(&mut self, kills: u64) {
        for _ in 0..=self.random.below(STARTS_IN_A_ROW) {
            if self.kills < kills {
                let folder = self.folder.path().to_owned();
                self.kill_start(&folder, "killed").await;
            }
        }
    }

    /// The same over folders that are not there yet: in the end one of them serves.
    async fn kill_first_starts(&mut self, kills: u64) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        for _ in 0..=self.random.below(STARTS_IN_A_ROW) {
            if self.kills < kills {
                self.kill_start(&folder, "new folder: killed").await;
            }
        }
        let victim = Victim::start(&folder);
        let api = Api::connect(victim.address()).await;
        api.create(reference::creation("first")).await;
        victim.kill();
        check_folder(&folder);
    }

    async fn kill_start(&mut self, folder: &Path, what: &str) {
        let instant = self.start_time.mul_f64(self.random.fraction() * 1.2);
        let victim = Victim::start(folder);
        tokio::time::sleep(instant).await;
        let log = victim.kill();
        let last = log.last().map_or("it said anything", |line| line["message"].as_str().unwrap_or("a whole line"));
        let phase = match last {
            SERVING => format!("{what} when it had just begun to serve"),
            "it said anything" => format!("{what} while it started, before {last}"),
            _ => format!("{what} while it started, after \"{last}\""),
        };
        self.note_kill(phase, &log);
    }

    fn note_kill(&mut self, phase: String, log: &[Value]) {
        self.kills += 1;
        self.journal.note("kill", format_args!("{}: {phase}", self.kills));
        self.count(phase, 1);
        for (what, count) in noteworthy(log) {
            self.count(what, count);
        }
        if self.kills.is_multiple_of(KILLS_BETWEEN_CHECKS) {
            check_folder(self.folder.path());
            self.count("folders that `epochd check` found sound after a kill", 1);
        }
    }

    /// A life in which clients work: first everything is compared.
    async fn kill_work(&mut self, in_compaction: bool) {
        let begun = Instant::now();
        let victim = Victim::start(self.folder.path());
        let address = victim.address();
        self.start_time = begun.elapsed();
        self.journal.note("start", format_args!("it serves after {:?}", self.start_time));
        self.compare(&Api::connect(address).await).await;
        let is_killed = Arc::new(AtomicBool::new(false));
        let lives = self.begin_lives(address, &is_killed);
        let instant = LIFE.mul_f64(self.random.fraction());
        if in_compaction {
            let instant = COMPACTION.mul_f64(self.random.fraction());
            if victim.said(COMPACTING, COMPACTION_WAIT).is_some() {
                tokio::time::sleep(instant).await;
            }
        } else {
            tokio::time::sleep(instant).await;
        }
        is_killed.store(true, Ordering::SeqCst);
        let log = victim.kill();
        self.clients = lives.join_all().await;
        let count = |message: &str| log.iter().filter(|line| line["message"] == message).count();
        let phase = if count(COMPACTING) > count(COMPACTED) { "killed while it compacted" } else { "killed at work" };
        self.note_kill(phase.to_owned(), &log);
        self.note_doubts();
    }

    fn begin_lives(&mut self, address: std::net::SocketAddr, is_killed: &Arc<AtomicBool>) -> JoinSet<Client> {
        let mut lives = JoinSet::new();
        for mut client in std::mem::take(&mut self.clients) {
            let is_killed = Arc::clone(is_killed);
            lives.spawn(async move {
                client.live(address, &is_killed).await;
                client
            });
        }
        lives
    }

    /// What clients waited for when the process was killed.
    fn note_doubts(&mut self) {
        let doing = |client: &Client| match &client.ledger.doubt {
            Some(call) => Some(format!("in it: {}", call.name())),
            None => client.ledger.unfinished().next().map(|_| "in it: a training".to_owned()),
        };
        for what in self.clients.iter().filter_map(doing).collect::<Vec<_>>() {
            self.count(what, 1);
        }
    }

    async fn compare(&mut self, api: &Api) {
        let mut ledgers: Vec<Ledger> = self.clients.iter().map(|client| client.ledger.clone()).collect();
        self.probe.check(api, &mut ledgers).await;
        for (client, ledger) in self.clients.iter_mut().zip(ledgers) {
            client.ledger = ledger;
        }
    }

    /// After the last kill: everything is compared, the jobs under way come to their ends, and are compared.
    async fn end(&mut self) {
        let victim = Victim::start(self.folder.path());
        let api = Api::connect(victim.address()).await;
        self.compare(&api).await;
        for client in &mut self.clients {
            client.end(&api).await;
        }
        self.compare(&api).await;
        victim.kill();
        check_folder(self.folder.path());
        self.folder.disable_cleanup(false);
    }

    fn tell(&self, time: Duration) {
        println!("{} kills in {:.0} s", self.kills, time.as_secs_f64());
        let mut counts = self.counts.clone();
        for (what, count) in self.clients.iter().flat_map(|client| &client.ledger.counts) {
            *counts.entry(format!("client: {what}")).or_default() += count;
        }
        counts.insert("compared to the bit: weights of a version".into(), self.probe.weights_compared);
        counts.insert("compared to the bit: reports of a job".into(), self.probe.histories_compared);
        for (what, count) in counts {
            println!("{count:7} {what}");
        }
    }
}

/// What a log says that a kill led to.
fn noteworthy(log: &[Value]) -> Vec<(&'static str, u64)> {
    let count = |is_so: &dyn Fn(&Value) -> bool| log.iter().filter(|line| is_so(line)).count() as u64;
    let says = |message: &'static str| move |line: &Value| line["message"] == message;
    let resumed = |line: &Value| line["message"] == "job started" && line["epochs_done"].as_u64() > Some(0);
    let swept = log.iter().filter_map(|line| line["swept"].as_u64()).sum();
    let given_back = says("records and histories of the oldest finished jobs were given back");
    vec![
        ("log: compactions", count(&says(COMPACTED))),
        ("log: files swept", swept),
        ("log: jobs taken on", count(&says("an unfinished job is taken on"))),
        ("log: jobs that went on from a checkpoint", count(&resumed)),
        ("log: jobs set aside", count(&says("an unfinished job is set aside"))),
        ("log: passes that gave back old jobs", count(&given_back)),
    ]
}

/// `epochd check` finds no fault. One over a folder that is not there yet has nothing to say.
fn check_folder(folder: &Path) {
    if folder.join("FORMAT").exists() {
        let output = run(folder, &["check", "--data-dir", "."]);
        assert!(output.status.success(), "epochd check: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_judge_finds_what_is_missing_and_what_nobody_asked_for() {
    let model =
        |uid: &str| pb::Model { model_id: "client-0".into(), uid: uid.into(), latest_version: 1, ..Default::default() };
    let version = pb::Version { version: 1, source: pb::VersionSource::Initial.into(), ..Default::default() };
    let seen = |model: pb::Model| Seen { models: vec![(model, vec![version.clone()])], jobs: Vec::new() };
    let nobody = Ledger::new("client-0".into(), Journal::new());
    let mut knows = nobody.clone();
    knows.model = Some(KnownModel::new(model("a")));
    let says = |seen: &Seen, ledger: &Ledger, part: &str| {
        let fault = judge(seen, &mut [ledger.clone()]).unwrap_err();
        assert!(fault.contains(part), "{fault:?} does not say {part:?}");
    };
    judge(&seen(model("a")), &mut [knows.clone()]).unwrap();
    says(&Seen::default(), &knows, "is missing");
    says(&seen(model("a")), &nobody, "came back");
    says(&seen(model("b")), &knows, "another model");
    says(&seen(pb::Model { model_id: "else".into(), ..model("a") }), &knows, "nobody asked for the model");
    says(&seen(pb::Model { serving_version: Some(1), ..model("a") }), &knows, "serves Some(1)");
    says(&seen(pb::Model { pinned_versions: vec![1], ..model("a") }), &knows, "has pinned");
    says(&seen(pb::Model { latest_version: 2, ..model("a") }), &knows, "0 makers of 2");
    let job = pb::Job { job_id: "j".into(), model_uid: "a".into(), ..Default::default() };
    says(&Seen { jobs: vec![job], ..seen(model("a")) }, &knows, "nobody asked for the job");
    knows.accepts("j", "r");
    says(&seen(model("a")), &knows, "a job is missing");
}
