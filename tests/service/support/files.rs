//! Files of weights, put together from their messages.

use epochd::rpc::pb;
use tonic::{Status, Streaming};

use super::Api;

/// A file as it was downloaded.
#[derive(Debug)]
pub struct WeightsFile {
    pub version: i32,
    pub bytes: Vec<u8>,
}

/// Reads on to the end. `first` is the message that was read already.
pub async fn read_on(
    first: pb::WeightsChunk,
    mut messages: Streaming<pb::WeightsChunk>,
) -> Result<WeightsFile, Status> {
    let mut bytes = first.data.to_vec();
    while let Some(chunk) = messages.message().await? {
        assert!(!chunk.data.is_empty() && chunk.data.len() <= 256 << 10, "{}", chunk.data.len());
        assert_eq!((chunk.version, chunk.size_bytes), (0, 0));
        bytes.extend(chunk.data);
    }
    assert_eq!(first.size_bytes, bytes.len() as i64);
    Ok(WeightsFile { version: first.version, bytes })
}

impl Api {
    /// Begins a download: its first message, and the rest as a stream.
    pub async fn download(
        &self,
        model_id: &str,
        version: Option<i32>,
    ) -> Result<(pb::WeightsChunk, Streaming<pb::WeightsChunk>), Status> {
        let request = pb::DownloadWeightsRequest { model_id: model_id.into(), version };
        let mut messages = self.models.clone().download_weights(request).await?.into_inner();
        let first = messages.message().await?.expect("a file is never empty");
        Ok((first, messages))
    }

    /// Downloads a file.
    pub async fn file(&self, model_id: &str, version: Option<i32>) -> WeightsFile {
        let (first, messages) = self.download(model_id, version).await.unwrap();
        read_on(first, messages).await.unwrap()
    }
}
