//! Options of every benchmark, and the output of a run: tables or one JSON object.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{Machine, Table};

/// Options of every benchmark.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct Common {
    /// Run for seconds on small models: tests that the benchmark works; its figures are meaningless
    #[arg(long)]
    pub quick: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// A target for a figure, and the measured value.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// The figure and its unit.
    pub what: String,
    /// The largest value that reaches the target.
    pub at_most: f64,
    /// The measured value.
    pub is: f64,
    /// Whether the target is reached.
    pub reached: bool,
}

impl Target {
    /// Compares the value `is` of the figure `what` with its limit.
    pub fn at_most(what: impl Into<String>, at_most: f64, is: f64) -> Self {
        Self { what: what.into(), at_most, is, reached: is <= at_most }
    }
}

/// A run of one benchmark.
#[derive(Debug)]
pub struct Run {
    bench: &'static str,
    common: Common,
    machine: Machine,
}

/// The JSON object that a run prints.
#[derive(Serialize)]
struct Record<'a, O, R> {
    bench: &'a str,
    quick: bool,
    machine: &'a Machine,
    options: &'a O,
    rows: &'a [R],
    targets: &'a [Target],
}

impl Run {
    /// Starts a run: describes the machine before it is busy, and says whether the figures are
    /// meaningful.
    pub fn begin(bench: &'static str, common: Common) -> Self {
        let run = Self { bench, common, machine: Machine::this() };
        if !common.json {
            println!("{bench} on {}", run.machine);
            if common.quick {
                println!("quick: these figures mean nothing; without `--quick`, in a release build, it measures");
            } else if run.machine.build != "release" {
                println!("a {} build: these figures mean little", run.machine.build);
            }
            println!();
        }
        run
    }

    /// Prints the results: `tables` with `notes` on how to read them, or `options`, `rows` and
    /// `targets` as JSON. Targets do not apply to a quick run, so they are omitted there.
    ///
    /// # Errors
    /// If the results cannot be written as JSON.
    pub fn finish<O: Serialize, R: Serialize>(
        self,
        options: &O,
        rows: &[R],
        targets: &[Target],
        tables: &[Table],
        notes: &str,
    ) -> Result<()> {
        let targets = if self.common.quick { &[] } else { targets };
        if self.common.json {
            let Self { bench, common: Common { quick, .. }, machine } = &self;
            let record = Record { bench, quick: *quick, machine, options, rows, targets };
            println!("{}", serde_json::to_string_pretty(&record).context("the results cannot be written as JSON")?);
            return Ok(());
        }
        for table in tables {
            println!("{table}");
        }
        println!("{notes}");
        for Target { what, at_most, is, reached } in targets {
            println!("{}: {what}: {is:.2}, wanted at most {at_most:.2}", if *reached { "reached" } else { "missed " });
        }
        Ok(())
    }
}
