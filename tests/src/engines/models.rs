//! A pipeline whose calls can be put together.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::{Pending, Pipeline, TaskWrapper};

use crate::memory::eventually;

/// A linear layer, and methods that say which batch they ran in.
#[derive(Pipeline)]
#[pipeline(init = BatchModel::new)]
pub struct BatchModel {
    /// The weights.
    pub layer: Linear,
    /// Number of batches of `learn`: the state of an actor.
    #[pipeline(skip)]
    pub batches: usize,
}

/// Cost of a text: its length. Panics if the text is `costly`.
fn cost(text: &str) -> usize {
    assert_ne!(text, "costly", "asked to panic");
    text.len()
}

#[ray_zerocopy::remote]
impl BatchModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 3).init(device), batches: 0 }
    }

    /// Keeps the worker busy, so that calls have to wait.
    pub fn sleep(&self, millis: u64) {
        std::thread::sleep(Duration::from_millis(millis));
    }

    /// Creates a file.
    pub fn note(&self, file: String) {
        std::fs::write(file, "it ran").expect("the test's folder exists");
    }

    /// Creates the file `begun`, waits until it is cancelled, and creates the file `ended`.
    pub fn wait_until_cancelled(&self, begun: String, ended: String) {
        self.note(begun);
        let until = Instant::now() + Duration::from_secs(60);
        while !ray_zerocopy::cancelled() {
            assert!(Instant::now() < until, "not cancelled");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.note(ended);
    }

    /// Creates the file `begun`, and keeps the worker busy. Does not ask whether it is cancelled.
    pub fn announce_and_sleep(&self, begun: String, millis: u64) {
        self.note(begun);
        std::thread::sleep(Duration::from_millis(millis));
    }

    /// Creates the file `begun`, and keeps the worker busy until the file `gate` exists.
    pub fn hold(&self, begun: String, gate: String) {
        hold(&begun, &gate);
    }

    /// Returns each text in capitals, with the number of rows of the batch. `bad` is an error.
    #[remote(batch, cost = cost)]
    pub fn shout(&self, texts: Vec<String>) -> Vec<Result<(String, usize), String>> {
        let rows = texts.len();
        let shout = |text: String| match text.as_str() {
            "bad" => Err(format!("`{text}` is not a word")),
            _ => Ok((text.to_uppercase(), rows)),
        };
        texts.into_iter().map(shout).collect()
    }

    /// The forward pass.
    #[remote(batch)]
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        self.layer.forward(rows)
    }

    /// Repeats each text, and returns the number of rows of the batch. Fails as a whole, in the way
    /// that a text asks for.
    #[remote(batch)]
    pub fn repeat(&self, texts: Vec<String>, times: usize) -> Result<(Vec<String>, Vec<usize>), String> {
        let rows = texts.len();
        if texts.iter().any(|text| text == "bad") {
            return Err(format!("{rows} rows have a bad one"));
        }
        assert!(texts.iter().all(|text| text != "panic"), "asked to panic");
        if texts.iter().any(|text| text == "short") {
            return Ok((Vec::new(), Vec::new()));
        }
        if texts.iter().any(|text| text == "die") {
            crate::models::kill_myself();
        }
        Ok((texts.iter().map(|text| text.repeat(times)).collect(), vec![rows; rows]))
    }

    /// Counts batches, and returns the count for each text.
    #[remote(batch)]
    pub fn learn(&mut self, texts: Vec<String>) -> Result<Vec<usize>, String> {
        self.batches += 1;
        if texts.iter().any(|text| text == "bad") {
            return Err(format!("batch {} has a bad row", self.batches));
        }
        Ok(vec![self.batches; texts.len()])
    }
}

/// The method of a call that keeps its worker busy: creates the file `begun`, and waits for the file `gate`.
///
/// # Panics
/// If `gate` does not exist after a minute.
pub fn hold(begun: &str, gate: &str) {
    std::fs::write(begun, "").expect("the test's folder exists");
    let until = Instant::now() + Duration::from_secs(60);
    while !Path::new(gate).exists() {
        assert!(Instant::now() < until, "the worker was not released within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A call that keeps a worker busy until it is released, so that other calls have to wait, however slow the machine is.
pub struct Busy {
    call: Pending<()>,
    gate: PathBuf,
    _folder: tempfile::TempDir,
}

impl Busy {
    /// Makes the call with the paths of two files: that which it creates, and that for which it waits. Returns when it
    /// runs.
    pub fn with(call: impl FnOnce(String, String) -> Pending<()>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [begun, gate] = ["begun", "gate"].map(|name| folder.path().join(name));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let call = call(text(&begun), text(&gate));
        eventually("the call runs", || begun.exists());
        Self { call, gate, _folder: folder }
    }

    /// Lets the call end, and waits for that.
    pub fn release(self) {
        std::fs::write(self.gate, "").unwrap();
        self.call.wait().unwrap();
    }
}

/// Keeps the only worker busy.
pub fn occupy(tasks: &TaskWrapper<BatchModel>) -> Busy {
    Busy::with(|begun, gate| tasks.hold(begun, gate))
}
