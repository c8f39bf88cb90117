//! Workers that have their own copy: plain processes, which are told what to do on their standard input.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use benches::Progress;
use benches::child::{Reaped, this_program};
use benches::machine::rollup;
use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::ModelConfig;
use crate::{FORWARDS, Forward, Measured};

/// How long a model may take to be made and written.
const PATIENCE: Duration = Duration::from_secs(600);

/// What such a worker says first.
#[derive(Serialize, Deserialize)]
struct Ready {
    anonymous_before: u64,
    load_us: f64,
    forward: Forward,
}

fn program(config: &ModelConfig, role: &str, file: &Path) -> Result<Command> {
    let mut program = this_program();
    program.arg(role).arg(file).arg("--model").arg(serde_json::to_string(config)?).stdout(Stdio::piped());
    Ok(program)
}

fn say(what: &impl Serialize) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(what)?)?;
    Ok(stdout.flush()?)
}

fn hear<T: DeserializeOwned>(from: &mut BufReader<ChildStdout>) -> Result<T> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("a child process said {line:?}"))
}

/// Makes a model, writes it into the file, and says what it computes.
pub fn write(config: ModelConfig, file: &Path) -> Result<()> {
    let model = config.init(&Device::flex());
    model.save(file)?;
    say(&model.forward())
}

/// Lets another process make the file, so that this one has never had a model. Returns what the model computes.
pub fn write_elsewhere(config: &ModelConfig, file: &Path) -> Result<u64> {
    let mut writer = Reaped(program(config, "--write", file)?.spawn().context("the writer cannot be started")?);
    let forward: Forward = hear(&mut BufReader::new(writer.0.stdout.take().context("no pipe")?))?;
    writer.wait(PATIENCE)?;
    Ok(forward.checksum)
}

/// A worker's life: loads the model, and computes with it for each line that comes in.
pub fn work(config: ModelConfig, file: &Path) -> Result<()> {
    let anonymous_before = rollup(std::process::id(), "Anonymous")?;
    let begun = Instant::now();
    let model = config.load(file)?;
    let load_us = begun.elapsed().as_secs_f64() * 1e6;
    say(&Ready { anonymous_before, load_us, forward: model.forward() })?;
    for line in std::io::stdin().lines() {
        line?;
        say(&model.forward())?;
    }
    Ok(())
}

struct Worker {
    process: Reaped,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(config: &ModelConfig, file: &Path, threads: usize) -> Result<Self> {
        let mut program = program(config, "--own-copy", file)?;
        // As many as a worker with a borrowed model has.
        program.env("RAYON_NUM_THREADS", threads.to_string()).stdin(Stdio::piped());
        let mut process = Reaped(program.spawn().context("a worker cannot be started")?);
        let orders = process.0.stdin.take().context("no pipe")?;
        let answers = BufReader::new(process.0.stdout.take().context("no pipe")?);
        Ok(Self { process, orders, answers })
    }

    fn forward(&mut self) -> Result<Forward> {
        writeln!(self.orders)?;
        hear(&mut self.answers)
    }

    fn end(self) -> Result<()> {
        drop(self.orders);
        self.process.end()
    }
}

pub fn measure(
    config: &ModelConfig,
    file: &Path,
    workers: usize,
    rounds: usize,
    progress: &Progress,
) -> Result<Measured> {
    let mut measured = Measured::default();
    for _ in 0..rounds {
        progress.step(format!("{workers} workers, own copies"));
        round(config, file, workers, &mut measured)?;
    }
    Ok(measured)
}

fn round(config: &ModelConfig, file: &Path, workers: usize, measured: &mut Measured) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let begun = Instant::now();
    let mut team: Vec<_> =
        (0..workers).map(|_| Worker::start(config, file, (cores / workers).max(1))).collect::<Result<_>>()?;
    let first =
        |worker: &mut Worker| -> Result<(Ready, Duration)> { Ok((hear(&mut worker.answers)?, begun.elapsed())) };
    let first: Vec<_> = std::thread::scope(|scope| {
        let waiting: Vec<_> = team.iter_mut().map(|worker| scope.spawn(|| first(worker))).collect();
        waiting
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<_>>()
    })?;
    for worker in &mut team {
        for _ in 0..FORWARDS {
            measured.forward(worker.forward()?);
        }
    }

    let mut sum_pss = rollup(std::process::id(), "Pss")?;
    for (worker, (ready, took)) in team.iter().zip(first) {
        let pid = worker.process.pid();
        let anonymous = rollup(pid, "Anonymous")?;
        sum_pss += rollup(pid, "Pss")?;
        measured.anonymous = measured.anonymous.max(anonymous);
        measured.anonymous_growth = measured.anonymous_growth.max(anonymous.saturating_sub(ready.anonymous_before));
        measured.attach_us.push(ready.load_us);
        measured.first(ready.forward, took);
    }
    measured.sum_pss = measured.sum_pss.max(sum_pss);
    team.into_iter().try_for_each(Worker::end)
}
