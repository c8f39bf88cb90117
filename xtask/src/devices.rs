//! What is tested on devices other than `cpu`, and what can only be type-checked there.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::libtorch::with_libtorch;
use crate::shell::{install, run, target};

/// The third selection of features: burn is built for it once more, in a profile that makes this short.
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

/// Devices that the conformance suite runs on, and that have to be there. As features of the tests, and with commas between them.
const DEVICES: &str = "wgpu,libtorch";

/// What is built for them, as features of the packages.
const TESTED: &str = "wgpu,torchscript";

/// The benchmark of TorchScript.
const BENCHES: &[&str] = &["-p", "benches", "--features", "benches/torchscript"];

/// What has TorchScript and Ray.
const WITH_RAY: &[&str] = &["--features", "ray-zerocopy-tests/ray"];

/// With a device that no test machine need have: `cuda` cannot be linked without an LLVM that burn would download.
const CHECKED: &str = "wgpu,torchscript,cuda";

fn selection(command: &str, features: &str, rest: &[&str]) -> Result<Command> {
    let packages = ["ray-zerocopy-tests", "examples", "ray-zerocopy-cli"];
    let features = features.split(',').flat_map(|feature| packages.map(|package| format!("{package}/{feature}")));
    let features: Vec<_> = features.collect();
    let mut cargo = with_libtorch([command])?;
    cargo.args(SELECTION).args(["--features", &features.join(",")]).args(rest);
    Ok(cargo)
}

/// Runs the conformance suite, what TorchScript is to do, and the examples on the same devices.
pub(crate) fn tests() -> Result<()> {
    vulkan()?;
    let runtime = runtime_folder()?;
    let tests = ["devices", "torchscript", "silero", "torchscript_quick"].map(|name| ["--test", name]).concat();
    let mut test = selection("test", TESTED, &[BENCHES, &["--no-fail-fast"], &tests].concat())?;
    test.env("RAY_ZEROCOPY_REQUIRE", DEVICES).env("XDG_RUNTIME_DIR", &runtime);
    run(test)?;
    run(selection("test", TESTED, &["--lib", "--", "torch", "device::", "script"])?)?;
    run(selection("build", TESTED, &["--example", "devices", "--example", "torchscript", "--quiet"])?)?;
    run(Command::new(target().join("devices/examples/torchscript")))?;
    let mut example = Command::new(target().join("devices/examples/devices"));
    example.arg("cpu").args(DEVICES.split(',')).args(["--width", "256"]).env("XDG_RUNTIME_DIR", runtime);
    run(example)
}

/// Tests TorchScript on a cluster of Ray.
pub(crate) fn on_ray() -> Result<()> {
    run(selection("test", TESTED, &[WITH_RAY, &["--test", "torchscript_ray"]].concat())?)
}

/// Type-checks and lints what is behind the features, the suite's instantiation for CUDA among it.
pub(crate) fn lints() -> Result<()> {
    let rest = [BENCHES, WITH_RAY, &["--all-targets", "--quiet", "--", "-D", "warnings"][..]].concat();
    let mut clippy = selection("clippy", CHECKED, &rest)?;
    // burn's CUDA backend has a build script that downloads LLVM, and leaves it when it believes that docs are built.
    clippy.env("DOCS_RS", "1");
    run(clippy)
}

/// A folder of the user's own, where Mesa looks for a display server. Without one it complains on each start of each process.
fn runtime_folder() -> Result<std::ffi::OsString> {
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR") {
        return Ok(folder);
    }
    let folder = target().join("runtime");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(0o700)))
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder.into_os_string())
}

/// Sees to it that there is a Vulkan: that of a GPU, or Mesa's, which computes on the processor.
fn vulkan() -> Result<()> {
    match has_vulkan() {
        true => Ok(()),
        false => install("no Vulkan is installed", &["mesa-vulkan-drivers", "libvulkan1"]),
    }
}

/// Whether there is the loader, and a driver for it.
fn has_vulkan() -> bool {
    let holds = |folder: &str, fits: fn(&str) -> bool| {
        let entries = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| fits(&entry.file_name().to_string_lossy()))
    };
    let loader =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let drivers = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
    loader.iter().any(|folder| holds(folder, |name| name.starts_with("libvulkan.so.1")))
        && drivers.iter().any(|folder| holds(folder, |name| name.ends_with(".json")))
}
