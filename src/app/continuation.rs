//! Where a training ended, for one that goes on from there.

use std::mem;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::AppError;
use crate::domain::{Continuation, ElementType, Matrix, Settings, Targets, TrainingData, Values};
use crate::engine::{AnyTrainer, TrainerState};

/// What is kept beside the vectors.
#[derive(Serialize, Deserialize)]
struct Head {
    settings: Settings,
    /// Of its rows: see [`fingerprint`].
    fingerprint: u64,
    /// Its vectors are empty: they are kept apart.
    state: TrainerState,
}

/// The end of a training, read back.
pub(super) struct Ended {
    settings: Settings,
    fingerprint: u64,
    state: TrainerState,
}

/// What a trainer's end is to later trainings: its state, whose vectors were taken, and they.
pub(super) fn of_end(
    state: TrainerState,
    vectors: Vec<Arc<Values>>,
    settings: &Settings,
    fingerprint: u64,
) -> Result<Continuation, AppError> {
    let head = rmp_serde::to_vec_named(&Head { settings: settings.clone(), fingerprint, state })
        .map_err(|error| AppError::Internal(format!("a training's end cannot be encoded: {error}")))?;
    Ok(Continuation { head, vectors })
}

/// Takes the vectors out of a state, which are stored as they lie in memory.
pub(super) fn take_vectors(state: &mut TrainerState) -> Vec<Arc<Values>> {
    state.vectors_mut().into_iter().map(|vector| Arc::new(mem::replace(vector, empty(vector)))).collect()
}

/// Puts them back; `None` where they are not as many.
pub(super) fn put_vectors(state: &mut TrainerState, vectors: Vec<Arc<Values>>) -> Option<()> {
    let places = state.vectors_mut();
    let vectors_fit = places.len() == vectors.len();
    let pairs = places.into_iter().zip(vectors);
    vectors_fit.then(|| pairs.for_each(|(place, vector)| *place = Arc::unwrap_or_clone(vector)))
}

/// What tells whether two trainings have the same rows: inputs, targets, weights and masks, and those of the validation.
pub(super) fn fingerprint(data: &TrainingData) -> u64 {
    let mut hash = Xxh3::new();
    for rows in std::iter::once(&data.training).chain(&data.validation) {
        add_matrix(&mut hash, Some(&rows.inputs));
        match &rows.targets {
            Targets::Classes(classes) => hash.update(bytemuck::cast_slice(classes)),
            Targets::Values(matrix) => add_matrix(&mut hash, Some(matrix)),
        }
        add_matrix(&mut hash, rows.weights.as_ref());
        add_matrix(&mut hash, rows.mask.as_ref());
    }
    hash.digest()
}

/// The same where a job's record may have it.
pub(super) fn kept_fingerprint(kept: Option<u64>, data: &TrainingData) -> u64 {
    kept.unwrap_or_else(|| fingerprint(data))
}

fn add_matrix(hash: &mut Xxh3, matrix: Option<&Matrix>) {
    hash.update(&[u8::from(matrix.is_some())]);
    if let Some(matrix) = matrix {
        hash.update(matrix.values().as_bytes());
    }
}

fn empty(vector: &Values) -> Values {
    match vector.element_type() {
        ElementType::Float32 => Values::F32(Vec::new()),
        ElementType::Float64 => Values::F64(Vec::new()),
    }
}

impl Ended {
    /// What [`of_end`] kept.
    pub(super) fn new(continuation: Continuation) -> Result<Self, AppError> {
        let damaged = || AppError::DataLoss("the end of the training before cannot be read back".to_owned());
        let Head { settings, fingerprint, mut state } =
            rmp_serde::from_slice(&continuation.head).map_err(|_| damaged())?;
        put_vectors(&mut state, continuation.vectors).ok_or_else(damaged)?;
        Ok(Self { settings, fingerprint, state })
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
    pub(super) fn put_into(
        self,
        trainer: &mut AnyTrainer,
        settings: &Settings,
        fingerprint: u64,
    ) -> Result<(), String> {
        let before = &self.settings;
        // Losses and metrics compare where they are the same functions of the same rows, split in the same way.
        let is_same_measure = self.fingerprint == fingerprint
            && before.loss == settings.loss
            && before.reduction == settings.reduction
            && before.class_weights == settings.class_weights
            && before.metrics == settings.metrics
            && before.monitored() == settings.monitored()
            && before.validation == settings.validation
            && before.seed == settings.seed;
        let is_same_order =
            is_same_measure && before.batch_size == settings.batch_size && before.shuffle == settings.shuffle;
        trainer.continue_from(self.state, is_same_measure, is_same_order).map_err(|error| {
            format!("`start` is CONTINUE, but the training before had other options ({error}): repeat them, or start from LATEST")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rows;

    fn data(last: f32) -> TrainingData {
        let inputs = Matrix::from_values(2, 2, Values::F32(vec![0.5, -1.0, 2.0, last]));
        let training = Rows { inputs, targets: Targets::Classes(vec![0, 1]), weights: None, mask: None };
        TrainingData { training, validation: None }
    }

    #[test]
    fn rows_have_one_fingerprint_wherever_they_lie_and_other_rows_have_another() {
        let told = fingerprint(&data(3.0));
        assert_eq!(fingerprint(&data(3.0).into_packed()), told);
        assert_ne!(fingerprint(&data(4.0)), told);
        assert_eq!((kept_fingerprint(None, &data(3.0)), kept_fingerprint(Some(5), &data(3.0))), (told, 5));
        let validated = TrainingData { validation: Some(data(3.0).training), ..data(3.0) };
        assert_ne!(fingerprint(&validated), told);
    }
}
