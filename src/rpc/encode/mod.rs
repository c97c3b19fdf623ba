//! Domain values to messages.

mod loss;
mod matrix;
mod metrics;
mod model;
mod optimizer;
mod reports;
mod safetensors;
mod training;

pub(super) use matrix::{layer_weights, matrix};
pub(super) use model::{gradients, model, prediction, version, weights};
pub(super) use safetensors::safetensors_head;
pub(super) use training::{job, train_event};

use std::time::Duration;

use crate::domain::Timestamp;

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.unix_micros;
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: (micros.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs() as i64, nanos: duration.subsec_nanos() as i32 }
}
