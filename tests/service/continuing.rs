//! `TRAINING_START_CONTINUE`: ten epochs and then ten are twenty, to the bit.

use epochd::rpc::pb;
use epochd::rpc::pb::{JobState, StopReason};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::*;

/// The same training, that many epochs further; its seed is left to the one before.
fn further(request: &Value, epochs: i32) -> Value {
    let mut request = with(request.clone(), "epochs", json!(epochs));
    request.as_object_mut().unwrap().remove("seed");
    with(request, "start", json!("TRAINING_START_CONTINUE"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_epochs_and_then_ten_are_twenty_to_the_bit() {
    let server = Server::start();
    let api = server.api().await;
    for (number, (options, with_all)) in options().into_iter().enumerate() {
        for (rich, hidden) in hidden().iter().enumerate() {
            if rich == 1 && !with_all {
                continue;
            }
            let (whole, parts) = (format!("whole-{number}-{rich}"), format!("parts-{number}-{rich}"));
            create(&api, &whole, hidden).await;
            create(&api, &parts, hidden).await;
            let twenty = train(&api, &with(training(&whole, &options), "epochs", json!(20))).await;
            let request = training(&parts, &options);
            let first = train(&api, &with(request.clone(), "epochs", json!(10))).await;
            let second = train(&api, &further(&request, 10)).await;
            let reports = [untimed(&first), untimed(&second)].concat();
            assert_eq!(second.epochs(), (11..=20).collect::<Vec<_>>(), "{options}");
            assert_eq!(second.started.unwrap().settings.unwrap().seed, 7, "{options}");
            for (part, whole) in reports.iter().zip(untimed(&twenty)) {
                assert_eq!(*part, whole, "{options}, rich: {rich}");
            }
            assert_eq!(bits(&api, &parts).await, bits(&api, &whole).await, "{options}, rich: {rich}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_parts_with_validation_and_early_stopping_are_one_training() {
    let server = Server::start();
    let api = server.api().await;
    let options = json!({"validation_fraction": 0.3, "early_stopping": {"patience": 100}, "batch_size": 3,
        "optimizer": {"adam": {"learning_rate": 0.3}}, "diagnostics": true});
    for model_id in ["whole", "parts"] {
        create(&api, model_id, &hidden()[1]).await;
    }
    let whole = train(&api, &with(training("whole", &options), "epochs", json!(12))).await;
    let request = training("parts", &options);
    let mut reports = untimed(&train(&api, &with(request.clone(), "epochs", json!(3))).await);
    for epochs in [1, 6, 2] {
        reports.extend(untimed(&train(&api, &further(&request, epochs)).await));
    }
    assert_eq!(reports, untimed(&whole));
    // Of the best epoch, in whichever part it was.
    assert_eq!(bits(&api, "parts").await, bits(&api, "whole").await);
}

/// A process: while other tests start some, a server in this one may find its folder locked by a copy of its own handle.
fn stop(process: Process) {
    signal(process.id(), "TERM");
    assert!(process.wait().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_goes_on_after_a_restart_as_it_would_have_without() {
    let folder = tempfile::tempdir().unwrap();
    for (number, optimizer) in
        [json!({"adam": {"learning_rate": 0.1}}), json!({"sgd": {"momentum": 0.9}}), json!({"lbfgs": {}})]
            .iter()
            .enumerate()
    {
        let options = json!({"optimizer": optimizer});
        let (whole, parts) = (format!("whole-{number}"), format!("parts-{number}"));
        let request = training(&parts, &options);
        let server = Process::serve(folder.path(), &["--drain-seconds", "0"]);
        let api = server.api().await;
        create(&api, &whole, &hidden()[0]).await;
        create(&api, &parts, &hidden()[0]).await;
        let twenty = train(&api, &with(training(&whole, &options), "epochs", json!(20))).await;
        let first = train(&api, &with(request.clone(), "epochs", json!(10))).await;
        stop(server);

        let server = Process::serve(folder.path(), &["--drain-seconds", "0"]);
        let api = server.api().await;
        let second = train(&api, &further(&request, 10)).await;
        assert_eq!([untimed(&first), untimed(&second)].concat(), untimed(&twenty), "{optimizer}");
        assert_eq!(bits(&api, &parts).await, bits(&api, &whole).await, "{optimizer}");
        stop(server);

        // Also its history is there again, from its first epoch, 11.
        let server = Process::serve(folder.path(), &["--drain-seconds", "0"]);
        let later = read(server.api().await.watch(&second.job_id, Some(15)).await.unwrap()).await;
        assert_eq!(later.reports, second.reports[4..]);
        stop(server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_goes_on_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let request = training("m", &json!({}));
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    create(&api, "m", &hidden()[1]).await;
    create(&api, "whole", &hidden()[1]).await;
    train(&api, &with(training("whole", &json!({})), "epochs", json!(20))).await;
    train(&api, &with(request.clone(), "epochs", json!(10))).await;
    process.kill();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    assert_eq!(train(&api, &further(&request, 10)).await.epochs(), (11..=20).collect::<Vec<_>>());
    assert_eq!(bits(&api, "m").await, bits(&api, "whole").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_training_made_is_continued_from_epoch_1() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", &hidden()[0]).await;
    let request = training("m", &json!({}));
    let first = train(&api, &with(further(&request, 3), "seed", json!(7))).await;
    assert_eq!(first.epochs(), [1, 2, 3]);
    // As a training that starts from LATEST would begin.
    create(&api, "latest", &hidden()[0]).await;
    let latest = train(&api, &with(training("latest", &json!({})), "epochs", json!(3))).await;
    assert_eq!(first.losses(), latest.losses());
    let layers = bits(&api, "m").await;
    api.models.clone().set_weights(pb::SetWeightsRequest { model_id: "m".into(), layers }).await.unwrap();
    assert_eq!(train(&api, &further(&request, 2)).await.epochs(), [1, 2]);
    assert_eq!(train(&api, &further(&request, 2)).await.epochs(), [3, 4]);
    // LATEST and INITIAL count from 1 again.
    assert_eq!(train(&api, &with(request.clone(), "epochs", json!(2))).await.epochs(), [1, 2]);
    let initial = with(with(request, "epochs", json!(2)), "start", json!("TRAINING_START_INITIAL"));
    assert_eq!(train(&api, &initial).await.epochs(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_optimizer_cannot_go_on_and_is_told_which_one_can() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", &hidden()[0]).await;
    let request = training("m", &json!({}));
    train(&api, &with(request.clone(), "epochs", json!(2))).await;
    for other in ["sgd", "adamw", "rprop", "lbfgs"] {
        let other = with(further(&request, 2), "optimizer", json!({other: {}}));
        refused(
            api.models.clone().train(from_json::<pb::TrainRequest>(&other)).await,
            Code::FailedPrecondition,
            "use adam",
        );
    }
    // The same with other numbers may.
    let slower = with(further(&request, 2), "optimizer", json!({"adam": {"learning_rate": 1e-4}}));
    let told = train(&api, &slower).await;
    assert_eq!((told.epochs(), told.reports[0].learning_rate), (vec![3, 4], 1e-4));
}

/// As the contract says of `TRAINING_START_CONTINUE`: what was best by one measure is not compared by another.
#[tokio::test(flavor = "multi_thread")]
async fn by_another_metric_of_early_stopping_what_was_best_is_forgotten() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", &hidden()[0]).await;
    let request = training("m", &json!({"early_stopping": {}}));
    train(&api, &with(request.clone(), "epochs", json!(2))).await;
    let other = with(further(&request, 2), "early_stopping", json!({"metric": "METRIC_ACCURACY"}));
    let told = train(&api, &other).await;
    assert_eq!(told.epochs(), [3, 4]);
    assert!(told.finished.best_report.unwrap().epoch > 2);
}

/// Else `restore_best` would give the weights of the training before, which knew nothing of these rows.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_best_on_other_rows_is_not_the_best_on_these() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", &hidden()[0]).await;
    let options = json!({"early_stopping": {"patience": 100}, "optimizer": {"adam": {"learning_rate": 0.05}}});
    let mut easy = with(training("m", &options), "epochs", json!(50));
    easy["inputs"] = json!({"values": [1, 1, -1, -1]});
    easy["targets"] = json!({"values": [1, 0]});
    let first = train(&api, &easy).await;
    let second = train(&api, &further(&training("m", &options), 5)).await;
    assert!(second.losses().iter().all(|loss| *loss > first.losses()[49]), "the rows are no harder");
    let best = second.finished.best_report.as_ref().unwrap().epoch;
    assert!(best > 50, "epoch {best} is the best of {:?}", second.epochs());
}

/// The job before decides when it ends; until then nobody can tell whether its optimizer will fit.
#[tokio::test(flavor = "multi_thread")]
async fn a_queued_continuation_goes_on_from_the_job_before_it() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", &hidden()[0]).await;
    let request = training("m", &json!({}));
    let (_, first) = api.start(from_json(&with(request.clone(), "epochs", json!(2_000)))).await;
    let (_, second) = api.start(from_json(&further(&request, 2))).await;
    let (_, third) = api.start(from_json(&with(further(&request, 2), "optimizer", json!({"sgd": {}})))).await;
    read(first).await;
    assert_eq!(read(second).await.epochs(), [2_001, 2_002]);
    let third = read(third).await.finished;
    assert_eq!((third.state(), third.version), (JobState::Failed, 0));
    let failure = third.failure.unwrap();
    assert_eq!(failure.code, Code::FailedPrecondition as i32);
    assert!(failure.message.contains("use adam"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_may_begin_in_the_middle_of_a_continued_job() {
    let server = Server::start();
    let api = server.api().await;
    create(&api, "m", &hidden()[0]).await;
    let request = training("m", &json!({}));
    train(&api, &with(request.clone(), "epochs", json!(10))).await;
    let told = train(&api, &further(&request, 10)).await;
    for (from_epoch, expected) in
        [(None, 0), (Some(1), 0), (Some(10), 0), (Some(11), 0), (Some(15), 4), (Some(20), 9), (Some(21), 10)]
    {
        let later = read(api.watch(&told.job_id, from_epoch).await.unwrap()).await;
        assert_eq!(later.reports, told.reports[expected..], "from {from_epoch:?}");
    }
    // Reports come at the multiples of `report_every` that there are, and at the end.
    let told = train(&api, &with(further(&request, 5), "report_every", json!(4))).await;
    assert_eq!(told.epochs(), [24, 25]);

    // While it runs, too.
    let long = with(further(&request, 1_000_000), "batch_size", json!(1));
    let (job_id, mut events) = api.start(from_json(&long)).await;
    while next_reports(&mut events).await.last().unwrap().epoch < 40 {}
    let mut later = api.watch(&job_id, Some(30)).await.unwrap();
    assert_eq!(next_reports(&mut later).await[0].epoch, 30);
    // What is cancelled with its model goes on from there.
    api.jobs.clone().cancel_job(cancel(&job_id, true)).await.unwrap();
    let cancelled = read(events).await;
    assert_eq!(cancelled.finished.stop_reason(), StopReason::Cancelled);
    let last = cancelled.finished.last_report.unwrap().epoch;
    let on = train(&api, &with(further(&request, 2), "batch_size", json!(1))).await;
    assert_eq!(on.epochs(), [last + 1, last + 2]);
}

/// A job that is cancelled within an epoch gives the whole ones before it; what goes on from it is as if it had never stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_training_goes_on_to_the_bits_of_one_that_was_not() {
    let server = Server::start();
    let api = server.api().await;
    let options = json!({"batch_size": 1});
    for model_id in ["parts", "whole"] {
        create(&api, model_id, &hidden()[0]).await;
    }
    let request = training("parts", &options);
    let (job_id, mut events) = api.start(from_json(&with(request.clone(), "epochs", json!(1_000_000)))).await;
    next_reports(&mut events).await;
    api.jobs.clone().cancel_job(cancel(&job_id, true)).await.unwrap();
    let last = read(events).await.finished.last_report.unwrap().epoch;
    let on = train(&api, &further(&request, 3)).await;
    let whole = train(&api, &with(training("whole", &options), "epochs", json!(last + 3))).await;
    assert_eq!(untimed(&on), untimed(&whole)[last as usize..]);
    assert_eq!(bits(&api, "parts").await, bits(&api, "whole").await);
}
