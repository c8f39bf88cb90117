//! `cargo xtask soak` and `cargo xtask chaos`: tests of the workspace that run for minutes.

use anyhow::{Result, bail};

use crate::ray;
use crate::shell::{cargo, run};

/// The names of the engines in the soak test, which prefixes them with `local` or `Ray`.
const NAMES: [&str; 4] = ["tasks", "graph tasks", "actors", "graph actors"];

/// `rzc serve`, whose workers are killed and whose model is swapped. It does not run on Ray.
const SERVER: &str = "server";

/// Runs the soak test for `seconds` per engine, and that of the server. The engines are those of this machine, or those on
/// Ray if `on_ray` is set. Only those whose names contain `only` run.
pub(crate) fn soak(seconds: u64, on_ray: bool, only: Option<&str>) -> Result<()> {
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let (engines, server) = (NAMES.into_iter().any(is_wanted), !on_ray && is_wanted(SERVER));
    if !engines && !server {
        let names = NAMES.into_iter().chain((!on_ray).then_some(SERVER)).collect::<Vec<_>>().join(", ");
        bail!("nothing has `{}` in its name; the names are: {names}", only.unwrap_or_default());
    }
    if engines {
        soak_engines(seconds, on_ray, only)?;
    }
    if server {
        let test = ["--test", "serve", "no_request_fails", "--", "--nocapture"];
        let mut soak = cargo([&["test", "--workspace"], &test[..]].concat());
        soak.env("RAY_ZEROCOPY_SOAK_SECONDS", seconds.to_string());
        run(soak)?;
    }
    Ok(())
}

fn soak_engines(seconds: u64, on_ray: bool, only: Option<&str>) -> Result<()> {
    let engines = if on_ray { "ray_engine" } else { "local_engine" };
    let test = ["--test", "soak", engines, "--", "--nocapture"];
    let mut soak = if on_ray {
        ray::with_python(&[&["test"], ray::FEATURES, &test].concat())?
    } else {
        cargo([&["test", "--workspace"], &test[..]].concat())
    };
    soak.env("RAY_ZEROCOPY_SOAK_SECONDS", seconds.to_string());
    if let Some(only) = only {
        soak.env("RAY_ZEROCOPY_SOAK_ONLY", only);
    }
    run(soak)
}

/// Runs the chaos test for `seconds`.
pub(crate) fn chaos(seconds: u64, seed: Option<u64>) -> Result<()> {
    let mut test = cargo(["test", "--workspace", "--test", "chaos", "--", "--nocapture"]);
    // Workers panic thousands of times on purpose: a backtrace for each would hide everything else.
    test.env("RAY_ZEROCOPY_CHAOS_SECONDS", seconds.to_string()).env("RUST_BACKTRACE", "0");
    if let Some(seed) = seed {
        test.env("RAY_ZEROCOPY_CHAOS_SEED", seed.to_string());
    }
    run(test)
}
