//! Out of a trainer into a state, and back.

use super::Trainer;
use crate::domain::{StopReason, Values};
use crate::engine::element::Element;
use crate::engine::state::{StateError, TrainerEnd, TrainerState};

impl<T: Element> Trainer<T> {
    /// Everything that a trainer of the same input needs to go on from here.
    pub fn state(&self) -> TrainerState {
        let mut state = self.state_without_vectors();
        for (place, vector) in state.vectors_mut().into_iter().zip(self.vectors()) {
            *place = T::values_from(vector.to_vec());
        }
        state
    }

    /// The vectors of [`state`](Self::state), in the order of [`TrainerState::vectors_mut`].
    pub fn vectors(&self) -> Vec<&[T]> {
        let kept = [(self.saves_last(), &self.last_parameters), (self.saves_best(), &self.best_parameters)];
        let kept = kept.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, vector)| &**vector);
        std::iter::once(&*self.parameters).chain(self.optimizer.saved_slots()).chain(kept).collect()
    }

    /// The end of the training: its state, what it has to show, and no more. Nothing is in memory twice, and rows and buffers are given back.
    pub fn into_end(self) -> TrainerEnd {
        let (saves_last, saves_best) = (self.saves_last(), self.saves_best());
        let mut state = self.state_without_vectors();
        let report = self.result_report().cloned().unwrap_or_default();
        let shows_best = self.shows_best() && saves_best;
        let Self { parameters, optimizer, last_parameters, best_parameters, .. } = self;
        let kept = [(saves_last, last_parameters), (saves_best, best_parameters)];
        let kept = kept.into_iter().filter(|(is_kept, _)| *is_kept).map(|(_, vector)| vector.into());
        let vectors = std::iter::once(Vec::from(parameters)).chain(optimizer.into_saved_slots()).chain(kept);
        let places = state.vectors_mut();
        let count = places.len();
        places.into_iter().zip(vectors).for_each(|(place, vector)| *place = T::values_from(vector));
        // Between two epochs, where the last one's are not kept apart, the parameters are those.
        let result = match (shows_best, saves_last) {
            (true, _) => count - 1,
            (false, true) => count - 1 - usize::from(saves_best),
            (false, false) => 0,
        };
        TrainerEnd { state, result, report }
    }

    fn saves_last(&self) -> bool {
        let is_within_epoch = self.next_batch > 0 || self.end.is_some();
        is_within_epoch && self.last_report.is_some() && !self.last_parameters.is_empty()
    }

    fn saves_best(&self) -> bool {
        self.best_report().is_some() && !self.best_parameters.is_empty()
    }

    /// The [`state`](Self::state) with its vectors empty: they may be stored from where they lie.
    pub fn state_without_vectors(&self) -> TrainerState {
        let empty = || T::values_from(Vec::new());
        TrainerState {
            epoch: self.epoch,
            last_epoch: self.last_epoch,
            next_batch: self.next_batch as u32,
            parameters: empty(),
            method: self.settings.optimizer.name().to_owned(),
            optimizer: self.optimizer.save_without_slots(),
            schedule: self.schedule,
            rate: self.rate,
            has_converged: self.has_converged,
            has_moved: self.has_moved,
            loss_sum: self.loss_sum,
            metric_sums: self.metric_sums.clone(),
            last_report: self.last_report.clone(),
            last_parameters: self.saves_last().then(empty),
            best_report: self.best_report().cloned(),
            best_parameters: self.saves_best().then(empty),
            patience: self.patience,
            end: self.end.clone(),
            is_alive: self.diagnostics.as_ref().map(|diagnostics| diagnostics.is_alive().to_vec()),
        }
    }

    /// Goes on from a state of a trainer of the same input. On an error nothing is changed.
    pub fn restore(&mut self, state: TrainerState) -> Result<(), StateError> {
        self.check(&state)?;
        self.optimizer.restore(state.optimizer).map_err(StateError)?;
        self.epoch = state.epoch;
        self.last_epoch = state.last_epoch;
        self.next_batch = state.next_batch as usize;
        self.parameters = T::vec_from(state.parameters).into();
        self.schedule = state.schedule;
        self.rate = state.rate;
        self.has_converged = state.has_converged;
        self.has_moved = state.has_moved;
        self.loss_sum = state.loss_sum;
        self.metric_sums.resume(state.metric_sums);
        self.last_report = state.last_report;
        if !self.last_parameters.is_empty() {
            match state.last_parameters {
                Some(values) => self.last_parameters = T::vec_from(values).into(),
                None => self.last_parameters.copy_from_slice(&self.parameters),
            }
        }
        self.last_is_best = false;
        self.best_report = state.best_report;
        if let Some(values) = state.best_parameters {
            self.best_parameters = T::vec_from(values).into();
        }
        self.patience = state.patience;
        self.end = state.end;
        if let (Some(diagnostics), Some(is_alive)) = (&mut self.diagnostics, &state.is_alive) {
            diagnostics.restore(is_alive);
        }
        self.draw_order();
        Ok(())
    }

    /// Trains on where another training of the same network ended, for as many epochs as the settings say: with its optimizer's
    /// state, the schedule's place and its epoch numbers. What is best so far is kept where both go by the same metric and loss
    /// (`is_same_measure`). An epoch that was under way is finished where its batches are the same (`is_same_order`), else begun
    /// anew. On an error nothing is changed.
    pub fn continue_from(
        &mut self,
        mut state: TrainerState,
        is_same_measure: bool,
        is_same_order: bool,
    ) -> Result<(), StateError> {
        let was_stopped =
            state.end.take().and_then(|end| end.stop).is_some_and(|stop| stop.reason == StopReason::EarlyStopped);
        state.last_epoch = state.epoch.saturating_add(self.settings.epochs);
        state.has_converged = false;
        if was_stopped {
            state.patience = state.patience.renewed();
        }
        let fits_sums = state.metric_sums.has_shape_of(&self.metric_sums);
        let goes_on = is_same_order && fits_sums && (state.next_batch as usize) < self.batches_per_epoch();
        if !goes_on {
            state.next_batch = 0;
            state.has_moved = false;
            state.loss_sum = 0.0;
            state.metric_sums = self.metric_sums.clone();
            state.is_alive = None;
        }
        if self.last_parameters.is_empty() {
            state.last_parameters = None;
        }
        let keeps_best = !self.best_parameters.is_empty();
        if !is_same_measure || (keeps_best && state.best_parameters.is_none()) {
            state.best_report = None;
            state.patience = Default::default();
        }
        if !is_same_measure {
            state.schedule = state.schedule.with_best_forgotten();
        }
        if !keeps_best || state.best_report.is_none() {
            state.best_parameters = None;
        }
        self.restore(state)
    }

    fn check(&self, state: &TrainerState) -> Result<(), StateError> {
        let fits = |values: &Values, count: usize| values.len() == count && values.element_type() == T::ELEMENT_TYPE;
        let kept_fits = |values: &Option<Values>, kept: &[T]| values.as_ref().is_none_or(|it| fits(it, kept.len()));
        let needs_best = state.best_report.is_some() && !self.best_parameters.is_empty();
        let units: usize = self.plan.layers.iter().map(|layer| layer.layout.units).sum();
        let checks = [
            (fits(&state.parameters, self.parameters.len()), "its parameters do not fit the network"),
            (state.method == self.settings.optimizer.name(), "its optimizer is another"),
            (kept_fits(&state.last_parameters, &self.last_parameters), "its batches are others"),
            (kept_fits(&state.best_parameters, &self.best_parameters), "its early stopping is another"),
            (state.best_parameters.is_some() == needs_best, "its early stopping is another"),
            (state.metric_sums.has_shape_of(&self.metric_sums), "its task is another"),
            ((state.next_batch as usize) < self.batches_per_epoch(), "it is at a batch that there is not"),
            (state.epoch <= state.last_epoch, "it is past the last epoch"),
            (state.is_alive.as_ref().is_none_or(|it| it.len() == units), "its diagnostics are another network's"),
        ];
        checks.iter().find(|(is_right, _)| !is_right).map_or(Ok(()), |(_, message)| Err(StateError(message)))
    }
}
