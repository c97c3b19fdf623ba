//! A flipped bit in each page of the record file, under a real server: it may refuse to start, tell of damage or miss a record, and
//! even end; but it shows no other value than what was stored, and costs no weights.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use epochd::rpc::pb;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tonic::{Code, Status};

use crate::checks::{bytes, folder};
use crate::support::*;

/// Bits flipped in each page that is in use, one start of a server each; `EPOCHD_FLIPS` sets it.
const FLIPS: usize = 1;
const PAGE_BYTES: usize = 4_096;

fn flips() -> usize {
    std::env::var("EPOCHD_FLIPS").map_or(FLIPS, |text| text.parse().expect("EPOCHD_FLIPS is a number"))
}

/// Places in every page that is not empty, in bytes that are not zero.
fn places(content: &[u8]) -> Vec<usize> {
    let used_of = |(number, page): (usize, &[u8])| {
        let used: Vec<usize> = (0..page.len()).filter(|&at| page[at] != 0).collect();
        let count = flips().min(used.len());
        (0..count).map(|flip| number * PAGE_BYTES + used[(2 * flip + 1) * used.len() / (2 * count)]).collect::<Vec<_>>()
    };
    content.chunks(PAGE_BYTES).enumerate().flat_map(used_of).collect()
}

/// Everything that must not change, each by a call of its own.
async fn readings(api: &Api, job_id: &str) -> Vec<Result<String, Status>> {
    let mut readings = Vec::new();
    for version in [1, 2] {
        let request = pb::GetWeightsRequest { version: Some(version), ..get_weights("xor") };
        let answer = api.models.clone().get_weights(request).await;
        readings.push(answer.map(|answer| format!("{:?}", answer.into_inner())));
    }
    let answer = api.jobs.clone().get_job(pb::GetJobRequest { job_id: job_id.into() }).await;
    readings.push(answer.map(|answer| format!("{:?}", answer.into_inner())));
    readings
}

fn weights_in(folder: &Path) -> BTreeSet<PathBuf> {
    let names = fs::read_dir(folder.join("blobs")).unwrap().map(|entry| PathBuf::from(entry.unwrap().file_name()));
    names.filter(|name| name.extension().is_some_and(|kind| kind == "weights")).collect()
}

fn restore(good: &[(PathBuf, Vec<u8>)], from: &Path, place: &Path) {
    drop(fs::remove_dir_all(place));
    fs::create_dir_all(place.join("blobs")).unwrap();
    for (path, bytes) in good {
        fs::write(place.join(path.strip_prefix(from).unwrap()), bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_any_page_of_the_records_shows_no_other_value_and_costs_no_weights() {
    let folder = folder().await;
    let place = folder.path().join("copy");
    let good = bytes(folder.path());
    restore(&good, folder.path(), &place);
    let (job_id, expected) = {
        let process = Process::serve(&place, &[]);
        let api = process.api().await;
        let jobs = api.jobs.clone().list_jobs(pb::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
        let job_id = jobs.last().unwrap().job_id.clone();
        let readings = readings(&api, &job_id).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        (job_id, readings)
    };
    let weights = weights_in(&place);
    assert_eq!(weights.len(), 2);
    let (_, content) = good.iter().find(|(path, _)| path.ends_with("records.redb")).unwrap();
    let (mut starts, mut ended, mut told) = (0, 0, 0);
    for at in places(content) {
        restore(&good, folder.path(), &place);
        let mut bad = content.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(place.join("records.redb"), bad).unwrap();
        starts += 1;
        match Process::try_serve(&place) {
            Err(_) => ended += 1,
            Ok(mut process) => {
                let api = process.api().await;
                let read = readings(&api, &job_id).await;
                let has_ended = process.has_ended();
                for (reading, expected) in read.iter().zip(&expected) {
                    match reading {
                        Ok(reading) => assert_eq!(reading, expected, "byte {at}"),
                        Err(status) => {
                            let is_known = [Code::DataLoss, Code::NotFound, Code::Unavailable].contains(&status.code());
                            assert!(is_known || has_ended, "byte {at}: {status:?}");
                        }
                    }
                }
                told += usize::from(read.iter().any(Result::is_err));
            }
        }
        assert_eq!(weights_in(&place), weights, "byte {at}");
    }
    println!("{starts} starts over a flipped bit: {ended} refused, {told} with an answer that told of it");
    assert!(starts > 10 && ended + told > 0, "{starts} starts, {ended} refused, {told} told");
}

/// Flips a bit of the last chunk of reports in a data folder; the chunk's number.
fn damage_last_chunk(folder: &Path) -> u64 {
    const LOG: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("log");
    let database = Database::open(folder.join("records.redb")).unwrap();
    let read = database.begin_read().unwrap().open_table(LOG).unwrap();
    let (key, value) =
        read.last().unwrap().map(|(key, value)| (key.value().to_owned(), value.value().to_vec())).unwrap();
    let mut damaged = value;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let write = database.begin_write().unwrap();
    write.open_table(LOG).unwrap().insert(key.as_str(), damaged.as_slice()).unwrap();
    write.commit().unwrap();
    key.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_last_reports_are_damaged_fails_and_tells_those_before_and_the_best_of_them() {
    const CHUNK_REPORTS: u64 = 1_024;
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 2)).await;
    let (job_id, mut events) = api.start(endless("xor")).await;
    while next_reports(&mut events).await.last().unwrap().epoch < 2_500 {}
    process.kill();
    let chunk = damage_last_chunk(folder.path());
    assert!(chunk > 0);

    let process = Process::serve(folder.path(), &[]);
    let told = read(process.api().await.watch(&job_id, None).await.unwrap()).await;
    let job = told.finished.clone();
    assert_eq!((job.state(), job.failure.unwrap().code), (pb::JobState::Failed, Code::DataLoss as i32));
    assert_eq!(told.epochs(), (1..=(chunk * CHUNK_REPORTS) as i32).collect::<Vec<_>>());
    assert_eq!(job.last_report.as_ref(), told.reports.last());
    let best = told.losses().into_iter().fold(f64::INFINITY, f64::min);
    assert_eq!(job.best_report.unwrap().loss, best);
}
