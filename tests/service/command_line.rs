//! The program at a terminal.

use std::fs;
use std::path::Path;
use std::process::Output;

use tonic::Code;

use crate::support::*;

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/iris.csv");

fn said(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// Runs a training that must be refused: what it says.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, &[&["train"], arguments].concat());
    let (stdout, stderr) = said(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{stdout}{stderr}");
    assert!(stderr.starts_with("error: ") && stdout.is_empty(), "{stdout}{stderr}");
    stderr
}

/// The command that the output tells to paste, cut into words as a shell would.
fn pasted<'a>(text: &'a str, program: &str) -> Vec<&'a str> {
    let line = text.lines().map(str::trim).find(|line| line.contains(program)).unwrap();
    match line.split_once('\'') {
        None => line.split(' ').collect(),
        Some((before, rest)) => {
            let (json, after) = rest.split_once('\'').unwrap();
            before.split_whitespace().chain([json]).chain(after.split_whitespace()).collect()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn train_scores_held_out_rows_and_tells_two_commands_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["train", IRIS, "--target", "species"]);
    let (text, errors) = said(&output);
    assert!(output.status.success(), "{errors}");
    for part in ["Held-out accuracy: 0.9", "30 rows", "setosa", "versicolor", "virginica", "\"iris\"", "./epochd-data"]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
    // The server that it tells of, on a port that is free here; then the question that it tells of.
    let serve = pasted(&text, " serve");
    assert!(serve[0].ends_with("epochd") && serve[1] == "serve", "{serve:?}");
    let process = Process::serve(&folder.path().join("epochd-data"), &[]);
    let call = pasted(&text, "grpcurl");
    assert_eq!(
        (call[0], call[4], call[5]),
        ("grpcurl", "127.0.0.1:50051", "epochd.v1.ModelService/Predict"),
        "{call:?}"
    );
    let json: serde_json::Value = serde_json::from_str(call[3]).unwrap();
    let row: Vec<f64> = json["inputs"]["values"].as_array().unwrap().iter().map(|it| it.as_f64().unwrap()).collect();
    let api = process.api().await;
    let request = predict(json["model_id"].as_str().unwrap(), values(&row));
    let class = api.models.clone().predict(request).await.unwrap().into_inner().classes.remove(0);
    let line = fs::read_to_string(IRIS).unwrap();
    let known = line.lines().skip(1).find(|line| {
        line.rsplit_once(',').unwrap().0.split(',').map(|it| it.parse::<f64>().unwrap()).eq(row.iter().copied())
    });
    assert!(known.unwrap().ends_with(&class.label), "{known:?} is called {}", class.label);
}

#[test]
fn run_twice_it_makes_a_second_model() {
    let folder = tempfile::tempdir().unwrap();
    for model_id in ["\"iris\"", "\"iris-2\"", "\"iris-3\""] {
        let output = run(folder.path(), &["train", IRIS, "--target", "species", "--epochs", "5"]);
        assert!(said(&output).0.contains(model_id), "{output:?}");
    }
    let named = run(folder.path(), &["train", IRIS, "--target", "species", "--epochs", "5", "--model-id", "flowers"]);
    assert!(said(&named).0.contains("\"flowers\""));
    assert!(refusal(folder.path(), &[IRIS, "--target", "species", "--model-id", "flowers"]).contains("flowers"));
}

#[test]
fn the_same_seed_tells_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let train = |seed: &str, model_id: &str| {
        let arguments = ["train", IRIS, "--target", "species", "--seed", seed, "--model-id", model_id];
        said(&run(folder.path(), &arguments)).0.replace(model_id, "")
    };
    assert_eq!(train("5", "model-one"), train("5", "model-two"));
}

#[test]
fn a_numeric_target_is_a_regression_scored_in_its_own_unit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rent.csv");
    let row = |index: i32| (f64::from(index) * 0.618_034).fract() * 100.0 + 20.0;
    let rows: Vec<String> = (0..300).map(|index| format!("{},{}", row(index), row(index) * 12.5 + 300.0)).collect();
    fs::write(&file, format!("size,rent\n{}\n", rows.join("\n"))).unwrap();
    let output = run(folder.path(), &["train", file.to_str().unwrap(), "--target", "rent"]);
    let (text, errors) = said(&output);
    let number = |label: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("{text}{errors}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(number("Held-out R²: ") > 0.99, "{text}");
    assert!(number("Held-out mean absolute error: ") < 50.0, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_server_on_the_folder_it_says_to_use_it_and_then_trains_there() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&folder.path().join("epochd-data"), &[]);
    let refused_with = refusal(folder.path(), &[IRIS, "--target", "species"]);
    assert!(refused_with.contains("--server"), "{refused_with}");
    let url = format!("http://{}", process.address);
    let output = run(folder.path(), &["train", IRIS, "--target", "species", "--server", &url]);
    assert!(output.status.success() && said(&output).0.contains(&url), "{output:?}");
    assert_eq!(process.api().await.model("iris").await.latest_version, 2);
}

#[test]
fn what_is_wrong_with_a_file_is_told_with_its_place_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("empty.csv", "");
    write("header.csv", "a,b\n");
    write("text.csv", &format!("a,b\n1,2\nmany,3\n{}", "4,5\n".repeat(20)));
    write("ragged.csv", "a,b\n1,2\n3\n");
    write("one.csv", "a,b\n1,x\n2,x\n3,x\n");
    write("typo.csv", &format!("a,b\n{}3,1o\n", "1,2\n".repeat(20)));
    write("twice.csv", "a,a,b\n1,1,2\n");
    for (arguments, parts) in [
        (&["missing.csv", "--target", "b"][..], &["missing.csv"][..]),
        (&["empty.csv", "--target", "b"], &["empty.csv"]),
        (&["header.csv", "--target", "b"], &["header.csv", "row"]),
        (&[IRIS, "--target", "specis"], &["specis", "species"]),
        (&["text.csv", "--target", "b"], &["many", "line 3", "\"a\""]),
        (&["ragged.csv", "--target", "b"], &["line 3"]),
        (&["one.csv", "--target", "b"], &["nothing to tell apart"]),
        (&["twice.csv", "--target", "b"], &["\"a\""]),
        (&["typo.csv", "--target", "b"], &["\"1o\"", "line 22", "--task"]),
        (&[IRIS, "--target", "species", "--server", "http://127.0.0.1:1"], &["127.0.0.1:1", "epochd serve"]),
        (&[IRIS, "--target", "species", "--server", "https://nowhere"], &["nowhere", "http://127.0.0.1"]),
        (&[IRIS, "--target", "species", "--epochs", "0"], &["epochs"]),
        (&[IRIS, "--target", "species", "--hidden", "0"], &["units"]),
        (&[IRIS, "--target", "species", "--test", "1.5"], &["--test"]),
    ] {
        let text = refusal(folder.path(), arguments);
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: no {part:?} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_that_is_refused_leaves_no_model_behind() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(&folder.path().join("data"), &[]);
    let url = format!("http://{}", process.address);
    for bad in [["--epochs", "0"], ["--learning-rate", "1e9"], ["--validation", "0"]] {
        refusal(folder.path(), &[&[IRIS, "--target", "species", "--server", &url], &bad[..]].concat());
    }
    refused(process.api().await.models.get_model(get_model("iris")).await, Code::NotFound, "iris");
}

/// Ctrl-C: the job is cancelled, its last whole epoch kept, and both are said.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_stops_the_training_and_says_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..20_000).map(|index| format!("{},{}\n", index % 101, index % 2)).collect();
    let file = folder.path().join("long.csv");
    fs::write(&file, format!("x,y\n{rows}")).unwrap();
    let process = Process::serve(&folder.path().join("data"), &[]);
    let url = format!("http://{}", process.address);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_epochd"));
    command.arg("train").arg(&file).args(["--target", "y", "--epochs", "1000000", "--patience", "1000000"]);
    command.args(["--server", &url]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let api = process.api().await;
    // Until its first epoch is done.
    loop {
        let jobs =
            api.jobs.clone().list_jobs(epochd::rpc::pb::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
        if jobs.first().is_some_and(|job| job.last_report.is_some()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    signal(child.id(), "INT");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let (text, errors) = said(&output);
    assert_eq!(output.status.code(), Some(130), "{text}{errors}");
    assert!(text.contains("version 2") && text.contains("\"long\""), "{text}{errors}");
    assert_eq!(api.model("long").await.latest_version, 2);
    refused(api.models.clone().get_model(get_model("short")).await, Code::NotFound, "short");
}

#[test]
fn settings_that_are_wrong_are_all_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--listen", "nowhere", "--train-threads", "0", "--message-bytes-max", "0"];
    let output = run(folder.path(), &arguments);
    let errors = said(&output).1;
    assert_eq!(output.status.code(), Some(2));
    for part in ["--listen", "--train-threads", "--message-bytes-max"] {
        assert!(errors.contains(part), "{errors}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
