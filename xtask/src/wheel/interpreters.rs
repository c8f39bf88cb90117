//! Python interpreters of this machine, by version.

use std::path::PathBuf;
use std::process::Command;

use crate::shell::find;

/// An interpreter.
pub(super) struct Interpreter {
    pub path: PathBuf,
    /// Its exact version, such as `3.12.1`.
    pub version: String,
}

/// Finds the interpreter of a version such as `3.12`: in `PATH`, or among those of pyenv. Returns `None` if the machine has
/// none with pip and venv.
pub(super) fn interpreter(version: &str) -> Option<Interpreter> {
    let program = format!("python{version}");
    let installed = pyenv_versions(version).into_iter().map(|folder| folder.join("bin").join(&program));
    // pyenv puts a program for each version into `PATH`, which fails unless the version has been selected.
    find(&program).into_iter().chain(installed).find_map(|path| {
        let check = "import ensurepip, platform, venv; print(platform.python_version())";
        let output = Command::new(&path).args(["-c", check]).output().ok()?;
        let found = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        let is_that = output.status.success() && found.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'));
        is_that.then_some(Interpreter { path, version: found })
    })
}

/// The folders of pyenv's versions that belong to a version.
fn pyenv_versions(version: &str) -> Vec<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pyenv"));
    let Some(root) = std::env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(home) else { return Vec::new() };
    let Ok(entries) = root.join("versions").read_dir() else { return Vec::new() };
    let start = format!("{version}.");
    let mut folders: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
        .collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::interpreter;

    #[test]
    fn interpreter_has_the_version() {
        let script = "import sys; print('%d.%d' % sys.version_info[:2])";
        let output = Command::new("python3").args(["-c", script]).output().unwrap();
        let version = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let found = interpreter(&version).unwrap();
        assert!(found.version.starts_with(&format!("{version}.")), "{}", found.version);
        assert!(interpreter("3.99").is_none());
    }
}
