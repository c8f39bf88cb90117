//! `rzc worker`: a worker process that runs graphs for another program.

use anyhow::{Result, bail};

use crate::Outcome;

/// Reports how workers are started. A process that an engine has started never gets here: it
/// becomes a worker before `main`.
pub(crate) fn run() -> Result<Outcome> {
    bail!(
        "a worker is started by the program whose graphs it runs, with `LocalPool::builder().program(\"rzc\")`, and both must \
         have the same version of ray-zerocopy; `rzc run GRAPH` runs a graph by hand"
    )
}
