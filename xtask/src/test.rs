//! `cargo xtask test`: the steps that have to pass, in the order in which they fail fastest.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::setup::Fetching;
use crate::shell::{self, cargo};
use crate::{devices, disk, old_kernel, other_systems, packages, ray, tools};

/// A part of the tests that can run alone.
struct Step {
    name: &'static str,
    /// What it runs.
    what: &'static str,
    /// The names of its requirements.
    needs: &'static [&'static str],
    run: fn() -> Result<()>,
}

/// The steps. Most of them build the whole workspace with one set of features, so burn is built
/// once. The steps of devices build it again.
const STEPS: &[Step] = &[
    Step {
        name: "format",
        what: "cargo fmt --check",
        needs: &["rustfmt"],
        run: || shell::run(cargo(["fmt", "--all", "--check"])),
    },
    Step { name: "spelling", what: "typos", needs: &["typos"], run: tools::typos },
    Step {
        name: "lints",
        what: "cargo clippy -D warnings",
        needs: &["clippy"],
        run: || shell::run(cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    },
    Step {
        name: "docs",
        what: "cargo doc -D warnings",
        needs: &[],
        run: || {
            let mut doc = cargo(["doc", "--workspace", "--no-deps", "--document-private-items"]);
            doc.env("RUSTDOCFLAGS", "-D warnings");
            shell::run(doc)
        },
    },
    Step {
        name: "examples",
        what: "cargo build: the examples, which the tests run as processes",
        needs: &[],
        run: || shell::run(cargo(["build", "--workspace", "--examples"])),
    },
    Step {
        name: "tests",
        what: "cargo test: units, processes, examples, diagnostics, quick benchmarks",
        needs: &["models", "clients-env", "curl"],
        run: || shell::run_tests(cargo(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])),
    },
    Step {
        name: "other systems",
        what: "cargo check for macOS, where the crate compiles and returns errors at run time",
        needs: &[],
        run: other_systems::check,
    },
    Step { name: "loom", what: "model checks: interleavings of the local engine's threads", needs: &[], run: loom },
    Step {
        name: "doc tests",
        what: "cargo test --doc: the examples of the crates and of the book",
        needs: &["models"],
        run: || shell::run_tests(cargo(["test", "--workspace", "--doc", "--no-fail-fast"])),
    },
    Step {
        name: "packages",
        what: "cargo package: what is published, unpacked, with its unit tests",
        needs: &["tar", "libpython"],
        run: packages::tests,
    },
    Step {
        name: "old kernel",
        what: "the tests of memory, workers, files and graphs on Linux 5.10, in a virtual machine",
        needs: &["qemu", "old-kernel"],
        run: old_kernel::tests,
    },
    Step {
        name: "device lints",
        what: "clippy with the features `wgpu`, `cuda` and `torchscript`, which takes no GPU",
        needs: devices::LINT_NEEDS,
        run: devices::lints,
    },
    Step {
        name: "device tests",
        what: "the conformance suite on LibTorch and wgpu, in software if there is no GPU; CUDA up to the driver; TorchScript",
        needs: devices::TEST_NEEDS,
        run: devices::tests,
    },
    Step {
        name: "ray lints",
        what: "clippy and rustdoc with the feature `ray`",
        needs: &["clippy", "ray-env"],
        run: ray::lints,
    },
    Step {
        name: "ray tests",
        what: "clusters on this machine: bindings, wrappers, faults, examples, benchmark, TorchScript",
        needs: &["ray-env", "c++", "libtorch", "models"],
        run: ray::tests,
    },
    Step {
        name: "python",
        what: "pytest: pipelines as Python modules, the wheel for PyTorch, graphs and TorchScript, and the example project",
        needs: &["ray-env", "c++", "libtorch", "torch", "models", "python-examples", "clients-env"],
        run: ray::python,
    },
];

/// Error of a step that cannot run on this machine, which does not fail the tests. Says what to
/// install.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

/// Runs the model checks. They are a separate workspace, and have a separate target folder.
fn loom() -> Result<()> {
    let mut test = cargo(["test", "--manifest-path", "tests/loom/Cargo.toml"]);
    test.env("CARGO_TARGET_DIR", shell::target().join("loom"));
    shell::run_tests(test)
}

/// Prints the steps and their requirements.
pub(crate) fn list() {
    for Step { name, what, needs, .. } in STEPS {
        let needs = if needs.is_empty() { String::new() } else { format!(" [{}]", needs.join(", ")) };
        println!("{name:<13} {what}{needs}");
    }
}

/// The step with the name `only`, or else those whose names contain it, or all steps.
fn choose(only: Option<&str>) -> Result<Vec<&'static Step>> {
    let has_name = |step: &&Step| Some(step.name) == only;
    let chosen: Vec<_> = if STEPS.iter().any(|step| has_name(&step)) {
        STEPS.iter().filter(has_name).collect()
    } else {
        STEPS.iter().filter(|step| only.is_none_or(|only| step.name.contains(only))).collect()
    };
    if chosen.is_empty() {
        bail!("no step has `{}` in its name; `cargo xtask test --list` shows them", only.unwrap_or_default());
    }
    Ok(chosen)
}

/// The names of the requirements of the chosen steps.
pub(crate) fn needs(only: Option<&str>) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for name in choose(only)?.iter().flat_map(|step| step.needs) {
        if !names.contains(name) {
            names.push(*name);
        }
    }
    Ok(names)
}

/// Runs all chosen steps, and fails if one of them failed. Their requirements are present, or are being fetched.
pub(crate) fn run(only: Option<&str>, mut fetching: Fetching) -> Result<()> {
    let steps = choose(only)?;
    disk::make_room()?;
    let mut results = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        eprintln!("\n== {} of {}: {} ({})", index + 1, steps.len(), step.name, step.what);
        fetching.wait_for(step.needs)?;
        let started = Instant::now();
        let (outcome, reason) = match (step.run)() {
            Ok(()) => ("passed", String::new()),
            Err(error) => {
                let full = disk::full().map(|full| format!("; {full}")).unwrap_or_default();
                let reason = format!("{error:#}{full}");
                eprintln!("{reason}");
                (if error.is::<Skipped>() { "skipped" } else { "FAILED" }, reason)
            }
        };
        results.push((step.name, outcome, started.elapsed().as_secs(), reason));
    }
    eprintln!("\n== summary");
    for (name, outcome, seconds, reason) in &results {
        let first = reason.lines().next().unwrap_or_default();
        eprintln!("{}", format!("{name:<13} {outcome:<7} {seconds:>5} s  {first}").trim_end());
    }
    for (name, _, _, reason) in results.iter().filter(|(.., reason)| reason.contains('\n')) {
        eprintln!("\n== {name}\n{reason}");
    }
    let count = |wanted| results.iter().filter(|(_, outcome, ..)| *outcome == wanted).count();
    let (passed, skipped, failed) = (count("passed"), count("skipped"), count("FAILED"));
    println!("{passed} passed, {skipped} skipped, {failed} failed");
    if failed > 0 {
        bail!("{failed} of {} steps failed", results.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{STEPS, choose, needs};
    use crate::setup;

    #[test]
    fn requirements_of_steps_exist() {
        let known = setup::all();
        for step in STEPS {
            for need in step.needs {
                assert!(known.contains(need), "the step `{}` needs `{need}`", step.name);
            }
        }
    }

    #[test]
    fn missing_requirement_of_a_step_is_one_line_with_the_command() {
        for step in STEPS {
            for need in step.needs {
                let error = setup::refusal_without(step.needs, need).to_string();
                assert_eq!(error, format!("missing: {need}; run `cargo xtask setup {need}`"), "{}", step.name);
            }
        }
    }

    #[test]
    fn steps_are_chosen_by_parts_of_their_names() {
        let names = |only| choose(only).unwrap().iter().map(|step| step.name).collect::<Vec<_>>();
        assert_eq!(names(Some("device")), ["device lints", "device tests"]);
        assert_eq!(names(Some("tests")), ["tests"]);
        assert_eq!(names(None).len(), STEPS.len());
        assert!(choose(Some("nonsense")).err().unwrap().to_string().contains("--list"));
        assert_eq!(needs(Some("spelling")).unwrap(), ["typos"]);
        let all = needs(None).unwrap();
        assert!(all.contains(&"models") && !all.contains(&"mdbook"));
    }
}
