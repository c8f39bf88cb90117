//! Measures the memory of workers that share one module, and the memory of LibTorch itself.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::stats::{median, mib};
use benches::{Progress, Table, Target, time};
use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::jit::{JitActorWrapper, TorchScript};
use ray_zerocopy_tests::torchscript::widened;
use serde::Serialize;

use crate::Args;

/// Limit for the memory of all processes in addition to the module and LibTorch, in MiB.
const OVERHEAD: f64 = 24.0;

#[derive(Serialize)]
pub struct Row {
    module: &'static str,
    workers: usize,
    model_mib: f64,
    /// PSS of all processes, including this one.
    sum_pss_mib: f64,
    anonymous_mib_max: f64,
    /// In new processes, where the first load initialises LibTorch.
    first_load_ms_median: f64,
    /// In this process, where LibTorch is initialised.
    load_ms_median: f64,
    outputs_equal: bool,
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    progress.step("making a module");
    let mlp = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/torchscript/mlp.pt");
    let folder = tempfile::tempdir().context("no folder for the module")?;
    // Two matrices with four bytes per element.
    let width = (f64::from(args.mib) * f64::from(1 << 20) / 8.0).sqrt() as usize;
    let wide = widened(&mlp, width, folder.path());
    let mut rows = run("LibTorch's own", &mlp, 8, args, progress)?;
    rows.extend(run("wide", &wide, width, args, progress)?);
    Ok(rows)
}

fn run(module: &'static str, path: &Path, width: usize, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let script = TorchScript::open(path)?;
    let x = Tensor::<2>::ones([4, width], &Device::flex()) / width as f32;
    let shared = JitActorWrapper::new(&script).strict();
    let mut expected: Option<TensorData> = None;
    let mut loads = Vec::new();
    for _ in 0..=9 {
        let begun = Instant::now();
        drop(script.load("cpu")?);
        loads.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let load_ms_median = median(&loads[1..]);
    let rows = args.workers.iter().map(|&workers| {
        progress.step(format!("{module}: {workers} workers"));
        let actors = shared.spawn(workers)?;
        let answers: Vec<TensorData> = actors
            .iter()
            .map(|actor| Ok(actor.run([("rows", x.clone())]).wait()?.data("output")?))
            .collect::<Result<_>>()?;
        let expected = expected.get_or_insert_with(|| answers[0].clone());
        let report = actors.report()?;
        ensure!(report.processes.len() == workers + 1, "{} processes are in the report", report.processes.len());
        let load: Vec<f64> =
            report.processes.iter().filter_map(|process| Some(process.attach_micros? as f64 / 1e3)).collect();
        let own = report.processes.get(1..).context("the report has no workers")?;
        // Threads split sums, so the last bits depend on their number.
        let close = |answer: &TensorData| {
            answer.iter::<f32>().zip(expected.iter::<f32>()).all(|(one, other)| (one - other).abs() < 1e-3)
        };
        Ok(Row {
            module,
            workers,
            model_mib: mib(script.arena().stored_bytes()),
            sum_pss_mib: mib(report.processes.iter().map(|process| process.pss).sum()),
            anonymous_mib_max: mib(own.iter().map(|process| process.private).max().unwrap_or_default()),
            first_load_ms_median: median(&load),
            load_ms_median,
            outputs_equal: answers.iter().all(close),
        })
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    ensure!(rows.iter().all(|row| row.outputs_equal), "a worker's outputs differ from those of this process");
    Ok(rows)
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    let (own, wide) = rows.split_at(rows.len() / 2);
    own.iter().zip(wide).flat_map(|(own, wide)| {
        let Row { workers, model_mib, sum_pss_mib, load_ms_median, .. } = wide;
        let without_libtorch = sum_pss_mib - own.sum_pss_mib;
        [
            Target::at_most(
                format!("{workers} workers: PSS without LibTorch's own, MiB"),
                model_mib + OVERHEAD,
                without_libtorch,
            ),
            Target::at_most(format!("{workers} workers: load where LibTorch is ready, ms"), 5.0, *load_ms_median),
        ]
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["module", "workers", "model", "PSS", "Anonymous", "first load", "load", "equal"]);
    for row in rows {
        table.row([
            row.module.to_owned(),
            row.workers.to_string(),
            format!("{:.1}", row.model_mib),
            format!("{:.1}", row.sum_pss_mib),
            format!("{:.1}", row.anonymous_mib_max),
            time(row.first_load_ms_median * 1e3),
            time(row.load_ms_median * 1e3),
            row.outputs_equal.to_string(),
        ]);
    }
    table
}
