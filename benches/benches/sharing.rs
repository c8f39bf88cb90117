//! What N workers of one model cost in memory, and how long they take to come up: shared, and each with its own copy.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::child::{Reaped, this_program};
use benches::machine::rollup;
use benches::{Common, Machine, Table, stats, time};
use burn::nn::{Linear, LinearConfig};
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, Arena, Pipeline, gather};
use serde::{Deserialize, Serialize};

/// The memory of 1, 2 and 4 workers that run one model: borrowed from one arena, and each with its own copy.
///
/// The workers with their own copy are plain processes that load the model from a safetensors file, which is in the page
/// cache. Both kinds of workers run a forward pass, which reads every weight and has to give the same bits, before
/// the kernel is asked. PSS counts a page that n processes map as 1/n in each, so the sum is what the machine
/// has to have; it includes this process, which owns the arena. Anonymous is what a worker alone has.
#[derive(Parser)]
#[command(
    name = "sharing",
    after_help = "cargo bench --workspace --bench sharing\ncargo bench --workspace --bench sharing -- --mib 1024 --json sharing.json"
)]
struct Args {
    /// About how large the weights are, in MiB.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(4..))]
    mib: u32,
    #[command(flatten)]
    common: Common,
    /// Write the model into a file.
    #[arg(long, hide = true, value_names = ["FILE"], requires = "layers")]
    write: Option<PathBuf>,
    /// Be a worker that has its own copy.
    #[arg(long, hide = true, value_names = ["FILE"], requires = "layers")]
    own_copy: Option<PathBuf>,
    #[arg(long, hide = true)]
    layers: Option<usize>,
}

#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: ModelConfig,
    layers: Vec<Linear>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct ModelConfig {
    layers: usize,
}

/// 1024 x 1024 weights of four bytes are 4 MiB.
const WIDTH: usize = 1024;
const MIB_PER_LAYER: u32 = 4;
const WORKERS: [usize; 3] = [1, 2, 4];

impl ModelConfig {
    fn init(&self, device: &Device) -> Model {
        let layers = (0..self.layers).map(|_| LinearConfig::new(WIDTH, WIDTH).init(device)).collect();
        Model { config: *self, layers }
    }

    fn load(self, file: &Path) -> Result<Model> {
        let mut model = self.init(&Device::flex());
        let mut store = SafetensorsStore::from_file(file);
        let loaded =
            model.layers.load_from(&mut store).with_context(|| format!("{} cannot be read", file.display()))?;
        ensure!(loaded.is_success(), "{} does not hold the model: {loaded:?}", file.display());
        Ok(model)
    }
}

#[ray_zerocopy::remote]
impl Model {
    /// A forward pass on ones, which reads every weight: the bits of its sum.
    pub fn run(&self) -> u32 {
        let x = Tensor::<2>::ones([1, WIDTH], &Device::flex());
        let y = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        y.sum().into_scalar::<f32>().to_bits()
    }
}

/// What a worker with its own copy says when it is ready.
#[derive(Serialize, Deserialize)]
struct Ready {
    load_us: f64,
    answer: u32,
}

/// What some workers cost. Sizes are in bytes.
#[derive(Serialize, Clone, Copy)]
struct Cost {
    /// Of all processes, the benchmark's own included.
    pss: u64,
    /// Of a worker, the largest.
    anonymous: u64,
    /// Until the weights are there: the median of the workers.
    load_us: f64,
    /// From the order to start the workers until all have answered.
    up_us: f64,
}

#[derive(Serialize)]
struct Row {
    workers: usize,
    shared: Cost,
    own: Cost,
    /// PSS of own copies in units of that of shared weights.
    ratio: f64,
}

#[derive(Serialize)]
struct Results {
    weights: u64,
    share_us: f64,
    rows: Vec<Row>,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let quick = args.common.quick();
    // The least that is still much larger than a process.
    let mib = if quick { args.mib.min(32) } else { args.mib };
    let config = ModelConfig { layers: args.layers.unwrap_or((mib / MIB_PER_LAYER) as usize) };
    match (&args.write, &args.own_copy) {
        (Some(file), _) => return write(config, file),
        (_, Some(file)) => return work_alone(config, file),
        _ => {}
    }
    if !args.common.wants("sharing") {
        return Ok(());
    }
    let machine = Machine::this();
    args.common.announce("sharing", &machine);

    // Another process makes the file, so that this one has never had a model when the copies are measured.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("model.safetensors");
    let writer = child(&config, "--write", &file).spawn().map(Reaped).context("the writer cannot be started")?;
    writer.wait(Duration::from_secs(600))?;

    let own = WORKERS.map(|workers| own_copies(config, &file, workers));
    let begun = Instant::now();
    let model = config.load(&file)?;
    let loaded = begun.elapsed().as_secs_f64() * 1e6;
    let begun = Instant::now();
    let arena = ray_zerocopy::share(&model)?;
    let share_us = begun.elapsed().as_secs_f64() * 1e6;
    drop(model);

    let mut rows = Vec::new();
    for (workers, own) in WORKERS.into_iter().zip(own) {
        let ((own, theirs), (shared, ours)) = (own?, shared(&arena, workers)?);
        ensure!(ours == theirs, "a shared model's answer is {ours:#x}, that of a copy {theirs:#x}");
        rows.push(Row { workers, shared, own, ratio: own.pss as f64 / shared.pss as f64 });
    }
    println!("{}", table(&rows));
    println!(
        "{} MiB of weights: loaded from the file in {}, and shared in {}, once.",
        arena.len() >> 20,
        time(loaded),
        time(share_us)
    );
    println!(
        "PSS of all processes, Anonymous of the largest worker, MiB; load = attach or read the file; up = all have answered."
    );
    args.common.record("sharing", &machine, &Results { weights: arena.len(), share_us, rows })
}

fn child(config: &ModelConfig, role: &str, file: &Path) -> std::process::Command {
    let mut program = this_program();
    program.arg(role).arg(file).args(["--layers", &config.layers.to_string()]);
    program
}

fn write(config: ModelConfig, file: &Path) -> Result<()> {
    let model = config.init(&Device::flex());
    let mut store = SafetensorsStore::from_file(file);
    model.layers.save_into(&mut store).with_context(|| format!("{} cannot be written", file.display()))
}

/// Loads the model, says so, and waits until the standard input is closed.
fn work_alone(config: ModelConfig, file: &Path) -> Result<()> {
    let begun = Instant::now();
    let model = config.load(file)?;
    let load_us = begun.elapsed().as_secs_f64() * 1e6;
    let ready = Ready { load_us, answer: model.run() };
    println!("{}", serde_json::to_string(&ready)?);
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn own_copies(config: ModelConfig, file: &Path, workers: usize) -> Result<(Cost, u32)> {
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let begun = Instant::now();
    let mut children = Vec::with_capacity(workers);
    for _ in 0..workers {
        let mut program = child(&config, "--own-copy", file);
        // As many threads as a shared worker has.
        program.env("RAYON_NUM_THREADS", (cores / workers).max(1).to_string());
        let spawned = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        children.push(Reaped(spawned.context("a worker cannot be started")?));
    }
    let mut ready = Vec::with_capacity(workers);
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let said: Ready =
            serde_json::from_str(&line).with_context(|| format!("worker {} said {line:?}", child.pid()))?;
        ready.push(said);
    }
    let up_us = begun.elapsed().as_secs_f64() * 1e6;

    let mut pss = rollup(std::process::id(), "Pss")?;
    let mut anonymous = 0;
    for child in &children {
        pss += rollup(child.pid(), "Pss")?;
        anonymous = anonymous.max(rollup(child.pid(), "Anonymous")?);
    }
    for mut child in children {
        drop(child.0.stdin.take());
        child.end()?;
    }
    let loads: Vec<_> = ready.iter().map(|ready| ready.load_us).collect();
    let answer = same(ready.iter().map(|ready| ready.answer))?;
    Ok((Cost { pss, anonymous, load_us: stats::median(&loads), up_us }, answer))
}

fn shared(arena: &Arena, workers: usize) -> Result<(Cost, u32)> {
    let begun = Instant::now();
    let actors = ActorWrapper::<Model>::from_arena(arena.clone()).spawn(workers)?;
    let answers = gather(actors.iter().map(|actor| actor.run())).wait()?;
    let up_us = begun.elapsed().as_secs_f64() * 1e6;

    let report = actors.report()?;
    let loads: Vec<_> =
        report.processes.iter().filter_map(|process| process.attach_micros).map(|micros| micros as f64).collect();
    ensure!(loads.len() == workers, "{} of {workers} workers are in the report", loads.len());
    let workers = report.processes.iter().filter(|process| process.attach_micros.is_some());
    let anonymous = workers.map(|process| process.private).max().unwrap_or_default();
    let cost = Cost { pss: report.pss(), anonymous, load_us: stats::median(&loads), up_us };
    actors.shut_down();
    Ok((cost, same(answers.into_iter())?))
}

fn same(mut answers: impl Iterator<Item = u32>) -> Result<u32> {
    let first = answers.next().context("no worker has answered")?;
    ensure!(answers.all(|answer| answer == first), "the workers' answers differ");
    Ok(first)
}

fn table(rows: &[Row]) -> Table {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let heading = ["workers", "weights", "PSS", "Anonymous", "load", "up", "PSS ratio"];
    let mut table = Table::new(heading);
    for row in rows {
        let ratio = format!("{:.2}", row.ratio);
        for (name, cost, ratio) in [("own copy", row.own, ""), ("shared", row.shared, ratio.as_str())] {
            table.row([
                row.workers.to_string(),
                name.to_owned(),
                mib(cost.pss),
                mib(cost.anonymous),
                time(cost.load_us),
                time(cost.up_us),
                ratio.to_owned(),
            ]);
        }
    }
    table
}
