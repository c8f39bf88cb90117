//! LibTorch for the CPU, assembled from wheels on PyPI.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::wheels::Assembly;
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

const ASSEMBLY: Assembly = Assembly {
    name: "libtorch",
    wheels: WHEELS,
    platform: PLATFORM,
    files: FILES,
    script: include_str!("libtorch.py"),
};

/// The folder of LibTorch: the user's own in `LIBTORCH`, or else that of the cache.
pub(crate) fn folder() -> Result<PathBuf> {
    std::env::var_os("LIBTORCH").map_or_else(cached, |own| Ok(own.into()))
}

/// The folder in the cache.
pub(super) fn cached() -> Result<PathBuf> {
    Ok(cache()?.join("libtorch"))
}

/// Returns whether LibTorch is complete, or `LIBTORCH` names one.
pub(super) fn is_present() -> bool {
    std::env::var_os("LIBTORCH").is_some() || cached().is_ok_and(|folder| ASSEMBLY.is_current(&folder))
}

/// Fetches the wheels and assembles LibTorch in the cache.
pub(super) fn fetch() -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("the wheels are for Linux on x86_64; elsewhere, set LIBTORCH to a LibTorch 2.9 of your own");
    }
    ASSEMBLY.fetch(&cached()?, &[])
}
