//! Hints for errors of system calls: which resource limit was reached, and where it is set.

use std::io;

use rustix::io::Errno;

/// Wraps an error of the system call `call`, with a hint if a resource limit may be the cause.
/// Keeps the error kind.
pub(crate) fn named(call: &str, error: &io::Error) -> io::Error {
    let hint = hint(error).map(|hint| format!("; {hint}")).unwrap_or_default();
    io::Error::new(error.kind(), format!("{call}: {error}{hint}"))
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
