//! Checks that each package alone selects the same features as the whole workspace. Otherwise a
//! command with `-p` would build burn again. To fix a failure, add the missing features to the
//! manifest of this package.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::LazyLock;

/// Returns each crate that is built for these packages, with its features. `edges` selects the kinds
/// of dependencies; `dev` includes those of tests.
fn built(edges: &str, packages: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--prefix", "none", "--edges", edges, "--format", "{p} [{f}]"]);
    let output = cargo.args(packages).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

static WORKSPACE: LazyLock<BTreeSet<String>> =
    LazyLock::new(|| built("normal,build,dev", &["--workspace", "--features", "ray"]));

fn same(packages: &[&str]) {
    within("normal,build", &WORKSPACE, packages);
}

fn within(edges: &str, workspace: &BTreeSet<String>, packages: &[&str]) {
    let one = built(edges, packages);
    assert!(one.iter().any(|line| line.starts_with("burn v")), "{one:?}");
    // Features of the workspace's own packages may differ; only their dependencies are compared.
    let others: Vec<_> =
        one.difference(workspace).filter(|line| !line.contains("ray") && !line.contains("(/")).collect();
    assert!(others.is_empty(), "{packages:?} builds these again with other features: {others:#?}");
}

#[test]
fn private_package_has_the_features_of_the_workspace() {
    for package in ["benches", "examples", "ray-zerocopy-tests", "ray-zerocopy-book"] {
        same(&["-p", package]);
        within("normal,build,dev", &WORKSPACE, &["-p", package]);
    }
}

/// `workspace-hack` is not published, so it can only be a dev-dependency of published packages.
/// Their tests have the features of the workspace; `cargo build -p` does not.
#[test]
fn tests_of_a_published_package_have_the_features_of_the_workspace() {
    for (package, features) in
        [("ray-zerocopy", "ray"), ("ray-zerocopy-serve", ""), ("ray-zerocopy-cli", ""), ("ray-zerocopy-python", "ray")]
    {
        within("normal,build,dev", &WORKSPACE, &["-p", package, "--features", features]);
    }
}

#[test]
fn ray_does_not_change_features_of_other_packages() {
    same(&["--workspace"]);
    same(&["-p", "benches", "--features", "ray"]);
    same(&["-p", "examples", "--features", "ray"]);
}

#[test]
fn the_wheel_for_graphs_can_be_built_of_what_the_workspace_has() {
    same(&["-p", "ray-zerocopy-wheel", "--features", "ray,as-workspace"]);
    // With TorchScript, the features are those of the device tests: see `xtask/src/devices.rs`.
    let packages = ["ray-zerocopy", "ray-zerocopy-tests", "examples", "ray-zerocopy-cli"];
    let features =
        ["ray-zerocopy-tests", "examples", "ray-zerocopy-cli"].map(|of| format!("{of}/wgpu,{of}/torchscript"));
    let features = [&features[..], &["ray-zerocopy-tests/ray".to_owned()]].concat().join(",");
    let devices = [&packages.map(|package| ["-p", package])[..], &[["--features", &features]]].concat().concat();
    within(
        "normal,build",
        &built("normal,build,dev", &devices),
        &["-p", "ray-zerocopy-wheel", "--features", "ray,as-devices"],
    );
}

#[test]
fn the_python_project_has_the_versions_and_features_of_the_workspace() {
    // The project has its own lock file: after an update, copy that of the workspace over it.
    same(&["--manifest-path", "../examples/python-embedder/Cargo.toml"]);
}
