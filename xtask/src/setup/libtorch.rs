//! LibTorch for the CPU, assembled from wheels on PyPI.

use std::path::PathBuf;

use anyhow::Result;

use super::wheels::Assembly;

/// The PyTorch release of the bindings, and two libraries that its CPU part links.
///
/// PyTorch has a BSD licence, the other two have NVIDIA's; the licence texts are unpacked, too.
const LIBTORCH: Assembly = Assembly {
    name: "libtorch",
    wheels: &[
        "torch==2.9.1 --hash=sha256:d033ff0ac3f5400df862a51bdde9bad83561f3739ea0046e68f5401ebfa67c1b",
        "nvidia-cuda-runtime-cu12==12.8.90 --hash=sha256:adade8dcbd0edf427b7204d480d6066d33902cab2a4707dcfc48a2d0fd44ab90",
        "nvidia-cuda-cupti-cu12==12.8.90 --hash=sha256:ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182",
    ],
    platform: &[
        "--implementation=cp",
        "--python-version=3.11",
        "--abi=cp311",
        "--abi=none",
        "--platform=manylinux_2_28_x86_64",
        "--platform=manylinux2014_x86_64",
    ],
    unpack: include_str!("libtorch.py"),
    files: &[
        "lib/libtorch_cpu.so",
        "lib/libc10.so",
        "lib/libgomp.so.1",
        "lib/libcudart.so.12",
        "lib/libcupti.so.12",
        "lib/libtorch.so",
        "include/torch/csrc/api/include/torch/torch.h",
    ],
    otherwise: "set LIBTORCH to a LibTorch 2.9 of your own",
};

/// The folder of LibTorch: the user's own in `LIBTORCH`, or else that of the cache.
pub(crate) fn folder() -> Result<PathBuf> {
    std::env::var_os("LIBTORCH").map_or_else(cached, |own| Ok(own.into()))
}

/// The folder in the cache.
pub(super) fn cached() -> Result<PathBuf> {
    LIBTORCH.cached()
}

/// Returns whether LibTorch is complete, or `LIBTORCH` names one.
pub(super) fn is_present() -> bool {
    std::env::var_os("LIBTORCH").is_some() || LIBTORCH.is_cached()
}

/// Fetches the wheels and assembles LibTorch in the cache.
pub(super) fn fetch() -> Result<()> {
    LIBTORCH.fetch(&cached()?, &[])
}
