//! What workers log has the call, the model and the worker; what they print has not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::process::Command;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::{LocalPool, Pipeline, TaskWrapper};
use ray_zerocopy_serve::{LogFormat, Tracing, TracingError};
use serde_json::Value;

/// Set in the process that logs.
const CHILD: &str = "RAY_ZEROCOPY_TEST_LOGS";

#[derive(Pipeline)]
#[pipeline(init = Numbers::new)]
struct Numbers {
    head: Linear,
}

#[ray_zerocopy::remote]
impl Numbers {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(2, 2).init(device) }
    }

    pub fn double(&self, number: u32) -> u32 {
        tracing::info!(number, width = self.head.weight.dims()[0], "doubles");
        tracing::debug!("not selected");
        eprintln!("printed {number}");
        2 * number
    }
}

/// Runs in a process of its own, whose standard error is the log.
fn log() {
    let guard = Tracing::new("test").log(LogFormat::Json).install().unwrap();
    let pool = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&pool, &Numbers::new(&Device::flex())).unwrap();
    for number in 0..3 {
        assert_eq!(tasks.double(number).wait().unwrap(), 2 * number);
    }
    assert!(matches!(Tracing::new("test").log(LogFormat::Text).install(), Err(TracingError::Installed(_))));
    drop(guard);
}

#[test]
fn logs_of_workers_have_the_call_the_model_and_the_worker() {
    if std::env::var_os(CHILD).is_some() {
        return log();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "logs_of_workers_have_the_call_the_model_and_the_worker", "--nocapture"]);
    let output = child.env(CHILD, "1").env_remove("RUST_LOG").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let logged: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let printed: Vec<_> = text.lines().filter(|line| line.starts_with("printed ")).collect();
    assert_eq!(printed, ["printed 0", "printed 1", "printed 2"]);
    let lines: Vec<_> = logged.iter().filter(|line| line["message"] == "doubles").collect();
    assert_eq!((lines.len(), logged.len()), (3, 3), "{text}");
    for (number, line) in lines.iter().enumerate() {
        let span = &line["span"];
        assert_eq!((&line["number"], &line["level"]), (&number.into(), &"INFO".into()));
        assert_eq!((&span["name"], &span["method"], &span["worker"]), (&"method".into(), &"double".into(), &0.into()));
        assert!(span["model"].as_str().unwrap().ends_with("Numbers") && span["pid"].is_u64(), "{line}");
    }
    let calls: Vec<_> = lines.iter().map(|line| line["span"]["call"].as_u64().unwrap()).collect();
    assert!(calls.is_sorted_by(|one, next| one < next), "{calls:?}");
}
