//! What embeds the sentences: pools of workers, and PyTorch's process.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use benches::child::ChildRpc;
use burn::tensor::{Device, Int, Tensor, TensorData};
use ray_zerocopy::jit::{JitTaskWrapper, TracedGraph};
use ray_zerocopy::{Arena, LocalPool, TaskWrapper, gather};
use serde::{Deserialize, Serialize};

use crate::encoder::{Encoder, VOCABULARY};

/// The work of one round.
#[derive(Clone, Copy)]
pub struct Load {
    pub sentences: usize,
    pub tokens: usize,
    pub batches: usize,
}

/// The request to PyTorch's process.
#[derive(Serialize)]
struct Order<'a> {
    device: &'a str,
    numbers: &'a str,
    sentences: usize,
    tokens: usize,
    batches: usize,
}

#[derive(Deserialize)]
struct Done {
    seconds: f64,
    version: String,
    name: String,
}

pub enum Contestant {
    Pool { tasks: TaskWrapper<Encoder>, device: String, workers: usize },
    Graph { tasks: JitTaskWrapper, device: String, workers: usize },
    Peer { process: ChildRpc, device: String, numbers: &'static str, version: String, gpu: String },
}

/// Starts workers on a device.
pub fn pool(arena: &Arena, device: &str, workers: usize) -> Result<Contestant> {
    let pool = LocalPool::builder().workers(workers).start()?;
    let tasks = TaskWrapper::<Encoder>::from_arena_on(&pool, arena.clone())?.device(device)?;
    // Elsewhere than on a GPU of NVIDIA, each worker has a copy on the device.
    let tasks = if device.starts_with("wgpu") { tasks } else { tasks.strict() };
    Ok(Contestant::Pool { tasks, device: device.to_owned(), workers })
}

/// Starts workers that run a traced graph on a device.
pub fn graph_pool(graph: &TracedGraph, device: &str, workers: usize) -> Result<Contestant> {
    let pool = LocalPool::builder().workers(workers).start()?;
    let tasks = JitTaskWrapper::on(&pool, graph)?.device(device)?;
    Ok(Contestant::Graph { tasks, device: device.to_owned(), workers })
}

/// The token ids of a batch.
pub fn ids(Load { sentences, tokens, .. }: Load) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..sentences * tokens).map(|at| (at * 7919 % VOCABULARY) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [sentences, tokens]), &Device::flex())
}

/// Checks the vectors of a batch.
fn check(vectors: &Tensor<2>, load: Load) -> Result<()> {
    anyhow::ensure!(vectors.dims() == [load.sentences, 384], "vectors of shape {:?}", vectors.dims());
    Ok(())
}

/// Starts PyTorch, in a process for each kind of numbers.
pub fn peers(python: &Path, device: &str) -> Result<Vec<Contestant>> {
    let device = device.trim_start_matches("libtorch:").to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/minilm_gpu.py");
    let start = |numbers| {
        let process = ChildRpc::start(Command::new(python).arg(&script))?;
        let (version, gpu) = (String::new(), String::new());
        Ok(Contestant::Peer { process, device: device.clone(), numbers, version, gpu })
    };
    ["f32", "tf32", "bf16"].into_iter().map(start).collect()
}

impl Contestant {
    /// Embeds all batches, and returns the seconds that it took.
    pub fn run(&mut self, load: Load) -> Result<f64> {
        let Load { sentences, tokens, batches } = load;
        match self {
            Self::Pool { tasks, .. } => {
                let ids = ids(load);
                let begun = Instant::now();
                let pending: Vec<_> = (0..batches).map(|_| tasks.embed(ids.clone())).collect();
                gather(pending).wait()?.iter().try_for_each(|vectors| check(vectors, load))?;
                Ok(begun.elapsed().as_secs_f64())
            }
            Self::Graph { tasks, .. } => {
                let ids = ids(load);
                let begun = Instant::now();
                let pending: Vec<_> = (0..batches).map(|_| tasks.run([("ids", ids.clone())])).collect();
                for outputs in gather(pending).wait()? {
                    check(&outputs.float("output")?, load)?;
                }
                Ok(begun.elapsed().as_secs_f64())
            }
            Self::Peer { process, device, numbers, version, gpu } => {
                let order = Order { device, numbers, sentences, tokens, batches };
                let done: Done = process.call(&order).context("is it a Python with PyTorch and safetensors?")?;
                (*version, *gpu) = (done.version, done.name);
                Ok(done.seconds)
            }
        }
    }

    /// The name of the GPU, if it is known.
    pub fn gpu(&self) -> Option<&str> {
        match self {
            Self::Pool { .. } | Self::Graph { .. } => None,
            Self::Peer { gpu, .. } => Some(gpu),
        }
    }

    /// Ends the processes.
    pub fn end(self) -> Result<()> {
        match self {
            Self::Pool { .. } | Self::Graph { .. } => Ok(()),
            Self::Peer { process, .. } => process.end(),
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool { device, workers: 1, .. } => write!(f, "one worker on {device}"),
            Self::Pool { device, workers, .. } => write!(f, "{workers} workers on {device}"),
            Self::Graph { device, workers: 1, .. } => write!(f, "one worker on {device}, a traced graph"),
            Self::Graph { device, workers, .. } => write!(f, "{workers} workers on {device}, a traced graph"),
            Self::Peer { numbers, version, .. } => write!(f, "PyTorch {version}, {numbers}"),
        }
    }
}
