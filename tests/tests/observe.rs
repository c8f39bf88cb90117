//! Observation of this process: the measurement off and on, the status that others read, the dashboard.
//!
//! The conformance suite of engines has the counts of calls: `tests/src/engines/observation.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::Device;
use ray_zerocopy::observe::{self, METRICS, MetricKind, Service};
use ray_zerocopy::{TaskWrapper, Threads};
use ray_zerocopy_tests::models::TestModelConfig;

/// The part of this process in the list of programs.
fn own() -> Option<Service> {
    observe::services().unwrap().into_iter().find(|service| service.pid == std::process::id())
}

#[test]
fn status_is_published_until_it_is_dropped() {
    let tasks = TaskWrapper::on(&Threads::new(2), &TestModelConfig::new(8).init(&Device::flex())).unwrap();
    tasks.sleep(0).wait().unwrap();
    assert!(!observe::is_enabled() && own().is_none());
    let status = observe::status().unwrap();
    assert!(status.models[0].generations[0].methods.is_empty(), "calls are not measured: {status:?}");

    let published = observe::publish("speech").unwrap();
    let second = observe::publish("vad").unwrap();
    assert!(observe::is_enabled());
    let running = tasks.sleep(300);
    let service = own().expect("it is published");
    let status = service.status.unwrap();
    assert_eq!((status.names.join(" ").as_str(), status.pid), ("speech vad", std::process::id()));
    let model = &status.models[0];
    assert_eq!((model.engine.as_str(), model.workers, model.size), ("threads", 2, 2));
    assert!(model.pipeline.ends_with("TestModel"), "{model:?}");
    let generation = &model.generations[0];
    assert_eq!((generation.arena, generation.bytes), (tasks.arena().id(), tasks.arena().size_bytes()));
    let method = &generation.methods[0];
    assert_eq!((method.method.as_str(), method.waiting + method.running, method.calls()), ("sleep", 1, 0));
    running.wait().unwrap();
    assert!(status.workers.iter().any(|workers| workers.engine == "threads" && workers.started >= 2), "{status:?}");

    drop(published);
    assert_eq!(own().unwrap().status.unwrap().names, ["vad"]);
    drop(second);
    assert!(own().is_none());
    // A wrapper that is dropped leaves the status.
    drop(tasks);
    assert!(observe::status().unwrap().models.is_empty());
}

#[test]
fn dashboard_names_existing_metrics() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("ray-zerocopy/dashboards/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut named = BTreeSet::new();
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        for (at, _) in expression.match_indices("ray_zerocopy_") {
            let rest = &expression[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            named.insert(rest[..end].to_owned());
        }
    }
    let mut shown = BTreeSet::new();
    for name in &named {
        let metric = METRICS.iter().find(|metric| {
            let endings: &[&str] =
                if metric.kind == MetricKind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            endings.iter().any(|ending| *name == format!("{}{ending}", metric.name))
        });
        shown.insert(metric.unwrap_or_else(|| panic!("there is no metric `{name}`")).name);
    }
    let missing: Vec<_> = METRICS.iter().filter(|metric| !shown.contains(metric.name)).collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
}

/// The table of metrics in the book. `BLESS=1` writes it.
#[test]
fn book_lists_all_metrics() {
    const START: &str = "--test observe` -->\n";
    const END: &str = "<!-- end of metrics -->";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("book/src/observability.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let start = text.find(START).unwrap() + START.len();
    let end = text.find(END).unwrap();
    let mut table = "\n| metric | labels | what |\n| --- | --- | --- |\n".to_owned();
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        table += &format!("| `{}` | {} | {} |\n", metric.name, labels.join(", "), metric.help);
    }
    table += "\n";
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, format!("{}{table}{}", &text[..start], &text[end..])).unwrap();
    } else {
        assert_eq!(text[start..end], table, "run `BLESS=1 cargo test -p ray-zerocopy-tests --test observe`");
    }
}
