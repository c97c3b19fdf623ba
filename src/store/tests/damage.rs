//! A flipped bit anywhere in any file is told, or does no harm: what it is in is named, and everything else reads.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::failing::scene;
use super::power_cut::{FOLDER, open};
use super::reference::{Reading, Reference};
use super::simulated::{Random, SimulatedDisk};
use super::*;

/// Places in the record file where a bit is flipped; with EPOCHD_SEQUENCES so many times more.
const PLACES: u64 = 150;
const PAGE_BYTES: usize = 4_096;

fn flipped(disk: &SimulatedDisk, path: &Path, at: usize, bit: usize) -> SimulatedDisk {
    let mut state = disk.state();
    let mut bytes = state.bytes(state.file(path).unwrap()).to_vec();
    bytes[at] ^= 1 << bit;
    state.set_bytes(path, bytes);
    SimulatedDisk::of_state(state)
}

fn length(disk: &SimulatedDisk, path: &Path) -> usize {
    let state = disk.state();
    state.bytes(state.file(path).unwrap()).len()
}

fn blobs(disk: &SimulatedDisk) -> BTreeSet<PathBuf> {
    disk.state().paths().into_iter().filter(|path| path.starts_with(Path::new(FOLDER).join(BLOBS_FOLDER))).collect()
}

fn not_same(reference: &Reference, store: &Store) -> Vec<(String, Reading)> {
    reference.readings(store).into_iter().filter(|(_, reading)| *reading != Reading::Same).collect()
}

#[test]
fn a_flipped_bit_in_any_byte_of_any_blob_is_told_by_its_name_and_all_else_reads() {
    let scene = scene();
    let store = open(&scene.disk).unwrap();
    assert_eq!(not_same(&scene.reference, &store), []);
    drop(store);
    let paths = blobs(&scene.disk);
    assert_eq!(paths.len(), scene.reference.blob_count());
    let bytes: usize = paths.iter().map(|path| length(&scene.disk, path)).sum();
    println!("{} blobs, {bytes} bytes", paths.len());
    for path in paths {
        for at in 0..length(&scene.disk, &path) {
            let disk = flipped(&scene.disk, &path, at, at % 8);
            let damaged = not_same(&scene.reference, &open(&disk).unwrap());
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_told = |reading: &Reading| matches!(reading, Reading::Damaged(what) if what.contains(name));
            assert!(damaged.len() == 1 && is_told(&damaged[0].1), "byte {at} of {name}: {damaged:?}");
        }
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_the_format_is_refused_and_nothing_is_swept() {
    let scene = scene();
    let path = Path::new(FOLDER).join("FORMAT");
    for at in 0..length(&scene.disk, &path) {
        for bit in 0..8 {
            let disk = flipped(&scene.disk, &path, at, bit);
            // But for the line's end, which nothing depends on.
            match open(&disk) {
                Err(StoreError::Format { .. }) => {}
                Ok(_) => assert!(at + 1 == length(&scene.disk, &path), "byte {at}, bit {bit}"),
                Err(error) => panic!("byte {at}, bit {bit}: {error}"),
            }
            assert_eq!(blobs(&disk), blobs(&scene.disk));
        }
    }
}

/// Bytes in use of redb's header and of pages with records. Its other pages say which pages are free: over damage in one of those
/// redb 4.6 may panic twice, which would end the tests.
fn places(bytes: &[u8]) -> Vec<usize> {
    let holds_records = |page: &[u8]| page.windows(8).any(|text| text == b"default/");
    let pages = bytes.chunks(PAGE_BYTES).enumerate().filter(|(number, page)| *number == 0 || holds_records(page));
    let places = pages.flat_map(|(number, _)| number * PAGE_BYTES..(number + 1) * PAGE_BYTES);
    places.filter(|&at| bytes[at] != 0).collect()
}

/// In a value it is told with the key; in a key, or in redb's own pages, it may hide records. No blob is lost by either.
#[test]
fn a_flipped_bit_in_the_record_file_shows_no_other_value_and_costs_no_blob() {
    let scene = scene();
    let path = Path::new(FOLDER).join(RECORDS_FILE);
    let state = scene.disk.state();
    let bytes = state.bytes(state.file(&path).unwrap());
    let used = places(bytes);
    let mut random = Random::new(7);
    let (mut refused, mut told) = (0, 0);
    let places = PLACES * super::power_cut::sequences();
    for _ in 0..places {
        let (at, bit) = (used[random.below(used.len())], random.below(8));
        let disk = flipped(&scene.disk, &path, at, bit);
        match open(&disk) {
            Err(error) => {
                // The number of redb's file format may be hit: that is another format then, and refused as one.
                let is_header = at < PAGE_BYTES && matches!(error, StoreError::Format { .. });
                let is_told = is_header || matches!(error, StoreError::Corrupt { .. } | StoreError::Unavailable { .. });
                assert!(is_told, "{at}: {error}");
                refused += 1;
            }
            Ok(store) => {
                let damaged = not_same(&scene.reference, &store);
                let wrong = damaged.iter().find(|(_, reading)| matches!(reading, Reading::Wrong(_)));
                assert_eq!(wrong, None, "byte {at}, bit {bit}");
                told += usize::from(!damaged.is_empty());
            }
        }
        assert!(blobs(&disk).is_superset(&blobs(&scene.disk)), "byte {at}, bit {bit}");
    }
    println!("records.redb: {refused} starts were refused, {told} told of damage, of {places} places");
    assert!(told > 20, "{refused} were refused, {told} told");
}
