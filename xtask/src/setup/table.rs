//! The requirements, by name.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::python_folders::{EXAMPLES, PREDECESSOR};
use super::{kernel, libtorch, llvm, models, python, torch, vulkan};
use crate::shell::{cargo, exists, find, run, succeeds};

/// A program, library or file that a task requires and the repository does not have.
pub(crate) struct Requirement {
    pub name: &'static str,
    /// Why tasks require it.
    pub why: &'static str,
    /// The requirements for fetching it. They are not checked if it is present.
    pub needs: &'static [&'static str],
    /// Returns whether it is present. Cheap: looks for files, or asks a program for its version.
    pub is_present: fn() -> bool,
    pub source: Source,
}

/// Where a requirement comes from.
pub(crate) enum Source {
    /// Debian packages. Only root can install them.
    Debian(&'static [&'static str]),
    /// Any user can fetch it, into a folder of their own.
    Fetch { from: &'static str, fetch: fn() -> Result<()> },
}

/// All requirements, in the order in which they are fetched: the quickest first.
pub(crate) const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        name: "rustfmt",
        why: "checks the format",
        needs: &[],
        is_present: || succeeds(&mut cargo(["fmt", "--version"])),
        source: Source::Fetch { from: "a component of Rust", fetch: || component("rustfmt") },
    },
    Requirement {
        name: "clippy",
        why: "lints the code",
        needs: &[],
        is_present: || succeeds(&mut cargo(["clippy", "--version"])),
        source: Source::Fetch { from: "a component of Rust", fetch: || component("clippy") },
    },
    Requirement {
        name: "tar",
        why: "unpacks packages of crates.io",
        needs: &[],
        is_present: || exists("tar"),
        source: Source::Debian(&["tar"]),
    },
    Requirement {
        name: "python",
        why: "fetches packages of PyPI: Python 3.11 or later, with pip and venv",
        needs: &[],
        is_present: python::has_interpreter,
        source: Source::Debian(&["python3", "python3-pip", "python3-venv"]),
    },
    Requirement {
        name: "libpython",
        why: "is linked into programs that use Ray: the shared library of Python",
        needs: &[],
        is_present: python::has_library,
        source: Source::Debian(&["libpython3-dev"]),
    },
    Requirement {
        name: "c++",
        why: "compiles the bindings of LibTorch and LLVM, and a CUDA driver for tests",
        needs: &[],
        is_present: || exists("c++"),
        source: Source::Debian(&["g++"]),
    },
    Requirement {
        name: "vulkan",
        why: "runs the device `wgpu`, on the processor if there is no GPU",
        needs: &[],
        is_present: vulkan::is_installed,
        source: Source::Debian(&["mesa-vulkan-drivers", "libvulkan1"]),
    },
    Requirement {
        name: "qemu",
        why: "emulates the machine with the old kernel",
        needs: &[],
        is_present: || ["qemu-system-x86_64", "busybox", "cpio"].iter().all(|program| find(program).is_some()),
        source: Source::Debian(&["qemu-system-x86", "busybox-static", "cpio"]),
    },
    Requirement {
        name: "debian-keys",
        why: "verifies the package of the old kernel",
        needs: &[],
        is_present: || Path::new(kernel::KEYS).exists(),
        source: Source::Debian(&["debian-archive-keyring"]),
    },
    Requirement {
        name: "typos",
        why: "checks the spelling",
        needs: &["python"],
        is_present: || python::typos().exists(),
        source: Source::Fetch { from: "8 MB from PyPI", fetch: python::fetch_typos },
    },
    Requirement {
        name: "old-kernel",
        why: "runs the tests of memory and processes: Linux 5.10",
        needs: &["debian-keys"],
        is_present: kernel::is_present,
        source: Source::Fetch { from: "a package of Debian 11", fetch: kernel::fetch },
    },
    Requirement {
        name: "ray-env",
        why: "runs clusters, pytest and maturin: a Python environment with Ray",
        needs: &["python", "libpython"],
        is_present: python::has_ray_environment,
        source: Source::Fetch { from: "400 MB from PyPI", fetch: python::fetch_ray_environment },
    },
    Requirement {
        name: "python-examples",
        why: "runs the examples in Python: FastAPI, gunicorn, Pillow and matplotlib",
        needs: &["python"],
        is_present: || EXAMPLES.is_cached(),
        source: Source::Fetch { from: "30 MB from PyPI", fetch: || EXAMPLES.fetch(&EXAMPLES.cached()?, &[]) },
    },
    Requirement {
        name: "predecessor",
        why: "is measured by `benches/python/pipelines.py`: the Python package `ray-zerocopy` of PyPI",
        needs: &["python"],
        is_present: || PREDECESSOR.is_cached(),
        source: Source::Fetch { from: "40 kB from PyPI", fetch: || PREDECESSOR.fetch(&PREDECESSOR.cached()?, &[]) },
    },
    Requirement {
        name: "peers-env",
        why: "runs `compiled --peers`: a Python environment with ONNX Runtime",
        needs: &["python"],
        is_present: python::has_peers_environment,
        source: Source::Fetch { from: "60 MB from PyPI", fetch: python::fetch_peers_environment },
    },
    Requirement {
        name: "servers-env",
        why: "runs `serve --peers`: a Python environment with infinity, FastAPI and ONNX Runtime",
        needs: &["python"],
        is_present: python::has_servers_environment,
        source: Source::Fetch { from: "190 MB from PyPI, 690 MB unpacked", fetch: python::fetch_servers_environment },
    },
    Requirement {
        name: "clients-env",
        why: "calls `rzc serve`: a Python environment with the clients of Triton, KServe and OpenAI",
        needs: &["python"],
        is_present: python::has_clients_environment,
        source: Source::Fetch { from: "110 MB from PyPI, 540 MB unpacked", fetch: python::fetch_clients_environment },
    },
    Requirement {
        name: "curl",
        why: "calls `rzc serve`",
        needs: &[],
        is_present: || exists("curl"),
        source: Source::Debian(&["curl"]),
    },
    Requirement {
        name: "llvm",
        why: "compiles kernels for the device `cuda`",
        needs: &["python"],
        is_present: llvm::is_present,
        source: Source::Fetch { from: "92 MB from PyPI, of which 240 MB are unpacked", fetch: llvm::fetch },
    },
    Requirement {
        name: "libtorch",
        why: "runs the device `libtorch` and TorchScript",
        needs: &["python"],
        is_present: libtorch::is_present,
        source: Source::Fetch { from: "910 MB from PyPI, of which 480 MB stay", fetch: libtorch::fetch },
    },
    Requirement {
        name: "torch",
        why: "runs the tests of pipelines of PyTorch: PyTorch for the CPU",
        needs: &["python", "c++", "libtorch"],
        is_present: torch::is_present,
        source: Source::Fetch { from: "930 MB from PyPI, of which 130 MB stay beside LibTorch", fetch: torch::fetch },
    },
    Requirement {
        name: "models",
        why: "run in the examples and in tests",
        needs: &["python"],
        is_present: models::are_present,
        source: Source::Fetch { from: "170 MB from PyPI, with a program that is built first", fetch: models::fetch },
    },
    Requirement {
        name: "cargo-fuzz",
        why: "runs `cargo xtask fuzz`",
        needs: &[],
        is_present: || exists("cargo-fuzz"),
        source: Source::Fetch { from: "crates.io, built in minutes", fetch: || install("cargo-fuzz") },
    },
    Requirement {
        name: "mdbook",
        why: "runs `cargo xtask book`",
        needs: &[],
        is_present: || exists("mdbook"),
        source: Source::Fetch { from: "crates.io, built in minutes", fetch: || install("mdbook") },
    },
    Requirement {
        name: "cargo-deny",
        why: "runs `cargo xtask audit`",
        needs: &[],
        is_present: || exists("cargo-deny"),
        source: Source::Fetch { from: "crates.io, built in minutes", fetch: || install("cargo-deny") },
    },
];

/// Adds a component to the toolchain.
fn component(name: &str) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", name]);
    run(rustup).with_context(|| format!("without rustup, install the package of your Rust that has {name}"))
}

/// Installs a program of crates.io. cargo shows its own progress.
fn install(name: &str) -> Result<()> {
    run(cargo(["install", "--locked", name]))
}
