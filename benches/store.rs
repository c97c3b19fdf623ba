//! What the store costs with many models in one folder: `cargo bench --bench store`.

use std::path::Path;

use divan::Bencher;
use epochd::domain::model::{Version, VersionSource};
use epochd::domain::{
    Activation, Architecture, At, Faults, Model, ModelId, Preprocessing, RawArchitecture, RawLayer, Timestamp, Values,
};
use epochd::store::Store;
use uuid::Uuid;

const MODELS: usize = 10_000;

fn main() {
    divan::main();
}

fn name(text: &str) -> ModelId {
    ModelId::new(text, At::ROOT, &mut Faults::new()).expect("the name is sound")
}

fn architecture() -> Architecture {
    let layer = RawLayer { units: 1, activation: Activation::Sigmoid, ..RawLayer::default() };
    let raw = RawArchitecture { input_width: 2, layers: vec![Some(layer)], ..RawArchitecture::default() };
    raw.check(At::ROOT, &mut Faults::new()).expect("the shape is sound")
}

fn create(store: &Store, model_id: &str) {
    let time = Timestamp { unix_micros: 1 };
    let model = Model {
        model_id: name(model_id),
        uid: Uuid::now_v7(),
        architecture: architecture(),
        seed: 1,
        latest_version: 1,
        serving_version: None,
        pinned_versions: Default::default(),
        class_labels: Vec::new(),
        preprocessing: Preprocessing::default(),
        labels: Default::default(),
        create_time: time,
        update_time: time,
    };
    let version = Version {
        version: 1,
        base_version: None,
        source: VersionSource::Initial,
        preprocessing: None,
        create_time: time,
    };
    store.create_model(&model, &version, &Values::F32(vec![0.5; 3])).expect("the folder can be written");
}

/// A folder with ten thousand models, filled by fifty threads, so that group commit has something to group.
fn filled(folder: &Path) {
    let store = Store::open(folder).expect("the folder can be opened");
    std::thread::scope(|scope| {
        for thread in 0..50 {
            let store = &store;
            scope.spawn(move || (0..MODELS / 50).for_each(|index| create(store, &format!("m-{thread}-{index}"))));
        }
    });
}

#[divan::bench(sample_count = 20)]
fn open_ten_thousand_models(bencher: Bencher) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    filled(folder.path());
    bencher.bench_local(|| Store::open(folder.path()).expect("the folder can be opened"));
}

#[divan::bench(args = [50, 1_000], sample_count = 50)]
fn page_of_ten_thousand_models(bencher: Bencher, limit: usize) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    filled(folder.path());
    let store = Store::open(folder.path()).expect("the folder can be opened");
    let after = name("m-25-100");
    bencher.bench_local(|| store.models(Some(&after), limit).expect("the folder can be read"));
}

/// One model, durable on return.
#[divan::bench(sample_count = 100)]
fn create_model(bencher: Bencher) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let store = Store::open(folder.path()).expect("the folder can be opened");
    let mut count = 0;
    bencher.bench_local(|| {
        count += 1;
        create(&store, &format!("m-{count}"));
    });
}
