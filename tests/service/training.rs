//! What a training answers for its settings.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType, JobState, StopReason};

use crate::support::*;

/// A hundred rows of two numbers, and whether they lie within a circle.
fn circle(model_id: &str) -> pb::TrainRequest {
    let at = |index: i32, step: f64| (f64::from(index) * step).fract() * 2.0 - 1.0;
    let rows = (0..100).map(|index| (at(index, 0.618_034), at(index, 0.414_214)));
    let inputs: Vec<f64> = rows.clone().flat_map(|(x, y)| [x, y]).collect();
    let targets: Vec<f64> = rows.map(|(x, y)| f64::from(u8::from(x * x + y * y < 0.6))).collect();
    pb::TrainRequest {
        model_id: model_id.into(),
        inputs: Some(values(&inputs)),
        targets: Some(values(&targets)),
        seed: Some(3),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_gives_the_same_bits_whatever_else_trains() {
    let (alone, busy) = (Server::start(), Server::start());
    let mut told = Vec::new();
    for (server, others) in [(&alone, 0), (&busy, 3)] {
        let api = server.api().await;
        for other in 0..others {
            let model_id = format!("other-{other}");
            api.create(xor_model(&model_id, 4)).await;
            next_reports(&mut api.start(endless(&model_id)).await.1).await;
        }
        api.create(xor_model("circle", 8)).await;
        let trained = api.train(pb::TrainRequest { epochs: Some(50), ..circle("circle") }).await;
        let weights = api.models.clone().get_weights(get_weights("circle")).await.unwrap().into_inner();
        told.push((trained.losses(), weights));
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_in_force_tell_every_default_and_repeat_the_run() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("first", 8)).await;
    api.create(xor_model("second", 8)).await;
    let request = pb::TrainRequest { seed: None, epochs: Some(20), ..circle("first") };
    let first = api.train(request.clone()).await;
    let settings = first.started.clone().unwrap().settings.unwrap();
    assert_eq!(
        settings.loss.unwrap().kind,
        Some(pb::loss::Kind::BinaryCrossEntropy(pb::BinaryCrossEntropyLoss::default()))
    );
    assert_eq!((settings.training_rows, settings.validation_rows, settings.report_every), (100, 0, 1));
    let repeated = pb::TrainRequest { model_id: "second".into(), seed: Some(settings.seed), ..request };
    assert_eq!(api.train(repeated).await.losses(), first.losses());
}

#[tokio::test(flavor = "multi_thread")]
async fn early_stopping_ends_after_its_patience_and_restores_the_best_epoch() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("circle", 16)).await;
    let request = pb::TrainRequest {
        validation: Some(pb::train_request::Validation::ValidationFraction(0.3)),
        early_stopping: Some(pb::EarlyStopping { patience: Some(5), min_delta: None, ..Default::default() }),
        optimizer: adam(0.1),
        epochs: Some(2_000),
        ..circle("circle")
    };
    let told = api.train(request).await;
    assert_eq!(told.finished.stop_reason(), StopReason::EarlyStopped);
    let best = told.finished.best_report.unwrap();
    let losses = told.reports.iter().map(|report| report.validation_loss.unwrap());
    assert_eq!(best.validation_loss.unwrap(), losses.fold(f64::INFINITY, f64::min));
    assert_eq!(told.finished.last_report.unwrap().epoch, best.epoch + 5);
    // The version's weights are those of the best epoch: ten rows held out of the fit give its validation loss again.
    let versions = pb::ListVersionsRequest { model_id: "circle".into(), ..Default::default() };
    let versions = api.models.clone().list_versions(versions).await.unwrap().into_inner().versions;
    let trained = versions.iter().find(|version| version.version == 2).unwrap();
    assert_eq!(trained.report.as_ref().unwrap().epoch, best.epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_set_of_ones_own_is_scored_and_not_learned() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    // The validation rows say the opposite of what is trained.
    let opposite = XOR.map(|target| 1.0 - target);
    let validation =
        pb::ValidationData { inputs: Some(corners()), targets: Some(values(&opposite)), ..Default::default() };
    let request = pb::TrainRequest {
        validation: Some(pb::train_request::Validation::ValidationData(validation)),
        optimizer: adam(0.05),
        epochs: Some(500),
        ..truth_table("xor", XOR)
    };
    let last = api.train(request).await.reports.last().unwrap().clone();
    assert_eq!(last.metrics.unwrap().accuracy, Some(1.0));
    assert_eq!(last.validation_metrics.unwrap().accuracy, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_is_part_of_the_version_so_predictions_take_and_give_raw_numbers() {
    let server = Server::start();
    let api = server.api().await;
    let standard = || Some(pb::Scaling { method: Some(pb::scaling::Method::Standard(pb::StandardScaling {})) });
    let mut request = model("house", 1, &[(1, Activation::Identity)]);
    request.preprocessing = Some(pb::Preprocessing { inputs: standard(), targets: standard() });
    api.create(request).await;
    // y = 3,000·x + 50,000 for x of 40 to 240.
    let inputs: Vec<f64> = (0..101).map(|index| f64::from(index) * 2.0 + 40.0).collect();
    let targets: Vec<f64> = inputs.iter().map(|x| 3_000.0 * x + 50_000.0).collect();
    let request = pb::TrainRequest {
        model_id: "house".into(),
        inputs: Some(values(&inputs)),
        targets: Some(values(&targets)),
        optimizer: adam(0.05),
        seed: Some(1),
        ..Default::default()
    };
    let told = api.train(request).await;
    assert!(told.reports.last().unwrap().metrics.unwrap().r2.unwrap() > 0.999_9);
    let outputs = api.outputs("house", values(&[100.0, 200.0])).await;
    assert!((outputs[0] - 350_000.0).abs() < 500.0 && (outputs[1] - 650_000.0).abs() < 500.0, "{outputs:?}");
    // An old version answers with the scaling that it had: none.
    let first = pb::PredictRequest { version: Some(1), ..predict("house", values(&[100.0])) };
    let outputs = api.models.clone().predict(first).await.unwrap().into_inner().outputs.unwrap().values;
    assert!(outputs[0].abs() < 1_000.0, "{outputs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_starts_from_the_latest_weights_or_from_the_first() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let request = pb::TrainRequest { epochs: Some(100), ..truth_table("xor", XOR) };
    let first = api.train(request.clone()).await;
    let on = api.train(request.clone()).await;
    assert_eq!(on.started.unwrap().base_version, 2);
    assert!(on.reports[0].loss < first.reports[0].loss);
    let again = api.train(pb::TrainRequest { start: pb::TrainingStart::Initial.into(), ..request }).await;
    assert_eq!(again.started.as_ref().unwrap().base_version, 1);
    assert_eq!(again.losses(), first.losses());
}

/// Every output with each loss that fits it, in both element types: it trains, and its loss falls.
#[tokio::test(flavor = "multi_thread")]
async fn every_activation_trains_with_every_loss_that_fits() {
    use pb::loss::Kind;
    let server = Server::start();
    let api = server.api().await;
    let squared = || Kind::SquaredError(pb::SquaredErrorLoss {});
    let cases = [
        (Activation::Identity, 1, squared()),
        (Activation::Tanh, 1, squared()),
        (Activation::Relu, 1, squared()),
        (Activation::LeakyRelu, 1, squared()),
        (Activation::Elu, 1, squared()),
        (Activation::Sigmoid, 1, squared()),
        (Activation::Sigmoid, 1, Kind::BinaryCrossEntropy(pb::BinaryCrossEntropyLoss::default())),
        (Activation::Identity, 1, Kind::AbsoluteError(pb::AbsoluteErrorLoss {})),
        (Activation::Sigmoid, 1, Kind::AbsoluteError(pb::AbsoluteErrorLoss {})),
        (Activation::Elu, 1, Kind::Huber(pb::HuberLoss { delta: Some(0.3) })),
        (Activation::Tanh, 1, Kind::LogCosh(pb::LogCoshLoss {})),
        (Activation::Selu, 1, squared()),
        (Activation::Softplus, 1, squared()),
        (Activation::Softsign, 1, squared()),
        (Activation::Exponential, 1, squared()),
        (Activation::HardSigmoid, 1, Kind::Huber(pb::HuberLoss { delta: None })),
        (Activation::Softmax, 2, squared()),
        (Activation::Softmax, 2, Kind::SoftmaxCrossEntropy(pb::SoftmaxCrossEntropyLoss::default())),
    ];
    for element_type in [ElementType::Float32, ElementType::Float64] {
        for (number, (activation, units, loss)) in cases.iter().enumerate() {
            let model_id = format!("{number}-{element_type:?}").to_lowercase();
            let mut request = model(&model_id, 2, &[(8, Activation::Tanh), (*units, *activation)]);
            request.architecture.as_mut().unwrap().element_type = element_type.into();
            api.create(request).await;
            let request = pb::TrainRequest {
                loss: Some(pb::Loss { kind: Some(loss.clone()) }),
                optimizer: adam(0.01),
                epochs: Some(50),
                ..circle(&model_id)
            };
            let told = api.train(request).await;
            assert_eq!(told.finished.state(), JobState::Succeeded, "{model_id} {activation:?}");
            let losses = told.losses();
            assert!(losses[49] < losses[0], "{activation:?} {loss:?}: {} to {}", losses[0], losses[49]);
        }
    }
}
