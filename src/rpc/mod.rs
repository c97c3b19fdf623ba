//! The wire: the only code that knows protobuf messages. A handler decodes, asks the use case, and encodes.

mod admin_service;
pub mod client;
mod codec;
mod decode;
mod descriptors;
mod encode;
mod epoch_reports;
mod gathering;
mod job_service;
pub mod json;
mod model_service;
pub mod pb;
mod predictions;
mod status;

use tonic::service::Routes;
use tonic::{Response, Status};

use crate::app::App;
use pb::admin_service_server::AdminServiceServer;
use pb::job_service_server::JobServiceServer;
use pb::model_service_server::ModelServiceServer;
pub use predictions::Predictions;

/// The names of the services, as health reports them.
pub const SERVICE_NAMES: [&str; 3] = ["epochd.v1.ModelService", "epochd.v1.JobService", "epochd.v1.AdminService"];

/// The services over the use cases, with messages of at most `message_bytes_max`.
pub fn routes(app: &App, message_bytes_max: usize) -> Routes {
    let models = ModelServiceServer::new(model_service::Models::new(app.clone(), message_bytes_max))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let jobs = JobServiceServer::new(job_service::Jobs::new(app.clone(), message_bytes_max))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let admin = AdminServiceServer::new(admin_service::Admin::new(app.clone()))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    Routes::new(models).add_service(jobs).add_service(admin)
}

/// An answer that is too large is refused with its bound, instead of by the library without one.
fn bounded<M: prost::Message>(message: M, bytes_max: usize, advice: &str) -> Result<Response<M>, Status> {
    let bytes = message.encoded_len();
    if bytes <= bytes_max {
        return Ok(Response::new(message));
    }
    Err(Status::resource_exhausted(format!("the answer has {bytes} bytes, more than {bytes_max}; {advice}")))
}
