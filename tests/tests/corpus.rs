//! Regression tests of the fuzz corpora: each file is given to the function that its fuzz target
//! calls.
//!
//! `fuzz/README.md` explains how to run the fuzzers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::path::{Path, PathBuf};

use ray_zerocopy::__private::fuzz;

fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new("..").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs a target on its corpus. Files named `valid…` must be accepted, and no file may exceed the
/// size limit.
fn run(target: &str, function: impl Fn(&[u8]) -> Result<(), String>) {
    let files = files(&format!("fuzz/corpus/{target}"));
    assert!(files.iter().any(|(path, _)| name(path).starts_with("valid")), "{target} has no valid seed");
    for (path, bytes) in files {
        assert!(bytes.len() <= 16 << 10, "{} has {} bytes: minimise it", path.display(), bytes.len());
        let result = function(&bytes);
        let valid = name(&path).starts_with("valid");
        assert!(!valid || result.is_ok(), "{}: {result:?}", path.display());
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn arenas() {
    run("arena", |bytes| fuzz::arena(bytes).map_err(|error| error.to_string()));
}

#[test]
fn manifests() {
    run("manifest", |bytes| fuzz::manifest(bytes).map_err(|error| error.to_string()));
}

#[test]
fn variants() {
    run("variant", |bytes| fuzz::variant(bytes).map_err(|error| error.to_string()));
}

#[test]
fn messages() {
    run("message", fuzz::message);
}

#[test]
fn checkpoints() {
    run("checkpoint", fuzz::checkpoint);
}

#[test]
fn pickles() {
    run("pytorch", fuzz::pytorch);
}

#[test]
fn graphs() {
    run("graph", fuzz::graph);
}

#[test]
fn modules() {
    run("module", fuzz::module);
}

/// Compares `BURN` in `jit/graph/code.rs` with the lock file, because a graph is read only if it
/// names that version of burn.
#[test]
fn valid_graph_names_the_locked_burn_version() {
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap();
    let (_, rest) = lock.split_once("name = \"burn-ir\"\nversion = \"").unwrap();
    let version = rest.split('"').next().unwrap();
    let graph = std::fs::read("../fuzz/corpus/graph/valid").unwrap();
    let field = [&[0xa4], &b"burn"[..], &[0xa0 + version.len() as u8], version.as_bytes()].concat();
    let named = graph.windows(field.len()).any(|bytes| bytes == field);
    assert!(named, "burn-ir is {version} now: change `BURN`, and write the seed with BLESS=1");
}

/// Gives every hostile file to every target. No target may panic.
#[test]
fn every_target_takes_every_hostile_file() {
    for folder in ["arena", "variant", "message", "checkpoint"] {
        for (_, bytes) in files(&format!("tests/hostile/{folder}")) {
            drop((fuzz::arena(&bytes), fuzz::manifest(&bytes), fuzz::message(&bytes), fuzz::checkpoint(&bytes)));
            drop((fuzz::graph(&bytes), fuzz::module(&bytes), fuzz::pytorch(&bytes), fuzz::variant(&bytes)));
        }
    }
}
