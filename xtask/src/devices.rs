//! Lints and tests of devices other than `cpu`, and of TorchScript.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cuda;
use crate::libtorch::with_libtorch;
use crate::shell::{run, run_tests, target};

/// The third selection of features. burn is built for it again, in a profile that builds quickly.
const SELECTION: &[&str] = &[
    "--profile",
    "devices",
    "-p",
    "ray-zerocopy",
    "-p",
    "ray-zerocopy-tests",
    "-p",
    "examples",
    "-p",
    "ray-zerocopy-cli",
];

/// The devices that the conformance suite must find, as features of the tests. The suite runs on
/// `cuda:0` where there is one.
const DEVICES: &str = "wgpu,libtorch";

/// The features that are tested and linted.
const FEATURES: [&str; 3] = ["wgpu", "torchscript", "cuda"];

/// The benchmark of TorchScript.
const BENCHES: &[&str] = &["-p", "benches", "--features", "benches/torchscript"];

/// The tests of TorchScript on Ray.
const WITH_RAY: &[&str] = &["--features", "ray-zerocopy-tests/ray"];

/// The requirements of [`lints`].
pub(crate) const LINT_NEEDS: &[&str] = &["clippy", "c++", "libtorch", "llvm"];

/// The requirements of [`tests`].
pub(crate) const TEST_NEEDS: &[&str] = &["vulkan", "c++", "libtorch", "llvm", "models"];

/// A cargo command for the third selection of features.
///
/// Lints and tests have one environment: build scripts run again if it changes, and all that
/// depends on them is built again.
fn selection(command: &str, rest: &[&str]) -> Result<Command> {
    let packages = ["ray-zerocopy-tests", "examples", "ray-zerocopy-cli"];
    let features = FEATURES.into_iter().flat_map(|feature| packages.map(|package| format!("{package}/{feature}")));
    let features: Vec<_> = features.collect();
    let mut cargo = with_libtorch([command])?;
    cuda::prepare(&mut cargo)?;
    cargo.args(SELECTION).args(["--features", &features.join(",")]).args(rest);
    Ok(cargo)
}

/// Runs the conformance suite, the tests of CUDA without a GPU, those of TorchScript, and the
/// examples on the devices.
pub(crate) fn tests() -> Result<()> {
    let runtime = runtime_folder()?;
    let tests = ["devices", "cuda", "torchscript", "silero", "torchscript_quick"].map(|name| ["--test", name]).concat();
    let mut test = selection("test", &[BENCHES, &["--no-fail-fast"], &tests].concat())?;
    test.env("RAY_ZEROCOPY_REQUIRE", DEVICES).env("XDG_RUNTIME_DIR", &runtime);
    run_tests(test)?;
    run_tests(selection("test", &["--lib", "--", "torch", "device::", "script", "gpu::"])?)?;
    run(selection("build", &["--example", "devices", "--example", "torchscript"])?)?;
    run(Command::new(target().join("devices/examples/torchscript")))?;
    let mut example = Command::new(target().join("devices/examples/devices"));
    example.arg("cpu").args(DEVICES.split(',')).args(["--width", "256"]).env("XDG_RUNTIME_DIR", runtime);
    run(example)
}

/// Tests TorchScript, and GPUs on the tests' own driver, on a cluster of Ray.
pub(crate) fn on_ray() -> Result<()> {
    let tests = ["--no-fail-fast", "--test", "torchscript_ray", "--test", "cuda_ray"];
    run_tests(selection("test", &[WITH_RAY, &tests].concat())?)
}

/// Lints the code of the features, with the conformance suite's instantiation for CUDA.
pub(crate) fn lints() -> Result<()> {
    let rest = [BENCHES, WITH_RAY, &["--all-targets", "--", "-D", "warnings"][..]].concat();
    run(selection("clippy", &rest)?)
}

/// The user's runtime folder, where Mesa looks for a display server.
///
/// Without the variable, Mesa warns at each start of a process, so an empty folder stands in.
fn runtime_folder() -> Result<OsString> {
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR") {
        return Ok(folder);
    }
    let folder = target().join("runtime");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o700)))
        .with_context(|| format!("{} cannot be created", folder.display()))?;
    Ok(folder.into_os_string())
}
