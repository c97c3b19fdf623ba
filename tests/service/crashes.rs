//! A real process is killed at random instants, over one folder that lives on through all kills, while clients work.
//! After each start what they wrote down is compared with what the server tells.
//!
//! `EPOCHD_CRASHES` is the number of kills, `EPOCHD_CRASH_SEED` the seed of the clients' choices.

mod client;

use std::time::Duration;

use client::Client;
use tokio::task::JoinSet;

use crate::support::*;

const CLIENTS: u64 = 3;
/// A life ends at a random instant of it.
const LIFE: Duration = Duration::from_millis(600);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// The bits of a training that nothing interrupts.
async fn uninterrupted() -> Vec<Vec<u8>> {
    let server = Server::start();
    let api = server.api().await;
    api.create(client::creation("whole")).await;
    api.train(client::training("whole", "")).await;
    let weights = client::weights(&api, "whole", 2).await.unwrap();
    server.stop().await;
    weights
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_every_kill() {
    let (kills, seed) = (setting("EPOCHD_CRASHES", 30), setting("EPOCHD_CRASH_SEED", 7));
    println!("EPOCHD_CRASHES={kills} EPOCHD_CRASH_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let whole = uninterrupted().await;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|index| Client::new(index, seed, whole.clone())).collect();
    let mut random = Random::new(seed);
    for _ in 0..kills {
        let process = Process::serve(folder.path(), &["--drain-seconds", "0"]);
        let address = process.address;
        let life = LIFE.mul_f64(random.fraction());
        let mut lives = JoinSet::new();
        for mut client in clients {
            lives.spawn(async move {
                client.live(address).await;
                client
            });
        }
        tokio::time::sleep(life).await;
        process.kill();
        clients = lives.join_all().await;
    }
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    for client in &mut clients {
        client.end(&api).await;
        println!("{}: {:?}", client.name(), client.counts);
    }
}
