//! `cargo xtask wheel`: builds the wheel for PyTorch, and tries it in fresh environments with and without Ray.

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

const TRIALS: &[Trial] = &[
    Trial {
        name: "without-ray",
        has_ray: false,
        tests: &["test_load.py", "test_scripts.py", "test_local.py", "test_handles.py", "test_benchmark.py"],
    },
    Trial { name: "with-ray", has_ray: true, tests: &["test_with_ray.py", "test_concepts.py", "test_predecessor.py"] },
];

/// Builds the wheel, and runs the tests of pipelines in environments that have nothing but it, what it depends on, and the
/// tests' own packages. PyTorch is that of the cache.
pub(crate) fn wheel(profile: &str) -> Result<()> {
    let wheel = build(profile)?;
    println!("{}", wheel.display());
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
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).arg(&wheel);
        pip.args(packages(trial.has_ray));
        run(pip)?;
        let mut pytest = Command::new(environment.join("bin/python"));
        let tests = Path::new("ray-zerocopy-python/wheel/tests/pipelines");
        pytest.args(["-m", "pytest", "-q", "-rsfE", "--color=no", "-p", "no:cacheprovider"]);
        pytest.args(trial.tests.iter().map(|name| tests.join(name)));
        pytest.env("PYTHONPATH", torch::folder()?);
        run_tests(pytest)?;
    }
    fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))
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
    use super::{TRIALS, packages};
    use crate::shell::root;

    #[test]
    fn environment_without_ray_has_the_tests_packages_only() {
        let names = |has_ray| packages(has_ray).map(|package| package.split("==").next().unwrap()).collect::<Vec<_>>();
        assert_eq!(names(false), ["pytest", "joblib"]);
        assert_eq!(names(true), ["ray", "pyarrow", "pandas", "pytest", "joblib"]);
    }

    #[test]
    fn tests_of_the_trials_exist() {
        for name in TRIALS.iter().flat_map(|trial| trial.tests) {
            assert!(root().join("ray-zerocopy-python/wheel/tests/pipelines").join(name).is_file(), "{name}");
        }
    }
}
