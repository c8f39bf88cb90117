//! Empty build script: cargo ignores build dependencies of a package without one.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
