//! `cargo xtask soak`: the test `soak` of each engine, for minutes.

use anyhow::Result;

use crate::ray;
use crate::shell::{cargo, run};

/// Runs the soak test, for so many seconds an engine; with Ray's engines too if asked for.
pub(crate) fn soak(seconds: u64, with_ray: bool) -> Result<()> {
    let test = ["--test", "soak", "--", "--nocapture", "--test-threads=1"];
    let mut soak = if with_ray {
        ray::environment()?;
        ray::with_python(&[&["test"], ray::FEATURES, &test].concat())?
    } else {
        cargo([&["test", "--workspace"], &test[..]].concat())
    };
    soak.env("RAY_ZEROCOPY_SOAK_SECONDS", seconds.to_string());
    run(soak)
}
