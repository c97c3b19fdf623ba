//! `epochd.v1.JobService`: each handler decodes, asks the use case, encodes.

use tonic::{Request, Response, Status};

use super::model_service::{EventStream, SMALLER_PAGE, event_stream};
use super::pb::job_service_server::JobService;
use super::{bounded, decode, encode, pb};
use crate::app::{App, AppError, JobFilterRequest, PageRequest};
use crate::domain::{At, Faults, ModelId};

/// The service over the use cases.
pub(super) struct Jobs {
    app: App,
    message_bytes_max: usize,
}

impl Jobs {
    pub(super) fn new(app: App, message_bytes_max: usize) -> Self {
        Self { app, message_bytes_max }
    }
}

#[tonic::async_trait]
impl JobService for Jobs {
    async fn get_job(&self, request: Request<pb::GetJobRequest>) -> Result<Response<pb::Job>, Status> {
        let job_id = decode::job_id(&request.into_inner().job_id).map_err(AppError::from)?;
        let job = self.app.job(job_id).await?;
        Ok(Response::new(encode::job(&job)))
    }

    async fn list_jobs(&self, request: Request<pb::ListJobsRequest>) -> Result<Response<pb::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(&request.model_id, request.state).map_err(AppError::from)?;
        let page = PageRequest { size: request.page_size.into(), token: request.page_token };
        let jobs = self.app.jobs(filter, page).await?;
        let answer = pb::ListJobsResponse {
            jobs: jobs.items.iter().map(encode::job).collect(),
            next_page_token: jobs.next_token,
            unreachable: jobs.unreachable,
        };
        bounded(answer, self.message_bytes_max, SMALLER_PAGE)
    }

    type WatchJobStream = EventStream;

    async fn watch_job(&self, request: Request<pb::WatchJobRequest>) -> Result<Response<EventStream>, Status> {
        let request = request.into_inner();
        let job_id = decode::job_id(&request.job_id).map_err(AppError::from)?;
        let mut faults = Faults::new();
        let from_epoch = i64::from(request.from_epoch.unwrap_or(1));
        let from_epoch = faults.whole(At::ROOT.field("from_epoch"), from_epoch, 1..=i64::from(i32::MAX));
        let from_epoch = faults.finish(from_epoch).map_err(AppError::from)? as u32;
        let watch = self.app.watch_job(job_id, from_epoch).await?;
        Ok(Response::new(event_stream(watch)))
    }

    async fn cancel_job(&self, request: Request<pb::CancelJobRequest>) -> Result<Response<pb::Job>, Status> {
        let request = request.into_inner();
        let job_id = decode::job_id(&request.job_id).map_err(AppError::from)?;
        let job = self.app.cancel_job(job_id, request.commit).await?;
        Ok(Response::new(encode::job(&job)))
    }
}

fn filter(model_id: &str, state: i32) -> Result<JobFilterRequest, Faults> {
    let mut faults = Faults::new();
    let model_id = match model_id {
        "" => Some(None),
        name => ModelId::new(name, At::ROOT.field("model_id"), &mut faults).map(Some),
    };
    let state = decode::job_state(state, &mut faults);
    faults.finish(model_id.zip(state).map(|(model_id, state)| JobFilterRequest { model_id, state }))
}
