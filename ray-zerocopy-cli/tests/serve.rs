//! `rzc serve`: real clients, signals, files that change, workers that are killed, and clients that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;
#[path = "serve/server.rs"]
mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Folder, eventually, rzc};
use rustix::process::Signal;
use serde_json::{Value, json};
use server::{Served, graph, request, write};

/// The Python of the environment with the clients.
fn python() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap();
    let python = cache.join("ray-zerocopy/clients-env/bin/python");
    assert!(python.exists(), "`cargo xtask setup clients-env` makes {}", python.display());
    python
}

fn folder() -> Folder {
    let folder = Folder::new();
    for name in ["sum", "other"] {
        write(&folder, &format!("{name}.rzg"), 1.0);
    }
    folder
}

#[test]
fn triton_clients_are_served() {
    clients_are_served("triton.py");
}

#[test]
fn kserve_sdk_and_prometheus_are_served() {
    clients_are_served("kserve_sdk.py");
}

/// Runs a script with the addresses of a server that has the model `sum`.
fn clients_are_served(script: &str) {
    let folder = folder();
    let served = Served::start(&folder, &["sum.rzg", "--folder", "."]);
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut clients = Command::new(python());
    clients.arg(script).args([&served.http, &served.grpc]);
    let output = clients.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with("done\n"));
}

#[test]
fn curl_is_served() {
    let folder = folder();
    let served = Served::start(&folder, &["total=sum.rzg"]);
    let curl = |path: &str, arguments: &[&str]| {
        let url = format!("http://{}{path}", served.http);
        let output = Command::new("curl").args(["-sS", "-w", "\n%{http_code}", &url]).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), serde_json::from_str::<Value>(body).unwrap())
    };
    let (status, answer) = curl("/v2/models/total/infer", &["-d", &request(1).to_string()]);
    assert_eq!((status.as_str(), &answer["outputs"][0]["data"]), ("200", &json!([4.0, 4.0, 4.0, 4.0])));
    let (status, answer) = curl("/v2/models/total/infer", &["-d", "{"]);
    assert_eq!(status, "400");
    assert!(answer["error"].as_str().unwrap().contains("not a valid JSON object"));
}

#[test]
fn wrong_options_are_errors() {
    let folder = folder();
    let model = folder.at("sum.rzg");
    assert_eq!(
        rzc(&["serve"]).error(),
        "error: there is nothing to serve; name models, as in `rzc serve model.rzg`, or a folder with --folder"
    );
    let missing = rzc(&["serve", &folder.at("none.rzg"), "--workers", "1"]);
    assert!(missing.error().contains("none.rzg: the model `none` cannot be loaded: "), "{missing:?}");
    let twice = rzc(&["serve", &model, &model, "--workers", "1"]);
    assert!(twice.error().contains("there are two models with the name `sum`"), "{twice:?}");
    let certificate = rzc(&["serve", &model, "--workers", "1", "--tls-cert", "/no.pem", "--tls-key", "/no.key"]);
    assert!(certificate.error().contains("/no.key: "), "{certificate:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap().port().to_string();
    let taken = rzc(&["serve", &model, "--workers", "1", "--port", &port]);
    assert!(taken.error().contains("cannot listen at 127.0.0.1:"), "{taken:?}");
}

#[test]
fn calls_in_flight_end_before_the_server() {
    let folder = folder();
    graph(1024, 256, 0.0).save(folder.at("slow.rzg")).unwrap();
    let mut served = Served::start(&folder, &["sum.rzg", "slow.rzg", "--drain-delay", "1"]);
    let http = served.http.clone();
    let slow = std::thread::spawn(move || {
        let rows = 32;
        let body = json!({ "inputs": [{ "name": "x", "shape": [rows, 1024], "datatype": "FP32",
            "data": vec![0; rows * 1024] }] });
        server::post(&http, "/v2/models/slow/infer", &body.to_string())
    });
    let workers = served.workers();
    // The call is in a worker when one of them computes.
    let used = || workers.iter().map(|worker| server::cpu(*worker)).sum::<Duration>();
    let before = used();
    eventually("a worker computes", || used() > before + Duration::from_millis(100));
    served.signal(Signal::TERM);
    eventually("it is not ready", || server::get(&served.http, "/v2/health/ready").0 == 503);
    assert_eq!(slow.join().unwrap().0, 200);
    let (status, errors) = served.end();
    assert!(status.success(), "{errors}");
}

#[test]
fn changed_file_and_hangup_swap_the_model() {
    let folder = folder();
    let served = Served::start(&folder, &["sum.rzg"]);
    let version = || served.sum().1;
    assert_eq!(served.sum(), (4.0, "1".to_owned()));
    write(&folder, "sum.rzg", 2.0);
    eventually("version 2 is current", || version() == "2");
    assert_eq!(served.sum(), (8.0, "2".to_owned()));

    // A file that is not a model: the current version stays, and the server says so.
    fs::write(folder.at("sum.rzg"), "not a model").unwrap();
    served.said("sum: the current version stays: the model `sum` cannot be loaded");
    assert_eq!(served.sum(), (8.0, "2".to_owned()));
    write(&folder, "sum.rzg", 3.0);
    eventually("version 3 is current", || version() == "3");

    let quiet = Served::start(&folder, &["sum.rzg", "--no-watch"]);
    write(&folder, "sum.rzg", 4.0);
    quiet.signal(Signal::HUP);
    eventually("the hangup swaps", || quiet.sum() == (16.0, "2".to_owned()));
}

/// 1000 requests a second, for five seconds or those of `RAY_ZEROCOPY_SOAK_SECONDS`.
#[test]
fn no_request_fails_while_workers_die_and_models_swap() {
    const CLIENTS: u32 = 4;
    let folder = folder();
    let seconds = std::env::var("RAY_ZEROCOPY_SOAK_SECONDS").ok().map(|seconds| seconds.parse::<u64>().unwrap());
    let length = Duration::from_secs(seconds.unwrap_or(5));
    let served = Served::start(&folder, &["sum.rzg", "--workers", "3", "--no-watch"]);
    let (is_done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begun = Instant::now();
    let (mut swaps, mut killed, mut memory) = (0_usize, 0, Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = server::Client::connect(&served.http);
                for number in 0_u32.. {
                    if is_done.load(Ordering::Relaxed) {
                        return;
                    }
                    let due = begun + Duration::from_millis(1) * CLIENTS * number;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let (status, answer) = client.post("/v2/models/sum/infer", &request(1).to_string());
                    assert_eq!(status, 200, "{answer}");
                    let found = answer["outputs"][0]["data"][0].as_f64().unwrap();
                    assert!(found == 4.0 || found == 8.0, "{answer}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // A long run swaps every ten seconds, and kills a worker every half second.
        let (pause, kills) = if seconds.is_some() { (500, 20) } else { (200, 4) };
        while begun.elapsed() < length {
            for _ in 0..kills {
                std::thread::sleep(Duration::from_millis(pause));
                let workers = served.workers();
                if let Some(worker) = workers.get((swaps + killed) % workers.len().max(1)) {
                    killed += usize::from(rustix::process::kill_process(*worker, Signal::KILL).is_ok());
                }
            }
            swaps += 1;
            write(&folder, "sum.rzg", if swaps.is_multiple_of(2) { 1.0 } else { 2.0 });
            let (status, answer) = server::post(&served.http, "/v2/repository/models/sum/load", "");
            assert_eq!((status, &answer["outcome"]), (200, &json!("swapped")), "{answer}");
            memory.push(served.anonymous_kib());
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let answered = answered.load(Ordering::Relaxed);
    let rate = answered as f64 / begun.elapsed().as_secs_f64();
    println!("{answered} requests, {rate:.0}/s, none failed; {killed} workers killed, {swaps} swaps");
    println!("anonymous memory of the server after each swap, KiB: {memory:?}");
    assert!(answered > 100, "{answered}");
    if seconds.is_some() {
        let median = |part: &mut [u64]| {
            part.sort_unstable();
            part[part.len() / 2]
        };
        let third = memory.len().div_ceil(3);
        let (first, last) = (&memory[..third], &memory[memory.len() - third..]);
        let (first, last) = (median(&mut first.to_vec()), median(&mut last.to_vec()));
        assert!(last < first + (2 << 10), "{memory:?}");
    }
}

#[test]
fn misbehaving_clients_do_not_disturb_others() {
    let folder = folder();
    let options = ["sum.rzg", "--receive-timeout", "1", "--max-request", "64K", "--max-connections", "64"];
    let served = Served::start(&folder, &options);
    let connect = || TcpStream::connect(&served.http).unwrap();
    // Clients that send half a head, half a body, or nothing.
    let slow: Vec<_> = (0..12)
        .map(|at| {
            let mut stream = connect();
            let body = "POST /v2/models/sum/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"inp";
            let parts = ["POST /v2/mod", body, ""];
            stream.write_all(parts[at % 3].as_bytes()).unwrap();
            stream
        })
        .collect();
    // A client that resets its connection while its request runs.
    for _ in 0..8 {
        let mut stream = connect();
        let body = request(1).to_string();
        let head = format!("POST /v2/models/sum/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(served.sum(), (4.0, "1".to_owned()));

    let answer = |sent: &[u8]| {
        let mut stream = connect();
        stream.write_all(sent).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let head = "POST /v2/models/sum/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    // A body of 10 GB is refused by its announcement, and one without an announcement when it is too large.
    let announced = answer(format!("{head}Content-Length: 10000000000\r\n\r\n").as_bytes());
    assert!(announced.starts_with("HTTP/1.1 413 ") && announced.contains("may have 65536"), "{announced}");
    let mut chunked = connect();
    write!(chunked, "{head}Transfer-Encoding: chunked\r\n\r\n").unwrap();
    // The server may stop to read in the middle of it.
    let flood = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
    while chunked.write_all(flood.as_bytes()).is_ok() {
        if served.readable(&chunked) {
            break;
        }
    }
    let mut text = vec![0; 12];
    chunked.read_exact(&mut text).unwrap();
    assert_eq!(text, b"HTTP/1.1 413");
    let garbage = answer(b"\x16\x03\x01\x02\x00\x01\x00 this is not HTTP\r\n\r\n");
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
    let large_head = format!("GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let mut stream = connect();
    // The server stops to read when the head is too large.
    stream.write_all(large_head.as_bytes()).ok();
    assert_eq!(served.sum(), (4.0, "1".to_owned()));

    // The slow ones get an error or are closed, in bounded time.
    for mut stream in slow {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
    }
    // Garbage in the place of gRPC.
    let mut stream = TcpStream::connect(&served.grpc).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();

    // More connections than there may be: further ones are closed, and there is room again when others end.
    let many: Vec<_> = (0..200).map(|_| connect()).collect();
    drop(many);
    eventually("there is room again", || {
        server::try_get(&served.http, "/v2/health/live").is_some_and(|(status, _)| status == 200)
    });
    assert_eq!(served.sum(), (4.0, "1".to_owned()));
}
