//! `epochd.v1.ModelService`: each handler decodes, asks the use case, encodes.

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::decode::{self, Encoding};
use super::pb::model_service_server::ModelService;
use super::{bounded, encode, pb};
use crate::app::{App, AppError, Download, PageRequest, Watch};
use crate::domain::{At, Faults};

/// A stream of events to one watcher.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<pb::TrainEvent, Status>> + Send>>;

/// A stream of the parts of a file.
type ChunkStream = Pin<Box<dyn Stream<Item = Result<pb::WeightsChunk, Status>> + Send>>;

/// The service over the use cases.
pub(super) struct Models {
    app: App,
    message_bytes_max: usize,
}

impl Models {
    pub(super) fn new(app: App, message_bytes_max: usize) -> Self {
        Self { app, message_bytes_max }
    }
}

/// Follows a job as a stream of messages.
pub(super) fn event_stream(watch: Watch) -> EventStream {
    Box::pin(futures_util::stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        let job_id = watch.job_id();
        let message = event.map(|event| encode::train_event(job_id, &event)).map_err(Status::from);
        Some((message, watch))
    }))
}

/// A file in messages, the first of which says what it is.
fn chunk_stream(download: Download) -> ChunkStream {
    let (version, size_bytes) = (download.version() as i32, download.size_bytes() as i64);
    let first = pb::WeightsChunk { version, size_bytes, ..pb::WeightsChunk::default() };
    let frames = std::iter::once(first).chain(std::iter::repeat(pb::WeightsChunk::default()));
    let chunks = download.zip(frames).map(|(data, frame)| Ok(pb::WeightsChunk { data: data?, ..frame }));
    Box::pin(futures_util::stream::iter(chunks))
}

fn page(size: i32, token: String) -> PageRequest {
    PageRequest { size: size.into(), token }
}

/// Who asks, as far as an address tells: behind a proxy all callers are one.
fn caller<T>(request: &Request<T>) -> String {
    request.remote_addr().map_or_else(String::new, |address| address.ip().to_canonical().to_string())
}

/// What to do about a list that is too large for one message.
pub(super) const SMALLER_PAGE: &str = "ask with a smaller `page_size`";

/// The id of the job of a `Train` call, in its initial metadata.
const JOB_ID_KEY: &str = "epochd-job-id";

#[tonic::async_trait]
impl ModelService for Models {
    async fn create_model(&self, request: Request<pb::CreateModelRequest>) -> Result<Response<pb::Model>, Status> {
        let request = decode::create_model(request.into_inner()).map_err(AppError::from)?;
        let model = self.app.create_model(request).await?;
        Ok(Response::new(encode::model(&model)))
    }

    async fn get_model(&self, request: Request<pb::GetModelRequest>) -> Result<Response<pb::Model>, Status> {
        let model_id = decode::model_id(&request.into_inner().model_id).map_err(AppError::from)?;
        let model = self.app.model(model_id).await?;
        Ok(Response::new(encode::model(&model)))
    }

    async fn list_models(
        &self,
        request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let request = request.into_inner();
        let models = self.app.models(page(request.page_size, request.page_token)).await?;
        let answer = pb::ListModelsResponse {
            models: models.items.iter().map(encode::model).collect(),
            next_page_token: models.next_token,
            unreachable: models.unreachable,
        };
        bounded(answer, self.message_bytes_max, SMALLER_PAGE)
    }

    async fn delete_model(
        &self,
        request: Request<pb::DeleteModelRequest>,
    ) -> Result<Response<pb::DeleteModelResponse>, Status> {
        let model_id = decode::model_id(&request.into_inner().model_id).map_err(AppError::from)?;
        self.app.delete_model(model_id).await?;
        Ok(Response::new(pb::DeleteModelResponse {}))
    }

    async fn set_serving_version(
        &self,
        request: Request<pb::SetServingVersionRequest>,
    ) -> Result<Response<pb::Model>, Status> {
        let request = request.into_inner();
        let model_id = decode::model_id(&request.model_id).map_err(AppError::from)?;
        let model = self.app.set_serving_version(model_id, request.version.map(i64::from)).await?;
        Ok(Response::new(encode::model(&model)))
    }

    async fn pin_version(&self, request: Request<pb::PinVersionRequest>) -> Result<Response<pb::Model>, Status> {
        let request = request.into_inner();
        let model_id = decode::model_id(&request.model_id).map_err(AppError::from)?;
        let is_pinned = request.pinned.unwrap_or(true);
        let model = self.app.pin_version(model_id, i64::from(request.version), is_pinned).await?;
        Ok(Response::new(encode::model(&model)))
    }

    type TrainStream = EventStream;

    async fn train(&self, request: Request<pb::TrainRequest>) -> Result<Response<EventStream>, Status> {
        let caller = caller(&request);
        let command = decode::train_command(request.into_inner(), caller).map_err(AppError::from)?;
        let watch = self.app.train(command).await?;
        let job_id = watch.job_id().to_string();
        let mut response = Response::new(event_stream(watch));
        if let Ok(value) = job_id.parse() {
            response.metadata_mut().insert(JOB_ID_KEY, value);
        }
        Ok(response)
    }

    async fn predict(&self, request: Request<pb::PredictRequest>) -> Result<Response<pb::PredictResponse>, Status> {
        let (request, encoding) = decode::predict_request(request.into_inner()).map_err(AppError::from)?;
        let prediction = self.app.predict(request).await?;
        bounded(encode::prediction(prediction, encoding), self.message_bytes_max, "ask for fewer rows at a time")
    }

    async fn compute_gradients(
        &self,
        request: Request<pb::ComputeGradientsRequest>,
    ) -> Result<Response<pb::ComputeGradientsResponse>, Status> {
        let request = request.into_inner();
        let encoding = Encoding::of(request.inputs.as_ref());
        let request = decode::gradients_request(request).map_err(AppError::from)?;
        let gradients = self.app.gradients(request).await?;
        bounded(
            encode::gradients(&gradients, encoding),
            self.message_bytes_max,
            "send `packed` inputs, which are answered packed",
        )
    }

    async fn get_weights(&self, request: Request<pb::GetWeightsRequest>) -> Result<Response<pb::Weights>, Status> {
        let request = request.into_inner();
        let model_id = decode::model_id(&request.model_id).map_err(AppError::from)?;
        let mut faults = Faults::new();
        let encoding = Encoding::asked(request.encoding, At::ROOT.field("encoding"), &mut faults);
        let encoding = faults.finish(encoding).map_err(AppError::from)?;
        let layers = request.layers.into_iter().map(i64::from).collect();
        let weights = self.app.weights(model_id, request.version.map(i64::from), layers).await?;
        let advice = "stream them with DownloadWeights (`epochd download`), or ask for fewer `layers` at a time, or with \
                      MATRIX_ENCODING_PACKED";
        bounded(encode::weights(&weights, encoding), self.message_bytes_max, advice)
    }

    type DownloadWeightsStream = ChunkStream;

    async fn download_weights(
        &self,
        request: Request<pb::DownloadWeightsRequest>,
    ) -> Result<Response<ChunkStream>, Status> {
        let request = request.into_inner();
        let model_id = decode::model_id(&request.model_id).map_err(AppError::from)?;
        let version = request.version.map(i64::from);
        let download = self.app.download(model_id, version, encode::safetensors_head).await?;
        Ok(Response::new(chunk_stream(download)))
    }

    async fn set_weights(&self, request: Request<pb::SetWeightsRequest>) -> Result<Response<pb::Version>, Status> {
        let request = request.into_inner();
        let model_id = decode::model_id(&request.model_id).map_err(AppError::from)?;
        let mut faults = Faults::new();
        let layers = decode::layer_parameters(request.layers, At::ROOT.field("layers"), &mut faults);
        let layers = faults.finish(layers).map_err(AppError::from)?;
        let version = self.app.set_weights(model_id, layers).await?;
        Ok(Response::new(encode::version(&version)))
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let request = request.into_inner();
        let model_id = decode::model_id(&request.model_id).map_err(AppError::from)?;
        let versions = self.app.versions(model_id, page(request.page_size, request.page_token)).await?;
        let answer = pb::ListVersionsResponse {
            versions: versions.items.iter().map(encode::version).collect(),
            next_page_token: versions.next_token,
            unreachable: versions.unreachable.iter().filter_map(|number| number.parse().ok()).collect(),
        };
        bounded(answer, self.message_bytes_max, SMALLER_PAGE)
    }
}
