//! LibTorch for the CPU, made of wheels from PyPI, and what is built and tested with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{cache, cargo, exists, install, run};

/// What pip fetches, and nothing else under these names: the release that the bindings are for, and two libraries that its CPU
/// part is linked with. 910 MB, of which 480 MB stay. PyTorch is under a BSD licence, the other two under NVIDIA's: all three come along.
const WHEELS: &[&str] = &[
    "torch==2.9.1 --hash=sha256:d033ff0ac3f5400df862a51bdde9bad83561f3739ea0046e68f5401ebfa67c1b",
    "nvidia-cuda-runtime-cu12==12.8.90 --hash=sha256:adade8dcbd0edf427b7204d480d6066d33902cab2a4707dcfc48a2d0fd44ab90",
    "nvidia-cuda-cupti-cu12==12.8.90 --hash=sha256:ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182",
];

/// Which wheels: for this machine, whatever Python is there to fetch them.
const PLATFORM: &[&str] = &[
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.11",
    "--abi=cp311",
    "--abi=none",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux2014_x86_64",
];

/// What has to be there, and its size where a wheel says it.
const FILES: &[(&str, Option<u64>)] = &[
    ("lib/libtorch_cpu.so", Some(436_938_961)),
    ("lib/libc10.so", Some(1_457_769)),
    ("lib/libgomp.so.1", Some(254_337)),
    ("lib/libcudart.so.12", Some(728_800)),
    ("lib/libcupti.so.12", Some(7_595_792)),
    ("lib/libtorch.so", None),
    ("include/torch/csrc/api/include/torch/torch.h", None),
];

/// Unpacks the wheels.
const UNPACK: &str = include_str!("libtorch.py");

/// Where LibTorch is.
fn folder() -> Result<PathBuf> {
    Ok(cache()?.join("libtorch"))
}

/// Says what is missing or of another size, if anything is.
fn damage(folder: &Path) -> Option<String> {
    FILES.iter().find_map(|(name, size)| match fs::metadata(folder.join(name)) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(found) if size.is_some_and(|size| size != found.len()) => Some(format!("{name} has {} bytes", found.len())),
        Ok(_) => None,
    })
}

/// Makes LibTorch in the cache. Quick if there is nothing to do.
pub(crate) fn environment() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "LibTorch is made of wheels for Linux on x86_64 only; elsewhere, set LIBTORCH to a LibTorch 2.9 of your own"
        );
    }
    let folder = folder()?;
    let done = folder.join("wheels.txt");
    let wanted = WHEELS.join("\n");
    let current = fs::read_to_string(&done).is_ok_and(|found| found == wanted);
    match damage(&folder) {
        None if current => return Ok(()),
        Some(damage) if current => eprintln!("LibTorch in {} is damaged and made again: {damage}", folder.display()),
        _ => eprintln!("making LibTorch in {}: 910 MB are fetched once, and 480 MB stay", folder.display()),
    }
    // A sibling, because a rename stays within a file system. What an earlier try has left is in the way of nobody.
    let parent = folder.parent().context("the cache has no parent folder")?;
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    let staging = parent.join(format!(".libtorch-{}", std::process::id()));
    let made = make(&staging, &wanted).and_then(|ready| publish(&ready, &folder));
    let cleared = fs::remove_dir_all(&staging);
    made?;
    cleared.with_context(|| format!("{} cannot be removed", staging.display()))
}

/// Fetches and unpacks; gives the folder that is ready.
fn make(staging: &Path, wanted: &str) -> Result<PathBuf> {
    let wheels = staging.join("wheels");
    let ready = staging.join("ready");
    fs::create_dir_all(&wheels).with_context(|| format!("{} cannot be made", wheels.display()))?;
    let requirements = staging.join("requirements.txt");
    fs::write(&requirements, wanted).with_context(|| format!("{} cannot be written", requirements.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check", "--require-hashes"]);
    pip.args(PLATFORM).arg("--dest").arg(&wheels).arg("--requirement").arg(&requirements);
    // pip keeps what it fetches in its own cache, which is of no use to anybody.
    pip.arg("--no-cache-dir").env("TMPDIR", staging);
    run(pip).context(
        "the wheels come from PyPI, with pip: without a network, set LIBTORCH to a LibTorch 2.9 of your own instead",
    )?;
    let mut unpack = Command::new("python3");
    unpack.args(["-c", UNPACK]).arg(&wheels).arg(&ready);
    run(unpack).context("the wheels cannot be unpacked")?;
    if let Some(damage) = damage(&ready) {
        bail!("the wheels do not hold what they should: {damage}");
    }
    fs::write(ready.join("wheels.txt"), wanted).context("the list of wheels cannot be written")?;
    Ok(ready)
}

/// Moves what is ready into place. Two processes may do this at once: the first one wins, and the other takes the winner's.
fn publish(ready: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        let old = ready.with_file_name("old");
        fs::rename(folder, &old).with_context(|| format!("{} cannot be moved away", folder.display()))?;
    }
    match fs::rename(ready, folder) {
        Err(error) if damage(folder).is_some() => {
            Err(error).with_context(|| format!("LibTorch cannot be moved to {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Where the LibTorch is that things are built with: the one that the user has set, or else that of the cache, which is made.
pub(crate) fn ready() -> Result<PathBuf> {
    if !exists("c++") {
        install("what is built with LibTorch needs a C++ compiler", &["g++"])?;
    }
    match std::env::var_os("LIBTORCH") {
        Some(own) => Ok(own.into()),
        None => environment().and_then(|()| folder()),
    }
}

/// A cargo command that builds with LibTorch.
pub(crate) fn with_libtorch<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = cargo(arguments);
    let libtorch = ready()?;
    command.env("LIBTORCH", &libtorch);
    // Doc tests have no build script that could put the path into them.
    let known = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command.env("LD_LIBRARY_PATH", [libtorch.join("lib").display().to_string(), known].join(":"));
    Ok(command)
}

/// `cargo xtask libtorch`: makes it and says how to use it, or runs a cargo command with it.
pub(crate) fn libtorch(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return run(with_libtorch(arguments)?);
    }
    environment()?;
    println!("export LIBTORCH={}", folder()?.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{damage, publish};

    #[test]
    fn what_is_missing_is_named_and_is_not_published() {
        let folder = std::env::temp_dir().join(format!("xtask-libtorch-{}", std::process::id()));
        let (ready, place) = (folder.join("ready"), folder.join("libtorch"));
        fs::create_dir_all(&ready).unwrap();
        assert!(damage(&ready).unwrap().starts_with("lib/libtorch_cpu.so: "));
        fs::create_dir(ready.join("lib")).unwrap();
        fs::write(ready.join("lib/libtorch_cpu.so"), "short").unwrap();
        assert_eq!(damage(&ready).unwrap(), "lib/libtorch_cpu.so has 5 bytes");
        // What was there before makes room.
        fs::create_dir_all(place.join("old")).unwrap();
        publish(&ready, &place).unwrap();
        assert!(place.join("lib/libtorch_cpu.so").exists() && !place.join("old").exists());
        assert!(publish(&ready, &folder.join("no/where")).is_err(), "there is nothing ready any more");
        fs::remove_dir_all(folder).unwrap();
    }
}
