//! Privileges that the caller of a program does not have.

/// Whether this process has privileges that its caller lacks: it was executed from a setuid or setgid file, or from one
/// with file capabilities.
///
/// The environment and the standard input of such a process are the caller's, who must not decide by them which code runs.
pub(crate) fn privileged() -> bool {
    // SAFETY: a request for a number, which the kernel has put into this process's memory; 0 if it is not there.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    let users = (rustix::process::getuid(), rustix::process::geteuid());
    let groups = (rustix::process::getgid(), rustix::process::getegid());
    secure || users.0 != users.1 || groups.0 != groups.1
}

#[cfg(test)]
mod tests {
    /// The other answer needs a setuid file: see `tests/processes/startup.rs`.
    #[test]
    fn an_ordinary_process_has_none() {
        assert!(!super::privileged());
    }
}
