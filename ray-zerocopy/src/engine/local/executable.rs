//! Command that starts this program again: `/proc/self/exe`, which is the same file even if it was
//! replaced on disk.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::sys::entry;
use crate::os::procfs;
use crate::os::sys::image::Image;
use crate::os::sys::privileges;

const ITSELF: &str = "/proc/self/exe";

/// Checks whether this program can be started as a worker. The error contains the reason.
pub(super) fn check() -> Result<(), String> {
    command().map(drop)
}

/// Creates the command that starts this program again.
pub(super) fn command() -> Result<Command, String> {
    if privileges::privileged() {
        return Err(
            "this program has privileges that its caller lacks (setuid, setgid or file capabilities), and starts no \
             workers, because the caller controls their environment; run it without these privileges, or give the \
             workers another program with `.program(..)`"
                .to_owned(),
        );
    }
    let image =
        Image::of(entry::anchor_address()).ok_or("the code of ray-zerocopy is not in the dynamic loader's list")?;
    if let Some(library) = image.library {
        let program = fs::read_link(ITSELF).unwrap_or_else(|_| PathBuf::from("this program"));
        return Err(format!(
            "the code of ray-zerocopy is in the shared library {}, and starting {} again would not run it as a worker; \
             to run graphs, give the workers a program with `.program(..)`; otherwise call the pipeline in this process",
            library.display(),
            program.display()
        ));
    }
    if !Path::new(ITSELF).exists() {
        return Err("workers are started through /proc/self/exe, which does not exist; mount /proc".to_owned());
    }
    if image.wants_loader && entry::interpreter_base() == 0 {
        return through_the_loader();
    }
    Ok(Command::new(ITSELF))
}

/// Creates the command for a process that was started as `ld.so program`. Its executable is the
/// loader, which needs the program and its own options again.
fn through_the_loader() -> Result<Command, String> {
    let loader = fs::read_link(ITSELF).map_err(|error| format!("{ITSELF}: {error}"))?;
    let failed = |reason: &str| {
        let loader = loader.display();
        format!("this program was started through the dynamic loader, {loader}, and {reason}; start it directly")
    };
    let maps =
        fs::read("/proc/self/maps").map_err(|error| failed(&format!("/proc/self/maps cannot be read: {error}")))?;
    let program = procfs::file_at(&maps, entry::anchor_address())
        .ok_or_else(|| failed("its own file is not in /proc/self/maps"))?
        .path;
    if !program.is_file() {
        return Err(failed(&format!("its own file has been deleted or replaced since: {}", program.display())));
    }
    let arguments = fs::read("/proc/self/cmdline")
        .map_err(|error| failed(&format!("/proc/self/cmdline cannot be read: {error}")))?;
    let mut command = Command::new(ITSELF);
    command.args(options(&arguments, &program)).arg(program);
    Ok(command)
}

/// Options of the loader before the program's name, such as `--library-path`.
fn options(arguments: &[u8], program: &Path) -> Vec<OsString> {
    let arguments =
        arguments.split(|&byte| byte == 0).skip(1).map(|argument| std::ffi::OsStr::from_bytes(argument).to_owned());
    let arguments: Vec<_> = arguments.collect();
    let is_program = |argument: &OsString| fs::canonicalize(argument).is_ok_and(|path| path == program);
    let end = arguments.iter().position(is_program).unwrap_or(0);
    arguments.into_iter().take(end).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::options;

    #[test]
    fn options_of_the_loader_are_kept() {
        let program = std::env::current_exe().unwrap().canonicalize().unwrap();
        let given = ["ld.so", "--library-path", "/opt/lib", &program.to_string_lossy(), "--workers"].join("\0");
        assert_eq!(options(given.as_bytes(), &program), ["--library-path", "/opt/lib"]);
        assert!(options(b"ld.so\0a", Path::new("/not/there")).is_empty());
    }
}
