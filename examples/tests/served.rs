//! The example `serve`, and the real model as a service that OpenAI's client calls.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use burn::tensor::Device;
use ray_zerocopy::jit::Model;
use ray_zerocopy_examples::encoder::Encoder;
use ray_zerocopy_examples::minilm::fetch;
use ray_zerocopy_serve::{ModelRepository, Server, Service};
use rustix::process::{Pid, Signal, kill_process};

/// The Python of the environment with the clients.
fn python() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap();
    let python = cache.join("ray-zerocopy/clients-env/bin/python");
    assert!(python.exists(), "`cargo xtask setup clients-env` makes {}", python.display());
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_client_embeds_with_the_real_model() {
    let files = fetch::model_files().unwrap();
    let graph = Encoder::from_files(&files, &Device::flex()).unwrap().trace().unwrap();
    let models = ModelRepository::builder().workers(2).tokenizer("minilm", files.tokenizer()).start().unwrap();
    models.add("minilm", Model::Graph(graph)).unwrap();
    let running = Server::new(Service::builder(models).token("sk-test").build()).http("127.0.0.1:0").start().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut client = Command::new(python());
    client.arg(folder.join("tests/served/openai_client.py"));
    client.arg(format!("http://{}/v1", running.http_address().unwrap())).arg(folder.join("data/minilm_reference.json"));
    let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).ends_with("done\n"), "{output:?}");
    assert_eq!(running.shut_down().await, 0);
}

#[test]
fn example_serves_its_pipeline() {
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/serve");
    assert!(example.exists(), "{} is missing: `cargo build --workspace --examples` builds it", example.display());
    let mut child = Command::new(example).args(["--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let url = line.strip_prefix("listening at ").unwrap().split(';').next().unwrap().to_owned();
    let curl = |path: &str, body: &str| {
        let output = Command::new("curl").args(["-sSN", &format!("{url}{path}"), "-d", body]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl("/v1/pipelines/languages/classify", r#"["le chat dort dans le jardin"]"#), "\"French\"");
    assert_eq!(curl("/v1/pipelines/languages/classify", r#"[""]"#), r#"{"error":"the text is empty"}"#);
    let events = curl("/v1/pipelines/languages/words", r#"["der Hund"]"#);
    assert!(events.starts_with("data: [\"der\",\"German\"]\n\ndata: [\"Hund\","), "{events}");
    let index = curl("/v2/repository/index", "");
    assert!(index.contains(r#""name":"letters""#) && index.contains(r#""state":"READY""#), "{index}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ended; 0 calls were cancelled");
    assert!(child.wait().unwrap().success());
}
