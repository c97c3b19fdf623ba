//! What a failing disk, a power cut and a damaged record file may do, and what not.

use super::disk::Disk;
use super::*;

fn store_on(disk: &Arc<Disk>) -> Result<Store, StoreError> {
    Store::over(Medium::Backend(Arc::clone(disk) as Arc<_>), Blobs::in_memory())
}

#[test]
fn after_an_io_error_all_is_refused_until_the_file_is_open_again() {
    let disk = Arc::new(Disk::default());
    let store = store_on(&disk).unwrap();
    let model = create(&store, "before");
    disk.fail(true);
    for attempt in ["first", "second"] {
        let refused = store.create_model(&super::model(attempt), &first_version(), &weights(1.0));
        assert!(matches!(refused, Err(StoreError::Unavailable { .. })), "{refused:?}");
    }
    let message = store.model(&name("before")).unwrap_err().to_string();
    assert!(message.contains("no space left on device") && message.contains("check that the disk"), "{message}");
    disk.fail(false);
    create(&store, "after");
    assert_eq!(store.model(&name("before")).unwrap(), Some(model));
    assert_eq!(store.models(None, 10).unwrap().len(), 2);
}

#[test]
fn a_record_file_that_vanished_is_not_replaced_by_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    create(&store, "xor");
    let (path, kept) = (folder.path().join(RECORDS_FILE), folder.path().join("kept"));
    std::fs::rename(&path, &kept).unwrap();
    store.records().close_for_test();
    assert!(matches!(store.model(&name("xor")), Err(StoreError::Unavailable { .. })));
    assert!(!path.exists());
    std::fs::rename(&kept, &path).unwrap();
    assert!(store.model(&name("xor")).unwrap().is_some());
}

#[test]
fn readers_alone_get_the_file_opened_again() {
    let disk = Arc::new(Disk::default());
    let store = store_on(&disk).unwrap();
    let model = create(&store, "xor");
    disk.fail(true);
    store.commit_version(model.uid, draft(1), &weights(1.0)).unwrap_err();
    store.model(&name("xor")).unwrap_err();
    disk.fail(false);
    assert_eq!(store.model(&name("xor")).unwrap(), Some(model));
}

#[test]
fn what_was_acknowledged_survives_a_power_cut_at_any_sync() {
    let disk = Arc::new(Disk::default());
    let store = store_on(&disk).unwrap();
    disk.keep_images();
    let models: Vec<Model> = (0..8)
        .map(|index| {
            let model = create(&store, &format!("m-{index}"));
            disk.mark(index + 1);
            model
        })
        .collect();
    drop(store);
    let images = disk.images();
    assert!(images.len() >= models.len());
    for (acknowledged, image) in images {
        let store = store_on(&Arc::new(Disk::of_image(image))).unwrap();
        let survivors = items(store.models(None, 10).unwrap());
        assert!(survivors.len() >= acknowledged);
        assert_eq!(survivors, models[..survivors.len()]);
    }
}

#[test]
fn a_verified_opening_finds_damage_wherever_it_matters() {
    let disk = Arc::new(Disk::default());
    let store = store_on(&disk).unwrap();
    let model = create(&store, "xor");
    let job = accept(&store, &model);
    drop(store);
    let image = disk.bytes();
    let used = (0..image.len()).filter(|&at| image[at] != 0);
    let mut refused = 0;
    for at in used.step_by(23) {
        let mut image = image.clone();
        image[at] ^= 0xa5;
        let medium = Medium::Backend(Arc::new(Disk::of_image(image)));
        match medium.reopen() {
            Err(_) => refused += 1,
            Ok(database) => {
                drop(database);
                let store = Store::over(medium, Blobs::in_memory()).unwrap();
                assert_eq!(store.model(&name("xor")).unwrap(), Some(model.clone()), "byte {at}");
                assert_eq!(store.job(job.job_id).unwrap(), Some(job.clone()), "byte {at}");
            }
        }
    }
    assert!(refused > 0);
}
