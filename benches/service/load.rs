//! One call, sent again and again on a number of connections with a number of streams each: a new one on each stream as soon as the
//! one before is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Bytes that a server may send before they are read: more than any answer here.
const WINDOW_BYTES: u32 = 16 << 20;

/// What is sent, and where.
#[derive(Clone)]
pub struct Load {
    address: SocketAddr,
    path: Arc<str>,
    /// The message with gRPC's five bytes before it.
    body: Bytes,
}

/// What came of it.
pub struct Measured {
    pub calls: usize,
    pub seconds: f64,
    /// Of each call in nanoseconds, sorted.
    pub times: Vec<u64>,
}

impl Load {
    /// Calls of a method with a message.
    pub fn new(address: SocketAddr, path: &str, message: Bytes) -> Self {
        let mut body = BytesMut::with_capacity(message.len() + 5);
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put(message);
        Self { address, path: path.into(), body: body.freeze() }
    }

    /// Sends for so long, after a fifth of that time which does not count, all from one thread.
    pub fn run(&self, connections: usize, streams: usize, time: Duration) -> anyhow::Result<Measured> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let (mut tasks, mut connected, mut clients) = (JoinSet::new(), JoinSet::new(), Vec::new());
            for _ in 0..connections {
                clients.push(self.connect(&mut connected).await?);
            }
            let begun = Instant::now() + time / 5;
            for client in clients {
                for _ in 0..streams {
                    tasks.spawn(self.clone().repeat(client.clone(), begun, begun + time));
                }
            }
            let mut times = Vec::new();
            while let Some(done) = tasks.join_next().await {
                times.extend(done??);
            }
            ensure!(!times.is_empty(), "no call was answered in time");
            times.sort_unstable();
            Ok(Measured { calls: times.len(), seconds: time.as_secs_f64(), times })
        })
    }

    /// A new connection, which lives as long as its task.
    async fn connect(&self, connected: &mut JoinSet<()>) -> anyhow::Result<SendRequest<Bytes>> {
        let stream = TcpStream::connect(self.address).await.with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (client, connection) = builder.handshake(stream).await?;
        // How it ends is seen by the calls on it.
        connected.spawn(async { drop(connection.await) });
        Ok(client)
    }

    /// Times of the calls that were answered between `begun` and `end`.
    async fn repeat(self, client: SendRequest<Bytes>, begun: Instant, end: Instant) -> anyhow::Result<Vec<u64>> {
        let mut times = Vec::new();
        let mut client = client.ready().await?;
        loop {
            let sent = Instant::now();
            client = self.call(client).await?;
            let now = Instant::now();
            if now >= end {
                return Ok(times);
            }
            if now >= begun {
                times.push((now - sent).as_nanos() as u64);
            }
        }
    }

    async fn call(&self, mut client: SendRequest<Bytes>) -> anyhow::Result<SendRequest<Bytes>> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{}", self.address, self.path))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut stream) = client.send_request(request, false)?;
        stream.send_data(self.body.clone(), true)?;
        let answer = answer.await?;
        let status = answer.headers().get("grpc-status").cloned();
        let mut body = answer.into_body();
        while let Some(bytes) = body.data().await {
            let count = bytes?.len();
            body.flow_control().release_capacity(count)?;
        }
        let status = body.trailers().await?.and_then(|it| it.get("grpc-status").cloned()).or(status);
        ensure!(status.as_ref().is_some_and(|it| it == "0"), "a call failed with status {status:?}");
        Ok(client.ready().await?)
    }
}

impl Measured {
    pub fn calls_per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }

    /// The time that so great a share of the calls did not take, in microseconds.
    pub fn micros(&self, share: f64) -> f64 {
        let place = (self.times.len() as f64 * share) as usize;
        self.times[place.min(self.times.len() - 1)] as f64 / 1e3
    }

    pub fn to_json(&self) -> Value {
        json!({
            "calls_per_second": self.calls_per_second(),
            "p50_micros": self.micros(0.5),
            "p99_micros": self.micros(0.99),
            "p999_micros": self.micros(0.999),
        })
    }
}
