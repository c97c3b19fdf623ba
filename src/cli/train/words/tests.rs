use super::*;
use crate::rpc::pb::loss::Kind;
use crate::rpc::pb::optimizer::Method;

fn loss(text: &str) -> Kind {
    choice::<pb::Loss>(text).unwrap().kind.unwrap()
}

#[test]
fn a_choice_is_a_name_with_or_without_settings() {
    assert_eq!(loss("squared_error"), Kind::SquaredError(pb::SquaredErrorLoss {}));
    assert_eq!(loss("huber"), Kind::Huber(pb::HuberLoss { delta: None }));
    assert_eq!(loss("huber:delta=2"), Kind::Huber(pb::HuberLoss { delta: Some(2.0) }));
    assert_eq!(
        loss(" focal: gamma=0 , alpha = 1e-1 "),
        Kind::Focal(pb::FocalLoss { gamma: Some(0.0), alpha: Some(0.1) })
    );
    let weights = pb::BinaryCrossEntropyLoss { positive_weights: vec![1.0, 2.0, 3.5] };
    assert_eq!(loss("binary_cross_entropy:positive_weights=1;2; 3.5"), Kind::BinaryCrossEntropy(weights));
}

#[test]
fn truth_is_said_by_its_name_alone() {
    for (text, amsgrad) in [
        ("adam:amsgrad,beta1=0.8", true),
        ("adam:beta1=0.8,amsgrad=true", true),
        ("adam:amsgrad=false,beta1=0.8", false),
    ] {
        let adam = pb::Adam { beta1: Some(0.8), amsgrad, ..Default::default() };
        assert_eq!(choice::<pb::Optimizer>(text).unwrap().method, Some(Method::Adam(adam)), "{text}");
    }
}

#[test]
fn an_expression_goes_on_to_the_end() {
    let expression = "where(y_pred >= y_true, max(0, y_pred-y_true), 2*abs(y_pred-y_true))";
    assert_eq!(
        loss(&format!("custom:expression={expression}")),
        Kind::Custom(pb::CustomLoss { expression: expression.into() })
    );
}

#[test]
fn a_setting_is_put_at_the_end_and_not_twice() {
    assert_eq!(with_setting("adamw", "learning_rate", 0.1), "adamw:learning_rate=0.1");
    let text = with_setting("adamw:weight_decay=1", "learning_rate", 1e-7);
    let adamw = pb::AdamW { weight_decay: Some(1.0), learning_rate: Some(1e-7), ..Default::default() };
    assert_eq!(choice::<pb::Optimizer>(&text).unwrap().method, Some(Method::Adamw(adamw)));
    let twice = choice::<pb::Optimizer>(&with_setting(&text, "learning_rate", 1.0)).unwrap_err();
    assert_eq!(twice, "learning_rate is given twice");
}

#[test]
fn what_is_wrong_is_told_with_what_would_be_right() {
    for (text, parts) in [
        ("adamm", &["\"adamm\" is not known", "did you mean \"adam\"?", "There are: sgd, adam, adamw"][..]),
        ("", &["\"\" is not known", "sgd, adam"]),
        ("adam:learnin_rate=1", &["adam takes", "did you mean \"learning_rate\"?", "beta1, beta2"]),
        ("adam:learning_rate", &["learning_rate needs a value"]),
        ("adam:learning_rate=", &["learning_rate needs a value"]),
        ("adam:learning_rate=fast", &["learning_rate must be a number, but is \"fast\""]),
        ("adam:learning_rate=inf", &["learning_rate must be a number, but is \"inf\""]),
        ("adam:amsgrad=maybe", &["amsgrad must be true or false"]),
        ("lbfgs:history_size=1.5", &["history_size must be a whole number"]),
        ("lbfgs:history_size=9999999999", &["history_size", "out of range"]),
        ("adam:=1", &["\"\" is nothing that adam takes"]),
    ] {
        let error = choice::<pb::Optimizer>(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?}: no {part:?} in {error}");
        }
    }
    assert!(choice::<pb::Loss>("hinge:margin=1").unwrap_err().contains("hinge takes no settings"));
}

#[test]
fn words_are_those_of_the_contract() {
    assert_eq!(word("f1_macro"), Ok(pb::Metric::F1Macro));
    assert_eq!(word("float64"), Ok(pb::ElementType::Float64));
    assert_eq!(word("sum"), Ok(pb::Reduction::Sum));
    assert!(word::<pb::Metric>("acuracy").unwrap_err().contains("did you mean \"accuracy\"?"));
    assert_eq!(word_of::<pb::Activation>(pb::Activation::LeakyRelu.into()), "leaky_relu");
    assert_eq!(
        activation("leaky_relu:alpha=0.1"),
        Ok(Activation { kind: pb::Activation::LeakyRelu, alpha: Some(0.1) })
    );
    assert_eq!(activation("gelu"), Ok(Activation { kind: pb::Activation::Gelu, alpha: None }));
    assert!(activation("elu:beta=1").unwrap_err().contains("did you mean \"alpha\"?"));
}

#[test]
fn weights_targets_and_times_are_read() {
    assert_eq!(class_weights("balanced"), Ok(pb::ClassWeights { weights: vec![], balanced: true }));
    assert_eq!(class_weights("1, 2.5").unwrap().weights, [1.0, 2.5]);
    assert!(class_weights("1,heavy").unwrap_err().contains("\"heavy\""));
    assert_eq!(stop_at("loss=0.1"), Ok(pb::StopAt { metric: pb::Metric::Loss.into(), value: Some(0.1) }));
    assert!(stop_at("loss").is_err() && stop_at("loss=low").is_err());
    for (text, milliseconds) in [("90s", 90_000), ("5m", 300_000), ("1.5h", 5_400_000), ("500ms", 500)] {
        assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in ["90", "s", "-1s", "1d", "", "nan s"] {
        assert!(duration(text).is_err(), "{text}");
    }
    let settings = settings::<pb::BatchNormalization>("momentum=0.2").unwrap();
    assert_eq!((settings.momentum, settings.epsilon), (Some(0.2), None));
    assert!(patch::<pb::TrainRequest>("{\"epoch\":1}").unwrap_err().contains("did you mean \"epochs\"?"));
    assert!(patch::<pb::TrainRequest>("{epochs:1}").unwrap_err().contains("not JSON"));
}

#[test]
fn help_lists_what_there_is() {
    let help = choices_help::<pb::Schedule>("How.");
    assert!(help.starts_with("How.\n") && help.contains("\n  cosine:t_0,t_mult,eta_min\n"), "{help}");
    let help = words_help::<pb::Metric>("What.");
    assert!(help.contains("roc_auc,") && help.lines().all(|line| line.len() <= 100), "{help}");
}
