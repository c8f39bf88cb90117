//! Reading files ahead, and whether they are on another machine.

use std::os::fd::BorrowedFd;

/// Tells the kernel that a range of a file is read soon.
pub(crate) fn read_ahead(file: BorrowedFd<'_>, from: u64, len: u64) {
    #[cfg(target_os = "linux")]
    {
        // Only advice: a file system that does not take it is read without.
        let _ = rustix::fs::fadvise(file, from, std::num::NonZeroU64::new(len), rustix::fs::Advice::WillNeed);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, from, len);
}

/// Magic numbers of the file systems that read from another machine, or through another process: NFS,
/// SMB, 9P, FUSE, Ceph, Lustre, AFS, GPFS. See statfs(2).
#[cfg(target_os = "linux")]
const REMOTE: [u32; 10] = [
    0x6969,
    0x517b,
    0xff53_4d42,
    0xfe53_4d42,
    0x0102_1997,
    0x6573_5546,
    0x00c3_6400,
    0x0bd0_0bd0,
    0x5346_414f,
    0x4750_4653,
];

/// Returns `true` if a file is on another machine.
pub(crate) fn is_remote(file: BorrowedFd<'_>) -> bool {
    #[cfg(target_os = "linux")]
    {
        rustix::fs::fstatfs(file).is_ok_and(|found| REMOTE.contains(&(found.f_type as u32)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    #[test]
    fn temporary_file_is_on_this_machine() {
        let file = tempfile::tempfile().unwrap();
        super::read_ahead(file.as_fd(), 0, 100);
        assert!(!super::is_remote(file.as_fd()));
    }
}
