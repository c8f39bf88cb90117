//! Lints and tests of devices other than `cpu`, and of TorchScript.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::libtorch::with_libtorch;
use crate::shell::{run, target};

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

/// The devices that the conformance suite runs on, as features of the tests.
const DEVICES: &str = "wgpu,libtorch";

/// The features that are tested.
const TESTED: &str = "wgpu,torchscript";

/// The benchmark of TorchScript.
const BENCHES: &[&str] = &["-p", "benches", "--features", "benches/torchscript"];

/// The tests of TorchScript on Ray.
const WITH_RAY: &[&str] = &["--features", "ray-zerocopy-tests/ray"];

/// The features that are linted. Tests leave out `cuda`, because burn would download LLVM to link
/// it.
const CHECKED: &str = "wgpu,torchscript,cuda";

/// The requirements of [`lints`].
pub(crate) const LINT_NEEDS: &[&str] = &["clippy", "c++", "libtorch"];

/// A cargo command for the third selection of features.
fn selection(command: &str, features: &str, rest: &[&str]) -> Result<Command> {
    let packages = ["ray-zerocopy-tests", "examples", "ray-zerocopy-cli"];
    let features = features.split(',').flat_map(|feature| packages.map(|package| format!("{package}/{feature}")));
    let features: Vec<_> = features.collect();
    let mut cargo = with_libtorch([command])?;
    cargo.args(SELECTION).args(["--features", &features.join(",")]).args(rest);
    Ok(cargo)
}

/// Runs the conformance suite, the tests of TorchScript and the examples on the devices.
pub(crate) fn tests() -> Result<()> {
    let runtime = runtime_folder()?;
    let tests = ["devices", "torchscript", "silero", "torchscript_quick"].map(|name| ["--test", name]).concat();
    let mut test = selection("test", TESTED, &[BENCHES, &["--no-fail-fast"], &tests].concat())?;
    test.env("RAY_ZEROCOPY_REQUIRE", DEVICES).env("XDG_RUNTIME_DIR", &runtime);
    run(test)?;
    run(selection("test", TESTED, &["--lib", "--", "torch", "device::", "script"])?)?;
    run(selection("build", TESTED, &["--example", "devices", "--example", "torchscript"])?)?;
    run(Command::new(target().join("devices/examples/torchscript")))?;
    let mut example = Command::new(target().join("devices/examples/devices"));
    example.arg("cpu").args(DEVICES.split(',')).args(["--width", "256"]).env("XDG_RUNTIME_DIR", runtime);
    run(example)
}

/// Tests TorchScript on a cluster of Ray.
pub(crate) fn on_ray() -> Result<()> {
    run(selection("test", TESTED, &[WITH_RAY, &["--test", "torchscript_ray"]].concat())?)
}

/// Lints the code of the features, with the conformance suite's instantiation for CUDA.
pub(crate) fn lints() -> Result<()> {
    let rest = [BENCHES, WITH_RAY, &["--all-targets", "--", "-D", "warnings"][..]].concat();
    let mut clippy = selection("clippy", CHECKED, &rest)?;
    // The build script of burn's CUDA backend downloads LLVM, unless docs are being built.
    clippy.env("DOCS_RS", "1");
    run(clippy)
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
