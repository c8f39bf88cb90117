//! Python: the interpreter, what pip fetches for the tests, and the environment with Ray.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress;
use crate::shell::{cache, succeeds, target};

/// The release of `typos` that accepts the tree.
const TYPOS: &str = "typos==1.52.0";

/// The packages of the environment with Ray.
///
/// Ray is pinned because its interfaces change from release to release. The other versions are
/// those that the tests ran with.
const PACKAGES: &[&str] =
    &["ray==2.60.0", "numpy==2.4.6", "pyarrow==26.0.1", "pandas==3.1.1", "pytest==9.2.0", "maturin==1.16.0"];

/// Fails without Python 3.11, pip or venv.
const INTERPRETER: &str = "import sys, ensurepip, pip, venv; sys.exit(sys.version_info < (3, 11))";

/// Fails without the shared library of Python.
const LIBRARY: &str = "
import glob, os, sys, sysconfig
folder, arch, config = map(sysconfig.get_config_var, ('LIBDIR', 'MULTIARCH', 'LIBPL'))
folders = [folder or '', os.path.join(folder or '', arch or ''), config or '']
name = 'libpython%d.%d*.so*' % sys.version_info[:2]
sys.exit(not any(glob.glob(os.path.join(each, name)) for each in folders))
";

/// Returns whether `python3` is recent enough, and has pip and venv.
pub(super) fn has_interpreter() -> bool {
    succeeds(Command::new("python3").args(["-c", INTERPRETER]))
}

/// Returns whether `python3` has a shared library.
pub(super) fn has_library() -> bool {
    succeeds(Command::new("python3").args(["-c", LIBRARY]))
}

fn typos_folder() -> PathBuf {
    target().join("tools").join(TYPOS.replace("==", "-"))
}

/// The path of `typos`. It lies in the target folder.
pub(crate) fn typos() -> PathBuf {
    typos_folder().join("bin").join("typos")
}

/// Installs `typos` into the target folder.
pub(super) fn fetch_typos() -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--target"]).arg(typos_folder()).arg(TYPOS);
    progress::run("typos", pip)
}

/// The folder of the environment with Ray. The library looks there, too.
pub(crate) fn ray_environment() -> Result<PathBuf> {
    Ok(cache()?.join("ray-env"))
}

/// Returns whether the environment is complete and has the pinned packages.
pub(super) fn has_ray_environment() -> bool {
    let recorded = ray_environment().and_then(|folder| Ok(fs::read_to_string(folder.join("packages.txt"))?));
    recorded.is_ok_and(|packages| packages == PACKAGES.join("\n"))
}

/// Creates the environment, or updates its packages.
pub(super) fn fetch_ray_environment() -> Result<()> {
    let folder = ray_environment()?;
    if !folder.join("bin/python").exists() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&folder);
        progress::run("ray-env-venv", venv)?;
    }
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"]).args(PACKAGES);
    progress::run("ray-env-packages", pip)?;
    let record = folder.join("packages.txt");
    fs::write(&record, PACKAGES.join("\n")).with_context(|| format!("{} cannot be written", record.display()))
}
