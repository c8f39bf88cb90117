//! Child processes, and the folders of the workspace.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::failures;

/// How often the output of tests is passed on.
const INTERVAL: Duration = Duration::from_millis(50);

/// The root of the workspace.
///
/// Cargo's variable comes first: after the workspace was moved, cargo may run an executable that
/// was compiled at the old path.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().map(Path::to_owned).unwrap_or_default()
}

/// The target folder, which `CARGO_TARGET_DIR` may move.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The user's cache folder of this project. The library and the examples look there, too.
pub(crate) fn cache() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("ray-zerocopy"))
}

/// A cargo command. It uses the cargo that runs this program.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Runs a command to its end. Its output goes to the terminal.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("`{program}` could not be started; is it installed?"))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(&command));
    }
    Ok(())
}

/// Runs a command that runs tests, to its end. Its output goes to the terminal, and the error repeats what failed.
pub(crate) fn run_tests(command: Command) -> Result<()> {
    run_tests_with(command, &mut std::io::stdout())
}

/// Runs tests, and passes their standard output on.
///
/// The standard output is a file on the way, not a pipe: daemons that outlive the command would keep a pipe open.
fn run_tests_with(mut command: Command, to: &mut dyn Write) -> Result<()> {
    let output = tempfile::tempfile().context("a temporary file for the output cannot be created")?;
    command.stdout(output.try_clone().context("the file of the output cannot be shared")?);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("`{program}` could not be started; is it installed?"))?;
    let mut text = Vec::new();
    let status = loop {
        let ended = child.try_wait()?;
        // Both share one position, which is that of the end for the child: this reads at a position of its own.
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = output.read_at(&mut chunk, text.len() as u64)?;
            if read == 0 {
                break;
            }
            to.write_all(&chunk[..read])?;
            text.extend_from_slice(&chunk[..read]);
        }
        to.flush()?;
        match ended {
            Some(status) => break status,
            None => std::thread::sleep(INTERVAL),
        }
    };
    if status.success() {
        return Ok(());
    }
    let failed = failures::of(&String::from_utf8_lossy(&text));
    bail!("{}", [vec![format!("`{}` failed: {status}", shown(&command))], failed].concat().join("\n  "));
}

/// The command line, for error messages.
pub(crate) fn shown(command: &Command) -> String {
    format!("{command:?}").replace('"', "")
}

/// Returns whether a command can be started and succeeds. Its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Returns whether a program is installed: it is asked for its version.
pub(crate) fn exists(program: &str) -> bool {
    succeeds(Command::new(program).arg("--version"))
}

/// The path of a program. Returns `None` if no folder of `PATH` has it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::run_tests_with;

    fn script(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn error_of_tests_repeats_what_failed() {
        let mut shown = Vec::new();
        run_tests_with(script("echo 'test a ... ok'"), &mut shown).unwrap();
        assert_eq!(shown, b"test a ... ok\n");
        let output = "failures:\\n\\n---- a::b stdout ----\\nno rows\\n\\nfailures:\\n    a::b\\n";
        // A daemon that keeps the output open does not keep the command from ending.
        let command = script(&format!("printf '{output}'; sleep 30 & exit 3"));
        let error = run_tests_with(command, &mut shown).unwrap_err().to_string();
        assert!(error.ends_with("failed: exit status: 3\n  a::b\n    no rows"), "{error}");
        let missing = run_tests_with(Command::new("/no/such/program"), &mut shown).unwrap_err().to_string();
        assert!(missing.contains("is it installed?"), "{missing}");
    }
}
