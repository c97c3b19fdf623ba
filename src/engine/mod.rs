//! Pure mathematics: networks, and how they learn. No tokio, no I/O, no clock, no log, no global that a result depends on; randomness comes from
//! explicit seeds. Of our modules it uses `domain` alone.
//!
//! The map, from the ground up:
//!
//! | file | subject |
//! |---|---|
//! | `element` | float32 and float64 as one trait; functions whose bits depend on no C library |
//! | `aligned` | numbers that begin at a line of the caches |
//! | `simd` | loops compiled for the vectors of the processor at hand |
//! | `elementary` | exponentials, logarithms and tanh of float32 that run as vectors |
//! | `product` | matrix products |
//! | `unchecked` | all that is `unsafe`: threads that help with large steps, and lines of memory that are fetched ahead |
//! | `random` | streams keyed by (seed, purpose, epoch, batch) |
//! | `initializer` | initial weights |
//! | `activation`, `loss` | value beside derivative, the formula above both |
//! | `expression` | losses that callers write: a tape that runs forward and in reverse |
//! | `network` | the forward pass, and a [`Network`] that predicts |
//! | `normalization`, `dropout` | what lies between the layers' parts in a training step |
//! | `backward` | backpropagation |
//! | `gradients` | the gradients of one batch, made visible |
//! | `optimizer`, `lbfgs` | how parameters follow their gradients |
//! | `schedule` | how the learning rate changes |
//! | `scaler`, `split`, `data` | what happens to rows before they are learned from |
//! | `metrics`, `judge`, `early_stopping` | how well it goes, and when to stop |
//! | `workspace` | buffers made once: a step allocates nothing |
//! | `trainer`, `state` | a training as a state machine that can stop and go on at any batch |
//! | `any` | both element types behind one face: what the rest of the program uses |
//!
//! Invariants: parameters, gradients and moments are flat and in layer order ([`Architecture::layout`]); matrices are
//! row-major; the same input gives the same bits, wherever a training was stopped and gone on with, and however many rows
//! a prediction has.
//!
//! [`Architecture::layout`]: crate::domain::Architecture::layout

pub mod activation;
pub mod aligned;
pub mod any;
pub mod backward;
pub mod data;
pub mod dropout;
pub mod early_stopping;
pub mod element;
pub mod elementary;
pub mod expression;
pub mod gradients;
pub mod initializer;
pub mod judge;
pub mod lbfgs;
pub mod loss;
pub mod metrics;
pub mod network;
pub mod normalization;
pub mod optimizer;
pub mod product;
pub mod random;
pub mod scaler;
pub mod schedule;
pub mod simd;
pub mod split;
pub mod state;
pub mod trainer;
pub mod unchecked;
pub mod workspace;

#[cfg(test)]
mod testing;

pub use any::{AnyNetwork, AnyTrainer, BatchGradients, expression_bytes};
pub use early_stopping::is_better;
pub use element::Element;
pub use gradients::{GradientError, Gradients};
pub use initializer::draw_parameters;
pub use metrics::MetricPlan;
pub use network::Network;
pub use optimizer::slot_count;
pub use random::Purpose;
pub use split::split;
pub use state::{EpochEnd, LastEpoch, StateError, Step, Stop, TrainerEnd, TrainerState};
pub use trainer::{Trainer, TrainerInput};
pub use unchecked::team::{Entered, Team, Workers};
