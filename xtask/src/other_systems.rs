//! The step `other systems`: the crate compiles on systems other than Linux.

use std::process::Command;

use anyhow::Result;

use crate::shell::{cargo, run};
use crate::test::Skipped;

/// A system without memfds and pidfds.
const TARGET: &str = "x86_64-apple-darwin";

/// Type-checks the library for macOS.
pub(crate) fn check() -> Result<()> {
    if !is_installed() {
        let reason = format!("Rust's standard library for macOS is missing; run `rustup target add {TARGET}`");
        return Err(Skipped(reason).into());
    }
    let mut check = cargo(["check", "-p", "ray-zerocopy", "--lib", "--target", TARGET]);
    // blake3 in Rust alone: a C compiler for macOS is not needed.
    check.env("CARGO_FEATURE_PURE", "1").env("RUSTFLAGS", "-D warnings");
    run(check)
}

/// Returns whether the toolchain can compile for the system.
fn is_installed() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let folder = rustc.output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    folder.is_ok_and(|folder| std::path::Path::new(&folder).exists())
}
