//! The commands, one file each.

pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod drop;
pub(crate) mod graph;
pub(crate) mod hold;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod pack;
pub(crate) mod profile;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod swap;
pub(crate) mod variant;
pub(crate) mod verify;
pub(crate) mod worker;

/// Number of rows that tables show by default.
const SHOWN: usize = 40;
