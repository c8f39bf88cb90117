//! Lints and tests of the feature `ray`, and of the Python packages.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::setup::python::{client_packages, ray_environment};
use crate::setup::{libtorch, python_folders, torch};
use crate::shell::{cargo, root, run, run_tests, target};
use crate::{artifacts, devices, side_by_side};

/// The features of the workspace that need the environment with Ray.
pub(crate) const FEATURES: &[&str] = &["--workspace", "--features", "ray"];

/// Ray lowers the priority of its workers, which starves them on a busy machine. This turns it off.
const NICENESS: (&str, &str) = ("RAY_worker_niceness", "0");

/// How many test programs with clusters run at once. They mostly wait for Ray's processes to start.
///
/// Each program starts clusters of its own. What clusters of one machine could share, with Ray
/// 2.60:
///
/// - Addresses: `address="local"` always starts a cluster, and tests of several nodes connect to
///   the address of theirs. `/tmp/ray/ray_current_cluster` is only read where no address is given.
/// - Ports: Ray lets the kernel choose them. The dashboard and the HTTP server of its agent have
///   fixed ports. The dashboard is turned off, and the package `ray` without extras lacks the
///   server.
/// - Files: session folders have the time and the process id in their names. Object stores are
///   temporary files that have no name once they are open.
/// - The authentication token: [`create_token`] writes it first.
///
/// Tests only look for processes below their own, and identify object stores by inode. Memory sets
/// the limit: two programs have up to 1.5 GB of object stores, and a dozen workers.
const PROGRAMS_AT_ONCE: usize = 2;

/// The programs that run longest. They start first, so that the last one to end is a short one.
const LONGEST: &[&str] = &["ray_surroundings", "ray_faults", "ray_nodes"];

/// The tests of PyTorch pipelines.
const PIPELINES: &str = "ray-zerocopy-python/wheel/tests/pipelines";

/// Those that start clusters or run examples. They take as long as the others together.
const PIPELINES_ON_RAY: &[&str] =
    &["test_with_ray.py", "test_predecessor.py", "test_concepts.py", "test_examples.py", "test_ray_serve.py"];

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
    create_token()?;
    side_by_side::run(programs()?, PROGRAMS_AT_ONCE)?;
    run_tests(with_python(&[&["test"], FEATURES, &["--lib", "--", "ray::", "source::"]].concat())?)?;
    run_tests(with_python(&[&["test"], FEATURES, &["--doc", "--", "ray::"]].concat())?)?;
    devices::on_ray()
}

/// Creates the user's authentication token for clusters, `~/.ray/auth_token`, if it does not exist.
///
/// The first cluster of a user does that, too. If two clusters did it at once, one of them would
/// have the other one's token.
fn create_token() -> Result<()> {
    let mut ray = Command::new(ray_environment()?.join("bin/ray"));
    // The command prints the token.
    ray.args(["get-auth-token", "--generate"]).stdout(Stdio::null());
    run(ray)
}

/// Builds the test programs whose names start with `ray`. Returns a cargo command for each.
fn programs() -> Result<Vec<side_by_side::Program>> {
    let test = |rest: &[&str]| with_python(&[&["test"], FEATURES, rest].concat());
    let build = test(&["--test", "ray*", "--no-run", "--message-format=json-render-diagnostics"])?;
    let artifacts = artifacts::build(build)?.into_iter().filter(|artifact| artifact.kind == "test");
    let names = longest_first(artifacts.map(|artifact| artifact.name).collect());
    if names.is_empty() {
        bail!("cargo has built no test program whose name starts with `ray`");
    }
    let programs = names.into_iter().map(|name| {
        // cargo sets the variables and the folder that tests expect.
        let command = test(&["--test", &name])?;
        Ok(side_by_side::Program { name, command })
    });
    programs.collect()
}

fn longest_first(mut names: Vec<String>) -> Vec<String> {
    names.sort_by_key(|name| {
        let place = LONGEST.iter().position(|longest| longest == name);
        (place.unwrap_or(LONGEST.len()), name.clone())
    });
    names
}

/// Tests the Python packages: the conversions, the wheel, and the example project as users build
/// it.
pub(crate) fn python() -> Result<()> {
    run(with_python(
        &[&["build"], FEATURES, &["--example", "probe", "--example", "everywhere", "--bin", "rzc"]].concat(),
    )?)?;
    run_tests(pytest("ray-zerocopy-python/tests")?)?;

    // The distribution `ray-zerocopy`, the Python predecessor, contains a package of the same name
    // as ours. Earlier builds of ours also had the name of that distribution, and environments are
    // kept.
    let mut uninstall = Command::new(ray_environment()?.join("bin/python"));
    uninstall.args(["-m", "pip", "uninstall", "--quiet", "--yes", "ray-zerocopy"]);
    run(uninstall)?;

    // Debug builds reuse what the workspace has built. `maturin develop` puts them into the
    // environment.
    run(maturin("examples/python-embedder", "")?)?;
    run_tests(pytest("examples/python-embedder/tests")?)?;
    run(maturin("ray-zerocopy-python/wheel", "ray,as-workspace")?)?;
    let mut graphs = pytest("ray-zerocopy-python/wheel/tests")?;
    // Without PyTorch, as the package also is used.
    graphs.args(["--ignore", "ray-zerocopy-python/wheel/tests/pipelines"]);
    run_tests(graphs)?;
    create_token()?;
    side_by_side::run(pipelines()?, PROGRAMS_AT_ONCE)?;

    // With TorchScript, the wheel reuses what the tests of devices have built.
    let libtorch = libtorch::folder()?;
    let mut build = maturin("ray-zerocopy-python/wheel", "ray,as-devices")?;
    build.args(["--profile", "devices"]).env("LIBTORCH", &libtorch);
    run(build)?;
    let mut pytest = pytest("ray-zerocopy-python/wheel/tests/test_torchscript.py")?;
    pytest.env("LIBTORCH", &libtorch).env("RAY_ZEROCOPY_REQUIRE", "torchscript");
    run_tests(pytest)
}

/// The tests of PyTorch pipelines, as two programs: each test starts processes that import PyTorch, one after the other.
fn pipelines() -> Result<Vec<side_by_side::Program>> {
    let paths = std::env::join_paths([torch::folder()?, python_folders::examples()?])?;
    let serve = client_packages()?;
    let program = |name: &str, mut command: Command| {
        command.env("PYTHONPATH", &paths).env("RAY_ZEROCOPY_REQUIRE", "examples").env("RAY_ZEROCOPY_SERVE", &serve);
        side_by_side::Program { name: name.to_owned(), command }
    };
    let mut without = pytest(PIPELINES)?;
    let mut with = pytest(&format!("{PIPELINES}/{}", PIPELINES_ON_RAY[0]))?;
    with.args(PIPELINES_ON_RAY[1..].iter().map(|name| format!("{PIPELINES}/{name}")));
    without.args(PIPELINES_ON_RAY.iter().map(|name| format!("--ignore={PIPELINES}/{name}")));
    Ok(vec![program("pipelines-on-ray", with), program("pipelines", without)])
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
    pytest.args(["-m", "pytest", "-q", "-rsfE", "--color=no", "-p", "no:cacheprovider", tests]);
    pytest.env("CARGO_TARGET_DIR", target()).env(NICENESS.0, NICENESS.1);
    Ok(pytest)
}

/// `cargo xtask ray-env`: prints where the environment is.
pub(crate) fn environment() -> Result<()> {
    println!("{}", ray_environment()?.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, PIPELINES, PIPELINES_ON_RAY, longest_first};
    use crate::shell::root;

    #[test]
    fn tests_of_pipelines_on_ray_exist() {
        assert!(PIPELINES_ON_RAY.iter().all(|name| root().join(PIPELINES).join(name).is_file()));
    }

    #[test]
    fn longest_programs_start_first() {
        let names = ["ray_bindings", "ray_nodes", "ray_engine", "ray_surroundings"].map(str::to_owned).to_vec();
        assert_eq!(longest_first(names), [LONGEST[0], "ray_nodes", "ray_bindings", "ray_engine"]);
    }
}
