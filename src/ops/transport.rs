//! Serving on a listener until told to stop, first gracefully, then by force.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::call::CallLayer;
use super::connection::{Force, incoming};
use super::health::Health;
use super::reflection;
use crate::app::App;
use crate::limits::STREAMS_PER_CONNECTION_MAX;

/// A peer that says nothing is asked whether it is there, and given up: a sleeping laptop sends no farewell.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The descriptor set is damaged: a bug of the build.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("serving failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// The services on one port.
pub struct Transport {
    app: App,
    routes: Routes,
    /// Whether the server serves.
    pub health: Health,
    /// Cancel it to take no more connections and let calls end.
    pub stop: CancellationToken,
    /// Closes every connection.
    pub force: Force,
}

impl Transport {
    /// The services with health and reflection beside them.
    pub async fn new(
        app: App,
        routes: Routes,
        services: &'static [&'static str],
        contract: &'static [u8],
    ) -> Result<Self, TransportError> {
        let (health, routes) = Health::install(routes, services).await;
        let routes = reflection::install(routes, contract)?;
        Ok(Self { app, routes, health, stop: CancellationToken::new(), force: Force::default() })
    }

    /// Serves until the last connection is closed after `stop`, or all are closed by `force`.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), TransportError> {
        let connections = incoming(listener, self.force.clone());
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .layer(CallLayer::new(self.app.clone()))
            .add_routes(self.routes.clone())
            .serve_with_incoming_shutdown(connections, self.stop.clone().cancelled_owned())
            .await?;
        Ok(())
    }
}
