//! What a folder promises: it shows the same to the next process, to one process at a time, and hides no damage.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::domain::{Failure, FailureKind};

#[test]
fn a_reopened_folder_shows_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let (queued, running, done) = (accept(&store, &model), accept(&store, &model), accept(&store, &model));
    let running = started(&store, running.job_id, begin(3));
    let done = started(&store, done.job_id, begin(3));
    store.finish_job(&finished(&done), Some(outcome(1, 2.0))).unwrap();
    store.write_reports(done.job_id, 0, &[report(1), report(2)].iter().collect()).unwrap();
    let see = |store: &Store| {
        let weights = |version| store.parameters(model.uid, version, &model.architecture).unwrap().unwrap();
        (
            store.models(None, 10).unwrap(),
            store.versions(model.uid, 0, 10).unwrap(),
            (weights(1), weights(2)),
            store.jobs(&JobFilter::default(), None, 10).unwrap(),
            store.unfinished_jobs().unwrap(),
            [&queued, &running, &done].map(|job| store.training_data(job.job_id).unwrap()),
            store.reports(done.job_id, 0).unwrap(),
        )
    };
    let before = see(&store);
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(see(&store), before);
    assert_eq!(before.4, [queued, running]);
    assert_eq!(before.5, [Some(rows()), Some(rows()), None]);
}

#[test]
fn a_second_opening_is_refused_while_the_first_lives() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let clone = first.clone();
    drop(first);
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked { folder: told }) if told == folder.path()));
    create(&clone, "still-works");
    drop(clone);
    Store::open(folder.path()).unwrap();
}

/// As by someone who takes it for stale.
#[test]
fn a_second_opening_without_the_lock_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let records = folder.path().join(RECORDS_FILE);
    let before = (fs::read(&records).unwrap(), fs::metadata(&records).unwrap().modified().unwrap());
    fs::remove_file(folder.path().join("LOCK")).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked { .. })));
    assert!(before == (fs::read(&records).unwrap(), fs::metadata(&records).unwrap().modified().unwrap()));
    store.commit_version(model.uid, draft(1), &weights(2.0)).unwrap();
}

#[test]
fn a_folder_whose_blobs_are_away_is_refused_and_costs_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let job = accept(&store, &create(&store, "xor"));
    drop(store);
    let (blobs, away) = (folder.path().join(BLOBS_FOLDER), folder.path().join("away"));
    fs::rename(&blobs, &away).unwrap();
    for _ in 0..2 {
        let refused = Store::open(folder.path()).err().unwrap();
        assert!(matches!(&refused, StoreError::Format { problem, .. } if problem.contains("mount")), "{refused}");
    }
    fs::remove_dir(&blobs).unwrap();
    fs::rename(&away, &blobs).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!((store.unfinished_jobs().unwrap(), store.training_data(job.job_id).unwrap()), (vec![job], Some(rows())));
}

#[test]
fn deletion_takes_the_damaged_reports_of_a_job_that_tells_of_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let job = accept(&store, &model);
    store.write_reports(job.job_id, 0, &[report(1)].iter().collect()).unwrap();
    let failure = Some(Failure { kind: FailureKind::DataLoss, message: "damaged".to_owned() });
    store.finish_job(&Job { state: JobState::Failed, failure, report_count: 0, ..finished(&job) }, None).unwrap();
    store.delete_model(&model.model_id).unwrap().unwrap();
    assert_eq!(store.chunk_count(job.job_id).unwrap(), 0);
}

#[test]
fn deletion_frees_the_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    store.commit_version(model.uid, draft(1), &weights(2.0)).unwrap();
    let job = accept(&store, &model);
    assert_eq!(blob_count(folder.path()), 3);
    store.delete_model(&model.model_id).unwrap();
    assert_eq!(blob_count(folder.path()), 1);
    store.finish_job(&finished(&job), Some(outcome(1, 2.0))).unwrap();
    assert_eq!(blob_count(folder.path()), 0);
}

#[test]
fn refused_calls_leave_no_blob() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    store.create_model(&super::model("xor"), &first_version(), &weights(1.0)).unwrap_err();
    store.commit_version(Uuid::now_v7(), draft(1), &weights(1.0)).unwrap();
    store.accept_job(&job(&model, "id"), [1; 16], &rows()).unwrap();
    store.accept_job(&job(&model, "id"), [2; 16], &rows()).unwrap();
    assert_eq!(blob_count(folder.path()), 2);
}

#[test]
fn orphans_are_swept_at_the_next_opening_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let job = accept(&store, &model);
    // What a kill between a blob and its record, or between a record and its blob's removal, leaves.
    store.write_weights(model.uid, raw::Parts::of_values(&weights(5.0)), None).unwrap();
    store.write_weights(Uuid::now_v7(), raw::Parts::of_values(&weights(5.0)), None).unwrap();
    let orphan = blobs::BlobName::Rows { job_id: Uuid::now_v7() };
    store.blobs().write(orphan, raw::Parts::of_training_data(&rows()).as_slice()).unwrap();
    fs::write(folder.path().join(BLOBS_FOLDER).join(format!("{orphan}.tmp")), b"cut").unwrap();
    drop(store);
    assert_eq!(blob_count(folder.path()), 6);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(blob_count(folder.path()), 2);
    assert_eq!(store.training_data(job.job_id).unwrap(), Some(rows()));
    assert_eq!(store.parameters(model.uid, 1, &model.architecture).unwrap(), Some(weights(1.0)));
}

#[test]
fn a_flipped_byte_in_a_record_is_told_other_keys_still_read_and_no_blob_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (bad, good) = (create(&store, "bad"), create(&store, "good"));
    drop(store);
    flip(&folder.path().join(RECORDS_FILE), b"needle of bad");
    let store = Store::open(folder.path()).unwrap();
    let told = |error: StoreError| matches!(error, StoreError::Corrupt { what } if what.contains(&bad.uid.to_string()));
    assert!(told(store.model(&name("bad")).unwrap_err()));
    assert!(told(store.model_by_uid(bad.uid).unwrap_err()));
    let listed = [Listed::Unreachable("bad".to_owned()), Listed::Item(good.clone())];
    assert_eq!(store.models(None, 10).unwrap(), listed);
    assert!(told(store.commit_version(bad.uid, draft(1), &weights(2.0)).unwrap_err()));
    assert_eq!(store.model(&name("good")).unwrap(), Some(good.clone()));
    assert_eq!(store.parameters(bad.uid, 1, &bad.architecture).unwrap(), Some(weights(1.0)));
    assert!(store.commit_version(good.uid, draft(1), &weights(2.0)).unwrap().is_some());
}

#[test]
fn a_flipped_byte_in_a_key_costs_no_blob_and_no_job() {
    let mut opened = 0;
    // Keys as they lie in the file: a name's, a mark's of a job that is not finished, and an index's.
    for needle in ["default/names/m-03", "default/unfinished/", "/version/0000000", "default/jobs/"] {
        for offset in 8..needle.len() {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let models: Vec<Model> = (0..6).map(|index| create(&store, &format!("m-0{index}"))).collect();
            let job = accept(&store, &models[0]);
            drop(store);
            let blobs = blob_count(folder.path());
            flip_at(&folder.path().join(RECORDS_FILE), needle.as_bytes(), offset);
            let Ok(store) = Store::open(folder.path()) else { continue };
            opened += 1;
            assert_eq!(blob_count(folder.path()), blobs, "{needle} at {offset}");
            if needle.contains("unfinished") {
                assert_eq!(store.unfinished_jobs().unwrap(), [job], "{needle} at {offset}");
            }
            for model in &models {
                // Found or not, by a number of ways: but never something else.
                if let Ok(Some(found)) = store.model(&model.model_id) {
                    assert_eq!(found, *model);
                }
            }
        }
    }
    assert!(opened > 25, "{opened}");
}

#[test]
fn what_is_damaged_can_be_deleted_and_its_name_used_again() {
    for is_name_damaged in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (bad, good) = (create(&store, "bad"), create(&store, "good"));
        let job = accept(&store, &bad);
        drop(store);
        // The envelope of the name's record: format, revision, the uid, and then the checksum.
        let name_record = [&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0xc4, 16], bad.uid.as_bytes().as_slice()].concat();
        match is_name_damaged {
            true => flip_at(&folder.path().join(RECORDS_FILE), &name_record, name_record.len()),
            false => flip(&folder.path().join(RECORDS_FILE), b"needle of bad"),
        }
        let store = Store::open(folder.path()).unwrap();
        assert!(matches!(store.model(&bad.model_id), Err(StoreError::Corrupt { .. })));
        assert_eq!(store.delete_model(&bad.model_id).unwrap(), Some(Deleted { uid: Some(bad.uid) }));
        assert_eq!(store.model(&bad.model_id).unwrap(), None);
        assert_eq!(items(store.models(None, 10).unwrap()), [good]);
        assert_ne!(create(&store, "bad").uid, bad.uid);
        // It ends as those of any deleted model do.
        assert_eq!(store.job(job.job_id).unwrap().map(|job| job.state), Some(JobState::Queued));
    }
}

#[test]
fn a_job_of_a_damaged_model_can_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let running = started(&store, accept(&store, &create(&store, "bad")).job_id, begin(3));
    drop(store);
    flip(&folder.path().join(RECORDS_FILE), b"needle of bad");
    let store = Store::open(folder.path()).unwrap();
    let end = finished(&running);
    assert!(matches!(store.finish_job(&end, Some(outcome(1, 2.0))), Err(StoreError::Corrupt { .. })));
    let Finished::Committed { job, .. } = store.finish_job(&end, None).unwrap() else { panic!("not its owner") };
    assert_eq!(*job, end);
}

#[test]
fn a_damaged_job_goes_with_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let bad = job(&model, "needle of a job");
    store.accept_job(&bad, [0; 16], &rows()).unwrap();
    drop(store);
    flip(&folder.path().join(RECORDS_FILE), b"request_id\xafneedle of a job");
    let store = Store::open(folder.path()).unwrap();
    let listed = [Listed::Unreachable(bad.job_id.to_string())];
    assert_eq!(store.jobs(&JobFilter::default(), None, 10).unwrap(), listed);
    store.delete_model(&model.model_id).unwrap();
    assert_eq!(store.jobs(&JobFilter::default(), None, 10).unwrap(), []);
    assert_eq!(store.job(bad.job_id).unwrap(), None);
    assert_eq!(store.known_request(&bad.request_id, [0; 16]).unwrap(), None);
    assert_eq!(blob_count(folder.path()), 0);
    drop(store);
    assert_eq!(faults(folder.path()), [""; 0]);
}

#[test]
fn a_damaged_job_keeps_its_data_and_does_not_keep_the_others_from_going_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let (bad, good) = (job(&model, "needle of a job"), job(&model, "another"));
    store.accept_job(&bad, [0; 16], &rows()).unwrap();
    store.accept_job(&good, [0; 16], &rows()).unwrap();
    drop(store);
    flip(&folder.path().join(RECORDS_FILE), b"request_id\xafneedle of a job");
    let store = Store::open(folder.path()).unwrap();
    assert!(matches!(store.job(bad.job_id), Err(StoreError::Corrupt { .. })));
    assert_eq!(store.unfinished_jobs().unwrap(), [good]);
    assert_eq!(store.training_data(bad.job_id).unwrap(), Some(rows()));
}

#[test]
fn a_flipped_byte_in_a_blob_or_a_lost_blob_is_told_and_others_still_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    store.commit_version(model.uid, draft(1), &weights(2.0)).unwrap();
    store.commit_version(model.uid, draft(1), &weights(3.0)).unwrap();
    let job = accept(&store, &model);
    let blobs: Vec<PathBuf> = sorted_blobs(folder.path(), ".weights");
    flip(&blobs[0], &1.2_f32.to_le_bytes());
    fs::remove_file(&blobs[1]).unwrap();
    flip(&sorted_blobs(folder.path(), ".rows")[0], &2.0_f32.to_le_bytes());
    let parameters = |version| store.parameters(model.uid, version, &model.architecture);
    assert!(matches!(parameters(1), Err(StoreError::Corrupt { what }) if what.contains(&model.uid.to_string())));
    assert!(matches!(parameters(2), Err(StoreError::Corrupt { what }) if what.contains("missing")));
    assert_eq!(parameters(3).unwrap(), Some(weights(3.0)));
    assert!(matches!(store.training_data(job.job_id), Err(StoreError::Corrupt { .. })));
    fs::remove_file(&sorted_blobs(folder.path(), ".rows")[0]).unwrap();
    assert!(matches!(store.training_data(job.job_id), Err(StoreError::Corrupt { .. })));
    assert!(store.delete_model(&model.model_id).unwrap().is_some());
}

#[test]
fn a_folder_that_is_not_whole_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    create(&Store::open(folder.path()).unwrap(), "xor");
    let path = |name: &str| folder.path().join(name);
    fs::rename(path("FORMAT"), path("kept")).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Format { .. })));
    fs::write(path("FORMAT"), "epochd store format 2").unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Format { .. })));
    fs::rename(path("kept"), path("FORMAT")).unwrap();
    fs::rename(path(RECORDS_FILE), path("kept")).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Corrupt { .. })));
    for bytes in [&b""[..], b"not a database", &[0; 100_000]] {
        fs::write(path(RECORDS_FILE), bytes).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Corrupt { .. })));
    }
    fs::rename(path("kept"), path(RECORDS_FILE)).unwrap();
    assert!(Store::open(folder.path()).unwrap().model(&name("xor")).unwrap().is_some());
    assert_eq!(blob_count(folder.path()), 1);
}

#[test]
fn a_creation_that_was_cut_short_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("records.redb.tmp"), b"cut short").unwrap();
    drop(Store::open(folder.path()).unwrap());
    fs::remove_file(folder.path().join("FORMAT")).unwrap();
    create(&Store::open(folder.path()).unwrap(), "xor");
}

fn sorted_blobs(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder.join(BLOBS_FOLDER)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    paths.sort();
    paths
}

/// Flips a bit in the middle of every occurrence of `needle`.
pub(super) fn flip(path: &Path, needle: &[u8]) {
    flip_at(path, needle, needle.len() / 2);
}

/// Flips a bit so many bytes behind the start of each place where `needle` stands.
fn flip_at(path: &Path, needle: &[u8], offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<usize> = (0..=bytes.len() - needle.len()).filter(|&at| bytes[at..].starts_with(needle)).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + offset] ^= 1);
    fs::write(path, bytes).unwrap();
}

#[test]
fn half_a_folder_is_refused_before_its_blobs_are_taken_for_orphans() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    create(&store, "xor");
    drop(store);
    for name in [RECORDS_FILE, "FORMAT"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let refused = Store::open(folder.path()).err().unwrap();
    assert!(matches!(&refused, StoreError::Format { problem, .. } if problem.contains("holds blobs")), "{refused}");
    assert_eq!(blob_count(folder.path()), 1);
}

#[test]
fn the_end_of_a_training_that_is_lost_is_told_and_one_that_was_given_back_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let job = accept(&store, &model);
    let job = started(&store, job.job_id, begin(3));
    let continuation = Continuation { head: vec![1], vectors: Vec::new() };
    let outcome = Outcome { continuation: Some(continuation.clone()), ..outcome(1, 2.0) };
    store.finish_job(&finished(&job), Some(outcome)).unwrap();
    assert_eq!(store.continuation(model.uid, 2).unwrap(), Some(continuation));
    let state = fs::read_dir(folder.path().join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    let state = state.into_iter().find(|path| path.extension().is_some_and(|it| it == "state")).unwrap();
    fs::remove_file(state).unwrap();
    assert!(matches!(store.continuation(model.uid, 2), Err(StoreError::Corrupt { what }) if what.contains("missing")));
    store.commit_version(model.uid, draft(2), &weights(3.0)).unwrap();
    assert_eq!(store.continuation(model.uid, 2).unwrap(), None);
}
