//! Accepted connections: counted, without Nagle's delay, and closed by force when the server's patience ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::limits::CONNECTIONS_MAX;

/// How long to wait after accept failed, for want of file handles say, before trying again.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A connection. Graceful shutdown waits for its peer without limit, so closing by force is done here: once `closed` is
/// cancelled, every read and write fails, and the task that owns the connection ends.
pub(super) struct Connection {
    stream: TcpStream,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

/// Connections of `listener` as they come, never more than a bounded number at once.
pub(super) fn incoming(listener: TcpListener, closed: CancellationToken) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    futures_util::stream::unfold((listener, places, closed), |(listener, places, closed)| async move {
        // The semaphore is never closed; were it, no more connections would come.
        let permit = places.clone().acquire_owned().await.ok()?;
        let connection = match listener.accept().await {
            Ok((stream, _)) => {
                let closed = Box::pin(closed.clone().cancelled_owned());
                stream.set_nodelay(true).map(|()| Connection { stream, closed, _permit: permit })
            }
            Err(error) => {
                tokio::time::sleep(ACCEPT_RETRY).await;
                Err(error)
            }
        };
        Some((connection, (listener, places, closed)))
    })
}

impl Connection {
    /// Also leaves word to be woken when the connection is to be closed.
    fn check_open(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.closed.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server closes")),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
