//! Exit status of a process that was reaped by other code of this process, or by the kernel because
//! SIGCHLD is ignored.

use std::os::fd::{AsFd, AsRawFd};

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

/// Returns the status of a process that has ended and was reaped, in the encoding of `waitpid`.
/// Requires Linux 6.15.
pub(crate) fn status_after_reaping(pidfd: impl AsFd) -> Option<i32> {
    let mut info = Info { mask: STATUS, ..Info::default() };
    // SAFETY: the kernel reads and writes `size_of::<Info>()` bytes at the address, which is the
    // size encoded in the request number.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), GET_INFO as _, &raw mut info) };
    (result == 0 && info.mask & STATUS != 0).then_some(info.status)
}
