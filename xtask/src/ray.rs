//! Lints and tests of the feature `ray`, and of the Python packages.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::devices;
use crate::setup::libtorch;
use crate::setup::python::ray_environment;
use crate::shell::{cargo, root, run, target};

/// The features of the workspace that need the environment with Ray.
pub(crate) const FEATURES: &[&str] = &["--workspace", "--features", "ray"];

/// Ray lowers the priority of its workers, which starves them on a busy machine. This turns it off.
const NICENESS: (&str, &str) = ("RAY_worker_niceness", "0");

/// A cargo command whose programs find the shared library of the environment's Python.
pub(crate) fn with_python(arguments: &[&str]) -> Result<Command> {
    let python = ray_environment()?.join("bin/python");
    let mut command = cargo(arguments);
    let script = "import sysconfig; print(sysconfig.get_config_var('LIBDIR') or '')";
    let output = Command::new(&python).args(["-c", script]).output();
    let output = output.with_context(|| format!("{} cannot be started", python.display()))?;
    let libraries = String::from_utf8(output.stdout)?.trim().to_owned();
    if !output.status.success() || libraries.is_empty() {
        bail!("{} does not say where its library is; is it a Python with a shared libpython?", python.display());
    }
    // Programs have the path of the library in them. Doc tests do not, as build scripts cannot set
    // it.
    let inherited = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    command.env("LD_LIBRARY_PATH", [libraries, inherited].join(":"));
    command.env(NICENESS.0, NICENESS.1);
    Ok(command)
}

/// Lints the code of the feature `ray`, and builds its docs.
pub(crate) fn lints() -> Result<()> {
    run(with_python(&[&["clippy"], FEATURES, &["--all-targets", "--", "-D", "warnings"]].concat())?)?;
    let mut doc = with_python(&[&["doc"], FEATURES, &["--no-deps", "--document-private-items"]].concat())?;
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)
}

/// Tests the feature `ray` on clusters of this machine.
pub(crate) fn tests() -> Result<()> {
    run(with_python(&[&["build"], FEATURES, &["--examples"]].concat())?)?;
    run(with_python(&[&["test"], FEATURES, &["--no-fail-fast", "--test", "ray*"]].concat())?)?;
    run(with_python(&[&["test"], FEATURES, &["--lib", "--", "ray::", "source::"]].concat())?)?;
    run(with_python(&[&["test"], FEATURES, &["--doc", "--", "ray::"]].concat())?)?;
    devices::on_ray()
}

/// Tests the Python packages: the conversions, the wheel, and the example project as users build
/// it.
pub(crate) fn python() -> Result<()> {
    run(with_python(
        &[&["build"], FEATURES, &["--example", "probe", "--example", "everywhere", "--bin", "rzc"]].concat(),
    )?)?;
    run(pytest("ray-zerocopy-python/tests")?)?;

    // Debug builds reuse what the workspace has built. `maturin develop` puts them into the
    // environment.
    for (project, features) in [("ray-zerocopy-python/wheel", "ray,as-workspace"), ("examples/python-embedder", "")] {
        run(maturin(project, features)?)?;
        run(pytest(&format!("{project}/tests"))?)?;
    }

    // With TorchScript, the wheel reuses what the tests of devices have built.
    let libtorch = libtorch::folder()?;
    let mut build = maturin("ray-zerocopy-python/wheel", "ray,as-devices")?;
    build.args(["--profile", "devices"]).env("LIBTORCH", &libtorch);
    run(build)?;
    let mut pytest = pytest("ray-zerocopy-python/wheel/tests/test_torchscript.py")?;
    pytest.env("LIBTORCH", &libtorch).env("RAY_ZEROCOPY_REQUIRE", "torchscript");
    run(pytest)
}

/// A command that builds a Python project into the environment.
fn maturin(project: &str, features: &str) -> Result<Command> {
    let environment = ray_environment()?;
    let mut build = Command::new(environment.join("bin/maturin"));
    build.args(["develop", "--manifest-path"]).arg(root().join(project).join("Cargo.toml"));
    build.args(["--features", features]);
    build.env("CARGO_TARGET_DIR", target()).env("VIRTUAL_ENV", environment);
    Ok(build)
}

/// A command that runs pytest in the environment. It prints the reasons of skipped tests.
fn pytest(tests: &str) -> Result<Command> {
    let mut pytest = Command::new(ray_environment()?.join("bin/python"));
    pytest.args(["-m", "pytest", "-q", "-rs", "--color=no", "-p", "no:cacheprovider", tests]);
    pytest.env("CARGO_TARGET_DIR", target()).env(NICENESS.0, NICENESS.1);
    Ok(pytest)
}

/// `cargo xtask ray-env`: prints where the environment is.
pub(crate) fn environment() -> Result<()> {
    println!("{}", ray_environment()?.display());
    Ok(())
}
