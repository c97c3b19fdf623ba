//! What a backup holds is one moment, whatever comes after it.

use std::fs;
use std::io::Read;

use super::*;
use crate::domain::CheckpointMark;

fn checkpoint(seed: f32) -> Continuation {
    Continuation { head: vec![seed as u8; 3], vectors: vec![weights(seed)] }
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
    let backup = store.begin_backup(&|| true).unwrap();
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
    assert!(store.begin_backup(&|| false).is_err());
    assert_eq!(count(), before);
    drop(store.begin_backup(&|| true).unwrap());
    assert_eq!(count(), before);
    drop(store);
    let left = folder.path().join(format!("backup-{}.tmp", Uuid::now_v7()));
    fs::write(&left, "as a kill leaves it").unwrap();
    fs::write(folder.path().join("backup-notes.tmp"), "an operator's").unwrap();
    let _store = Store::open(folder.path()).unwrap();
    assert!(!left.exists() && folder.path().join("backup-notes.tmp").exists());
}
