//! Calls as other clients put them on the wire: Predict answers the same however a request is cut into frames, though the server reads
//! the usual ones in ways of their own.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::Activation;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::*;

const PREDICT: &str = "/epochd.v1.ModelService/Predict";

/// A connection without a gRPC client in between.
struct Wire {
    address: SocketAddr,
    client: SendRequest<Bytes>,
    _connection: JoinSet<()>,
}

/// What came back: the status with its message, and the answer without gRPC's five bytes.
type Answer = (String, String, Vec<u8>);

impl Wire {
    async fn open(address: SocketAddr) -> Self {
        Self::with_window(address, 1 << 24).await
    }

    /// One that lets the server send so many bytes of an answer at a time.
    async fn with_window(address: SocketAddr, bytes: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let built = builder.initial_window_size(bytes).initial_connection_window_size(1 << 24).handshake(stream).await;
        let (client, connection) = built.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { drop(connection.await) });
        Self { address, client, _connection: tasks }
    }

    async fn begin(&self, path: &str, headers: &[(&'static str, &'static str)]) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://{}{path}", self.address)).header("te", "trailers");
        for (name, value) in [("content-type", "application/grpc")].iter().chain(headers) {
            request = request.header(*name, *value);
        }
        let mut client = self.client.clone().ready().await.unwrap();
        client.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// Sends pieces, each in a frame of its own, and reads the answer.
    async fn call(&self, path: &str, headers: &[(&'static str, &'static str)], pieces: &[&[u8]], end: End) -> Answer {
        let (answer, mut stream) = self.begin(path, headers).await;
        for (index, piece) in pieces.iter().enumerate() {
            let is_end = end == End::WithTheLastPiece && index + 1 == pieces.len();
            stream.send_data(Bytes::copy_from_slice(piece), is_end).unwrap();
            // So that it may come by itself.
            tokio::task::yield_now().await;
        }
        match end {
            End::Never | End::WithTheLastPiece => {}
            End::InAnEmptyFrame => stream.send_data(Bytes::new(), true).unwrap(),
            End::InTrailers => {
                stream
                    .send_trailers(HeaderMap::from_iter([("x".parse().unwrap(), HeaderValue::from_static("y"))]))
                    .unwrap();
            }
        }
        let answer = answer.await.unwrap();
        assert!(answer.headers().contains_key("epochd-call-id"), "{answer:?}");
        let head = answer.headers().clone();
        let mut body = answer.into_body();
        let mut bytes = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            bytes.put(data);
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_default();
        let told = |name| {
            let value = trailers.get(name).or_else(|| head.get(name));
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        (told("grpc-status"), told("grpc-message"), bytes.get(5..).unwrap_or_default().to_vec())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    WithTheLastPiece,
    InAnEmptyFrame,
    InTrailers,
    Never,
}

const ENDS: [End; 3] = [End::WithTheLastPiece, End::InAnEmptyFrame, End::InTrailers];

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.put_u32(message.len() as u32);
    bytes.extend_from_slice(message);
    bytes
}

fn rows(count: usize, columns: usize) -> pb::Matrix {
    let packed = (0..count * columns).flat_map(|index| ((index % 97) as f32 / 97.0).to_le_bytes()).collect();
    pb::Matrix { packed, packed_type: pb::ElementType::Float32.into(), ..Default::default() }
}

/// The same request with its numbers in `values`: read in the usual way.
fn as_values(request: &pb::PredictRequest) -> pb::PredictRequest {
    let matrix = request.inputs.clone().unwrap();
    let values = matrix.packed.chunks(4).map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())));
    let values = values.collect();
    let matrix = pb::Matrix { values, packed: Bytes::new(), packed_type: 0, ..matrix };
    pb::PredictRequest { inputs: Some(matrix), ..request.clone() }
}

fn outputs(answer: &Answer) -> Vec<f32> {
    assert_eq!(answer.0, "0", "{}", answer.1);
    let matrix = pb::PredictResponse::decode(&*answer.2).unwrap().outputs.unwrap();
    let packed = matrix.packed.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    matrix.values.iter().map(|&value| value as f32).chain(packed).collect()
}

async fn served(columns: i32) -> (Server, Wire) {
    let server = Server::start();
    let api = server.api().await;
    api.create(model("m", columns, &[(8, Activation::Tanh), (3, Activation::Softmax)])).await;
    let wire = Wire::open(server.address).await;
    (server, wire)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_prediction_is_the_same_however_its_request_is_cut() {
    let (_server, wire) = served(4).await;
    let message = framed(&predict("m", rows(2, 4)).encode_to_vec());
    let whole = wire.call(PREDICT, &[], &[&message], End::WithTheLastPiece).await;
    assert_eq!(outputs(&whole).len(), 6);
    for end in ENDS {
        for cut in [0, 1, 4, 5, 6, message.len() - 1, message.len()] {
            let (head, tail) = message.split_at(cut);
            assert_eq!(wire.call(PREDICT, &[], &[head, tail], end).await, whole, "{cut} {end:?}");
        }
        let bytes: Vec<&[u8]> = message.chunks(1).collect();
        assert_eq!(wire.call(PREDICT, &[], &bytes, end).await, whole, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_prediction_is_the_same_however_its_request_is_cut() {
    let (_server, wire) = served(50).await;
    let request = pb::PredictRequest { version: Some(1), ..predict("m", rows(2_000, 50)) };
    let message = framed(&request.encode_to_vec());
    let usual = outputs(&wire.call(PREDICT, &[], &[&framed(&as_values(&request).encode_to_vec())], ENDS[0]).await);
    assert_eq!(usual.len(), 6_000);
    for end in ENDS {
        for cut in [3, 6, 40, 20_000, message.len() - 3] {
            let (head, tail) = message.split_at(cut);
            let answer = wire.call(PREDICT, &[], &[head, tail], end).await;
            assert!(outputs(&answer) == usual, "{cut} {end:?}");
        }
        let pieces: Vec<&[u8]> = message.chunks(1_000).collect();
        assert!(outputs(&wire.call(PREDICT, &[], &pieces, end).await) == usual, "{end:?}");
    }
}

/// Protobuf lets fields come in any order and more than once.
#[tokio::test(flavor = "multi_thread")]
async fn fields_in_another_order_mean_the_same() {
    let (_server, wire) = served(50).await;
    let rows = rows(2_000, 50);
    let usual = wire.call(PREDICT, &[], &[&framed(&predict("m", rows.clone()).encode_to_vec())], ENDS[0]).await;
    assert_eq!(outputs(&usual).len(), 6_000);
    let inputs = pb::PredictRequest { inputs: Some(rows.clone()), ..Default::default() }.encode_to_vec();
    let name = pb::PredictRequest { model_id: "m".into(), ..Default::default() }.encode_to_vec();
    let other = pb::PredictRequest { model_id: "other".into(), ..Default::default() }.encode_to_vec();
    let more = pb::PredictRequest {
        inputs: Some(pb::Matrix { rows: Some(2_000), ..Default::default() }),
        ..Default::default()
    };
    let more = more.encode_to_vec();
    for fields in [&[&inputs, &name][..], &[&other, &inputs, &name], &[&name, &more, &inputs]] {
        let message: Vec<u8> = fields.iter().flat_map(|field| field.iter().copied()).collect();
        assert!(wire.call(PREDICT, &[], &[&framed(&message)], ENDS[0]).await == usual);
    }
    // The matrix told twice has the rows of the latter: half of them, here.
    let half = pb::PredictRequest { inputs: Some(self::rows(1_000, 50)), ..Default::default() }.encode_to_vec();
    let answer = wire.call(PREDICT, &[], &[&framed(&[&name[..], &inputs, &half].concat())], ENDS[0]).await;
    assert!(outputs(&answer) == outputs(&usual)[..3_000]);
    // Rows that are told again and are none leave none.
    let none = [0x12, 2, 0x22, 0];
    let answer = wire.call(PREDICT, &[], &[&framed(&[&name[..], &inputs, &none].concat())], ENDS[0]).await;
    assert!(answer.0 == "3" && answer.1.starts_with("inputs:"), "{} {}", answer.0, answer.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_are_refused_in_the_usual_words() {
    let (_server, wire) = served(50).await;
    let good = || rows(2_000, 50);
    let not_finite = {
        let mut values: Vec<u8> = good().packed.into();
        values[80_000..80_004].copy_from_slice(&f32::NAN.to_le_bytes());
        pb::Matrix { packed: values.into(), ..good() }
    };
    let cases = [
        predict("m", not_finite),
        predict("m", rows(1_999, 51)),
        predict("m", pb::Matrix { rows: Some(7), ..good() }),
        predict("m", pb::Matrix { columns: Some(7), ..good() }),
        predict("none", good()),
        predict("No Name", good()),
        pb::PredictRequest { version: Some(9), ..predict("m", good()) },
        pb::PredictRequest { live: true, ..predict("m", good()) },
        pb::PredictRequest { layers: vec![7], ..predict("m", good()) },
    ];
    for request in cases {
        let large = wire.call(PREDICT, &[], &[&framed(&request.encode_to_vec())], ENDS[0]).await;
        let usual = wire.call(PREDICT, &[], &[&framed(&as_values(&request).encode_to_vec())], ENDS[0]).await;
        assert!(usual.0 != "0" && large.0 == usual.0, "{large:?} {usual:?}");
        // Numbers are told in the digits of their type.
        assert_eq!(large.1, usual.1);
    }
    let both = predict("m", pb::Matrix { values: vec![1.0], ..good() });
    let broken = {
        let packed = good().packed.slice(..399_998);
        predict("m", pb::Matrix { packed, ..good() })
    };
    let unknown_type = predict("m", pb::Matrix { packed_type: 77, ..good() });
    for (request, word) in [(both, "both"), (broken, "whole%20number"), (unknown_type, "77")] {
        let answer = wire.call(PREDICT, &[], &[&framed(&request.encode_to_vec())], ENDS[0]).await;
        assert!(answer.0 == "3" && answer.1.contains(word), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_told_so() {
    let server = Server::with(RawConfig { ephemeral: true, message_bytes_max: 300_000, ..Server::raw() });
    server.api().await.create(xor_model("m", 4)).await;
    let wire = Wire::open(server.address).await;
    let small = framed(&predict("m", rows(1, 2)).encode_to_vec());
    let large = framed(&predict("m", rows(30_000, 2)).encode_to_vec());
    let too_large = framed(&predict("m", rows(40_000, 2)).encode_to_vec());
    // Cut short, without a message, compressed with nobody knows what, too large, not a message.
    for (message, code) in [
        (&small[..small.len() - 1], "13"),
        (&large[..large.len() - 1], "13"),
        (&large[..100], "13"),
        (&[][..], "13"),
        (&[&[1], &small[1..]].concat()[..], "13"),
        (&too_large[..], "8"),
        (&[0, 0, 0, 0, 1, 7][..], "3"),
    ] {
        let answer = wire.call(PREDICT, &[], &[message], End::WithTheLastPiece).await;
        assert_eq!(answer.0, code, "{}", answer.1);
    }
    let answer = wire.call(PREDICT, &[("grpc-encoding", "gzip")], &[&small], End::WithTheLastPiece).await;
    assert_eq!(answer.0, "12", "{}", answer.1);
    let answer = wire.call("/epochd.v1.ModelService/NoMethod", &[], &[&small], End::WithTheLastPiece).await;
    assert_eq!(answer.0, "12", "{}", answer.1);
}

/// As many calls as a connection may have, small and large ones among each other.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_connection_do_not_get_into_each_others_way() {
    let (_server, wire) = served(50).await;
    let wire = std::sync::Arc::new(wire);
    let [one, many] = [1, 500].map(|count| framed(&predict("m", rows(count, 50)).encode_to_vec()));
    let mut calls = JoinSet::new();
    for index in 0..200 {
        let (wire, message) = (wire.clone(), if index % 4 == 0 { many.clone() } else { one.clone() });
        calls.spawn(async move { outputs(&wire.call(PREDICT, &[], &[&message], End::WithTheLastPiece).await) });
    }
    let answers = calls.join_all().await;
    let many = answers.iter().find(|answer| answer.len() == 1_500).unwrap();
    assert!(answers.iter().all(|answer| many.starts_with(answer)));
    assert_eq!(answers.iter().filter(|answer| answer.len() == 3).count(), 150);
}

/// A request that never ends is given up when its caller said so, on its own method and on any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_callers_deadline() {
    let (_server, wire) = served(4).await;
    let message = framed(&predict("m", rows(1, 4)).encode_to_vec());
    for path in [PREDICT, "/epochd.v1.ModelService/GetModel"] {
        for pieces in [&[][..], &[&message[..9]][..], &[&message[..]][..]] {
            let call = wire.call(path, &[("grpc-timeout", "30m")], pieces, End::Never);
            let answer = tokio::time::timeout(Duration::from_secs(30), call).await.unwrap();
            assert_eq!((answer.0.as_str(), answer.1.as_str()), ("4", "the%20call's%20deadline%20passed"));
        }
    }
}

/// An answer that its client does not take at once is sent as it is taken.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_however_little_of_it_is_taken_at_a_time() {
    let (server, wire) = served(50).await;
    let narrow = Wire::with_window(server.address, 7).await;
    for count in [1, 40, 500] {
        let message = framed(&predict("m", rows(count, 50)).encode_to_vec());
        let usual = wire.call(PREDICT, &[], &[&message], End::WithTheLastPiece).await;
        assert_eq!(outputs(&usual).len(), 3 * count);
        assert_eq!(narrow.call(PREDICT, &[], &[&message], End::WithTheLastPiece).await, usual);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_float64_rows_are_read_in_the_usual_way() {
    let (_server, wire) = served(50).await;
    let rows = rows(2_000, 50);
    let usual = wire.call(PREDICT, &[], &[&framed(&predict("m", rows.clone()).encode_to_vec())], ENDS[0]).await;
    let wide =
        rows.packed.chunks(4).flat_map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())).to_le_bytes());
    let wide =
        pb::Matrix { packed: wide.collect(), packed_type: pb::ElementType::Float64.into(), ..Default::default() };
    let message = framed(&predict("m", wide).encode_to_vec());
    for pieces in [vec![&message[..]], message.chunks(10_000).collect()] {
        assert!(outputs(&wire.call(PREDICT, &[], &pieces, ENDS[0]).await) == outputs(&usual));
    }
}

/// Calls that are reset, at once or with half of their rows sent, leave buffers and other connections as they were. Their own may be closed,
/// as one that asks for nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_given_up_do_no_harm() {
    let (server, wire) = served(50).await;
    let [small, large] = [1, 2_000].map(|count| framed(&predict("m", rows(count, 50)).encode_to_vec()));
    let usual = wire.call(PREDICT, &[], &[&large], ENDS[0]).await;
    assert_eq!(outputs(&usual).len(), 6_000);
    for round in 0..30 {
        let bad = Wire::open(server.address).await;
        let mut given_up = Vec::new();
        for index in 0..200 {
            let (answer, mut stream) = bad.begin(PREDICT, &[]).await;
            let is_large = index % 50 == 0;
            let data = if is_large { &large[..large.len() / 2] } else { &small[..] };
            if stream.send_data(Bytes::copy_from_slice(data), !is_large).is_err() {
                break;
            }
            given_up.push((answer, stream));
        }
        tokio::task::yield_now().await;
        given_up.iter_mut().for_each(|(_, stream)| stream.send_reset(Reason::CANCEL));
        drop(given_up);
        if round % 10 == 9 {
            assert!(wire.call(PREDICT, &[], &[&large], ENDS[0]).await == usual, "{round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_tunnel() {
    let (_server, wire) = served(4).await;
    let request = Request::builder().method(Method::CONNECT).uri("example.org:443").body(()).unwrap();
    let mut client = wire.client.clone().ready().await.unwrap();
    let (answer, _stream) = client.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
}
