//! `cargo xtask fuzz`: the targets of `fuzz/`, which need a nightly compiler and cargo-fuzz.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{exists, run};

/// What is needed, in one line.
const INSTALL: &str = "rustup toolchain install nightly --profile minimal && cargo install --locked cargo-fuzz";

/// The targets.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("fuzz/fuzz_targets")? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Runs a target for so many seconds, or lists them.
pub(crate) fn fuzz(target: Option<&str>, seconds: u64) -> Result<()> {
    let targets = targets()?;
    let Some(target) = target else {
        targets.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    if !targets.iter().any(|name| name == target) {
        bail!("there is no target `{target}`: there are {}", targets.join(", "));
    }
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    if !nightly.is_ok_and(|output| output.status.success()) || !exists("cargo-fuzz") {
        bail!("fuzzing needs a nightly compiler and cargo-fuzz: {INSTALL}");
    }
    // What is found goes into the first folder: the corpus that is checked in stays as small as it is.
    let found = format!("fuzz/target/found/{target}");
    std::fs::create_dir_all(&found)?;
    let folders = [found, format!("fuzz/corpus/{target}"), format!("tests/hostile/{target}")];
    let mut fuzz = Command::new("rustup");
    fuzz.args(["run", "nightly", "cargo", "fuzz", "run", target]);
    fuzz.args(folders.iter().filter(|folder| Path::new(folder).is_dir()));
    // One allocation of more than 64 MiB is a fault: the largest input has 8 KiB.
    fuzz.args(["--", "-max_len=8192", "-malloc_limit_mb=64", "-timeout=30", "-print_final_stats=1"]);
    fuzz.arg(format!("-max_total_time={seconds}"));
    run(fuzz)
}
