//! Tasks of the workspace: `cargo xtask --help`. The only place that starts other programs for developers.

mod devices;
mod fuzz;
mod libtorch;
mod old_kernel;
mod ray;
mod shell;
mod soak;
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
    /// Fetches what it needs: `typos`, the model of the examples, and Ray from PyPI; as root on Debian, a software Vulkan. Nothing is skipped: what cannot run fails.
    Test {
        /// Only the steps whose names contain this; `--list` shows the names
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Show the steps and stop
        #[arg(long)]
        list: bool,
    },
    /// Type-check and lint the code behind the features `cuda` and `wgpu`, which need no GPU for that
    Features,
    /// Fetch the model of the `semantic_search` example into the cache
    Models,
    /// Make the Python environment with Ray in the cache, where programs with the feature `ray` find it
    RayEnv,
    /// Make a LibTorch for the CPU in the cache, from PyPI; `cargo xtask libtorch run --features …` builds and runs with it
    ///
    /// Without a command it prints the one line that lets other builds find it.
    Libtorch {
        /// A cargo command to run with it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a benchmark, or list them: `cargo xtask bench memory -- --help`
    Bench {
        /// The benchmark: memory, calls, forward, share, jit, search, ipc, ray or torchscript
        name: Option<String>,
        /// Options of the benchmark, behind `--`
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Fuzz what reads bytes of others, or list the targets: `cargo xtask fuzz arena 600` (installs cargo-fuzz if it is not there)
    Fuzz {
        /// The target, or `all`, one after the other; without it, the targets are listed
        target: Option<String>,
        /// For how long each, in seconds
        #[arg(default_value_t = 60)]
        seconds: u64,
    },
    /// Load every engine with messages of 1 B to 256 MiB, compare each answer, and see that memory does not grow
    Soak {
        /// How long each engine, of which there are four
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// The engines on Ray too, on a cluster of this machine
        #[arg(long)]
        ray: bool,
    },
    /// Load worker pools while workers are killed, stopped and confused, for longer than the tests do
    Chaos {
        /// How long
        #[arg(long, default_value_t = 120)]
        seconds: u64,
        /// The seed of an earlier run, which prints it at its start
        #[arg(long)]
        seed: Option<u64>,
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
        Task::Features => devices::lints(),
        Task::RayEnv => ray::environment(),
        Task::Libtorch { command } => libtorch::libtorch(&command),
        Task::Models => tools::models(),
        Task::Bench { name, options } => tools::bench(name.as_deref(), &options),
        Task::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), seconds),
        Task::Soak { seconds, ray } => soak::soak(seconds, ray),
        Task::Chaos { seconds, seed } => test::chaos(seconds, seed),
        Task::Book => tools::book(),
        Task::Man => tools::man(),
        Task::Audit => tools::audit(),
    }
}
