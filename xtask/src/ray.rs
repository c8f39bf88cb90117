//! The Python environment with Ray, and what is tested with it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{cache, cargo, root, run, target};
use crate::{devices, libtorch};

/// What is in the environment. Ray's interfaces change from release to release, so it is pinned; the others are what it was tested with.
const PACKAGES: &[&str] =
    &["ray==2.60.0", "numpy==2.4.6", "pyarrow==26.0.1", "pandas==3.1.1", "pytest==9.2.0", "maturin==1.16.0"];

/// The features of the workspace that need the environment.
pub(crate) const FEATURES: &[&str] = &["--workspace", "--features", "ray"];

/// Ray's workers get what other programs leave, and on a busy machine that is nothing. Here they are programs like others.
const NICENESS: (&str, &str) = ("RAY_worker_niceness", "0");

/// Where the environment is: where programs look for it, too.
fn folder() -> Result<PathBuf> {
    Ok(cache()?.join("ray-env"))
}

/// Makes the environment, or brings it up to date. Quick if there is nothing to do.
pub(crate) fn environment() -> Result<()> {
    let folder = folder()?;
    let done = folder.join("packages.txt");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    eprintln!("making a Python environment with Ray in {}: about 400 MB, some minutes", folder.display());
    if !folder.join("bin/python").exists() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&folder);
        run(venv)
            .context("it needs Python 3.11 or later with venv: on Debian, `apt install python3-venv libpython3-dev`")?;
    }
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
    run(pip).context("the packages come from PyPI")?;
    std::fs::write(&done, wanted).with_context(|| format!("{} cannot be written", done.display()))
}

/// A cargo command whose programs find the library of the environment's Python, which they are linked with.
pub(crate) fn with_python(arguments: &[&str]) -> Result<Command> {
    let python = folder()?.join("bin/python");
    let mut command = cargo(arguments);
    let script = "import sysconfig; print(sysconfig.get_config_var('LIBDIR') or '')";
    let output = Command::new(&python).args(["-c", script]).output();
    let output =
        output.with_context(|| format!("{} cannot be started; run `cargo xtask ray-env`", python.display()))?;
    let libraries = String::from_utf8(output.stdout)?.trim().to_owned();
    if !output.status.success() || libraries.is_empty() {
        bail!("{} does not say where its library is; is it a Python with a shared libpython?", python.display());
    }
    // Programs have the path in them; doc tests have no build script that could put it there.
    let known = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command.env("LD_LIBRARY_PATH", [libraries, known].join(":"));
    command.env(NICENESS.0, NICENESS.1);
    Ok(command)
}

/// Lints what needs the environment.
pub(crate) fn lints() -> Result<()> {
    environment()?;
    run(with_python(&[&["clippy"], FEATURES, &["--all-targets", "--quiet", "--", "-D", "warnings"]].concat())?)?;
    let mut doc = with_python(&[&["doc"], FEATURES, &["--no-deps", "--document-private-items", "--quiet"]].concat())?;
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)
}

/// Tests what needs the environment: on clusters of this machine, one after the other.
pub(crate) fn tests() -> Result<()> {
    environment()?;
    run(with_python(&[&["build"], FEATURES, &["--examples"]].concat())?)?;
    let mut tests = vec!["test"];
    tests.extend(FEATURES);
    tests.extend(["--no-fail-fast", "--test", "ray*"]);
    run(with_python(&tests)?)?;
    run(with_python(&[&["test"], FEATURES, &["--lib", "--", "ray::", "source::"]].concat())?)?;
    run(with_python(&[&["test"], FEATURES, &["--doc", "--", "ray::"]].concat())?)?;
    devices::on_ray()
}

/// Tests what Python users get: the conversions by a module of tests, and the example project as its users build it.
pub(crate) fn python() -> Result<()> {
    environment()?;
    run(with_python(
        &[&["build"], FEATURES, &["--example", "probe", "--example", "everywhere", "--bin", "rzc"]].concat(),
    )?)?;
    run(pytest("ray-zerocopy-python/tests")?)?;

    // In debug builds, which have what the workspace has built already, and where `maturin develop` would put them.
    for (project, features) in [("ray-zerocopy-python/wheel", "ray,as-workspace"), ("examples/python-embedder", "")] {
        run(maturin(project, features)?)?;
        run(pytest(&format!("{project}/tests"))?)?;
    }

    // And of what the tests of devices have built, with TorchScript.
    let libtorch = libtorch::ready()?;
    let mut build = maturin("ray-zerocopy-python/wheel", "ray,as-devices")?;
    build.args(["--profile", "devices"]).env("LIBTORCH", &libtorch);
    run(build)?;
    let mut pytest = pytest("ray-zerocopy-python/wheel/tests/test_torchscript.py")?;
    pytest.env("LIBTORCH", &libtorch).env("RAY_ZEROCOPY_REQUIRE", "torchscript");
    run(pytest)
}

/// Builds a Python project into the environment.
fn maturin(project: &str, features: &str) -> Result<Command> {
    let mut build = Command::new(folder()?.join("bin/maturin"));
    build.args(["develop", "--quiet", "--manifest-path"]).arg(root().join(project).join("Cargo.toml"));
    build.args(["--features", features]);
    build.env("CARGO_TARGET_DIR", target()).env("VIRTUAL_ENV", folder()?);
    Ok(build)
}

/// Runs tests in the environment, and says why others are skipped.
fn pytest(tests: &str) -> Result<Command> {
    let mut pytest = Command::new(folder()?.join("bin/python"));
    pytest.args(["-m", "pytest", "-q", "-rs", "--color=no", "-p", "no:cacheprovider", tests]);
    pytest.env("CARGO_TARGET_DIR", target()).env(NICENESS.0, NICENESS.1);
    Ok(pytest)
}
