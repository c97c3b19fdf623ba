//! A server inside the process of a command, for when none is named: the same services over the same gRPC path, on a port
//! that only this command knows.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::config::RawConfig;
use crate::server::{self, ServerError};
use crate::store::StoreError;

/// Largest message of a server that serves only this process.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Runs `command` against a server over `data_dir`, which it is told the address of, and stops the server after it.
pub(super) async fn with_server<T, F: Future<Output = anyhow::Result<T>>>(
    data_dir: PathBuf,
    threads: tokio::runtime::Handle,
    train_threads: usize,
    command: impl FnOnce(String) -> F,
) -> anyhow::Result<T> {
    let raw = RawConfig {
        data_dir,
        train_threads: Some(train_threads),
        message_bytes_max: MESSAGE_BYTES_MAX,
        drain_seconds: 1,
        ..RawConfig::default()
    };
    let config = raw.check(train_threads)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port is free on this machine")?;
    let url = format!("http://{}", listener.local_addr()?);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server::run(listener, config, threads, async move {
        // The sender is dropped when the command is done: either way it is time to stop.
        let _ = stopped.await;
    });
    let run = async {
        let result = command(url).await;
        drop(stop);
        result
    };
    let (mut serve, mut run) = (std::pin::pin!(serve), std::pin::pin!(run));
    tokio::select! {
        // The server ends first only where it could not start.
        served = &mut serve => {
            served.map_err(explain)?;
            run.await
        }
        result = &mut run => {
            serve.await.map_err(explain)?;
            result
        }
    }
}

fn explain(error: ServerError) -> anyhow::Error {
    match &error {
        ServerError::Store(StoreError::Locked { .. }) => anyhow::anyhow!(
            "{error}\nIf a server runs on that folder, train through it: --server http://127.0.0.1:50051"
        ),
        _ => error.into(),
    }
}
