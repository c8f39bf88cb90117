//! One pipeline on every device of this machine: borrowed and uploaded bytes, differences between
//! results, and speed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use ray_zerocopy::error::DeviceError;
use ray_zerocopy::{ActorWrapper, Error, Pipeline, device};
use serde::{Deserialize, Serialize};

/// Loads a pipeline on several devices from one arena
///
/// A device is named by a string: `cpu`, `cuda:1`, `wgpu:0`, `libtorch`. On `cpu`, weights are
/// borrowed in place, in memory that all processes share. On `cuda`, processes share one copy on the
/// GPU. On `wgpu`, weights are uploaded for each process, and `copied()` lists them. With `strict`,
/// this is an error.
///
/// Backends round differently: results are equal within 1e-4 of the largest number, on `cuda` within
/// 2e-3, and bit for bit on `cpu`.
///
/// An invalid string, a backend that was not compiled in, and a device that the machine lacks are
/// three different errors, which are reported before the pipeline runs.
#[derive(Parser)]
#[command(after_help = "\
Try:
  cargo run --release --example devices
  cargo run --release -p examples --features wgpu --example devices
      with a GPU, or without one: `apt install mesa-vulkan-drivers libvulkan1` has a Vulkan that computes on the processor
  cargo run --release -p examples --features wgpu --example devices -- wgpu:0 wgpu:7
Next: the chapter on devices in the book, book/src/devices.md")]
struct Args {
    /// The devices to try
    #[arg(default_values = ["cpu", "cuda", "wgpu", "libtorch", "libtorch:cuda:0", "gpu"])]
    devices: Vec<String>,
    /// Rows and columns of each of the four matrices
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..=8192))]
    width: u16,
    /// Number of forward passes; the median is shown
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
}

/// The size of a [`Model`].
#[derive(Clone, Serialize, Deserialize)]
struct Config {
    width: usize,
}

/// Four layers with GELU between them.
#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: Config,
    layers: Vec<Linear>,
}

impl Config {
    fn init(&self, device: &Device) -> Model {
        let layer = || LinearConfig::new(self.width, self.width).init(device);
        Model { config: self.clone(), layers: (0..4).map(|_| layer()).collect() }
    }
}

impl Model {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| gelu(layer.forward(x)))
    }
}

/// The result for one device.
struct Row {
    device: String,
    borrowed: u64,
    copied: u64,
    equal: String,
    forward: Duration,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let model = Config { width: usize::from(args.width) }.init(&Device::flex());
    let shared = ActorWrapper::new(&model)?;
    let x = Tensor::<2>::random([8, model.config.width], Distribution::Default, &Device::flex());
    let expected: Vec<f32> = model.forward(x.clone()).into_data().iter().collect();

    let (mut rows, mut absent) = (Vec::new(), Vec::new());
    for name in &args.devices {
        match device(name) {
            Ok(there) => rows.push(run(&shared, name, &there, &x, &expected, args.rounds)?),
            Err(error) => absent.push((name, why(name, error)?)),
        }
    }
    table(&rows);
    for (name, why) in &absent {
        println!("{name}: {why}");
    }
    Ok(())
}

/// Loads the pipeline on a device and runs it.
fn run(
    shared: &ActorWrapper<Model>,
    name: &str,
    there: &Device,
    x: &Tensor<2>,
    expected: &[f32],
    rounds: u16,
) -> Result<Row> {
    let loaded = shared.load_on(name)?;
    let x = x.clone().to_device(there);
    let answer: Vec<f32> = loaded.forward(x.clone()).into_data().iter().collect();
    let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    let difference = answer.iter().zip(expected).fold(0_f32, |most, (a, b)| most.max((a - b).abs()));
    // burn multiplies matrices of 32-bit floats in TF32 on `cuda`.
    let tolerance = if name.starts_with("cuda") { 2e-3 } else { 1e-4 };
    ensure!(
        difference <= tolerance * largest,
        "{name} differs from cpu by {difference}, with {largest} as the largest number"
    );
    ensure!(name != "cpu" || answer == expected, "the results on cpu differ");

    let copied: u64 = loaded.copied().iter().map(|copied| copied.bytes).sum();
    let borrowed = shared.arena().weight_bytes() - copied;
    ensure!(name != "cpu" || copied == 0, "`cpu` copied weights: {:?}", loaded.copied());
    match shared.clone().strict().load_on(name) {
        Ok(_) => ensure!(copied == 0, "`strict` accepts {copied} bytes that were copied to {name}"),
        Err(Error::Load(error)) => ensure!(copied > 0, "`strict` rejects {name}, although nothing was copied: {error}"),
        Err(error) => return Err(error.into()),
    }

    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        // Accelerators run asynchronously: reading the result waits for them.
        loaded.forward(x.clone()).into_data();
        times.push(begun.elapsed());
    }
    times.sort();
    let equal =
        if difference == 0.0 { "bit for bit".to_owned() } else { format!("within {:.0e}", difference / largest) };
    Ok(Row { device: name.to_owned(), borrowed, copied, equal, forward: times[times.len() / 2] })
}

/// Returns why a device cannot be used; the error gives advice.
fn why(name: &str, error: DeviceError) -> Result<String> {
    let text = error.to_string();
    match &error {
        DeviceError::Unknown { found } => ensure!(text.contains(found) && text.contains("write `cpu`")),
        DeviceError::NotCompiled { feature, .. } => ensure!(text.contains(&format!("`{feature}`"))),
        DeviceError::NotFound { device, .. } => ensure!(text.contains(device)),
        other => bail!("unexpected error: {other}"),
    }
    ensure!(name != "cpu", "`cpu` is always available, but: {text}");
    Ok(text)
}

fn table(rows: &[Row]) {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    println!(
        "{:<16} {:>13} {:>13}  {:<14} {:>11}",
        "device", "borrowed, MiB", "uploaded, MiB", "equal to cpu", "forward, ms"
    );
    for row in rows {
        let (borrowed, copied) = (mib(row.borrowed), mib(row.copied));
        let forward = row.forward.as_secs_f64() * 1e3;
        println!("{:<16} {borrowed:>13} {copied:>13}  {:<14} {forward:>11.2}", row.device, row.equal);
    }
}
