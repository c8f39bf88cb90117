//! The options that every benchmark has, and what comes out of a run: tables for people, or one JSON object.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{Machine, Table};

/// Options of every benchmark.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct Common {
    /// Run for seconds, not minutes, on small models: shows that it works, not how fast it is.
    #[arg(long)]
    pub quick: bool,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// A figure that the project wants to reach.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    /// What is limited, with its unit.
    pub what: String,
    /// The most it may be.
    pub at_most: f64,
    /// What it is.
    pub is: f64,
    /// Whether that is enough.
    pub reached: bool,
}

impl Target {
    /// `what` is `is`, and may be `at_most`.
    pub fn at_most(what: impl Into<String>, at_most: f64, is: f64) -> Self {
        Self { what: what.into(), at_most, is, reached: is <= at_most }
    }
}

/// A run of one benchmark, from its heading to its results.
#[derive(Debug)]
pub struct Run {
    bench: &'static str,
    common: Common,
    machine: Machine,
}

/// All that a run found out.
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
    /// Begins: the machine is described before it is busy, and people are told whether the figures will mean something.
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

    /// Prints what was found: `tables` for people, with `notes` on how to read them, or `options`, `rows` and targets as JSON.
    /// Targets say nothing about a quick run, so they are left out of it.
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
        tables.iter().for_each(|table| println!("{table}"));
        println!("{notes}");
        for Target { what, at_most, is, reached } in targets {
            println!("{}: {what}: {is:.2}, wanted at most {at_most:.2}", if *reached { "reached" } else { "missed " });
        }
        Ok(())
    }
}
