//! PyTorch for the CPU, as a folder for `PYTHONPATH`, assembled from wheels on PyPI.

use std::path::PathBuf;

use anyhow::Result;

use super::libtorch;
use super::wheels::Assembly;

/// The wheels: PyTorch of the release of LibTorch, two libraries of NVIDIA that its part for the CPU
/// links, and the Python packages that it imports. Not numpy, which each environment has.
///
/// PyTorch has a wheel for each version of Python, and pip takes the one that fits.
const WHEELS: &[&str] = &[
    "torch==2.9.1 \
     --hash=sha256:d033ff0ac3f5400df862a51bdde9bad83561f3739ea0046e68f5401ebfa67c1b \
     --hash=sha256:27331cd902fb4322252657f3902adf1c4f6acad9dcad81d8df3ae14c7c4f07c4 \
     --hash=sha256:524de44cd13931208ba2c4bde9ec7741fd4ae6bfd06409a604fc32f6520c2bc9 \
     --hash=sha256:c432d04376f6d9767a9852ea0def7b47a7bbc8e7af3b16ac9cf9ce02b12851c9",
    "nvidia-cuda-runtime-cu12==12.8.90 --hash=sha256:adade8dcbd0edf427b7204d480d6066d33902cab2a4707dcfc48a2d0fd44ab90",
    "nvidia-cuda-cupti-cu12==12.8.90 --hash=sha256:ea0cb07ebda26bb9b29ba82cda34849e73c166c18162d3913575b0c9db9a6182",
    "sympy==1.14.0 --hash=sha256:e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    "mpmath==1.3.0 --hash=sha256:a0b2b9fe80bbcd81a6647ff13108738cfb482d481d826cc0e02f5b35e5c88d2c",
    "networkx==3.6.1 --hash=sha256:d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
    "jinja2==3.1.6 --hash=sha256:85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67",
    "markupsafe==3.0.4 \
     --hash=sha256:6da83a088f8ef93b2d483a8232a4dbf4d69d3d8496b568a03c56becac43e1808 \
     --hash=sha256:8e124f974786f831d6043728e38296969d3579db8896fe004682f5758e613581 \
     --hash=sha256:434139499bb20b502ed3baa1f169e618f924a97e7a777fea1a49446d80106cf6 \
     --hash=sha256:a8e9f292fcda89b324f2f5c91d13f1424a153e40fc2756f38ee23b15835ff300",
    "filelock==4.3.1 --hash=sha256:79e43df8e9fe509cd83a3899a7c186c8077cbbe4d200a1ed3705c2f3bb6bc487",
    "fsspec==2026.9.0 --hash=sha256:8dd6e646e99ea382bd85f97a45e6b526a442d79423a7dc673f1e2756d05fcb5f",
    "typing_extensions==4.16.0 --hash=sha256:481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8",
];

/// The files that a complete PyTorch has.
const FILES: &[&str] = &[
    "torch/__init__.py",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libtorch_python.so",
    "torch/lib/libtorch_cuda.so",
    "torch/lib/libcudart.so.12",
    "sympy/__init__.py",
];

/// The Python program that unpacks the wheels, of any release.
pub(crate) const UNPACK: &str = include_str!("torch.py");

const ASSEMBLY: Assembly = Assembly {
    name: "torch",
    wheels: WHEELS,
    platform: &[],
    unpack: UNPACK,
    files: FILES,
    otherwise: "install PyTorch 2.9 where the tests find it",
};

/// The folder of PyTorch, for `PYTHONPATH`.
pub(crate) fn folder() -> Result<PathBuf> {
    ASSEMBLY.cached()
}

/// Returns whether PyTorch is complete.
pub(super) fn is_present() -> bool {
    ASSEMBLY.is_cached()
}

/// Fetches the wheels and assembles PyTorch in the cache. Files that LibTorch in the cache has too
/// become links to it.
pub(super) fn fetch() -> Result<()> {
    ASSEMBLY.fetch(&folder()?, &[libtorch::cached()?.join("lib")])
}
