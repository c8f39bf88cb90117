//! `cargo xtask wheel`: builds the wheel for PyTorch, and tries it in fresh environments with and without Ray.
//!
//! | file | content |
//! | --- | --- |
//! | `wheel/versions.rs` | the oldest and the newest releases of Python, PyTorch and Ray |
//! | `wheel/interpreters.rs` | the Pythons of this machine |
//! | `wheel/install_torch.py` | PyTorch of any release without the libraries for GPUs |

mod interpreters;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::python::{PACKAGES, ray_environment};
use crate::setup::torch;
use crate::shell::{root, run, run_tests, target};

/// What it requires.
pub(crate) const NEEDS: &[&str] = &["ray-env", "torch"];

/// The packages of the tests, which need no Ray.
const TEST_PACKAGES: &[&str] = &["pytest", "joblib"];

/// An environment, and the tests that run in it.
struct Trial {
    name: &'static str,
    has_ray: bool,
    tests: &'static [&'static str],
}

/// The tests of pipelines that run with each combination of releases.
const TESTS: &[&str] = &[
    "test_load.py",
    "test_scripts.py",
    "test_failures.py",
    "test_in_place_writes.py",
    "test_local.py",
    "test_handles.py",
    "test_other_torch.py",
    "test_with_ray.py",
    "test_concepts.py",
    "test_predecessor.py",
];

const TRIALS: &[Trial] = &[
    Trial {
        name: "without-ray",
        has_ray: false,
        tests: &["test_load.py", "test_scripts.py", "test_local.py", "test_handles.py", "test_benchmark.py"],
    },
    Trial { name: "with-ray", has_ray: true, tests: &["test_with_ray.py", "test_concepts.py", "test_predecessor.py"] },
];

/// What `cargo xtask wheel` does.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The profile of cargo: `dev` is built sooner
    #[arg(long, default_value = "release")]
    profile: String,
    /// Try this wheel, and build none
    #[arg(long, value_name = "FILE")]
    wheel: Option<PathBuf>,
    /// Try it with the oldest and the newest releases of Python, PyTorch and Ray instead, which fetches 4 GB
    #[arg(long)]
    versions: bool,
    /// Only with this Python, such as 3.12
    #[arg(long, requires = "versions", value_name = "VERSION")]
    python: Option<String>,
}

/// Builds the wheel, unless one is given, and tries it.
pub(crate) fn wheel(options: &Options) -> Result<()> {
    let wheel = match &options.wheel {
        Some(given) if given.is_file() => given.clone(),
        Some(given) => bail!("--wheel should be a file, found {}", given.display()),
        None => build(&options.profile)?,
    };
    println!("{}", wheel.display());
    if options.versions { versions::versions(&wheel, options.python.as_deref()) } else { environments(&wheel) }
}

/// Runs the tests of pipelines in environments that have nothing but the wheel, what it depends on, and the tests' own packages.
/// PyTorch is that of the cache.
fn environments(wheel: &Path) -> Result<()> {
    let folder = target().join("wheel-environments");
    for trial in TRIALS {
        let environment = folder.join(trial.name);
        if environment.exists() {
            fs::remove_dir_all(&environment).with_context(|| format!("{} cannot be removed", environment.display()))?;
        }
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&environment);
        run(venv)?;
        let mut pip = Command::new(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).arg(wheel);
        pip.args(packages(trial.has_ray));
        run(pip)?;
        let mut pytest = Command::new(environment.join("bin/python"));
        pytest.args(["-m", "pytest", "-q", "-rsfE", "--color=no", "-p", "no:cacheprovider"]);
        pytest.args(test_paths(trial.tests));
        pytest.env("PYTHONPATH", torch::folder()?);
        run_tests(pytest)?;
    }
    fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))
}

/// The paths of tests of pipelines.
fn test_paths(names: &[&str]) -> impl Iterator<Item = PathBuf> {
    names.iter().map(|name| Path::new("ray-zerocopy-python/wheel/tests/pipelines").join(name))
}

/// The pinned packages that an environment gets beside the wheel, whose own dependencies pip chooses.
fn packages(has_ray: bool) -> impl Iterator<Item = &'static str> {
    let is_for_tests = |package: &str| TEST_PACKAGES.iter().any(|name| package.split("==").next() == Some(name));
    let is_for_ray =
        |package: &str| ["ray", "pyarrow", "pandas"].iter().any(|name| package.split("==").next() == Some(name));
    PACKAGES.iter().copied().filter(move |package| is_for_tests(package) || has_ray && is_for_ray(package))
}

/// Builds the wheel as users do. Returns its path.
fn build(profile: &str) -> Result<PathBuf> {
    let folder = target().join("wheel");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    let mut maturin = Command::new(ray_environment()?.join("bin/maturin"));
    maturin.args(["build", "--profile", profile, "--manifest-path"]);
    maturin.arg(root().join("ray-zerocopy-python/wheel/Cargo.toml")).arg("--out").arg(&folder);
    // The dependencies of a debug build are those of the workspace, which have been built.
    if profile == "dev" {
        maturin.args(["--features", "ray,as-workspace"]);
    }
    maturin.env("CARGO_TARGET_DIR", target()).env("VIRTUAL_ENV", ray_environment()?);
    run(maturin)?;
    let mut wheels = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    match wheels.as_slice() {
        [wheel] => Ok(wheel.clone()),
        found => bail!("maturin should have built one wheel in {}, found {}", folder.display(), found.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::{TESTS, TRIALS, packages};
    use crate::shell::root;

    #[test]
    fn environment_without_ray_has_the_tests_packages_only() {
        let names = |has_ray| packages(has_ray).map(|package| package.split("==").next().unwrap()).collect::<Vec<_>>();
        assert_eq!(names(false), ["pytest", "joblib"]);
        assert_eq!(names(true), ["ray", "pyarrow", "pandas", "pytest", "joblib"]);
    }

    #[test]
    fn tests_of_the_trials_exist() {
        for name in TRIALS.iter().flat_map(|trial| trial.tests).chain(TESTS) {
            assert!(root().join("ray-zerocopy-python/wheel/tests/pipelines").join(name).is_file(), "{name}");
        }
    }
}
