//! `/metrics`, `/status` and the page at `/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::{WIDTH, graph, ones, pool, post, service};
use http_body_util::BodyExt;
use ray_zerocopy::jit;
use ray_zerocopy::observe::{METRICS, MetricKind, Status};
use ray_zerocopy_serve::{Limits, Metrics, ModelRepository, Server, Service};
use tower::ServiceExt;

static RECORDED: LazyLock<Metrics> = LazyLock::new(|| Metrics::install().unwrap());

/// A service whose metrics are recorded.
fn observed() -> Service {
    let models = ModelRepository::builder().pool(pool()).start().unwrap();
    models.add("sum", jit::Model::Graph(graph(WIDTH, 1, 1.0))).unwrap();
    Service::builder(models).metrics(RECORDED.clone()).build()
}

async fn get(service: &Service, path: &str, token: Option<&str>) -> (StatusCode, String) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let response = service.observe_router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (parts.status, text)
}

/// The series of a text in the format of Prometheus: each line is checked.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut kinds = BTreeMap::new();
    let mut series = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            match what {
                "TYPE" => assert!(kinds.insert(name.to_owned(), rest.to_owned()).is_none(), "{line}"),
                other => assert_eq!(other, "HELP", "{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(series.insert(name.to_owned(), value).is_none(), "{line}");
        let family = name.split('{').next().unwrap();
        let is_of_kind = ["", "_sum", "_count", "_bucket"]
            .iter()
            .any(|end| kinds.contains_key(family.strip_suffix(end).unwrap_or(family)));
        assert!(is_of_kind, "{line} has no type");
    }
    for metric in METRICS.iter().filter(|metric| kinds.contains_key(metric.name)) {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            _ => "histogram",
        };
        assert_eq!(kinds[metric.name], kind, "{}", metric.name);
    }
    series
}

/// The sum of the series of a name whose labels contain these texts.
fn sum(series: &BTreeMap<String, f64>, name: &str, labels: &[&str]) -> f64 {
    let found = series.iter().filter(|(key, _)| key.split('{').next() == Some(name));
    found.filter(|(key, _)| labels.iter().all(|label| key.contains(label))).map(|(_, value)| value).sum()
}

/// The metrics are those of the whole process, so that tests which make calls do not run beside each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_metrics_and_part_of_the_status() {
    let _alone = ALONE.lock().await;
    let service = observed();
    for _ in 0..3 {
        post(&service, "/v2/models/sum/infer", ones(1, WIDTH).to_string()).await.well();
    }
    post(&service, "/v2/models/sum/infer", ones(1, 3).to_string()).await.error(400);
    let (code, text) = get(&service, "/metrics", None).await;
    assert_eq!(code, StatusCode::OK, "{text}");
    let series = parse(&text);
    assert!(sum(&series, "ray_zerocopy_calls_total", &["outcome=\"ok\""]) >= 3.0, "{text}");
    assert!(sum(&series, "ray_zerocopy_calls_total", &["outcome=\"graph\""]) >= 1.0, "{text}");
    let all = sum(&series, "ray_zerocopy_calls_total", &[]);
    assert_eq!(sum(&series, "ray_zerocopy_call_seconds_count", &[]), all, "{text}");
    assert!(
        sum(&series, "ray_zerocopy_arena_bytes", &[]) > 0.0 && sum(&series, "ray_zerocopy_workers", &[]) > 0.0,
        "{text}"
    );

    let (code, text) = get(&service, "/status", None).await;
    assert_eq!(code, StatusCode::OK, "{text}");
    let status: Status = serde_json::from_str(&text).unwrap();
    assert_eq!(status.pid, std::process::id());
    assert!(
        status.models.iter().flat_map(|model| &model.generations).any(|weights| !weights.methods.is_empty()),
        "{text}"
    );

    let (code, text) = get(&service, "/", None).await;
    assert!(code == StatusCode::OK && text.starts_with("<!DOCTYPE html>"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_need_a_token_and_the_page_does_not() {
    let service = Service::builder(observed().models().clone()).token("secret").build();
    for path in ["/metrics", "/status"] {
        assert_eq!(get(&service, path, None).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(get(&service, "/", None).await.0, StatusCode::OK);
    assert_eq!(get(&service, "/status", Some("secret")).await.0, StatusCode::OK);
    let (code, text) = get(&service, "/metrics", Some("secret")).await;
    assert!(code == StatusCode::NOT_FOUND && text.contains("this server records no metrics"), "{text}");
}

/// The browser, if there is one.
fn chromium() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let named = |folder: PathBuf| ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name));
    std::env::split_paths(&folders).flat_map(named).find(|path| path.exists())
}

/// The page as a browser shows it, with the picture of the book if `BLESS` is set. Without a browser, only that the
/// page is sent is tested, above.
#[tokio::test(flavor = "multi_thread")]
async fn browser_shows_the_status() {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: there is no Chromium in PATH");
        return;
    };
    let _alone = ALONE.lock().await;
    let service = observed();
    let running = Server::new(service.clone()).http("127.0.0.1:0").start().unwrap();
    let address = running.http_address().unwrap();
    let calling = service.clone();
    let calls = tokio::spawn(async move {
        loop {
            post(&calling, "/v2/models/sum/infer", ones(8, WIDTH).to_string()).await.well();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let browse = |arguments: &[&str]| {
        let mut command = Command::new(&chromium);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=6000",
        ]);
        command.arg(format!("--user-data-dir={}", folder.path().display())).args(arguments);
        let output = command.arg(format!("http://{address}/")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = tokio::task::block_in_place(|| browse(&["--dump-dom"]));
    for text in ["live", "local", "calls/s", "worker 0", "current #0", "saved by sharing"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    if std::env::var_os("BLESS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("book/src/images/status.png");
        let screenshot = format!("--screenshot={}", file.display());
        tokio::task::block_in_place(|| browse(&[&screenshot, "--window-size=1000,560"]));
        assert!(file.exists());
    }
    calls.abort();
    // The call that it has begun is over, too.
    assert!(calls.await.unwrap_err().is_cancelled());
    running.shut_down().await;
}

/// A service that others have made keeps its own recorder.
#[test]
fn second_recorder_is_refused() {
    let _first = &*RECORDED;
    let error = Metrics::install().unwrap_err();
    assert!(error.to_string().contains("a program has one recorder: use `Metrics::of` with your own"), "{error}");
    drop(service(Limits::default()));
}
