//! `cargo xtask wheel --versions`: the wheel with the oldest and the newest releases of Python, PyTorch and Ray.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::TESTS;
use super::interpreters::{Interpreter, interpreter};
use crate::progress;
use crate::setup::torch;
use crate::shell::target;

/// Releases that are tried together. `torch` and `ray` are requirements for pip, so one without a version is the newest release.
struct Combination {
    python: &'static str,
    torch: &'static str,
    ray: &'static str,
}

/// Each Python with one PyTorch and one Ray, so that the first and the last releases of all three are among them. Ray has no
/// wheels of its old releases for new Pythons.
const COMBINATIONS: &[Combination] = &[
    Combination { python: "3.11", torch: "torch==2.4.1", ray: "ray==2.40.0" },
    Combination { python: "3.12", torch: "torch==2.7.1", ray: "ray==2.50.1" },
    Combination { python: "3.13", torch: "torch", ray: "ray" },
    Combination { python: "3.14", torch: "torch", ray: "ray" },
];

/// Installs PyTorch without the libraries for GPUs, of any release.
const INSTALL_TORCH: &str = include_str!("install_torch.py");

/// Prints the exact versions of the packages of an environment.
const VERSIONS: &str =
    "from importlib.metadata import version; print(*(version(name) for name in ('torch', 'ray', 'numpy')))";

/// What became of a combination: the cells of its row in the table, and whether nothing failed.
struct Row {
    cells: [String; 5],
    is_failed: bool,
}

/// Tries a wheel with all combinations, or with those of one Python, and prints a table. Fails if one has failed.
pub(super) fn versions(wheel: &Path, python: Option<&str>) -> Result<()> {
    let chosen: Vec<_> = COMBINATIONS.iter().filter(|each| python.is_none_or(|only| only == each.python)).collect();
    if chosen.is_empty() {
        let known: Vec<_> = COMBINATIONS.iter().map(|each| each.python).collect();
        bail!("--python should be one of {}, found {}", known.join(", "), python.unwrap_or_default());
    }
    let mut rows = Vec::new();
    for combination in chosen {
        let row = match interpreter(combination.python) {
            Some(found) => tried(wheel, combination, &found)?,
            None => missing(combination),
        };
        println!("{}", line(&row.cells));
        rows.push(row);
    }
    println!("\n{}", table(&rows));
    match rows.iter().filter(|row| row.is_failed).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} combinations failed", rows.len()),
    }
}

fn missing(combination: &Combination) -> Row {
    let [torch, ray] = [combination.torch, combination.ray].map(|each| each.replace("==", " "));
    let cells = [combination.python.into(), torch, ray, "".into(), "not on this machine".into()];
    Row { cells, is_failed: false }
}

/// Tries a combination in a fresh environment, which is removed afterwards: PyTorch alone has 700 MB.
fn tried(wheel: &Path, combination: &Combination, interpreter: &Interpreter) -> Result<Row> {
    let folder = target().join("wheel-versions");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    let environment = folder.join("environment");
    let python = environment.join("bin/python");
    let installed = install(wheel, combination, interpreter, &folder);
    let versions =
        if installed.is_ok() { printed(Command::new(&python).args(["-c", VERSIONS]))? } else { String::new() };
    let mut versions = versions.split_whitespace().map(str::to_owned);
    let [torch, ray, numpy] =
        [combination.torch, combination.ray, ""].map(|asked| versions.next().unwrap_or(asked.into()));
    let result = installed.and_then(|()| tests(combination, &python));
    let removed = fs::remove_dir_all(&folder);
    removed.with_context(|| format!("{} cannot be removed", folder.display()))?;
    let (outcome, is_failed) = result.unwrap_or_else(|error| {
        eprintln!("error: Python {}, {torch}: {error:#}", interpreter.version);
        ("failed".into(), true)
    });
    Ok(Row { cells: [interpreter.version.clone(), torch, ray, numpy, outcome], is_failed })
}

/// Creates the environment in a folder, with the wheel, and what users and tests have beside it.
fn install(wheel: &Path, combination: &Combination, interpreter: &Interpreter, folder: &Path) -> Result<()> {
    let label = |what: &str| format!("wheel-{}-{what}", combination.python);
    let environment = folder.join("environment");
    let python = environment.join("bin/python");
    let mut venv = Command::new(&interpreter.path);
    venv.args(["-m", "venv"]).arg(&environment);
    progress::run(&label("venv"), venv)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir"]).arg(wheel);
    pip.args([combination.ray, "pyarrow", "pandas", "pytest", "joblib"]);
    progress::run(&label("packages"), pip)?;
    let mut pip = Command::new(&python);
    let wheels = folder.join("torch");
    pip.args(["-c", INSTALL_TORCH, combination.torch, torch::UNPACK]).arg(&wheels);
    progress::run(&label("torch"), pip)?;
    fs::remove_dir_all(&wheels).with_context(|| format!("{} cannot be removed", wheels.display()))
}

/// Runs the tests of pipelines. Returns pytest's summary, and whether a test failed.
fn tests(combination: &Combination, python: &Path) -> Result<(String, bool)> {
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-q", "-rs", "--color=no", "-p", "no:cacheprovider"]);
    pytest.args(super::test_paths(TESTS));
    // Another release of PyTorch for the same Python: that of the other tests.
    let cached = torch::folder()?;
    let module = format!("torch/_C.cpython-{}-x86_64-linux-gnu.so", combination.python.replace('.', ""));
    if cached.join(module).is_file() {
        pytest.env("RAY_ZEROCOPY_OTHER_TORCH", cached);
    }
    pytest.stderr(Stdio::inherit()).env_remove("PYTHONPATH");
    let output = pytest.output().context("pytest could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    let summary =
        summary(&text).with_context(|| format!("pytest should print a summary, found none: {}", output.status))?;
    Ok((summary, !output.status.success()))
}

/// The last line of pytest's output without its duration, such as `80 passed, 2 skipped`.
fn summary(text: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| line.contains(" passed"))?;
    let counts = line.split(" in ").next()?;
    let counts = counts.split(", ").filter(|part| !part.contains("warning"));
    Some(counts.collect::<Vec<_>>().join(", "))
}

/// The output of a command.
fn printed(command: &mut Command) -> Result<String> {
    let output = command.output().context("the interpreter could not be started")?;
    if !output.status.success() {
        bail!("the versions cannot be read: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn line(cells: &[String; 5]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// The table in Markdown, for the book.
fn table(rows: &[Row]) -> String {
    let head = ["Python", "PyTorch", "Ray", "NumPy", "tests"].map(str::to_owned);
    let mut lines = vec![line(&head), line(&["---"; 5].map(str::to_owned))];
    lines.extend(rows.iter().map(|row| line(&row.cells)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{COMBINATIONS, Row, missing, summary, table, versions};

    #[test]
    fn combinations_have_all_pythons_of_the_wheel() {
        let pythons: Vec<_> = COMBINATIONS.iter().map(|each| each.python).collect();
        assert_eq!(pythons, ["3.11", "3.12", "3.13", "3.14"]);
    }

    #[test]
    fn python_that_is_not_tried_is_named() {
        let error = versions(Path::new("x.whl"), Some("3.9")).unwrap_err().to_string();
        assert_eq!(error, "--python should be one of 3.11, 3.12, 3.13, 3.14, found 3.9");
    }

    #[test]
    fn missing_python_is_a_row_of_the_table() {
        let row = missing(&COMBINATIONS[0]);
        let cells = ["3.13.0", "2.15.0", "2.60.0", "2.4.6", "failed"].map(str::to_owned);
        let text = table(&[row, Row { cells, is_failed: true }]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "| Python | PyTorch | Ray | NumPy | tests |");
        assert_eq!(lines[2], "| 3.11 | torch 2.4.1 | ray 2.40.0 |  | not on this machine |");
        assert_eq!(lines[3], "| 3.13.0 | 2.15.0 | 2.60.0 | 2.4.6 | failed |");
    }

    #[test]
    fn summary_has_no_duration_and_no_warnings() {
        let text = "...\nSKIPPED [1] x.py: no\n80 passed, 2 skipped, 5 warnings in 61.02s (0:01:01)\n";
        assert_eq!(summary(text).as_deref(), Some("80 passed, 2 skipped"));
        assert_eq!(summary("no tests ran in 0.1s"), None);
    }
}
