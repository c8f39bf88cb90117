//! Whether this process has privileges that the user who started it has not.

/// Whether the kernel started this program with privileges of its own: setuid, setgid, or capabilities of its file.
///
/// Such a program must not do what its environment or its standard input say, since an unprivileged user has set these.
pub(crate) fn privileged() -> bool {
    // SAFETY: `getauxval` only looks a number up.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) };
    let (uid, euid) = (rustix::process::getuid(), rustix::process::geteuid());
    let (gid, egid) = (rustix::process::getgid(), rustix::process::getegid());
    secure != 0 || uid != euid || gid != egid
}
