//! Measures a small call, compared with a socket pair.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use benches::child::{Reaped, this_program};
use benches::stats::{Ratio, Summary};
use benches::{Progress, Samples, Table, Target, time};
use ray_zerocopy::{ActorWrapper, LocalPool, TaskWrapper, Threads};
use serde::Serialize;

use crate::{Args, Model};

/// Size of a message through the socket pair.
const BYTES: usize = 64;

#[derive(Serialize)]
pub struct Row {
    way: &'static str,
    #[serde(flatten)]
    summary: Summary,
    /// In units of the socket pair.
    #[serde(flatten)]
    ratio: Ratio,
}

/// Runs the peer of the socket pair: echoes messages until the socket is closed.
pub fn echo() -> Result<()> {
    let mut socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?);
    let mut bytes = [0; BYTES];
    loop {
        match socket.read(&mut bytes[..1])? {
            0 => return Ok(()),
            _ => socket.read_exact(&mut bytes[1..])?,
        }
        socket.write_all(&bytes)?;
    }
}

/// A socket pair whose peer process runs [`echo`].
struct EchoProcess {
    socket: UnixStream,
    peer: Reaped,
}

impl EchoProcess {
    fn new() -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let peer = this_program().arg("--echo").stdin(Stdio::from(OwnedFd::from(theirs))).spawn();
        Ok(Self { socket, peer: Reaped(peer.context("the peer cannot be started")?) })
    }

    fn round_trip(&mut self, number: u64) -> Result<()> {
        let bytes = [number as u8; BYTES];
        self.socket.write_all(&bytes)?;
        let mut back = [0; BYTES];
        self.socket.read_exact(&mut back)?;
        ensure!(back == bytes, "the echoed bytes differ from those sent");
        Ok(())
    }
}

pub fn measure(model: &Model, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    const WAYS: [&str; 5] = ["socket pair", "task", "actor", "task, thread", "actor, thread"];

    let mut echo = EchoProcess::new()?;
    let engine = LocalPool::builder().workers(1).start()?;
    let tasks = TaskWrapper::on(&engine, model)?;
    let actors = ActorWrapper::new(model)?.spawn(1)?;
    let threads = Threads::new(1);
    let thread_tasks = TaskWrapper::on(&threads, model)?;
    let thread_actors = ActorWrapper::on(&threads, model)?.spawn(1)?;
    let mut number = 0_u64;
    let mut call = |way: usize| -> Result<()> {
        number += 1;
        let next = match way {
            0 => return echo.round_trip(number),
            1 => tasks.next(number).wait()?,
            2 => actors.next(number).wait()?,
            3 => thread_tasks.next(number).wait()?,
            _ => thread_actors.next(number).wait()?,
        };
        ensure!(next == number + 1, "`next` returned {next} for {number}");
        Ok(())
    };
    // The first call of each worker loads the pipeline.
    (0..3 * WAYS.len()).try_for_each(|way| call(way % WAYS.len()))?;

    let mut all = vec![Samples::default(); WAYS.len()];
    let mut medians = vec![Vec::new(); WAYS.len()];
    for round in 0..usize::from(args.rounds) {
        progress.step("small calls");
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            let samples = Samples::take(args.calls as usize, || call(way))?;
            medians[way].push(samples.median());
            all[way].extend(samples);
        }
    }
    drop(echo.socket);
    echo.peer.end()?;
    let row =
        |way: usize| Row { way: WAYS[way], summary: all[way].summary(), ratio: Ratio::of(&medians[way], &medians[0]) };
    Ok((0..WAYS.len()).map(row).collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().skip(1).map(|row| {
        if row.way.ends_with("thread") {
            return Target::at_most(format!("small call, {}, p50 in µs", row.way), 2.0, row.summary.p50_us);
        }
        Target::at_most(format!("small call, {}, in round trips of a socket pair", row.way), 1.3, row.ratio.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["small call", "p50", "p99", "in units of the socket pair"]);
    for Row { way, summary, ratio } in rows {
        table.row([(*way).to_owned(), time(summary.p50_us), time(summary.p99_us), ratio.to_string()]);
    }
    table
}
