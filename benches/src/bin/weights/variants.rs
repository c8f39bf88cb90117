//! Measures LoRA adapters of one base in several workers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use benches::child::{ChildRpc, send, this_program};
use benches::machine::rollup;
use benches::model::ModelConfig;
use benches::stats::{median, mib, quartiles};
use benches::{Progress, Table, Target, time};
use burn::module::{Lora, Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::lora::{Adapter, Adapters};
use ray_zerocopy::{ActorWrapper, Actors, Arena, Pipeline};
use serde::{Deserialize, Serialize};

use crate::{Args, TENSORS};

/// Rank of the adapters.
const RANK: usize = 8;
/// Number of workers.
const WORKERS: usize = 4;
/// Calls of a round, of each kind.
const CALLS: usize = 40;

#[derive(Serialize)]
pub struct Row {
    base_mib: f64,
    adapters: u8,
    adapter_mib: f64,
    workers: usize,
    /// Sum over the owner and the workers when each worker has read the base, without an adapter.
    base_pss_mib: f64,
    /// The same when each worker has read all adapters.
    sum_pss_mib: f64,
    /// Of one worker that reads a new adapter from its file, and of a worker that comes after it.
    first_add_ms_median: f64,
    later_add_ms_median: f64,
    later_add_ms_quartiles: (f64, f64),
    /// Of sealing the file alone.
    seal_ms_median: f64,
    /// How the sum of PSS grows by one more adapter in all workers.
    one_more_mib: f64,
    forward_ms_median: f64,
    /// Forward passes with another adapter each time, in units of those with one adapter.
    switching: f64,
    switching_quartiles: (f64, f64),
    /// Forward passes with an adapter, in units of those without.
    adapted: f64,
}

/// A model whose layers an adapter may change.
#[derive(Pipeline)]
struct Adapted {
    #[pipeline(config)]
    config: AdaptedConfig,
    layers: Vec<Linear>,
    adapters: Adapters,
}

/// Layers without bias, alternately from `narrow` to `wide` features and back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct AdaptedConfig {
    tensors: u32,
    narrow: u32,
    wide: u32,
}

impl AdaptedConfig {
    fn new(mib: u32) -> Self {
        let elements = (u64::from(mib) << 18) / u64::from(TENSORS);
        let narrow = 1_u64 << (elements.max(1).ilog2() / 2);
        Self { tensors: TENSORS, narrow: narrow as u32, wide: (elements / narrow) as u32 }
    }

    fn init(&self, device: &Device) -> Adapted {
        let (narrow, wide) = (self.narrow as usize, self.wide as usize);
        let layer = |index| {
            let (from, to) = if index % 2 == 0 { (narrow, wide) } else { (wide, narrow) };
            LinearConfig::new(from, to).with_bias(false).init(device)
        };
        Adapted { config: *self, layers: (0..self.tensors).map(layer).collect(), adapters: Adapters::default() }
    }

    fn bytes(&self) -> u64 {
        4 * u64::from(self.tensors) * u64::from(self.narrow) * u64::from(self.wide)
    }
}

#[ray_zerocopy::remote]
impl Adapted {
    /// Adds an adapter. Returns how long it took, in milliseconds.
    pub fn add(&self, name: String, file: PathBuf) -> Result<f64, String> {
        let begun = Instant::now();
        let adapter = Adapter::open(file).map_err(|error| error.to_string())?;
        self.adapters.add(&name, &adapter).map_err(|error| error.to_string())?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }

    /// Runs a forward pass with an adapter. Returns how long it took, in milliseconds.
    pub fn forward(&self, adapter: Option<String>) -> Result<f64, String> {
        let begun = Instant::now();
        let adapter = self.adapters.choose(adapter.as_deref()).map_err(|error| error.to_string())?;
        let mut x = Tensor::<2>::ones([1, self.config.narrow as usize], &Device::flex());
        for layer in &self.layers {
            x = adapter.linear(layer, x).mul_scalar(0.5);
        }
        let _result = x.into_data();
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}

fn file(folder: &Path, adapter: usize) -> PathBuf {
    folder.join(format!("{adapter}.bpk"))
}

fn base(folder: &Path) -> PathBuf {
    folder.join("base.bpk")
}

/// Gives random numbers to the halves `b`, which are zero before training.
struct Trained;

impl ModuleMapper for Trained {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape().to_vec();
        if shape.first() != Some(&RANK) {
            return param;
        }
        let random = Tensor::random(shape, Distribution::Normal(0.0, 0.01), &Device::flex());
        Param::initialized(param.id, random)
    }
}

/// Writes a base and adapters into a folder.
pub fn write(mib: u32, adapters: usize, folder: &Path) -> Result<()> {
    let model = AdaptedConfig::new(mib).init(&Device::flex());
    ray_zerocopy::share(&model)?.save(base(folder))?;
    for adapter in 0..adapters {
        // All of them are random, so no two of them have the same memory.
        let layers = model.layers.clone().apply_lora(Lora::new(RANK, RANK as f64)).map(&mut Trained);
        Adapter::from_module("layers", &layers, 1.0)?.save(file(folder, adapter))?;
    }
    send(&())
}

/// The sum of the PSS of this process and the workers.
fn pss(actors: &Actors<Adapted>) -> Result<u64> {
    let pids: BTreeSet<u32> = actors.workers().iter().map(|worker| worker.pid).chain([std::process::id()]).collect();
    pids.into_iter().map(|pid| rollup(pid, "Pss")).sum()
}

/// Adds an adapter in one worker after the other. Returns the time of each.
fn add(actors: &Actors<Adapted>, folder: &Path, adapter: usize) -> Result<Vec<f64>> {
    let add = |actor: ray_zerocopy::Actor<Adapted>| {
        actor.add(adapter.to_string(), file(folder, adapter)).wait()?.map_err(|error| anyhow!(error))
    };
    actors.iter().map(add).collect()
}

fn forward(actors: &Actors<Adapted>, worker: usize, adapter: Option<usize>) -> Result<f64> {
    let adapter = adapter.map(|adapter| adapter.to_string());
    actors.actor(worker).forward(adapter).wait()?.map_err(|error| anyhow!(error))
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Row> {
    let config = AdaptedConfig::new(args.mib);
    let count = usize::from(args.adapters);
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    progress.step("writing a base and adapters");
    let model = serde_json::to_string(&ModelConfig::new(args.mib, TENSORS, 1)?)?;
    let mut program = this_program();
    // One more, which is added in the end.
    program.args(["--role", "write-adapters", "--model", &model, "--mib", &args.mib.to_string()]);
    program.args(["--adapters", &(count + 1).to_string()]).arg("--file").arg(folder);
    let mut writer = ChildRpc::start(&mut program)?;
    writer.recv::<()>()?;
    writer.end()?;

    progress.step(format!("{WORKERS} workers add {count} adapters"));
    let actors = ActorWrapper::<Adapted>::from_arena(Arena::open(base(folder))?).spawn(WORKERS)?;
    (0..WORKERS).try_for_each(|worker| forward(&actors, worker, None).map(drop))?;
    let bare = pss(&actors)?;
    let (mut first, mut later, mut seal) = (Vec::new(), Vec::new(), Vec::new());
    for adapter in 0..count {
        let times = add(&actors, folder, adapter)?;
        first.push(times[0]);
        later.extend_from_slice(&times[1..]);
    }
    for worker in 0..WORKERS {
        (0..count).try_for_each(|adapter| forward(&actors, worker, Some(adapter)).map(drop))?;
    }
    let before = pss(&actors)?;
    add(&actors, folder, count)?;
    (0..WORKERS).try_for_each(|worker| forward(&actors, worker, Some(count)).map(drop))?;
    let after = pss(&actors)?;

    // Afterwards, since it leaves free memory in the heap of this process.
    for adapter in 0..count {
        let begun = Instant::now();
        drop(Arena::open(file(folder, adapter))?);
        seal.push(begun.elapsed().as_secs_f64() * 1e3);
    }

    let (mut same, mut switched, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let mut ratios = Vec::new();
    for _ in 0..args.rounds {
        progress.step("forward passes");
        let (mut of_same, mut of_switched) = (Vec::new(), Vec::new());
        for call in 0..CALLS {
            // A call with this adapter comes first, so that its weights are as near as can be.
            forward(&actors, 0, Some(0))?;
            of_same.push(forward(&actors, 0, Some(0))?);
            of_switched.push(forward(&actors, 0, Some(1 + call % (count - 1)))?);
            plain.push(forward(&actors, 0, None)?);
        }
        ratios.push(median(&of_switched) / median(&of_same));
        same.extend(of_same);
        switched.extend(of_switched);
    }
    let adapter_bytes = std::fs::metadata(file(folder, 0)).context("the adapter was written")?.len();
    actors.shut_down();
    Ok(Row {
        base_mib: mib(config.bytes()),
        adapters: args.adapters,
        adapter_mib: mib(adapter_bytes),
        workers: WORKERS,
        base_pss_mib: mib(bare),
        sum_pss_mib: mib(before),
        first_add_ms_median: median(&first),
        later_add_ms_median: median(&later),
        later_add_ms_quartiles: quartiles(&later),
        seal_ms_median: median(&seal),
        one_more_mib: mib(after) - mib(before),
        forward_ms_median: median(&same),
        switching: median(&ratios),
        switching_quartiles: quartiles(&ratios),
        adapted: median(&same) / median(&plain),
    })
}

pub fn targets(row: &Row) -> Vec<Target> {
    let most = row.base_mib + f64::from(row.adapters) * row.adapter_mib + 32.0;
    vec![
        Target::at_most(
            format!("{} adapters, {} workers: PSS of all, MiB", row.adapters, row.workers),
            most,
            row.sum_pss_mib,
        ),
        Target::at_most(
            "one more adapter in a worker, less sealing its file, ms",
            5.0,
            row.first_add_ms_median - row.seal_ms_median,
        ),
        Target::at_most("one more adapter in a further worker, ms", 5.0, row.later_add_ms_median),
        Target::at_most("one more adapter: PSS of all, MiB", row.adapter_mib + 1.0, row.one_more_mib),
        Target::at_most("another adapter for each call, in units of one", 1.05, row.switching),
    ]
}

pub fn table(row: &Row) -> Table {
    let mut table = Table::new(["adapters", "PSS of 4 workers, base", "an adapter", "all adapters", "one more"]);
    table.row([
        format!("{} of rank {RANK}", row.adapters),
        format!("{:.1} MiB ({:.0} MiB of weights)", row.base_pss_mib, row.base_mib),
        format!("{:.1} MiB", row.adapter_mib),
        format!("{:.1} MiB", row.sum_pss_mib),
        format!("{:.1} MiB", row.one_more_mib),
    ]);
    let (low, high) = row.later_add_ms_quartiles;
    let (least, most) = row.switching_quartiles;
    table.row(["add: first worker", "seal its file", "add: further ones", "forward", "switching"]);
    table.row([
        time(row.first_add_ms_median * 1e3),
        time(row.seal_ms_median * 1e3),
        format!("{} {low:.2}..{high:.2} ms", time(row.later_add_ms_median * 1e3)),
        format!("{} ({:.2}x without)", time(row.forward_ms_median * 1e3), row.adapted),
        format!("{:.3}x {least:.3}..{most:.3}", row.switching),
    ]);
    table
}
