//! Measures sending and returning a large tensor, compared with one copy of it in memory.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, ensure};
use benches::model::checksum;
use benches::stats::{self, Ratio};
use benches::{Progress, Table, Target, time};
use burn::tensor::Tensor;
use ray_zerocopy::{ActorWrapper, LocalPool, TaskWrapper};
use serde::Serialize;

use crate::{Args, Model, numbers};

#[derive(Serialize)]
pub struct Row {
    way: &'static str,
    mib: u32,
    ms_median: f64,
    /// In units of a `memcpy` into memory that is already in use.
    warm: Ratio,
    /// In units of a `memcpy` into fresh memory.
    fresh: Ratio,
    /// One subsequent pass over the result, which maps its pages.
    read_ms_median: f64,
}

/// A `memcpy` into memory that is already in use, and into fresh memory; then calls, of which the even ones
/// return their argument, and the odd ones another tensor.
const WAYS: [&str; 10] = [
    "memcpy, memory in use",
    "memcpy, fresh memory",
    "task, the same back",
    "task, another back",
    "actor, the same back",
    "actor, another back",
    "task, recycled, the same back",
    "task, recycled, another back",
    "actor, recycled, the same back",
    "actor, recycled, another back",
];
/// The first call that uses memory again.
const RECYCLED: usize = 6;

pub fn measure(model: &Model, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let engine = LocalPool::builder().workers(1).start()?;
    let tasks = TaskWrapper::on(&engine, model)?;
    let actors = ActorWrapper::new(model)?.spawn(1)?;
    // Room for one message and what comes with the tensor.
    let room = u64::from(args.tensor_mib + 2) << 20;
    let recycling = LocalPool::builder().workers(1).recycled_memory(room).start()?;
    let recycled_tasks = TaskWrapper::on(&recycling, model)?;
    let recycled_actors = ActorWrapper::on(&recycling, model)?.spawn(1)?;

    let count = (args.tensor_mib as usize) << 18;
    let (x, other) = (numbers(count, 0.0), numbers(count, 1.0));
    let bytes = |tensor: &Tensor<1>| tensor.clone().into_data().as_bytes().to_vec();
    let source = bytes(&x);
    let (same, another) = (checksum(&source), checksum(&bytes(&other)));
    let mut target = source.clone();

    let mut once = |way: usize| -> Result<(f64, f64)> {
        let begun = Instant::now();
        let result = match way {
            0 => {
                black_box(&mut target).copy_from_slice(black_box(&source));
                let taken = begun.elapsed();
                let begun = Instant::now();
                ensure!(checksum(&target) == same, "memcpy copied something else");
                return Ok((taken.as_secs_f64() * 1e3, begun.elapsed().as_secs_f64() * 1e3));
            }
            1 => {
                let copy = black_box(black_box(&source).to_vec());
                let taken = begun.elapsed();
                let begun = Instant::now();
                ensure!(checksum(&copy) == same, "memcpy copied something else");
                return Ok((taken.as_secs_f64() * 1e3, begun.elapsed().as_secs_f64() * 1e3));
            }
            2 => tasks.echo(x.clone()).wait()?,
            3 => tasks.exchange(x.clone()).wait()?,
            4 => actors.echo(x.clone()).wait()?,
            5 => actors.exchange(x.clone()).wait()?,
            6 => recycled_tasks.echo(x.clone()).wait()?,
            7 => recycled_tasks.exchange(x.clone()).wait()?,
            8 => recycled_actors.echo(x.clone()).wait()?,
            _ => recycled_actors.exchange(x.clone()).wait()?,
        };
        let taken = begun.elapsed();
        let begun = Instant::now();
        let read = checksum(result.into_data().as_bytes());
        let reading = begun.elapsed();
        ensure!(
            read == if way.is_multiple_of(2) { same } else { another },
            "{}: the returned tensor is wrong",
            WAYS[way]
        );
        Ok((taken.as_secs_f64() * 1e3, reading.as_secs_f64() * 1e3))
    };
    // The first calls load the pipeline and create the tensor that `exchange` returns.
    (0..WAYS.len()).try_for_each(|way| once(way).map(drop))?;

    let mut calls = vec![Vec::new(); WAYS.len()];
    let mut reads = calls.clone();
    for round in 0..usize::from(args.rounds) {
        progress.step("tensors");
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            let (call, read) = once(way)?;
            calls[way].push(call);
            reads[way].push(read);
        }
    }
    let row = |way: usize| Row {
        way: WAYS[way],
        mib: args.tensor_mib,
        ms_median: stats::median(&calls[way]),
        warm: Ratio::of(&calls[way], &calls[0]),
        fresh: Ratio::of(&calls[way], &calls[1]),
        read_ms_median: stats::median(&reads[way]),
    };
    Ok((0..WAYS.len()).map(row).collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().enumerate().skip(2).map(|(index, Row { way, mib, warm, fresh, .. })| {
        // Without memory that is used again, both messages are in fresh memory.
        let (unit, ratio) = if index >= RECYCLED { ("memory in use", warm) } else { ("fresh memory", fresh) };
        Target::at_most(format!("{mib} MiB there and back, {way}, in memcpys into {unit}"), 3.0, ratio.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mib = rows.first().map_or(0, |row| row.mib);
    let heading = [
        format!("{mib} MiB there and back"),
        "takes".into(),
        "memcpy, in use".into(),
        "memcpy, fresh".into(),
        "reading it".into(),
    ];
    let mut table = Table::new(heading);
    for Row { way, ms_median, warm, fresh, read_ms_median, .. } in rows {
        let (call, read) = (time(ms_median * 1e3), time(read_ms_median * 1e3));
        table.row([(*way).to_owned(), call, warm.to_string(), fresh.to_string(), read]);
    }
    table
}
