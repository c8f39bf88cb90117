//! Measures workers with their own copy of the weights: plain processes that are controlled through
//! their standard input.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use benches::Progress;
use benches::child::{ChildRpc, send, serve, this_program, together};
use benches::machine::rollup;
use benches::model::{Forward, ModelConfig};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{FORWARDS, Measured};

/// The first message of a worker with its own copy.
#[derive(Serialize, Deserialize)]
struct Ready {
    anonymous_before: u64,
    load_us: f64,
    forward: Forward,
}

fn program(config: &ModelConfig, role: &str, file: &Path) -> Result<Command> {
    let mut program = this_program();
    program.arg(role).arg(file).arg("--model").arg(serde_json::to_string(config)?);
    Ok(program)
}

/// Creates a model, writes it to the file, and sends its result.
pub fn write(config: ModelConfig, file: &Path) -> Result<()> {
    let model = config.init(&Device::flex());
    model.save(file)?;
    send(&model.forward())
}

/// Writes the file in another process, so that this one has never had a model in memory. Returns
/// the checksum of the model's result.
pub fn write_elsewhere(config: &ModelConfig, file: &Path) -> Result<u64> {
    let mut writer = ChildRpc::start(&mut program(config, "--write", file)?)?;
    let forward: Forward = writer.recv()?;
    writer.end()?;
    Ok(forward.checksum)
}

/// Runs a worker: loads the model, and runs a forward pass for each request.
pub fn work(config: ModelConfig, file: &Path) -> Result<()> {
    let anonymous_before = rollup(std::process::id(), "Anonymous")?;
    let begun = Instant::now();
    let model = config.load(file)?;
    let load_us = begun.elapsed().as_secs_f64() * 1e6;
    send(&Ready { anonymous_before, load_us, forward: model.forward() })?;
    serve(|()| Ok(model.forward()))
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
    let start = |_| {
        let mut program = program(config, "--own-copy", file)?;
        // The number of threads of a worker that borrows.
        ChildRpc::start(program.env("RAYON_NUM_THREADS", (cores / workers).max(1).to_string()))
    };
    let mut team: Vec<_> = (0..workers).map(start).collect::<Result<_>>()?;
    let first: Vec<(Ready, _)> = together(team.iter_mut(), |worker| Ok((worker.recv()?, begun.elapsed())))?;
    for worker in &mut team {
        for _ in 0..FORWARDS {
            measured.forward(worker.call(&())?);
        }
    }

    let mut sum_pss = rollup(std::process::id(), "Pss")?;
    for (worker, (ready, took)) in team.iter().zip(first) {
        let pid = worker.pid();
        let anonymous = rollup(pid, "Anonymous")?;
        sum_pss += rollup(pid, "Pss")?;
        measured.anonymous = measured.anonymous.max(anonymous);
        measured.anonymous_growth = measured.anonymous_growth.max(anonymous.saturating_sub(ready.anonymous_before));
        measured.attach_us.push(ready.load_us);
        measured.first(ready.forward, took);
    }
    measured.sum_pss = measured.sum_pss.max(sum_pss);
    team.into_iter().try_for_each(ChildRpc::end)
}
