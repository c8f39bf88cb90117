//! Process descriptors (pidfds), which name one process for good, where a process id may be reused.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, pidfd_open, pidfd_send_signal};

/// Opens a descriptor of a process. Fails with `ENOSYS` before Linux 5.3.
pub(crate) fn open_process(pid: Pid) -> Result<OwnedFd, Errno> {
    pidfd_open(pid, PidfdFlags::empty())
}

/// Sends SIGKILL to a process.
pub(crate) fn kill(pidfd: &OwnedFd) -> Result<(), Errno> {
    pidfd_send_signal(pidfd, Signal::KILL)
}

/// Names a child for `waitid`, by its descriptor.
pub(crate) fn wait_id(pidfd: &OwnedFd) -> Option<WaitId<'_>> {
    Some(WaitId::PidFd(pidfd.as_fd()))
}

/// `struct pidfd_info` of `linux/pidfd.h`, in its first version.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    status: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = 3 << 30 | (size_of::<Info>() as libc::c_ulong) << 16 | 0xFF << 8 | 11;
/// Mask bit of the exit status (`PIDFD_INFO_EXIT`): requested on input, available on output.
const STATUS: u64 = 1 << 3;

/// Returns the exit status of a process that was reaped by other code of this process, or by the
/// kernel because SIGCHLD is ignored, in the encoding of `waitpid`.
///
/// Requires Linux 6.15.
pub(crate) fn status_after_reaping(pidfd: impl AsFd) -> Option<i32> {
    let mut info = Info { mask: STATUS, ..Info::default() };
    // SAFETY: the kernel reads and writes `size_of::<Info>()` bytes at the address, which is the
    // size encoded in the request number.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & STATUS != 0).then_some(info.status)
}
