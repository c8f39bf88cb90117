//! LLVM for burn's CUDA backend, assembled from wheels on PyPI.
//!
//! cubecl compiles kernels with LLVM, and its build script downloads one unless a folder of this
//! name is in the user's data folder. What a build needs of it is its static libraries, headers
//! and `llvm-config`.

use std::path::PathBuf;

use anyhow::Result;

use super::wheels::Assembly;
use crate::shell::cache;

/// The folder below the data folder where `tracel-llvm-bundler` looks for LLVM. Its name has the
/// bundler's version, which `Cargo.lock` pins.
const PLACE: &str = "tracel/tracel-llvm-23.1.0-4";

/// The file that tells the bundler that the folder is complete.
const SENTINEL: &str = ".tracel-llvm-installed";

/// LLVM for x86-64, and the backend for NVIDIA's GPUs. Both have LLVM's licence: Apache 2.0 with an
/// exception.
const LLVM: Assembly = Assembly {
    name: "llvm",
    wheels: &[
        "mlc-llvm-static==23.1.1.post0 --hash=sha256:dcfec888abfaa418be77d41af585805f31463584cf9c90582992c00f392c1ac5",
        "mlc-llvm-static-extra-targets==23.1.1.post0 --hash=sha256:c36e834d9a4e9cf9759f27fece65711ece7a2fc2b5a96dbb15d66f5e9e787929",
    ],
    platform: &["--platform=manylinux_2_28_x86_64"],
    unpack: include_str!("llvm.py"),
    files: &[
        "bin/llvm-config",
        "bin/llvm-config.py",
        "lib/libLLVMCore.a",
        "lib/libLLVMNVPTXCodeGen.a",
        "include/llvm-c/Core.h",
        SENTINEL,
    ],
    otherwise: "build with plain cargo, which downloads Tracel's LLVM",
};

/// The data folder with an LLVM: the user's own if it has one, or else that of the cache.
pub(crate) fn data_folder() -> Result<PathBuf> {
    match own() {
        Some(own) => Ok(own),
        None => cached(),
    }
}

/// The user's data folder, if there is an LLVM for cubecl in it.
fn own() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or_else(home)?;
    data.join(PLACE).join(SENTINEL).exists().then_some(data)
}

fn cached() -> Result<PathBuf> {
    Ok(cache()?.join("llvm"))
}

/// Returns whether there is an LLVM in the user's data folder, or a complete one in the cache.
pub(super) fn is_present() -> bool {
    own().is_some() || cached().is_ok_and(|data| LLVM.is_current(&data.join(PLACE)))
}

/// Fetches the wheels and assembles LLVM in the cache.
pub(super) fn fetch() -> Result<()> {
    LLVM.fetch(&cached()?.join(PLACE), &[])
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result, ensure};

    use super::PLACE;

    /// Fails if `Cargo.lock` has another bundler than [`PLACE`], which would download its LLVM.
    fn check_version(lock: &str) -> Result<()> {
        let entry = lock.split("[[package]]").find(|entry| entry.contains("name = \"tracel-llvm-bundler\""));
        let entry = entry.context("Cargo.lock has no tracel-llvm-bundler")?;
        let version = entry.split('"').nth(3).context("tracel-llvm-bundler has no version")?;
        let expected = PLACE.rsplit_once("llvm-").map(|(_, version)| version);
        ensure!(expected == Some(version), "cubecl looks for LLVM {version}, and {PLACE} is another");
        Ok(())
    }

    #[test]
    fn folder_has_the_version_of_the_bundler() {
        let lock = std::fs::read_to_string(crate::shell::root().join("Cargo.lock")).unwrap();
        check_version(&lock).unwrap();
        let newer =
            lock.replace("tracel-llvm-bundler\"\nversion = \"23.1.0-4", "tracel-llvm-bundler\"\nversion = \"24.0.0");
        let error = check_version(&newer).unwrap_err().to_string();
        assert_eq!(error, "cubecl looks for LLVM 24.0.0, and tracel/tracel-llvm-23.1.0-4 is another");
    }
}
