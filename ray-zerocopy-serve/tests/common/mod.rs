//! Shared code of the tests: models, a service, and requests without a network.

#![allow(dead_code, reason = "no test uses all of it")]

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use burn::module::Param;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use http_body_util::BodyExt;
use ray_zerocopy::jit::TracedGraph;
use ray_zerocopy::{LocalPool, Pipeline, jit};
use ray_zerocopy_serve::{Limits, ModelRepository, Service};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower::ServiceExt;

/// Width of the model.
pub const WIDTH: usize = 4;

/// A linear layer, applied several times.
#[derive(Pipeline)]
pub struct Model {
    #[pipeline(config)]
    config: Config,
    head: Linear,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Config {
    width: usize,
    repeats: usize,
}

impl Config {
    fn init(&self, device: &Device) -> Model {
        let head = LinearConfig::new(self.width, self.width).with_bias(false).init(device);
        Model { config: self.clone(), head }
    }
}

impl Model {
    /// A model of `width` whose weights are all `weight`.
    fn of(width: usize, repeats: usize, weight: f32, device: &Device) -> Self {
        let mut model = Config { width, repeats }.init(device);
        model.head.weight = Param::from_tensor(Tensor::ones([width, width], device) * weight);
        model
    }

    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for _ in 0..self.config.repeats {
            x = self.head.forward(x);
        }
        x
    }
}

/// A graph with the input `x` and the output `y`, both `[batch, width]`. Each output is `weight` times the sum of the row.
pub fn graph(width: usize, repeats: usize, weight: f32) -> TracedGraph {
    let device = Device::flex();
    jit::trace(&Model::of(width, repeats, weight, &device))
        .input("x", Tensor::<2>::ones([2, width], &device))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok([("y", model.forward(inputs.float("x")?))]))
        .unwrap()
}

/// Rows that are chosen by their numbers.
#[derive(Pipeline)]
struct Table {
    #[pipeline(config)]
    config: TableConfig,
    rows: Embedding,
}

#[derive(Clone, Serialize, Deserialize)]
struct TableConfig {
    rows: usize,
}

impl TableConfig {
    fn init(&self, device: &Device) -> Table {
        Table { config: self.clone(), rows: EmbeddingConfig::new(self.rows, WIDTH).init(device) }
    }
}

/// A graph with the input `ids` and the output `y`, whose table has so many rows.
pub fn table(rows: usize) -> TracedGraph {
    let device = Device::flex();
    jit::trace(&TableConfig { rows }.init(&device))
        .input("ids", Tensor::<2, Int>::zeros([2, 1], &device))
        .symbol("batch", [("ids", 0)])
        .forward(|table, inputs| Ok([("y", table.rows.forward(inputs.int("ids")?))]))
        .unwrap()
}

/// Writes the graph whose outputs are `weight` times the sum of the row. The file is replaced at once.
pub fn write(path: &Path, weight: f32) {
    let temporary = path.with_extension("new");
    graph(WIDTH, 1, weight).save(&temporary).unwrap();
    std::fs::rename(temporary, path).unwrap();
}

/// A graph that takes long for many rows.
pub fn slow() -> jit::Model {
    jit::Model::Graph(graph(1024, 64, 0.0))
}

/// Two workers, for all tests of a program.
pub fn pool() -> LocalPool {
    static POOL: LazyLock<LocalPool> =
        LazyLock::new(|| LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap());
    POOL.clone()
}

/// A service with the models `sum`, with weights of 1, and `slow`.
pub fn service(limits: Limits) -> Service {
    let models = ModelRepository::builder().pool(pool()).cancel_grace(Duration::from_millis(200)).start().unwrap();
    models.add("sum", jit::Model::Graph(graph(WIDTH, 1, 1.0))).unwrap();
    models.add("slow", slow()).unwrap();
    Service::builder(models).limits(limits).build()
}

/// A response of a router.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub body: bytes::Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the status of an error, and returns its text.
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// Asserts success.
    pub fn well(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self
    }
}

/// Sends a request to the routes of a service, without a network.
pub async fn send(service: &Service, request: Request<Body>) -> Reply {
    let response = service.router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Reply { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

pub async fn get(service: &Service, path: &str) -> Reply {
    send(service, Request::get(path).body(Body::empty()).unwrap()).await
}

pub async fn post(service: &Service, path: &str, body: impl Into<Body>) -> Reply {
    let request = Request::builder().method(Method::POST).uri(path).header(header::CONTENT_TYPE, "application/json");
    send(service, request.body(body.into()).unwrap()).await
}

/// A request with `rows` rows of ones for a model of a width.
pub fn ones(rows: usize, width: usize) -> Value {
    let data = vec![1; rows * width];
    json!({ "inputs": [{ "name": "x", "shape": [rows, width], "datatype": "FP32", "data": data }] })
}

/// Waits until a condition holds.
pub async fn eventually(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the condition does not become true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
