//! Messages to domain values: what is missing, unknown or contradicts itself is told with its path. Ranges are the
//! domain's to check.

mod loss;
mod matrix;
mod metrics;
mod model;
pub(super) mod optimizer;
mod request_hash;
mod training;

pub(super) use matrix::Encoding;
pub(super) use model::{create_model, layer_parameters, model_id, predict_request};
pub(super) use training::{gradients_request, job_id, job_state, train_command};

use super::descriptors;
use crate::domain::{At, Faults};

/// An enum's value by its number; a fault where the contract has none of that number.
fn known<E: TryFrom<i32>>(value: i32, at: At<'_>, faults: &mut Faults) -> Option<E> {
    let known = E::try_from(value).ok();
    if known.is_none() {
        let names = descriptors::value_names::<E>().join(", ");
        faults.add(at, format!("{value} is no value of it; there are {names}"));
    }
    known
}
