//! The options that every benchmark has, and the file of results.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Machine;

/// Options of every benchmark.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// Run for seconds, not minutes: shows that it works, not how fast it is. Any run without `cargo bench` is quick.
    #[arg(long)]
    quick: bool,
    /// Also write the figures into FILE, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What `cargo bench` says to the programs it runs.
    #[arg(long, hide = true)]
    bench: bool,
    /// What `cargo bench -- --test` says.
    #[arg(long, hide = true)]
    test: bool,
    /// What `cargo test NAME` says to every test program, this one among them.
    #[arg(hide = true)]
    filters: Vec<String>,
}

/// All that a run found out.
#[derive(Serialize)]
struct Record<'a, T> {
    bench: &'a str,
    machine: &'a Machine,
    quick: bool,
    results: &'a T,
}

impl Common {
    /// Whether figures do not matter.
    pub fn quick(&self) -> bool {
        self.quick || self.test || !self.bench
    }

    /// Whether this benchmark is asked for: `cargo test NAME` gives the name of some test to every program.
    pub fn wants(&self, bench: &str) -> bool {
        let wanted = self.filters.is_empty() || self.filters.iter().any(|filter| bench.contains(filter.as_str()));
        if !wanted {
            println!("{bench}: not asked for");
        }
        wanted
    }

    /// The heading of a run: which machine, and whether the figures mean something.
    pub fn announce(&self, bench: &str, machine: &Machine) {
        println!("{bench} on {machine}");
        if self.quick() {
            println!("quick: these figures mean nothing; `cargo bench --workspace --bench {bench}` measures");
        } else if machine.build != "release" {
            println!("a {} build: these figures mean little", machine.build);
        }
        println!();
    }

    /// Writes the results where `--json` wants them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record(&self, bench: &str, machine: &Machine, results: &impl Serialize) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let record = Record { bench, machine, quick: self.quick(), results };
        let text = serde_json::to_string_pretty(&record).context("the results cannot be written as JSON")?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("the results cannot be written to {}", file.display()))
    }
}
