//! A pipeline whose methods and `init` hang, panic or abort on demand.

use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::{LocalPool, Pipeline, TaskWrapper};
use serde::{Deserialize, Serialize};

use crate::{startup, sys};

#[derive(Pipeline)]
pub(crate) struct Probe {
    #[pipeline(config)]
    config: ProbeConfig,
    layer: Linear,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ProbeConfig {
    /// A file. While it exists, a worker that loads the pipeline waits.
    pub(crate) waits_for: Option<String>,
    /// Whether a worker that loads the pipeline panics while another one waits.
    pub(crate) panics_if_others_wait: bool,
}

impl ProbeConfig {
    pub(crate) fn init(&self, device: &Device) -> Probe {
        if let Some(file) = &self.waits_for
            && std::env::var_os("RAY_ZEROCOPY_WORKER").is_some()
        {
            let waits = format!("{file}.waits");
            if self.panics_if_others_wait && std::fs::File::create_new(&waits).is_err() {
                panic!("another one waits");
            }
            while std::path::Path::new(file).exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Probe { config: self.clone(), layer: LinearConfig::new(8, 8).init(device) }
    }
}

#[ray_zerocopy::remote]
impl Probe {
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn sleep(&self, millis: u64) -> u32 {
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    pub fn announce_and_sleep(&self, file: String, millis: u64) -> u32 {
        std::fs::write(file, std::process::id().to_string()).unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    /// Number of runs of the constructor in `startup`, which comes after the one that makes this
    /// process a worker.
    pub fn constructed(&self) -> u32 {
        startup::constructed()
    }

    pub fn print(&self, text: String) {
        println!("{text}");
    }

    pub fn abort(&self) {
        std::process::abort()
    }

    /// Panics in a function that cannot unwind.
    pub fn panic_for_good(&self) {
        sys::panic_without_unwinding();
    }

    /// Ends the process with SIGKILL, as the out-of-memory killer does.
    pub fn die(&self) {
        ray_zerocopy_tests::models::kill_myself();
    }
}

pub(crate) fn probe() -> Probe {
    ProbeConfig::default().init(&Device::flex())
}

pub(crate) fn engine(workers: usize) -> (LocalPool, TaskWrapper<Probe>) {
    let engine = LocalPool::builder().workers(workers).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &probe()).unwrap();
    (engine, tasks)
}
