//! Peers: other runtimes, each in a Python process that runs `benches/python/peers`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use benches::child::ChildRpc;
use burn::tensor::DType;
use ray_zerocopy::jit::Values;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The precisions of ONNX Runtime, and PyTorch in 32 bits, with the name of each as a contestant. The first one is the
/// unit of ratios.
pub const PRECISIONS: [(&str, &str); 3] =
    [("f32", "ONNX Runtime, f32"), ("int8", "ONNX Runtime, int8"), (TORCH, "PyTorch, f32")];

const TORCH: &str = "torch";

/// A model that the peers build themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The function that builds it, by its name in `sessions.py`.
    pub kind: &'static str,
    /// The arguments of that function.
    pub arguments: serde_json::Value,
    /// Whether the weights are those of the graph. Otherwise they are random, and outputs are not compared.
    pub has_same_weights: bool,
}

/// A process of a peer.
pub struct Peer {
    process: ChildRpc,
    precision: &'static str,
    loaded: Option<Model>,
    /// The version of the runtime, once a model is loaded.
    pub version: String,
}

/// Elapsed time and CPU time of a request.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Taken {
    pub seconds: f64,
    pub processor_seconds: f64,
}

/// The operations of a kind, in a call.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Operations {
    pub name: String,
    pub count: usize,
    pub micros: f64,
}

#[derive(Serialize)]
#[serde(tag = "dtype", content = "numbers", rename_all = "lowercase")]
enum Numbers {
    Float32(Vec<f32>),
    Int64(Vec<i64>),
}

#[derive(Serialize)]
struct Array {
    shape: Vec<usize>,
    #[serde(flatten)]
    numbers: Numbers,
}

/// The inputs of a call.
type Batch = BTreeMap<String, Array>;

/// Converts the inputs of a graph. Token ids and the mask of padding get the names and the meaning that they have in
/// exported models.
fn batch(inputs: &Values) -> Result<Batch> {
    let array = |name: &str| {
        let data = inputs.data(name)?;
        let shape = data.shape().to_vec();
        let (name, numbers) = match (name, data.dtype()) {
            ("ids", _) => ("input_ids", Numbers::Int64(data.iter().collect())),
            ("padding", _) => ("attention_mask", Numbers::Int64(data.iter().map(|is: bool| i64::from(!is)).collect())),
            (name, DType::F32) => (name, Numbers::Float32(data.iter().collect())),
            (name, other) => bail!("`{name}` has {other:?}, peers take inputs of 32-bit floats"),
        };
        Ok((name.to_owned(), Array { shape, numbers }))
    };
    inputs.names().map(array).collect()
}

/// Returns the Python of the environment with the peers, and the folder with PyTorch.
///
/// # Errors
/// If there is no such environment; the error says how to make it.
fn python() -> Result<(PathBuf, PathBuf)> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("ray-zerocopy");
    let (folder, torch) = (cache.join("peers-env"), cache.join("torch"));
    // The list of packages is written when the environment is complete.
    let is_complete = folder.join("packages.txt").is_file();
    ensure!(is_complete, "`--peers` needs ONNX Runtime in {}: run `cargo xtask peers`", folder.display());
    let is_complete = torch.join("torch/__init__.py").is_file();
    ensure!(is_complete, "`--peers` needs PyTorch in {}: run `cargo xtask peers`", torch.display());
    Ok((folder.join("bin/python"), torch))
}

impl Peer {
    /// Starts a process for models of one precision.
    ///
    /// # Errors
    /// If there is no environment with the peers, or the process cannot be started.
    pub fn start(precision: &'static str) -> Result<Self> {
        let (python, torch) = python()?;
        let mut program = Command::new(python);
        program.args(["-B", "-m", "peers"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
        if precision == TORCH {
            program.env("PYTHONPATH", torch);
        }
        let process = ChildRpc::start(&mut program)?;
        Ok(Self { process, precision, loaded: None, version: String::new() })
    }

    /// Starts a process for each precision.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn of_each_precision() -> Result<Vec<Self>> {
        PRECISIONS.iter().map(|(precision, _)| Self::start(precision)).collect()
    }

    fn call<T: DeserializeOwned>(&mut self, request: &serde_json::Value) -> Result<T> {
        let response = self.process.call(request);
        response.with_context(|| format!("the peer `{}` failed; its message is above", self.precision))
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Loads a model in a number of sessions of one thread each, unless it is loaded already.
    ///
    /// # Errors
    /// If the process fails.
    pub fn load(&mut self, model: &Model, sessions: usize) -> Result<()> {
        #[derive(Deserialize)]
        struct Loaded {
            version: String,
        }
        if self.loaded.as_ref() == Some(model) {
            return Ok(());
        }
        let Model { kind, arguments, .. } = model;
        let precision = self.precision;
        let request = json!({ "command": "load", "kind": kind, "arguments": arguments, "precision": precision,
            "threads": 1, "copies": sessions });
        self.version = self.call::<Loaded>(&request)?.version;
        self.loaded = Some(model.clone());
        Ok(())
    }

    /// Sets the inputs of the following calls.
    ///
    /// # Errors
    /// If the peer does not take such inputs, or the process fails.
    pub fn set_inputs<'a>(&mut self, batches: impl IntoIterator<Item = &'a Values>) -> Result<()> {
        let batches = batches.into_iter().map(batch).collect::<Result<Vec<_>>>()?;
        self.call(&json!({ "command": "inputs", "batches": batches })).map(|_: serde_json::Value| ())
    }

    /// Runs the first batch a number of times.
    ///
    /// # Errors
    /// If the process fails.
    pub fn run(&mut self, calls: usize) -> Result<Taken> {
        self.call(&json!({ "command": "run", "calls": calls }))
    }

    /// Runs one batch.
    ///
    /// # Errors
    /// If the process fails.
    pub fn run_one(&mut self, batch: usize) -> Result<Taken> {
        self.call(&json!({ "command": "one", "batch": batch }))
    }

    /// Divides all batches among the sessions, each in a thread.
    ///
    /// # Errors
    /// If the process fails.
    pub fn run_all(&mut self) -> Result<Taken> {
        self.call(&json!({ "command": "all" }))
    }

    /// Runs each batch once, and returns the seconds of each.
    ///
    /// # Errors
    /// If the process fails.
    pub fn run_each(&mut self) -> Result<Vec<f64>> {
        #[derive(Deserialize)]
        struct Each {
            seconds: Vec<f64>,
        }
        Ok(self.call::<Each>(&json!({ "command": "each" }))?.seconds)
    }

    /// Runs the first batch a number of times in a session that measures its operations.
    ///
    /// # Errors
    /// If the process fails.
    pub fn profile(&mut self, calls: usize) -> Result<Vec<Operations>> {
        #[derive(Deserialize)]
        struct Profiled {
            operations: Vec<Operations>,
        }
        Ok(self.call::<Profiled>(&json!({ "command": "profile", "calls": calls }))?.operations)
    }

    /// Returns the numbers of the output of the first batch.
    ///
    /// # Errors
    /// If the process fails.
    pub fn outputs(&mut self) -> Result<Vec<f64>> {
        #[derive(Deserialize)]
        struct Outputs {
            numbers: Vec<f64>,
        }
        Ok(self.call::<Outputs>(&json!({ "command": "outputs" }))?.numbers)
    }

    /// Ends the process.
    ///
    /// # Errors
    /// If it fails or does not end.
    pub fn end(self) -> Result<()> {
        self.process.end()
    }
}
