//! Streams of a job's events that are read bit by bit.

use epochd::rpc::pb;
use epochd::rpc::pb::train_event::Event;
use tonic::Streaming;

/// A stream, and what it told so far.
pub struct Follow {
    job_id: String,
    events: Streaming<pb::TrainEvent>,
    /// Jobs that were ahead, if it said so.
    pub jobs_ahead: Option<i32>,
    pub started: Option<pb::TrainingStarted>,
    pub reports: Vec<pb::EpochReport>,
}

impl Follow {
    pub fn new(job_id: String, events: Streaming<pb::TrainEvent>) -> Self {
        Self { job_id, events, jobs_ahead: None, started: None, reports: Vec::new() }
    }

    /// Reads one event; the end, if it was that.
    pub async fn read_one(&mut self) -> Option<pb::TrainingFinished> {
        let event = self.events.message().await.unwrap().expect("the stream ended without `finished`");
        assert_eq!(event.job_id, self.job_id);
        match event.event.unwrap() {
            Event::Queued(queued) => {
                assert!(self.jobs_ahead.is_none() && self.started.is_none(), "`queued` is not the first event");
                self.jobs_ahead = queued.jobs_ahead;
            }
            Event::Started(started) => {
                assert!(self.started.replace(started).is_none(), "it started twice");
            }
            Event::Progress(_) => {}
            Event::Epochs(batch) => {
                assert!(self.started.is_some() && !batch.reports.is_empty());
                self.reports.extend(batch.reports);
            }
            Event::Finished(finished) => {
                assert!(self.events.message().await.unwrap().is_none(), "an event after `finished`");
                return Some(finished);
            }
        }
        None
    }

    /// Reads up to the first reports.
    pub async fn read_reports(&mut self) {
        while self.reports.is_empty() {
            assert!(self.read_one().await.is_none(), "it ended instead of telling an epoch");
        }
    }

    pub async fn read_all(&mut self) -> pb::TrainingFinished {
        loop {
            if let Some(finished) = self.read_one().await {
                return finished;
            }
        }
    }
}

/// Asserts that reports are those of the epochs from `first` on, one after another.
#[track_caller]
pub fn assert_in_order(reports: &[pb::EpochReport], first: i32) {
    let epochs: Vec<i32> = reports.iter().map(|report| report.epoch).collect();
    assert_eq!(epochs, (first..).take(reports.len()).collect::<Vec<_>>(), "not each epoch once, in order");
}
