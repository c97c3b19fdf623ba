//! `epochd.v1.AdminService`: each handler decodes, asks the use case, encodes.

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::pb;
use super::pb::admin_service_server::AdminService;
use crate::app::App;

/// A backup, in chunks.
type ChunkStream = Pin<Box<dyn Stream<Item = Result<pb::BackupResponse, Status>> + Send>>;

/// The service over the use cases.
pub(super) struct Admin {
    app: App,
}

impl Admin {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type BackupStream = ChunkStream;

    async fn backup(&self, _: Request<pb::BackupRequest>) -> Result<Response<ChunkStream>, Status> {
        let chunks = self.app.backup().await?;
        let messages = futures_util::stream::unfold(chunks, |mut chunks| async move {
            let chunk = chunks.next().await?;
            Some((chunk.map(|chunk| pb::BackupResponse { chunk }).map_err(Status::from), chunks))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
