//! What a first course teaches, learned over the wire.

use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, JobState, StopReason};

use crate::support::*;

/// One unit with the perceptron rule on a truth table.
async fn perceptron(api: &Api, model_id: &str, activation: Activation, targets: [f64; 4]) -> Told {
    api.create(model(model_id, 2, &[(1, activation)])).await;
    api.train(truth_table(model_id, targets)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_perceptron_rule_learns_and_within_14_epochs_and_or_within_8_and_says_that_it_converged() {
    let server = Server::start();
    let api = server.api().await;
    for (name, targets, epochs_max) in [("and", AND, 14), ("or", OR, 8)] {
        for (kind, activation) in [("sign", Activation::Sign), ("step", Activation::Step)] {
            let model_id = format!("{name}-{kind}");
            let told = perceptron(&api, &model_id, activation, targets).await;
            assert_eq!(told.finished.stop_reason(), StopReason::Converged, "{model_id}");
            assert!(told.epochs().len() <= epochs_max, "{model_id}: {:?}", told.epochs());
            let low = if kind == "sign" { -1.0 } else { 0.0 };
            let expected = targets.map(|target| if target == 1.0 { 1.0 } else { low });
            assert_eq!(api.outputs(&model_id, corners()).await, expected, "{model_id}");
        }
    }
}

/// The bound holds from whatever weights and in whatever order: many seeds, and the largest count is what is promised.
#[tokio::test(flavor = "multi_thread")]
async fn every_seed_learns_and_and_or_within_the_same_bounds() {
    let server = Server::start();
    let api = server.api().await;
    for (name, targets, epochs_max) in [("and", AND, 14), ("or", OR, 8)] {
        for seed in 1..=50 {
            let model_id = format!("{name}-{seed}");
            let request = model(&model_id, 2, &[(1, Activation::Sign)]);
            api.create(pb::CreateModelRequest { seed: Some(seed), ..request }).await;
            let told = api.train(pb::TrainRequest { seed: Some(seed), ..truth_table(&model_id, targets) }).await;
            assert_eq!(told.finished.stop_reason(), StopReason::Converged, "{model_id}");
            assert!(told.epochs().len() <= epochs_max, "{model_id}: {:?}", told.epochs());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_perceptron_never_learns_xor() {
    let server = Server::start();
    let told = perceptron(&server.api().await, "xor", Activation::Sign, XOR).await;
    assert_eq!(told.finished.stop_reason(), StopReason::EpochsDone);
    assert_eq!(told.finished.state(), JobState::Succeeded);
    let wrong = |report: &pb::EpochReport| report.metrics.unwrap().misclassified_rows.unwrap();
    assert!(told.reports.iter().all(|report| wrong(report) >= 1));
}

/// From zero weights every row lies on the border: the loss is 0, and yet nothing is learned.
#[tokio::test(flavor = "multi_thread")]
async fn a_perceptron_with_loss_zero_and_wrong_rows_has_not_converged() {
    let server = Server::start();
    let api = server.api().await;
    let zero = pb::LayerWeights {
        layer: Some(0),
        weights: Some(values(&[0.0, 0.0])),
        bias: Some(values(&[0.0])),
        ..Default::default()
    };
    let request = model("xor", 2, &[(1, Activation::Sign)]);
    api.create(pb::CreateModelRequest { initial_weights: vec![zero], ..request }).await;
    let full_batch = pb::TrainRequest { batch_size: Some(4), epochs: Some(30), ..truth_table("xor", XOR) };
    let told = api.train(pb::TrainRequest { reduction: pb::Reduction::Sum.into(), ..full_batch }).await;
    assert_eq!(told.reports[0].loss, 0.0);
    assert_eq!(told.reports[0].metrics.unwrap().misclassified_rows, Some(4));
    assert_eq!(told.finished.stop_reason(), StopReason::EpochsDone);
}

/// How many of the seeds 1 to 100 learn XOR with so many hidden units.
async fn seeds_that_learn_xor(hidden: i32) -> usize {
    let server = Server::start();
    let api = server.api().await;
    let mut learned = 0;
    for seed in 1..=100 {
        let model_id = format!("xor-{seed}");
        api.create(pb::CreateModelRequest { seed: Some(seed), ..xor_model(&model_id, hidden) }).await;
        let request = truth_table(&model_id, XOR);
        let full_batch = pb::TrainRequest { optimizer: adam(0.05), epochs: Some(500), seed: Some(seed), ..request };
        api.train(full_batch).await;
        let outputs = api.outputs(&model_id, corners()).await;
        learned += usize::from(outputs.iter().zip(XOR).all(|(output, target)| (output - target).abs() < 0.5));
    }
    learned
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_hidden_units_learn_xor_from_every_seed() {
    assert_eq!(seeds_that_learn_xor(8).await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hidden_units_learn_xor_from_92_seeds_of_100_or_more() {
    let learned = seeds_that_learn_xor(4).await;
    println!("2-4-1 learns XOR from {learned} of 100 seeds");
    assert!(learned >= 92, "{learned}");
}

/// Two hidden units are enough to say XOR, but often not to find it. Tried over 20,000 seeds in another framework, 48 % do;
/// with that chance the count of 100 lies between 33 and 63 in all but 3 of 1,000 draws.
#[tokio::test(flavor = "multi_thread")]
async fn two_hidden_units_learn_xor_about_every_second_time() {
    let learned = seeds_that_learn_xor(2).await;
    println!("2-2-1 learns XOR from {learned} of 100 seeds");
    assert!((33..=63).contains(&learned), "{learned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_id_inputs_and_targets_alone_learn_xor() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 8)).await;
    let told = api.train(truth_table("xor", XOR)).await;
    assert_eq!(told.reports.last().unwrap().metrics.unwrap().misclassified_rows, Some(0));
    let settings = told.started.unwrap().settings.unwrap();
    assert_eq!((settings.epochs, settings.batch_size, settings.shuffle), (2_000, 32, true));
}
