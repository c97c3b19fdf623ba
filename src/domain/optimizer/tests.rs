use super::*;

fn check(raw: RawOptimizer, is_perceptron: bool) -> Result<Optimizer, Vec<String>> {
    let mut faults = Faults::new();
    let checked = raw.check(is_perceptron, At::ROOT.field("optimizer"), &mut faults);
    let told = |faults: Faults| faults.as_slice().iter().map(|it| format!("{}: {}", it.path, it.message)).collect();
    faults.finish(checked).map_err(told)
}

fn paths(raw: RawOptimizer) -> Vec<String> {
    let faults = check(raw, false).unwrap_err();
    faults.iter().map(|fault| fault.split(':').next().unwrap().to_owned()).collect()
}

fn sgd(momentum: f64, dampening: f64, nesterov: bool) -> RawOptimizer {
    RawOptimizer::Sgd {
        learning_rate: None,
        momentum: Some(momentum),
        dampening: Some(dampening),
        nesterov,
        weight_decay: None,
    }
}

#[test]
fn the_default_depends_on_whether_the_loss_is_the_perceptrons() {
    let adam = check(RawOptimizer::default_for(false), false).unwrap();
    let expected = Optimizer::Adam {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        amsgrad: false,
    };
    assert_eq!(adam, expected);
    let sgd = RawOptimizer::default_for(true);
    assert_eq!(check(sgd, true).unwrap().learning_rate(), 1.0);
    assert_eq!(check(sgd, false).unwrap().learning_rate(), 0.01);
}

#[test]
fn nesterov_needs_a_momentum_and_no_dampening() {
    assert!(check(sgd(0.9, 0.0, true), false).is_ok());
    assert_eq!(
        check(sgd(0.0, 0.0, true), false).unwrap_err(),
        ["optimizer.sgd.nesterov: needs a momentum: set momentum above 0, such as 0.9, or leave nesterov out"]
    );
    assert_eq!(
        check(sgd(0.9, 0.5, true), false).unwrap_err(),
        ["optimizer.sgd.dampening: must be 0 with nesterov: set it to 0, or leave nesterov out"]
    );
    assert!(check(sgd(0.9, 1.0, false), false).is_ok());
}

#[test]
fn the_largest_step_is_no_smaller_than_the_smallest() {
    let rprop = |step_min, step_max| RawOptimizer::Rprop {
        learning_rate: None,
        eta_minus: None,
        eta_plus: None,
        step_min: Some(step_min),
        step_max: Some(step_max),
    };
    assert!(check(rprop(0.5, 0.5), false).is_ok());
    assert_eq!(
        check(rprop(0.5, 0.25), false).unwrap_err(),
        ["optimizer.rprop.step_max: must be at least step_min, 0.5, but is 0.25: raise it, or lower step_min"]
    );
}

#[test]
fn every_number_out_of_its_range_is_told_with_its_path() {
    let (nan, learning_rate, weight_decay) = (Some(f64::NAN), Some(0.0), Some(-0.1));
    let one = Some(1.0);
    let sgd = RawOptimizer::Sgd { learning_rate, momentum: one, dampening: Some(1.1), nesterov: true, weight_decay };
    let names = ["learning_rate", "momentum", "dampening", "weight_decay"];
    assert_eq!(paths(sgd), names.map(|name| format!("optimizer.sgd.{name}")));

    let moments = ["learning_rate", "beta1", "beta2", "epsilon", "weight_decay"];
    let (beta1, beta2, epsilon, amsgrad) = (one, nan, Some(0.0), true);
    let adam = RawOptimizer::Adam { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad };
    assert_eq!(paths(adam), moments.map(|name| format!("optimizer.adam.{name}")));
    let adamw = RawOptimizer::AdamW { learning_rate, beta1, beta2, epsilon, weight_decay, amsgrad };
    assert_eq!(paths(adamw), moments.map(|name| format!("optimizer.adamw.{name}")));
    let nadam = RawOptimizer::Nadam { learning_rate, beta1, beta2, epsilon, momentum_decay: Some(-1.0), weight_decay };
    let names = ["learning_rate", "beta1", "beta2", "epsilon", "momentum_decay", "weight_decay"];
    assert_eq!(paths(nadam), names.map(|name| format!("optimizer.nadam.{name}")));

    let rmsprop =
        RawOptimizer::RmsProp { learning_rate, decay: one, epsilon, momentum: one, centered: true, weight_decay };
    let names = ["learning_rate", "decay", "epsilon", "momentum", "weight_decay"];
    assert_eq!(paths(rmsprop), names.map(|name| format!("optimizer.rmsprop.{name}")));
    let (learning_rate_decay, initial_accumulator) = (nan, Some(f64::INFINITY));
    let adagrad =
        RawOptimizer::Adagrad { learning_rate, learning_rate_decay, initial_accumulator, epsilon, weight_decay };
    let names = ["learning_rate", "learning_rate_decay", "initial_accumulator", "epsilon", "weight_decay"];
    assert_eq!(paths(adagrad), names.map(|name| format!("optimizer.adagrad.{name}")));
    let adadelta = RawOptimizer::Adadelta { learning_rate, decay: one, epsilon, weight_decay };
    let names = ["learning_rate", "decay", "epsilon", "weight_decay"];
    assert_eq!(paths(adadelta), names.map(|name| format!("optimizer.adadelta.{name}")));

    let zero = Some(0.0);
    let rprop = RawOptimizer::Rprop { learning_rate, eta_minus: one, eta_plus: one, step_min: zero, step_max: zero };
    let names = ["learning_rate", "eta_minus", "eta_plus", "step_min", "step_max"];
    assert_eq!(paths(rprop), names.map(|name| format!("optimizer.rprop.{name}")));
    let lbfgs = RawOptimizer::Lbfgs(LbfgsOf {
        learning_rate,
        history_size: Some(101),
        max_evaluations: Some(0),
        tolerance_gradient: nan,
        tolerance_change: Some(-1.0),
    });
    let names = ["learning_rate", "history_size", "max_evaluations", "tolerance_gradient", "tolerance_change"];
    assert_eq!(paths(lbfgs), names.map(|name| format!("optimizer.lbfgs.{name}")));
}

/// Records written before the newer numbers were there.
#[test]
fn an_older_record_reads_as_what_it_meant() {
    #[derive(serde::Serialize)]
    enum Older {
        Sgd { learning_rate: f64, momentum: f64 },
        Adam { learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64 },
    }
    let read = |older: Older| rmp_serde::from_slice(&rmp_serde::to_vec_named(&older).unwrap()).unwrap();
    let sgd: Optimizer = read(Older::Sgd { learning_rate: 0.1, momentum: 0.9 });
    let expected =
        Optimizer::Sgd { learning_rate: 0.1, momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    assert_eq!(sgd, expected);
    let adam: Optimizer = read(Older::Adam { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 });
    assert_eq!(adam, check(RawOptimizer::default_for(false), false).unwrap());
}
