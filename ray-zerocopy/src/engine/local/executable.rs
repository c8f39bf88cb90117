//! How this program is started again: through `/proc/self/exe`, which is this very file even if another has replaced it on disk.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::sys::entry;
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
    let program = file_at(&maps, entry::anchor_address()).ok_or_else(|| failed("its own file is not known"))?;
    if !program.is_file() {
        return Err(failed(&format!("its own file has been deleted or replaced since: {}", program.display())));
    }
    let arguments =
        fs::read("/proc/self/cmdline").map_err(|error| failed(&format!("its arguments are not known: {error}")))?;
    let mut command = Command::new(ITSELF);
    command.args(options(&arguments, &program)).arg(program);
    Ok(command)
}

/// The file that is mapped at an address, by the lines of `/proc/<pid>/maps`.
fn file_at(maps: &[u8], address: usize) -> Option<PathBuf> {
    let hex = |text: &[u8]| usize::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok();
    let path = maps.split(|&byte| byte == b'\n').find_map(|line| {
        let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        let range = words.next()?;
        let dash = range.iter().position(|&byte| byte == b'-')?;
        let here = (hex(&range[..dash])?..hex(&range[dash + 1..])?).contains(&address);
        let slash = line.iter().position(|&byte| byte == b'/').filter(|_| here)?;
        Some(line[slash..].to_vec())
    })?;
    Some(PathBuf::from(OsString::from_vec(path)))
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
    use std::path::{Path, PathBuf};

    use super::file_at;
    use super::options;

    #[test]
    fn a_mapped_file_is_found_by_an_address_in_it() {
        let maps = b"55d0c8a00000-55d0c8a21000 r-xp 00021000 08:02 173521                     /usr/bin/my prog\n\
                     7ffd4a5f0000-7ffd4a611000 rw-p 00000000 00:00 0                          [stack]\n";
        assert_eq!(file_at(maps, 0x55d0_c8a0_0010), Some(PathBuf::from("/usr/bin/my prog")));
        assert_eq!(file_at(maps, 0x7ffd_4a5f_0010), None);
        assert_eq!(file_at(maps, 16), None);
        assert_eq!(file_at(b"nonsense", 16), None);
    }

    #[test]
    fn what_the_loader_was_told_is_kept() {
        let program = std::env::current_exe().unwrap().canonicalize().unwrap();
        let given = ["ld.so", "--library-path", "/opt/lib", &program.to_string_lossy(), "--workers"].join("\0");
        assert_eq!(options(given.as_bytes(), &program), ["--library-path", "/opt/lib"]);
        assert!(options(b"ld.so\0a", Path::new("/not/there")).is_empty());
    }
}
