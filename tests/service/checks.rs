//! `epochd check`: every fault of a folder has a name, and what it calls sound reads as it was.

use std::fs;
use std::path::{Path, PathBuf};

use epochd::rpc::pb;
use serde_json::Value;

use crate::durability::everything;
use crate::support::*;

/// A folder with a model of two versions, a finished job and one that goes on, and a checkpoint, as a kill leaves it.
pub(crate) async fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--drain-seconds", "0"]);
    let api = process.api().await;
    api.create(xor_model("xor", 4)).await;
    let request = pb::TrainRequest { epochs: Some(3), request_id: "first".into(), ..truth_table("xor", XOR) };
    api.train(request).await;
    let soon = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
    let (job_id, mut events) = api.start(pb::TrainRequest { checkpoint_interval: soon, ..endless("xor") }).await;
    while api.job(&job_id).await.checkpoint_time.is_none() {
        next_reports(&mut events).await;
    }
    process.kill();
    folder
}

/// What `epochd check` says: its faults, its notes, and all that it printed.
fn checked(folder: &Path) -> (Vec<String>, Vec<String>, String) {
    let output = run(Path::new("."), &["check", "--json", "--data-dir", folder.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |kind: &str| {
        let of = |line: &Value| line.get(kind).map(|it| format!("{}: {}", it["what"], it["problem"]));
        lines.iter().filter_map(of).collect::<Vec<_>>()
    };
    let faults = told("fault");
    assert_eq!(output.status.code(), Some(i32::from(!faults.is_empty())), "{text}");
    (faults, told("note"), text)
}

/// Every file, without the lock.
fn files(folder: &Path) -> Vec<PathBuf> {
    let list = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut files = [list(folder), list(&folder.join("blobs"))].concat();
    files.retain(|path| path.is_file() && !path.ends_with("LOCK") && !path.ends_with("OPEN"));
    files.sort();
    files
}

pub(crate) fn bytes(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(folder).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_folder_is_called_so_and_left_as_it_is() {
    let folder = folder().await;
    let before = bytes(folder.path());
    fs::write(folder.path().join("notes.txt"), "an operator's").unwrap();
    let (faults, notes, text) = checked(folder.path());
    assert_eq!((faults, notes.len()), (vec![], 1), "{text}");
    let done: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let counts = ["models", "versions", "jobs", "unfinished_jobs"].map(|name| done["done"][name].as_u64().unwrap());
    assert_eq!(counts, [1, 2, 2, 1]);
    fs::remove_file(folder.path().join("notes.txt")).unwrap();
    assert_eq!(bytes(folder.path()), before);
    let output = run(folder.path(), &["check", "--data-dir", folder.path().to_str().unwrap()]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("sound; 1 model, 2 versions, 2 jobs (1 unfinished), "));

    let _process = Process::serve(folder.path(), &[]);
    let output = run(folder.path(), &["check", "--data-dir", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("in use by another epochd"));
    let nowhere = folder.path().join("nowhere");
    assert_eq!(checked(&nowhere.join("data")).0.len(), 1);
    assert!(!nowhere.exists());
    let dashed = folder.path().join("-x");
    fs::create_dir_all(dashed.join("lost+found")).unwrap();
    let output = run(folder.path(), &["check", "--data-dir=-x"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.starts_with("fault: -x: it is empty"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_file_is_named() {
    let folder = folder().await;
    let files = files(folder.path());
    assert!(files.len() >= 6, "{files:?}");
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let away = folder.path().join("..").join(format!("{name}.away"));
        fs::rename(&path, &away).unwrap();
        let (faults, _, text) = checked(folder.path());
        assert!(faults.iter().any(|fault| fault.contains(&name)), "{name}: {text}");
        fs::rename(&away, &path).unwrap();
    }
    assert_eq!(checked(folder.path()).0, Vec::<String>::new());
}

/// Where the check finds nothing, the bit lies where redb keeps nothing: all that there was still reads as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_anywhere_is_a_fault_or_lies_in_unused_space() {
    let folder = folder().await;
    let place = folder.path().join("copy");
    let restore = |from: &[(PathBuf, Vec<u8>)]| {
        drop(fs::remove_dir_all(&place));
        fs::create_dir_all(place.join("blobs")).unwrap();
        for (path, bytes) in from {
            fs::write(place.join(path.strip_prefix(folder.path()).unwrap()), bytes).unwrap();
        }
    };
    let good = bytes(folder.path());
    restore(&good);
    let expected = {
        let server = Server::over(&place);
        let all = everything(&server.api().await).await;
        server.stop().await;
        (all.0[0].model_id.clone(), all.2, all.1.len())
    };
    let (mut noticed, mut unused) = (0, 0);
    for (path, content) in &good {
        let is_records = path.ends_with("records.redb");
        let pieces = if is_records { 70 } else { 9 };
        let mut places: Vec<usize> = (0..pieces).map(|piece| content.len() * piece / pieces).collect();
        places.extend([content.len() - 1, 8.min(content.len() - 1), 12.min(content.len() - 1)]);
        if is_records {
            places.extend((0..320).step_by(23));
            // Where keys and values are.
            let needles = [&b"default/names/"[..], b"default/unfinished/", b"default/jobs/", b"/version/"];
            places.extend(needles.iter().flat_map(|needle| {
                let found = content.windows(needle.len()).enumerate().filter(|(_, window)| window == needle);
                found.map(|(at, _)| at + 9).take(2).collect::<Vec<_>>()
            }));
        }
        for at in places {
            let mut bad = content.clone();
            bad[at] ^= 1 << (at % 8);
            restore(&good);
            let target = place.join(path.strip_prefix(folder.path()).unwrap());
            fs::write(&target, bad).unwrap();
            let (faults, _, text) = checked(&place);
            if !faults.is_empty() {
                noticed += 1;
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(is_records || faults.iter().any(|fault| fault.contains(name)), "{name} {at}: {text}");
                continue;
            }
            assert!(is_records, "byte {at} of {}: {text}", path.display());
            unused += 1;
            let server = Server::over(&place);
            let all = everything(&server.api().await).await;
            server.stop().await;
            assert_eq!((all.0[0].model_id.clone(), all.2, all.1.len()), expected, "byte {at}");
        }
    }
    assert!(noticed > 60, "{noticed} noticed, {unused} in unused space");
}
