//! `rzc`: looks after weights in files, runs graphs, and shows who shares what. `rzc --help` tells what it does.
//!
//! | file | what |
//! | --- | --- |
//! | `cli` | commands and options, and the words of `--help` |
//! | `commands/` | a file for each command |
//! | `weights` | any file of weights, as a list of tensors |
//! | `npy` | tensors in numpy's files |
//! | `files` | files that appear when they are complete, and signals |
//! | `content` | comparing the bytes and values of two tensors |
//! | `table`, `output`, `progress`, `pattern` | tables, standard output, progress bars, filters |

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod content;
mod files;
mod npy;
mod output;
mod pattern;
mod progress;
mod table;
mod weights;

use std::process::ExitCode;

use clap::Parser;

use cli::{Arguments, Command};
use output::{Output, is_broken_pipe};

/// What a command found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// All is well.
    Well,
    /// Something is damaged, or differs.
    NotWell,
    /// Some of it could not be done, and that has been said.
    Failed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Well => Self::SUCCESS,
            Outcome::NotWell => Self::from(1),
            Outcome::Failed => Self::from(2),
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(outcome) => outcome.into(),
        // Whoever reads has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            Outcome::Failed.into()
        }
    }
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    let mut output = Output::new();
    let outcome = match command {
        Command::Pack(options) => commands::pack::run(&options, &mut output),
        Command::Inspect(options) => commands::inspect::run(&options, &mut output),
        Command::Verify(options) => commands::verify::run(&options, &mut output),
        Command::Ps(options) => commands::ps::run(&options, &mut output),
        Command::Diff(options) => commands::diff::run(&options, &mut output),
        Command::Run(options) => commands::run::run(&options, &mut output),
        Command::Graph(options) => commands::graph::run(&options, &mut output),
        Command::Worker(_) => commands::worker::run(),
        Command::Completions(options) => commands::completions::run(&options, &mut output),
        Command::Man(options) => commands::man::run(&options, &mut output),
    }?;
    output.finish()?;
    Ok(outcome)
}
