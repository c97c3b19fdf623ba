//! A server beside its reference: each command is given to both.

use std::collections::HashMap;
use std::fmt::Debug;

use tonic::{Code, Response, Status};

use super::follow::Follow;
use super::lists::Lists;
use super::{Back, Command, NAMES, Which};
use crate::support::*;

pub struct Machine {
    pub api: Api,
    pub lists: Lists,
    /// The streams of unfinished jobs.
    pub follows: HashMap<usize, Follow>,
}

/// Asserts that a call was answered, or refused by the code foretold; both answers where there are two.
#[track_caller]
pub fn agree<T, F: Debug>(answer: Result<Response<T>, Status>, foretold: Result<F, Code>) -> Option<(T, F)> {
    match (answer, foretold) {
        (Ok(answer), Ok(foretold)) => Some((answer.into_inner(), foretold)),
        (Err(status), Err(code)) => {
            assert_eq!(status.code(), code, "{status:?}");
            None
        }
        (Ok(_), Err(code)) => panic!("it was answered, but should be refused: {code:?}"),
        (Err(status), Ok(foretold)) => panic!("it should be {foretold:?}, but was refused: {status:?}"),
    }
}

impl Machine {
    pub fn new(api: Api) -> Self {
        Self { api, lists: Lists::default(), follows: HashMap::new() }
    }

    pub async fn apply(&mut self, command: Command) {
        match command {
            Command::Create { name, seed, given } => self.create(name, seed, given).await,
            Command::Delete { name } => self.delete(name).await,
            Command::Train(training) => self.train(training).await,
            Command::Cancel { job, commit } => {
                let job = self.unfinished_or_any(job);
                self.cancel(job, commit).await;
            }
            Command::SetWeights { name, layer, value } => self.set_weights(name, layer, value).await,
            Command::GetWeights { name, version } => {
                let version = self.number(name, version);
                self.get_weights(name, version).await;
            }
            Command::Predict { name, version } => {
                let version = self.number(name, version);
                self.predict(name, version).await;
            }
            Command::Serve { name, version } => {
                let version = self.number(name, version);
                self.serve(name, version).await;
            }
            Command::Pin { name, version, pinned } => {
                let version = self.number(name, Some(version)).unwrap_or(1);
                self.pin(name, version, pinned).await;
            }
            Command::ListModels { size } => self.list_models(size).await,
            Command::ListVersions { name, size } => self.list_versions(name, size).await,
            Command::ListJobs { name, state, size } => self.list_jobs(name, state, size).await,
            Command::Watch { job, from } => {
                let job = self.any(job);
                self.watch(job, from).await;
            }
            Command::GetJob { job } => {
                let job = self.any(job);
                self.get_job(job).await;
            }
        }
        for name in 0..NAMES.len() {
            self.get_model(name).await;
        }
    }

    /// A version's number from its distance.
    fn number(&self, name: usize, back: Option<Back>) -> Option<i32> {
        let latest = self.lists.find(name).map_or(1, |model| self.lists.models[model].latest);
        back.map(|back| latest + 1 - back)
    }

    /// A job, or one that there never was.
    fn any(&self, which: Which) -> Option<usize> {
        let count = self.lists.jobs.len();
        Some(which % (count + 1)).filter(|&job| job < count)
    }

    /// Mostly a job that can still be cancelled.
    fn unfinished_or_any(&self, which: Which) -> Option<usize> {
        let unfinished: Vec<usize> = self.lists.models.iter().flat_map(|model| model.queue.clone()).collect();
        if which.is_multiple_of(4) || unfinished.is_empty() {
            return self.any(which / 4);
        }
        Some(unfinished[which / 4 % unfinished.len()])
    }

    /// Everything is looked at once more, and comes to its end.
    pub async fn finish(mut self) {
        for name in 0..NAMES.len() {
            self.audit(name).await;
        }
        for model in 0..self.lists.models.len() {
            while let Some(&job) = self.lists.models[model].queue.first() {
                self.cancel(Some(job), false).await;
            }
        }
        self.list_models(2).await;
        self.list_jobs(None, epochd::rpc::pb::JobState::Unspecified, 3).await;
        for job in 0..self.lists.jobs.len() {
            self.get_job(Some(job)).await;
            self.watch(Some(job), 1).await;
        }
        for name in 0..NAMES.len() {
            self.delete(name).await;
            self.get_model(name).await;
        }
        for job in 0..self.lists.jobs.len() {
            self.get_job(Some(job)).await;
        }
        assert!(self.follows.is_empty());
    }

    /// All versions of a model, those that are gone among them: their weights, and what they answer.
    pub async fn audit(&mut self, name: usize) {
        self.get_model(name).await;
        self.list_versions(name, 2).await;
        let Ok(model) = self.lists.find(name) else { return };
        for version in 1..=self.lists.models[model].latest {
            self.get_weights(name, Some(version)).await;
            self.predict(name, Some(version)).await;
        }
        self.predict(name, None).await;
    }
}
