//! `-p benches` selects the features that the whole workspace does: otherwise its commands would build burn again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;
use std::process::Command;

/// Each crate that is built for these packages, with its features.
fn built(packages: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--prefix", "none", "--edges", "normal,build", "--format", "{p} [{f}]"]);
    let output = cargo.args(packages).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

#[test]
fn one_package_has_the_features_of_the_workspace() {
    let (workspace, benches) = (built(&["--workspace"]), built(&["-p", "benches"]));
    assert!(benches.iter().any(|line| line.starts_with("burn v")), "{benches:?}");
    let others: Vec<_> = benches.difference(&workspace).collect();
    assert!(others.is_empty(), "`-p benches` builds these again, with other features: {others:#?}");
}
