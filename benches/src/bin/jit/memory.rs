//! Measures the memory of workers that share one graph.

use anyhow::{Context, Result, ensure};
use benches::stats::{median, mib};
use benches::{Progress, Table, Target, time};
use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::jit::{self, JitActorWrapper};
use serde::Serialize;

use crate::Args;
use benches::traced_models::StackConfig;

/// Limit for the memory of all processes in addition to the model, in MiB.
const OVERHEAD: f64 = 24.0;

#[derive(Serialize)]
pub struct Row {
    workers: usize,
    model_mib: f64,
    /// PSS of all processes, including this one.
    sum_pss_mib: f64,
    anonymous_mib_max: f64,
    load_ms_median: f64,
    outputs_equal: bool,
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    progress.step("tracing");
    let device = Device::flex();
    // Each layer has 16 MiB.
    let config = StackConfig { width: 2048, layers: (args.mib as usize / 16).max(1) };
    let x = Tensor::<2>::ones([4, config.width], &device) / config.width as f32;
    let stack = config.init(&device);
    let trace = jit::trace(&stack).input("x", x.clone()).symbol("batch", [("x", 0)]);
    let graph = trace.forward(|stack, inputs| Ok(stack.forward(inputs.float("x")?)))?;
    let expected = stack.forward(x.clone()).into_data();
    drop(stack);
    let shared = JitActorWrapper::new(&graph).strict();
    let rows = args.workers.iter().map(|&workers| {
        progress.step(format!("{workers} workers"));
        let actors = shared.spawn(workers)?;
        let answers: Vec<TensorData> = actors
            .iter()
            .map(|actor| Ok(actor.run([("x", x.clone())]).wait()?.data("output")?))
            .collect::<Result<_>>()?;
        let report = actors.report()?;
        ensure!(report.processes.len() == workers + 1, "{} processes are in the report", report.processes.len());
        let load: Vec<f64> =
            report.processes.iter().filter_map(|process| Some(process.attach_micros? as f64 / 1e3)).collect();
        let own = report.processes.get(1..).context("the report has no workers")?;
        Ok(Row {
            workers,
            model_mib: mib(graph.arena().stored_bytes()),
            sum_pss_mib: mib(report.processes.iter().map(|process| process.pss).sum()),
            anonymous_mib_max: mib(own.iter().map(|process| process.private).max().unwrap_or_default()),
            load_ms_median: median(&load),
            outputs_equal: answers.iter().all(|answer| answer.as_bytes() == expected.as_bytes()),
        })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    ensure!(rows.iter().all(|row| row.outputs_equal), "a worker's outputs differ from the pipeline's");
    Ok(rows)
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let Row { workers, model_mib, sum_pss_mib, load_ms_median, .. } = row;
        [
            Target::at_most(format!("{workers} workers: PSS, MiB"), model_mib + OVERHEAD, *sum_pss_mib),
            Target::at_most(format!("{workers} workers: load, ms"), 5.0, *load_ms_median),
        ]
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["workers", "model", "PSS", "Anonymous", "load", "equal"]);
    for row in rows {
        table.row([
            row.workers.to_string(),
            format!("{:.1}", row.model_mib),
            format!("{:.1}", row.sum_pss_mib),
            format!("{:.1}", row.anonymous_mib_max),
            time(row.load_ms_median * 1e3),
            row.outputs_equal.to_string(),
        ]);
    }
    table
}
