//! `grpc.health.v1.Health`: NOT_SERVING until the store is open, SERVING until the server drains.

use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

/// The state of the server and of each of its services.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl Health {
    /// Adds the health service to `routes`; nothing is serving yet.
    pub async fn install(routes: Routes, services: &'static [&'static str]) -> (Self, Routes) {
        let (reporter, service) = health_reporter();
        let health = Self { reporter, services };
        // The library starts the empty name, the server as a whole, as SERVING.
        health.set(ServingStatus::NotServing).await;
        (health, routes.add_service(service))
    }

    /// Everything is ready.
    pub async fn set_serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Nothing new is taken on.
    pub async fn set_not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for service in std::iter::once(&"").chain(self.services) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
