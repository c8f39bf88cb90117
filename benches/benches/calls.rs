//! What a call to another process costs beside the call of the method itself, and how many calls a second get through.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use benches::stats::{self, Summary};
use benches::{Common, Machine, Samples, Table, time};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{ActorWrapper, Local, Pipeline, TaskWrapper, gather};
use serde::Serialize;

/// Calls as tasks and as calls of an actor, beside the same method called in this process.
///
/// First the latency of one call at a time: of a method that does nothing, and of one that gets a tensor of 1 MiB and
/// returns another. Then the throughput: many calls are made, and all of them waited for, with one worker and with two.
/// A method that works for a millisecond shows what workers gain, the other two what the owner, its threads and the
/// kernel have to do for each call. What is compared takes turns within each round.
#[derive(Parser)]
#[command(
    name = "calls",
    after_help = "cargo bench --workspace --bench calls\ncargo bench --workspace --bench calls -- --rounds 20 --json calls.json"
)]
struct Args {
    /// How many rounds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    common: Common,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    head: Linear,
}

#[ray_zerocopy::remote]
impl Model {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(8, 8).init(device) }
    }

    /// Nothing: what remains is the call.
    pub fn nothing(&self) {}

    /// As many bytes as it gets, and next to no work.
    pub fn increment(&self, x: Tensor<2>) -> Tensor<2> {
        x.add_scalar(1.0)
    }

    /// Keeps a core busy.
    pub fn work(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

/// 512 x 512 numbers of four bytes are 1 MiB.
const SIDE: usize = 512;
const WORK: Duration = Duration::from_millis(1);

#[derive(Serialize)]
struct Results {
    latency: Vec<Latency>,
    throughput: Vec<Throughput>,
}

/// One method, called in three ways.
#[derive(Serialize)]
struct Latency {
    method: &'static str,
    direct: Summary,
    task: Summary,
    actor: Summary,
}

/// One method, called many times at once.
#[derive(Serialize)]
struct Throughput {
    method: &'static str,
    workers: usize,
    calls: usize,
    /// The median of the rounds, and the smallest and the largest.
    per_second: f64,
    range: (f64, f64),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    if !args.common.wants("calls") {
        return Ok(());
    }
    let machine = Machine::this();
    args.common.announce("calls", &machine);

    let quick = args.common.quick();
    let rounds = if quick { 2 } else { args.rounds.into() };
    let model = Model::new(&Device::flex());
    let scale = |full: usize| if quick { full.min(20) } else { full };
    let latency = latency(&model, rounds, scale)?;
    println!("{}", latency_table(&latency));
    let throughput = throughput(&model, rounds, scale)?;
    println!("{}", throughput_table(&throughput));
    println!("{rounds} rounds: medians, in brackets the 99th percentile or the lowest and the highest round.");
    args.common.record("calls", &machine, &Results { latency, throughput })
}

/// Reads a result, which has to be what [`Model::increment`] makes of ones.
fn read(result: Tensor<2>) -> Result<()> {
    let data = result.into_data();
    let good = data.as_slice::<f32>().is_ok_and(|numbers| numbers.iter().all(|&number| number == 2.0));
    ensure!(good, "the result is wrong");
    Ok(())
}

fn latency(model: &Model, rounds: usize, scale: impl Fn(usize) -> usize) -> Result<Vec<Latency>> {
    let engine = Local::builder().workers(1).start()?;
    let tasks = TaskWrapper::on(&engine, model)?;
    let actors = ActorWrapper::new(model)?.spawn(1)?;
    let x = Tensor::<2>::ones([SIDE, SIDE], &Device::flex());
    // The task's worker loads the pipeline with the first call.
    tasks.nothing().wait()?;
    actors.nothing().wait()?;

    let mut nothing = vec![Samples::default(); 3];
    let mut increment = nothing.clone();
    for round in 0..rounds {
        for turn in 0..3 {
            let way = (round + turn) % 3;
            nothing[way].extend(Samples::take(scale(1000), || -> Result<()> {
                match way {
                    0 => black_box(model).nothing(),
                    1 => tasks.nothing().wait()?,
                    _ => actors.nothing().wait()?,
                }
                Ok(())
            })?);
            increment[way].extend(Samples::take(scale(100), || match way {
                0 => read(model.increment(x.clone())),
                1 => read(tasks.increment(x.clone()).wait()?),
                _ => read(actors.increment(x.clone()).wait()?),
            })?);
        }
    }
    let row = |method, ways: Vec<Samples>| Latency {
        method,
        direct: ways[0].summary(),
        task: ways[1].summary(),
        actor: ways[2].summary(),
    };
    Ok(vec![row("nothing()", nothing), row("1 MiB -> 1 MiB", increment)])
}

/// Makes some calls, and waits for all of them.
type Burst = fn(&TaskWrapper<Model>, &Tensor<2>, usize) -> Result<()>;

const BURSTS: [(&str, usize, Burst); 3] = [
    ("nothing()", 5000, |tasks, _, calls| {
        gather((0..calls).map(|_| tasks.nothing())).wait()?;
        Ok(())
    }),
    ("1 MiB -> 1 MiB", 300, |tasks, x, calls| {
        gather((0..calls).map(|_| tasks.increment(x.clone()))).wait()?;
        Ok(())
    }),
    ("1 ms of work", 300, |tasks, _, calls| {
        gather((0..calls).map(|_| tasks.work(WORK))).wait()?;
        Ok(())
    }),
];

fn throughput(model: &Model, rounds: usize, scale: impl Fn(usize) -> usize) -> Result<Vec<Throughput>> {
    let x = Tensor::<2>::ones([SIDE, SIDE], &Device::flex());
    let mut engines = Vec::new();
    for workers in [1, 2] {
        let engine = Local::builder().workers(workers).threads_per_worker(1).start()?;
        let tasks = TaskWrapper::on(&engine, model)?;
        // Enough of them that every worker gets one and loads the pipeline.
        gather((0..4 * workers).map(|_| tasks.work(WORK))).wait()?;
        engines.push((workers, tasks));
    }
    let mut rows = Vec::new();
    for (method, calls, burst) in BURSTS {
        let calls = scale(calls);
        let mut rates = vec![Vec::with_capacity(rounds); engines.len()];
        for round in 0..rounds {
            for turn in 0..engines.len() {
                let index = (round + turn) % engines.len();
                let begun = Instant::now();
                burst(&engines[index].1, &x, calls)?;
                rates[index].push(calls as f64 / begun.elapsed().as_secs_f64());
            }
        }
        rows.extend(engines.iter().zip(&rates).map(|((workers, _), rates)| Throughput {
            method,
            workers: *workers,
            calls,
            per_second: stats::median(rates),
            range: stats::range(rates),
        }));
    }
    Ok(rows)
}

fn latency_table(rows: &[Latency]) -> Table {
    let mut table = Table::new(["latency of", "called directly", "task", "actor"]);
    for row in rows {
        let cell = |ways: Summary| format!("{} ({})", time(ways.median_us), time(ways.p99_us));
        table.row([row.method.to_owned(), cell(row.direct), cell(row.task), cell(row.actor)]);
    }
    table
}

fn throughput_table(rows: &[Throughput]) -> Table {
    let mut table = Table::new(["throughput of", "workers", "calls at once", "calls/s"]);
    for row in rows {
        let (low, high) = row.range;
        let rate = format!("{:.0} ({low:.0}..{high:.0})", row.per_second);
        table.row([row.method.to_owned(), row.workers.to_string(), row.calls.to_string(), rate]);
    }
    table
}
