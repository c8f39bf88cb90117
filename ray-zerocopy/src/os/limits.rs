//! Errors of system calls, explained: which limit of the machine, the user or the process was reached,
//! and where it is set.

use std::fs::File;
use std::io::Read;
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::byte_size::mib_rounded_up;
use super::smaps::field;

/// Wraps an error of the system call `call`, with a hint if a limit may be the cause. Keeps the
/// error kind.
pub(crate) fn named(call: &str, error: &io::Error) -> io::Error {
    let hint = hint(error).map(|hint| format!("; {hint}")).unwrap_or_default();
    io::Error::new(error.kind(), format!("{call}: {error}{hint}"))
}

/// Describes an error of a system call for `bytes` bytes, with the limit that caused it and how to
/// raise it, if known.
pub(crate) fn explained(call: &str, bytes: u64, error: &io::Error) -> String {
    match hint_for(call, bytes, error).or_else(|| hint(error).map(str::to_owned)) {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

/// Hint for an error of a system call that allocates memory, a descriptor or a process. Returns
/// `None` if the cause is not a known limit.
pub(crate) fn hint(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::MFILE => "this process has as many open files as it may have: raise the limit, see `ulimit -n`",
        Errno::NFILE => "the machine has as many open files as it may have: see /proc/sys/fs/file-max",
        Errno::TOOMANYREFS => {
            "more descriptors are on their way to other processes than this process may have open: see `ulimit -n`"
        }
        Errno::AGAIN => {
            "this user has as many processes and threads as they may have, or this container has: raise the limit, see \
             `ulimit -u` and the cgroup's `pids.max`"
        }
        Errno::NOMEM => "there is not enough memory, or this process may not have more: see `free` and `ulimit -v`",
        Errno::FBIG => "this process may not write files that are that large: see `ulimit -f`",
        _ => return None,
    })
}

/// Hint for an error of a call that creates, sizes, maps or writes memory of `bytes` bytes.
fn hint_for(call: &str, bytes: u64, error: &io::Error) -> Option<String> {
    let text = match (call, Errno::from_io_error(error)?) {
        ("memfd_create" | "fcntl(F_ADD_SEALS)", Errno::NOSYS | Errno::INVAL) => {
            "arenas need Linux with memfd and seals"
        }
        ("memfd_create" | "fcntl(F_ADD_SEALS)" | "mmap", Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            "a policy of this machine refuses it, not a lack of memory: look at the seccomp profile of the container or service, \
             and at SELinux or AppArmor"
        }
        ("mmap", Errno::AGAIN) => "this process may not lock that much memory: raise the limit, see `ulimit -l`",
        ("mmap", Errno::NOMEM) => return Some(no_map(bytes)),
        ("ftruncate" | "pwrite", Errno::NOMEM | Errno::NOSPC) => return Some(no_memory(bytes)),
        _ => return None,
    };
    Some(text.to_owned())
}

/// Checks that this process may write a file of `bytes` bytes (`RLIMIT_FSIZE`). Beyond the limit
/// the kernel does not only fail the write: it ends the process with SIGXFSZ.
pub(crate) fn may_write(bytes: u64) -> io::Result<()> {
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| bytes > limit) {
        return Err(Errno::FBIG.into());
    }
    Ok(())
}

/// Why a mapping of `bytes` bytes was refused. A mapping uses address space, not memory.
fn no_map(bytes: u64) -> String {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    if let (Some(most), Some(found)) = (number("/proc/sys/vm/max_map_count"), maps())
        // The mapping itself, and the neighbours that trimming it would leave.
        && found + 3 > most
    {
        return format!(
            "this process has {found} memory maps, and may have {most}: raise the limit, `sysctl vm.max_map_count`"
        );
    }
    if let Some(limit) = getrlimit(Resource::As).current {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let size = field(&status, "VmSize:");
        if size.saturating_add(bytes) > limit {
            let [limit, size, bytes] = [limit, size, bytes].map(mib_rounded_up);
            return format!(
                "this process may map {limit} MiB, has mapped {size}, and needs {bytes} more: raise the limit, see `ulimit -v`"
            );
        }
    }
    no_memory(bytes)
}

/// Why `bytes` bytes of memory were refused.
fn no_memory(bytes: u64) -> String {
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (limit, committed) = (field(&memory, "CommitLimit:"), field(&memory, "Committed_AS:"));
    if strict && committed.saturating_add(bytes) > limit {
        let [limit, committed, bytes] = [limit, committed, bytes].map(mib_rounded_up);
        return format!(
            "this machine promises no more memory than it has (`sysctl vm.overcommit_memory` is 2): of {limit} MiB, {committed} \
             are promised, and {bytes} more are needed; see vm.overcommit_ratio"
        );
    }
    "is there enough memory (see `free -h` and the memory limit of the cgroup)?".to_owned()
}

/// Number of memory mappings of this process. Counted in a small buffer: at the limit there may be
/// no memory for a larger one.
fn maps() -> Option<u64> {
    let mut file = File::open("/proc/self/maps").ok()?;
    let (mut lines, mut buffer) = (0, [0; 4096]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(lines),
            read => lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
}
