//! The least that a unary call costs: a tonic server that sends back the beginning of the one field of what it was sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// The path of its only method.
pub const PATH: &str = "/epochd.bench.Echo/Call";

/// What goes both ways.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    pub bytes: Bytes,
}

impl Payload {
    /// A message whose encoding has so many bytes, or the least that is more.
    pub fn of_length(length: usize) -> Self {
        let of = |count: usize| Self { bytes: vec![7; count].into() };
        let fits = |count: &usize| of(*count).encoded_len() >= length;
        (length.saturating_sub(6)..=length).find(fits).map_or_else(|| of(length), of)
    }
}

#[derive(Clone)]
struct Echo {
    answer_bytes: usize,
}

impl NamedService for Echo {
    const NAME: &'static str = "epochd.bench.Echo";
}

impl UnaryService<Payload> for Echo {
    type Response = Payload;
    type Future = std::future::Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let bytes = request.into_inner().bytes;
        std::future::ready(Ok(Response::new(Payload { bytes: bytes.slice(..self.answer_bytes.min(bytes.len())) })))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        let mut grpc = Grpc::new(ProstCodec::<Payload, Payload>::default());
        Box::pin(async move { Ok(grpc.unary(echo, request).await) })
    }
}

/// Serves for ever, and prints its address. The answer's message has so many bytes.
pub fn serve(answer_bytes: usize) -> anyhow::Result<()> {
    let answer_bytes = Payload::of_length(answer_bytes).bytes.len();
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(Server::builder().add_service(Echo { answer_bytes }).serve_with_incoming(connections).await?)
    })
}
