//! The speed at which one row reads the weights of linear layers, compared with `memcpy` of as many bytes.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result};
use benches::stats::{Ratio, median};
use benches::traced_models::StackConfig;
use benches::{Progress, Table, Target};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::jit::{self, Executable, Values};
use serde::Serialize;

use crate::measure::WAYS;

/// Calls of a contestant in a round.
const CALLS: usize = 3;

#[derive(Serialize)]
pub struct Row {
    pub contestant: &'static str,
    /// Bytes of the packed weights, which a call reads once.
    pub bytes: u64,
    pub call_us: f64,
    /// The time of `memcpy` of as many bytes.
    pub memcpy_us: f64,
    pub over_memcpy: Ratio,
}

struct Entrant {
    name: &'static str,
    executable: Executable,
    bytes: usize,
    call_us: Vec<f64>,
    memcpy_us: Vec<f64>,
}

/// Measures one row in linear layers, and copies of their weights, in turns and on one thread.
pub fn measure(quick: bool, rounds: usize, progress: &Progress) -> Result<Vec<Row>> {
    let device = Device::flex();
    let (width, layers) = if quick { (512, 2) } else { (4096, 4) };
    let stack = StackConfig { width, layers }.init(&device);
    let x = Tensor::<2>::random([1, width], Distribution::Default, &device);
    let graph =
        jit::trace(&stack).input("x", x.clone()).forward(|stack, inputs| Ok(stack.forward(inputs.float::<2>("x")?)))?;
    drop(stack);
    let entrant = |way: &'static crate::measure::Way| {
        let compiled = graph.compile((way.options)())?;
        let bytes = compiled.arena().weight_bytes() as usize;
        let executable = compiled.load("cpu")?;
        Ok(Entrant { name: way.name, executable, bytes, call_us: Vec::new(), memcpy_us: Vec::new() })
    };
    let mut entrants = WAYS.iter().map(entrant).collect::<Result<Vec<_>>>()?;
    let most = entrants.iter().map(|entrant| entrant.bytes).max().context("there is no way to compile")?;
    // Other bytes than zeros, which the kernel may not store.
    let (from, mut to) = (vec![1_u8; most], vec![2_u8; most]);
    for round in 0..=rounds {
        progress.step("one row compared with memcpy");
        for Entrant { executable, bytes, call_us, memcpy_us, .. } in &mut entrants {
            let begun = Instant::now();
            for _ in 0..CALLS {
                black_box(executable.run(Values::new().with("x", x.clone()))?);
            }
            let called = begun.elapsed();
            let begun = Instant::now();
            for _ in 0..CALLS {
                to[..*bytes].copy_from_slice(black_box(&from[..*bytes]));
                black_box(&mut to);
            }
            // The first round warms up.
            if round > 0 {
                call_us.push(called.as_secs_f64() * 1e6 / CALLS as f64);
                memcpy_us.push(begun.elapsed().as_secs_f64() * 1e6 / CALLS as f64);
            }
        }
    }
    let row = |entrant: Entrant| Row {
        contestant: entrant.name,
        bytes: entrant.bytes as u64,
        call_us: median(&entrant.call_us),
        memcpy_us: median(&entrant.memcpy_us),
        over_memcpy: Ratio::of(&entrant.call_us, &entrant.memcpy_us),
    };
    Ok(entrants.into_iter().map(row).collect())
}

/// The targets: 1.2 times the time of `memcpy`.
pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().map(|row| {
        Target::at_most(
            format!("one row, {}: in units of memcpy of the weights", row.contestant),
            1.2,
            row.over_memcpy.ratio,
        )
    })
}

/// The table.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "one row in linear layers",
        "weights",
        "takes",
        "of memory",
        "memcpy of as much",
        "in units of memcpy",
    ]);
    for row in rows {
        table.row([
            row.contestant.to_owned(),
            format!("{:.1} MiB", row.bytes as f64 / f64::from(1 << 20)),
            benches::time(row.call_us),
            format!("{:.1} GB/s", row.bytes as f64 / row.call_us / 1e3),
            benches::time(row.memcpy_us),
            row.over_memcpy.to_string(),
        ]);
    }
    table
}
