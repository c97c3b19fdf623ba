//! What makes no sense together is refused, naming what does.

use crate::domain::architecture::{Architecture, Layer};
use crate::domain::fault::{At, Faults};
use crate::domain::loss::Loss;
use crate::domain::optimizer::Optimizer;
use crate::domain::schedule::Schedule;
use crate::domain::settings::Settings;

/// Looks at settings that are sound one by one.
pub(super) fn check(
    settings: &Settings,
    architecture: &Architecture,
    is_batch_size_given: bool,
    faults: &mut Faults,
) -> Option<()> {
    let before = faults.count();
    check_full_batch(settings, is_batch_size_given, faults);
    check_step_choosers(settings, faults);
    if matches!(settings.optimizer, Optimizer::Lbfgs { .. }) {
        check_lbfgs(settings, architecture, faults);
    }
    check_batch_normalization(settings, architecture, faults);
    (faults.count() == before).then_some(())
}

fn check_full_batch(settings: &Settings, is_batch_size_given: bool, faults: &mut Faults) {
    let (rows, name) = (settings.training_rows(), settings.optimizer.name());
    if settings.optimizer.is_full_batch_only() && is_batch_size_given && u64::from(settings.batch_size) < rows {
        let message = format!(
            "is {}, but {name} needs all {rows} training rows at once: leave it out, or use adam or sgd with mini-batches",
            settings.batch_size
        );
        faults.add(At::ROOT.field("batch_size"), message);
    }
}

/// Optimizers that choose the length of their steps themselves follow no schedule.
fn check_step_choosers(settings: &Settings, faults: &mut Faults) {
    if settings.optimizer.is_full_batch_only() && settings.schedule != Schedule::default() {
        let name = settings.optimizer.name();
        let message =
            format!("has no effect on {name}, which chooses its steps itself: leave it out, or use adam or sgd");
        faults.add(At::ROOT.field("schedule"), message);
    }
}

/// A line search compares losses of different weights: they must be those of one smooth function.
fn check_lbfgs(settings: &Settings, architecture: &Architecture, faults: &mut Faults) {
    let at = At::ROOT;
    if architecture.has_dropout() {
        let message = "cannot train a network with dropout, whose loss changes from one evaluation to the next; use adam or \
                       sgd, or a model without dropout";
        faults.add(at.field("optimizer").field("lbfgs"), message);
    }
    if architecture.layers().iter().any(|layer| layer.max_norm.is_some()) {
        let message = "cannot keep a max_norm, which moves weights behind its line search; use adam or sgd, or l2";
        faults.add(at.field("optimizer").field("lbfgs"), message);
    }
    if settings.loss == Loss::Perceptron {
        let message = "cannot follow the perceptron criterion, whose least is at weights of 0; use sgd";
        faults.add(at.field("optimizer").field("lbfgs"), message);
    }
    if settings.l1 > 0.0 {
        faults.add(at.field("l1"), "has a kink at 0 that the line search of lbfgs stumbles over; use l2, or adam");
    }
    for (name, bound) in
        [("max_gradient_norm", settings.max_gradient_norm), ("max_gradient_value", settings.max_gradient_value)]
    {
        if bound.is_some() {
            faults.add(at.field(name), "would mislead the line search of lbfgs: leave it out, or use adam or sgd");
        }
    }
}

/// The mean and variance of one row say nothing; frozen layers go by their running values.
fn check_batch_normalization(settings: &Settings, architecture: &Architecture, faults: &mut Faults) {
    let goes_by_batch = |(index, layer): (usize, &Layer)| {
        let is_frozen = layer.frozen || settings.frozen_layers.contains(&(index as u32));
        layer.batch_normalization.is_some() && !is_frozen
    };
    if !architecture.layers().iter().enumerate().any(goes_by_batch) {
        return;
    }
    if settings.training_rows() < 2 {
        faults.add(At::ROOT.field("inputs"), "need at least two training rows for batch normalization");
    } else if settings.batch_size < 2 {
        faults.add(At::ROOT.field("batch_size"), "must be at least 2 with batch normalization; 32 is usual");
    }
}
