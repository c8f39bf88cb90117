//! `rzc completions`: a script for a shell.

use anyhow::Result;
use clap::CommandFactory;

use crate::Outcome;
use crate::cli::{Arguments, Completions};
use crate::output::Output;

pub(crate) fn run(options: &Completions, output: &mut Output) -> Result<Outcome> {
    // Into memory first: clap_complete panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "rzc", &mut script);
    output.bytes(&script)?;
    Ok(Outcome::Well)
}
