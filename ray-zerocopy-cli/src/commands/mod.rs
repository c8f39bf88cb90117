//! The commands, a file for each.

pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod graph;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod pack;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod verify;
pub(crate) mod worker;

/// Tables show so many tensors, if nothing is said.
const SHOWN: usize = 40;
