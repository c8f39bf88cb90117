//! `rzc completions`: prints a completion script for a shell.

use anyhow::Result;
use clap::CommandFactory;

use crate::Outcome;
use crate::cli::{Arguments, Completions};
use crate::output::Output;

pub(crate) fn run(options: &Completions, output: &mut Output) -> Result<Outcome> {
    // Generated in memory first: clap_complete panics on write errors.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "rzc", &mut script);
    output.bytes(&script)?;
    Ok(Outcome::Success)
}
