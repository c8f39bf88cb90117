//! Measures a small call, compared with Ray's own calls of empty functions.

use anyhow::{Result, ensure};
use benches::stats::{Ratio, Summary};
use benches::{Progress, Samples, Table, Target, time};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::__private::Bare;
use ray_zerocopy::ray::{Cluster, Options};
use ray_zerocopy::{ActorWrapper, Pipeline, TaskWrapper};
use serde::{Deserialize, Serialize};

use crate::Args;

/// A pipeline whose method does almost nothing.
#[derive(Pipeline)]
pub struct Model {
    #[pipeline(config)]
    config: ModelConfig,
    layers: Vec<Linear>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct ModelConfig {
    pub layers: usize,
}

impl ModelConfig {
    pub fn init(&self, device: &Device) -> Model {
        let layers = (0..self.layers).map(|_| LinearConfig::new(8, 8).init(device)).collect();
        Model { config: self.clone(), layers }
    }
}

#[ray_zerocopy::remote]
impl Model {
    pub fn next(&self, number: u64) -> u64 {
        number + self.layers.len().min(1) as u64
    }
}

#[derive(Serialize)]
pub struct Row {
    way: &'static str,
    #[serde(flatten)]
    summary: Summary,
    /// In units of Ray's own call of the same kind.
    #[serde(flatten)]
    ratio: Ratio,
}

/// The contestants, each with the index of the one that it is compared with.
const WAYS: [(&str, usize); 7] = [
    ("Ray's own task", 0),
    ("task, 2 tensors", 0),
    ("task, 400 tensors", 0),
    ("Ray's own actor", 3),
    ("actor, 2 tensors", 3),
    ("actor, 400 tensors", 3),
    ("actor, directly", 3),
];

pub fn measure(cluster: &Cluster, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let device = Device::flex();
    let (small, large) = (ModelConfig { layers: 1 }.init(&device), ModelConfig { layers: 200 }.init(&device));
    let site = cluster.with(Options::default().cpus(0.1));
    let bare = [Bare::task(cluster)?, Bare::actor(cluster)?];
    let tasks = [TaskWrapper::on(&site, &small)?, TaskWrapper::on(&site, &large)?];
    let direct = cluster.with(Options::default().cpus(0.1).compiled_graph());
    let actors = [(&site, &small), (&site, &large), (&direct, &small)];
    let actors = actors.map(|(site, model)| ActorWrapper::on(site, model)?.spawn(1));
    let actors = actors.into_iter().collect::<ray_zerocopy::Result<Vec<_>>>()?;
    let mut number = 0_u64;
    let mut call = |way: usize| -> Result<()> {
        number += 1;
        let next = match way {
            0 | 3 => return Ok(bare[way / 3].call()?),
            1 | 2 => tasks[way - 1].next(number).wait()?,
            _ => actors[way - 4].next(number).wait()?,
        };
        ensure!(next == number + 1, "`next` returned {next} for {number}");
        Ok(())
    };
    // The first calls load the pipelines.
    (0..20 * WAYS.len()).try_for_each(|way| call(way % WAYS.len()))?;

    let mut all = vec![Samples::default(); WAYS.len()];
    let mut medians = vec![Vec::new(); WAYS.len()];
    for round in 0..usize::from(args.rounds) {
        progress.step("calls");
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            let samples = Samples::take(args.calls as usize, || call(way))?;
            medians[way].push(samples.median());
            all[way].extend(samples);
        }
    }
    let row = |way: usize| {
        let (name, unit) = WAYS[way];
        Row { way: name, summary: all[way].summary(), ratio: Ratio::of(&medians[way], &medians[unit]) }
    };
    Ok((0..WAYS.len()).map(row).collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    let ours = rows.iter().zip(WAYS).enumerate().filter(|(at, (_, (_, unit)))| at != unit);
    ours.map(|(_, (row, (name, _)))| {
        let most = if name == "actor, directly" { 0.6 } else { 1.15 };
        Target::at_most(format!("{name}, in calls of Ray's own"), most, row.ratio.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["small call", "p50", "p99", "in units of Ray's own"]);
    for Row { way, summary, ratio } in rows {
        table.row([(*way).to_owned(), time(summary.p50_us), time(summary.p99_us), ratio.to_string()]);
    }
    table
}
