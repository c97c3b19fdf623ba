//! What each verb promises, in a folder and in memory alike.

use std::thread;

use super::*;
use crate::domain::CheckpointMark;
use crate::store::records::Transaction;

#[test]
fn a_created_model_is_found_by_name_and_by_uid_with_its_weights() {
    on_both(|store| {
        let model = create(store, "xor");
        assert_eq!(store.model(&name("xor")).unwrap(), Some(model.clone()));
        assert_eq!(store.model_by_uid(model.uid).unwrap(), Some(model.clone()));
        assert_eq!(store.version(model.uid, 1).unwrap(), Some(first_version()));
        assert_eq!(store.parameters(model.uid, 1, &model.architecture).unwrap(), Some(weights(1.0)));
        assert_eq!(store.model(&name("other")).unwrap(), None);
        assert_eq!(store.version(model.uid, 2).unwrap(), None);
        assert_eq!(store.parameters(model.uid, 2, &model.architecture).unwrap(), None);
    });
}

#[test]
fn a_taken_name_is_refused_and_of_many_at_once_one_wins() {
    on_both(|store| {
        create(store, "xor");
        let again = store.create_model(&model("xor"), &first_version(), &weights(2.0));
        assert!(matches!(again, Err(StoreError::Exists { model_id }) if model_id == name("xor")));
        let create = || store.create_model(&model("race"), &first_version(), &weights(1.0));
        let outcomes = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let taken = |outcome: &&Result<(), StoreError>| matches!(outcome, Err(StoreError::Exists { .. }));
        assert_eq!(outcomes.iter().filter(taken).count(), 7);
    });
}

#[test]
fn models_are_listed_by_name_page_after_page() {
    on_both(|store| {
        for model_id in ["b", "a.1", "c", "a", "a-1"] {
            create(store, model_id);
        }
        let page = |after: Option<&str>, limit| {
            let models = items(store.models(after.map(name).as_ref(), limit).unwrap());
            models.into_iter().map(|model| model.model_id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 10), ["a", "a-1", "a.1", "b", "c"]);
        assert_eq!(page(None, 2), ["a", "a-1"]);
        assert_eq!(page(Some("a-1"), 2), ["a.1", "b"]);
        assert_eq!(page(Some("aa"), 10), ["b", "c"]);
        assert!(page(Some("c"), 10).is_empty() && page(None, 0).is_empty());
    });
}

#[test]
fn deletion_frees_the_name_and_keeps_the_jobs_that_are_not_finished() {
    on_both(|store| {
        let model = create(store, "xor");
        let job = accept(store, &model);
        assert_eq!(store.delete_model(&model.model_id).unwrap(), Some(Deleted { uid: Some(model.uid) }));
        assert_eq!(store.delete_model(&model.model_id).unwrap(), None);
        assert_eq!(store.model(&name("xor")).unwrap(), None);
        assert_eq!(items(store.versions(model.uid, 0, 10).unwrap()), []);
        assert_eq!(store.parameters(model.uid, 1, &model.architecture).unwrap(), None);
        assert_eq!(store.job(job.job_id).unwrap(), Some(job));
        assert_ne!(create(store, "xor").uid, model.uid);
    });
}

#[test]
fn a_committed_version_takes_the_next_number() {
    on_both(|store| {
        let model = create(store, "xor");
        let version = store.commit_version(model.uid, draft(1), &weights(2.0)).unwrap().unwrap().version;
        assert_eq!((version.version, version.base_version, version.create_time), (2, Some(1), at(9)));
        assert_eq!(version.preprocessing, draft(1).preprocessing);
        assert_eq!(store.version(model.uid, 2).unwrap(), Some(version.clone()));
        assert_eq!(store.parameters(model.uid, 2, &model.architecture).unwrap(), Some(weights(2.0)));
        let updated = store.model_by_uid(model.uid).unwrap().unwrap();
        assert_eq!((updated.latest_version, updated.update_time), (2, at(9)));
        assert_eq!(items(store.versions(model.uid, 0, 10).unwrap()), [first_version(), version.clone()]);
        assert_eq!(items(store.versions(model.uid, 1, 10).unwrap()), [version]);
        assert_eq!(items(store.versions(model.uid, 0, 1).unwrap()), [first_version()]);
        assert_eq!(store.commit_version(Uuid::now_v7(), draft(1), &weights(2.0)).unwrap(), None);
    });
}

#[test]
fn versions_committed_by_many_threads_have_no_gaps_and_keep_their_own_weights() {
    on_both(|store| {
        let model = create(store, "xor");
        thread::scope(|scope| {
            for thread in 0..6_u32 {
                scope.spawn(move || {
                    for round in 0..5_u32 {
                        let seed = (thread * 5 + round) as f32;
                        let version =
                            store.commit_version(model.uid, draft(1), &weights(seed)).unwrap().unwrap().version;
                        let stored = store.parameters(model.uid, version.version, &architecture()).unwrap();
                        assert_eq!(stored, Some(weights(seed)));
                    }
                });
            }
        });
        let numbers: Vec<u32> = items(store.versions(model.uid, 0, 100).unwrap()).iter().map(|it| it.version).collect();
        assert_eq!(numbers, (1..=31).collect::<Vec<_>>());
        assert_eq!(store.model_by_uid(model.uid).unwrap().unwrap().latest_version, 31);
    });
}

#[test]
fn weights_of_another_network_are_refused() {
    on_both(|store| {
        let model = create(store, "xor");
        store.commit_version(model.uid, draft(1), &Values::F64(vec![0.0; 9])).unwrap();
        store.commit_version(model.uid, draft(1), &Values::F32(vec![0.0; 8])).unwrap();
        for version in [2, 3] {
            let wrong = store.parameters(model.uid, version, &model.architecture);
            assert!(matches!(wrong, Err(StoreError::Corrupt { .. })));
        }
    });
}

#[test]
fn an_accepted_job_is_found_with_its_data_until_it_is_finished() {
    on_both(|store| {
        let model = create(store, "xor");
        let job = accept(store, &model);
        assert_eq!(store.job(job.job_id).unwrap(), Some(job.clone()));
        assert_eq!(store.training_data(job.job_id).unwrap(), Some(rows()));
        assert_eq!(store.unfinished_jobs().unwrap(), std::slice::from_ref(&job));
        let started = started(store, job.job_id, begin(3));
        let expected = Job {
            state: JobState::Running,
            attempt: 1,
            starts_without_checkpoint: 1,
            trained_on: vec!["epochd on x86_64".into()],
            base_version: Some(1),
            start_time: Some(at(3)),
            ..job.clone()
        };
        assert_eq!(started, expected);
        assert_eq!(store.unfinished_jobs().unwrap(), std::slice::from_ref(&started));
        let end = store.finish_job(&finished(&started), Some(outcome(1, 2.0))).unwrap();
        let expected = Job { version: Some(2), ..finished(&started) };
        assert_eq!(end, Finished::Committed { job: Box::new(expected.clone()), pruned: Vec::new() });
        assert_eq!(store.job(job.job_id).unwrap(), Some(expected));
        assert_eq!(store.parameters(model.uid, 2, &model.architecture).unwrap(), Some(weights(2.0)));
        assert_eq!(store.training_data(job.job_id).unwrap(), None);
        assert_eq!(store.unfinished_jobs().unwrap(), []);
        assert_eq!(store.start_job(job.job_id, begin(4)).unwrap(), Started::Gone);
        assert_eq!(store.start_job(Uuid::now_v7(), begin(4)).unwrap(), Started::Gone);
    });
}

#[test]
fn the_last_checkpoint_of_the_attempt_that_runs_is_kept_until_the_job_ends() {
    on_both(|store| {
        let model = create(store, "xor");
        let job = accept(store, &model);
        let checkpoint = |head: u8| Continuation { head: vec![head], vectors: vec![weights(f32::from(head)).into()] };
        let mark = |epoch| CheckpointMark { time: at(4), epoch };
        assert_eq!(store.checkpoint(job.job_id).unwrap(), None);
        assert_eq!(started(store, job.job_id, begin(3)).starts_without_checkpoint, 1);
        assert_eq!(started(store, job.job_id, begin(3)).starts_without_checkpoint, 2);
        for epoch in [5, 6] {
            let job = store.write_checkpoint(job.job_id, 2, mark(epoch), &checkpoint(epoch as u8)).unwrap().unwrap();
            assert_eq!((job.checkpoint, job.starts_without_checkpoint), (Some(mark(epoch)), 0));
        }
        // An attempt that does not own the job any more changes nothing.
        assert_eq!(store.write_checkpoint(job.job_id, 1, mark(9), &checkpoint(9)).unwrap(), None);
        assert_eq!(store.checkpoint(job.job_id).unwrap(), Some(checkpoint(6)));
        let job = store.job(job.job_id).unwrap().unwrap();
        store.finish_job(&finished(&job), None).unwrap();
        assert_eq!(store.checkpoint(job.job_id).unwrap(), None);
        assert_eq!(store.write_checkpoint(job.job_id, 2, mark(9), &checkpoint(9)).unwrap(), None);
        assert_eq!(store.checkpoint(job.job_id).unwrap(), None);
    });
}

#[test]
fn a_stop_in_good_order_is_told_once_and_its_starts_are_no_crashes() {
    on_both(|store| {
        assert!(!store.take_good_stop().unwrap());
        store.mark_good_stop().unwrap();
        assert!(store.take_good_stop().unwrap());
        assert!(!store.take_good_stop().unwrap());
        let job = accept(store, &create(store, "xor"));
        store.start_job(job.job_id, begin(3)).unwrap();
        store.start_job(job.job_id, begin(3)).unwrap();
        store.mark_good_stop().unwrap();
        assert!(store.take_good_stop().unwrap());
        assert_eq!(store.job(job.job_id).unwrap().unwrap().starts_without_checkpoint, 0);
        let after_good_stop = JobStart { is_after_good_stop: true, ..begin(3) };
        assert_eq!(started(store, job.job_id, after_good_stop).starts_without_checkpoint, 1);
    });
}

#[test]
fn chunks_of_a_history_are_counted() {
    on_both(|store| {
        let job_id = Uuid::now_v7();
        for chunk in 0..20 {
            assert_eq!(store.chunk_count(job_id).unwrap(), chunk);
            store.write_reports(job_id, chunk, &[report(chunk)].iter().collect()).unwrap();
        }
    });
}

#[test]
fn a_job_that_another_attempt_owns_or_that_is_finished_is_not_overwritten() {
    on_both(|store| {
        let model = create(store, "xor");
        let job = accept(store, &model);
        let first = started(store, job.job_id, begin(3));
        let second = started(store, job.job_id, begin(4));
        assert_eq!((second.attempt, second.start_time), (2, Some(at(3))));
        let late = store.finish_job(&finished(&first), Some(outcome(1, 2.0))).unwrap();
        assert_eq!(late, Finished::NotOwner(Box::new(second.clone())));
        assert_eq!(store.model_by_uid(model.uid).unwrap().unwrap().latest_version, 1);
        let end = store.finish_job(&finished(&second), Some(outcome(1, 3.0))).unwrap();
        let Finished::Committed { job: end, .. } = end else { panic!("{end:?}") };
        let again = store.finish_job(&finished(&second), Some(outcome(1, 4.0))).unwrap();
        assert_eq!(again, Finished::NotOwner(end));
        assert_eq!(store.versions(model.uid, 0, 10).unwrap().len(), 2);
    });
}

#[test]
fn a_job_whose_model_is_gone_ends_as_cancelled_without_a_version() {
    on_both(|store| {
        let model = create(store, "xor");
        let job = accept(store, &model);
        let started = started(store, job.job_id, begin(3));
        store.delete_model(&model.model_id).unwrap();
        let end = store.finish_job(&finished(&started), Some(outcome(1, 2.0))).unwrap();
        let Finished::Committed { job: end, .. } = end else { panic!("{end:?}") };
        assert_eq!((end.state, end.version, end.end_time), (JobState::Cancelled, None, Some(at(5))));
        assert_eq!(store.job(job.job_id).unwrap(), Some(*end));
        assert_eq!(store.version(model.uid, 2).unwrap(), None);
    });
}

#[test]
fn jobs_that_finish_while_weights_are_set_lose_no_version() {
    on_both(|store| {
        let model = create(store, "xor");
        let jobs: Vec<Job> = (0..4).map(|_| accept(store, &model)).collect();
        let finish = |job: &Job| {
            let started = started(store, job.job_id, begin(3));
            match store.finish_job(&finished(&started), Some(outcome(1, 2.0))).unwrap() {
                Finished::Committed { job, .. } => job.version.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let set = || store.commit_version(model.uid, draft(1), &weights(3.0)).unwrap().unwrap().version.version;
        let mut numbers: Vec<u32> = thread::scope(|scope| {
            let finishing: Vec<_> = jobs.iter().map(|job| scope.spawn(move || finish(job))).collect();
            let setting: Vec<_> = (0..4).map(|_| scope.spawn(set)).collect();
            finishing.into_iter().chain(setting).map(|thread| thread.join().unwrap()).collect()
        });
        numbers.sort_unstable();
        assert_eq!(numbers, (2..=9).collect::<Vec<_>>());
    });
}

#[test]
fn a_known_request_id_follows_its_job_or_is_refused() {
    on_both(|store| {
        let model = create(store, "xor");
        let first = job(&model, "request/1 ü");
        assert_eq!(store.accept_job(&first, [1; 16], &rows()).unwrap(), Accepted::New);
        let same = store.accept_job(&job(&model, "request/1 ü"), [1; 16], &rows()).unwrap();
        assert_eq!(same, Accepted::Same(Box::new(first.clone())));
        let other = store.accept_job(&job(&model, "request/1 ü"), [2; 16], &rows()).unwrap();
        assert_eq!(other, Accepted::RequestIdTaken);
        assert_eq!(store.unfinished_jobs().unwrap(), [first]);
        accept(store, &model);
        accept(store, &model);
        assert_eq!(store.unfinished_jobs().unwrap().len(), 3);
    });
}

#[test]
fn of_many_jobs_with_one_request_id_at_once_one_is_new_and_the_others_follow_it() {
    on_both(|store| {
        let model = create(store, "xor");
        let accept = || {
            let job = job(&model, "once");
            (job.job_id, store.accept_job(&job, [1; 16], &rows()).unwrap())
        };
        let outcomes = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(accept)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let new: Vec<Uuid> =
            outcomes.iter().filter(|(_, it)| *it == Accepted::New).map(|(job_id, _)| *job_id).collect();
        assert_eq!(new.len(), 1);
        for (job_id, outcome) in outcomes {
            match outcome {
                Accepted::New => assert_eq!(store.training_data(job_id).unwrap(), Some(rows())),
                Accepted::Same(job) => {
                    assert_eq!(job.job_id, new[0]);
                    assert_eq!(store.training_data(job_id).unwrap(), None);
                }
                Accepted::RequestIdTaken => panic!("the request was the same"),
            }
        }
    });
}

#[test]
fn jobs_are_listed_newest_first_by_filter_page_after_page() {
    on_both(|store| {
        let (xor, iris) = (create(store, "xor"), create(store, "iris"));
        let jobs: Vec<Job> = [&xor, &iris, &xor, &xor].map(|model| accept(store, model)).into();
        store.start_job(jobs[2].job_id, begin(3)).unwrap();
        let list = |filter: JobFilter, before: Option<usize>, limit| {
            let before = before.map(|index| jobs[index].job_id);
            let listed = items(store.jobs(&filter, before, limit).unwrap());
            let index = |job: &Job| jobs.iter().position(|it| it.job_id == job.job_id).unwrap();
            listed.iter().map(index).collect::<Vec<_>>()
        };
        let all = JobFilter::default;
        let of_xor = || JobFilter { model_uid: Some(xor.uid), ..all() };
        assert_eq!(list(all(), None, 10), [3, 2, 1, 0]);
        assert_eq!(list(all(), None, 2), [3, 2]);
        assert_eq!(list(all(), Some(2), 10), [1, 0]);
        assert_eq!(list(of_xor(), None, 10), [3, 2, 0]);
        assert_eq!(list(of_xor(), Some(2), 10), [0]);
        assert_eq!(list(JobFilter { model_id: Some(name("iris")), ..all() }, None, 10), [1]);
        assert_eq!(list(JobFilter { state: Some(JobState::Queued), ..of_xor() }, None, 10), [3, 0]);
        assert_eq!(list(JobFilter { state: Some(JobState::Failed), ..all() }, None, 10), [0; 0]);
        assert_eq!(list(all(), Some(0), 10), [0; 0]);
    });
}

#[test]
fn a_chunk_of_reports_is_replaced_as_a_whole() {
    on_both(|store| {
        let job_id = Uuid::now_v7();
        let reports: Vec<EpochReport> = (1..=crate::limits::CHUNK_REPORTS as u32).map(report).collect();
        assert_eq!(store.reports(job_id, 0).unwrap(), None);
        let all: Reports = reports.iter().collect();
        store.write_reports(job_id, 0, &all.part(0..2)).unwrap();
        store.write_reports(job_id, 0, &all).unwrap();
        store.write_reports(job_id, 1, &Reports::default()).unwrap();
        assert_eq!(store.reports(job_id, 0).unwrap(), Some(all));
        assert_eq!(store.reports(job_id, 1).unwrap(), Some(Reports::default()));
        assert_eq!(store.reports(Uuid::now_v7(), 0).unwrap(), None);
    });
}

/// As they were stored before they were stored in columns.
#[test]
fn a_chunk_of_reports_in_message_pack_is_read() {
    on_both(|store| {
        let (job_id, reports) = (Uuid::now_v7(), (1..=20).map(report).collect::<Vec<_>>());
        let chunk = |number, payload| Transaction::new().put_chunk(keys::chunk(job_id, number), payload);
        store.records().commit(chunk(0, rmp_serde::to_vec(&reports).unwrap())).unwrap();
        store.records().commit(chunk(1, rmp_serde::to_vec(&reports[..0]).unwrap())).unwrap();
        store.records().commit(chunk(2, b"neither".to_vec())).unwrap();
        assert_eq!(store.reports(job_id, 0).unwrap(), Some(reports.iter().collect()));
        assert_eq!(store.reports(job_id, 1).unwrap(), Some(Reports::default()));
        let damaged = store.reports(job_id, 2);
        assert!(matches!(&damaged, Err(StoreError::Corrupt { what }) if what.contains("00000002")), "{damaged:?}");
    });
}

#[test]
fn a_jobs_record_of_a_build_that_kept_no_fingerprint_still_reads() {
    let job = job(&model("xor"), "");
    let mut bytes = rmp_serde::to_vec_named(&job).unwrap();
    let entry = [&rmp_serde::to_vec("fingerprint").unwrap()[..], &[4]].concat();
    let at = bytes.windows(entry.len()).position(|bytes| bytes == entry).unwrap();
    bytes.drain(at..at + entry.len());
    // A map of so many entries: one less.
    assert_eq!(bytes[0], 0xde);
    bytes[2] -= 1;
    assert_eq!(rmp_serde::from_slice::<Job>(&bytes).unwrap(), Job { fingerprint: None, ..job });
}

/// Where this fails, stored histories would be misread: new fields go to the end, with `#[serde(default)]`.
#[test]
fn the_order_of_a_reports_fields_is_part_of_the_format() {
    let report = EpochReport {
        epoch: 1,
        loss: 2.0,
        validation_loss: Some(3.0),
        metrics: Metrics {
            accuracy: Some(4.0),
            misclassified_rows: Some(5),
            mean_absolute_error: Some(6.0),
            ..Metrics::default()
        },
        validation_metrics: None,
        learning_rate: 7.0,
        elapsed_micros: 8,
        samples_per_second: 9.0,
        diagnostics: Vec::new(),
    };
    // As it was before there were more metrics, and diagnostics.
    let plain = (1, 2.0, Some(3.0), (Some(4.0), Some(5), Some(6.0), None::<f64>), None::<()>, 7.0, 8, 9.0);
    let plain = rmp_serde::to_vec(&plain).unwrap();
    assert_eq!(rmp_serde::from_slice::<EpochReport>(&plain).unwrap(), report);
    // An array of nine, in it one of seventeen; then the fields in their order, nil where there is nothing.
    let bytes = rmp_serde::to_vec(&report).unwrap();
    let numbers = rmp_serde::to_vec(&(1, 2.0, Some(3.0))).unwrap();
    let metrics = rmp_serde::to_vec(&(Some(4.0), Some(5), Some(6.0))).unwrap();
    let timings = rmp_serde::to_vec(&(7.0, 8, 9.0)).unwrap();
    let expected =
        [&[0x99], &numbers[1..], &[0xdc, 0, 17], &metrics[1..], &[0xc0; 14], &[0xc0], &timings[1..], &[0x90]].concat();
    assert_eq!(bytes, expected);
}
