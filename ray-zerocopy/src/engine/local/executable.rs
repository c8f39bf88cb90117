//! How this program is started again: through `/proc/self/exe`, which is this very file even if another has replaced it on disk.

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

/// Why this program cannot be started again as a worker, as it is now.
pub(super) fn check() -> Result<(), String> {
    command().map(drop)
}

/// This program, to be started again.
pub(super) fn command() -> Result<Command, String> {
    if !cfg!(target_os = "linux") {
        let system = std::env::consts::OS;
        return Err(format!(
            "worker processes need Linux, and this system is {system}; run this program on Linux, or call the pipeline in \
             this process"
        ));
    }
    if privileges::privileged() {
        return Err("this program runs with privileges that its user has not (setuid, setgid or file capabilities), and starts no \
             workers, since these would do what their environment says; start it without, or give the workers a program \
             of their own with `.program(..)`"
            .to_owned());
    }
    let image =
        Image::of(entry::anchor_address()).ok_or("the dynamic loader does not know the code of ray-zerocopy")?;
    if let Some(library) = image.library {
        let program = fs::read_link(ITSELF).unwrap_or_else(|_| PathBuf::from("this program"));
        return Err(format!(
            "the code of ray-zerocopy is in the shared library {}, and workers are {} started again, which does not begin with \
             it; give the workers a program with `.program(..)`, which runs graphs, or call the pipeline in this process",
            library.display(),
            program.display()
        ));
    }
    if !Path::new(ITSELF).exists() {
        return Err(
            "workers are this program, started again as /proc/self/exe, which is not there; mount /proc".to_owned()
        );
    }
    if image.wants_loader && entry::interpreter_base() == 0 {
        return through_the_loader();
    }
    Ok(Command::new(ITSELF))
}

/// `ld.so program`: the executable of this process is the loader, which has to be told what to load once more.
fn through_the_loader() -> Result<Command, String> {
    let loader = fs::read_link(ITSELF).map_err(|error| format!("{ITSELF}: {error}"))?;
    let failed = |reason: &str| {
        let loader = loader.display();
        format!("this program was started through the dynamic loader, {loader}, and {reason}; start it directly")
    };
    let maps =
        fs::read("/proc/self/maps").map_err(|error| failed(&format!("/proc/self/maps cannot be read: {error}")))?;
    let program =
        procfs::file_at(&maps, entry::anchor_address()).ok_or_else(|| failed("its own file is not known"))?.path;
    if !program.is_file() {
        return Err(failed(&format!("its own file has been deleted or replaced since: {}", program.display())));
    }
    let arguments =
        fs::read("/proc/self/cmdline").map_err(|error| failed(&format!("its arguments are not known: {error}")))?;
    let mut command = Command::new(ITSELF);
    command.args(options(&arguments, &program)).arg(program);
    Ok(command)
}

/// What the loader was told before the program's name, such as `--library-path`.
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
