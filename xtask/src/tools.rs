//! The tools that tasks need, fetched where they are not there.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::libtorch;
use crate::shell::{cargo, exists, run, target};

/// The release of `typos` that is known to accept the tree.
const TYPOS: &str = "typos==1.52.0";

/// Checks spelling, with a `typos` from PyPI that is kept in the target folder.
pub(crate) fn typos() -> Result<()> {
    let folder = target().join("tools").join(TYPOS.replace("==", "-"));
    let program = folder.join("bin").join("typos");
    if !program.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(&folder)
            .arg(TYPOS);
        run(pip).context("typos comes from PyPI: install Python 3 with pip, or fetch it by hand")?;
    }
    run(Command::new(program))
}

/// Fetches the model of the examples.
pub(crate) fn models() -> Result<()> {
    run(cargo(["run", "--quiet", "--example", "semantic_search", "--", "--fetch-only"]))
}

/// Runs a benchmark, or lists them.
pub(crate) fn bench(name: Option<&str>, options: &[String]) -> Result<()> {
    let Some(name) = name else {
        let mut names = Vec::new();
        for entry in std::fs::read_dir("benches/src/bin")? {
            let path = entry?.path();
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
        names.sort();
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let command = ["run", "--release", "-p", "benches", "--bin", name];
    let mut bench = if name == "torchscript" { libtorch::with_libtorch(command)? } else { cargo(command) };
    if ["ray", "torchscript"].contains(&name) {
        bench.args(["--features", name]);
    }
    bench.arg("--");
    bench.args(options);
    run(bench)
}

/// Builds the book.
pub(crate) fn book() -> Result<()> {
    if !exists("mdbook") {
        eprintln!("mdbook is not there: installing it with cargo, which takes some minutes");
        run(cargo(["install", "--locked", "mdbook"]))?;
    }
    let mut book = Command::new("mdbook");
    book.args(["build", "book", "--dest-dir"]).arg(target().join("book"));
    run(book)
}

/// Writes the man pages of `rzc`.
pub(crate) fn man() -> Result<()> {
    let mut man = cargo(["run", "--quiet", "--bin", "rzc", "--", "man", "--out"]);
    man.arg(target().join("man"));
    run(man)
}

/// Checks licences and advisories.
pub(crate) fn audit() -> Result<()> {
    if !exists("cargo-deny") {
        bail!("cargo-deny is not there: `cargo install --locked cargo-deny`, then try again");
    }
    run(cargo(["deny", "check"]))
}
