//! Where a training ended, for one that goes on from there.

use std::mem;

use serde::{Deserialize, Serialize};

use super::AppError;
use crate::domain::{Continuation, ElementType, Settings, Values};
use crate::engine::{AnyTrainer, TrainerState};

/// What is kept beside the vectors.
#[derive(Serialize, Deserialize)]
struct Head {
    settings: Settings,
    /// Its vectors are empty: they are kept apart.
    state: TrainerState,
}

/// The end of a training, read back.
pub(super) struct Ended {
    settings: Settings,
    state: TrainerState,
}

/// What a trainer's end is to later trainings.
pub(super) fn of_trainer(trainer: &AnyTrainer, settings: &Settings) -> Result<Continuation, AppError> {
    let mut state = trainer.state();
    let vectors = state.vectors_mut().into_iter().map(|vector| mem::replace(vector, empty(vector))).collect();
    let head = rmp_serde::to_vec_named(&Head { settings: settings.clone(), state })
        .map_err(|error| AppError::Internal(format!("a training's end cannot be encoded: {error}")))?;
    Ok(Continuation { head, vectors })
}

fn empty(vector: &Values) -> Values {
    match vector.element_type() {
        ElementType::Float32 => Values::F32(Vec::new()),
        ElementType::Float64 => Values::F64(Vec::new()),
    }
}

impl Ended {
    /// What [`of_trainer`] kept.
    pub(super) fn new(continuation: Continuation) -> Result<Self, AppError> {
        let damaged = || AppError::DataLoss("the end of the training before cannot be read back".to_owned());
        let Head { settings, mut state } = rmp_serde::from_slice(&continuation.head).map_err(|_| damaged())?;
        let places = state.vectors_mut();
        if places.len() != continuation.vectors.len() {
            return Err(damaged());
        }
        places.into_iter().zip(continuation.vectors).for_each(|(place, vector)| *place = vector);
        Ok(Self { settings, state })
    }

    /// The seed that the training before used.
    pub(super) fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// Whether a training with these settings can go on from it; else what to change.
    pub(super) fn check(&self, settings: &Settings) -> Result<(), String> {
        let (before, now) = (self.settings.optimizer.name(), settings.optimizer.name());
        if before != now {
            return Err(format!(
                "`start` is CONTINUE, but the version before was trained by {before} and this asks for {now}: use {before}, or \
                 start from LATEST"
            ));
        }
        Ok(())
    }

    /// Puts a new trainer where the training before ended.
    pub(super) fn put_into(self, trainer: &mut AnyTrainer, settings: &Settings) -> Result<(), String> {
        let before = &self.settings;
        let is_same_measure = before.loss == settings.loss
            && before.monitored() == settings.monitored()
            && before.validation == settings.validation;
        let is_same_order = before.seed == settings.seed
            && before.rows == settings.rows
            && before.batch_size == settings.batch_size
            && before.shuffle == settings.shuffle
            && before.validation == settings.validation;
        trainer.continue_from(self.state, is_same_measure, is_same_order).map_err(|error| {
            format!("`start` is CONTINUE, but the training before had other options ({error}): repeat them, or start from LATEST")
        })
    }
}
