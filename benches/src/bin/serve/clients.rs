//! Clients: the wrapper itself, HTTP with JSON or binary tensors, and gRPC.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{Device, TensorData};
use bytes::Bytes;
use ray_zerocopy::jit::{JitTaskWrapper, Value, Values};
use ray_zerocopy_serve::__private::protocol::model_infer_request::InferInputTensor;
use ray_zerocopy_serve::__private::protocol::{
    ModelInferRequest, ModelInferResponse, ServerLiveRequest, ServerLiveResponse,
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Case;
use crate::grpc::{Connection, encoded};

/// The factor of each column.
pub(crate) const FACTOR: f32 = 3.0;

/// How calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    /// The same, with a request without a call before each: the worker sleeps between calls, as it does over HTTP.
    DirectPaced,
    HttpJson,
    HttpBinary,
    /// A request that the server answers without a call: what HTTP itself takes.
    HttpAlone,
    Grpc,
    /// The same over gRPC.
    GrpcAlone,
}

impl Way {
    pub(crate) const ALL: [Self; 7] = [
        Self::Direct,
        Self::DirectPaced,
        Self::HttpJson,
        Self::HttpBinary,
        Self::HttpAlone,
        Self::Grpc,
        Self::GrpcAlone,
    ];
    pub(crate) const CALLS: [Self; 4] = [Self::Direct, Self::HttpJson, Self::HttpBinary, Self::Grpc];
    /// Those for large tensors, which as text would only measure the parser of JSON.
    pub(crate) const BINARY: [Self; 3] = [Self::Direct, Self::HttpBinary, Self::Grpc];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "wrapper",
            Self::DirectPaced => "wrapper, paced",
            Self::HttpJson => "HTTP, JSON",
            Self::HttpBinary => "HTTP, binary",
            Self::HttpAlone => "HTTP, no call",
            Self::Grpc => "gRPC",
            Self::GrpcAlone => "gRPC, no call",
        }
    }
}

/// A client with a connection of its own.
pub(crate) enum Client {
    /// With a client that makes a request without a call before each call, if it is paced.
    Direct {
        wrapper: JitTaskWrapper,
        inputs: Values,
        expected: Vec<u8>,
        pause: Option<Box<Client>>,
    },
    Http {
        stream: BufReader<TcpStream>,
        request: Vec<u8>,
        expected: Vec<u8>,
        body: Vec<u8>,
    },
    Grpc {
        connection: Connection,
        request: Bytes,
        expected: Vec<u8>,
    },
    GrpcAlone {
        connection: Connection,
        request: Bytes,
    },
}

/// Connects the clients of a case.
pub(crate) async fn connect(
    way: Way,
    case: &Case,
    http: SocketAddr,
    grpc: SocketAddr,
    wrapper: &JitTaskWrapper,
) -> Result<Vec<Client>> {
    let [rows, width] = case.shape;
    let numbers: Vec<f32> = (0..rows * width).map(|at| (at % 100) as f32).collect();
    let bytes = |factor: f32| numbers.iter().flat_map(|number| (number * factor).to_le_bytes()).collect::<Vec<u8>>();
    let mut clients = Vec::new();
    for _ in 0..case.clients {
        clients.push(match way {
            Way::Direct | Way::DirectPaced => {
                let data = TensorData::new(numbers.clone(), case.shape);
                let value = Value::from_data(data, &Device::flex()).map_err(anyhow::Error::msg)?;
                let inputs = Values::new().with("x", value);
                let pause = if way == Way::DirectPaced { Some(Box::new(Client::without_call(http).await?)) } else { None };
                Client::Direct { wrapper: wrapper.clone(), inputs, expected: bytes(FACTOR), pause }
            }
            Way::HttpJson | Way::HttpBinary => {
                let is_binary = way == Way::HttpBinary;
                let mut input = json!({ "name": "x", "shape": case.shape, "datatype": "FP32" });
                let mut data = Vec::new();
                if is_binary {
                    data = bytes(1.0);
                    input["parameters"] = json!({ "binary_data_size": data.len() });
                } else {
                    input["data"] = json!(numbers);
                }
                let parameters = json!({ "binary_data_output": is_binary });
                let header = json!({ "inputs": [input], "parameters": parameters }).to_string();
                let head = format!(
                    "POST /v2/models/{}/infer HTTP/1.1\r\nHost: bench\r\nInference-Header-Content-Length: {}\r\nContent-Length: \
                     {}\r\n\r\n",
                    case.model,
                    header.len(),
                    header.len() + data.len()
                );
                let request = [head.as_bytes(), header.as_bytes(), &data].concat();
                let expected = if is_binary {
                    bytes(FACTOR)
                } else {
                    let numbers: Vec<_> = numbers.iter().map(|number| number * FACTOR).collect();
                    format!("\"data\":{}", json!(numbers)).into_bytes()
                };
                Client::Http { stream: stream(http).await?, request, expected, body: Vec::new() }
            }
            Way::HttpAlone => Client::without_call(http).await?,
            Way::GrpcAlone => {
                let request = encoded(&ServerLiveRequest {});
                Client::GrpcAlone { connection: Connection::open(grpc).await?, request }
            }
            Way::Grpc => {
                let connection = Connection::open(grpc).await?;
                let request = ModelInferRequest {
                    model_name: case.model.to_owned(),
                    inputs: vec![InferInputTensor {
                        name: "x".to_owned(),
                        datatype: "FP32".to_owned(),
                        shape: case.shape.iter().map(|&extent| extent as i64).collect(),
                        ..InferInputTensor::default()
                    }],
                    raw_input_contents: vec![bytes(1.0).into()],
                    ..ModelInferRequest::default()
                };
                Client::Grpc { connection, request: encoded(&request), expected: bytes(FACTOR) }
            }
        });
    }
    Ok(clients)
}

async fn stream(http: SocketAddr) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(http).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::with_capacity(1 << 16, stream))
}

impl Client {
    async fn without_call(http: SocketAddr) -> Result<Self> {
        let request = b"GET /v2/health/live HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec();
        Ok(Self::Http { stream: stream(http).await?, request, expected: Vec::new(), body: Vec::new() })
    }

    /// What comes before a call, and is not measured.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        match self {
            Self::Direct { pause: Some(client), .. } => Box::pin(client.call()).await,
            _ => Ok(()),
        }
    }

    /// Calls, and compares the result with what is expected.
    pub(crate) async fn call(&mut self) -> Result<()> {
        match self {
            Self::Direct { wrapper, inputs, expected, .. } => {
                let outputs = wrapper.run(inputs.clone()).await?;
                ensure!(outputs.data("y")?.as_bytes() == &expected[..], "the wrapper returned other bytes");
            }
            Self::Http { stream, request, expected, body } => {
                stream.get_mut().write_all(request).await?;
                receive(stream, body).await?;
                ensure!(
                    ends_with(body, expected),
                    "the server returned {}",
                    String::from_utf8_lossy(&body[..body.len().min(300)])
                );
            }
            Self::Grpc { connection, request, expected } => {
                let response: ModelInferResponse = connection.call("ModelInfer", request.clone()).await?;
                let found = response.raw_output_contents.first().context("the response has no tensor")?;
                ensure!(found == &expected[..], "the server returned other bytes");
            }
            Self::GrpcAlone { connection, request } => {
                let response: ServerLiveResponse = connection.call("ServerLive", request.clone()).await?;
                ensure!(response.live, "the server does not live");
            }
        }
        Ok(())
    }
}

/// Receives the body of a response.
pub(crate) async fn receive(stream: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Result<()> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "the server closed the connection");
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse()?,
            Some((name, _)) if name.eq_ignore_ascii_case("transfer-encoding") => bail!("the response has no length"),
            _ if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    body.resize(length, 0);
    stream.read_exact(body).await?;
    Ok(())
}

/// Binary tensors are at the end of a body, and JSON is before the brackets that end it.
fn ends_with(body: &[u8], expected: &[u8]) -> bool {
    body.ends_with(expected) || body.strip_suffix(b"}]}").is_some_and(|body| body.ends_with(expected))
}
