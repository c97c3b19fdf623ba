//! Serving on a listener until told to stop, first gracefully, then by force.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use super::call::Served;
use super::connection::incoming;
use super::health::Health;
use super::reading::Quick;
use super::reflection;
use super::serving::serve;
use super::word::Word;
use crate::app::App;

/// Why nothing can be served: the descriptor set is damaged, a bug of the build.
#[derive(Debug, thiserror::Error)]
#[error("reflection cannot be set up: {0}")]
pub struct TransportError(#[from] tonic_reflection::server::Error);

/// The services on one port.
pub struct Transport {
    served: Arc<Served>,
    /// Whether the server serves.
    pub health: Health,
    /// Give it to take no more connections and let calls end.
    pub stop: Word,
    /// Closes every connection.
    pub force: Word,
}

impl Transport {
    /// The services with health and reflection beside them.
    pub async fn new(
        app: App,
        routes: Routes,
        quick: impl Quick,
        services: &'static [&'static str],
        contract: &'static [u8],
    ) -> Result<Self, TransportError> {
        let (health, routes) = Health::install(routes, services).await;
        let routes = reflection::install(routes, contract)?;
        let served = Arc::new(Served { app, routes: routes.prepare(), quick: Box::new(quick) });
        Ok(Self { served, health, stop: Word::default(), force: Word::default() })
    }

    /// Serves until the last connection is closed after `stop`, or all are closed by `force`.
    pub async fn serve(&self, listener: TcpListener) {
        let tasks = TaskTracker::new();
        self.accept(listener, &tasks).await;
        tasks.close();
        tasks.wait().await;
    }

    /// Takes connections until `stop`; then nobody listens any more.
    async fn accept(&self, listener: TcpListener, tasks: &TaskTracker) {
        let mut connections = pin!(incoming(listener, self.force.clone()));
        loop {
            let connection = tokio::select! {
                () = self.stop.given() => return,
                connection = connections.next() => connection,
            };
            match connection {
                Some(Ok(connection)) => {
                    tasks.spawn(serve(connection, self.served.clone(), &self.stop, tasks));
                }
                Some(Err(error)) => tracing::debug!(%error, "a connection could not be accepted"),
                None => return,
            }
        }
    }
}
