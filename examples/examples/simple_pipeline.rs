//! A minimal pipeline of two models and a config: shared fields, copied fields, and tasks.

use anyhow::{Result, ensure};
use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use ray_zerocopy::{Pipeline, TaskWrapper, gather};
use serde::{Deserialize, Serialize};

/// Shares a pipeline of two models and a config with a threshold
///
/// The models are shared: their weights are stored once in an arena, which all worker processes
/// read. The config is copied: each worker rebuilds the pipeline from its own copy. Then some
/// batches run as tasks, each on any free worker, and their results are compared with those of this
/// process, bit for bit.
#[derive(Parser)]
#[command(after_help = "Next: complex_pipeline, for everything else that can be in a pipeline.")]
struct Args {
    /// Number of features of one input
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    inputs: u16,
    /// Number of batches to run as tasks
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    batches: u16,
    /// Labels with a score above this are assigned
    #[arg(long, default_value_t = 0.5)]
    threshold: f64,
}

/// An ordinary burn module.
#[derive(Module, Debug)]
struct FeatureExtractor {
    first: Linear,
    second: Linear,
}

#[derive(Module, Debug)]
struct Classifier {
    norm: LayerNorm,
    output: Linear,
}

#[derive(Pipeline)]
struct MyPipeline {
    feature_extractor: FeatureExtractor, // a Module: shared
    classifier: Classifier,              // a Module: shared
    #[pipeline(config)]
    config: MyConfig, // serde: copied, rebuilds the pipeline in a worker
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct MyConfig {
    inputs: usize,
    classes: usize,
    threshold: f64,
}

impl MyConfig {
    fn init(&self, device: &Device) -> MyPipeline {
        let width = 2 * self.inputs;
        MyPipeline {
            feature_extractor: FeatureExtractor {
                first: LinearConfig::new(self.inputs, width).init(device),
                second: LinearConfig::new(width, width).init(device),
            },
            classifier: Classifier {
                norm: LayerNormConfig::new(width).init(device),
                output: LinearConfig::new(width, self.classes).init(device),
            },
            config: self.clone(),
        }
    }
}

#[ray_zerocopy::remote]
impl MyPipeline {
    /// Returns a score between 0 and 1 for each input and class.
    pub fn predict(&self, data: Tensor<2>) -> Tensor<2> {
        let features = self.feature_extractor.second.forward(relu(self.feature_extractor.first.forward(data)));
        sigmoid(self.classifier.output.forward(self.classifier.norm.forward(features)))
    }

    /// Returns the number of labels above the threshold of the config.
    pub fn count_labels(&self, data: Tensor<2>) -> usize {
        let scores = self.predict(data).into_data();
        scores.iter::<f64>().filter(|&score| score > self.config.threshold).count()
    }

    /// Returns the config of the process that runs the call.
    pub fn config(&self) -> MyConfig {
        self.config.clone()
    }

    /// Returns the id of the process that runs the call.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    ensure!(args.threshold.is_finite(), "a threshold of {} cannot be compared with", args.threshold);
    let device = Device::flex();
    let config = MyConfig { inputs: args.inputs.into(), classes: 10, threshold: args.threshold };
    let pipeline = config.init(&device);

    let tasks = TaskWrapper::new(&pipeline)?;
    let arena = tasks.arena();
    println!("shared, once, in arena {} ({} bytes of weights):", arena.id(), arena.stored_bytes());
    for path in arena.paths() {
        println!("  {path}");
    }
    println!("copied, into each process:");
    println!("  config = {:?}", tasks.config().wait()?);
    ensure!(tasks.config().wait()? == config, "the worker's config differs from the shared one");

    let batches: Vec<_> =
        (0..args.batches).map(|_| Tensor::<2>::random([8, config.inputs], Distribution::Default, &device)).collect();
    let there = gather(batches.iter().map(|batch| tasks.predict(batch.clone()))).wait()?;
    let labels = gather(batches.iter().map(|batch| tasks.count_labels(batch.clone()))).wait()?;
    for ((batch, there), count) in batches.iter().zip(there).zip(&labels) {
        let here = pipeline.predict(batch.clone());
        ensure!(here.into_data() == there.into_data(), "a worker returns another result than this process");
        ensure!(*count == pipeline.count_labels(batch.clone()), "a worker uses another threshold");
    }
    println!("labels above {} in each batch: {labels:?}", config.threshold);

    let pid = tasks.pid().wait()?;
    ensure!(pid != std::process::id(), "a task ran in this process");
    let copied = tasks.load()?.copied().len();
    ensure!(copied == 0, "{copied} weights were copied");
    println!(
        "{} tasks in other processes than {}: the same answers, bit for bit; no weight was copied",
        2 * args.batches,
        std::process::id()
    );
    Ok(())
}
