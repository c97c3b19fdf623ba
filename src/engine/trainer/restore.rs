//! Out of a trainer into a state, and back.

use super::Trainer;
use crate::domain::Values;
use crate::engine::element::Element;
use crate::engine::optimizer::Moments;
use crate::engine::state::{StateError, TrainerState};

impl<T: Element> Trainer<T> {
    /// Everything that a trainer of the same input needs to go on from here.
    pub fn state(&self) -> TrainerState {
        let values = |values: &[T]| T::values_from(values.to_vec());
        let is_within_epoch = self.next_batch > 0 || self.end.is_some();
        let keeps_last = is_within_epoch && self.last_report.is_some() && !self.last_parameters.is_empty();
        let keeps_best = self.best_report.is_some() && !self.best_parameters.is_empty();
        TrainerState {
            epoch: self.epoch,
            next_batch: self.next_batch as u32,
            parameters: values(&self.parameters),
            first_moment: values(&self.moments.first),
            second_moment: values(&self.moments.second),
            optimizer_steps: self.moments.steps,
            loss_sum: self.loss_sum,
            metric_sums: self.metric_sums.clone(),
            last_report: self.last_report,
            last_parameters: keeps_last.then(|| values(&self.last_parameters)),
            best_report: self.best_report,
            best_parameters: keeps_best.then(|| values(&self.best_parameters)),
            patience: self.patience,
            end: self.end.clone(),
        }
    }

    /// Goes on from a state of a trainer of the same input. On an error nothing is changed.
    pub fn restore(&mut self, state: TrainerState) -> Result<(), StateError> {
        self.check(&state)?;
        self.epoch = state.epoch;
        self.next_batch = state.next_batch as usize;
        self.parameters = T::vec_from(state.parameters);
        self.moments = Moments {
            first: T::vec_from(state.first_moment),
            second: T::vec_from(state.second_moment),
            steps: state.optimizer_steps,
        };
        self.loss_sum = state.loss_sum;
        self.metric_sums = state.metric_sums;
        self.last_report = state.last_report;
        if !self.last_parameters.is_empty() {
            match state.last_parameters {
                Some(values) => self.last_parameters = T::vec_from(values),
                None => self.last_parameters.copy_from_slice(&self.parameters),
            }
        }
        self.best_report = state.best_report;
        if let Some(values) = state.best_parameters {
            self.best_parameters = T::vec_from(values);
        }
        self.patience = state.patience;
        self.end = state.end;
        self.draw_order();
        Ok(())
    }

    fn check(&self, state: &TrainerState) -> Result<(), StateError> {
        let fits = |values: &Values, count: usize| values.len() == count && values.element_type() == T::ELEMENT_TYPE;
        let kept_fits = |values: &Option<Values>, kept: &[T]| values.as_ref().is_none_or(|it| fits(it, kept.len()));
        let needs_best = state.best_report.is_some() && !self.best_parameters.is_empty();
        let checks = [
            (fits(&state.parameters, self.parameters.len()), "its parameters do not fit the network"),
            (fits(&state.first_moment, self.moments.first.len()), "its optimizer is another"),
            (fits(&state.second_moment, self.moments.second.len()), "its optimizer is another"),
            (kept_fits(&state.last_parameters, &self.last_parameters), "its batches are others"),
            (kept_fits(&state.best_parameters, &self.best_parameters), "its early stopping is another"),
            (state.best_parameters.is_some() == needs_best, "its early stopping is another"),
            (state.metric_sums.has_shape_of(&self.metric_sums), "its task is another"),
            ((state.next_batch as usize) < self.batches_per_epoch(), "it is at a batch that there is not"),
            (state.epoch <= self.settings.epochs, "it is past the last epoch"),
        ];
        checks.iter().find(|(is_right, _)| !is_right).map_or(Ok(()), |(_, message)| Err(StateError(message)))
    }
}
