//! The service from its other side: what the command line calls. Speaks the contract's messages, and knows nothing of the
//! server's insides.

use std::error::Error as _;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use super::pb;
use super::pb::admin_service_client::AdminServiceClient;
use super::pb::job_service_client::JobServiceClient;
use super::pb::model_service_client::ModelServiceClient;

/// Items of a list page: whole lists are wanted.
const PAGE_SIZE: i32 = 1_000;
/// The server that is asked where none is named.
pub const SERVER_DEFAULT: &str = "http://127.0.0.1:50051";
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers of a server whose own bound was raised are accepted too.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Why a call came back without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be one.
    #[error("{url:?} is not the address of a server; it looks like http://127.0.0.1:50051 (TLS is not spoken)")]
    Address {
        /// What was given.
        url: String,
    },
    /// Nobody answers there.
    #[error("no epochd answers at {url}: {cause}; start one with `epochd serve`, or check the address")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        cause: String,
    },
    /// The server refused.
    #[error("{message}")]
    Refused {
        /// The code in words, as gRPC names it.
        code: &'static str,
        /// What the server says.
        message: String,
    },
}

impl ClientError {
    /// Whether the server refused because there is such a thing already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused { code: "ALREADY_EXISTS", .. })
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        let mut message = status.message().to_owned();
        let is_ours = status.metadata().contains_key("epochd-call-id");
        if !is_ours && status.source().is_some() {
            message = format!("the connection was lost, or what answers there is no epochd: {}", innermost(&status));
        }
        if let Some(bad_request) = status.get_details_bad_request() {
            let lines = bad_request.field_violations.iter().map(|it| format!("\n  {}: {}", it.field, it.description));
            message = format!("the request was refused:{}", lines.collect::<String>());
        }
        Self::Refused { code: code_name(status.code()), message }
    }
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    models: ModelServiceClient<Channel>,
    jobs: JobServiceClient<Channel>,
    admin: AdminServiceClient<Channel>,
    channel: Channel,
}

/// The bytes of a backup, in chunks.
pub struct BackupChunks {
    stream: Streaming<pb::BackupResponse>,
}

impl BackupChunks {
    /// The next bytes, or what was left out; `None` once all were there: a backup that was cut short is an error.
    pub async fn next(&mut self) -> Result<Option<pb::BackupResponse>, ClientError> {
        Ok(self.stream.message().await?)
    }
}

/// The events of a training.
pub struct Events {
    job_id: String,
    stream: Streaming<pb::TrainEvent>,
}

impl Events {
    /// The job that they are of.
    pub fn job_id(&self) -> &str {
        &self.job_id
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<pb::TrainEvent>, ClientError> {
        Ok(self.stream.message().await?)
    }
}

/// A file of weights on its way here.
pub struct Download {
    stream: Streaming<pb::WeightsChunk>,
}

impl Download {
    /// The next part of the file; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<pb::WeightsChunk>, ClientError> {
        Ok(self.stream.message().await?)
    }
}

impl Client {
    /// Connects to `http://host:port`; `http://` may be left out.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let url = match url {
            // As a setting is that a script left empty.
            "" => SERVER_DEFAULT,
            url => url,
        };
        let url = &if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        if !url.starts_with("http://") {
            return Err(ClientError::Address { url: url.clone() });
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| ClientError::Address { url: url.to_owned() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| ClientError::Unreachable { url: url.to_owned(), cause: innermost(&error) })?;
        let models = ModelServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self {
            models,
            jobs: JobServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            admin: AdminServiceClient::new(channel.clone()),
            channel,
        })
    }

    /// See `ModelService.CreateModel`.
    pub async fn create_model(&mut self, request: pb::CreateModelRequest) -> Result<pb::Model, ClientError> {
        Ok(self.models.create_model(request).await?.into_inner())
    }

    /// See `ModelService.Train`.
    pub async fn train(&mut self, request: pb::TrainRequest) -> Result<Events, ClientError> {
        let answer = self.models.train(request).await?;
        let job_id = answer.metadata().get("epochd-job-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        Ok(Events { job_id: job_id.to_owned(), stream: answer.into_inner() })
    }

    /// See `ModelService.Predict`.
    pub async fn predict(&mut self, request: pb::PredictRequest) -> Result<pb::PredictResponse, ClientError> {
        Ok(self.models.predict(request).await?.into_inner())
    }

    /// See `ModelService.ComputeGradients`.
    pub async fn compute_gradients(
        &mut self,
        request: pb::ComputeGradientsRequest,
    ) -> Result<pb::ComputeGradientsResponse, ClientError> {
        Ok(self.models.compute_gradients(request).await?.into_inner())
    }

    /// See `ModelService.GetModel`.
    pub async fn model(&mut self, model_id: &str) -> Result<pb::Model, ClientError> {
        Ok(self.models.get_model(pb::GetModelRequest { model_id: model_id.to_owned() }).await?.into_inner())
    }

    /// See `ModelService.SetServingVersion`.
    pub async fn set_serving_version(
        &mut self,
        request: pb::SetServingVersionRequest,
    ) -> Result<pb::Model, ClientError> {
        Ok(self.models.set_serving_version(request).await?.into_inner())
    }

    /// See `ModelService.PinVersion`.
    pub async fn pin_version(&mut self, request: pb::PinVersionRequest) -> Result<pb::Model, ClientError> {
        Ok(self.models.pin_version(request).await?.into_inner())
    }

    /// See `ModelService.ListModels`.
    pub async fn list_models(&mut self, page_token: String) -> Result<pb::ListModelsResponse, ClientError> {
        let request = pb::ListModelsRequest { page_size: PAGE_SIZE, page_token };
        Ok(self.models.list_models(request).await?.into_inner())
    }

    /// See `ModelService.ListVersions`.
    pub async fn list_versions(
        &mut self,
        request: pb::ListVersionsRequest,
    ) -> Result<pb::ListVersionsResponse, ClientError> {
        let request = pb::ListVersionsRequest { page_size: PAGE_SIZE, ..request };
        Ok(self.models.list_versions(request).await?.into_inner())
    }

    /// See `ModelService.DeleteModel`.
    pub async fn delete_model(&mut self, model_id: &str) -> Result<(), ClientError> {
        self.models.delete_model(pb::DeleteModelRequest { model_id: model_id.to_owned() }).await?;
        Ok(())
    }

    /// See `ModelService.GetWeights`.
    pub async fn weights(&mut self, request: pb::GetWeightsRequest) -> Result<pb::Weights, ClientError> {
        Ok(self.models.get_weights(request).await?.into_inner())
    }

    /// See `ModelService.DownloadWeights`.
    pub async fn download_weights(&mut self, request: pb::DownloadWeightsRequest) -> Result<Download, ClientError> {
        Ok(Download { stream: self.models.download_weights(request).await?.into_inner() })
    }

    /// See `JobService.ListJobs`.
    pub async fn list_jobs(&mut self, request: pb::ListJobsRequest) -> Result<pb::ListJobsResponse, ClientError> {
        let request = pb::ListJobsRequest { page_size: PAGE_SIZE, ..request };
        Ok(self.jobs.list_jobs(request).await?.into_inner())
    }

    /// See `JobService.WatchJob`.
    pub async fn watch_job(&mut self, job_id: &str, from_epoch: i32) -> Result<Events, ClientError> {
        let request = pb::WatchJobRequest { job_id: job_id.to_owned(), from_epoch: Some(from_epoch) };
        Ok(Events { job_id: job_id.to_owned(), stream: self.jobs.watch_job(request).await?.into_inner() })
    }

    /// See `AdminService.Backup`.
    pub async fn backup(&mut self, request: pb::BackupRequest) -> Result<BackupChunks, ClientError> {
        Ok(BackupChunks { stream: self.admin.backup(request).await?.into_inner() })
    }

    /// Whether a service, or with an empty name the whole server, is SERVING; else the state's name.
    pub async fn health(&mut self, service: &str) -> Result<Result<(), &'static str>, ClientError> {
        let mut request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
        request.set_timeout(HEALTH_TIMEOUT);
        let status = HealthClient::new(self.channel.clone()).check(request).await?.into_inner().status();
        Ok(if status == ServingStatus::Serving { Ok(()) } else { Err(status.as_str_name()) })
    }

    /// See `JobService.CancelJob`.
    pub async fn cancel_job(&mut self, request: pb::CancelJobRequest) -> Result<pb::Job, ClientError> {
        Ok(self.jobs.cancel_job(request).await?.into_inner())
    }
}

/// The cause at the bottom of an error: "connection refused" rather than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
