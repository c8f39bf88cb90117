//! `rzc`: packs, inspects, verifies and compares files of weights, runs graphs, and shows which
//! processes share memory. See `rzc --help`.
//!
//! | file | what |
//! | --- | --- |
//! | `cli`, `cli_graph`, `cli_serve` | commands and options, and the text of `--help` |
//! | `values` | checks the values of options |
//! | `commands/` | a file for each command |
//! | `weights` | reads any file of weights as a list of tensors |
//! | `picture/` | pictures of graphs |
//! | `npy` | reads and writes numpy files |
//! | `files` | atomic replacement of files, and cleanup on signals |
//! | `compiled` | what compiling did to a graph |
//! | `compare` | compares the bytes and values of two tensors |
//! | `table`, `output`, `progress`, `pattern` | tables, standard output, progress bars, filters |

#![forbid(unsafe_code)]

mod cli;
mod cli_graph;
mod cli_serve;
mod commands;
mod compare;
mod compiled;
mod files;
mod npy;
mod output;
mod pattern;
mod picture;
mod progress;
mod table;
mod values;
mod weights;

use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, Command};
use output::{Output, is_broken_pipe};

/// The result of a command, in the order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The command succeeded.
    Success,
    /// Damage or a difference was found.
    Mismatch,
    /// A part of the command failed, which has been reported.
    Failed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Success => Self::SUCCESS,
            Outcome::Mismatch => Self::from(1),
            Outcome::Failed => Self::from(2),
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(outcome) => outcome.into(),
        // The reader of standard output has closed it, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("{error:#}"));
            Outcome::Failed.into()
        }
    }
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    let mut output = Output::new();
    let outcome = match command {
        Command::Pack(options) => commands::pack::run(&options, &mut output),
        Command::Variant(options) => commands::variant::run(&options, &mut output),
        Command::Inspect(options) => commands::inspect::run(&options, &mut output),
        Command::Verify(options) => commands::verify::run(&options, &mut output),
        Command::Ps(options) => commands::ps::run(&options, &mut output),
        Command::Hold(options) => commands::hold::run(&options, &mut output),
        Command::Drop(options) => commands::drop::run(&options, &mut output),
        Command::Swap(options) => commands::swap::run(&options, &mut output),
        Command::Diff(options) => commands::diff::run(&options, &mut output),
        Command::Run(options) => commands::run::run(&options, &mut output),
        Command::Compile(options) => commands::compile::run(&options, &mut output),
        Command::Graph(options) => commands::graph::run(&options, &mut output),
        Command::Profile(options) => commands::profile::run(&options, &mut output),
        Command::Serve(options) => commands::serve::run(&options, &mut output),
        Command::Worker(_) => commands::worker::run(),
        Command::Completions(options) => commands::completions::run(&options, &mut output),
        Command::Man(options) => commands::man::run(&options, &mut output),
    }?;
    output.finish()?;
    Ok(outcome)
}
