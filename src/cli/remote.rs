//! What every command that asks a server has in common: the server's address, and a runtime for one conversation.

use anyhow::Context as _;

use crate::rpc::client::{Client, SERVER_DEFAULT};

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// The server to ask.
    #[arg(long, env = "EPOCHD_SERVER", value_name = "URL", default_value = SERVER_DEFAULT)]
    pub(super) server: String,
}

impl ServerArgs {
    /// Connects, and holds a conversation.
    pub(super) fn talk<T>(&self, conversation: impl AsyncFnOnce(Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("the runtime cannot be started")?;
        runtime.block_on(async { conversation(Client::connect(&self.server).await?).await })
    }
}

/// A page of a list after another, until the last.
pub(super) async fn every_page<T>(
    mut page: impl AsyncFnMut(String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<Vec<T>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(token).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}
