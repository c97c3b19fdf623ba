//! Weights as safetensors files: every bit, whatever happens meanwhile, or an error. The files are read by the format's own crate.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};

use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType, MatrixEncoding};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tonic::Code;

use crate::support::*;

/// Sixteen MiB of float64: more than connections hold on their way.
fn wide_model(model_id: &str, seed: u64) -> pb::CreateModelRequest {
    let mut request = model(model_id, 1_024, &[(2_048, Activation::Identity)]);
    request.architecture.as_mut().unwrap().element_type = ElementType::Float64.into();
    request.seed = Some(seed);
    request
}

async fn delete(api: &Api, model_id: &str) {
    api.models.clone().delete_model(pb::DeleteModelRequest { model_id: model_id.into() }).await.unwrap();
}

/// Asserts that a file holds the tensors that GetWeights tells, and no other.
async fn assert_is_version(api: &Api, model_id: &str, version: i32, file: &WeightsFile, dtype: Dtype) {
    let encoding = MatrixEncoding::Packed.into();
    let request = pb::GetWeightsRequest { version: Some(version), encoding, ..get_weights(model_id) };
    let weights = api.models.clone().get_weights(request).await.unwrap().into_inner();
    let tensors = SafeTensors::deserialize(&file.bytes).unwrap();
    let mut count = 0;
    let mut look = |layer: &pb::LayerWeights, name: &str, matrix: &Option<pb::Matrix>, is_vector: bool| {
        let Some(matrix) = matrix else { return };
        let (rows, columns) = (matrix.rows() as usize, matrix.columns() as usize);
        let name = format!("layers.{}.{name}", layer.layer());
        let tensor = tensors.tensor(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let shape = if is_vector { vec![columns] } else { vec![rows, columns] };
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &shape[..]), "{name}");
        assert!(tensor.data() == matrix.packed, "{name}");
        count += 1;
    };
    for layer in &weights.layers {
        look(layer, "weights", &layer.weights, false);
        look(layer, "bias", &layer.bias, true);
        let Some(normalization) = &layer.batch_normalization else { continue };
        look(layer, "batch_normalization.scale", &normalization.scale, true);
        look(layer, "batch_normalization.shift", &normalization.shift, true);
        look(layer, "batch_normalization.mean", &normalization.mean, true);
        look(layer, "batch_normalization.variance", &normalization.variance, true);
    }
    assert_eq!(tensors.len(), count);
    assert_eq!(file.version, version);
}

/// What a file says beside its tensors.
fn metadata(file: &WeightsFile) -> Value {
    let (header_bytes, header) = SafeTensors::read_metadata(&file.bytes).unwrap();
    assert_eq!(header_bytes % 8, 0, "tensors must be aligned");
    json!(header.metadata())
}

/// JSON within the metadata.
fn parsed(metadata: &Value, key: &str) -> Value {
    serde_json::from_str(metadata[key].as_str().unwrap()).unwrap()
}

fn json_of<M: prost::Name>(message: &M) -> Value {
    serde_json::to_value(dynamic(message)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_the_bits_of_get_weights() {
    let server = Server::start();
    let api = server.api().await;
    let layers = json!([
        {"units": 5, "activation": "ACTIVATION_RELU", "batch_normalization": {}},
        {"units": 4, "activation": "ACTIVATION_TANH", "frozen": true},
        {"units": 3, "activation": "ACTIVATION_ELU", "bias": false},
        {"units": 2, "activation": "ACTIVATION_GELU", "batch_normalization": {"momentum": 0.5}},
        {"units": 1, "activation": "ACTIVATION_SIGMOID"},
    ]);
    for (element_type, dtype) in [(ElementType::Float32, Dtype::F32), (ElementType::Float64, Dtype::F64)] {
        let model_id = format!("{dtype:?}").to_lowercase();
        let architecture = json!({"input_width": 2, "element_type": element_type.as_str_name(), "layers": layers});
        api.create(from_json(&json!({"model_id": model_id, "architecture": architecture, "seed": 1}))).await;
        api.train(from_json(&training(&model_id, &json!({"epochs": 3, "batch_size": 4})))).await;
        for version in [1, 2] {
            let file = api.file(&model_id, Some(version)).await;
            assert_is_version(&api, &model_id, version, &file, dtype).await;
            assert!(file.bytes == api.file(&model_id, Some(version)).await.bytes, "another time, other bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_version_is_the_default_whichever_is_served() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    api.train(pb::TrainRequest { epochs: Some(2), ..truth_table("xor", XOR) }).await;
    let request = pb::SetServingVersionRequest { model_id: "xor".into(), version: Some(1) };
    api.models.clone().set_serving_version(request).await.unwrap();
    let file = api.file("xor", None).await;
    assert_is_version(&api, "xor", 2, &file, Dtype::F32).await;
    assert!(file.bytes != api.file("xor", Some(1)).await.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_what_it_takes_to_build_the_network_again() {
    let server = Server::start();
    let api = server.api().await;
    // Before the first training nothing is fitted.
    let plain = api.create(xor_model("plain", 3)).await;
    let told = metadata(&api.file("plain", None).await);
    let names: Vec<&String> = told.as_object().unwrap().keys().collect();
    assert_eq!(names, ["architecture", "format", "model_id", "model_uid", "version"]);
    assert_eq!(
        (&told["format"], &told["model_id"], &told["version"]),
        (&"epochd.v1".into(), &"plain".into(), &"1".into())
    );
    assert_eq!(told["model_uid"], plain.uid);
    assert_eq!(parsed(&told, "architecture"), json_of(&plain.architecture.unwrap()));

    // A classifier with names for its classes, and a regression with scaled targets.
    let standard = json!({"standard": {}});
    let layers = json!([{"units": 4, "activation": "ACTIVATION_LEAKY_RELU", "activation_alpha": 0.2, "batch_normalization": {}},
                        {"units": 2, "activation": "ACTIVATION_SOFTMAX"}]);
    let labels = json!(["a \"quoted\" name", "ein Äpfelchen"]);
    let classifier = json!({
        "model_id": "classes", "architecture": {"input_width": 2, "layers": layers}, "class_labels": labels,
        "preprocessing": {"inputs": standard}, "seed": 1
    });
    let regressor = json!({
        "model_id": "amounts", "architecture": {"input_width": 2, "layers": [{"units": 1}]},
        "preprocessing": {"inputs": {"min_max": {}}, "targets": standard}, "seed": 1
    });
    for (request, has_labels, has_target_scaler) in [(classifier, true, false), (regressor, false, true)] {
        let model = api.create(from_json(&request)).await;
        let request = pb::TrainRequest { epochs: Some(2), ..truth_table(&model.model_id, XOR) };
        api.train(request).await;
        let versions = pb::ListVersionsRequest { model_id: model.model_id.clone(), ..Default::default() };
        let versions = api.models.clone().list_versions(versions).await.unwrap().into_inner().versions;
        let told = metadata(&api.file(&model.model_id, None).await);
        assert_eq!(parsed(&told, "architecture"), json_of(model.architecture.as_ref().unwrap()));
        assert_eq!(parsed(&told, "input_scaler"), json_of(versions[1].input_scaler.as_ref().unwrap()));
        assert_eq!(told.get("class_labels").is_some(), has_labels);
        assert_eq!(told.get("target_scaler").is_some(), has_target_scaler);
        if has_labels {
            assert_eq!(parsed(&told, "class_labels"), labels);
        } else {
            assert_eq!(parsed(&told, "target_scaler"), json_of(versions[1].target_scaler.as_ref().unwrap()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_refused_before_any_byte() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    for (model_id, version, field) in [
        ("", None, "model_id"),
        ("../xor", None, "model_id"),
        ("xor", Some(0), "version"),
        ("xor", Some(-1), "version"),
    ] {
        let status = api.download(model_id, version).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]), "{status:?}");
    }
    refused(api.download("nobody", None).await, Code::NotFound, "nobody");
    refused(api.download("xor", Some(2)).await, Code::NotFound, "no version 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_deleted_meanwhile_is_downloaded_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(wide_model("wide", 1)).await;
    let expected = api.file("wide", None).await;
    assert_is_version(&api, "wide", 1, &expected, Dtype::F64).await;
    let (first, messages) = api.download("wide", None).await.unwrap();
    delete(&api, "wide").await;
    assert_eq!(blobs(&folder).len(), 0, "a download keeps no file");
    // A namesake is another model.
    api.create(wide_model("wide", 2)).await;
    let file = read_on(first, messages).await.unwrap();
    assert!(file.bytes == expected.bytes);
    assert!(file.bytes != api.file("wide", None).await.bytes);
}

/// Each commit gives back the version before it. A download that names none is of one of them, whole.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_version_is_downloaded_while_others_take_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(RawConfig { data_dir: folder.path().to_owned(), versions_per_model: 1, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("xor", 64)).await;
    let layers = api.models.clone().get_weights(get_weights("xor")).await.unwrap().into_inner().layers;
    let committed = AtomicI32::new(1);
    let commit = async {
        while committed.load(Ordering::Relaxed) < 100 {
            let request = pb::SetWeightsRequest { model_id: "xor".into(), layers: layers.clone() };
            let version = api.models.clone().set_weights(request).await.unwrap().into_inner().version;
            committed.store(version, Ordering::Relaxed);
        }
    };
    let download = || async {
        while committed.load(Ordering::Relaxed) < 100 {
            let earliest = committed.load(Ordering::Relaxed);
            let file = api.file("xor", None).await;
            assert!(file.version >= earliest, "version {} after {earliest}", file.version);
            assert_eq!(metadata(&file)["version"], file.version.to_string());
        }
    };
    tokio::join!(commit, download(), download(), download());
}

/// The files of weights in a data folder.
fn blobs(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    fs::read_dir(folder.path().join("blobs")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_weights_are_data_loss_and_not_one_byte() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(wide_model("wide", 1)).await;
    let [blob] = &blobs(&folder)[..] else { panic!("not one blob") };
    let whole = fs::read(blob).unwrap();
    // In the frame, in the first weight, in the last one, in the checksum; and cut short.
    for at in [0, 40, whole.len() - 9, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(blob, &damaged).unwrap();
        let request = pb::DownloadWeightsRequest { model_id: "wide".into(), version: None };
        let name = blob.file_name().unwrap().to_str().unwrap();
        refused(api.models.clone().download_weights(request).await, Code::DataLoss, name);
    }
    fs::write(blob, &whole[..whole.len() / 2]).unwrap();
    refused(api.download("wide", None).await, Code::DataLoss, ".weights");
    fs::write(blob, &whole).unwrap();
    api.file("wide", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_or_goes_away_is_nobody_elses_matter() {
    let server = Server::start();
    let api = server.api().await;
    api.create(wide_model("wide", 1)).await;
    api.create(xor_model("xor", 2)).await;
    let expected = api.file("wide", None).await;
    // On a connection each: what a client does not read takes from the window that its own calls share.
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(server.api().await.download("wide", None).await.unwrap());
    }
    assert_eq!(api.outputs("xor", corners()).await.len(), 4);
    assert!(api.file("xor", None).await.bytes.len() > 8);
    assert!(api.file("wide", None).await.bytes == expected.bytes);
    unread.truncate(2);
    for (first, messages) in unread {
        assert!(read_on(first, messages).await.unwrap().bytes == expected.bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_past_the_bound_of_an_answer_are_downloaded() {
    let server = Server::with(RawConfig { message_bytes_max: 10_000, ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    // 16,384 bytes as float32; and 7,000, which are 14,000 and more as `values`.
    for (model_id, units) in [("large", 64), ("larger-as-values", 27)] {
        api.create(model(model_id, 64, &[(units, Activation::Tanh)])).await;
        let answer = api.models.clone().get_weights(get_weights(model_id)).await;
        refused(answer, Code::ResourceExhausted, "DownloadWeights (`epochd download`)");
        let file = api.file(model_id, None).await;
        assert_eq!(SafeTensors::deserialize(&file.bytes).unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_may_end_while_the_server_drains() {
    let mut server = Server::with(RawConfig { ephemeral: true, drain_seconds: 60, ..Server::raw() });
    let api = server.api().await;
    api.create(wide_model("wide", 1)).await;
    let (first, messages) = api.download("wide", None).await.unwrap();
    server.begin_stop();
    let file = read_on(first, messages).await.unwrap();
    assert_eq!(SafeTensors::deserialize(&file.bytes).unwrap().len(), 2);
    drop(api);
    server.stop().await;
}

/// And one that nobody reads does not keep the process.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_process_while_a_download_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &["--drain-seconds", "1"]);
    let api = process.api().await;
    api.create(wide_model("wide", 1)).await;
    let (first, messages) = api.download("wide", None).await.unwrap();
    signal(process.id(), "TERM");
    let (status, log) = tokio::task::spawn_blocking(|| process.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    // What was sent already is not the whole file, and is not told as it.
    assert!(read_on(first, messages).await.is_err());
}
