//! The pipeline of this benchmark, and pools of both engines for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::report::PoolReport;
use ray_zerocopy::{LocalPool, Pipeline, TaskWrapper, Threads};

const WIDTH: usize = 512;

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
pub struct Model {
    layers: Vec<Linear>,
}

#[ray_zerocopy::remote]
impl Model {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layers: (0..8).map(|_| LinearConfig::new(WIDTH, WIDTH).init(device)).collect() }
    }

    /// The forward pass.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }

    /// Waits as long as a call to a device takes. Returns the time at its end.
    pub fn wait(&self, millis: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(millis));
        micros()
    }
}

/// Time of the system in microseconds, which all processes share.
pub fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// An input of the forward pass.
pub fn input() -> Tensor<2> {
    Tensor::ones([1, WIDTH], &Device::flex())
}

/// A pool of one of the engines.
pub enum Pool {
    Processes(LocalPool),
    Threads(Threads),
}

/// The names of the engines.
pub const ENGINES: [&str; 2] = ["processes", "threads"];

impl Pool {
    /// Starts a pool of `engine` with its least number of workers.
    pub fn start(engine: &str, workers: std::ops::RangeInclusive<usize>, idle: Duration) -> Result<Self> {
        Ok(if engine == ENGINES[0] {
            Self::Processes(LocalPool::builder().workers(workers).idle(idle).threads_per_worker(1).start()?)
        } else {
            Self::Threads(Threads::builder().workers(workers).idle(idle).threads_per_worker(1).build())
        })
    }

    pub fn tasks(&self, model: &Model) -> Result<TaskWrapper<Model>> {
        // A call that loses its worker is an error.
        let tasks = match self {
            Self::Processes(pool) => TaskWrapper::on(pool, model)?,
            Self::Threads(threads) => TaskWrapper::on(threads, model)?,
        };
        Ok(tasks.attempts(1))
    }

    pub fn report(&self) -> Option<PoolReport> {
        match self {
            Self::Processes(pool) => Some(pool.report()),
            Self::Threads(threads) => threads.report(),
        }
    }

    /// Number of workers that are running.
    pub fn workers(&self) -> usize {
        self.report().map_or(0, |report| report.workers)
    }
}
