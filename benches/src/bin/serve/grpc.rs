//! A client of gRPC that sends each request with one write, as gRPC's C library does: a server is woken once.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use prost::Message;
use tokio::net::TcpStream;
use tonic::codegen::http::{HeaderMap, Request};

/// Bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// A connection.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut builder = Builder::new();
        builder.initial_window_size(4 << 20).initial_connection_window_size(16 << 20);
        let (requests, connection) = builder.handshake(stream).await?;
        // Its errors are those of the requests, too.
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// Calls a method of the protocol.
    pub(crate) async fn call<R: Message + Default>(&mut self, method: &str, message: Bytes) -> Result<R> {
        let request = Request::post(format!("http://bench/inference.GRPCInferenceService/{method}"));
        let request = request.header("content-type", "application/grpc").header("te", "trailers").body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(message, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut received = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part?;
            body.flow_control().release_capacity(part.len())?;
            received.extend_from_slice(&part);
        }
        // A response without a message has its status in the headers.
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        let text = |headers: &HeaderMap, name| {
            String::from_utf8_lossy(headers.get(name).map_or(b"", |text| text.as_bytes())).into_owned()
        };
        let status = text(&trailers, "grpc-status");
        ensure!(status == "0", "the server answers with status {status}: {}", text(&trailers, "grpc-message"));
        let message = received.freeze();
        Ok(R::decode(message.get(HEAD..).context("the response has no message")?)?)
    }
}

/// A message as it is sent.
pub(crate) fn encoded(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEAD + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}
