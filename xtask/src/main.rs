//! Tasks of the workspace: `cargo xtask --help`. The only place that starts other programs for developers.

mod shell;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Tasks of the ray-zerocopy workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that has to pass: format, spelling, lints, docs, tests, doc tests, the book, the examples
    ///
    /// Fetches what it needs: `typos` and the model of the examples from PyPI. Nothing is skipped: what cannot run fails.
    Test {
        /// Only the steps whose names contain this; `--list` shows the names
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Show the steps and stop
        #[arg(long)]
        list: bool,
    },
    /// Type-check the code behind the features `cuda` and `wgpu`, which need no GPU for that
    Features,
    /// Fetch the model of the `semantic_search` example into the cache
    Models,
    /// Run a benchmark, or list them: `cargo xtask bench sharing -- --help`
    Bench {
        /// The benchmark: ipc, calls or sharing
        name: Option<String>,
        /// Options of the benchmark, behind `--`
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Build the book as HTML into target/book (installs mdbook with cargo if it is not there)
    Book,
    /// Write the man pages of `rzc` into target/man
    Man,
    /// Check licences and known vulnerabilities with `cargo deny` (needs the network, for the advisory database)
    Audit,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    std::env::set_current_dir(shell::root())?;
    match Arguments::parse().task {
        Task::Test { list: true, .. } => test::list(),
        Task::Test { only, .. } => test::run(only.as_deref()),
        Task::Features => tools::features(),
        Task::Models => tools::models(),
        Task::Bench { name, options } => tools::bench(name.as_deref(), &options),
        Task::Book => tools::book(),
        Task::Man => tools::man(),
        Task::Audit => tools::audit(),
    }
}
