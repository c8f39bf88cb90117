//! One copy of the weights on a GPU for all worker processes: what it takes of the GPU's memory, and
//! how long a process takes to attach to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, LocalPool, Pipeline, device};
use serde::{Deserialize, Serialize};

/// Loads one model on a GPU in several worker processes
///
/// The first process that loads the model uploads it, into memory that the driver passes to other
/// processes as a file descriptor. The others map it, read-only: `copied()` is empty, and the GPU
/// has the weights once. The memory is freed when the last process ends.
#[derive(Parser)]
#[command(after_help = "\
Try:
  cargo xtask cuda run --release -p examples --features cuda --example gpu_share
  cargo xtask cuda run --release -p examples --features cuda --example gpu_share -- --mib 8192 --workers 4
Next: the chapter on devices in the book, book/src/devices.md")]
struct Args {
    /// The device
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// The size of the model in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=262_144))]
    mib: u32,
    /// Number of worker processes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
}

/// Rows and columns of a layer, whose weight takes 16 MiB.
const WIDTH: usize = 2048;

/// The number of layers of a [`Model`].
#[derive(Clone, Serialize, Deserialize)]
struct Config {
    layers: usize,
}

/// Layers of equal size.
#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: Config,
    layers: Vec<Linear>,
}

impl Config {
    fn init(&self, device: &Device) -> Model {
        // Random numbers take long, and equal layers would be stored once.
        let layer = |index: usize| {
            let initializer = Initializer::Constant { value: 1.0 + index as f64 };
            LinearConfig::new(WIDTH, WIDTH).with_bias(false).with_initializer(initializer).init(device)
        };
        Model { config: self.clone(), layers: (0..self.layers).map(layer).collect() }
    }
}

/// What a process measures when it loads the model.
#[derive(Serialize, Deserialize)]
struct Load {
    /// From nothing to a device that computes.
    context: Duration,
    /// From there to the loaded model.
    load: Duration,
    /// Bytes that were copied for this process.
    copied: u64,
    /// Whether this process has uploaded the weights.
    is_uploaded: bool,
    /// Why there is no shared copy.
    why_copied: Option<String>,
}

#[ray_zerocopy::remote]
impl Model {
    /// Reads the last number of the last layer.
    pub fn last(&self) -> Option<f32> {
        self.layers.last()?.weight.val().into_data().iter::<f32>().last()
    }
}

/// A process that loads the model on request, to measure it.
#[derive(Pipeline)]
#[pipeline(init = Meter::new)]
struct Meter {
    unused: Tensor<1>,
}

impl Meter {
    fn new(device: &Device) -> Self {
        Self { unused: Tensor::zeros([1], device) }
    }
}

#[ray_zerocopy::remote]
impl Meter {
    /// Loads the model on the device.
    pub fn measure(&self, model: ActorWrapper<Model>, name: String) -> Result<Load, String> {
        let begun = Instant::now();
        let there = device(name.as_str()).map_err(|error| error.to_string())?;
        Tensor::<1>::from_floats([1.0], &there).into_data();
        let context = begun.elapsed();
        let begun = Instant::now();
        let loaded = model.load_on(name.as_str()).map_err(|error| error.to_string())?;
        there.sync().map_err(|error| error.to_string())?;
        let load = begun.elapsed();
        let memory = loaded.device_memory();
        Ok(Load {
            context,
            load,
            copied: loaded.copied().iter().map(|copied| copied.bytes).sum(),
            is_uploaded: memory.is_some_and(|memory| memory.is_uploaded),
            why_copied: memory.and_then(|memory| memory.why_copied.clone()),
        })
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    // One line, if there is no GPU.
    device(args.device.as_str())?;
    let layers = (args.mib as usize).div_ceil((WIDTH * WIDTH * 4) >> 20);
    let model = Config { layers }.init(&Device::flex());
    let shared = ActorWrapper::new(&model)?;
    drop(model);
    println!("{} MiB of weights in {layers} layers", shared.arena().weight_bytes() >> 20);

    let meter = Meter::new(&Device::flex());
    let measured = |what: &str| -> Result<Load> {
        let engine = LocalPool::builder().workers(1).start()?;
        let process = ActorWrapper::on(&engine, &meter)?.spawn(1)?;
        let load = process.actor(0).measure(shared.clone(), args.device.clone()).wait()?;
        let load = load.map_err(anyhow::Error::msg).with_context(|| format!("{what} failed"))?;
        let rate = shared.arena().weight_bytes() as f64 / load.load.as_secs_f64() / 1e9;
        println!(
            "{what}: context {:.0} ms, then {:.1} ms for the weights{}; {} bytes copied for it alone",
            load.context.as_secs_f64() * 1e3,
            load.load.as_secs_f64() * 1e3,
            if load.is_uploaded { format!(", uploaded at {rate:.1} GB/s") } else { String::new() },
            load.copied
        );
        if let Some(why) = &load.why_copied {
            println!("  not shared: {why}");
        }
        Ok(load)
    };
    let first = measured("the first process")?;
    let actors = shared.clone().device(args.device.as_str())?.spawn(usize::from(args.workers))?;
    for actor in actors.iter() {
        ensure!(actor.last().wait()? == Some(layers as f32), "a worker reads other weights");
    }
    println!("{}", actors.report()?);
    let second = measured("one more process")?;
    ensure!(first.why_copied.is_some() || second.copied == 0, "a process has copied weights");
    Ok(())
}
