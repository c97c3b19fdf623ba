//! A client with a model of its own: it works until the server is gone, and keeps its ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use tonic::{Code, Status};

use super::checker;
use super::ledger::{Call, KnownModel, Ledger};
use super::reference::{self, Whole, bits, creation, large_creation, layers, marked, training};
use crate::support::*;

/// Jobs of a client that are unfinished at once.
const JOBS_AT_ONCE: usize = 2;

pub struct Client {
    pub ledger: Ledger,
    random: Random,
    whole: Arc<Whole>,
    /// Its model's record is large, and it changes it all the time instead of training.
    is_large: bool,
    calls: u64,
}

impl Client {
    pub fn new(ledger: Ledger, seed: u64, whole: Arc<Whole>, is_large: bool) -> Self {
        Self { ledger, random: Random::new(seed), whole, is_large, calls: 0 }
    }

    /// Works until the server is gone: a call that is not answered is only permitted once it was killed.
    pub async fn live(&mut self, address: SocketAddr, is_killed: &AtomicBool) {
        let status = match self.work(address).await {
            Ok(()) => return,
            Err(status) => status,
        };
        self.ledger.note(format_args!("{:?}: {}", status.code(), status.message()));
        let is_gone = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
        assert!(is_gone, "{} was refused: {status:?}", self.ledger.name);
        assert!(is_killed.load(Ordering::SeqCst), "{} had no answer from a live server: {status:?}", self.ledger.name);
    }

    /// After the last kill: what it had asked for comes to its end.
    pub async fn end(&mut self, api: &Api) {
        while self.ledger.unfinished().next().is_some() {
            self.follow(api).await.unwrap();
        }
    }

    async fn work(&mut self, address: SocketAddr) -> Result<(), Status> {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let api = Api::over(channel);
        self.ask_again(&api).await?;
        loop {
            self.step(&api).await?;
        }
    }

    /// What was accepted before the crash: the same request is the same job.
    async fn ask_again(&mut self, api: &Api) -> Result<(), Status> {
        let of_live_model = |uid: &str| self.ledger.is_live(uid);
        let again: Vec<_> = self.ledger.unfinished().filter(|job| of_live_model(&job.model_uid)).cloned().collect();
        for job in again {
            let answer = api.models.clone().train(training(&self.ledger.name, &job.request_id)).await?;
            assert_eq!(job_id_of(&answer), job.job_id, "{} made two jobs", job.request_id);
            self.ledger.count("request ids asked again");
        }
        Ok(())
    }

    async fn step(&mut self, api: &Api) -> Result<(), Status> {
        if self.ledger.model.is_none() {
            return self.create(api).await;
        }
        if self.is_large {
            return self.change_large(api).await;
        }
        let unfinished = self.ledger.unfinished().count();
        match self.random.below(12) {
            _ if unfinished == JOBS_AT_ONCE => self.follow(api).await,
            0 if unfinished == 0 => self.delete(api).await,
            1 | 2 => self.set(api).await,
            3 => self.pin(api).await,
            4 => self.serve(api).await,
            5..=8 if unfinished > 0 => self.follow(api).await,
            _ => self.train(api).await,
        }
    }

    async fn change_large(&mut self, api: &Api) -> Result<(), Status> {
        match self.random.below(40) {
            0 => self.delete(api).await,
            1 => self.set(api).await,
            2..=5 => self.serve(api).await,
            _ => self.pin(api).await,
        }
    }

    async fn create(&mut self, api: &Api) -> Result<(), Status> {
        let create = if self.is_large { large_creation } else { creation };
        self.ledger.asks(Call::Create);
        let model = api.models.clone().create_model(create(&self.ledger.name)).await?.into_inner();
        self.ledger.is_answered(&model.uid);
        self.ledger.model = Some(KnownModel::new(model));
        Ok(())
    }

    async fn delete(&mut self, api: &Api) -> Result<(), Status> {
        self.ledger.asks(Call::Delete);
        api.models.clone().delete_model(pb::DeleteModelRequest { model_id: self.ledger.name.clone() }).await?;
        self.ledger.model = None;
        self.ledger.is_answered("");
        Ok(())
    }

    /// The initial weights with a bias that no other call gives.
    async fn set(&mut self, api: &Api) -> Result<(), Status> {
        self.calls += 1;
        let layers = marked(layers(api, &self.ledger.name, 1).await?, self.calls);
        let given = bits(&layers);
        self.ledger.asks(Call::SetWeights(given.clone()));
        let request = pb::SetWeightsRequest { model_id: self.ledger.name.clone(), layers };
        let version = api.models.clone().set_weights(request).await?.into_inner().version;
        self.ledger.is_answered(version);
        self.model().set(version, given);
        Ok(())
    }

    fn model(&mut self) -> &mut KnownModel {
        self.ledger.model.as_mut().expect("it has a model now")
    }

    /// A version that may be there.
    fn some_version(&mut self) -> i32 {
        let known: Vec<i32> = self.model().versions.keys().copied().collect();
        known.get(self.random.below(known.len().max(1) as u64) as usize).copied().unwrap_or(1)
    }

    /// Pins a version, or unpins one.
    async fn pin(&mut self, api: &Api) -> Result<(), Status> {
        let pinned = self.model().pinned.clone();
        let (version, is_pinned) = match pinned.last() {
            Some(&version) if pinned.len() > 1 || self.random.below(2) == 0 => (version, false),
            _ => (self.some_version(), true),
        };
        self.ledger.asks(Call::Pin(version, is_pinned));
        let (model_id, pinned) = (self.ledger.name.clone(), Some(is_pinned));
        let answer = api.models.clone().pin_version(pb::PinVersionRequest { model_id, version, pinned }).await;
        if self.is_given_back(version, &answer) {
            return Ok(());
        }
        let told = answer?.into_inner();
        self.ledger.is_answered(format_args!("{:?}", told.pinned_versions));
        self.model().pin(version, is_pinned);
        assert!(self.model().pinned.iter().eq(&told.pinned_versions), "{}: {told:?}", self.ledger.name);
        Ok(())
    }

    async fn serve(&mut self, api: &Api) -> Result<(), Status> {
        let version = if self.random.below(4) == 0 { None } else { Some(self.some_version()) };
        self.ledger.asks(Call::Serve(version));
        let request = pb::SetServingVersionRequest { model_id: self.ledger.name.clone(), version };
        let answer = api.models.clone().set_serving_version(request).await;
        if version.is_some_and(|version| self.is_given_back(version, &answer)) {
            return Ok(());
        }
        let told = answer?.into_inner();
        self.ledger.is_answered(format_args!("{:?}", told.serving_version));
        self.model().serve(version);
        assert_eq!(told.serving_version, version, "{}", self.ledger.name);
        Ok(())
    }

    /// Whether a call was refused since a later commit gave the version back: one that must be kept is not.
    fn is_given_back<T>(&mut self, version: i32, answer: &Result<T, Status>) -> bool {
        let is_gone = answer.as_ref().is_err_and(|status| status.code() == Code::NotFound);
        if is_gone {
            let model = self.model();
            let is_kept = version == 1 || model.serving == Some(version) || model.pinned.contains(&version);
            assert!(!is_kept, "{}: version {version} is gone", self.ledger.name);
            model.versions.remove(&version);
            self.ledger.is_answered("it is gone");
        }
        is_gone
    }

    async fn train(&mut self, api: &Api) -> Result<(), Status> {
        self.calls += 1;
        let request_id = format!("{}-{}", self.ledger.name, self.calls);
        self.ledger.asks(Call::Train(request_id.clone()));
        let answer = api.models.clone().train(training(&self.ledger.name, &request_id)).await?;
        let job_id = job_id_of(&answer);
        self.ledger.is_answered(&job_id);
        self.ledger.accepts(&job_id, &request_id);
        Ok(())
    }

    /// Reads the oldest job's stream on from the last report told; sometimes does something to it on the way.
    async fn follow(&mut self, api: &Api) -> Result<(), Status> {
        let Some(job) = self.ledger.unfinished().next() else { return Ok(()) };
        let (job_id, mut told) = (job.job_id.clone(), job.told);
        let mut events = api.watch(&job_id, Some(reference::epoch_after(told))).await?;
        // A job may outlive its model by a little: nothing else is asked of that one.
        let has_model = self.ledger.model.is_some();
        match self.random.below(16) {
            0 | 1 => self.cancel(api, &job_id, false).await?,
            2 | 3 => self.cancel(api, &job_id, true).await?,
            4 if has_model => return self.delete(api).await,
            5 | 6 if has_model => self.pin(api).await?,
            7 if has_model => self.serve(api).await?,
            _ => {}
        }
        loop {
            let event = match events.message().await {
                // With its model its history is gone once it has ended: its record still tells how.
                Err(status) if status.code() == Code::NotFound && self.is_of_deleted(&job_id) => {
                    let job = api.jobs.clone().get_job(get_job(&job_id)).await?.into_inner();
                    let end = pb::TrainingFinished { state: job.state, version: job.version, ..Default::default() };
                    return self.finish(api, &job_id, end).await;
                }
                event => event?,
            };
            let Some(event) = event else { return Err(Status::unavailable("the stream ended early")) };
            match event.event {
                Some(Event::Epochs(batch)) => {
                    for report in batch.reports {
                        assert!(self.whole.is_report(told, &report), "{job_id} told as report {told}: {report:?}");
                        told += 1;
                    }
                    self.ledger.job_mut(&job_id).expect("it is known").told = told;
                }
                Some(Event::Finished(end)) => {
                    self.ledger.note(format_args!("{job_id} told {:?}, version {}", end.state(), end.version));
                    return self.finish(api, &job_id, end).await;
                }
                _ => {}
            }
        }
    }

    fn is_of_deleted(&self, job_id: &str) -> bool {
        let mut jobs = self.ledger.jobs.iter();
        jobs.any(|job| job.job_id == job_id && self.ledger.deleted.contains(&job.model_uid))
    }

    async fn cancel(&mut self, api: &Api, job_id: &str, commit: bool) -> Result<(), Status> {
        self.ledger.asks(Call::Cancel(job_id.to_owned(), commit));
        let job = api.jobs.clone().cancel_job(cancel(job_id, commit)).await?.into_inner();
        self.ledger.is_answered(format_args!("{:?}, version {}", job.state(), job.version));
        assert!(job.end_time.is_some(), "{job_id} was cancelled, and goes on: {job:?}");
        let known = self.ledger.job_mut(job_id).expect("it is known");
        known.end = Some((job.state(), job.version));
        known.end_time = job.end_time.map(|time| (time.seconds, time.nanos));
        Ok(())
    }

    async fn finish(&mut self, api: &Api, job_id: &str, end: pb::TrainingFinished) -> Result<(), Status> {
        let known = self.ledger.job_mut(job_id).expect("it is known");
        let told = (end.state(), end.version);
        assert_eq!(*known.end.get_or_insert(told), told, "{job_id} ended twice");
        let record = api.jobs.clone().get_job(get_job(job_id)).await?.into_inner();
        let is_deleted = self.ledger.deleted.contains(&record.model_uid);
        let known = self.ledger.job_mut(job_id).expect("it is known");
        checker::check_end(known, &record, is_deleted).unwrap();
        known.ended_as(record);
        let (state, version) = told;
        self.ledger.count(&format!("jobs told {state:?}{}", if version > 0 { " with a version" } else { "" }));
        Ok(())
    }
}

fn job_id_of(answer: &tonic::Response<tonic::Streaming<pb::TrainEvent>>) -> String {
    answer.metadata().get("epochd-job-id").unwrap().to_str().unwrap().to_owned()
}
