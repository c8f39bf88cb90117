//! `rzc worker`: a process that runs graphs for another program.

use anyhow::{Result, bail};

use crate::Outcome;

/// One that was started by an engine never gets here: it is a worker before `main`.
pub(crate) fn run() -> Result<Outcome> {
    bail!(
        "a worker is started by the program whose graphs it runs, with `LocalPool::builder().program(\"rzc\")`, and both have to be of one \
         version of ray-zerocopy; `rzc run GRAPH` runs a graph by hand"
    )
}
