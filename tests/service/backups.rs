//! Backups: one moment of everything, whatever goes on meanwhile; restored as a whole or not at all.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, JobState};
use epochd::store;
use serde_json::json;
use tonic::{Code, Streaming};

use crate::commands::{lines_of_json, ran};
use crate::support::*;

async fn begin(api: &Api) -> Streaming<pb::BackupResponse> {
    api.admin.clone().backup(pb::BackupRequest::default()).await.unwrap().into_inner()
}

/// The whole archive of a stream, which must end well.
async fn rest(mut chunks: Streaming<pb::BackupResponse>) -> Vec<u8> {
    let mut archive = Vec::new();
    while let Some(message) = chunks.message().await.unwrap() {
        assert!((1..=256 << 10).contains(&message.chunk.len()));
        archive.extend(message.chunk);
    }
    archive
}

fn restore(mut archive: &[u8], folder: &Path) -> Result<store::Restored, String> {
    store::restore(&mut archive as &mut dyn Read, folder).map_err(|error| error.to_string())
}

/// The same where the folder was let go just now: a process that another test starts holds a copy of its lock until it runs.
fn restore_again(archive: &[u8], folder: &Path) -> Result<store::Restored, String> {
    loop {
        match restore(archive, folder) {
            Err(told) if told.contains("in use") => std::thread::yield_now(),
            done => return done,
        }
    }
}

/// Names in a folder but for those that say who uses it.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "LOCK" && name != "OPEN").collect();
    names.sort();
    names
}

/// Networks of half a megabyte, so that a few versions do not fit into what waits for a slow client.
fn wide(model_id: &str) -> pb::CreateModelRequest {
    model(model_id, 256, &[(512, Activation::Relu), (1, Activation::Sigmoid)])
}

/// What a model answers, by its bits.
async fn answers(api: &Api, model_id: &str) -> Vec<u64> {
    api.outputs(model_id, corners()).await.into_iter().map(f64::to_bits).collect()
}

/// Creates, trains and deletes models until it is told to stop; the models that were created, trained and left.
async fn churn(api: Api, name: &'static str, ends: Arc<AtomicBool>, kept: Arc<std::sync::Mutex<Vec<String>>>) {
    let mut index = 0;
    while !ends.load(Ordering::Relaxed) {
        let model_id = format!("{name}-{index}");
        api.create(xor_model(&model_id, 3)).await;
        let request =
            pb::TrainRequest { epochs: Some(20), request_id: model_id.clone(), ..truth_table(&model_id, XOR) };
        api.train(request).await;
        if index % 2 == 0 {
            kept.lock().unwrap().push(model_id);
        } else {
            api.models.clone().delete_model(pb::DeleteModelRequest { model_id }).await.unwrap();
        }
        index += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_all_that_was_acknowledged_and_its_jobs_end_with_the_same_bits() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    api.train(truth_table("xor", XOR)).await;
    api.train(truth_table("xor", OR)).await;
    let serving = pb::SetServingVersionRequest { model_id: "xor".into(), version: Some(2) };
    api.models.clone().set_serving_version(serving).await.unwrap();
    let options = json!({"batch_size": 2, "optimizer": {"sgd": {"momentum": 0.9}}, "epochs": 100_000,
        "checkpoint_interval": "0.001s", "report_every": 7});
    create(&api, "whole", &hidden()[1]).await;
    create(&api, "parts", &hidden()[1]).await;
    let whole = train(&api, &training("whole", &options)).await;
    let expected = answers(&api, "xor").await;

    let (job_id, mut events) = api.start(from_json(&training("parts", &options))).await;
    let waiting = api.start(from_json(&with(training("parts", &options), "epochs", json!(5)))).await.0;
    next_reports(&mut events).await;
    let (ends, kept) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let mut load = tokio::task::JoinSet::new();
    for name in ["one", "two"] {
        load.spawn(churn(api.clone(), name, ends.clone(), Arc::clone(&kept)));
    }
    while kept.lock().unwrap().len() < 4 {
        next_reports(&mut events).await;
    }
    let acknowledged = kept.lock().unwrap().clone();
    let archive = rest(begin(&api).await).await;
    assert!(!api.job(&job_id).await.state().eq(&JobState::Succeeded), "the backup came after the job's end");
    ends.store(true, Ordering::Relaxed);
    while load.join_next().await.is_some() {}

    restore(&archive, other.path()).unwrap();
    let checked = run(other.path(), &["check", "--data-dir", "."]);
    let checked = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.starts_with(".: sound; ") && checked.lines().count() == 1, "{checked}");
    let restored = Server::over(other.path());
    let there = restored.api().await;
    for model_id in &acknowledged {
        assert_eq!(there.model(model_id).await, api.model(model_id).await);
        assert_eq!(answers(&there, model_id).await, answers(&api, model_id).await);
        // Its request id is known.
        let again = pb::TrainRequest { epochs: Some(20), request_id: model_id.clone(), ..truth_table(model_id, XOR) };
        assert_eq!(there.train(again).await.finished.version, 2);
    }
    assert_eq!((there.model("xor").await, answers(&there, "xor").await), (api.model("xor").await, expected));
    let told = read(there.watch(&job_id, None).await.unwrap()).await;
    assert_eq!((told.finished.state(), told.finished.version), (JobState::Succeeded, 2), "{:?}", told.finished);
    assert_eq!(untimed(&told), untimed(&whole));
    assert_eq!(there.job(&job_id).await.attempt, 2);
    let next = read(there.watch(&waiting, None).await.unwrap()).await;
    assert_eq!(next.finished.version, 3);
    let version_2 = async |api: &Api, model_id: &str| {
        let encoding = pb::MatrixEncoding::Packed.into();
        let request = pb::GetWeightsRequest { version: Some(2), encoding, ..get_weights(model_id) };
        api.models.clone().get_weights(request).await.unwrap().into_inner().layers
    };
    assert_eq!(version_2(&there, "parts").await, version_2(&api, "whole").await);
    restored.stop().await;
    server.stop().await;
    assert_eq!(names(folder.path()), ["FORMAT", "blobs", "records.redb"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_during_a_slow_backup_is_in_it_and_goes_after_it() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::over(folder.path());
    let api = server.api().await;
    for index in 0..16 {
        api.create(wide(&format!("m{index}"))).await;
    }
    let blobs = || fs::read_dir(folder.path().join("blobs")).unwrap().count();
    let mut chunks = begin(&api).await;
    let mut archive = chunks.message().await.unwrap().unwrap().chunk;
    for index in 0..16 {
        api.models.clone().delete_model(pb::DeleteModelRequest { model_id: format!("m{index}") }).await.unwrap();
    }
    api.create(wide("later")).await;
    assert_eq!(blobs(), 17);
    // The room for backups is bounded, and given back by a client that goes away.
    let second = begin(&api).await;
    refused(api.admin.clone().backup(pb::BackupRequest::default()).await, Code::ResourceExhausted, "2 backups");
    drop(second);
    let third = loop {
        match api.admin.clone().backup(pb::BackupRequest::default()).await {
            Ok(chunks) => break chunks.into_inner(),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    };
    archive.extend(rest(chunks).await);
    drop(third);
    while names(folder.path()).iter().any(|name| name.starts_with("backup-")) || blobs() > 1 {
        tokio::task::yield_now().await;
    }
    restore(&archive, other.path()).unwrap();
    let restored = Server::over(other.path());
    let there = restored.api().await;
    refused(there.models.clone().get_model(get_model("later")).await, Code::NotFound, "later");
    for index in 0..16 {
        there.models.clone().get_weights(get_weights(&format!("m{index}"))).await.unwrap();
    }
    restored.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_backups_and_leaves_nothing_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    for index in 0..16 {
        api.create(wide(&format!("m{index}"))).await;
    }
    let mut chunks = begin(&api).await;
    chunks.message().await.unwrap().unwrap();
    server.stop().await;
    assert_eq!(names(folder.path()), ["FORMAT", "blobs", "records.redb"]);
    let ended = loop {
        match chunks.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(ended.is_err(), "a backup that was cut short looks complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_memory_has_no_backup_and_says_why() {
    let api = Server::start();
    refused(api.api().await.admin.backup(pb::BackupRequest::default()).await, Code::FailedPrecondition, "--ephemeral");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_ends_the_backup_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let blob = fs::read_dir(folder.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[40] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let mut chunks = begin(&api).await;
    let ended = loop {
        match chunks.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    let file = blob.file_name().unwrap().to_str().unwrap();
    refused(ended, Code::DataLoss, &format!("{file} (version 1 of the model \"xor\")"));
    // As a command, without it and with all that is left.
    let (out, other) = (folder.path().join("epochd.tar"), folder.path().join("other"));
    let (out, other) = (out.to_str().unwrap(), other.to_str().unwrap());
    assert!(ran(&server, 1, &["backup", out]).await.1.contains("--skip-damaged"));
    let (_, told) = ran(&server, 0, &["backup", out, "--skip-damaged"]).await;
    let named = format!("blobs/{file} (version 1 of the model \"xor\")");
    assert_eq!(told, format!("left out, since it is damaged or missing: {named}\n"));
    let told =
        lines_of_json(&ran(&server, 0, &["backup", out, "--force", "--skip-damaged", "--json"]).await.0).remove(0);
    assert_eq!(told["leftOut"], json!([named]));
    let restored = run(Path::new("."), &["restore", out, "--data-dir", other]);
    let notes = String::from_utf8(restored.stderr).unwrap();
    assert!(restored.status.success() && notes.contains(&format!("note: blobs/{file}: it is missing")), "{notes}");
    server.stop().await;
}

/// As `epochd backup - | head` does it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_reader_goes_away_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    for index in 0..4 {
        api.create(wide(&format!("m{index}"))).await;
    }
    let command = format!(
        "{} backup - --server http://{} 2>told | head -c 1000 >/dev/null; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_epochd"),
        server.address
    );
    let place = folder.path().to_owned();
    let shell = move || std::process::Command::new("bash").args(["-c", &command]).current_dir(place).output().unwrap();
    let output = tokio::task::spawn_blocking(shell).await.unwrap();
    let told = fs::read_to_string(folder.path().join("told")).unwrap();
    assert_eq!((output.stdout.as_slice(), told.contains("is not whole")), (&b"1\n"[..], true), "{told}");
    server.stop().await;
}

/// A signal in the middle of a restore leaves nothing of it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_stopped_leaves_nothing() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let archive = small_archive().await;
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("data");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_epochd"));
    command.args(["restore", "-", "--data-dir"]).arg(&place);
    let piped = std::process::Stdio::piped;
    let mut child = command.stdin(piped()).stderr(piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&archive[..archive.len() - 600]).unwrap();
    while !place.join("blobs").exists() {
        std::thread::yield_now();
    }
    signal(child.id(), "TERM");
    // It may be held up by a pipe, from which byte after byte comes.
    let mut rest = archive[archive.len() - 600..archive.len() - 1].iter();
    while child.try_wait().unwrap().is_none() {
        drop(rest.next().map(|byte| input.write_all(&[*byte])));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert_eq!((child.wait().unwrap().code(), told.as_str()), (Some(130), "stopped; nothing is restored\n"));
    assert_eq!(names(&place), Vec::<String>::new());
}

/// An archive of a model with two versions and a job that waits, as the server wrote it.
async fn small_archive() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    api.train(pb::TrainRequest { epochs: Some(3), ..truth_table("xor", XOR) }).await;
    let (_, mut events) = api.start(endless("xor")).await;
    next_reports(&mut events).await;
    let archive = rest(begin(&api).await).await;
    server.stop().await;
    archive
}

/// Each entry of an archive: its name, where its header is, and where its bytes end.
fn entries(archive: &[u8]) -> Vec<(String, usize, usize)> {
    let mut at = 0;
    let mut entries = Vec::new();
    while archive[at] != 0 {
        let name = archive[at..at + 100].split(|byte| *byte == 0).next().unwrap();
        let bytes = str::from_utf8(&archive[at + 124..at + 135]).unwrap();
        let end = at + 512 + usize::from_str_radix(bytes, 8).unwrap();
        entries.push((String::from_utf8(name.to_vec()).unwrap(), at, end));
        at = end.next_multiple_of(512);
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_shortened_archive_restores_nothing_and_each_fault_is_named() {
    let archive = small_archive().await;
    let entries = entries(&archive);
    assert_eq!((entries[0].0.as_str(), entries[1].0.as_str()), ("FORMAT", "records.redb"));
    assert_eq!(entries.last().unwrap().0, "MANIFEST");
    assert!(entries.iter().any(|(name, ..)| name.ends_with(".rows")), "{entries:?}");
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("data");
    let is_refused = |bad: &[u8], word: &str| {
        let told = restore_again(bad, &place).unwrap_err();
        assert!(told.contains(word), "{told} does not say {word}");
        assert_eq!(names(&place), Vec::<String>::new(), "{told}");
    };
    for (name, start, end) in &entries {
        for (at, word) in [
            (start + 3, "header"),
            (start + 130, "header"),
            (start + 400, "header"),
            (start + 512, name.as_str()),
            ((start + 512 + end) / 2, name),
            (end - 1, name),
            (end.next_multiple_of(512) - 1, name),
        ] {
            let mut bad = archive.clone();
            bad[at] ^= 0x20;
            is_refused(&bad, if at < 512 { "no backup of epochd" } else { word });
        }
        is_refused(&archive[..*start], "cut short");
        is_refused(&archive[..start + 100], "cut short");
        is_refused(&archive[..start + 512], "cut short");
        is_refused(&archive[..end - 1], "cut short");
        // Without the entry as a whole.
        let rest = &archive[end.next_multiple_of(512)..];
        is_refused(&[&archive[..*start], rest].concat(), if name == "MANIFEST" { "cut short" } else { "MANIFEST" });
    }
    is_refused(&archive[..archive.len() - 1], "cut short");
    is_refused(&[&archive[..], &[0]].concat(), "behind the end");
    is_refused(b"", "cut short");
    is_refused(&[7; 4_096], "no backup of epochd");
    is_refused(&[0; 4_096], "no backup of epochd");
    is_refused(&[&[0x1f, 0x8b][..], &[7; 4_096]].concat(), "gunzip it first");
    // Two faults, both told; then the folder is filled by what is sound.
    let mut bad = archive.clone();
    for (_, start, _) in &entries[2..4] {
        bad[start + 540] ^= 1;
    }
    let told = restore_again(&bad, &place).unwrap_err();
    assert!(told.contains(&entries[2].0) && told.contains(&entries[3].0), "{told}");
    let restored = restore_again(&archive, &place).unwrap();
    assert_eq!(restored.files as usize, entries.len() - 1);
    assert_eq!(names(&place), ["FORMAT", "blobs", "records.redb"]);
}

/// A header with another name or kind, and the checksum that goes with it.
fn forged(archive: &[u8], at: usize, name: &str, kind: u8) -> Vec<u8> {
    let mut bytes = archive.to_vec();
    let header = &mut bytes[at..at + 512];
    header[..100].fill(0);
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[156] = kind;
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_archive_writes_nothing_outside_of_its_folder() {
    let archive = small_archive().await;
    let (name, at, _) = entries(&archive)[2].clone();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("data");
    let absolute = folder.path().join("x").display().to_string();
    let blob = name.strip_prefix("blobs/").unwrap();
    for name in ["../x", "blobs/../../x", "x", "LOCK", "RESTORE", "blobs/x", blob, &absolute, "./FORMAT", "blobs/"] {
        let told = restore_again(&forged(&archive, at, name, b'0'), &place).unwrap_err();
        assert!(told.contains("no file of a backup"), "{name}: {told}");
    }
    for kind in [b'1', b'2', b'5', b'x', b'L', 0] {
        let told = restore_again(&forged(&archive, at, &name, kind), &place).unwrap_err();
        assert!(told.contains("header"), "{told}");
    }
    let told = restore_again(&forged(&archive, at, "records.redb", b'0'), &place).unwrap_err();
    assert!(told.contains("twice"), "{told}");
    assert_eq!((names(folder.path()), names(&place)), (vec!["data".to_owned()], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_in_use_or_not_empty_or_half_restored_is_left_as_it_is() {
    let archive = small_archive().await;
    let folder = tempfile::tempdir().unwrap();
    let (used, full) = (folder.path().join("used"), folder.path().join("full"));
    let server = Server::over(&used);
    server.api().await.create(xor_model("xor", 4)).await;
    assert!(restore(&archive, &used).unwrap_err().contains("in use by another epochd"));
    server.stop().await;
    let before = names(&used);
    assert!(restore(&archive, &used).unwrap_err().contains("not empty"));
    assert_eq!(names(&used), before);
    fs::create_dir(&full).unwrap();
    fs::write(full.join("notes.txt"), "an operator's").unwrap();
    assert!(restore(&archive, &full).unwrap_err().contains("not empty"));
    assert_eq!(names(&full), ["notes.txt"]);
    // A disk of its own has this from the start.
    let mounted = folder.path().join("mounted");
    fs::create_dir_all(mounted.join("lost+found")).unwrap();
    assert!(restore_again(&archive[..9_000], &mounted).unwrap_err().contains("cut short"));
    assert_eq!(names(&mounted), ["lost+found"]);
    restore_again(&archive, &mounted).unwrap();
    // As a kill in the middle leaves it.
    let half = folder.path().join("half");
    restore(&archive, &half).unwrap();
    fs::write(half.join("RESTORE"), "").unwrap();
    let told = restore_again(&archive, &half).unwrap_err();
    assert!(told.contains("cut short; remove what is in it, and restore again"), "{told}");
    let output = run(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--data-dir", half.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("cut short"), "{said}");
}

/// Through a file and through pipes; no file is replaced unasked, and none is left of a backup that failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_backed_up_restored_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, file, other) = (path("data"), path("epochd.tar"), path("other"));
    let server = Server::over(Path::new(&data));
    server.api().await.create(xor_model("xor", 8)).await;
    let (text, _) = ran(&server, 0, &["backup", &file]).await;
    let bytes = fs::metadata(&file).unwrap().len();
    assert_eq!(text, format!("{file} is complete: {bytes} bytes\n"));
    assert!(ran(&server, 1, &["backup", &file]).await.1.contains("--force"));
    let told = lines_of_json(&ran(&server, 0, &["backup", &file, "--force", "--json"]).await.0).remove(0);
    assert_eq!((&told["file"], told["bytes"].as_u64()), (&file.clone().into(), Some(bytes)));
    let ephemeral = Server::start();
    assert!(ran(&ephemeral, 1, &["backup", &path("none.tar")]).await.1.contains("--ephemeral"));
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["data", "epochd.tar"]);

    let at = Path::new(".");
    let restored = run(at, &["restore", &file, "--data-dir", &other, "--json"]);
    let told = lines_of_json(&String::from_utf8(restored.stdout).unwrap()).remove(0);
    assert_eq!((&told["dataDir"], &told["files"]), (&other.clone().into(), &3.into()));
    let again = run(at, &["restore", &file, "--data-dir", &other]);
    assert!(again.status.code() == Some(1) && String::from_utf8(again.stderr).unwrap().contains("not empty"));
    let sound = run(at, &["check", "--data-dir", &other]);
    assert!(sound.status.success() && String::from_utf8(sound.stdout).unwrap().contains("sound; 1 model,"));
    fs::write(Path::new(&other).join("FORMAT"), "epochd store format 7\n").unwrap();
    let faults = run(at, &["check", "--data-dir", &other]);
    assert!(faults.status.code() == Some(1) && String::from_utf8(faults.stdout).unwrap().contains("fault: FORMAT"));
    server.stop().await;
}
