//! Tasks that are a command or two: benchmarks, the book, man pages, and audits.

use std::process::Command;

use anyhow::Result;

use crate::libtorch::with_libtorch;
use crate::setup::python;
use crate::shell::{cargo, run, target};

/// Checks the spelling.
pub(crate) fn typos() -> Result<()> {
    run(Command::new(python::typos()))
}

/// Runs a benchmark, or lists the names.
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
    let mut bench = if name == "torchscript" { with_libtorch(command)? } else { cargo(command) };
    if ["ray", "torchscript"].contains(&name) {
        bench.args(["--features", name]);
    }
    bench.arg("--");
    bench.args(options);
    run(bench)
}

/// Builds the book.
pub(crate) fn book() -> Result<()> {
    let mut book = Command::new("mdbook");
    book.args(["build", "book", "--dest-dir"]).arg(target().join("book"));
    run(book)
}

/// Writes the man pages of `rzc`.
pub(crate) fn man() -> Result<()> {
    let mut man = cargo(["run", "--bin", "rzc", "--", "man", "--out"]);
    man.arg(target().join("man"));
    run(man)
}

/// Checks licences and advisories.
pub(crate) fn audit() -> Result<()> {
    run(cargo(["deny", "check"]))
}
