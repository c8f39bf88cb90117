//! `cargo xtask fuzz`: the targets of `fuzz/`, by libFuzzer, which cargo-fuzz builds into them.
//!
//! The instrumentation needs flags that rustc has for nightly compilers only. `RUSTC_BOOTSTRAP` lets the stable compiler take them,
//! so that what is fuzzed is what users build.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::shell::{cargo, exists, run, target};

/// Every target, one after the other.
const ALL: &str = "all";

/// The targets.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("fuzz/fuzz_targets")? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Runs a target, or all, for so many seconds each; or lists them.
pub(crate) fn fuzz(chosen: Option<&str>, seconds: u64) -> Result<()> {
    let targets = targets()?;
    let Some(chosen) = chosen else {
        targets.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    if chosen != ALL && !targets.iter().any(|name| name == chosen) {
        bail!("there is no target `{chosen}`: there are {}, and `{ALL}` for all of them", targets.join(", "));
    }
    if !exists("cargo-fuzz") {
        eprintln!("cargo-fuzz is not there: installing it with cargo, which takes some minutes");
        run(cargo(["install", "--locked", "cargo-fuzz"]))?;
    }
    let chosen: Vec<_> = targets.iter().filter(|name| chosen == ALL || *name == chosen).collect();
    let mut broken = Vec::new();
    for (at, name) in chosen.iter().enumerate() {
        eprintln!("\n== {} of {}: {name}, {seconds} s", at + 1, chosen.len());
        let begun = Instant::now();
        match one(name, seconds) {
            Ok(()) => eprintln!("{name}: nothing found in {} s", begun.elapsed().as_secs()),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                broken.push(name.as_str());
            }
        }
    }
    match broken[..] {
        [] => Ok(()),
        _ => bail!("the fuzzer found something, or did not run: {}; fuzz/README.md says what to do", broken.join(", ")),
    }
}

/// Runs a target.
fn one(name: &str, seconds: u64) -> Result<()> {
    // Not beside what the workspace has built: other flags would build all of that again.
    let built = target().join("fuzz");
    // What is found goes into the first folder: the corpus that is checked in stays as small as it is.
    let found = built.join("found").join(name);
    std::fs::create_dir_all(&found)?;
    let mut fuzz = cargo(["fuzz", "run", name]);
    fuzz.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", &built);
    fuzz.arg(found);
    let seeds = [format!("fuzz/corpus/{name}"), format!("tests/hostile/{name}")];
    fuzz.args(seeds.iter().filter(|folder| Path::new(folder).is_dir()));
    // One allocation of more than 64 MiB is a fault: the largest input has 8 KiB.
    fuzz.args(["--", "-max_len=8192", "-malloc_limit_mb=64", "-timeout=30", "-print_final_stats=1"]);
    fuzz.arg(format!("-max_total_time={seconds}"));
    run(fuzz)
}
