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
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::word::{Listener, Word};
use crate::limits::CONNECTIONS_MAX;

/// Bytes of the preface that every HTTP/2 client sends first.
const PREFACE_BYTES: usize = 24;
/// How long a peer has to send it.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait after accept failed, for want of file handles say, before trying again.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A connection. Graceful shutdown waits for its peer without limit, so closing by force is done here: once the word is
/// given, every read and write fails, and the task that owns the connection ends.
pub(super) struct Connection {
    stream: TcpStream,
    force: Listener,
    /// Until the peer has said as much as every HTTP/2 client says at once: keep-alive begins only then.
    greeting: Option<Greeting>,
    _permit: OwnedSemaphorePermit,
}

struct Greeting {
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Greeting {
    fn expected() -> Self {
        Self { bytes_left: PREFACE_BYTES, deadline: Box::pin(tokio::time::sleep(GREETING_DEADLINE)) }
    }
}

/// How many connections there may be: a bound of ours, and half of the files that the process may open.
fn connections_max() -> usize {
    #[cfg(unix)]
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let files = None::<u64>;
    files.map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min((files / 2).max(1) as usize))
}

/// Connections of `listener` as they come, never more than a bounded number at once.
pub(super) fn incoming(listener: TcpListener, force: Word) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(connections_max()));
    futures_util::stream::unfold((listener, places, force), |(listener, places, force)| async move {
        // The semaphore is never closed; were it, no more connections would come.
        let permit = places.clone().acquire_owned().await.ok()?;
        let connection = match listener.accept().await {
            Ok((stream, _)) => {
                let (force, greeting) = (force.listener(), Some(Greeting::expected()));
                let connection = Connection { stream, force, greeting, _permit: permit };
                connection.stream.set_nodelay(true).map(|()| connection)
            }
            Err(error) => {
                tokio::time::sleep(ACCEPT_RETRY).await;
                Err(error)
            }
        };
        Some((connection, (listener, places, force)))
    })
}

impl Connection {
    /// Between whom it is.
    pub(super) fn addresses(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }

    /// Also leaves word to be woken when the connection is to be closed.
    fn check_open(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.force.is_given(context) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server closes"));
        }
        Ok(())
    }

    /// Ends a connection whose peer has not greeted in time: it would hold its place for ever.
    fn check_greeting(&mut self, context: &mut Context<'_>, bytes_read: usize) -> io::Result<()> {
        let Some(greeting) = &mut self.greeting else { return Ok(()) };
        greeting.bytes_left = greeting.bytes_left.saturating_sub(bytes_read);
        if greeting.bytes_left == 0 {
            self.greeting = None;
            return Ok(());
        }
        match greeting.deadline.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not speak HTTP/2 in time")),
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
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.check_greeting(context, buffer.filled().len() - filled)?;
        read
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
