//! What a server shows after a start, read through its API, and handed to the judge; then the bytes behind it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use prost::Message;
use tonic::Code;

use super::checker::{Seen, is_protected, judge};
use super::ledger::{KnownJob, Ledger};
use super::reference::{self, Whole};
use super::victim::VERSIONS;
use crate::support::*;

/// How often it looks again where a job may have ended between two lists.
const LOOKS: usize = 300;

pub struct Probe {
    whole: Arc<Whole>,
    random: Random,
    pub histories_compared: u64,
    pub weights_compared: u64,
}

impl Probe {
    pub fn new(whole: Arc<Whole>, seed: u64) -> Self {
        Self { whole, random: Random::new(seed), histories_compared: 0, weights_compared: 0 }
    }

    /// Compares all that a server shows with all ledgers, and panics where anything is amiss.
    pub async fn check(&mut self, api: &Api, ledgers: &mut [Ledger]) {
        self.settle(api, ledgers).await;
        for ledger in ledgers.iter_mut() {
            self.check_model(api, ledger).await;
            self.check_histories(api, ledger).await;
        }
    }

    /// Lists are not of one moment: where jobs are under way, what does not fit is looked at again.
    async fn settle(&self, api: &Api, ledgers: &mut [Ledger]) {
        let mut looks = 0;
        loop {
            let seen = look(api).await;
            let mut settled = ledgers.to_vec();
            looks += 1;
            match judge(&seen, &mut settled) {
                Ok(()) => {
                    self.check_gone(api, ledgers, &settled).await;
                    return ledgers.clone_from_slice(&settled);
                }
                Err(fault) => {
                    let is_busy = ledgers.iter().chain(&settled).any(|ledger| ledger.unfinished().next().is_some());
                    assert!(is_busy && looks < LOOKS, "after {looks} looks: {fault}");
                }
            }
        }
    }

    /// A job that lists do not show any more is gone for every call.
    async fn check_gone(&self, api: &Api, before: &[Ledger], now: &[Ledger]) {
        let was_there = |job: &KnownJob| {
            let mut known = before.iter().flat_map(|ledger| &ledger.jobs);
            known.any(|known| known.job_id == job.job_id && !known.is_given_back)
        };
        let gone = now.iter().flat_map(|ledger| &ledger.jobs).filter(|job| job.is_given_back && was_there(job));
        for job in gone {
            refused(api.jobs.clone().get_job(get_job(&job.job_id)).await, Code::NotFound, "no job");
            refused(api.watch(&job.job_id, None).await.map(drop), Code::NotFound, "no job");
        }
    }

    /// The weights of every version, bit for bit; and which of them predicts.
    async fn check_model(&mut self, api: &Api, ledger: &mut Ledger) {
        let is_busy = ledger.unfinished().next().is_some();
        let trained: Vec<i32> = (ledger.jobs.iter().filter(|job| ledger.is_live(&job.model_uid)))
            .filter_map(|job| job.end.filter(|(state, _)| *state == JobState::Succeeded).map(|(_, version)| version))
            .collect();
        let (name, Some(model)) = (ledger.name.clone(), &mut ledger.model) else { return };
        let (latest, besides) = model.looked_at.clone();
        for version in 1..=latest {
            let is_newest = version > latest - VERSIONS;
            if !is_newest && !is_protected(model, version) && !besides.contains(&version) {
                continue;
            }
            let found = match reference::layers(api, &name, version).await {
                // Given back since, with the commit of a job; or by the start, where it was kept for a reason that is gone.
                Err(status)
                    if status.code() == Code::NotFound && (is_busy || !is_newest) && !is_protected(model, version) =>
                {
                    continue;
                }
                found => reference::bits(&found.unwrap_or_else(|status| panic!("{name} version {version}: {status}"))),
            };
            if trained.contains(&version) {
                assert!(found == self.whole.weights, "{name} version {version} has other bits than uninterrupted");
            }
            self.weights_compared += 1;
            let known = model.versions.entry(version).or_insert_with(|| found.clone());
            assert!(*known == found, "{name} version {version} has other bits than before");
        }
        let inputs = if model.told.class_labels.is_empty() { corners() } else { values(&[0.5]) };
        let version = api.models.clone().predict(predict(&name, inputs)).await.unwrap().into_inner().version;
        let is_right = model.serving.map_or(version >= latest, |serving| version == serving);
        assert!(is_right, "{name} serves {:?} of {latest}, and {version} answers", model.serving);
    }

    /// The reports of the newest finished job, and of another one: gapless, those of the uninterrupted training, and to the bit as
    /// they were read before.
    async fn check_histories(&mut self, api: &Api, ledger: &mut Ledger) {
        let uid = ledger.model.as_ref().map(|model| model.told.uid.clone());
        let is_wanted =
            |job: &&mut KnownJob| job.record.is_some() && !job.is_given_back && Some(&job.model_uid) == uid.as_ref();
        let mut jobs: Vec<&mut KnownJob> = ledger.jobs.iter_mut().filter(is_wanted).collect();
        let Some(newest) = jobs.pop() else { return };
        self.check_history(api, newest).await;
        if !jobs.is_empty() {
            let index = self.random.below(jobs.len() as u64) as usize;
            self.check_history(api, jobs.swap_remove(index)).await;
        }
    }

    async fn check_history(&mut self, api: &Api, job: &mut KnownJob) {
        let told = match api.watch(&job.job_id, None).await {
            Ok(events) => try_read(events).await,
            Err(status) => Err(status),
        };
        let told = match told {
            // Given back since it was listed, by the pass of the start: then it is gone for every call.
            Err(status) if status.code() == Code::NotFound => {
                return refused(api.jobs.clone().get_job(get_job(&job.job_id)).await, Code::NotFound, "no job");
            }
            told => told.unwrap(),
        };
        let mut hasher = DefaultHasher::new();
        for (place, report) in told.reports.iter().enumerate() {
            assert!(self.whole.is_report(place, report), "{}: report {place} is {report:?}", job.job_id);
            report.encode_to_vec().hash(&mut hasher);
        }
        let record = job.record.as_ref().expect("only those that ended");
        assert_eq!(told.reports.last(), record.last_report.as_ref(), "the last report of {}", job.job_id);
        assert!(job.may_have(told.reports.len()), "{} has lost reports", job.job_id);
        assert_eq!((told.finished.state(), told.finished.version), job.end.unwrap(), "{}", job.job_id);
        let hash = hasher.finish();
        assert_eq!(*job.history.get_or_insert(hash), hash, "the reports of {} have changed", job.job_id);
        self.histories_compared += 1;
    }
}

/// Everything that lists show, page by page.
async fn look(api: &Api) -> Seen {
    let mut seen = Seen::default();
    let mut page_token = String::new();
    loop {
        let request = pb::ListModelsRequest { page_size: 3, page_token };
        let page = api.models.clone().list_models(request).await.unwrap().into_inner();
        assert_eq!(page.unreachable, [""; 0]);
        for model in page.models {
            let versions = versions(api, &model.model_id).await;
            seen.models.push((model, versions));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    loop {
        let request = pb::ListJobsRequest { page_size: 7, page_token, ..Default::default() };
        let page = api.jobs.clone().list_jobs(request).await.unwrap().into_inner();
        assert_eq!(page.unreachable, [""; 0]);
        seen.jobs.extend(page.jobs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return seen;
        }
    }
}

async fn versions(api: &Api, model_id: &str) -> Vec<pb::Version> {
    let mut versions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListVersionsRequest { model_id: model_id.into(), page_size: 4, page_token };
        let page = api.models.clone().list_versions(request).await.unwrap().into_inner();
        assert_eq!(page.unreachable, [0; 0]);
        versions.extend(page.versions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return versions;
        }
    }
}
