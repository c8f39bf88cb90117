//! Pipelines whose calls are all of one method, and do what they are told.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::Pipeline;
use ray_zerocopy_tests::models::kill_myself;
use serde::{Deserialize, Serialize};

/// The count, and whether the call is cancelled.
pub type Outcome = Result<(usize, bool), String>;

/// What a call does. All are calls of one method, which is known to be fast when a bundle is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    Nothing,
    /// Returns how many calls of this kind the actor has run.
    Count,
    Panic,
    Fail,
    /// Creates a file.
    Note(String),
    /// Creates the file `begun` in a folder, and waits until `end` exists, until the folder does not, or until it is
    /// cancelled. Then it creates `told`.
    Wait(String),
    /// Appends a byte to a file, and kills the process.
    Die(String),
}

impl Work {
    /// Returns the count, and whether the call is cancelled.
    fn run(self, count: &mut usize) -> Outcome {
        match self {
            Self::Nothing => {}
            Self::Count => *count += 1,
            Self::Panic => panic!("asked to panic"),
            Self::Fail => return Err(format!("failed after {count}")),
            Self::Note(file) => std::fs::write(file, "").map_err(|error| error.to_string())?,
            Self::Wait(folder) => {
                let file = |name: &str| format!("{folder}{name}");
                let create = |name: &str| std::fs::write(file(name), "").map_err(|error| error.to_string());
                create("begun")?;
                wait_until(|| ray_zerocopy::cancelled() || exists(&file("end")) || !exists(&folder));
                if ray_zerocopy::cancelled() {
                    create("told")?;
                }
            }
            Self::Die(file) => {
                let file = std::fs::File::options().append(true).create(true).open(file);
                file.and_then(|mut file| file.write_all(b"x")).map_err(|error| error.to_string())?;
                kill_myself();
            }
        }
        Ok((*count, ray_zerocopy::cancelled()))
    }
}

/// A pipeline with a state, for actors.
#[derive(Pipeline)]
#[pipeline(init = Worker::new)]
pub struct Worker {
    layer: Linear,
    #[pipeline(skip)]
    count: usize,
}

#[ray_zerocopy::remote]
impl Worker {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 3).init(device), count: 0 }
    }

    pub fn run(&mut self, work: Work) -> Outcome {
        work.run(&mut self.count)
    }

    /// Creates the first file, and waits until the second one exists.
    pub fn hold(&self, begun: String, end: String) {
        std::fs::write(begun, "").unwrap();
        wait_until(|| exists(&end));
    }

    pub fn pid(&self) -> u32 {
        std::process::id() + self.layer.weight.dims()[0] as u32 - 4
    }
}

/// The same with a method that returns a stream. Its calls run on another thread of the worker.
#[derive(Pipeline)]
#[pipeline(init = StreamingWorker::new)]
pub struct StreamingWorker {
    inner: Worker,
}

#[ray_zerocopy::remote]
impl StreamingWorker {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { inner: Worker::new(device) }
    }

    pub fn run(&mut self, work: Work) -> Outcome {
        self.inner.run(work)
    }

    pub fn hold(&self, begun: String, end: String) {
        self.inner.hold(begun, end);
    }

    #[remote(stream)]
    pub fn numbers(&self, count: usize) -> impl Iterator<Item = usize> {
        0..count
    }
}

/// The same without a state, for tasks.
#[derive(Pipeline)]
#[pipeline(init = TaskWorker::new)]
pub struct TaskWorker {
    inner: Worker,
}

#[ray_zerocopy::remote]
impl TaskWorker {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { inner: Worker::new(device) }
    }

    pub fn run(&self, work: Work) -> Outcome {
        work.run(&mut 0)
    }

    pub fn hold(&self, begun: String, end: String) {
        self.inner.hold(begun, end);
    }

    pub fn pid(&self) -> u32 {
        self.inner.pid()
    }
}

pub fn exists(file: &str) -> bool {
    Path::new(file).exists()
}

fn wait_until(done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "it takes more than a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}
