//! Debian packages, installed with apt.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::Result;

use crate::progress;
use crate::shell::exists;

/// Returns whether this process may install packages: it runs as root, on a system with apt.
pub(super) fn may_install() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) && exists("apt-get")
}

/// Installs packages.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-qq", "-y"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    progress::run("apt-get-update", apt(&["update"]))?;
    progress::run("apt-get-install", apt(&[&["install", "--no-install-recommends"], packages].concat()))
}

/// The command line to show to users who are not root.
pub(super) fn command(packages: &[&str]) -> String {
    format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
}
