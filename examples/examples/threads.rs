//! Threads: workers that are threads of this process, compared with worker processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use ray_zerocopy::engine::Backend;
use ray_zerocopy::error::CallPhase;
use ray_zerocopy::{
    ActorWrapper, Arena, CallError, Error, LocalPool, Pipeline, TaskWrapper, Threads, cancelled, gather, share,
};

/// Runs the same calls on threads of this process and in worker processes
///
/// Only the backend differs. All workers borrow the same weights. The example prints what a small
/// call and a large tensor cost on both. Then it shows a panic on a thread, and a deadline, which
/// answers the caller but cannot stop the thread. Each step states what it expects, and the program
/// fails otherwise. The thread prints the expected panic.
#[derive(Parser)]
#[command(after_help = "Compare the costs in a release build: cargo run --release --example threads
Next: batching, for many small calls of one method.")]
struct Args {
    /// Number of threads, and of worker processes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    layers: Vec<Linear>,
    #[pipeline(skip)]
    calls: usize, // the state of one actor
}

/// 4 layers of 512 x 512 weights of four bytes are 4 MiB.
const WIDTH: usize = 512;

/// Whether `work` has returned. Threads share the globals of this process. A worker process has its
/// own.
static HAS_STOPPED: AtomicBool = AtomicBool::new(false);

#[ray_zerocopy::remote]
impl Model {
    pub fn new(device: &Device) -> Self {
        Self { layers: (0..4).map(|_| LinearConfig::new(WIDTH, WIDTH).init(device)).collect(), calls: 0 }
    }

    /// Runs a forward pass.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Returns its argument.
    pub fn echo(&self, x: Tensor<2>) -> Tensor<2> {
        x
    }

    /// Panics if the text is not a number.
    pub fn double(&self, text: String) -> i64 {
        match text.parse::<i64>() {
            Ok(number) => 2 * number,
            Err(error) => panic!("`{text}`: {error}"),
        }
    }

    /// Works until no caller waits for the result any more.
    pub fn work(&self) {
        while !cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        HAS_STOPPED.store(true, Ordering::Release);
    }

    /// Counts the calls of one actor.
    pub fn count(&mut self) -> usize {
        self.calls += 1;
        self.calls
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init(); // for the worker processes; threads do not need it
    let args = Args::parse();
    let workers = usize::from(args.workers);
    let device = Device::flex();
    let model = Model::new(&device);
    let x = Tensor::<2>::ones([4, WIDTH], &device);
    let expected = model.forward(x.clone()).into_data();
    let arena = share(&model)?; // one copy of the weights, for threads and processes
    drop(model);

    let threads = Threads::new(workers);
    let tasks = run(&threads, &arena, &x, &expected)?;
    ensure!(tasks.pid().wait()? == std::process::id(), "a thread is in another process");
    println!("threads        the same answer as here, bit for bit; in this process");
    println!("               {}", costs(&tasks)?);

    let processes = LocalPool::builder().workers(workers).start()?;
    let others = run(&processes, &arena, &x, &expected)?;
    ensure!(others.pid().wait()? != std::process::id(), "a worker process is this process");
    println!("processes      the same answer as here, bit for bit; in another process");
    println!("               {}", costs(&others)?);

    failures(&tasks)?;
    actors(&threads, arena, workers)
}

/// Runs a forward pass on any backend, and compares the result with that of this process.
fn run(backend: &impl Backend, arena: &Arena, x: &Tensor<2>, expected: &TensorData) -> Result<TaskWrapper<Model>> {
    let tasks = TaskWrapper::<Model>::from_arena_on(backend, arena.clone())?;
    let there = tasks.forward(x.clone()).wait()?;
    ensure!(there.into_data() == *expected, "a worker returns another result");
    Ok(tasks)
}

/// Measures a call that does nothing, and one with a tensor of 16 MiB there and back.
fn costs(tasks: &TaskWrapper<Model>) -> Result<String> {
    let large = Tensor::<2>::ones([2048, 2048], &Device::flex());
    let small = median(1000, || tasks.pid().wait().map(drop))?;
    let large = median(9, || tasks.echo(large.clone()).wait().map(drop))?;
    Ok(format!("a small call takes {small:.1?}, 16 MiB there and back take {large:.1?}"))
}

/// Returns the median time of a call.
fn median(calls: usize, mut call: impl FnMut() -> ray_zerocopy::Result<()>) -> Result<Duration> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        call()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[calls / 2])
}

/// Shows a panic and a deadline on a thread.
fn failures(tasks: &TaskWrapper<Model>) -> Result<()> {
    let error = tasks.double("seven".to_owned()).wait().err().context("a panic must be an error")?;
    let Error::Call(CallError::Panicked { .. }) = &error else { bail!("expected `Panicked`, found: {error}") };
    println!("panic          {error}");
    ensure!(tasks.double("21".to_owned()).wait()? == 42, "the thread did not survive a panic");
    println!("               the thread lives on");

    let hasty = tasks.clone().deadline(Duration::from_millis(300));
    let error = hasty.work().wait().err().context("a missed deadline must be an error")?;
    let Error::Call(CallError::Deadline { phase: CallPhase::Thread(_), .. }) = &error else {
        bail!("expected `Deadline` on a thread, found: {error}")
    };
    println!("deadline       {error}");
    while !HAS_STOPPED.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("cancelled()    is `true` in the method since then, so it has returned");
    Ok(())
}

/// Shows actors that are threads, and the report of a process with threads.
fn actors(threads: &Threads, arena: Arena, workers: usize) -> Result<()> {
    let actors = ActorWrapper::<Model>::from_arena_on(threads, arena)?.spawn(workers + 1)?;
    let (first, second) = (actors.actor(0), actors.actor(1));
    gather([first.count(), first.count()]).wait()?;
    let counts = (first.count().wait()?, second.count().wait()?);
    ensure!(counts == (3, 1), "actors share their state: {counts:?}");
    println!("actors         are threads of their own, and each has its state: {counts:?}");

    let report = actors.report()?;
    println!("\n{report}");
    ensure!(report.processes.len() == 1, "a thread is counted as a process");
    ensure!(report.processes.iter().all(|process| process.copied == 0), "a thread copied weights");
    println!("\none process, and no thread copied a weight");
    Ok(())
}
