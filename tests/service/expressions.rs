//! What a loss of the caller's own gets that cannot be read, or that is no number on the data: its column, or its row.

use epochd::rpc::pb;
use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_cannot_be_used_is_refused_with_its_column_or_row() {
    let server = Server::start();
    let api = server.api().await;
    let architecture = json!({"input_width": 1, "layers": [{"units": 1}]});
    let weights = json!([{"weights": {"values": [1]}, "bias": {"values": [0]}}]);
    let request = json!({"model_id": "identity", "architecture": architecture, "initial_weights": weights});
    api.create(from_json(&request)).await;
    let with = |text: &str| {
        let loss = json!({"custom": {"expression": text}});
        let (inputs, targets) = (json!({"values": [1, 2, -1, 3]}), json!({"values": [0.5, 1, 2, 3]}));
        let request = json!({"model_id": "identity", "inputs": inputs, "targets": targets, "loss": loss});
        from_json::<pb::TrainRequest>(&request)
    };
    let mut failures = Failures::default();
    let parentheses = |count: usize, inner: &str| format!("{}{inner}{}", "(".repeat(count), ")".repeat(count));
    for (text, column, word) in [
        ("", 1, "empty"),
        ("y_pred +", 9, "operand"),
        ("y_pred + y_tru", 10, "y_true"),
        ("y_pred * foo(y_true)", 10, "there are abs"),
        ("abs y_pred", 1, "write abs(x)"),
        ("y_true", 1, "y_pred"),
        ("(y_pred", 1, "closed"),
        ("y_pred)", 7, "closes nothing"),
        ("y_pred = y_true", 8, "write =="),
        ("0 < y_pred < 1", 12, "(a < b)"),
        ("2y_pred", 1, "write *"),
        ("y_pred @ 2", 8, "operator"),
        ("min(y_pred)", 1, "-max(-x)"),
        ("1e999*y_pred", 1, "too large"),
        ("y_pred + ü", 10, "y_pred and y_true"),
        ("y_pred * y_pred\n+ *", 19, "operand"),
        (&parentheses(4_096, ""), 4_097, "4096 bytes"),
        (&"(".repeat(4_096), 65, "64 deep"),
        (&parentheses(2_045, "y_pred"), 65, "64 deep"),
        (&"y_pred+".repeat(600), 4_097, "4096 bytes"),
        (&"2^".repeat(2_000), 130, "64 deep"),
    ] {
        let answer = api.models.clone().train(with(text)).await.map(drop);
        let what = text.chars().take(30).collect::<String>();
        if let Err(status) = &answer {
            assert!(status.message().contains(&format!("column {column}: ")), "{what}: {}", status.message());
        }
        failures.look(what, answer, "loss.custom.expression", word);
    }
    // The identity answers 1, 2, −1 and 3.
    for (text, word) in [
        ("log(y_pred)", "row 2 (from 0)"),
        ("sqrt(y_pred - 1.5)", "row 0 (from 0)"),
        ("(y_pred - 3)^-1", "row 3 (from 0)"),
        ("log(y_pred)", "clip"),
    ] {
        let answer = api.models.clone().train(with(text)).await.map(drop);
        failures.look(text.into(), answer, "loss.custom.expression", word);
    }
    failures.check();
}
