//! What a backup holds is one moment, whatever comes after it.

use std::fs;
use std::io::Read;

use super::*;
use crate::domain::CheckpointMark;

fn checkpoint(seed: f32) -> Continuation {
    Continuation { head: vec![seed as u8; 3], vectors: vec![weights(seed).into()] }
}

#[test]
fn checkpoints_deletions_and_ends_that_come_later_are_not_in_a_backup() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(folder.path()).unwrap();
    let (kept, deleted) = (create(&store, "kept"), create(&store, "deleted"));
    let (going, ending) = (accept(&store, &kept), accept(&store, &kept));
    let mark = CheckpointMark { time: at(4), epoch: 2 };
    for job in [&going, &ending] {
        store.start_job(job.job_id, begin(3)).unwrap();
        store.write_checkpoint(job.job_id, 1, mark, &checkpoint(1.0)).unwrap().unwrap();
    }
    let backup = store.begin_backup(false, &|| true).unwrap();
    store.write_checkpoint(going.job_id, 1, CheckpointMark { epoch: 9, ..mark }, &checkpoint(2.0)).unwrap().unwrap();
    let ended = Job { attempt: 1, ..finished(&ending) };
    assert!(matches!(store.finish_job(&ended, None).unwrap(), Finished::Committed { .. }));
    assert!(store.delete_model(&deleted.model_id).unwrap().is_some());
    create(&store, "later");
    let mut archive = Vec::new();
    backup.write(&mut archive).unwrap();
    // One checkpoint, rows and weights each: "kept", "later", and the job that goes on.
    assert_eq!(blob_count(folder.path()), 4);

    let mut source = archive.as_slice();
    restore(&mut source as &mut dyn Read, other.path()).unwrap();
    let restored = Store::open(other.path()).unwrap();
    assert!(restored.model(&name("later")).unwrap().is_none());
    assert_eq!(restored.parameters(deleted.uid, 1, &architecture()).unwrap(), Some(weights(1.0)));
    for job in [&going, &ending] {
        assert_eq!(restored.checkpoint(job.job_id).unwrap(), Some(checkpoint(1.0)));
        assert_eq!(restored.job(job.job_id).unwrap().unwrap().checkpoint, Some(mark));
        assert_eq!(restored.training_data(job.job_id).unwrap(), Some(rows()));
    }
    assert!(restored.take_good_stop().unwrap(), "a backup is no crash of its jobs");
}

#[test]
fn a_backup_that_is_given_up_or_cut_short_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    create(&store, "kept");
    let count = || fs::read_dir(folder.path()).unwrap().count();
    let before = count();
    assert!(store.begin_backup(false, &|| false).is_err());
    assert_eq!(count(), before);
    drop(store.begin_backup(false, &|| true).unwrap());
    assert_eq!(count(), before);
    drop(store);
    let left = folder.path().join(format!("backup-{}.tmp", Uuid::now_v7()));
    fs::write(&left, "as a kill leaves it").unwrap();
    fs::write(folder.path().join("backup-notes.tmp"), "an operator's").unwrap();
    let _store = Store::open(folder.path()).unwrap();
    assert!(!left.exists() && folder.path().join("backup-notes.tmp").exists());
}

fn weights_of(store: &Store, uid: Uuid, version: u32) -> blobs::BlobName {
    let stored = store.records().get::<models::StoredVersion>(&keys::version(uid, version)).unwrap().unwrap();
    blobs::BlobName::Weights { uid, blob: stored.value.blob }
}

fn archived(store: &Store, skips_damaged: bool) -> Result<(Vec<u8>, BackupSize), BackupError> {
    let mut archive = Vec::new();
    let size = store.begin_backup(skips_damaged, &|| true)?.write(&mut archive)?;
    Ok((archive, size))
}

/// A store with a job that has a checkpoint; the checkpoint's file.
fn with_checkpoint(folder: &Path) -> (Store, Job, std::path::PathBuf) {
    let store = Store::open(folder).unwrap();
    let job = accept(&store, &create(&store, "xor"));
    store.start_job(job.job_id, begin(3)).unwrap();
    let mark = CheckpointMark { time: at(4), epoch: 2 };
    store.write_checkpoint(job.job_id, 1, mark, &checkpoint(1.0)).unwrap().unwrap();
    let path = folder.join(BLOBS_FOLDER).join(format!("{}.checkpoint", job.job_id));
    (store, job, path)
}

#[test]
fn a_checkpoint_that_is_damaged_or_lost_is_left_out_and_its_job_begins_anew() {
    for damage in [Some(3), Some(40), Some(70), None] {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, job, path) = with_checkpoint(folder.path());
        match damage {
            Some(at) => {
                let mut bytes = fs::read(&path).unwrap();
                bytes[at] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
            None => fs::remove_file(&path).unwrap(),
        }
        let (archive, size) = archived(&store, false).unwrap();
        assert!(
            size.left_out.count == 1 && size.left_out.named[0].ends_with("of the model \"xor\", which begins anew)"),
            "{size:?}"
        );
        let notes = restore(&mut archive.as_slice() as &mut dyn Read, other.path()).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("begin anew"), "{notes:?}");
        let told = faults(other.path());
        assert!(told.len() == 1 && told[0].contains(".checkpoint"), "{told:?}");
        let restored = Store::open(other.path()).unwrap();
        assert_eq!(restored.checkpoint(job.job_id).unwrap(), None);
        assert_eq!(restored.unfinished_jobs().unwrap().len(), 1);
    }
}

#[test]
fn what_is_damaged_ends_a_backup_or_is_left_out_and_the_rest_is_restored() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(folder.path()).unwrap();
    let (kept, bad) = (create(&store, "kept"), create(&store, "needle-of-a-model"));
    store.commit_version(kept.uid, draft(1), &weights(2.0)).unwrap();
    let damaged = job(&kept, "needle of a job");
    store.accept_job(&damaged, [0; 16], &rows()).unwrap();
    drop(store);
    let records = folder.path().join(RECORDS_FILE);
    super::folder::flip(&records, b"request_id\xafneedle of a job");
    super::folder::flip(&records, b"needle of needle-of-a-model");
    let store = Store::open(folder.path()).unwrap();
    let first = weights_of(&store, kept.uid, 1);
    fs::remove_file(folder.path().join(BLOBS_FOLDER).join(first.to_string())).unwrap();
    let refused = archived(&store, false).unwrap_err();
    let of_bad = "(the model \"needle-of-a-model\")";
    assert!(
        matches!(&refused, BackupError::Store(StoreError::Corrupt { what }) if what.ends_with(of_bad)),
        "{refused}"
    );
    let (archive, size) = archived(&store, true).unwrap();
    let expected = [
        format!("{} {of_bad}", keys::model(bad.uid)),
        format!("{} (job {} of the model \"kept\")", keys::job(damaged.job_id), damaged.job_id),
        format!("{BLOBS_FOLDER}/{first} (it is missing) (version 1 of the model \"kept\")"),
    ];
    assert_eq!((size.left_out.count, size.left_out.named), (3, expected.to_vec()));

    let restored = restore(&mut archive.as_slice() as &mut dyn Read, other.path()).unwrap();
    assert!(restored.notes.iter().any(|note| note.contains(&first.to_string())), "{:?}", restored.notes);
    assert_eq!(faults(other.path()), restored.notes);
    let restored = Store::open(other.path()).unwrap();
    assert_eq!(restored.parameters(kept.uid, 2, &kept.architecture).unwrap(), Some(weights(2.0)));
    assert!(matches!(restored.parameters(kept.uid, 1, &kept.architecture), Err(StoreError::Corrupt { .. })));
    // What is left of the others can go.
    for model_id in [&bad.model_id, &kept.model_id] {
        restored.delete_model(model_id).unwrap().unwrap();
    }
    assert_eq!(archived(&restored, false).unwrap().1.left_out, LeftOut::default());
    drop(restored);
    assert_eq!(faults(other.path()), [""; 0]);
}

#[test]
fn a_damaged_record_whose_key_says_all_is_written_anew_into_a_backup() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open(folder.path()).unwrap();
    let job = accept(&store, &create(&store, "xor"));
    drop(store);
    let records = folder.path().join(RECORDS_FILE);
    for key in [keys::model_job(job.model_uid, job.job_id), keys::unfinished(job.job_id)] {
        let sealed = record::seal(&key, 1, &[]);
        super::folder::flip(&records, &sealed);
    }
    let name = keys::name(&job.model_id);
    super::folder::flip(&records, &record::seal(&name, 1, &record::encode(&name, &job.model_uid).unwrap()));
    let told = faults(folder.path());
    assert!(
        told.iter().filter(|fault| fault.ends_with("damaged: its checksum or its form is wrong")).count() == 3,
        "{told:?}"
    );
    let store = Store::open(folder.path()).unwrap();
    let (archive, size) = archived(&store, false).unwrap();
    assert_eq!(size.left_out, LeftOut::default());
    restore(&mut archive.as_slice() as &mut dyn Read, other.path()).unwrap();
    assert_eq!(faults(other.path()), [""; 0]);
}

#[test]
fn the_records_of_a_backup_have_no_more_room_than_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let job = accept(&store, &create(&store, "xor"));
    let reports: Vec<EpochReport> = (1..=60_000).map(noisy_report).collect();
    for (chunk, reports) in reports.chunks(1_024).enumerate() {
        store.write_reports(job.job_id, chunk as u32, &reports.iter().collect()).unwrap();
    }
    let live: usize = store
        .records()
        .read(|view| {
            let [_, (_, log)] = view.tables();
            let entries = redb::ReadableTable::iter(log).map_err(StoreError::from_redb)?;
            // redb keeps a value that does not fit into a page in as many as make a power of two.
            Ok(entries.map(|entry| entry.unwrap().1.value().len().next_power_of_two()).sum())
        })
        .unwrap();
    let (_, size) = archived(&store, false).unwrap();
    assert!(live > 2 << 20 && size.bytes < live as u64 * 11 / 10, "{live} bytes of pages in {size:?}");
}
