//! A client with a model of its own, and its ledger: what was acknowledged, and the one call that is in doubt.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;

use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use epochd::rpc::pb::{JobState, TrainingStart};
use prost::Message;
use tonic::{Code, Status};

use crate::support::*;

/// Which call was cut off.
#[derive(Debug)]
enum Doubt {
    Create,
    Delete,
    Set,
    Train,
}

#[derive(Default)]
struct Known {
    uid: String,
    /// The weights' bits, by version.
    versions: BTreeMap<i32, Vec<Vec<u8>>>,
}

#[derive(Default)]
struct Job {
    job_id: String,
    request_id: String,
    losses: Vec<u64>,
}

pub struct Client {
    index: u64,
    random: Random,
    whole: Vec<Vec<u8>>,
    model: Option<Known>,
    job: Option<Job>,
    ended: Vec<(String, i32, i32)>,
    doubt: Option<Doubt>,
    requests: u64,
    log: Vec<String>,
    /// How often each thing was acknowledged.
    pub counts: BTreeMap<&'static str, u64>,
}

pub fn creation(model_id: &str) -> pb::CreateModelRequest {
    xor_model(model_id, 4)
}

/// From the initial weights: whichever version it makes, its bits are known.
pub fn training(model_id: &str, request_id: &str) -> pb::TrainRequest {
    let interval = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    pb::TrainRequest {
        epochs: Some(20_000),
        start: TrainingStart::Initial.into(),
        checkpoint_interval: interval,
        request_id: request_id.into(),
        ..truth_table(model_id, XOR)
    }
}

pub async fn weights(api: &Api, model_id: &str, version: i32) -> Result<Vec<Vec<u8>>, Status> {
    let request = pb::GetWeightsRequest { version: Some(version), ..get_weights(model_id) };
    let weights = api.models.clone().get_weights(request).await?.into_inner();
    Ok(weights.layers.iter().map(Message::encode_to_vec).collect())
}

impl Client {
    pub fn new(index: u64, seed: u64, whole: Vec<Vec<u8>>) -> Self {
        let random = Random::new(seed.wrapping_mul(31).wrapping_add(index + 1));
        let (model, job, ended, doubt) = (None, None, Vec::new(), None);
        Self { index, random, whole, model, job, ended, doubt, requests: 0, log: Vec::new(), counts: BTreeMap::new() }
    }

    pub fn name(&self) -> String {
        format!("client-{}", self.index)
    }

    /// Compares, then works, until the server is gone.
    pub async fn live(&mut self, address: SocketAddr) {
        let Ok(endpoint) = tonic::transport::Endpoint::from_shared(format!("http://{address}")) else { return };
        let Ok(channel) = endpoint.connect().await else { return };
        let models = pb::model_service_client::ModelServiceClient::new(channel.clone());
        let jobs = pb::job_service_client::JobServiceClient::new(channel.clone());
        let admin = pb::admin_service_client::AdminServiceClient::new(channel.clone());
        let api = Api { models, jobs, admin, channel };
        let mut result = self.compare(&api).await;
        while result.is_ok() {
            result = self.step(&api).await;
        }
        let status = result.unwrap_err();
        let is_gone = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
        assert!(is_gone, "{}: {status:?}\n{}", self.name(), self.log.join("\n"));
    }

    /// After the last kill: everything is compared, and the job under way comes to its end.
    pub async fn end(&mut self, api: &Api) {
        self.compare(api).await.unwrap();
        self.follow(api).await.unwrap();
        self.compare(api).await.unwrap();
    }

    fn acknowledge(&mut self, what: &'static str) {
        self.doubt = None;
        *self.counts.entry(what).or_default() += 1;
        self.log.push(what.into());
    }

    async fn step(&mut self, api: &Api) -> Result<(), Status> {
        if self.job.is_some() {
            return self.follow(api).await;
        }
        if self.model.is_none() {
            self.doubt = Some(Doubt::Create);
            let model = api.models.clone().create_model(creation(&self.name())).await?.into_inner();
            self.model = Some(Known { uid: model.uid, ..Default::default() });
            self.acknowledge("create");
            return self.read_versions(api).await;
        }
        match self.random.below(8) {
            0 => self.delete(api).await,
            1 | 2 => self.set(api).await,
            _ => self.train(api).await,
        }
    }

    async fn delete(&mut self, api: &Api) -> Result<(), Status> {
        self.doubt = Some(Doubt::Delete);
        api.models.clone().delete_model(pb::DeleteModelRequest { model_id: self.name() }).await?;
        self.forget_model();
        self.acknowledge("delete");
        Ok(())
    }

    fn forget_model(&mut self) {
        self.model = None;
    }

    async fn set(&mut self, api: &Api) -> Result<(), Status> {
        let request = pb::GetWeightsRequest { version: Some(1), ..get_weights(&self.name()) };
        let layers = api.models.clone().get_weights(request).await?.into_inner().layers;
        let bits = layers.iter().map(Message::encode_to_vec).collect();
        self.doubt = Some(Doubt::Set);
        let request = pb::SetWeightsRequest { model_id: self.name(), layers };
        let version = api.models.clone().set_weights(request).await?.into_inner().version;
        self.model.as_mut().unwrap().versions.insert(version, bits);
        self.acknowledge("set");
        Ok(())
    }

    async fn train(&mut self, api: &Api) -> Result<(), Status> {
        self.requests += 1;
        let request_id = format!("{}-{}", self.name(), self.requests);
        self.job = Some(Job { request_id, ..Default::default() });
        self.doubt = Some(Doubt::Train);
        self.submit(api).await
    }

    /// Sends the training, or sends it again: the request id answers with the same job.
    async fn submit(&mut self, api: &Api) -> Result<(), Status> {
        let job = self.job.as_ref().unwrap();
        let answer = api.models.clone().train(training(&self.name(), &job.request_id)).await?;
        let job_id = answer.metadata().get("epochd-job-id").unwrap().to_str().unwrap().to_owned();
        let job = self.job.as_mut().unwrap();
        assert!(job.job_id.is_empty() || job.job_id == job_id, "{} made two jobs", job.request_id);
        job.job_id = job_id;
        self.acknowledge("train");
        Ok(())
    }

    /// Reads the job's stream on from the last epoch told; sometimes cancels it on the way.
    async fn follow(&mut self, api: &Api) -> Result<(), Status> {
        let Some(job) = &mut self.job else { return Ok(()) };
        let mut events = api.watch(&job.job_id, Some(job.losses.len() as i32 + 1)).await?;
        if self.random.below(6) == 0 {
            api.jobs.clone().cancel_job(cancel(&job.job_id, self.random.below(2) == 0)).await?;
        }
        while let Some(event) = events.message().await? {
            match event.event.unwrap() {
                Event::Epochs(batch) => {
                    for report in batch.reports {
                        assert_eq!(report.epoch as usize, job.losses.len() + 1, "a gap or a repeat");
                        job.losses.push(report.loss.to_bits());
                    }
                }
                Event::Finished(end) => return self.finish(api, end).await,
                _ => {}
            }
        }
        Err(Status::unavailable("the stream ended early"))
    }

    async fn finish(&mut self, api: &Api, end: pb::TrainingFinished) -> Result<(), Status> {
        let is_whole = end.state() == JobState::Succeeded;
        let is_end = is_whole || end.state() == JobState::Cancelled || end.failure.is_some();
        assert!(is_end, "{end:?}");
        if is_whole {
            assert_eq!(weights(api, &self.name(), end.version).await?, self.whole, "other bits than uninterrupted");
        }
        let job = self.job.take().unwrap();
        self.ended.push((job.job_id, end.state, end.version));
        self.acknowledge(if is_whole { "succeeded" } else { "ended otherwise" });
        self.read_versions(api).await
    }

    /// Notes the weights of versions not known yet.
    async fn read_versions(&mut self, api: &Api) -> Result<(), Status> {
        let name = self.name();
        let Some(known) = &mut self.model else { return Ok(()) };
        let latest = api.models.clone().get_model(get_model(&name)).await?.into_inner().latest_version;
        for version in 1..=latest {
            if let Entry::Vacant(place) = known.versions.entry(version) {
                place.insert(weights(api, &name, version).await?);
            }
        }
        Ok(())
    }

    /// Nothing acknowledged is missing; the call in doubt happened wholly, or not at all.
    async fn compare(&mut self, api: &Api) -> Result<(), Status> {
        let name = self.name();
        let found = match api.models.clone().get_model(get_model(&name)).await {
            Ok(model) => Some(model.into_inner()),
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => return Err(status),
        };
        match (&self.model, found) {
            (None, Some(model)) => {
                assert!(matches!(self.doubt, Some(Doubt::Create)), "{name} came back");
                self.model = Some(Known { uid: model.uid, ..Default::default() });
            }
            (Some(_), None) => {
                assert!(matches!(self.doubt, Some(Doubt::Delete)), "{name} is missing\n{}", self.log.join("\n"));
                self.forget_model();
            }
            (Some(known), Some(model)) => {
                assert_eq!(known.uid, model.uid, "another model of the name");
                let last = known.versions.keys().next_back().copied().unwrap_or(1);
                assert!(model.latest_version >= last, "version {last} is missing");
            }
            (None, None) => {}
        }
        if let Some(known) = &self.model {
            for (version, bits) in &known.versions {
                assert_eq!(&weights(api, &name, *version).await?, bits, "weights of {name} {version}");
            }
            api.models.clone().predict(predict(&name, corners())).await?;
        }
        for (job_id, state, version) in self.ended.iter().rev().take(10) {
            let job = api.jobs.clone().get_job(get_job(job_id)).await?.into_inner();
            assert_eq!((job.state, job.version), (*state, *version), "{job_id}");
        }
        self.read_versions(api).await?;
        if self.job.is_some() {
            self.submit(api).await?;
        }
        self.doubt = None;
        Ok(())
    }
}
