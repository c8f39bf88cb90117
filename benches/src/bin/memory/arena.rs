//! Measures workers that borrow the weights.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use benches::Progress;
use benches::child::together;
use benches::machine::rollup;
use benches::model::{Forward, Model};
use ray_zerocopy::{ActorWrapper, Arena, LocalPool, TaskWrapper, gather};

use crate::{FORWARDS, Measured};

pub fn measure(arena: &Arena, workers: usize, rounds: usize, progress: &Progress) -> Result<Measured> {
    progress.step(format!("{workers} workers, arena: growth"));
    let (anonymous_growth, forwards) = growth(arena, workers)?;
    let checksums = forwards.iter().map(|forward| forward.checksum).collect();
    let mut measured = Measured { anonymous_growth, checksums, ..Measured::default() };
    for _ in 0..rounds {
        progress.step(format!("{workers} workers, arena"));
        round(arena, workers, &mut measured)?;
    }
    Ok(measured)
}

fn round(arena: &Arena, workers: usize, measured: &mut Measured) -> Result<()> {
    let begun = Instant::now();
    let actors = ActorWrapper::<Model>::from_arena(arena.clone()).spawn(workers)?;
    let first = together(actors.iter(), |actor| {
        let forward = actor.forward().wait()?;
        Ok((forward, begun.elapsed()))
    })?;
    for (forward, took) in first {
        measured.first(forward, took);
    }
    for actor in actors.iter() {
        for _ in 0..FORWARDS {
            measured.forward(actor.forward().wait()?);
        }
    }

    let report = actors.report()?;
    let loaded: Vec<_> = report.processes.iter().filter(|process| process.attach_micros.is_some()).collect();
    ensure!(loaded.len() == workers, "{} of {workers} workers are in the report", loaded.len());
    measured.attach_us.extend(loaded.iter().filter_map(|process| process.attach_micros).map(|micros| micros as f64));
    measured.anonymous = loaded.iter().map(|process| process.private).fold(measured.anonymous, u64::max);
    measured.sum_pss = measured.sum_pss.max(report.pss());
    actors.shut_down();
    Ok(())
}

/// Returns the largest growth of a worker's Anonymous memory from before the model is loaded until
/// after a forward pass.
///
/// Task workers are measured, because they load with their first call. Actors load when they start.
fn growth(arena: &Arena, workers: usize) -> Result<(u64, Vec<Forward>)> {
    const PAUSE: Duration = Duration::from_millis(50);

    let engine = LocalPool::builder().workers(workers).start()?;
    let anonymous = || -> Result<HashMap<u32, u64>> {
        engine.workers().iter().map(|worker| Ok((worker.pid, rollup(worker.pid, "Anonymous")?))).collect()
    };
    let before = anonymous()?;
    let tasks = TaskWrapper::<Model>::from_arena_on(&engine, arena.clone())?;
    // Calls cannot be assigned to a specific worker, but each worker runs one at a time.
    for _ in 0..20 {
        let forwards = gather((0..workers).map(|_| tasks.forward_and_wait(PAUSE))).wait()?;
        if before.keys().all(|pid| forwards.iter().any(|forward| forward.pid == *pid)) {
            let after = anonymous()?;
            let grown = |(pid, before): (&u32, &u64)| Some(after.get(pid)?.saturating_sub(*before));
            let growth = before.iter().map(grown).collect::<Option<Vec<_>>>().context("a worker was replaced")?;
            engine.shut_down();
            return Ok((growth.into_iter().max().unwrap_or_default(), forwards));
        }
    }
    Err(anyhow!("some of the {workers} workers did not receive a call"))
}
