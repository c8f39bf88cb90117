//! Detection of elevated privileges (setuid, setgid, file capabilities).

/// Returns `true` if this process has privileges that its caller lacks: it was executed from a
/// setuid or setgid file, or from one with file capabilities.
///
/// The caller controls the environment and the standard input of such a process, and must not use
/// them to decide which code runs.
pub(crate) fn privileged() -> bool {
    let users = (rustix::process::getuid(), rustix::process::geteuid());
    let groups = (rustix::process::getgid(), rustix::process::getegid());
    is_secure() || users.0 != users.1 || groups.0 != groups.1
}

/// The kernel's own verdict (`AT_SECURE`), which includes file capabilities.
#[cfg(target_os = "linux")]
fn is_secure() -> bool {
    // SAFETY: reads a number that the kernel has put into this process's memory. Returns 0 if it is
    // missing.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_secure() -> bool {
    false
}

#[cfg(test)]
mod tests {
    /// The opposite case needs a setuid file: see `tests/processes/startup.rs`.
    #[test]
    fn ordinary_process_is_not_privileged() {
        assert!(!super::privileged());
    }
}
