//! LibTorch for the CPU, assembled from wheels on PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::shell::cache;

/// The wheels: the PyTorch release of the bindings, and two libraries that its CPU part links.
///
/// The hashes pin their contents. PyTorch has a BSD licence, the other two have NVIDIA's; the
/// licence texts are unpacked, too.
const WHEELS: &[&str] = &[
    "torch==2.9.1 --hash=sha256:d033ff0ac3f5400df862a51bdde9bad83561f3739ea0046e68f5401ebfa67c1b",
    "nvidia-cuda-runtime-cu12==12.8.90 --hash=sha256:adade8dcbd0edf427b7204d480d6066d33902cab2a4707dcfc48a2d0fd44ab90",
    "nvidia-cuda-cupti-cu12==12.8.90 --hash=sha256:ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182",
];

/// The platform tags of the wheels. They do not depend on the Python that runs pip.
const PLATFORM: &[&str] = &[
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.11",
    "--abi=cp311",
    "--abi=none",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux2014_x86_64",
];

/// The files that a complete LibTorch has.
const FILES: &[&str] = &[
    "lib/libtorch_cpu.so",
    "lib/libc10.so",
    "lib/libgomp.so.1",
    "lib/libcudart.so.12",
    "lib/libcupti.so.12",
    "lib/libtorch.so",
    "include/torch/csrc/api/include/torch/torch.h",
];

/// Unpacks the wheels.
const UNPACK: &str = include_str!("libtorch.py");

/// The folder of LibTorch: the user's own in `LIBTORCH`, or else that of the cache.
pub(crate) fn folder() -> Result<PathBuf> {
    std::env::var_os("LIBTORCH").map_or_else(cached, |own| Ok(own.into()))
}

fn cached() -> Result<PathBuf> {
    Ok(cache()?.join("libtorch"))
}

/// Returns whether LibTorch is complete, or `LIBTORCH` names one.
pub(super) fn is_present() -> bool {
    std::env::var_os("LIBTORCH").is_some() || cached().is_ok_and(|folder| is_current(&folder))
}

/// Returns whether a folder has all files, and they are from the pinned wheels.
fn is_current(folder: &Path) -> bool {
    let recorded = fs::read_to_string(folder.join("wheels.txt"));
    recorded.is_ok_and(|wheels| wheels == WHEELS.join("\n")) && missing_file(folder).is_none()
}

/// Returns the first file that a LibTorch lacks, or `None` if it is complete.
fn missing_file(folder: &Path) -> Option<&'static str> {
    FILES.iter().copied().find(|name| !folder.join(name).is_file())
}

/// Fetches the wheels and assembles LibTorch in the cache.
pub(super) fn fetch() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the wheels are for Linux on x86_64; elsewhere, set LIBTORCH to a LibTorch 2.9 of your own");
    }
    let folder = cached()?;
    // The staging folder is a sibling, because a rename stays within a file system.
    let parent = folder.parent().context("the cache has no parent folder")?;
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be created", parent.display()))?;
    let staging = parent.join(format!(".libtorch-{}", std::process::id()));
    let published = assemble(&staging).and_then(|ready| publish(&ready, &folder));
    let removed = fs::remove_dir_all(&staging);
    published?;
    removed.with_context(|| format!("{} cannot be removed", staging.display()))
}

/// Fetches and unpacks the wheels. Returns the folder that is ready.
fn assemble(staging: &Path) -> Result<PathBuf> {
    let wheels = staging.join("wheels");
    let ready = staging.join("ready");
    fs::create_dir_all(&wheels).with_context(|| format!("{} cannot be created", wheels.display()))?;
    let requirements = staging.join("requirements.txt");
    let pinned = WHEELS.join("\n");
    fs::write(&requirements, &pinned).with_context(|| format!("{} cannot be written", requirements.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check", "--require-hashes"]);
    pip.args(PLATFORM).arg("--dest").arg(&wheels).arg("--requirement").arg(&requirements);
    // pip's own cache would keep 910 MB that are used once.
    pip.arg("--no-cache-dir").env("TMPDIR", staging);
    progress::run("libtorch-download", pip)
        .context("without a network, set LIBTORCH to a LibTorch 2.9 of your own instead")?;
    let mut unpack = Command::new("python3");
    unpack.args(["-c", UNPACK]).arg(&wheels).arg(&ready);
    progress::run("libtorch-unpack", unpack).context("the wheels cannot be unpacked")?;
    if let Some(name) = missing_file(&ready) {
        bail!("the wheels lack {name}");
    }
    fs::write(ready.join("wheels.txt"), pinned).context("the list of wheels cannot be written")?;
    Ok(ready)
}

/// Moves a complete LibTorch into place.
///
/// Two processes may do this at once. The second one then uses the LibTorch of the first.
fn publish(ready: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        let old = ready.with_file_name("old");
        fs::rename(folder, &old).with_context(|| format!("{} cannot be moved away", folder.display()))?;
    }
    match fs::rename(ready, folder) {
        Err(error) if missing_file(folder).is_some() => {
            Err(error).with_context(|| format!("LibTorch cannot be moved to {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILES, is_current, missing_file, publish};

    #[test]
    fn incomplete_libtorch_is_not_published() {
        let folder = std::env::temp_dir().join(format!("xtask-libtorch-{}", std::process::id()));
        let (ready, place) = (folder.join("ready"), folder.join("libtorch"));
        fs::create_dir_all(ready.join("lib")).unwrap();
        assert_eq!(missing_file(&ready), Some(FILES[0]));
        fs::write(ready.join(FILES[0]), "").unwrap();
        assert_eq!(missing_file(&ready), Some(FILES[1]));
        assert!(!is_current(&ready));
        // An older LibTorch is replaced.
        fs::create_dir_all(place.join("old")).unwrap();
        publish(&ready, &place).unwrap();
        assert!(place.join(FILES[0]).exists() && !place.join("old").exists());
        assert!(publish(&ready, &folder.join("no/where")).is_err(), "the folder `ready` was moved");
        fs::remove_dir_all(folder).unwrap();
    }
}
