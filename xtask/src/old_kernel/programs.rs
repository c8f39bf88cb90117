//! The test programs that run on the old kernel, and the files that they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::artifacts;
use crate::shell::cargo;

/// A program that the virtual machine runs.
pub(super) struct Program {
    pub name: String,
    pub path: PathBuf,
    /// The executable, its libraries, and the programs that it starts.
    pub files: Vec<PathBuf>,
    pub arguments: Vec<String>,
    /// A shell command that runs before it.
    pub before: Option<&'static str>,
    pub has_tests: bool,
}

/// Tests of a target. The arguments are filters for the names of tests.
struct Selection {
    target: &'static str,
    arguments: &'static [&'static str],
    before: Option<&'static str>,
}

const fn select(target: &'static str, arguments: &'static [&'static str]) -> Selection {
    Selection { target, arguments, before: None }
}

/// The tests that depend on the kernel or on the machine: arenas, messages, workers, handles, files, NUMA
/// nodes, traced graphs.
///
/// The others are left out, because an emulated machine computes slowly.
const TESTS: &[Selection] = &[
    select(
        "ray_zerocopy",
        &[
            "arena::",
            "engine::frame",
            "engine::local::transport",
            "os::",
            "report::",
            "--skip",
            "more_than_a_container",
        ],
    ),
    select("arena", &[]),
    select("tasks", &["same_answer", "large_tensors", "second_task", "gather_in_order"]),
    select(
        "actors",
        &["as_the_original", "own_state", "killed_actor", "handle_is_good", "handle_travels", "report_finds"],
    ),
    select("failures", &["killed_while", "dies_while", "abort", "panic"]),
    select(
        "processes",
        &["all_idle", "sigchld_is_ignored", "aborts_the_process", "can_be_aborted", "forks::", "does_not_reach_main"],
    ),
    select("isolation", &[]),
    select("handles", &["names_no_file"]),
    select("files", &[]),
    select("saving", &[]),
    select("memory_policy", &["prefaults", "few_bytes", "locked", "may_not_lock", "refuses"]),
    select("surroundings", &[]),
    // The machine has two NUMA nodes.
    select("numa", &[]),
    select("jit", &["mlp", "graph_file", "actors_and_tasks", "handle_of_a_graph"]),
    // These are last, because they change a setting of the whole machine.
    Selection { target: "heads", arguments: &[], before: Some("echo 2 > /proc/sys/vm/overcommit_memory") },
    Selection {
        target: "surroundings",
        arguments: &["strict_overcommit"],
        // The programs in the initramfs take most of it.
        before: Some("echo 24 > /proc/sys/vm/overcommit_ratio"),
    },
];

/// Examples, which run without arguments.
const EXAMPLES: &[&str] = &["simple_pipeline"];
/// The program that the tests `heads` start.
const STARTED: &str = "rzc";

/// Builds the programs.
pub(super) fn build() -> Result<Vec<Program>> {
    let tests = TESTS.iter().map(|selection| selection.target).filter(|target| *target != "ray_zerocopy");
    let tests = tests.flat_map(|target| ["--test", target]);
    let examples = EXAMPLES.iter().flat_map(|name| ["--example", name]);
    let mut build = cargo(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics", "--lib"]);
    build.args(tests).args(examples).args(["--bin", STARTED]);
    let artifacts = artifacts::build(build)?;
    let executable = |name: &str, kind: &str| {
        let found = artifacts.iter().find(|artifact| {
            // Examples are built without the test harness, and `rzc` both with and without it.
            let has_harness = artifact.is_test;
            let fits = if kind == "bin" { !has_harness } else { kind == "example" || has_harness };
            artifact.name == name && artifact.kind == kind && fits
        });
        found
            .map(|artifact| PathBuf::from(&artifact.executable))
            .with_context(|| format!("cargo has built no {kind} `{name}`"))
    };
    let started = match executable(STARTED, "bin") {
        Ok(started) => started,
        // cargo builds it for the tests that start it, and does not always report that.
        Err(_) => crate::shell::target().join("debug").join(STARTED),
    };
    let mut programs = Vec::new();
    for Selection { target, arguments, before } in TESTS {
        let path = executable(target, if *target == "ray_zerocopy" { "lib" } else { "test" })?;
        let mut files = libraries(&path)?;
        if *target == "heads" {
            files.extend(libraries(&started)?);
            files.push(started.clone());
        }
        files.push(path.clone());
        let arguments = ["--test-threads=2"].iter().chain(*arguments).map(|argument| (*argument).to_owned()).collect();
        programs.push(Program { name: (*target).to_owned(), path, files, arguments, before: *before, has_tests: true });
    }
    for name in EXAMPLES {
        let path = executable(name, "example")?;
        let mut files = libraries(&path)?;
        files.push(path.clone());
        let program =
            Program { name: (*name).to_owned(), path, files, arguments: Vec::new(), before: None, has_tests: false };
        // First, because the last tests change a setting of the machine.
        programs.insert(0, program);
    }
    Ok(programs)
}

/// The shared libraries of a program, and its dynamic loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd could not be started")?;
    if !output.status.success() {
        bail!("ldd cannot list the libraries of {}", program.display());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), line.trim());
    }
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(PathBuf::from).collect())
}
