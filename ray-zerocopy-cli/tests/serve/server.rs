//! A running `rzc serve`, its models, and a client of HTTP with one connection.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{TracedGraph, trace};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::common::{Folder, command, eventually};

/// A linear layer, applied several times.
#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: Config,
    head: Linear,
}

#[derive(Clone, Serialize, Deserialize)]
struct Config {
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
    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        for _ in 0..self.config.repeats {
            x = self.head.forward(x);
        }
        x
    }
}

/// A graph with the input `x` and the output `y`. Each output is `weight` times the sum of the row, if it repeats once.
pub fn graph(width: usize, repeats: usize, weight: f32) -> TracedGraph {
    let device = Device::flex();
    let mut model = Config { width, repeats }.init(&device);
    model.head.weight = Param::from_tensor(Tensor::ones([width, width], &device) * weight);
    trace(&model)
        .input("x", Tensor::<2>::ones([2, width], &device))
        .symbol("batch", [("x", 0)])
        .forward(|model, inputs| Ok([("y", model.forward(inputs.float("x")?))]))
        .unwrap()
}

/// Writes a graph whose outputs are `weight` times the sum of a row of 4. The file is replaced at once.
pub fn write(folder: &Folder, name: &str, weight: f32) {
    let (new, path) = (folder.at(&format!("{name}.new")), folder.at(name));
    graph(4, 1, weight).save(&new).unwrap();
    fs::rename(new, path).unwrap();
}

/// A request with rows of ones.
pub fn request(rows: usize) -> Value {
    json!({ "inputs": [{ "name": "x", "shape": [rows, 4], "datatype": "FP32", "data": vec![1; rows * 4] }] })
}

/// A server, which is killed when dropped.
pub struct Served {
    child: Child,
    pub http: String,
    pub grpc: String,
    errors: Arc<Mutex<String>>,
}

impl Served {
    /// Starts it in a folder, with free ports, and waits until it listens.
    pub fn start(folder: &Folder, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same, with environment variables.
    pub fn start_with(folder: &Folder, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let ports = ["--port", "0", "--grpc-port", "0"];
        let workers = if arguments.contains(&"--workers") { &[][..] } else { &["--workers", "2"] };
        let mut command = command(&[&["serve"], arguments, &ports, workers].concat());
        command
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&errors));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let mut addresses = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while addresses.len() < 2 {
            let line = lines.next().unwrap_or_else(|| panic!("{}", errors.lock().unwrap())).unwrap();
            if let Some(url) = line.strip_prefix("listening at ") {
                addresses.push(url.split_once("://").unwrap().1.to_owned());
            }
        }
        let [http, grpc] = addresses.try_into().unwrap();
        Self { child, http, grpc, errors }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has written a text to standard error.
    pub fn said(&self, text: &str) {
        eventually(text, || self.errors.lock().unwrap().contains(text));
    }

    /// Waits for its end. Returns what it has written to standard error.
    pub fn end(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.errors.lock().unwrap().clone())
    }

    /// The workers.
    pub fn workers(&self) -> Vec<Pid> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let mut found: Vec<_> =
            fs::read_to_string(path).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        // A thread may have started them.
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().map(str::to_owned));
        }
        found.sort();
        found.dedup();
        found.iter().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// Heap, stacks and other anonymous memory of the server, in KiB.
    pub fn anonymous_kib(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The first element and the version of a call of `sum` with ones.
    pub fn sum(&self) -> (f64, String) {
        let (status, answer) = post(&self.http, "/v2/models/sum/infer", &request(1).to_string());
        assert_eq!(status, 200, "{answer}");
        (answer["outputs"][0]["data"][0].as_f64().unwrap(), answer["model_version"].as_str().unwrap().to_owned())
    }

    /// Whether a response has begun to arrive.
    pub fn readable(&self, stream: &TcpStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        let found = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        !found.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The processor time that a process has used.
pub fn cpu(pid: Pid) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field: &&str| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// A client with one connection.
pub struct Client {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Client {
    pub fn connect(host: &str) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(host).unwrap()), host: host.to_owned() }
    }

    pub fn post(&mut self, path: &str, body: &str) -> (u16, Value) {
        self.send("POST", path, body).unwrap()
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", self.host);
        self.stream.get_mut().write_all((head + body).as_bytes()).ok()?;
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line).ok()?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some((status, serde_json::from_slice(&body).unwrap()))
    }
}

pub fn post(host: &str, path: &str, body: &str) -> (u16, Value) {
    Client::connect(host).post(path, body)
}

pub fn get(host: &str, path: &str) -> (u16, Value) {
    try_get(host, path).unwrap()
}

/// `None` if the connection was closed.
pub fn try_get(host: &str, path: &str) -> Option<(u16, Value)> {
    Client::connect(host).send("GET", path, "")
}
