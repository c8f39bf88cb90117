//! `-p benches` and `-p examples` select the features of the whole workspace: otherwise their
//! commands would build burn again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;
use std::process::Command;

/// Returns each crate that is built for these packages, with its features.
fn built(packages: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--prefix", "none", "--edges", "normal,build", "--format", "{p} [{f}]"]);
    let output = cargo.args(packages).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

fn same(packages: &[&str]) {
    within(&["--workspace", "--features", "ray"], packages);
}

fn within(all: &[&str], packages: &[&str]) {
    let (workspace, one) = (built(all), built(packages));
    assert!(one.iter().any(|line| line.starts_with("burn v")), "{one:?}");
    // Features of the workspace's own packages may differ; only their dependencies are compared.
    let others: Vec<_> =
        one.difference(&workspace).filter(|line| !line.contains("ray") && !line.contains("(/")).collect();
    assert!(others.is_empty(), "{packages:?} builds these again, with other features: {others:#?}");
}

#[test]
fn one_package_has_the_features_of_the_workspace() {
    same(&["-p", "benches"]);
    same(&["-p", "examples"]);
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
    within(&devices, &["-p", "ray-zerocopy-wheel", "--features", "ray,as-devices"]);
}

#[test]
fn the_python_project_has_the_versions_and_features_of_the_workspace() {
    // The project has its own lock file: after an update, copy that of the workspace over it.
    same(&["--manifest-path", "../examples/python-embedder/Cargo.toml"]);
}
