//! Lists, page by page.

use epochd::rpc::pb;
use epochd::rpc::pb::JobState;
use tonic::Code;

use super::NAMES;
use super::machine::{Machine, agree};
use crate::support::refused;

/// Cuts what a list has into the pages that are due: always one, and the last is the one that is followed by none.
fn pages<T: Clone>(items: &[T], size: i32) -> Vec<Vec<T>> {
    if items.is_empty() { vec![Vec::new()] } else { items.chunks(size as usize).map(<[T]>::to_vec).collect() }
}

/// Asserts that a token leads on from each page but the last.
#[track_caller]
fn leads_on(token: &str, page: usize, pages: usize) {
    assert_eq!(token.is_empty(), page + 1 == pages, "page {page} of {pages}");
}

impl Machine {
    pub async fn list_models(&mut self, size: i32) {
        let mut foretold: Vec<usize> = (0..NAMES.len()).filter_map(|name| self.lists.find(name).ok()).collect();
        foretold.sort_by_key(|&model| NAMES[self.lists.models[model].name]);
        let foretold = pages(&foretold, size);
        let mut request = pb::ListModelsRequest { page_size: size, ..Default::default() };
        for (place, page) in foretold.iter().enumerate() {
            let told = self.api.models.clone().list_models(request.clone()).await.unwrap().into_inner();
            assert_eq!((told.models.len(), told.unreachable.len()), (page.len(), 0));
            told.models.iter().zip(page).for_each(|(told, &model)| self.assert_model(told, model));
            leads_on(&told.next_page_token, place, foretold.len());
            request.page_token = told.next_page_token;
        }
    }

    pub async fn list_versions(&mut self, name: usize, size: i32) {
        let model = self.lists.find(name);
        let versions = model.map_or(Vec::new(), |model| self.lists.models[model].versions.keys().copied().collect());
        let foretold = pages(&versions, size);
        let mut request =
            pb::ListVersionsRequest { model_id: NAMES[name].into(), page_size: size, ..Default::default() };
        for (place, page) in foretold.iter().enumerate() {
            let answer = self.api.models.clone().list_versions(request.clone()).await;
            let Some((told, model)) = agree(answer, model) else { return };
            assert_eq!(told.versions.iter().map(|version| version.version).collect::<Vec<_>>(), *page);
            told.versions.iter().for_each(|told| self.assert_version(told, model, told.version));
            assert!(told.unreachable.is_empty());
            leads_on(&told.next_page_token, place, foretold.len());
            request.page_token = told.next_page_token;
        }
    }

    pub async fn list_jobs(&mut self, name: Option<usize>, state: JobState, size: i32) {
        let is_wanted = |&job: &usize| {
            let job = &self.lists.jobs[job];
            let is_of_model = name.is_none_or(|name| self.lists.models[job.model].name == name);
            is_of_model && (state == JobState::Unspecified || job.state == state)
        };
        let foretold: Vec<usize> = (0..self.lists.jobs.len()).rev().filter(is_wanted).collect();
        let foretold = pages(&foretold, size);
        let model_id = name.map_or(String::new(), |name| NAMES[name].to_owned());
        let mut request = pb::ListJobsRequest { model_id, state: state.into(), page_size: size, ..Default::default() };
        for (place, page) in foretold.iter().enumerate() {
            let told = self.api.jobs.clone().list_jobs(request.clone()).await.unwrap().into_inner();
            let ids: Vec<&str> = told.jobs.iter().map(|job| job.job_id.as_str()).collect();
            assert_eq!(ids, page.iter().map(|&job| self.lists.jobs[job].id.as_str()).collect::<Vec<_>>());
            told.jobs.iter().zip(page).for_each(|(told, &job)| self.assert_job(told, job));
            assert!(told.unreachable.is_empty());
            leads_on(&told.next_page_token, place, foretold.len());
            request.page_token = told.next_page_token;
            if !request.page_token.is_empty() {
                let other = pb::ListJobsRequest { model_id: "another".into(), ..request.clone() };
                refused(self.api.jobs.clone().list_jobs(other).await, Code::InvalidArgument, "page_token");
            }
        }
    }
}
