//! Tasks: waiting, awaiting, gathering, deadlines, and failures of methods and workers.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clap::Parser;
use ray_zerocopy::{CallError, Error, LocalPool, Pipeline, TaskWrapper, gather};
use rustix::process::{Pid, Signal, kill_process};

/// Runs method calls as tasks and shows every way to get their results
///
/// Each call returns a `Pending` immediately and runs in a free worker process. The example also
/// shows tasks whose method panics, whose deadline passes, or whose worker is killed. Each step
/// states what it expects, and the program fails otherwise. Workers print the expected panics.
#[derive(Parser)]
#[command(after_help = "Next: actors, for state and for many calls.")]
struct Args {
    /// Number of worker processes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
}

#[derive(Pipeline)]
#[pipeline(init = Model::new)]
struct Model {
    layer: Linear,
}

#[ray_zerocopy::remote]
impl Model {
    /// An associated function without `self`, which is not called remotely.
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(64, 64).init(device) }
    }

    /// Runs a forward pass.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layer.forward(x)
    }

    /// Sleeps, and returns the id of the process.
    pub fn sleep(&self, millis: u64) -> u32 {
        std::thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }

    /// Panics if the text is not a number.
    pub fn double(&self, text: String) -> i64 {
        match text.parse::<i64>() {
            Ok(number) => 2 * number,
            Err(error) => panic!("`{text}`: {error}"),
        }
    }

    /// Returns a `Result`. An error of the method is an ordinary result.
    pub fn half(&self, number: i64) -> std::result::Result<i64, String> {
        if number % 2 == 0 { Ok(number / 2) } else { Err(format!("{number} is odd")) }
    }

    /// The first call creates a file and hangs; later calls return the id of the process.
    pub fn hang_once(&self, note: String) -> u32 {
        if std::fs::File::create_new(&note).is_ok() {
            std::thread::sleep(Duration::from_secs(600));
        }
        std::process::id()
    }

    /// Aborts the process on every call.
    pub fn abort(&self) {
        std::process::abort()
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let args = Args::parse();
    let device = Device::flex();
    let model = Model::new(&device);
    let engine = LocalPool::builder().workers(usize::from(args.workers)).start()?;
    let tasks = TaskWrapper::on(&engine, &model)?;
    println!("owner {}, workers {:?}", std::process::id(), pids(&engine));

    results(&tasks, &model, &device)?;
    errors(&tasks)?;
    deaths(&tasks, &engine)
}

/// Shows the ways to get a result.
fn results(tasks: &TaskWrapper<Model>, model: &Model, device: &Device) -> Result<()> {
    let x = Tensor::<2>::ones([2, 64], device);
    let there = tasks.forward(x.clone()).wait()?;
    ensure!(there.into_data() == model.forward(x.clone()).into_data(), "a task returns another result");
    println!("wait           the same answer as here, bit for bit");

    let mut pending = tasks.sleep(300);
    let mut asked = 1;
    let pid = loop {
        match pending.wait_timeout(Duration::from_millis(50)) {
            Some(result) => break result?,
            None => asked += 1,
        }
    };
    println!("wait_timeout   worker {pid} was done by question {asked}");

    let (left, right) = pollster::block_on(async {
        // Both are already running: a call starts when it is made, not when it is awaited.
        let (left, right) = (tasks.double("4".to_owned()), tasks.double("19".to_owned()));
        Ok::<_, Error>((left.await?, right.await?))
    })?;
    ensure!((left, right) == (8, 38), "awaited tasks return {left} and {right}");
    println!("await          {left} and {right}, on any executor");

    let numbers = gather((0..6).map(|number| tasks.double(number.to_string()))).wait()?;
    ensure!(numbers == [0, 2, 4, 6, 8, 10], "gathered results are out of order: {numbers:?}");
    println!("gather         {numbers:?}, in the order of the calls");
    Ok(())
}

/// Shows failures of methods.
fn errors(tasks: &TaskWrapper<Model>) -> Result<()> {
    ensure!(tasks.half(7).wait()? == Err("7 is odd".to_owned()), "a method's own error did not come back");
    println!("own error      comes back as the method's result");

    let error = tasks.double("seven".to_owned()).wait().err().context("a panic must be an error")?;
    let Error::Call(CallError::Panicked { worker, .. }) = &error else { bail!("expected `Panicked`, found: {error}") };
    println!("panic          {error}");
    println!("               {worker} lives on");

    let hasty = tasks.clone().deadline(Duration::from_millis(300));
    let error = hasty.sleep(600_000).wait().err().context("a missed deadline must be an error")?;
    ensure!(matches!(error, Error::Call(CallError::Deadline { .. })), "expected `Deadline`, found: {error}");
    println!("deadline       {error}");
    Ok(())
}

/// Shows deaths of workers.
fn deaths(tasks: &TaskWrapper<Model>, engine: &LocalPool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let note = folder.path().join("note");
    let pending = tasks.hang_once(note.to_string_lossy().into_owned());
    until(|| note.exists());
    // One worker runs the task, but it is not known which, so all are killed.
    let killed = pids(engine);
    for &pid in &killed {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id is a positive number")?;
        kill_process(pid, Signal::KILL)?;
    }
    let pid = pending.wait()?;
    ensure!(!killed.contains(&pid), "process {pid} was killed but returned a result");
    println!("kill -9        of {killed:?}: the task ran again, in {pid}");

    let error = tasks.abort().wait().err().context("an abort must be an error")?;
    let Error::Call(CallError::WorkerDied { attempts, .. }) = &error else {
        bail!("expected `WorkerDied`, found: {error}")
    };
    ensure!(*attempts == 3, "it was tried {attempts} times");
    println!("abort          {error}");

    let error = tasks.clone().attempts(1).abort().wait().err().context("an abort must be an error")?;
    ensure!(matches!(error, Error::Call(CallError::WorkerDied { attempts: 1, .. })), "it was repeated: {error}");
    println!("attempts(1)    {error}");
    ensure!(tasks.double("21".to_owned()).wait()? == 42, "the workers were not replaced");
    println!("afterwards     the workers are {:?}, and all is well", pids(engine));
    Ok(())
}

fn pids(engine: &LocalPool) -> Vec<u32> {
    engine.workers().iter().map(|worker| worker.pid).collect()
}

fn until(done: impl Fn() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(5));
    }
}
