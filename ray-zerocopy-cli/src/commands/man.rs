//! `rzc man`: prints the man page, or writes one for each command.

use std::fs;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::Outcome;
use crate::cli::{Arguments, Man};
use crate::output::Output;

pub(crate) fn run(options: &Man, output: &mut Output) -> Result<Outcome> {
    // The pages of `rzc help` would duplicate the others.
    let command = Arguments::command().disable_help_subcommand(true);
    match &options.out {
        None => clap_mangen::Man::new(command).render(&mut output.writer())?,
        Some(folder) => {
            let named = || format!("`{}`", folder.display());
            fs::create_dir_all(folder).with_context(named)?;
            clap_mangen::generate_to(command, folder).with_context(named)?;
            writeln!(output, "the man pages are in {}; `man -l {0}/rzc.1` shows the first", folder.display())?;
        }
    }
    Ok(Outcome::Success)
}
