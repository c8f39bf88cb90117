//! Huge pages, prefault and lock: benefit and cost of each for a new process, and how to read their
//! status.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::memory::{HugePages, MemoryPolicy};
use ray_zerocopy::report::Report;
use ray_zerocopy::{ActorWrapper, Pipeline};
use serde::{Deserialize, Serialize};

/// Shares one model with several memory policies, and measures the start of an actor with each
///
/// Rounds are interleaved and medians are shown, since other programs may run on this machine.
#[derive(Parser)]
#[command(after_help = "Try `--mib 1024` in a release build. The last report shows what the kernel applied.")]
struct Args {
    /// Approximate size of the weights, in MiB
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(4..))]
    mib: u16,
    /// Number of rounds of each policy
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
}

#[derive(Pipeline)]
struct Model {
    #[pipeline(config)]
    config: ModelConfig,
    layers: Vec<Linear>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ModelConfig {
    layers: usize,
}

/// 1024 x 1024 weights of four bytes are 4 MiB.
const WIDTH: usize = 1024;

impl ModelConfig {
    fn init(&self, device: &Device) -> Model {
        let layers = (0..self.layers).map(|_| LinearConfig::new(WIDTH, WIDTH).init(device)).collect();
        Model { config: self.clone(), layers }
    }
}

#[ray_zerocopy::remote]
impl Model {
    /// Reads every weight once.
    pub fn score(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}

/// Durations of one round.
#[derive(Clone, Copy)]
struct Times {
    /// Applying the policy in the owner, once for all workers.
    once: Duration,
    /// Applying the policy in a worker, before it is ready.
    worker: Duration,
    /// The worker's first call.
    first: Duration,
    /// Each further call.
    later: Duration,
}

fn attempt(model: &Model, memory: MemoryPolicy, x: &Tensor<2>) -> Result<(Times, Report)> {
    let shared = ActorWrapper::new(model)?.threads_per_worker(1).memory(memory);
    let once = shared.arena().memory_status().took;
    let actor = shared.spawn(1)?;
    let call = || {
        let begun = Instant::now();
        let score = actor.score(x.clone()).wait()?;
        Ok::<_, anyhow::Error>((begun.elapsed(), score.into_data()))
    };
    let expected = model.score(x.clone()).into_data();
    let (first, score) = call()?;
    ensure!(score == expected, "the result differs under {memory:?}");
    let later = (0..9).map(|_| Ok(call()?.0)).collect::<Result<_>>()?;
    let report = actor.report()?;
    shared.arena().verify()?;
    let worker = report.processes[1].memory.took;
    Ok((Times { once, worker, first, later: median(later) }, report))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let device = Device::flex();
    let model = ModelConfig { layers: usize::from(args.mib) / 4 }.init(&device);
    let x = Tensor::<2>::ones([1, WIDTH], &device);
    let huge = MemoryPolicy::default().huge_pages(HugePages::Now);
    let policies = [
        ("nothing", MemoryPolicy::default()),
        ("prefault", MemoryPolicy::default().prefault(true)),
        ("lock", MemoryPolicy::default().lock(true)),
        ("huge pages", huge),
        ("all three", huge.prefault(true).lock(true)),
    ];
    let mut times = policies.map(|_| Vec::new());
    let mut last = None;
    for _ in 0..args.rounds {
        for ((_, memory), times) in policies.iter().zip(&mut times) {
            let (found, report) = attempt(&model, *memory, &x)?;
            times.push(found);
            last = Some(report);
        }
    }
    println!("{} MiB of weights, medians of {} rounds, in ms", usize::from(args.mib) / 4 * 4, args.rounds);
    println!("{:<11} {:>9} {:>9} {:>10} {:>10}", "policy", "once", "worker", "first call", "later ones");
    for ((name, _), times) in policies.iter().zip(&times) {
        let of = |part: fn(&Times) -> Duration| median(times.iter().map(part).collect()).as_secs_f64() * 1e3;
        let (once, worker) = (of(|times| times.once), of(|times| times.worker));
        let (first, later) = (of(|times| times.first), of(|times| times.later));
        println!("{name:<11} {once:>9.1} {worker:>9.1} {first:>10.1} {later:>10.1}");
    }
    if let Some(report) = last {
        println!("\n{report}");
    }
    Ok(())
}
