//! The commands that ask a server: what a person reads, what a script reads, and their exit codes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

/// The output of a command that must end with `code`.
pub async fn ran(server: &Server, code: i32, arguments: &[&str]) -> (String, String) {
    let url = format!("http://{}", server.address);
    let arguments: Vec<String> = arguments.iter().copied().chain(["--server", &url]).map(str::to_owned).collect();
    let output = tokio::task::spawn_blocking(move || {
        run(Path::new("."), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let output = output.await.unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    assert!(!text.contains('\u{1b}') && !errors.contains('\u{1b}'), "colour without a terminal");
    (text, errors)
}

pub fn lines_of_json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_jobs_are_listed_for_people_and_for_machines() {
    let server = Server::start();
    assert!(ran(&server, 0, &["models"]).await.0.contains("epochd train"));
    assert_eq!(ran(&server, 0, &["models", "--json"]).await.0, "");
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    api.create(xor_model("other", 2)).await;
    let told = api.train(truth_table("xor", XOR)).await;

    let (text, _) = ran(&server, 0, &["models"]).await;
    let xor: Vec<&str> = text.lines().find(|line| line.starts_with("xor")).unwrap().split_whitespace().collect();
    assert_eq!(xor, ["xor", "2-8-1", "33", "2"]);
    assert!(text.starts_with("model") && text.contains("latest"), "{text}");
    let (text, _) = ran(&server, 0, &["versions", "xor"]).await;
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["1", "initial"], "{text}");
    assert_eq!((rows.len(), &rows[1][..4]), (2, &["2", "1", "trained", "2000"][..]), "{text}");
    assert_eq!(rows[1].last(), Some(&"latest"), "{text}");
    let versions = lines_of_json(&ran(&server, 0, &["versions", "xor", "--json"]).await.0);
    assert_eq!((versions.len(), &versions[1]["jobId"]), (2, &told.job_id.clone().into()));
    assert!(ran(&server, 1, &["versions", "nobody"]).await.1.contains("nobody"));
    let models = lines_of_json(&ran(&server, 0, &["models", "--json"]).await.0);
    assert_eq!((models.len(), &models[1]["modelId"], &models[1]["latestVersion"]), (2, &"xor".into(), &2.into()));

    let (text, _) = ran(&server, 0, &["jobs", "--model", "xor"]).await;
    let job: Vec<&str> = text.lines().find(|line| line.contains("succeeded")).unwrap().split_whitespace().collect();
    assert_eq!((job[0], &job[1..5]), (told.job_id.as_str(), &["xor", "succeeded", "2000", "2000"][..]));
    let jobs = lines_of_json(&ran(&server, 0, &["jobs", "--json"]).await.0);
    assert_eq!(jobs[0]["state"], "JOB_STATE_SUCCEEDED");
    assert_eq!(ran(&server, 0, &["jobs", "--state", "failed"]).await.0, "no such jobs\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_watched_from_any_epoch_and_drawn() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let told = api.train(truth_table("xor", XOR)).await;
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("loss.svg");
    let arguments = ["watch", &told.job_id, "--from-epoch", "1990", "--plot", picture.to_str().unwrap()];
    let (text, _) = ran(&server, 0, &arguments).await;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("epoch 1990  loss ") && lines[10].starts_with("epoch 2000  loss "), "{text}");
    assert_eq!(lines[11].chars().count(), 11);
    assert_eq!(lines[12], "succeeded (epochs done) after epoch 2000: version 2");
    assert!(fs::read_to_string(&picture).unwrap().starts_with("<svg "));
    let events = lines_of_json(&ran(&server, 0, &["watch", &told.job_id, "--json"]).await.0);
    assert_eq!(events.last().unwrap()["finished"]["state"], "JOB_STATE_SUCCEEDED");
    assert!(ran(&server, 1, &["watch", "01a20f80-a321-7279-a1ee-1710f302d098"]).await.1.contains("01a20f80"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_and_a_model_deleted() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let (job_id, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let (text, _) = ran(&server, 0, &["cancel", &job_id, "--commit"]).await;
    assert_eq!(text, format!("job {job_id} is cancelled; version 2 keeps it\n"));
    let job = lines_of_json(&ran(&server, 0, &["cancel", &job_id, "--json"]).await.0);
    assert_eq!(job[0]["version"], 2);
    assert_eq!(ran(&server, 0, &["rollback", "xor", "1"]).await.0, "xor serves version 1\n");
    assert_eq!(api.model("xor").await.serving_version, Some(1));
    assert!(ran(&server, 0, &["rollback", "xor", "--latest"]).await.0.contains("each later one"));
    assert_eq!(lines_of_json(&ran(&server, 0, &["rollback", "xor", "1", "--json"]).await.0)[0]["servingVersion"], 1);
    assert!(ran(&server, 1, &["rollback", "xor", "99"]).await.1.contains("no version 99"));
    assert_eq!(ran(&server, 0, &["pin", "xor", "1"]).await.0, "pinned versions of xor: 1\n");
    assert_eq!(
        lines_of_json(&ran(&server, 0, &["pin", "xor", "1", "--json"]).await.0)[0]["pinnedVersions"],
        serde_json::json!([1])
    );
    assert_eq!(ran(&server, 0, &["pin", "xor", "1", "--remove"]).await.0, "pinned versions of xor: none\n");
    assert!(ran(&server, 1, &["pin", "xor", "99"]).await.1.contains("no version 99"));
    assert_eq!(ran(&server, 0, &["delete", "xor"]).await.0, "deleted xor\n");
    assert!(ran(&server, 1, &["delete", "xor"]).await.1.contains("\"xor\""));
    assert!(ran(&server, 1, &["cancel", "xor"]).await.1.contains("job_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_shown_by_shape_and_norm() {
    let server = Server::start();
    let api = server.api().await;
    let mut request = model("line", 2, &[(1, epochd::rpc::pb::Activation::Identity)]);
    let (weights, bias) = (Some(values(&[3.0, -4.0])), Some(values(&[0.5])));
    request.initial_weights =
        vec![epochd::rpc::pb::LayerWeights { layer: Some(0), weights, bias, ..Default::default() }];
    api.create(request).await;
    let (text, _) = ran(&server, 0, &["weights", "line"]).await;
    let row = |name: &str| {
        let line = text.lines().find(|line| line.contains(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row(" weights "), ["0", "weights", "2", "×", "1", "5.0000", "-0.5000", "-4.0000", "3.0000"]);
    assert_eq!(row(" bias ")[5], "0.5000");
    let json = lines_of_json(&ran(&server, 0, &["weights", "line", "--json"]).await.0);
    assert_eq!(json[0]["layers"][0]["weights"]["values"], serde_json::json!([3.0, -4.0]));
    assert!(ran(&server, 1, &["weights", "line", "--version", "2"]).await.1.contains("no version 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_downloaded_whole_or_not_at_all() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    api.train(truth_table("xor", XOR)).await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let names = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    let expected = api.file("xor", None).await.bytes;
    let out = path("xor.safetensors");
    let (text, _) = ran(&server, 0, &["download", "xor", "--out", &out]).await;
    assert_eq!(text, format!("wrote version 2 of xor to {out}: {} bytes\n", expected.len()));
    assert!(fs::read(&out).unwrap() == expected);
    // A file that is there is not touched, unless that is wanted.
    let (_, errors) = ran(&server, 1, &["download", "xor", "--version", "1", "--out", &out]).await;
    assert!(errors.contains("--force"), "{errors}");
    assert!(fs::read(&out).unwrap() == expected);
    let arguments = ["download", "xor", "--version", "1", "--out", &out, "--force", "--json"];
    let told = lines_of_json(&ran(&server, 0, &arguments).await.0);
    let first = api.file("xor", Some(1)).await.bytes;
    assert_eq!(told[0], serde_json::json!({"file": out, "modelId": "xor", "version": 1, "sizeBytes": first.len()}));
    assert!(fs::read(&out).unwrap() == first);
    // What fails leaves nothing.
    for (arguments, part) in [
        (&["download", "nobody", "--out", &path("none")][..], "nobody"),
        (&["download", "xor", "--version", "9", "--out", &path("none")], "no version 9"),
        (&["download", "xor", "--version", "-1", "--out", &path("none")], "version: must be 1 or more"),
        (&["download", "xor", "--out", &path("none/at/all")], "cannot write"),
        (&["download", "xor", "--force", "--out", &path("")], "is no file"),
    ] {
        let (text, errors) = ran(&server, 1, arguments).await;
        assert!(errors.contains(part) && text.is_empty(), "{arguments:?}: {text}{errors}");
    }
    assert_eq!(names(), ["xor.safetensors"]);
    // By default the name says which version it is, in the folder where the command runs.
    let url = format!("http://{}", server.address);
    let (place, url_there) = (folder.path().to_owned(), url.clone());
    let there = move || run(&place, &["download", "xor", "--server", &url_there]);
    assert_eq!(tokio::task::spawn_blocking(there).await.unwrap().status.code(), Some(0));
    assert!(fs::read(path("xor-v2.safetensors")).unwrap() == expected);
    // Standard output holds the file alone.
    let piped = move || run(Path::new("."), &["download", "xor", "--out", "-", "--server", &url]);
    let piped = tokio::task::spawn_blocking(piped).await.unwrap();
    assert!(piped.status.success() && piped.stdout == expected);
    assert!(String::from_utf8(piped.stderr).unwrap().contains("to standard output"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_0_only_when_serving() {
    let server = Server::start();
    assert_eq!(ran(&server, 0, &["health"]).await.0, "SERVING\n");
    assert_eq!(ran(&server, 0, &["health", "epochd.v1.JobService", "--json"]).await.0, "{\"status\":\"SERVING\"}\n");
    ran(&server, 1, &["health", "epochd.v1.NoService"]).await;
    let nobody = run(Path::new("."), &["health", "--server", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("epochd serve"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_predicted_as_csv_and_as_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let iris = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/iris.csv");
    ran(&server, 0, &["train", iris, "--target", "species"]).await;
    let (text, _) = ran(&server, 0, &["predict", "iris", iris, "--ignore", "species"]).await;
    let truth = fs::read_to_string(iris).unwrap();
    let pairs = text.lines().zip(truth.lines()).skip(1);
    let right = pairs.filter(|(said, row)| row.ends_with(said.split(',').next().unwrap())).count();
    assert_eq!((text.lines().next(), text.lines().count()), (Some("class,probability"), 151));
    assert!(right >= 142, "{right} of 150");
    // Columns by name, in any order of the file; several calls' worth of rows; JSON.
    let file = folder.path().join("shuffled.csv");
    let rows: String = (0..3_000).map(|_| "0.2,1.4,x,3.5,5.1\n").collect();
    fs::write(&file, format!("petal_width,petal_length,note,sepal_width,sepal_length\n{rows}")).unwrap();
    let columns = "sepal_length,sepal_width,petal_length,petal_width";
    let arguments = ["predict", "iris", file.to_str().unwrap(), "--columns", columns, "--json"];
    let answers = lines_of_json(&ran(&server, 0, &arguments).await.0);
    assert_eq!((answers.len(), &answers[2_999]["class"]), (3_000, &"setosa".into()));
    // What does not fit says how to make it.
    let (_, errors) = ran(&server, 1, &["predict", "iris", iris]).await;
    assert!(errors.contains("takes 4 inputs") && errors.contains("--ignore"), "{errors}");
    let (_, errors) = ran(&server, 1, &["predict", "iris", iris, "--ignore", "specis"]).await;
    assert!(errors.contains("\"species\""), "{errors}");
    // Rows before the fault are answered.
    let bad = folder.path().join("bad.csv");
    let rows = "1,2,3,4\n".repeat(1_024);
    fs::write(&bad, format!("a,b,c,d\n{rows}1,2,three,4\n")).unwrap();
    let (text, errors) = ran(&server, 1, &["predict", "iris", bad.to_str().unwrap()]).await;
    assert_eq!(text.lines().count(), 1_025);
    assert!(errors.contains("line 1026") && errors.contains("three"), "{errors}");
}

#[test]
fn every_command_has_long_help_with_an_example_and_its_exit_codes() {
    let help = String::from_utf8(run(Path::new("."), &["--help"]).stdout).unwrap();
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next())
        .collect();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let help = String::from_utf8(run(Path::new("."), &[command, "--help"]).stdout).unwrap();
        assert!(help.contains(&format!("Example: epochd {command}")), "{command}: {help}");
        assert!(help.contains("Exit codes: 0"), "{command}: {help}");
        if !["serve", "completions", "man"].contains(&command) {
            assert!(help.contains("--json"), "{command}: {help}");
        }
    }
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(run(Path::new("."), &["completions", shell]).stdout).unwrap();
        assert!(script.contains("train") && script.contains("from-epoch"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &["man", "pages"]).status.success());
    for page in ["epochd.1", "epochd-train.1", "epochd-watch.1"] {
        assert!(fs::read_to_string(folder.path().join("pages").join(page)).unwrap().contains(".TH"), "{page}");
    }
}

#[test]
fn every_command_says_where_it_looked_for_a_server_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rows.csv"), "a,b\n1,2\n").unwrap();
    let job = "01a20f80-a321-7279-a1ee-1710f302d098";
    for arguments in [
        &["models"][..],
        &["versions", "iris"],
        &["jobs"],
        &["watch", job],
        &["cancel", job],
        &["delete", "iris"],
        &["rollback", "iris", "2"],
        &["pin", "iris", "2"],
        &["weights", "iris"],
        &["download", "iris"],
        &["health"],
        &["predict", "iris", "rows.csv"],
    ] {
        let output = run(folder.path(), &[arguments, &["--server", "127.0.0.1:1"]].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(errors.contains("http://127.0.0.1:1") && errors.contains("epochd serve"), "{arguments:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn predict_tells_what_is_wrong_with_a_file_or_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    server.api().await.create(xor_model("xor", 2)).await;
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_owned()
    };
    let rows = write("rows.csv", "a,b\n0,1\n");
    for (model, file, part) in [
        ("xor", "missing.csv".to_owned(), "missing.csv"),
        ("xor", write("empty.csv", ""), "is empty"),
        ("xor", write("numbers.csv", "0,1\n1,1\n"), "names of its columns"),
        ("xor", write("huge.csv", "a,b\n1,2\n1,1e300\n"), "lines 2 to 3"),
        ("nobody", rows.clone(), "nobody"),
    ] {
        let (text, errors) = ran(&server, 1, &["predict", model, &file]).await;
        assert!(errors.contains(part) && text.is_empty(), "{model} {file}: {errors}{text}");
    }
    assert_eq!(ran(&server, 0, &["predict", "xor", &write("header.csv", "a,b\n")]).await.0, "");
}

/// A reader that goes away, as `head` does, ends a command without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_a_command_quietly() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let told = api.train(truth_table("xor", XOR)).await;
    let url = format!("http://{}", server.address);
    for arguments in [vec!["watch", &told.job_id, "--server", &url], vec!["completions", "bash"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_epochd"));
        command.args(&arguments).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    }
}

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/iris.csv");

/// `--continue` trains a model on, and says so where the file is another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_trained_on_by_its_name() {
    let server = Server::start();
    let train = ["train", IRIS, "--target", "species", "--epochs", "4", "--patience", "100", "--json"];
    ran(&server, 0, &[&train[..], &["--model-id", "flowers"]].concat()).await;
    ran(&server, 0, &[&train[..], &["--continue", "flowers"]].concat()).await;
    let models = lines_of_json(&ran(&server, 0, &["models", "--json"]).await.0);
    assert_eq!((models.len(), &models[0]["latestVersion"]), (1, &3.into()));
    let jobs = lines_of_json(&ran(&server, 0, &["jobs", "--json"]).await.0);
    assert_eq!(jobs[0]["settings"]["start"], "TRAINING_START_CONTINUE");
    assert_eq!(jobs[0]["lastReport"]["epoch"], 8);
    let digits = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv");
    let (_, told) = ran(&server, 1, &["train", digits, "--target", "digit", "--continue", "flowers"]).await;
    assert!(told.contains("model flowers takes 4 columns, but the file has 64"), "{told}");
    let (_, told) = ran(&server, 1, &[&train[..], &["--continue", "nobody"]].concat()).await;
    assert!(told.contains("nobody"), "{told}");
}

/// What `train` was asked for is what the job was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn options_of_a_training_reach_the_server() {
    let server = Server::start();
    let arguments = [
        &["train", IRIS, "--target", "species", "--epochs", "4", "--json", "--diagnostics"][..],
        &["--optimizer", "sgd:learning_rate=0.05,momentum=0.9,nesterov", "--warm-up-epochs", "2"],
        &["--schedule", "cosine:t_0=10,t_mult=2", "--loss", "softmax_cross_entropy:label_smoothing=0.1"],
        &["--metric", "f1_macro", "--metric", "log_loss", "--monitor", "f1_macro", "--class-weights", "1,2,3"],
        &["--l2", "0.001", "--max-gradient-norm", "5", "--max-duration", "5m", "--stop-at", "loss=0", "--no-shuffle"],
        &["--hidden", "8,4", "--activation", "leaky_relu:alpha=0.1", "--dropout", "0.1", "--batch-normalization"],
        &["--initializer", "orthogonal:gain=1.4", "--element-type", "float64", "--request", r#"{"frozenLayers":[0]}"#],
    ]
    .concat();
    let told = lines_of_json(&ran(&server, 0, &arguments).await.0).remove(0);
    assert!(
        told["report"]["metrics"]["f1Macro"].is_number() && told["report"]["metrics"]["accuracy"].is_null(),
        "{told}"
    );
    assert_eq!(told["report"]["diagnostics"].as_array().unwrap().len(), 3);
    let jobs = lines_of_json(&ran(&server, 0, &["jobs", "--json"]).await.0);
    let settings = &jobs[0]["settings"];
    assert_eq!(settings["optimizer"]["sgd"]["nesterov"], true, "{settings}");
    assert_eq!(settings["optimizer"]["sgd"]["learningRate"], 0.05);
    assert_eq!(
        (&settings["schedule"]["warmUpEpochs"], &settings["schedule"]["cosine"]["tMult"]),
        (&2.into(), &2.into())
    );
    assert_eq!(settings["loss"]["softmaxCrossEntropy"]["labelSmoothing"], 0.1);
    assert_eq!(settings["earlyStopping"]["metric"], "METRIC_F1_MACRO");
    assert_eq!(settings["classWeights"]["weights"], serde_json::json!([1.0, 2.0, 3.0]));
    assert_eq!((&settings["l2"], &settings["maxDuration"]), (&0.001.into(), &"300s".into()));
    assert_eq!((&settings["shuffle"], &settings["frozenLayers"]), (&Value::Null, &serde_json::json!([0])));
    let models = lines_of_json(&ran(&server, 0, &["models", "--json"]).await.0);
    let architecture = &models[0]["architecture"];
    let layer = &architecture["layers"][1];
    assert_eq!((&layer["units"], &layer["activationAlpha"], &layer["dropout"]), (&4.into(), &0.1.into(), &0.1.into()));
    assert!(layer["batchNormalization"].is_object() && layer["initializer"]["orthogonal"].is_object(), "{layer}");
    assert_eq!(architecture["elementType"], "ELEMENT_TYPE_FLOAT64");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_that_were_asked_for_stand_beside_the_score() {
    let server = Server::start();
    let train = ["train", IRIS, "--target", "species", "--epochs", "3"];
    let (text, _) = ran(&server, 0, &[&train[..], &["--metric", "f1_macro,misclassified_rows"]].concat()).await;
    let row = text.lines().find(|line| line.starts_with("misclassified_rows")).unwrap();
    assert_eq!(row.split_whitespace().count(), 3, "{text}");
    assert!(!ran(&server, 0, &train).await.0.contains("f1_macro"));
}

/// Optimizers for the full batch get it, unless a batch size is given; a number of one's own scale is not scaled.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_option_asks_of_others_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start();
    let file = folder.path().join("counts.csv");
    let rows: String = (0..60).map(|index| format!("{index},{}\n", index / 10)).collect();
    fs::write(&file, format!("x,y\n{rows}")).unwrap();
    let train = ["train", file.to_str().unwrap(), "--target", "y", "--epochs", "3"];
    let (_, errors) = ran(&server, 1, &[&train[..], &["--optimizer", "lbfgs", "--batch-size", "4"]].concat()).await;
    assert!(errors.contains("batch_size"), "{errors}");
    for options in [
        &["--optimizer", "lbfgs"][..],
        &["--optimizer", "rprop", "--learning-rate", "0.02"],
        &["--loss", "poisson"],
        &["--loss", "poisson", "--output-activation", "softplus"],
        &["--loss", "custom:expression=abs(y_pred-y_true)^1.5"],
        &["--scale-inputs", "min_max", "--scale-target", "none"],
        &["--request", r#"{"earlyStopping":null,"optimizer":{"lbfgs":{}}}"#],
    ] {
        ran(&server, 0, &[&train[..], options].concat()).await;
    }
    let two = folder.path().join("two.csv");
    let rows: String = (0..60).map(|index| format!("{index},{}\n", if index < 30 { "low" } else { "high" })).collect();
    fs::write(&two, format!("x,y\n{rows}")).unwrap();
    let train = ["train", two.to_str().unwrap(), "--target", "y", "--epochs", "60", "--json"];
    for options in [
        &["--output-activation", "sigmoid"][..],
        &["--output-activation", "step", "--no-hidden"],
        &["--output-activation", "identity", "--loss", "squared_hinge"],
        &["--output-activation", "log_softmax"],
    ] {
        let told = lines_of_json(&ran(&server, 0, &[&train[..], options].concat()).await.0).remove(0);
        assert!(told["accuracy"].as_f64().unwrap() > 0.8, "{options:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense_say_what_would() {
    let server = Server::start();
    for (code, options, parts) in [
        (2, &["--optimizer", "adamm"][..], &["--optimizer", "\"adam\"", "lbfgs"][..]),
        (2, &["--optimizer", "adam:beta3=1"], &["--optimizer", "beta3", "\"beta2\"", "amsgrad"]),
        (2, &["--loss", "huber:delta=wide"], &["--loss", "delta must be a number", "wide"]),
        (
            2,
            &["--optimizer", "sgd:learning_rate=1", "--learning-rate", "2"],
            &["--learning-rate", "--optimizer", "twice"],
        ),
        (2, &["--metric", "acuracy"], &["--metric", "\"accuracy\"", "roc_auc"]),
        (2, &["--activation", "relo"], &["--activation", "\"relu\"", "mish"]),
        (2, &["--request", r#"{"epoch":3}"#], &["--request", "\"epochs\""]),
        (2, &["--no-hidden", "--dropout", "0.5"], &["--no-hidden", "--dropout"]),
        (1, &["--loss-expression", "abs(y_pred-y_tru)"], &["loss.custom.expression", "column 12", "y_tru"]),
        (1, &["--output-activation", "sigmoid"], &["sigmoid", "there are 3", "softmax"]),
    ] {
        let (_, errors) = ran(&server, code, &[&["train", IRIS, "--target", "species"], options].concat()).await;
        for part in parts {
            assert!(errors.contains(part), "{options:?}: no {part:?} in {errors}");
        }
    }
    assert_eq!(ran(&server, 0, &["models", "--json"]).await.0, "", "a refused training left its model behind");
}

/// Whatever the contract lets choose from can be written, with its first number, word or text: each gets past the command
/// line, to the file that is not there.
#[test]
fn every_choice_of_the_contract_can_be_written() {
    use epochd::rpc::json::{Arm, FieldKind, arms};
    use epochd::rpc::pb;
    let folder = tempfile::tempdir().unwrap();
    let written = |arm: &Arm| match arm.fields.iter().find(|field| field.kind != FieldKind::Other) {
        None => arm.name.clone(),
        Some(field) => {
            let value = match field.kind {
                FieldKind::Number if field.is_list => "1;2",
                FieldKind::Number => "0.5",
                FieldKind::Whole => "3",
                FieldKind::Truth => "true",
                FieldKind::Text | FieldKind::Other => "y_pred, = y_true",
            };
            format!("{}:{}={value}", arm.name, field.name)
        }
    };
    for (option, arms, count_min) in [
        ("--loss", arms::<pb::Loss>(), 17),
        ("--optimizer", arms::<pb::Optimizer>(), 9),
        ("--schedule", arms::<pb::Schedule>(), 7),
        ("--initializer", arms::<pb::Initializer>(), 11),
        ("--scale-inputs", arms::<pb::Scaling>(), 3),
    ] {
        assert!(arms.len() >= count_min, "{option}: {arms:?}");
        for text in arms.iter().map(written) {
            let output = run(folder.path(), &["train", "nowhere.csv", "--target", "y", option, &text]);
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(1) && errors.contains("nowhere.csv"), "{option} {text}: {errors}");
        }
    }
}
