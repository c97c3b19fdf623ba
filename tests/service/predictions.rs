//! Predictions: from a version, whole, whatever trains meanwhile; or from the training itself, when asked.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType};
use tonic::Code;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_answers_from_its_latest_version_while_it_trains() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let before = api.outputs("xor", corners()).await;
    let (job_id, mut events) = api.start(endless("xor")).await;
    for _ in 0..20 {
        next_reports(&mut events).await;
        assert_eq!(api.outputs("xor", corners()).await, before);
    }
    api.jobs.clone().cancel_job(cancel(&job_id, true)).await.unwrap();
    let answer = api.models.clone().predict(predict("xor", corners())).await.unwrap().into_inner();
    assert_eq!(answer.version, 2);
    assert_ne!(answer.outputs.unwrap().values, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_prediction_follows_the_running_job() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let live = pb::PredictRequest { live: true, ..predict("xor", corners()) };
    refused(api.models.clone().predict(live.clone()).await, Code::FailedPrecondition, "live");
    let (job_id, mut events) = api.start(endless("xor")).await;
    let mut epochs = Vec::new();
    while epochs.len() < 3 {
        next_reports(&mut events).await;
        let answer = api.models.clone().predict(live.clone()).await.unwrap().into_inner();
        assert_eq!((answer.job_id.as_str(), answer.version), (job_id.as_str(), 1));
        if epochs.last() != answer.epoch.as_ref() {
            epochs.extend(answer.epoch);
        }
    }
    assert!(epochs.is_sorted(), "{epochs:?}");
    let both = pb::PredictRequest { version: Some(1), ..live };
    refused(api.models.clone().predict(both).await, Code::InvalidArgument, "version");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_request_is_answered_packed_in_the_models_element_type() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let values = api.outputs("xor", corners()).await;
    let doubles = packed(&[0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    let answer = api.models.clone().predict(predict("xor", doubles)).await.unwrap().into_inner().outputs.unwrap();
    assert_eq!((answer.packed_type(), answer.rows, answer.columns), (ElementType::Float32, Some(4), Some(1)));
    let read = answer.packed.chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
    assert_eq!(read.collect::<Vec<f64>>(), values);
    assert!(answer.values.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_alone_has_the_bits_of_the_same_row_among_others() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 64)).await;
    let together = api.outputs("xor", corners()).await;
    for (row, expected) in corners().values.chunks(2).zip(together) {
        assert_eq!(api.outputs("xor", values(row)).await, [expected]);
    }
}

/// Enough operations that cores share its rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_prediction_has_the_bits_of_its_rows_alone_and_names_the_row_that_leads_out_of_range() {
    let server = Server::start();
    let api = server.api().await;
    api.create(model("wide", 50, &[(512, Activation::Tanh), (3, Activation::Identity)])).await;
    let mut rows: Vec<f64> = (0..100_000).map(|index| f64::from(index % 97) / 97.0).collect();
    let ask = async |rows: &[f64]| {
        let request = pb::PredictRequest { layers: vec![1], ..predict("wide", values(rows)) };
        api.models.clone().predict(request).await
    };
    let all = ask(&rows).await.unwrap().into_inner();
    let outputs = all.outputs.unwrap().values;
    assert_eq!((outputs.len(), all.layers[0].values.as_ref().unwrap().values == outputs), (6_000, true));
    for row in [0, 1, 499, 500, 666, 667, 999, 1_000, 1_333, 1_334, 1_999] {
        let alone = ask(&rows[row * 50..(row + 1) * 50]).await.unwrap().into_inner();
        assert_eq!(alone.outputs.unwrap().values, outputs[row * 3..(row + 1) * 3], "{row}");
    }
    let weights = pb::LayerWeights {
        layer: Some(0),
        weights: Some(values(&vec![1e37; 50 * 512])),
        bias: Some(values(&[0.0; 512])),
        ..Default::default()
    };
    let request = pb::SetWeightsRequest { model_id: "wide".into(), layers: vec![weights] };
    api.models.clone().set_weights(request).await.unwrap();
    rows.fill(0.0);
    rows[1_777 * 50..1_778 * 50].fill(1e30);
    let pre = pb::PredictRequest { layers: vec![0], before_activation: true, ..predict("wide", values(&rows)) };
    let status = api.models.clone().predict(pre).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("row 1777"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn classifiers_name_the_winner_of_each_row() {
    let server = Server::start();
    let api = server.api().await;
    let mut request = model("three", 1, &[(3, Activation::Softmax)]);
    request.class_labels = ["low", "middle", "high"].map(String::from).to_vec();
    let (weights, bias) = (Some(values(&[-5.0, 0.0, 5.0])), Some(values(&[0.0, 1.0, 0.0])));
    request.initial_weights = vec![pb::LayerWeights { layer: Some(0), weights, bias, ..Default::default() }];
    api.create(request).await;
    let answer = api.models.clone().predict(predict("three", values(&[-1.0, 0.0, 1.0]))).await.unwrap().into_inner();
    let labels: Vec<&str> = answer.classes.iter().map(|class| class.label.as_str()).collect();
    assert_eq!(labels, ["low", "middle", "high"]);
    assert_eq!(answer.classes.iter().map(|class| class.index).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    // softmax(5, 1, −5) of the winner.
    let expected = 5_f64.exp() / (5_f64.exp() + 1_f64.exp() + (-5_f64).exp());
    assert!((answer.classes[0].probability.unwrap() - expected).abs() < 1e-6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_no_finite_number_is_told_and_names_no_class() {
    let server = Server::start();
    let api = server.api().await;
    api.create(model("line", 2, &[(1, Activation::Identity)])).await;
    let weights = pb::LayerWeights {
        layer: Some(0),
        weights: Some(values(&[1e30, -1e30])),
        bias: Some(values(&[0.0])),
        ..Default::default()
    };
    let request = pb::SetWeightsRequest { model_id: "line".into(), layers: vec![weights] };
    api.models.clone().set_weights(request).await.unwrap();
    let inputs = values(&[1.0, 2.0, 3e38, 1.0]);
    let status = api.models.clone().predict(predict("line", inputs)).await.unwrap_err();
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["inputs".to_owned()]));
    assert!(status.message().contains("row 1"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_could_not_be_sent_is_refused_before_it_is_computed() {
    let server = Server::start();
    let api = server.api().await;
    api.create(model("wide", 1, &[(65_536, Activation::Identity)])).await;
    // Five megabytes that ask for half a terabyte.
    let bytes = vec![0; 4 * 1_200_000];
    let inputs = pb::Matrix { packed: bytes.into(), ..Default::default() };
    let answer = api.models.clone().predict(predict("wide", inputs)).await;
    refused(answer, Code::ResourceExhausted, "fewer rows");
    // Activations of a hidden layer come back with the gradients, too.
    api.create(model("deep", 1, &[(65_536, Activation::Tanh), (1, Activation::Identity)])).await;
    let request = pb::ComputeGradientsRequest {
        model_id: "deep".into(),
        inputs: Some(values(&[1.0; 1_000])),
        targets: Some(values(&[1.0; 1_000])),
        ..Default::default()
    };
    let answer = api.models.clone().compute_gradients(request).await;
    refused(answer, Code::ResourceExhausted, "fewer rows");
    assert_eq!(api.outputs("wide", values(&[0.0])).await.len(), 65_536);
}

/// XOR by hand, as it was drawn before anybody could train it: two step units, OR and NAND, and their AND.
#[tokio::test(flavor = "multi_thread")]
async fn hidden_steps_predict_with_weights_set_by_hand() {
    let server = Server::start();
    let api = server.api().await;
    let mut request = model("xor", 2, &[(2, Activation::Step), (1, Activation::Step)]);
    let layer = |layer, weights: &[f64], bias: &[f64]| pb::LayerWeights {
        layer: Some(layer),
        weights: Some(values(weights)),
        bias: Some(values(bias)),
        ..Default::default()
    };
    request.initial_weights = vec![layer(0, &[1.0, -1.0, 1.0, -1.0], &[-0.5, 1.5]), layer(1, &[1.0, 1.0], &[-1.5])];
    api.create(request).await;
    assert_eq!(api.outputs("xor", corners()).await, XOR);
    refused(api.models.clone().train(truth_table("xor", XOR)).await, Code::FailedPrecondition, "layers[0].activation");
}

/// Version 1, and two more that answer differently.
async fn three_versions(api: &Api, model_id: &str) -> Vec<Vec<f64>> {
    api.create(xor_model(model_id, 4)).await;
    for _ in 0..2 {
        api.train(pb::TrainRequest { epochs: Some(20), ..truth_table(model_id, XOR) }).await;
    }
    let mut outputs = Vec::new();
    for version in 1..=3 {
        let request = pb::PredictRequest { version: Some(version), ..predict(model_id, corners()) };
        outputs.push(api.models.clone().predict(request).await.unwrap().into_inner().outputs.unwrap().values);
    }
    assert!(outputs[0] != outputs[1] && outputs[1] != outputs[2]);
    outputs
}

async fn serve_version(api: &Api, model_id: &str, version: Option<i32>) -> Result<pb::Model, tonic::Status> {
    let request = pb::SetServingVersionRequest { model_id: model_id.into(), version };
    Ok(api.models.clone().set_serving_version(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn predictions_go_back_to_any_version_and_on_again() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    let outputs = three_versions(&api, "xor").await;
    assert_eq!(api.model("xor").await.serving_version, None);
    for version in [1, 2, 3, 1] {
        let model = serve_version(&api, "xor", Some(version)).await.unwrap();
        assert_eq!((model.serving_version, model.latest_version), (Some(version), 3));
        let answer = api.models.clone().predict(predict("xor", corners())).await.unwrap().into_inner();
        assert_eq!((answer.version, &answer.outputs.unwrap().values), (version, &outputs[version as usize - 1]));
    }
    // A version that is chosen stays, whatever is committed; and it outlives the process.
    api.train(pb::TrainRequest { epochs: Some(5), ..truth_table("xor", XOR) }).await;
    assert_eq!(api.outputs("xor", corners()).await, outputs[0]);
    process.kill();
    let process = Process::serve(folder.path(), &[]);
    let api = process.api().await;
    assert_eq!(api.outputs("xor", corners()).await, outputs[0]);
    let model = serve_version(&api, "xor", None).await.unwrap();
    assert_eq!((model.serving_version, model.latest_version), (None, 4));
    let answer = api.models.clone().predict(predict("xor", corners())).await.unwrap().into_inner();
    assert_eq!(answer.version, 4);
    for (version, code) in [(5, Code::NotFound), (0, Code::InvalidArgument), (-1, Code::InvalidArgument)] {
        refused(serve_version(&api, "xor", Some(version)).await, code, &version.to_string());
    }
    refused(serve_version(&api, "other", None).await, Code::NotFound, "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_versions_change_each_prediction_is_of_one_and_the_first_after_the_answer_is_of_the_new_one() {
    let server = Server::start();
    let api = server.api().await;
    let outputs = three_versions(&api, "xor").await;
    let ask = async |api: &Api| {
        let answer = api.models.clone().predict(predict("xor", corners())).await.unwrap().into_inner();
        assert_eq!(answer.outputs.unwrap().values, outputs[answer.version as usize - 1]);
        answer.version
    };
    let changes = async {
        for round in 0..200 {
            let version = round % 3 + 1;
            serve_version(&api, "xor", Some(version)).await.unwrap();
            assert_eq!(ask(&api).await, version);
        }
    };
    let asks = async {
        loop {
            ask(&api).await;
        }
    };
    tokio::select! {
        () = changes => {}
        () = async { tokio::join!(asks); } => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_version_keeps_no_other_from_answering() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::over(folder.path());
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let first = std::fs::read_dir(folder.path().join("blobs")).unwrap().next().unwrap().unwrap().path();
    api.train(truth_table("xor", XOR)).await;
    server.stop().await;
    for blob in std::fs::read_dir(folder.path().join("blobs")).unwrap().flatten().map(|entry| entry.path()) {
        if blob != first && blob.extension().is_some_and(|kind| kind == "weights") {
            let mut bytes = std::fs::read(&blob).unwrap();
            bytes[30] ^= 1;
            std::fs::write(blob, bytes).unwrap();
        }
    }
    let server = Server::over(folder.path());
    let api = server.api().await;
    refused(api.models.clone().predict(predict("xor", corners())).await, Code::DataLoss, ".weights");
    let ask = pb::PredictRequest { version: Some(1), ..predict("xor", corners()) };
    assert_eq!(api.models.clone().predict(ask).await.unwrap().into_inner().version, 1);
    // It is not chosen to be served, either: the one that answers goes on.
    let serve = |version| pb::SetServingVersionRequest { model_id: "xor".into(), version: Some(version) };
    api.models.clone().set_serving_version(serve(1)).await.unwrap();
    refused(api.models.clone().set_serving_version(serve(2)).await, Code::DataLoss, ".weights");
    assert_eq!(api.models.clone().predict(predict("xor", corners())).await.unwrap().into_inner().version, 1);
    let (_, mut events) =
        api.start(pb::TrainRequest { start: pb::TrainingStart::Initial.into(), ..endless("xor") }).await;
    next_reports(&mut events).await;
    let live = pb::PredictRequest { live: true, ..predict("xor", corners()) };
    api.models.clone().predict(live).await.unwrap();
}
