//! Measures the first answer of an empty pool, which starts a worker, loads the pipeline, and runs the call.

use std::time::Duration;

use anyhow::Result;
use benches::stats::{median, quartiles};
use benches::{Progress, Samples, Table, Target};
use burn::tensor::Device;
use serde::Serialize;

use crate::Args;
use crate::service::{ENGINES, Model, Pool, input};

#[derive(Serialize)]
pub struct Row {
    engine: &'static str,
    /// From the call to its result.
    first_ms_median: f64,
    first_ms_quartiles: (f64, f64),
    /// A second call.
    second_ms_median: f64,
    /// The first less the second, round by round.
    start_ms_median: f64,
    start_ms_quartiles: (f64, f64),
}

/// Calls after the first one.
const SECOND: usize = 5;

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let model = Model::new(&Device::flex());
    let mut figures = [[Vec::new(), Vec::new(), Vec::new()], [Vec::new(), Vec::new(), Vec::new()]];
    for _ in 0..args.rounds {
        for (engine, figures) in ENGINES.into_iter().zip(&mut figures) {
            progress.step("first answers");
            let pool = Pool::start(engine, 0..=1, Duration::from_secs(3600))?;
            let tasks = pool.tasks(&model)?;
            let call = || tasks.forward(input()).wait().map(drop);
            let first = Samples::take(1, call)?.median() / 1e3;
            let second = Samples::take(SECOND, call)?.median() / 1e3;
            for (list, figure) in figures.iter_mut().zip([first, second, first - second]) {
                list.push(figure);
            }
        }
    }
    let rows = ENGINES.into_iter().zip(&figures).map(|(engine, [first, second, start])| Row {
        engine,
        first_ms_median: median(first),
        first_ms_quartiles: quartiles(first),
        second_ms_median: median(second),
        start_ms_median: median(start),
        start_ms_quartiles: quartiles(start),
    });
    Ok(rows.collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().map(|row| {
        let what = format!("{}: first answer of an empty pool without the forward pass, in ms", row.engine);
        Target::at_most(what, 50.0, row.start_ms_median)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["empty pool", "first answer", "", "second", "first without forward", ""]);
    let ms = |figure: f64| format!("{figure:.2} ms");
    let between = |(low, high): (f64, f64)| format!("{low:.2}..{high:.2}");
    for row in rows {
        table.row([
            row.engine.to_owned(),
            ms(row.first_ms_median),
            between(row.first_ms_quartiles),
            ms(row.second_ms_median),
            ms(row.start_ms_median),
            between(row.start_ms_quartiles),
        ]);
    }
    table
}
