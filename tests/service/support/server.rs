//! A server in this process, on threads of its own: the composition that `epochd serve` makes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use epochd::config::RawConfig;
use epochd::jobs::Threads;
use epochd::rpc::pb::admin_service_client::AdminServiceClient;
use epochd::rpc::pb::job_service_client::JobServiceClient;
use epochd::rpc::pb::model_service_client::ModelServiceClient;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

/// Clients of a server's services over one connection.
#[derive(Clone)]
pub struct Api {
    pub models: ModelServiceClient<Channel>,
    pub jobs: JobServiceClient<Channel>,
    pub admin: AdminServiceClient<Channel>,
    pub channel: Channel,
}

impl Api {
    pub async fn connect(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect_timeout(Duration::from_secs(10)).connect().await.unwrap();
        let models = ModelServiceClient::new(channel.clone()).max_decoding_message_size(256 << 20);
        let jobs = JobServiceClient::new(channel.clone());
        Self { models, jobs, admin: AdminServiceClient::new(channel.clone()), channel }
    }
}

/// A running server. Dropped, it is told to stop; [`Server::stop`] also waits for it.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), epochd::server::ServerError>>>,
}

impl Server {
    /// In memory, with the defaults, two training threads and no patience at its end.
    pub fn start() -> Self {
        Self::with(RawConfig { ephemeral: true, ..Self::raw() })
    }

    /// Over a folder.
    pub fn over(folder: &Path) -> Self {
        Self::with(RawConfig { data_dir: folder.to_owned(), ..Self::raw() })
    }

    /// What the other constructors begin with.
    pub fn raw() -> RawConfig {
        RawConfig { listen: "127.0.0.1:0".into(), drain_seconds: 0, ..RawConfig::default() }
    }

    pub fn with(raw: RawConfig) -> Self {
        let config = raw.check(2).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (tell_address, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let threads = Threads::start(config.train_threads).unwrap();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let served = runtime.block_on(async {
                let listener = TcpListener::bind(config.listen).await.unwrap();
                tell_address.send(listener.local_addr().unwrap()).unwrap();
                let shutdown = async move { drop(stopped.await) };
                epochd::server::run(listener, config, threads.handle(), shutdown).await
            });
            threads.shut_down(Duration::from_secs(5));
            served
        });
        let address = address.recv().unwrap();
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    pub async fn api(&self) -> Api {
        Api::connect(self.address).await
    }

    /// Tells the server to stop.
    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the server and waits until it has.
    pub async fn stop(mut self) {
        self.begin_stop();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap().unwrap()).await.unwrap();
    }
}
