//! Cargo commands that build with LibTorch.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::Result;

use crate::setup::libtorch::folder;
use crate::shell::{cargo, run};

/// The requirements of a build with LibTorch.
pub(crate) const NEEDS: &[&str] = &["c++", "libtorch"];

/// A cargo command that builds with LibTorch.
pub(crate) fn with_libtorch<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = cargo(arguments);
    let libtorch = folder()?;
    command.env("LIBTORCH", &libtorch);
    // Programs have the path of the libraries in them. Doc tests do not, as build scripts cannot
    // set it.
    let inherited = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command.env("LD_LIBRARY_PATH", [libtorch.join("lib").display().to_string(), inherited].join(":"));
    Ok(command)
}

/// `cargo xtask libtorch`: runs a cargo command with LibTorch.
///
/// Without a command, prints the shell command that sets `LIBTORCH`.
pub(crate) fn libtorch(arguments: &[String]) -> Result<()> {
    if arguments.is_empty() {
        println!("export LIBTORCH={}", folder()?.display());
        return Ok(());
    }
    run(with_libtorch(arguments)?)
}
