//! `cargo xtask fuzz`: the targets of `fuzz/`, run by libFuzzer, which cargo-fuzz links into them.
//!
//! The instrumentation needs unstable flags of rustc. `RUSTC_BOOTSTRAP` lets the stable compiler
//! accept them, so that users' compiler is the one that is fuzzed.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::shell::{cargo, run, target};

/// The name that selects all targets.
const ALL: &str = "all";

/// The names of the targets.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("fuzz/fuzz_targets")? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Runs a target, or all of them, for `seconds` each. Without a name, lists the targets.
pub(crate) fn fuzz(chosen: Option<&str>, seconds: u64) -> Result<()> {
    let targets = targets()?;
    let Some(chosen) = chosen else {
        targets.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    if chosen != ALL && !targets.iter().any(|name| name == chosen) {
        bail!("there is no target `{chosen}`: there are {}, and `{ALL}` for all of them", targets.join(", "));
    }
    let chosen: Vec<_> = targets.iter().filter(|name| chosen == ALL || *name == chosen).collect();
    let mut failed = Vec::new();
    for (at, name) in chosen.iter().enumerate() {
        eprintln!("\n== {} of {}: {name}, {seconds} s", at + 1, chosen.len());
        let started = Instant::now();
        match run_target(name, seconds) {
            Ok(()) => eprintln!("{name}: nothing found in {} s", started.elapsed().as_secs()),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                failed.push(name.as_str());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("the fuzzer found something, or did not run: {}; fuzz/README.md says what to do", failed.join(", "));
}

/// Runs a target.
fn run_target(name: &str, seconds: u64) -> Result<()> {
    // A target folder of its own: the flags of the instrumentation would rebuild the workspace.
    let built = target().join("fuzz");
    // libFuzzer writes new inputs to the first folder, so the corpus in the repository stays small.
    let found = built.join("found").join(name);
    std::fs::create_dir_all(&found)?;
    let mut fuzz = cargo(["fuzz", "run", name]);
    fuzz.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", &built);
    fuzz.arg(found);
    let seeds = [format!("fuzz/corpus/{name}"), format!("tests/hostile/{name}")];
    fuzz.args(seeds.iter().filter(|folder| Path::new(folder).is_dir()));
    // Inputs are at most 8 KiB long, so an allocation of more than 64 MiB is a bug.
    fuzz.args(["--", "-max_len=8192", "-malloc_limit_mb=64", "-timeout=30", "-print_final_stats=1"]);
    fuzz.arg(format!("-max_total_time={seconds}"));
    run(fuzz)
}
