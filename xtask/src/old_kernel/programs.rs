//! Which test programs run on the older kernel, where cargo has put them, and the files that they need beside them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::shell::cargo;

/// A program, as it is run.
pub(super) struct Program {
    pub name: String,
    pub path: PathBuf,
    /// Itself, its libraries, and the programs that it starts.
    pub files: Vec<PathBuf>,
    pub arguments: Vec<String>,
    /// A command of the shell that runs before it.
    pub before: Option<&'static str>,
    pub has_tests: bool,
}

/// What is wanted of a program: its target, and the arguments of its test harness, which are parts of the names of tests.
struct Wanted {
    target: &'static str,
    arguments: &'static [&'static str],
    before: Option<&'static str>,
}

const fn wanted(target: &'static str, arguments: &'static [&'static str]) -> Wanted {
    Wanted { target, arguments, before: None }
}

/// What depends on the kernel: arenas, messages, workers, handles that another process redeems, files, and traced graphs. A machine
/// that is emulated computes slowly, so these are not all the tests there are.
const TESTS: &[Wanted] = &[
    wanted(
        "ray_zerocopy",
        &[
            "arena::",
            "engine::local::frame",
            "engine::local::transport",
            "os::",
            "report::",
            "--skip",
            "more_than_a_container",
        ],
    ),
    wanted("arena", &[]),
    wanted("tasks", &["same_answer", "large_tensors", "second_task", "gather_in_order"]),
    wanted(
        "actors",
        &["as_the_original", "own_state", "killed_actor", "handle_is_good", "handle_travels", "report_finds"],
    ),
    wanted("failures", &["killed_while", "dies_while", "abort", "panic"]),
    wanted(
        "processes",
        &["all_idle", "where_children", "aborts_the_process", "can_be_aborted", "forks::", "does_not_reach_main"],
    ),
    wanted("isolation", &[]),
    wanted("handles", &["names_no_file"]),
    wanted("files", &[]),
    wanted("saving", &[]),
    wanted("memory_policy", &["prefaults", "few_bytes", "locked", "may_not_lock", "refuses"]),
    wanted("surroundings", &[]),
    wanted("jit", &["mlp", "graph_file", "actors_and_tasks", "handle_of_a_graph"]),
    // The last ones: the setting holds for the whole machine.
    Wanted { target: "heads", arguments: &[], before: Some("echo 2 > /proc/sys/vm/overcommit_memory") },
    Wanted {
        target: "surroundings",
        arguments: &["promises_no_more"],
        before: Some("echo 20 > /proc/sys/vm/overcommit_ratio"),
    },
];

/// Examples, which are run as they are, and programs that tests start.
const EXAMPLES: &[&str] = &["simple_pipeline"];
const STARTED: &str = "rzc";

/// Builds them all.
pub(super) fn built() -> Result<Vec<Program>> {
    let tests = TESTS.iter().map(|wanted| wanted.target).filter(|target| *target != "ray_zerocopy");
    let tests = tests.flat_map(|target| ["--test", target]);
    let examples = EXAMPLES.iter().flat_map(|name| ["--example", name]);
    let mut build = cargo(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics", "--lib"]);
    build.args(tests).args(examples).args(["--bin", STARTED]).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = build.output().context("cargo could not be started")?;
    ensure!(output.status.success(), "the test programs cannot be built");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let artifacts: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let executable = |name: &str, kind: &str| {
        let fits = |artifact: &&Value| {
            let test = artifact["profile"]["test"] == true;
            let wanted = if kind == "bin" { !test } else { kind == "example" || test };
            artifact["target"]["name"] == name && artifact["target"]["kind"][0] == kind && wanted
        };
        let found = artifacts.iter().filter(fits).find_map(|artifact| artifact["executable"].as_str());
        found.map(PathBuf::from).with_context(|| format!("cargo has built no {kind} `{name}`"))
    };
    let started = match executable(STARTED, "bin") {
        Ok(started) => started,
        // It is built for the tests that start it, and then not always told of.
        Err(_) => crate::shell::target().join("debug").join(STARTED),
    };
    let mut programs = Vec::new();
    for Wanted { target, arguments, before } in TESTS {
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
        // Before the one that changes the machine.
        programs.insert(0, program);
    }
    Ok(programs)
}

/// The shared libraries of a program, and its loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd could not be started")?;
    if !output.status.success() {
        bail!("{} has no libraries that ldd knows", program.display());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{}: {}", program.display(), line.trim());
    }
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(words.map(PathBuf::from).collect())
}
