//! Measures small calls that are under way together, compared with as many of Ray's own calls of empty
//! functions.

use std::time::Instant;

use anyhow::{Result, ensure};
use benches::stats::{Ratio, Summary};
use benches::{Progress, Samples, Table, Target, time};
use burn::tensor::Device;
use ray_zerocopy::__private::Bare;
use ray_zerocopy::ray::{Cluster, Options};
use ray_zerocopy::{ActorWrapper, TaskWrapper, gather};
use serde::Serialize;

use crate::Args;
use crate::calls::ModelConfig;

#[derive(Serialize)]
pub struct Row {
    way: &'static str,
    under_way: usize,
    /// Time per call.
    #[serde(flatten)]
    summary: Summary,
    /// In units of Ray's own calls of the same kind.
    #[serde(flatten)]
    ratio: Ratio,
}

/// The contestants, each with the index of the one that it is compared with.
const WAYS: [(&str, usize); 7] = [
    ("Ray's own tasks, all at once", 0),
    ("tasks, all at once", 0),
    ("Ray's own tasks, 4 at once", 2),
    ("tasks, 4 at once", 2),
    ("Ray's own calls of an actor", 4),
    ("calls of any actor of one", 4),
    ("calls of one actor", 4),
];

/// Processors of a task of which the cluster, which has 16, runs 4 at once.
const QUARTER: f64 = 3.9;

pub fn measure(cluster: &Cluster, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let model = ModelConfig { layers: 1 }.init(&Device::flex());
    let site = cluster.with(Options::default().cpus(0.1));
    let bare = [Bare::task(cluster)?, Bare::task_of(cluster, QUARTER)?, Bare::actor(cluster)?];
    let tasks = TaskWrapper::on(&site, &model)?;
    let quarter = TaskWrapper::on(&cluster.with(Options::default().cpus(QUARTER)), &model)?;
    let actors = ActorWrapper::on(&site, &model)?.spawn(1)?;
    let one = actors.actor(0);
    let under_way = usize::from(args.under_way);
    let numbers = 0..u64::from(args.under_way);
    let together = |way: usize| -> Result<()> {
        let results = match way {
            0 | 2 | 4 => return Ok(bare[way / 2].call_at_once(under_way)?),
            1 => gather(numbers.clone().map(|number| tasks.next(number))).wait()?,
            3 => gather(numbers.clone().map(|number| quarter.next(number))).wait()?,
            5 => gather(numbers.clone().map(|number| actors.next(number))).wait()?,
            _ => gather(numbers.clone().map(|number| one.next(number))).wait()?,
        };
        ensure!(results.into_iter().eq(numbers.clone().map(|number| number + 1)), "a result is that of another call");
        Ok(())
    };
    // The first calls load the pipelines.
    (0..3 * WAYS.len()).try_for_each(|turn| together(turn % WAYS.len()))?;

    // A set takes about as long as ten lone calls.
    let sets = (args.calls as usize / 10).max(1);
    let mut all = vec![Samples::default(); WAYS.len()];
    let mut medians = vec![Vec::new(); WAYS.len()];
    for round in 0..usize::from(args.rounds) {
        progress.step("calls under way together");
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            let mut samples = Samples::default();
            for _ in 0..sets {
                let start = Instant::now();
                together(way)?;
                samples.push(start.elapsed() / u32::from(args.under_way));
            }
            medians[way].push(samples.median());
            all[way].extend(samples);
        }
    }
    let row = |way: usize| {
        let (name, unit) = WAYS[way];
        let (summary, ratio) = (all[way].summary(), Ratio::of(&medians[way], &medians[unit]));
        Row { way: name, under_way, summary, ratio }
    };
    Ok((0..WAYS.len()).map(row).collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    let ours = rows.iter().zip(WAYS).enumerate().filter(|(at, (_, (_, unit)))| at != unit);
    ours.map(|(_, (row, (name, _)))| {
        Target::at_most(format!("{name}, {} under way, in calls of Ray's own", row.under_way), 1.15, row.ratio.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let under_way = rows.first().map_or(0, |row| row.under_way);
    let heading = format!("{under_way} small calls under way");
    let mut table = Table::new([&heading, "a call, p50", "p99", "in units of Ray's own"]);
    for Row { way, summary, ratio, .. } in rows {
        table.row([(*way).to_owned(), time(summary.p50_us), time(summary.p99_us), ratio.to_string()]);
    }
    table
}
