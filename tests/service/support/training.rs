//! Streams of training events, read to where a test wants them.

use std::time::Duration;

use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use tonic::{Status, Streaming};

use super::Api;

/// Everything that a stream told.
#[derive(Clone, Debug)]
pub struct Told {
    pub job_id: String,
    pub queued: bool,
    pub started: Option<pb::TrainingStarted>,
    pub reports: Vec<pb::EpochReport>,
    pub finished: pb::TrainingFinished,
}

impl Told {
    pub fn epochs(&self) -> Vec<i32> {
        self.reports.iter().map(|report| report.epoch).collect()
    }

    pub fn losses(&self) -> Vec<f64> {
        self.reports.iter().map(|report| report.loss).collect()
    }
}

/// Reads a stream to its end, which must be `finished` and OK.
pub async fn read(events: Streaming<pb::TrainEvent>) -> Told {
    try_read(events).await.unwrap()
}

/// Reads a stream to `finished` and OK, or to its fault.
pub async fn try_read(mut events: Streaming<pb::TrainEvent>) -> Result<Told, Status> {
    let (mut queued, mut started, mut reports) = (false, None, Vec::new());
    while let Some(event) = events.message().await? {
        let job_id = event.job_id;
        match event.event.unwrap() {
            Event::Queued(_) => queued = true,
            Event::Started(it) => started = Some(it),
            Event::Progress(_) => {}
            Event::Epochs(batch) => reports.extend(batch.reports),
            Event::Finished(finished) => {
                assert!(events.message().await?.is_none(), "an event after `finished`");
                return Ok(Told { job_id, queued, started, reports, finished });
            }
        }
    }
    panic!("the stream ended without `finished`");
}

/// Reads on to the next event that `choose` takes.
pub async fn next<T>(events: &mut Streaming<pb::TrainEvent>, choose: impl Fn(Event) -> Option<T>) -> T {
    while let Some(event) = events.message().await.unwrap() {
        if let Some(chosen) = choose(event.event.unwrap()) {
            return chosen;
        }
    }
    panic!("the stream ended before the event came");
}

/// Reads on to the next batch of reports.
pub async fn next_reports(events: &mut Streaming<pb::TrainEvent>) -> Vec<pb::EpochReport> {
    let reports = |event| if let Event::Epochs(batch) = event { Some(batch.reports) } else { None };
    next(events, reports).await
}

impl Api {
    pub async fn create(&self, request: pb::CreateModelRequest) -> pb::Model {
        self.models.clone().create_model(request).await.unwrap().into_inner()
    }

    /// Trains to the end.
    pub async fn train(&self, request: pb::TrainRequest) -> Told {
        read(self.models.clone().train(request).await.unwrap().into_inner()).await
    }

    /// `end_time − start_time` of a job, by the server's clock.
    pub async fn trained_for(&self, job_id: &str) -> Duration {
        let job = self.job(job_id).await;
        let nanos = |time: prost_types::Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let nanos = nanos(job.end_time.unwrap()) - nanos(job.start_time.unwrap());
        Duration::from_nanos(u64::try_from(nanos).unwrap())
    }

    /// Starts a training: the job's id, from the answer's metadata, and its events.
    pub async fn start(&self, request: pb::TrainRequest) -> (String, Streaming<pb::TrainEvent>) {
        let answer = self.models.clone().train(request).await.unwrap();
        let job_id = answer.metadata().get("epochd-job-id").unwrap().to_str().unwrap().to_owned();
        (job_id, answer.into_inner())
    }

    /// Watches a job.
    pub async fn watch(&self, job_id: &str, from_epoch: Option<i32>) -> Result<Streaming<pb::TrainEvent>, Status> {
        Ok(self.jobs.clone().watch_job(super::watch(job_id, from_epoch)).await?.into_inner())
    }

    pub async fn job(&self, job_id: &str) -> pb::Job {
        self.jobs.clone().get_job(super::get_job(job_id)).await.unwrap().into_inner()
    }

    pub async fn model(&self, model_id: &str) -> pb::Model {
        self.models.clone().get_model(super::get_model(model_id)).await.unwrap().into_inner()
    }

    /// The outputs of the serving version.
    pub async fn outputs(&self, model_id: &str, inputs: pb::Matrix) -> Vec<f64> {
        let answer = self.models.clone().predict(super::predict(model_id, inputs)).await.unwrap();
        answer.into_inner().outputs.unwrap().values
    }
}
