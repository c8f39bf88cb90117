//! Cargo commands that build with burn's CUDA backend.

use std::process::Command;

use anyhow::Result;

use crate::setup::llvm::data_folder;
use crate::shell::{cargo, run};

/// The requirements of a build for CUDA.
pub(crate) const NEEDS: &[&str] = &["c++", "llvm"];

/// The version of CUDA whose driver API the bindings have, as cudarc writes it: 13.0, which drivers
/// of version 580 and later have. Without the variable, cudarc asks `nvcc`, and stops the build if
/// it does not know the version.
const VERSION: (&str, &str) = ("CUDARC_CUDA_VERSION", "13000");

/// The variables of a build for CUDA, with their values.
fn variables() -> Result<[(&'static str, String); 2]> {
    let (name, default) = VERSION;
    let version = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    Ok([("XDG_DATA_HOME", data_folder()?.display().to_string()), (name, version)])
}

/// Prepares a cargo command for a build for CUDA.
pub(crate) fn prepare(command: &mut Command) -> Result<()> {
    // With this variable, the build scripts prepare documentation, which links nothing.
    command.envs(variables()?).env_remove("DOCS_RS");
    Ok(())
}

/// `cargo xtask cuda`: runs a cargo command that can build the feature `cuda`.
///
/// Without a command, prints the shell commands that prepare other builds.
pub(crate) fn cuda(arguments: &[String]) -> Result<()> {
    if arguments.is_empty() {
        for (name, value) in variables()? {
            println!("export {name}={value}");
        }
        return Ok(());
    }
    let mut command = cargo(arguments);
    prepare(&mut command)?;
    run(command)
}
