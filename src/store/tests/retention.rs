//! What is kept of what is over, and that the rest is given back: the files too.

use super::*;
use crate::domain::Start;
use crate::store::jobs::StoredRequest;
use crate::store::records::Transaction;

fn numbers(store: &Store, model: &Model) -> Vec<u32> {
    items(store.versions(model.uid, 0, 1_000).unwrap()).iter().map(|version| version.version).collect()
}

fn keeping(versions_per_model: u32) -> Retention {
    Retention { versions_per_model, ..Retention::default() }
}

/// As [`on_both`], with other bounds; and the folder, where there is one.
fn on_both_keeping(retention: Retention, promise: impl Fn(&Store, Option<&Path>)) {
    let folder = tempfile::tempdir().unwrap();
    promise(&Store::open(folder.path()).unwrap().with_retention(retention), Some(folder.path()));
    promise(&Store::ephemeral().unwrap().with_retention(retention), None);
}

fn set(store: &Store, model: &Model, seed: f32) -> CommittedVersion {
    store.commit_version(model.uid, draft(1), &weights(seed)).unwrap().unwrap()
}

fn finish(store: &Store, model: &Model, request_id: &str, reports: u64) -> Job {
    let job = job(model, request_id);
    assert_eq!(store.accept_job(&job, [0; 16], &rows()).unwrap(), Accepted::New);
    store.write_reports(job.job_id, 0, &[report(1)].iter().collect()).unwrap();
    let running = started(store, job.job_id, begin(3));
    let end = Job { report_count: reports, ..finished(&running) };
    match store.finish_job(&end, None).unwrap() {
        Finished::Committed { job, .. } => *job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_newest_versions_are_kept_and_the_first() {
    on_both_keeping(keeping(3), |store, folder| {
        let model = create(store, "xor");
        let pruned: Vec<Vec<u32>> = (2..=7).map(|version| set(store, &model, version as f32).pruned).collect();
        assert_eq!(pruned, [vec![], vec![], vec![], vec![2], vec![3], vec![4]]);
        assert_eq!(numbers(store, &model), [1, 5, 6, 7]);
        assert_eq!(store.version(model.uid, 4).unwrap(), None);
        assert_eq!(store.parameters(model.uid, 4, &model.architecture).unwrap(), None);
        assert_eq!(store.parameters(model.uid, 5, &model.architecture).unwrap(), Some(weights(5.0)));
        assert_eq!(store.parameters(model.uid, 1, &model.architecture).unwrap(), Some(weights(1.0)));
        assert!(folder.is_none_or(|folder| blob_count(folder) == 4));
    });
}

#[test]
fn versions_that_are_pinned_or_served_are_kept_until_they_are_not_any_more() {
    on_both_keeping(keeping(1), |store, folder| {
        let model = create(store, "xor");
        set(store, &model, 2.0);
        assert!(
            matches!(store.pin_version(model.uid, 2, true).unwrap(), Choice::Done(now) if now.pinned_versions == [2].into())
        );
        assert_eq!(set(store, &model, 3.0).pruned, [0; 0]);
        store.set_serving_version(model.uid, Some(3)).unwrap();
        assert_eq!(set(store, &model, 4.0).pruned, [0; 0]);
        assert_eq!(set(store, &model, 5.0).pruned, [4]);
        assert_eq!(numbers(store, &model), [1, 2, 3, 5]);
        store.pin_version(model.uid, 2, false).unwrap();
        store.set_serving_version(model.uid, None).unwrap();
        assert_eq!(set(store, &model, 6.0).pruned, [2, 3, 5]);
        assert_eq!(numbers(store, &model), [1, 6]);
        assert!(folder.is_none_or(|folder| blob_count(folder) == 2));
        assert_eq!(store.pin_version(model.uid, 5, true).unwrap(), Choice::NoVersion);
        assert_eq!(store.pin_version(Uuid::now_v7(), 1, true).unwrap(), Choice::NoModel);
    });
}

#[test]
fn no_more_than_so_many_versions_are_pinned() {
    let store = Store::ephemeral().unwrap();
    let model = create(&store, "xor");
    let bound = crate::limits::PINNED_VERSIONS_MAX as u32;
    for version in 1..=bound {
        assert!(matches!(store.pin_version(model.uid, version, true).unwrap(), Choice::Done(_)), "{version}");
        set(&store, &model, 2.0);
    }
    assert_eq!(store.pin_version(model.uid, bound + 1, true).unwrap(), Choice::TooMany(bound as usize));
    assert!(matches!(store.pin_version(model.uid, bound, true).unwrap(), Choice::Done(_)));
}

#[test]
fn the_base_of_an_unfinished_job_is_kept_for_its_next_attempt() {
    on_both_keeping(keeping(1), |store, _| {
        let model = create(store, "xor");
        set(store, &model, 2.0);
        let job = accept(store, &model);
        let running = started(store, job.job_id, begin(3));
        for seed in 3..6 {
            set(store, &model, seed as f32);
        }
        assert_eq!(numbers(store, &model), [1, 2, 5]);
        let end = store.finish_job(&finished(&running), Some(outcome(2, 6.0))).unwrap();
        // It is unfinished until that commit.
        assert!(matches!(end, Finished::Committed { pruned, .. } if pruned == [5]));
        set(store, &model, 7.0);
        assert_eq!(numbers(store, &model), [1, 7]);
    });
}

#[test]
fn a_job_starts_from_the_latest_version_or_the_first_and_stays_with_it() {
    on_both_keeping(keeping(1), |store, _| {
        let model = create(store, "xor");
        set(store, &model, 2.0);
        set(store, &model, 3.0);
        let latest = accept(store, &model);
        let mut initial = job(&model, "");
        initial.settings.start = Start::Initial;
        store.accept_job(&initial, [0; 16], &rows()).unwrap();
        for (job, base) in [(latest, 3), (initial, 1)] {
            assert_eq!(started(store, job.job_id, begin(3)).base_version, Some(base));
            set(store, &model, 4.0);
            assert_eq!(started(store, job.job_id, begin(4)).base_version, Some(base));
        }
    });
}

/// A process that tries again counts once: what its first try wrote may have been reported as failed.
#[test]
fn a_start_that_is_tried_again_by_the_same_process_is_one() {
    on_both(|store| {
        let job = accept(store, &create(store, "xor"));
        for (attempts_before, attempt) in [(0, 1), (0, 1), (1, 2), (1, 2)] {
            let job = started(store, job.job_id, JobStart { attempts_before, ..begin(3) });
            assert_eq!((job.attempt, job.starts_without_checkpoint), (attempt, attempt));
        }
    });
}

#[test]
fn what_a_job_goes_on_with_is_recorded_by_the_attempt_that_read_it() {
    on_both(|store| {
        let job = accept(store, &create(store, "xor"));
        let first = started(store, job.job_id, begin(3));
        let second = started(store, job.job_id, begin(4));
        assert_eq!(store.record_continued(job.job_id, first.attempt, (7, 5)).unwrap(), None);
        for _ in 0..2 {
            let job = store.record_continued(job.job_id, second.attempt, (7, 5)).unwrap().unwrap();
            assert_eq!((job.settings.seed, job.epochs_before, job.attempt), (7, 5, 2));
            assert_eq!(store.job(job.job_id).unwrap(), Some(job));
        }
        store.finish_job(&finished(&second), None).unwrap();
        assert_eq!(store.record_continued(job.job_id, 2, (8, 6)).unwrap(), None);
    });
}

/// Whether a job that goes on from another's end finds it, however many versions and starts came since.
#[test]
fn the_end_of_a_training_is_kept_for_the_job_that_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap().with_retention(keeping(1));
    let model = create(&store, "xor");
    let trained = started(&store, accept(&store, &model).job_id, begin(3));
    store.finish_job(&finished(&trained), Some(outcome(1, 2.0))).unwrap();
    let states = || {
        let blobs = std::fs::read_dir(folder.path().join(BLOBS_FOLDER)).unwrap().flatten();
        blobs.filter(|blob| blob.path().extension().is_some_and(|it| it == "state")).count()
    };
    let [first, second] = [(), ()].map(|()| {
        let mut job = job(&model, "");
        job.settings.start = Start::Continue;
        store.accept_job(&job, [0; 16], &rows()).unwrap();
        started(&store, job.job_id, begin(4))
    });
    set(&store, &model, 3.0);
    assert_eq!(states(), 1);
    drop(store);
    let store = Store::open(folder.path()).unwrap().with_retention(keeping(1));
    assert_eq!((states(), store.continuation(model.uid, 2).unwrap()), (1, outcome(1, 2.0).continuation));
    store.finish_job(&finished(&first), Some(outcome(2, 4.0))).unwrap();
    assert_eq!(states(), 2, "the latest version's, and the other job's base");
    let end = Job { state: JobState::Cancelled, ..finished(&second) };
    store.finish_job(&end, None).unwrap();
    assert_eq!(states(), 1, "that of the latest version");
    assert_eq!(store.continuation(model.uid, 2).unwrap(), None);
    assert_eq!(store.continuation(model.uid, 4).unwrap(), outcome(2, 4.0).continuation);
}

#[test]
fn a_long_job_that_just_ended_is_kept_before_short_ones_that_came_and_ended_while_it_ran() {
    on_both_keeping(Retention { jobs: 3, ..Retention::default() }, |store, _| {
        let model = create(store, "xor");
        let end = |job: &Job, time| {
            let running = started(store, job.job_id, begin(3));
            store.finish_job(&Job { end_time: Some(at(time)), ..finished(&running) }, None).unwrap();
        };
        let [long, cancelled] = [(), ()].map(|()| accept(store, &model));
        let short: Vec<Job> = (0..4).map(|_| accept(store, &model)).collect();
        end(&cancelled, 5);
        short.iter().zip(10..).for_each(|(job, time)| end(job, time));
        end(&long, 20);
        store.prune_jobs().unwrap();
        let kept = items(store.jobs(&JobFilter::default(), None, 10).unwrap());
        let ids: Vec<Uuid> = kept.iter().map(|job| job.job_id).collect();
        assert_eq!(ids, [short[3].job_id, short[2].job_id, long.job_id]);
    });
}

#[test]
fn starts_and_commits_that_meet_leave_every_job_its_base() {
    on_both_keeping(keeping(1), |store, _| {
        let model = create(store, "xor");
        for _ in 0..20 {
            let job = accept(store, &model);
            let begun = std::thread::scope(|scope| {
                let setting = scope.spawn(|| (0..5).for_each(|_| drop(set(store, &model, 2.0))));
                let begun = started(store, job.job_id, begin(3));
                setting.join().unwrap();
                begun
            });
            let base = begun.base_version.unwrap();
            assert!(store.parameters(model.uid, base, &model.architecture).unwrap().is_some(), "version {base}");
            store.finish_job(&finished(&begun), None).unwrap();
        }
    });
}

#[test]
fn finished_jobs_past_a_bound_go_with_their_histories_and_request_ids() {
    let bounds = |jobs_per_model, jobs, reports| Retention { jobs_per_model, jobs, reports, ..Retention::default() };
    for (retention, kept) in [
        (bounds(100, 100, 1_000), vec![0, 1, 2, 3, 4, 5]),
        (bounds(2, 100, 1_000), vec![2, 3, 4, 5]),
        (bounds(100, 3, 1_000), vec![3, 4, 5]),
        (bounds(100, 100, 25), vec![4, 5]),
        (bounds(100, 100, 1), vec![5]),
    ] {
        on_both_keeping(Retention::default(), |store, _| {
            let models = [create(store, "xor"), create(store, "iris")];
            let unfinished = accept(store, &models[0]);
            let jobs: Vec<Job> =
                (0..6).map(|index| finish(store, &models[index % 2], &format!("request {index}"), 10)).collect();
            let store = store.clone().with_retention(retention);
            assert_eq!(store.prune_jobs().unwrap(), 6 - kept.len());
            for (index, job) in jobs.iter().enumerate() {
                let is_kept = kept.contains(&index);
                assert_eq!(store.job(job.job_id).unwrap().is_some(), is_kept, "job {index} of {retention:?}");
                assert_eq!(store.reports(job.job_id, 0).unwrap().is_some(), is_kept);
                assert_eq!(store.known_request(&job.request_id, [0; 16]).unwrap().is_some(), is_kept);
            }
            let of_iris = JobFilter { model_uid: Some(models[1].uid), ..JobFilter::default() };
            let listed = items(store.jobs(&of_iris, None, 10).unwrap());
            assert_eq!(listed.len(), kept.iter().filter(|index| *index % 2 == 1).count());
            assert_eq!(store.job(unfinished.job_id).unwrap(), Some(unfinished));
        });
    }
}

#[test]
fn a_request_id_that_is_another_jobs_by_now_stays_with_that_one() {
    on_both_keeping(Retention { jobs: 1, ..Retention::default() }, |store, _| {
        let model = create(store, "xor");
        let old = finish(store, &model, "again", 1);
        finish(store, &model, "other", 1);
        // As after the deletion of a model whose damaged job had it.
        let taken = store.records().get::<StoredRequest>(&keys::request("other")).unwrap().unwrap().value;
        let key = keys::request("again");
        store.records().commit(Transaction::new().put(key.clone(), &taken).unwrap()).unwrap();
        store.prune_jobs().unwrap();
        assert_eq!(store.job(old.job_id).unwrap(), None);
        assert_eq!(store.records().get::<StoredRequest>(&key).unwrap().unwrap().value.job_id, taken.job_id);
    });
}

#[test]
fn a_pass_comes_by_itself_every_so_many_jobs() {
    let retention = Retention { jobs: 10, ..Retention::default() };
    let store = Store::ephemeral().unwrap().with_retention(retention);
    let model = create(&store, "xor");
    let most = (0..40).map(|_| {
        finish(&store, &model, "", 1);
        store.jobs(&JobFilter::default(), None, 100).unwrap().len()
    });
    assert!(most.max().unwrap() < 20);
}

#[test]
fn deletion_gives_back_the_histories_of_finished_jobs_and_keeps_their_records() {
    on_both(|store| {
        let model = create(store, "xor");
        let done = finish(store, &model, "a", 1);
        let waiting = accept(store, &model);
        store.delete_model(&model.model_id).unwrap();
        let kept = Job { report_count: 0, ..done.clone() };
        assert_eq!(store.job(done.job_id).unwrap(), Some(kept.clone()));
        assert_eq!(store.reports(done.job_id, 0).unwrap(), None);
        assert_eq!(store.known_request("a", [0; 16]).unwrap(), Some(Accepted::Same(Box::new(kept.clone()))));
        assert_eq!(items(store.jobs(&JobFilter::default(), None, 10).unwrap()), [waiting, kept]);
    });
}

#[test]
fn jobs_that_end_after_their_model_leave_no_history() {
    on_both(|store| {
        let model = create(store, "xor");
        let running: [Job; 2] = std::array::from_fn(|_| {
            let job = accept(store, &model);
            store.write_reports(job.job_id, 0, &[report(1)].iter().collect()).unwrap();
            started(store, job.job_id, begin(3))
        });
        store.delete_model(&model.model_id).unwrap();
        for (running, result) in running.iter().zip([None, Some(outcome(1, 2.0))]) {
            store.write_reports(running.job_id, 1, &[report(2)].iter().collect()).unwrap();
            let end = Job { report_count: 2, ..finished(running) };
            let Finished::Committed { job, .. } = store.finish_job(&end, result).unwrap() else {
                panic!("not its owner")
            };
            assert_eq!((job.report_count, job.version), (0, None));
            assert_eq!(store.job(running.job_id).unwrap(), Some(*job));
            assert_eq!(store.reports(running.job_id, 0).unwrap(), None);
            assert_eq!(store.reports(running.job_id, 1).unwrap(), None);
        }
    });
}

#[test]
fn the_record_file_gives_back_the_space_of_histories() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let bytes = || std::fs::metadata(folder.path().join(RECORDS_FILE)).unwrap().len();
    let (doomed, kept) = (create(&store, "doomed"), create(&store, "kept"));
    let reports: Reports = (1..=1024).map(noisy_report).collect::<Vec<_>>().iter().collect();
    let done = finish(&store, &doomed, "", 600 * 1024);
    for chunk in 0..600 {
        store.write_reports(done.job_id, chunk, &reports).unwrap();
    }
    let full = bytes();
    assert!(full > 30 << 20, "{full}");
    store.delete_model(&doomed.model_id).unwrap();
    // The file is compacted after the deletion was answered; the next write waits for it.
    set(&store, &kept, 2.0);
    assert!(bytes() < full / 10, "{} of {full}", bytes());
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.parameters(kept.uid, 2, &kept.architecture).unwrap(), Some(weights(2.0)));
}

/// A store with a model of some ten megabytes of reports in its record file, which is deleted then.
fn with_much_deleted(folder: &Path) -> Store {
    let store = Store::open(folder).unwrap();
    let doomed = create(&store, "doomed");
    let done = finish(&store, &doomed, "", 80 * 1024);
    let reports: Reports = (1..=1024).map(noisy_report).collect::<Vec<_>>().iter().collect();
    (0..80).for_each(|chunk| store.write_reports(done.job_id, chunk, &reports).unwrap());
    store.delete_model(&doomed.model_id).unwrap();
    store
}

#[test]
fn room_is_made_of_what_was_deleted_before_and_after_a_start() {
    for is_reopened in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = with_much_deleted(folder.path());
        // As a kill leaves it: a close in good order would give back some of it.
        let killed = tempfile::tempdir().unwrap();
        if is_reopened {
            std::fs::copy(folder.path().join(RECORDS_FILE), killed.path().join(RECORDS_FILE)).unwrap();
            std::fs::copy(folder.path().join("FORMAT"), killed.path().join("FORMAT")).unwrap();
            std::fs::create_dir(killed.path().join(BLOBS_FOLDER)).unwrap();
            store = Store::open(killed.path()).unwrap();
        }
        let full = store.used_bytes().unwrap();
        assert!(full > 8 << 20, "{full}");
        store.make_room().unwrap();
        assert!(store.used_bytes().unwrap() < full / 4, "{} of {full}", store.used_bytes().unwrap());
    }
}

#[test]
fn a_long_read_is_not_held_up_by_a_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_much_deleted(folder.path());
    let full = store.used_bytes().unwrap();
    let during = store.records().read_long(|_| {
        store.make_room()?;
        // It reads while the other read is under way.
        assert_eq!(store.model(&name("doomed"))?, None);
        store.used_bytes()
    });
    assert_eq!(during.unwrap(), full);
    store.make_room().unwrap();
    assert!(store.used_bytes().unwrap() < full / 4);
}

#[test]
fn a_smaller_bound_on_versions_is_kept_at_a_start() {
    on_both_keeping(keeping(10), |store, folder| {
        let model = create(store, "xor");
        for version in 2..=7 {
            set(store, &model, version as f32);
        }
        store.pin_version(model.uid, 3, true).unwrap();
        let store = store.clone().with_retention(keeping(2));
        let pruned = store.prune_versions().unwrap();
        assert_eq!(pruned, [PrunedVersions { uid: model.uid, versions: vec![2, 4, 5] }]);
        assert_eq!(numbers(&store, &model), [1, 3, 6, 7]);
        assert_eq!(store.parameters(model.uid, 6, &model.architecture).unwrap(), Some(weights(6.0)));
        assert!(folder.is_none_or(|folder| blob_count(folder) == 4));
        assert_eq!(store.prune_versions().unwrap(), []);
    });
}

#[test]
fn what_a_start_sweeps_counts_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let orphan = folder.path().join(BLOBS_FOLDER).join(format!("{}.rows", Uuid::now_v7()));
    std::fs::write(&orphan, vec![0; 20 << 20]).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert!(!orphan.exists());
    assert!(store.used_bytes().unwrap() < 16 << 20, "{}", store.used_bytes().unwrap());
}

#[test]
fn a_folder_is_not_larger_after_many_versions_than_after_a_few() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap().with_retention(keeping(5));
    let model = create(&store, "xor");
    let bytes = || {
        let files = std::fs::read_dir(folder.path().join(BLOBS_FOLDER)).unwrap().flatten();
        let blobs: u64 = files.map(|entry| entry.metadata().unwrap().len()).sum();
        blobs + std::fs::metadata(folder.path().join(RECORDS_FILE)).unwrap().len()
    };
    let churn = |versions: u32| (0..versions).for_each(|seed| drop(set(&store, &model, seed as f32)));
    churn(50);
    let early = bytes();
    // EPOCHD_CHURN=10000 is the whole of it: a test's disk syncs some hundred times a second.
    let versions = std::env::var("EPOCHD_CHURN").map_or(500, |text| text.parse().expect("EPOCHD_CHURN is a number"));
    churn(versions);
    assert_eq!(numbers(&store, &model).len(), 6);
    assert_eq!(blob_count(folder.path()), 6);
    assert!(bytes() <= early, "{} bytes, after {early}", bytes());
}

#[test]
fn a_job_that_is_given_back_while_its_model_is_deleted_does_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let model = create(&store, "xor");
    let jobs = ["first", "second"].map(|request_id| finish(&store, &model, request_id, 1));
    let (_, deletion) = store.deletion(&model.model_id).unwrap().unwrap();
    let tight = store.clone().with_retention(Retention { jobs: 1, ..Retention::default() });
    assert_eq!(tight.prune_jobs().unwrap(), 1);
    assert!(matches!(store.records().commit(deletion), Err(StoreError::Conflict { .. })));
    store.delete_model(&model.model_id).unwrap();
    assert_eq!(store.job(jobs[0].job_id).unwrap(), None);
    assert_eq!(store.job(jobs[1].job_id).unwrap().map(|job| job.report_count), Some(0));
    drop((store, tight));
    assert_eq!(faults(folder.path()), [""; 0]);
}
