//! `epochd.v1.AdminService`: each handler decodes, asks the use case, encodes.

use std::pin::Pin;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::pb;
use super::pb::admin_service_server::AdminService;
use crate::app::{App, BackupPart};

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

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<ChunkStream>, Status> {
        let chunks = self.app.backup(request.into_inner().skip_damaged).await?;
        let messages = futures_util::stream::unfold(chunks, |mut chunks| async move {
            let part = chunks.next().await?;
            Some((part.map(message).map_err(Status::from), chunks))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

fn message(part: BackupPart) -> pb::BackupResponse {
    match part {
        BackupPart::Chunk(chunk) => pb::BackupResponse { chunk, ..Default::default() },
        BackupPart::LeftOut(left_out) => pb::BackupResponse {
            left_out_count: i64::try_from(left_out.count).unwrap_or(i64::MAX),
            left_out: left_out.named,
            ..Default::default()
        },
    }
}
