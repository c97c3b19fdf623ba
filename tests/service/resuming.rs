//! Jobs go on after a crash: to the bit, in their order, and not for ever.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use epochd::rpc::pb::{JobState, StopReason};
use serde_json::{Value, json};
use tonic::{Code, Streaming};

use crate::support::*;

/// How often each job's process is killed; with EPOCHD_KILLS more often.
const KILLS: u32 = 2;
/// How long each process lives, at most, and for how long each one is to find something to train.
const LIFE: Duration = Duration::from_millis(1_000);
const WORK: Duration = Duration::from_millis(500);

fn kills() -> u32 {
    std::env::var("EPOCHD_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS)
}

/// A training that writes checkpoints as often as it may.
fn long_training(model_id: &str, options: &Value, epochs: i32) -> Value {
    let mut request = with(training(model_id, options), "epochs", json!(epochs));
    request["report_every"] = json!(7);
    request["checkpoint_interval"] = json!("0.001s");
    request
}

/// As many epochs as take that long here and now.
async fn epochs_of(api: &Api, hidden: &Value, options: &Value, time: Duration) -> i32 {
    const TRIED: i32 = 3_000;
    create(api, "tried", hidden).await;
    let request = with(long_training("tried", options, TRIED), "checkpoint_interval", json!("100s"));
    let told = train(api, &request).await;
    let elapsed = Duration::try_from(told.reports.last().unwrap().elapsed.unwrap()).unwrap();
    (time.as_secs_f64() / elapsed.as_secs_f64() * f64::from(TRIED)) as i32 + TRIED
}

/// The same training on that many rows.
fn on_rows(options: &Value, count: i32) -> Value {
    let at = |index: i32, step: f64| (f64::from(index) * step).fract() * 2.0 - 1.0;
    let rows: Vec<(f64, f64)> = (0..count).map(|index| (at(index, 0.618_034), at(index, 0.414_214))).collect();
    let mut options = options.clone();
    options["inputs"] = json!({"values": rows.iter().flat_map(|&(x, y)| [x, y]).collect::<Vec<_>>()});
    options["targets"] =
        json!({"values": rows.iter().map(|&(x, y)| f64::from(u8::from(x * x + y * y < 0.6))).collect::<Vec<_>>()});
    options
}

/// Epochs that are long enough for their number to stay in bounds. L-BFGS converges soon, so each of its own is to take long.
fn long_epochs(options: &Value) -> Value {
    if options["optimizer"].get("lbfgs").is_some() {
        let never_converges = json!({"lbfgs": {"tolerance_gradient": 0, "tolerance_change": 0}});
        return with(on_rows(options, 20_000), "optimizer", never_converges);
    }
    if kills() > 5 { on_rows(options, 130) } else { options.clone() }
}

/// What a watcher has seen, through any number of connections.
#[derive(Default)]
struct Seen {
    reports: Vec<pb::EpochReport>,
    finished: Option<pb::TrainingFinished>,
}

impl Seen {
    fn next_epoch(&self) -> i32 {
        self.reports.last().map_or(1, |report| report.epoch + 1)
    }

    /// Reads until the job has ended or the connection has.
    async fn read(&mut self, mut events: Streaming<pb::TrainEvent>) {
        while let Ok(Some(event)) = events.message().await {
            match event.event {
                Some(Event::Epochs(batch)) => self.reports.extend(batch.reports),
                Some(Event::Finished(finished)) => self.finished = Some(finished),
                _ => {}
            }
        }
    }

    /// Follows a job on servers that are killed after these times, the first of which runs, and then on one that is not. After a start without
    /// a new checkpoint the next one is let come to one, however slow the machine is: with a third the job would be set aside.
    async fn follow_through(&mut self, first: Process, folder: &Path, job_id: &str, lives: &[Duration]) {
        let mut process = first;
        let (mut checkpoint, mut is_barren) = (None, false);
        for life in lives {
            let api = process.api().await;
            let events = api.watch(job_id, Some(self.next_epoch())).await.unwrap();
            // The time of the kill, not a wait for anything.
            let _ = tokio::time::timeout(*life, self.read(events)).await;
            let mut job = api.job(job_id).await;
            while is_barren && job.checkpoint_time == checkpoint && job.end_time.is_none() {
                job = api.job(job_id).await;
            }
            is_barren = job.checkpoint_time == checkpoint;
            checkpoint = job.checkpoint_time;
            process.kill();
            process = Process::serve(folder, &[]);
        }
        process.kill();
        let process = Process::serve(folder, &[]);
        let events = process.api().await.watch(job_id, Some(self.next_epoch())).await.unwrap();
        self.read(events).await;
    }
}

/// Trains with and without kills; how many of the kills came before the end.
async fn is_the_same_through_kills(hidden: &Value, options: &Value, random: &mut Random) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    create(&api, "whole", hidden).await;
    create(&api, "parts", hidden).await;
    let epochs = match options["optimizer"].get("lbfgs") {
        None => epochs_of(&api, hidden, options, WORK * kills()).await,
        Some(_) => 10_000,
    };
    let whole = train(&api, &long_training("whole", options, epochs)).await;
    let (job_id, _) = api.start(from_json(&long_training("parts", options, epochs))).await;
    let mut seen = Seen::default();
    let lives: Vec<Duration> = (0..kills()).map(|_| LIFE.mul_f64(random.fraction())).collect();
    seen.follow_through(process, folder.path(), &job_id, &lives).await;
    let finished = seen.finished.unwrap();
    assert_eq!((finished.state(), finished.version), (JobState::Succeeded, 2), "{:?}", finished.failure);
    let (reports, expected) = (untimed_reports(&seen.reports), untimed(&whole));
    let differs = reports.iter().zip(&expected).position(|(one, other)| one != other);
    assert_eq!((differs, reports.len()), (None, expected.len()), "{}: reports differ", options["optimizer"]);

    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    assert_eq!(bits(&api, "parts").await, bits(&api, "whole").await, "{}", options["optimizer"]);
    api.job(&job_id).await.attempt as u32 - 1
}

#[tokio::test(flavor = "multi_thread")]
async fn every_optimizer_ends_with_the_same_bits_however_often_the_process_is_killed() {
    let mut random = Random::new(6);
    let mut killed = 0;
    let [plain, rich] = hidden();
    for (options, goes_with_dropout) in options() {
        if options.get("schedule").is_none() {
            let hidden = if goes_with_dropout { &rich } else { &plain };
            let options = long_epochs(&options);
            killed += is_the_same_through_kills(hidden, &options, &mut random).await;
        }
    }
    assert!(killed >= kills() * 11 / 2, "only {killed} kills came before the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_validation_and_early_stopping_go_on_too() {
    let mut random = Random::new(7);
    let schedules = [
        json!({"optimizer": {"adam": {"learning_rate": 0.05}}, "batch_size": 4, "validation_fraction": 0.3,
            "early_stopping": {"patience": 1_000_000}, "diagnostics": true,
            "schedule": {"warm_up_epochs": 900, "cosine": {"t_0": 400, "t_mult": 2}}}),
        json!({"optimizer": {"sgd": {"learning_rate": 0.1}}, "batch_size": 3, "l1": 0.001, "max_gradient_norm": 1,
            "schedule": {"reduce_on_plateau": {"patience": 40, "threshold": 0.01, "cooldown": 3}}}),
    ];
    for options in schedules {
        is_the_same_through_kills(&hidden()[1], &options, &mut random).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_wait_again_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    api.create(xor_model("a", 4)).await;
    api.create(xor_model("b", 4)).await;
    let (running, mut events) = api.start(endless("a")).await;
    next_reports(&mut events).await;
    let mut waiting = Vec::new();
    for model_id in ["a", "b", "a"] {
        waiting.push(api.start(truth_table(model_id, XOR)).await.0);
    }
    process.kill();

    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    let of_b = read(api.watch(&waiting[1], None).await.unwrap()).await;
    assert_eq!((of_b.finished.state(), of_b.finished.version), (JobState::Succeeded, 2));
    assert_eq!(api.job(&waiting[2]).await.state(), JobState::Queued);
    let cancelled = api.jobs.clone().cancel_job(cancel(&running, true)).await.unwrap().into_inner();
    assert_eq!((cancelled.state(), cancelled.version, cancelled.attempt), (JobState::Cancelled, 2, 2));
    for (job_id, version) in [(&waiting[0], 3), (&waiting[2], 4)] {
        let told = read(api.watch(job_id, None).await.unwrap()).await;
        assert_eq!((told.finished.state(), told.finished.version), (JobState::Succeeded, version));
    }
}

/// What was told of the job is kept by a commit that comes while the epochs after its checkpoint are trained again.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_after_a_crash_keeps_no_less_than_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let (job_id, mut events) = api.start(endless("xor")).await;
    while next_reports(&mut events).await.last().unwrap().epoch < 20 {}
    process.kill();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    let told = api.job(&job_id).await.last_report.map_or(0, |report| report.epoch);
    let job = api.jobs.clone().cancel_job(cancel(&job_id, true)).await.unwrap().into_inner();
    if told > 0 {
        assert_eq!((job.state(), job.version), (JobState::Cancelled, 2));
    }
    let kept = job.last_report.map_or(0, |report| report.epoch);
    assert!(kept >= told, "epoch {told} was told, and {kept} is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_best_report_that_was_told_stays_while_epochs_are_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 16)).await;
    let never = Some(prost_types::Duration { seconds: 1 << 40, nanos: 0 });
    let (job_id, mut events) = api.start(pb::TrainRequest { checkpoint_interval: never, ..endless("xor") }).await;
    let mut told: Vec<pb::EpochReport> = Vec::new();
    let since = std::time::Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        told.extend(next_reports(&mut events).await);
    }
    process.kill();
    let process = run_job(folder.path(), &job_id).await;
    let api = process.api().await;
    let first = api.job(&job_id).await.last_report.unwrap().epoch;
    let mut polls = 0;
    loop {
        let job = api.job(&job_id).await;
        let (last, best) = (job.last_report.unwrap().epoch, job.best_report.unwrap());
        if last > first {
            break;
        }
        let losses = told.iter().filter(|report| report.epoch <= last).map(|report| report.loss);
        assert_eq!(best.loss, losses.fold(f64::INFINITY, f64::min), "epoch {} is not the best of {last}", best.epoch);
        polls += 1;
    }
    assert!(polls > 1, "no poll came while epochs were trained again");
}

/// Starts a server on a job that runs, and returns once it runs.
async fn run_job(folder: &Path, job_id: &str) -> Process {
    let process = Process::serve(folder, &["--drain-seconds", "0"]);
    let mut events = process.api().await.watch(job_id, None).await.unwrap();
    let is_started = |event| matches!(event, Event::Started(_)).then_some(());
    next(&mut events, is_started).await;
    process
}

async fn start_without_checkpoints(folder: &Path) -> String {
    let process = Process::serve(folder, &[]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let never = Some(prost_types::Duration { seconds: 1 << 40, nanos: 0 });
    let (job_id, mut events) = api.start(pb::TrainRequest { checkpoint_interval: never, ..endless("xor") }).await;
    next_reports(&mut events).await;
    process.kill();
    job_id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_under_which_the_process_ends_three_times_in_a_row_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let job_id = start_without_checkpoints(folder.path()).await;
    for _ in 0..2 {
        run_job(folder.path(), &job_id).await.kill();
    }
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    let told = read(api.watch(&job_id, None).await.unwrap()).await;
    assert_eq!((told.finished.state(), told.finished.stop_reason()), (JobState::Failed, StopReason::Interrupted));
    let failure = told.finished.failure.clone().unwrap();
    assert_eq!(failure.code, Code::Aborted as i32);
    assert!(failure.message.contains("3 starts in a row"), "{}", failure.message);
    assert_eq!(told.epochs(), (1..=told.epochs().len() as i32).collect::<Vec<_>>());
    assert_eq!(api.job(&job_id).await.attempt, 3);
    // The model is as it was, and trains again.
    assert_eq!(api.train(truth_table("xor", XOR)).await.finished.version, 2);
}

/// Memory is what most often takes a process down, and most of it is asked for before the first batch.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_under_which_the_process_ends_before_its_first_batch_is_set_aside_too() {
    // For a start. The weights alone take 36 MB, and a training has a dozen copies: more than 32 MiB at once, which glibc never takes
    // from the room that it has reserved for a thread.
    const ROOM_KIB: u64 = 48 << 10;
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let room = address_space(process.id()) + ROOM_KIB;
    let api = process.api().await;
    api.create(model("wide", 4_500, &[(2_000, pb::Activation::Tanh), (1, pb::Activation::Sigmoid)])).await;
    let rows = pb::Matrix { rows: Some(2), columns: Some(4_500), ..values(&vec![0.5; 9_000]) };
    let request = pb::TrainRequest {
        model_id: "wide".into(),
        inputs: Some(rows),
        targets: Some(values(&[0.0, 1.0])),
        checkpoint_interval: Some(prost_types::Duration { seconds: 1 << 40, nanos: 0 }),
        epochs: Some(1_000_000),
        ..Default::default()
    };
    let (job_id, mut events) = api.start(request).await;
    next(&mut events, |event| matches!(event, Event::Started(_)).then_some(())).await;
    process.kill();
    for _ in 0..2 {
        let ended = serve_to_death(folder.path(), room);
        assert!(ended.code().is_none(), "{ended:?}");
    }
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    // It is set aside before the server serves.
    let job = api.job(&job_id).await;
    assert_eq!((job.state(), job.stop_reason(), job.attempt), (JobState::Failed, StopReason::Interrupted, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_good_order_is_no_crash_and_loses_no_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let job_id = start_without_checkpoints(folder.path()).await;
    let mut epoch = 0;
    for attempt in 2..6 {
        let process = run_job(folder.path(), &job_id).await;
        let job = process.api().await.job(&job_id).await;
        assert_eq!((job.state(), job.attempt), (JobState::Running, attempt));
        assert!(job.checkpoint_epoch >= epoch, "{} epochs were done before", epoch);
        epoch = job.checkpoint_epoch;
        assert_eq!(job.checkpoint_time.is_some(), attempt > 2);
        assert_eq!(job.trained_on.len(), 1, "{:?}", job.trained_on);
        assert!(job.trained_on[0].starts_with("epochd "), "{:?}", job.trained_on);
        signal(process.id(), "TERM");
        assert!(process.wait().0.success());
    }
}

/// It takes longer, and comes to the same.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_checkpoint_that_reads_the_job_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--drain-seconds", "0"]);
    let api = process.api().await;
    let options = json!({"batch_size": 2, "optimizer": {"sgd": {"momentum": 0.9}}});
    create(&api, "whole", &hidden()[1]).await;
    create(&api, "parts", &hidden()[1]).await;
    let whole = train(&api, &long_training("whole", &options, 20_000)).await;
    let (job_id, mut events) = api.start(from_json(&long_training("parts", &options, 20_000))).await;
    next_reports(&mut events).await;
    // The stop in good order takes one.
    signal(process.id(), "TERM");
    process.wait();
    let checkpoint = folder.path().join(format!("blobs/{job_id}.checkpoint"));
    let mut bytes = fs::read(&checkpoint).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&checkpoint, bytes).unwrap();

    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    let told = read(api.watch(&job_id, None).await.unwrap()).await;
    assert_eq!(untimed(&told), untimed(&whole));
    assert_eq!(bits(&api, "parts").await, bits(&api, "whole").await);
    assert!(!checkpoint.exists(), "the end of a job gives its checkpoint's space back");
}

/// Flips a bit in what a model's last training left for the next.
fn damage_state(folder: &Path, model_uid: &str) {
    let files = fs::read_dir(folder.join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    let of_model = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains(model_uid) && name.ends_with(".state")
    };
    let paths: Vec<PathBuf> = files.filter(of_model).collect();
    let [path] = paths.as_slice() else { panic!("one state of the model: {paths:?}") };
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What a job continues is kept for it until it has ended: without a checkpoint it begins anew from there, with one it needs it no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_continued_training_goes_on_after_weights_were_set_meanwhile() {
    for (interval, has_checkpoint) in [("0.001s", true), ("1000s", false)] {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::serve(folder.path(), &[]);
        let api = process.api().await;
        let options = json!({"optimizer": {"adam": {"learning_rate": 0.01}}});
        let [plain, _] = hidden();
        create(&api, "whole", &plain).await;
        create(&api, "parts", &plain).await;
        let request = |model_id: &str, epochs: i32, start: &str| {
            let mut request = long_training(model_id, &options, epochs);
            request["start"] = json!(start);
            with(request, "checkpoint_interval", json!(interval))
        };
        for model_id in ["whole", "parts"] {
            train(&api, &request(model_id, 5, "TRAINING_START_LATEST")).await;
        }
        train(&api, &request("whole", 60_000, "TRAINING_START_CONTINUE")).await;
        let (job_id, mut events) = api.start(from_json(&request("parts", 60_000, "TRAINING_START_CONTINUE"))).await;
        next_reports(&mut events).await;
        while has_checkpoint && api.job(&job_id).await.checkpoint_time.is_none() {}
        let layers = bits(&api, "parts").await;
        api.models.clone().set_weights(pb::SetWeightsRequest { model_id: "parts".into(), layers }).await.unwrap();
        let uid = api.model("parts").await.uid;
        process.kill();
        if has_checkpoint {
            damage_state(folder.path(), &uid);
        }
        let process = Process::serve(folder.path(), &[]);
        let api = process.api().await;
        let finished = read(api.watch(&job_id, None).await.unwrap()).await.finished;
        assert_eq!((finished.state(), finished.version), (JobState::Succeeded, 4), "{:?}", finished.failure);
        assert_eq!(bits(&api, "parts").await, bits(&api, "whole").await);
        // Neither of the two is the latest version's any more.
        let states = fs::read_dir(folder.path().join("blobs")).unwrap().flatten();
        let states = states.filter(|entry| entry.path().extension().is_some_and(|it| it == "state")).count();
        assert_eq!(states, 2, "one for each model's latest version");
    }
}

/// After a crash one of two jobs has its turn and the other waits: lists, cancellation and times tell them as they are.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_jobs_after_a_crash_fits_what_was_told_before() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    let mut jobs = Vec::new();
    for model_id in ["a", "b"] {
        api.create(xor_model(model_id, 4)).await;
        let (job_id, mut events) = api.start(endless(model_id)).await;
        next_reports(&mut events).await;
        jobs.push(job_id);
    }
    // Both have reports in the store: each has ended a turn.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    process.kill();

    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    for state in [JobState::Queued, JobState::Running] {
        let request = pb::ListJobsRequest { state: state.into(), ..Default::default() };
        let listed = api.jobs.clone().list_jobs(request).await.unwrap().into_inner().jobs;
        assert!(listed.iter().all(|job| job.state() == state), "{state:?}");
    }
    let told = api.job(&jobs[1]).await.last_report.map(|report| report.epoch);
    let kept = api.jobs.clone().cancel_job(cancel(&jobs[1], true)).await.unwrap().into_inner();
    assert_eq!((kept.state(), kept.version), (JobState::Cancelled, 2));
    assert!(kept.last_report.as_ref().map(|report| report.epoch) >= told && told.is_some());
    assert!(kept.best_report.is_some());

    let mut events = api.watch(&jobs[0], None).await.unwrap();
    let before = api.job(&jobs[0]).await.last_report.unwrap().epoch;
    let mut reports: Vec<pb::EpochReport> = Vec::new();
    while reports.last().is_none_or(|report| report.epoch < before + 100) {
        reports.extend(next_reports(&mut events).await);
    }
    let elapsed = |report: &pb::EpochReport| Duration::try_from(report.elapsed.unwrap()).unwrap();
    assert!(reports.windows(2).all(|pair| elapsed(&pair[0]) <= elapsed(&pair[1])));
    // By the last report that goes with it, and less the time since then, which a pause of other jobs' turns may be.
    let job = api.job(&jobs[0]).await;
    let left = Duration::try_from(job.estimated_time_left.unwrap()).unwrap();
    let last = job.last_report.unwrap();
    let expected = elapsed(&last).as_secs_f64() / f64::from(last.epoch) * f64::from(1_000_000 - last.epoch);
    assert!(left.as_secs_f64() > 0.5 * expected, "{left:?} of {expected} s");
}

/// Epochs that nobody was told of, since only the last is reported, count as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_after_a_crash_keeps_epochs_that_were_not_reported() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    let mut jobs = Vec::new();
    for model_id in ["a", "b"] {
        api.create(xor_model(model_id, 4)).await;
        let checkpoint_interval = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
        let request = pb::TrainRequest { report_every: Some(1_000_000), checkpoint_interval, ..endless(model_id) };
        jobs.push(api.start(request).await.0);
    }
    for job_id in &jobs {
        while api.job(job_id).await.checkpoint_epoch == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    process.kill();
    let process = Process::serve(folder.path(), &["--train-threads", "1"]);
    let api = process.api().await;
    // The first has its turn, so this one waits.
    let kept = api.jobs.clone().cancel_job(cancel(&jobs[1], true)).await.unwrap().into_inner();
    assert_eq!((kept.state(), kept.version), (JobState::Cancelled, 2));
}
