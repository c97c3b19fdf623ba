//! Weights out, weights in, and gradients: no bit changes on the way.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType, MatrixEncoding, VersionSource};
use tonic::Code;

use crate::support::*;

async fn weights(api: &Api, model_id: &str, encoding: MatrixEncoding) -> pb::Weights {
    let request = pb::GetWeightsRequest { encoding: encoding.into(), ..get_weights(model_id) };
    api.models.clone().get_weights(request).await.unwrap().into_inner()
}

async fn set(api: &Api, model_id: &str, layers: Vec<pb::LayerWeights>) -> Result<pb::Version, tonic::Status> {
    let request = pb::SetWeightsRequest { model_id: model_id.into(), layers };
    Ok(api.models.clone().set_weights(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn getting_and_setting_weights_changes_no_bit_of_a_prediction() {
    let server = Server::start();
    let api = server.api().await;
    for element_type in [ElementType::Float32, ElementType::Float64] {
        for encoding in [MatrixEncoding::Values, MatrixEncoding::Packed] {
            let model_id = format!("{element_type:?}-{encoding:?}").to_lowercase();
            let mut request = xor_model(&model_id, 8);
            request.architecture.as_mut().unwrap().element_type = element_type.into();
            api.create(request.clone()).await;
            api.train(truth_table(&model_id, XOR)).await;
            let outputs = api.outputs(&model_id, corners()).await;
            let out = weights(&api, &model_id, encoding).await;

            // Back into the same model, as a version of its own ...
            let version = set(&api, &model_id, out.layers.clone()).await.unwrap();
            assert_eq!((version.version, version.base_version, version.source()), (3, 2, VersionSource::Set));
            assert_eq!(api.outputs(&model_id, corners()).await, outputs);
            assert_eq!(weights(&api, &model_id, encoding).await.layers, out.layers);

            // ... and into another, as its first.
            request.model_id = format!("{model_id}-copy");
            request.initial_weights = out.layers;
            let copy = api.create(request).await;
            assert_eq!(api.outputs(&copy.model_id, corners()).await, outputs);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_layer_can_be_read_and_replaced_alone() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 3)).await;
    let before = weights(&api, "xor", MatrixEncoding::Values).await;
    let one = pb::GetWeightsRequest { layers: vec![1], ..get_weights("xor") };
    let one = api.models.clone().get_weights(one).await.unwrap().into_inner();
    assert_eq!(one.layers, before.layers[1..]);
    let ones = pb::LayerWeights {
        layer: Some(1),
        weights: Some(values(&[1.0; 3])),
        bias: Some(values(&[1.0])),
        ..Default::default()
    };
    set(&api, "xor", vec![ones]).await.unwrap();
    let after = weights(&api, "xor", MatrixEncoding::Values).await;
    assert_eq!(after.layers[0], before.layers[0]);
    assert_eq!(after.layers[1].weights.as_ref().unwrap().values, [1.0; 3]);
    // The older version is still there.
    let first = pb::GetWeightsRequest { version: Some(1), ..get_weights("xor") };
    assert_eq!(api.models.clone().get_weights(first).await.unwrap().into_inner().layers, before.layers);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_do_not_fit_are_refused_by_path() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 3)).await;
    let layer =
        |layer, weights: &[f64]| pb::LayerWeights { layer, weights: Some(values(weights)), ..Default::default() };
    for (layers, path) in [
        (vec![], "layers"),
        (vec![layer(Some(2), &[1.0; 3])], "layers[0].layer"),
        (vec![layer(Some(1), &[1.0; 2])], "layers[0].weights"),
        (vec![layer(Some(1), &[1.0, f64::NAN, 1.0])], "layers[0].weights"),
        (vec![layer(Some(1), &[1.0; 3]), layer(Some(1), &[1.0; 3])], "layers[1].layer"),
    ] {
        let status = set(&api, "xor", layers).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{path}");
        assert!(fields(&status).iter().any(|field| field.starts_with(path)), "{path}: {status:?}");
    }
    assert_eq!(api.model("xor").await.latest_version, 1);
}

/// One identity unit and the sum of squares by hand: z = 2·1 + 3·2 + 1 = 9, L = (9 − 5)² = 16, δ = 2·4 = 8.
#[tokio::test(flavor = "multi_thread")]
async fn gradients_of_one_unit_are_those_worked_out_by_hand() {
    let server = Server::start();
    let api = server.api().await;
    let mut request = model("unit", 2, &[(1, Activation::Identity)]);
    request.initial_weights = vec![pb::LayerWeights {
        layer: Some(0),
        weights: Some(values(&[2.0, 3.0])),
        bias: Some(values(&[1.0])),
        ..Default::default()
    }];
    api.create(request).await;
    let request = pb::ComputeGradientsRequest {
        model_id: "unit".into(),
        inputs: Some(values(&[1.0, 2.0])),
        targets: Some(values(&[5.0])),
        ..Default::default()
    };
    let answer = api.models.clone().compute_gradients(request).await.unwrap().into_inner();
    assert_eq!((answer.loss, answer.version), (16.0, 1));
    let layer = &answer.layers[0];
    assert_eq!(layer.delta.as_ref().unwrap().values, [8.0]);
    assert_eq!(layer.weights.as_ref().unwrap().values, [8.0, 16.0]);
    assert_eq!(layer.bias.as_ref().unwrap().values, [8.0]);
    assert_eq!(answer.inputs.unwrap().values, [16.0, 24.0]);
    assert_eq!(api.model("unit").await.latest_version, 1);
}

/// Each names another layer: neither may put back what it read of the other's.
#[tokio::test(flavor = "multi_thread")]
async fn two_callers_who_set_different_layers_at_once_lose_nothing() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let first = weights(&api, "xor", MatrixEncoding::Values).await;
    for round in 1..=20 {
        let filled = |layer: usize| {
            let mut layer = first.layers[layer].clone();
            layer.bias.as_mut().unwrap().values.fill(f64::from(round));
            vec![layer]
        };
        let (one, other) = tokio::join!(set(&api, "xor", filled(0)), set(&api, "xor", filled(1)));
        one.and(other).unwrap();
        let now = weights(&api, "xor", MatrixEncoding::Values).await;
        for layer in now.layers {
            assert!(layer.bias.unwrap().values.iter().all(|&bias| bias == f64::from(round)), "round {round}");
        }
    }
}

/// Whoever can see a new version is answered by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_can_be_seen_is_the_one_that_predicts() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 4)).await;
    let layers = weights(&api, "xor", MatrixEncoding::Values).await.layers;
    for round in 0..10 {
        let mut setting = tokio::task::JoinSet::new();
        setting.spawn({
            let (api, layers) = (api.clone(), layers.clone());
            async move { set(&api, "xor", layers).await.unwrap() }
        });
        let mut seen = 0;
        while seen < 2 + round {
            seen = api.model("xor").await.latest_version;
            let answer = api.models.clone().predict(predict("xor", corners())).await.unwrap().into_inner();
            assert!(answer.version >= seen, "version {} answered, {seen} was seen", answer.version);
        }
        setting.join_all().await;
    }
}
