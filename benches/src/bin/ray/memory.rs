//! Measures the memory of actors that share one model.

use anyhow::{Context, Result};
use benches::model::{Forward, ModelConfig};
use benches::stats::{median, mib};
use benches::{Progress, Table, Target, time};
use burn::tensor::Device;
use ray_zerocopy::ActorWrapper;
use ray_zerocopy::ray::{Cluster, Options};
use serde::Serialize;

use crate::Args;

/// Limit for the memory of each actor in addition to the model, in MiB. It includes Python and Ray.
const OVERHEAD: f64 = 70.0;
/// Limit for the private memory of an actor, in MiB.
const PRIVATE: f64 = 60.0 * 1e6 / 1048576.0;

#[derive(Serialize)]
pub struct Row {
    workers: usize,
    model_mib: f64,
    /// PSS of all actors, plus the model in the store.
    sum_pss_mib: f64,
    anonymous_mib_max: f64,
    attach_ms_median: f64,
    forward_ms_median: f64,
    outputs_equal: bool,
}

pub fn measure(cluster: &Cluster, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let config = ModelConfig::new(args.mib, 32, 1)?;
    let model = config.init(&Device::flex());
    let site = cluster.with(Options::default().cpus(0.1));
    let shared = ActorWrapper::on(&site, &model)?;
    drop(model);
    let rows = args.workers.iter().map(|&workers| {
        progress.step(format!("{workers} actors"));
        let actors = shared.spawn(workers)?;
        let forwards: Vec<Forward> =
            actors.iter().map(|actor| actor.forward().wait()).collect::<ray_zerocopy::Result<_>>()?;
        let again: Vec<f64> = actors
            .iter()
            .map(|actor| Ok(actor.forward().wait()?.took_us / 1e3))
            .collect::<ray_zerocopy::Result<_>>()?;
        let report = actors.report()?;
        let processes = report.processes.get(1..).context("the report has no actors")?;
        anyhow::ensure!(processes.len() == workers, "{} of {workers} actors are in the report", processes.len());
        let without_store: u64 = processes.iter().map(|process| process.pss - process.share).sum();
        let attach: Vec<f64> =
            processes.iter().filter_map(|process| Some(process.attach_micros? as f64 / 1e3)).collect();
        Ok(Row {
            workers,
            model_mib: mib(config.bytes()),
            sum_pss_mib: mib(without_store + report.arena),
            anonymous_mib_max: mib(processes.iter().map(|process| process.private).max().unwrap_or_default()),
            attach_ms_median: median(&attach),
            forward_ms_median: median(&again),
            outputs_equal: forwards.windows(2).all(|pair| pair[0].checksum == pair[1].checksum),
        })
    });
    rows.collect()
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let Row { workers, model_mib, sum_pss_mib, anonymous_mib_max, attach_ms_median, .. } = row;
        let most = model_mib + OVERHEAD * *workers as f64;
        [
            Target::at_most(format!("{workers} actors: PSS and the store, MiB"), most, *sum_pss_mib),
            Target::at_most(format!("{workers} actors: private memory of one, MiB"), PRIVATE, *anonymous_mib_max),
            Target::at_most(format!("{workers} actors: attach, ms"), 5.0, *attach_ms_median),
        ]
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["actors", "model", "PSS + store", "Anonymous", "attach", "forward", "equal"]);
    for row in rows {
        table.row([
            row.workers.to_string(),
            format!("{:.1}", row.model_mib),
            format!("{:.1}", row.sum_pss_mib),
            format!("{:.1}", row.anonymous_mib_max),
            time(row.attach_ms_median * 1e3),
            time(row.forward_ms_median * 1e3),
            row.outputs_equal.to_string(),
        ]);
    }
    table
}
