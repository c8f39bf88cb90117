//! `cargo xtask setup`: fetches and installs what tasks require.
//!
//! | file | content |
//! | --- | --- |
//! | `table` | the requirements |
//! | `background` | fetches them while steps run that do not need them |
//! | `debian` | Debian packages |
//! | `python`, `libtorch`, `torch`, `llvm`, `models`, `kernel`, `vulkan` | how the others are found and fetched |
//! | `wheels` | folders that are assembled from wheels on PyPI |
//!
//! Tasks only list the names of their requirements, and run when these are present. The tests begin before
//! all of them are: each step waits for its own.

mod background;
mod debian;
pub(crate) mod kernel;
pub(crate) mod libtorch;
pub(crate) mod llvm;
mod models;
pub(crate) mod python;
pub(crate) mod python_folders;
mod table;
pub(crate) mod torch;
mod vulkan;
mod wheels;

use std::time::Instant;

use anyhow::{Context, Result, bail};

pub(crate) use background::Fetching;
use table::{REQUIREMENTS, Requirement, Source};

impl Requirement {
    /// The source, for progress lines.
    fn origin(&self) -> String {
        match self.source {
            Source::Debian(packages) => format!("Debian: {}", packages.join(" ")),
            Source::Fetch { from, .. } => from.to_owned(),
        }
    }

    fn is_missing(&self) -> bool {
        !(self.is_present)()
    }
}

/// Finds a requirement by its name.
fn find(name: &str) -> Result<&'static Requirement> {
    let found = REQUIREMENTS.iter().find(|requirement| requirement.name == name);
    found.with_context(|| format!("there is no requirement `{name}`; `cargo xtask setup --list` shows all of them"))
}

/// Returns the missing requirements among `names`, and those that are needed to fetch them, in the
/// order of the table.
fn missing(names: &[&str], is_missing: impl Fn(&Requirement) -> bool) -> Result<Vec<&'static Requirement>> {
    let mut wanted = names.to_vec();
    let mut found = Vec::new();
    while let Some(name) = wanted.pop() {
        let requirement = find(name)?;
        if !found.contains(&requirement.name) && is_missing(requirement) {
            found.push(requirement.name);
            wanted.extend(requirement.needs);
        }
    }
    Ok(REQUIREMENTS.iter().filter(|requirement| found.contains(&requirement.name)).collect())
}

/// Fails with one line that says what is missing, and the command that fetches it.
fn refuse(missing: &[&Requirement]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|requirement| requirement.name).collect();
    bail!("missing: {}; run `cargo xtask setup {}`", names.join(", "), names.join(" "));
}

/// Makes sure that requirements are present before a task starts.
///
/// Missing ones are fetched if `may_fetch` is set, and are an error otherwise.
pub(crate) fn require(names: &[&str], may_fetch: bool) -> Result<()> {
    let missing = missing(names, Requirement::is_missing)?;
    if !may_fetch {
        return refuse(&missing);
    }
    announce(&missing);
    install_and_fetch(&missing)
}

/// Like [`require`] with `may_fetch`, but returns when Debian's packages are installed: a thread fetches the rest.
pub(crate) fn require_in_background(names: &[&str]) -> Result<Fetching> {
    let missing = missing(names, Requirement::is_missing)?;
    announce(&missing);
    install_packages(&missing)?;
    Ok(Fetching::start(missing.into_iter().filter(|each| matches!(each.source, Source::Fetch { .. })).collect()))
}

/// Prints what is going to be fetched.
fn announce(missing: &[&Requirement]) {
    if !missing.is_empty() {
        let origins = missing.iter().map(|each| format!("{} ({})", each.name, each.origin()));
        eprintln!("setup fetches {}", origins.collect::<Vec<_>>().join(", "));
    }
}

/// `cargo xtask setup`: fetches requirements that are missing, and prints a line for each.
pub(crate) fn setup(names: &[&str]) -> Result<()> {
    let missing = missing(names, Requirement::is_missing)?;
    for name in names {
        let requirement = find(name)?;
        if missing.iter().all(|missing| missing.name != requirement.name) {
            eprintln!("{:<12} present", requirement.name);
        }
    }
    install_and_fetch(&missing)
}

/// `cargo xtask setup --list`: prints all requirements, and whether they are present.
pub(crate) fn list() {
    for requirement in REQUIREMENTS {
        let state = if requirement.is_missing() { "missing" } else { "present" };
        println!("{:<12} {state}  {} ({})", requirement.name, requirement.why, requirement.origin());
    }
}

/// The names of all requirements.
pub(crate) fn all() -> Vec<&'static str> {
    REQUIREMENTS.iter().map(|requirement| requirement.name).collect()
}

/// The error of [`require`] where `gone` is the only missing one among `names`.
#[cfg(test)]
pub(crate) fn refusal_without(names: &[&str], gone: &str) -> anyhow::Error {
    let missing = missing(names, |requirement| requirement.name == gone);
    missing.and_then(|missing| refuse(&missing)).expect_err("one is missing")
}

/// Installs and fetches as many requirements as possible, and fails if one is still missing.
fn install_and_fetch(missing: &[&'static Requirement]) -> Result<()> {
    let installed = install_packages(missing);
    let fetched = fetch(missing, &|_| {});
    match (installed, fetched) {
        (Err(error), Err(other)) => bail!("{error:#}; {other:#}"),
        (installed, fetched) => installed.and(fetched),
    }
}

/// Fetches as many requirements as possible, and fails if one is still missing. Tells the name of each that is fetched.
fn fetch(missing: &[&'static Requirement], has_come: &dyn Fn(&'static str)) -> Result<()> {
    let mut failures = Vec::new();
    for (at, requirement) in missing.iter().enumerate() {
        let Requirement { name, needs, source, .. } = requirement;
        let Source::Fetch { fetch, .. } = source else { continue };
        let step = format!("[{}/{}] {name:<12}", at + 1, missing.len());
        let lacking: Vec<_> = missing.iter().filter(|each| needs.contains(&each.name) && each.is_missing()).collect();
        if let [lacking, ..] = lacking[..] {
            eprintln!("{step} not fetched: {} is missing", lacking.name);
            failures.push(format!("{name} needs {}", lacking.name));
            continue;
        }
        eprintln!("{step} fetching: {}", requirement.origin());
        let started = Instant::now();
        match fetch() {
            Ok(()) if requirement.is_missing() => failures.push(format!("{name} was fetched but is not found")),
            Ok(()) => {
                eprintln!("{step} fetched in {} s", started.elapsed().as_secs());
                has_come(name);
            }
            Err(error) => {
                eprintln!("{step} failed: {error:#}");
                failures.push(format!("{name} cannot be fetched"));
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("setup is incomplete: {}", failures.join("; "));
}

/// Installs the packages of all requirements that come from Debian, in one run of apt.
fn install_packages(missing: &[&Requirement]) -> Result<()> {
    let packages_of = |requirement: &&&Requirement| match requirement.source {
        Source::Debian(packages) => Some((requirement.name, packages)),
        Source::Fetch { .. } => None,
    };
    let (names, packages): (Vec<_>, Vec<_>) = missing.iter().filter_map(|each| packages_of(&each)).unzip();
    let (names, packages) = (names.join(", "), packages.concat());
    if packages.is_empty() {
        return Ok(());
    }
    if !debian::may_install() {
        bail!("{names}: root has to run `{}`, on Debian and Ubuntu", debian::command(&packages));
    }
    eprintln!("{names}: installing {}", packages.join(" "));
    debian::install(&packages).with_context(|| format!("apt cannot install {names}"))?;
    for name in names.split(", ") {
        if find(name)?.is_missing() {
            bail!("{name} was installed but is not found");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{REQUIREMENTS, Source, all, find, missing, refuse};

    #[test]
    fn names_are_unique_and_needs_exist() {
        let names = all();
        for (at, requirement) in REQUIREMENTS.iter().enumerate() {
            assert!(!names[..at].contains(&requirement.name), "{} is listed twice", requirement.name);
            for need in requirement.needs {
                let place = names.iter().position(|name| name == need);
                assert!(place.is_some_and(|place| place < at), "{need} comes before {}", requirement.name);
            }
        }
    }

    #[test]
    fn texts_are_one_line() {
        for requirement in REQUIREMENTS {
            let text = format!("{}{}", requirement.why, requirement.origin());
            assert!(!text.contains('\n') && !requirement.why.ends_with('.'), "{text}");
            if let Source::Debian(packages) = requirement.source {
                assert!(!packages.is_empty() && requirement.needs.is_empty(), "{}", requirement.name);
            }
        }
    }

    #[test]
    fn missing_requirements_are_found_with_their_needs() {
        let names = |wanted: &[&str], gone: &[&str]| {
            let found = missing(wanted, |requirement| gone.contains(&requirement.name)).unwrap();
            found.iter().map(|requirement| requirement.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["typos", "ray-env"], &[]), [""; 0]);
        assert_eq!(names(&["ray-env", "typos"], &["typos", "ray-env", "libpython"]), ["libpython", "typos", "ray-env"]);
        // A requirement that is present needs nothing.
        assert_eq!(names(&["typos"], &["python"]), [""; 0]);
        assert_eq!(names(&["typos", "typos"], &["typos"]), ["typos"]);
    }

    #[test]
    fn refusal_is_one_line_with_the_command() {
        let found = missing(&["typos", "libtorch"], |requirement| requirement.name != "python").unwrap();
        let error = refuse(&found).unwrap_err().to_string();
        assert_eq!(error, "missing: typos, libtorch; run `cargo xtask setup typos libtorch`");
        refuse(&[]).unwrap();
        let unknown = missing(&["nonsense"], |_| true).err().unwrap().to_string();
        assert!(unknown.contains("`nonsense`") && unknown.contains("--list"), "{unknown}");
        assert!(find("python").is_ok());
    }
}
