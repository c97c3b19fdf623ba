//! Callers that create, train, cancel, set, read and delete the same few models at once: what must hold in whatever order their calls
//! come to be done.

use std::collections::{HashMap, HashSet};

use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::*;

/// Few, so that callers get in each other's way, and a name is soon another model's.
const NAMES: [&str; 3] = ["a", "b", "c"];
const CALLERS: u64 = 5;
const CALLS_EACH: usize = 40;

/// What a caller, or all of them, were answered.
#[derive(Default)]
struct Log {
    /// Models that were created: name and uid.
    created: Vec<(&'static str, String)>,
    deleted: Vec<&'static str>,
    jobs: Vec<(&'static str, String)>,
    told: Vec<Told>,
}

struct Caller {
    api: Api,
    random: Random,
    log: Log,
    streams: JoinSet<Told>,
}

/// What was answered; `None` where there is no such model (any more), or already another.
#[track_caller]
fn found<T>(answer: Result<tonic::Response<T>, Status>) -> Option<T> {
    match answer {
        Ok(answer) => Some(answer.into_inner()),
        Err(status) => {
            assert!(matches!(status.code(), Code::NotFound | Code::AlreadyExists), "{status:?}");
            None
        }
    }
}

/// One weight and one bias.
fn weights(bias: f64) -> Vec<pb::LayerWeights> {
    vec![pb::LayerWeights {
        layer: Some(0),
        weights: Some(values(&[1.0])),
        bias: Some(values(&[bias])),
        ..Default::default()
    }]
}

/// A training of a few epochs, or of more than any test waits for.
fn training(name: &str, is_endless: bool) -> pb::TrainRequest {
    let rows: Vec<f64> = (0..256).map(f64::from).map(|row| row / 256.0).collect();
    pb::TrainRequest {
        model_id: name.into(),
        inputs: Some(values(&rows)),
        targets: Some(values(&rows)),
        batch_size: Some(1),
        epochs: Some(if is_endless { 1_000_000 } else { 3 }),
        ..Default::default()
    }
}

impl Caller {
    async fn call_all(mut self) -> Log {
        for _ in 0..CALLS_EACH {
            let name = NAMES[self.random.below(3) as usize];
            self.call(name).await;
        }
        // Whoever trains what nobody ends would wait for ever.
        for (_, job_id) in self.log.jobs.clone() {
            self.cancel(job_id).await;
        }
        while let Some(told) = self.streams.join_next().await {
            self.log.told.push(told.unwrap());
        }
        self.log
    }

    async fn call(&mut self, name: &'static str) {
        let mut models = self.api.models.clone();
        match self.random.below(12) {
            0..3 => {
                let request = model(name, 1, &[(1, pb::Activation::Identity)]);
                if let Some(model) = found(models.create_model(request).await) {
                    assert_eq!((model.latest_version, model.serving_version), (1, None));
                    self.log.created.push((name, model.uid));
                }
            }
            3 => {
                if found(models.delete_model(pb::DeleteModelRequest { model_id: name.into() }).await).is_some() {
                    self.log.deleted.push(name);
                }
            }
            4..6 => self.train(name).await,
            6 => {
                let Some((_, job_id)) = self.log.jobs.last().cloned() else { return };
                self.cancel(job_id).await;
            }
            7 => {
                let request = pb::SetWeightsRequest { model_id: name.into(), layers: weights(7.0) };
                let Some(version) = found(models.set_weights(request).await) else { return };
                assert!(version.base_version >= 1 && version.base_version < version.version);
            }
            8 => {
                let version = (self.random.below(2) == 0).then(|| 1 + self.random.below(4) as i32);
                let request = pb::SetServingVersionRequest { model_id: name.into(), version };
                let Some(model) = found(models.set_serving_version(request).await) else { return };
                assert_eq!(model.serving_version, version);
                assert!(version.is_none_or(|version| version <= model.latest_version));
            }
            9 => {
                let Some(answer) = found(models.predict(predict(name, values(&[0.5]))).await) else { return };
                assert!(answer.version >= 1 && answer.outputs.unwrap().values[0].is_finite());
            }
            10 => drop(found(models.get_weights(get_weights(name)).await)),
            _ => drop(self.versions(name).await),
        }
    }

    async fn train(&mut self, name: &'static str) {
        let request = training(name, self.random.below(3) == 0);
        match self.api.models.clone().train(request).await {
            Ok(answer) => {
                let job_id = answer.metadata().get("epochd-job-id").unwrap().to_str().unwrap().to_owned();
                self.log.jobs.push((name, job_id));
                self.streams.spawn(read(answer.into_inner()));
            }
            Err(status) => assert_eq!(status.code(), Code::NotFound, "{status:?}"),
        }
    }

    async fn cancel(&mut self, job_id: String) {
        let commit = self.random.below(2) == 0;
        let job = self.api.jobs.clone().cancel_job(cancel(&job_id, commit)).await.unwrap().into_inner();
        assert!(matches!(job.state(), JobState::Cancelled | JobState::Succeeded), "{job:?}");
    }

    /// The versions of a model, if it is there: numbered without gap or repeat.
    async fn versions(&self, name: &str) -> Vec<pb::Version> {
        let request = pb::ListVersionsRequest { model_id: name.into(), page_size: 1_000, ..Default::default() };
        let versions = found(self.api.models.clone().list_versions(request).await).map(|it| it.versions);
        let versions = versions.unwrap_or_default();
        let numbers: Vec<i32> = versions.iter().map(|version| version.version).collect();
        assert_eq!(numbers, (1..=numbers.len() as i32).collect::<Vec<_>>());
        versions
    }
}

/// As many as `PROPTEST_CASES` asks for.
fn rounds() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_come_at_once_find_models_and_jobs_in_order() {
    for round in 0..rounds() {
        // A thread for each model, so that none waits for another's slice.
        let server = Server::with(RawConfig { ephemeral: true, train_threads: Some(3), ..Server::raw() });
        let api = server.api().await;
        let mut callers = JoinSet::new();
        for caller in 1..=CALLERS {
            let random = Random::new(round * CALLERS + caller);
            let caller = Caller { api: api.clone(), random, log: Log::default(), streams: JoinSet::new() };
            callers.spawn(caller.call_all());
        }
        let mut log = Log::default();
        while let Some(of_one) = callers.join_next().await {
            let of_one = of_one.unwrap();
            log.created.extend(of_one.created);
            log.deleted.extend(of_one.deleted);
            log.jobs.extend(of_one.jobs);
            log.told.extend(of_one.told);
        }
        judge(&api, log).await;
    }
}

async fn judge(api: &Api, log: Log) {
    let uids: HashMap<&str, &str> = log.created.iter().map(|(name, uid)| (uid.as_str(), *name)).collect();
    assert_eq!(uids.len(), log.created.len(), "two models have one uid");
    let mut jobs = HashMap::new();
    for (name, job_id) in &log.jobs {
        let job = api.job(job_id).await;
        assert_eq!(uids.get(job.model_uid.as_str()), Some(name), "{job:?} is of a model that nobody created");
        jobs.insert(job_id.clone(), job);
    }
    let mut commits = HashSet::new();
    for told in &log.told {
        let job = &jobs[&told.job_id];
        assert_eq!(told.epochs(), (1..=told.reports.len() as i32).collect::<Vec<_>>(), "not each epoch once, in order");
        assert_eq!((told.finished.state(), told.finished.version), (job.state(), job.version));
        assert_eq!(job.version > 0, job.version > job.base_version, "{job:?}");
        assert!(job.version > 0 || job.state() == JobState::Cancelled, "{job:?}");
        let is_new = job.version == 0 || commits.insert((job.model_uid.clone(), job.version));
        assert!(is_new, "two jobs committed version {} of one model", job.version);
    }
    one_at_a_time(jobs.values().collect());
    let caller = Caller { api: api.clone(), random: Random::new(1), log: Log::default(), streams: JoinSet::new() };
    for name in NAMES {
        let count = |names: &mut dyn Iterator<Item = &'static str>| names.filter(|it| *it == name).count();
        let created = count(&mut log.created.iter().map(|(name, _)| *name));
        let alive = created - count(&mut log.deleted.iter().copied());
        assert!(alive <= 1, "{alive} models of the name {name}");
        let versions = caller.versions(name).await;
        assert_eq!(versions.is_empty(), alive == 0);
        if alive == 0 {
            continue;
        }
        let model = api.model(name).await;
        assert_eq!(uids.get(model.uid.as_str()), Some(&name));
        assert_eq!(model.latest_version as usize, versions.len());
        for version in versions.iter().filter(|version| !version.job_id.is_empty()) {
            let job = &jobs[&version.job_id];
            let of = (job.model_uid.as_str(), job.version);
            assert_eq!(of, (model.uid.as_str(), version.version), "a version of another model's job");
        }
        let trained = versions.iter().filter(|version| !version.job_id.is_empty()).count();
        assert_eq!(trained, commits.iter().filter(|(uid, _)| *uid == model.uid).count(), "a commit is lost");
    }
}

/// Jobs of one model never train at the same time.
fn one_at_a_time(mut jobs: Vec<&pb::Job>) {
    jobs.retain(|job| job.start_time.is_some());
    let moment = |at: Option<prost_types::Timestamp>| at.map(|at| (at.seconds, at.nanos)).unwrap();
    let times = |job: &pb::Job| (moment(job.start_time), moment(job.end_time));
    jobs.sort_by_key(|job| (job.model_uid.clone(), times(job)));
    for pair in jobs.windows(2).filter(|pair| pair[0].model_uid == pair[1].model_uid) {
        assert!(times(pair[0]).1 <= times(pair[1]).0, "{} and {} overlap", pair[0].job_id, pair[1].job_id);
    }
}
