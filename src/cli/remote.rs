//! What every command that asks a server has in common: the server's address, and a runtime for one conversation.

use anyhow::Context as _;

use super::Outcome;
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

/// One page of a list, as it was answered.
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    pub(super) unreachable: Vec<String>,
    pub(super) next_token: String,
}

/// A whole list.
pub(super) struct All<T> {
    pub(super) items: Vec<T>,
    unreachable: Vec<String>,
}

impl<T> All<T> {
    /// How a command ends that has told the items: what could not be read is told on standard error.
    pub(super) fn outcome(&self) -> Outcome {
        if self.unreachable.is_empty() {
            return Outcome::Done;
        }
        eprintln!("error: not listed, since their records are damaged: {}", self.unreachable.join(", "));
        Outcome::Failed
    }
}

/// A page of a list after another, until the last.
pub(super) async fn every_page<T>(
    mut page: impl AsyncFnMut(String) -> anyhow::Result<Page<T>>,
) -> anyhow::Result<All<T>> {
    let mut all = All { items: Vec::new(), unreachable: Vec::new() };
    let mut token = String::new();
    loop {
        let Page { items, unreachable, next_token } = page(token).await?;
        all.items.extend(items);
        all.unreachable.extend(unreachable);
        if next_token.is_empty() {
            return Ok(all);
        }
        token = next_token;
    }
}
