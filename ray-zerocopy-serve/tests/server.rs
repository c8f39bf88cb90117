//! A server that listens: methods of pipelines, clients that go away, and TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use common::{WIDTH, eventually, get, ones, pool, post, service};
use ray_zerocopy::{Pipeline, TaskWrapper, cancelled};
use ray_zerocopy_serve::{Limits, Methods, ModelRepository, Running, Server, Service, Tls};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Pipeline)]
#[pipeline(init = Texts::new)]
struct Texts {
    head: Linear,
}

#[ray_zerocopy::remote]
impl Texts {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(2, 2).init(device) }
    }

    pub fn shout(&self, text: String, times: usize) -> String {
        (text.to_uppercase() + "!").repeat(times)
    }

    pub fn width(&self) -> usize {
        self.head.weight.dims()[1]
    }

    pub fn number(&self, text: String) -> Result<i64, String> {
        text.parse().map_err(|_| format!("`{text}` is not a number"))
    }

    pub fn fail(&self) {
        panic!("on purpose");
    }

    /// Writes the file when it is cancelled.
    pub fn wait(&self, file: PathBuf) {
        std::fs::write(file.with_extension("begun"), "").unwrap();
        while !cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::write(file, "cancelled").unwrap();
    }

    #[remote(stream)]
    pub fn words(&self, text: String) -> impl Iterator<Item = String> {
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
    }

    /// Counts, and writes the file when the iterator is dropped.
    #[remote(stream)]
    pub fn count(&self, file: PathBuf) -> impl Iterator<Item = usize> {
        struct Counter(usize, PathBuf);

        impl Iterator for Counter {
            type Item = usize;

            fn next(&mut self) -> Option<usize> {
                self.0 += 1;
                std::thread::sleep(Duration::from_millis(1));
                Some(self.0)
            }
        }

        impl Drop for Counter {
            fn drop(&mut self) {
                std::fs::write(&self.1, "dropped").unwrap();
            }
        }

        Counter(0, file)
    }
}

#[derive(Deserialize)]
struct Shout {
    text: String,
    times: usize,
}

/// A service with the pipeline `texts`.
fn texts() -> Service {
    let tasks = TaskWrapper::on(&pool(), &Texts::new(&Device::flex())).unwrap();
    let of = || tasks.clone();
    let [one, two, three, four, five, six, seven] = std::array::from_fn(|_| of());
    let methods = Methods::of("texts")
        .method("shout", move |Shout { text, times }| one.shout(text, times))
        .method("width", move |()| two.width())
        .try_method("number", move |(text,)| three.number(text))
        .method("fail", move |()| four.fail())
        .method("wait", move |(file,)| five.wait(file))
        .stream("words", move |(text,)| six.words(text))
        .stream("count", move |(file,)| seven.count(file));
    Service::builder(ModelRepository::builder().pool(pool()).start().unwrap()).methods(methods).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_take_and_return_json() {
    let service = texts();
    let call = async |method: &str, body: &str| {
        post(&service, &format!("/v1/pipelines/texts/{method}"), body.to_owned()).await
    };
    assert_eq!(call("shout", r#"{"text": "hey", "times": 2}"#).await.well().json(), "HEY!HEY!");
    assert_eq!(call("width", "").await.well().json(), 2);
    assert_eq!(call("number", r#"["17"]"#).await.well().json(), 17);
    assert_eq!(call("number", r#"["x"]"#).await.error(422), "`x` is not a number");
    assert!(call("fail", "").await.error(500).contains("`fail` panicked in worker"));
    let wrong = call("shout", r#"{"text": 5}"#).await.error(400);
    assert!(wrong.starts_with("the arguments of `shout` are not valid: invalid type: integer `5`"), "{wrong}");
    let known = "there is no method `none`; there is `count`, `fail`, `number`, `shout`, `wait`, `width`, `words`";
    assert_eq!(call("none", "").await.error(404), known);
    assert!(post(&service, "/v1/pipelines/none/x", "").await.error(404).contains("there is `texts`"));
    assert_eq!(get(&service, "/v1/pipelines").await.well().json()["pipelines"][0]["name"], "texts");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_events() {
    let service = texts();
    let reply = post(&service, "/v1/pipelines/texts/words", r#"["one two"]"#).await.well();
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    assert_eq!(reply.body, "data: \"one\"\n\ndata: \"two\"\n\nevent: end\ndata: null\n\n");
    assert_eq!(service.in_flight(), 0);
}

fn start(service: Service) -> (Running, SocketAddr) {
    let running = Server::new(service).http("127.0.0.1:0").start().unwrap();
    let address = running.http_address().unwrap();
    (running, address)
}

/// Sends a request, and returns the connection.
fn send(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_goes_away_cancels_its_call() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ended");
    let service = texts();
    let (running, address) = start(service.clone());
    let stream = send(address, "/v1/pipelines/texts/wait", &json!([file]));
    let begun = file.with_extension("begun");
    eventually(|| begun.exists()).await;
    assert_eq!(service.in_flight(), 1);
    drop(stream);
    eventually(|| file.exists()).await;
    eventually(|| service.in_flight() == 0).await;

    // A stream, in the middle of it.
    let file = folder.path().join("dropped");
    let mut stream = send(address, "/v1/pipelines/texts/count", &json!([file]));
    let mut text = vec![0; 4096];
    stream.read_exact(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("data: 1\n\n") && text.contains("data: 2\n\n"), "{text}");
    drop(stream);
    eventually(|| file.exists()).await;
    eventually(|| service.in_flight() == 0).await;
    assert_eq!(running.shut_down().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_cancels_what_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ended");
    let server = Server::new(texts()).http("127.0.0.1:0").drain(Duration::ZERO, Duration::from_millis(100));
    let running = server.start().unwrap();
    let _stream = send(running.http_address().unwrap(), "/v1/pipelines/texts/wait", &json!([file]));
    let begun = file.with_extension("begun");
    eventually(|| begun.exists()).await;
    assert_eq!(running.shut_down().await, 1);
    eventually(|| file.exists()).await;
}

fn curl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("curl").args(["-sS", "--max-time", "60"]).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_certificates_of_clients_are_required() {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name).display().to_string();
    let tls = Tls::new(file("server.pem"), file("server.key"));
    let service = service(Limits::default());
    let (authority, body) = (file("server-ca.pem"), ones(1, WIDTH).to_string());
    let open = Server::new(service.clone()).http("127.0.0.1:0").tls(tls.clone()).start().unwrap();
    let url = |running: &Running| format!("https://{}/v2/models/sum/infer", running.http_address().unwrap());
    let (is_done, text) = curl(&["--cacert", &authority, "-d", &body, &url(&open)]);
    assert!(is_done && text.contains("\"data\":[4.0,4.0,4.0,4.0]"), "{text}");
    assert!(!curl(&["-d", &body, &url(&open)]).0, "the authority is not known to the system");
    assert!(!curl(&["-d", &body, &url(&open).replace("https", "http")]).0, "there is no plain HTTP");
    open.reload_certificates().unwrap();
    assert!(curl(&["--cacert", &authority, &url(&open)]).0);

    let mutual = Server::new(service).http("127.0.0.1:0").tls(tls.client_ca(file("client-ca.pem"))).start().unwrap();
    let (is_done, text) = curl(&["--cacert", &authority, "-d", &body, &url(&mutual)]);
    assert!(!is_done, "{text}");
    let own = ["--cacert", &authority, "--cert", &file("client.pem"), "--key", &file("client.key")];
    let (is_done, text) = curl(&[&own[..], &["-d", &body, &url(&mutual)]].concat());
    assert!(is_done && text.contains("\"model_name\":\"sum\""), "{text}");
    let other = ["--cacert", &authority, "--cert", &file("server.pem"), "--key", &file("server.key")];
    assert!(!curl(&[&other[..], &["-d", &body, &url(&mutual)]].concat()).0, "it is of another authority");
}
