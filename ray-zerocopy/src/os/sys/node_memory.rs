//! Placement of mapped memory on a NUMA node (`mbind`).

use std::io;
use std::os::fd::AsFd;

use super::advice::Pages;

/// What happens to pages that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingPages {
    Stay,
    /// Those that only this mapping has in its page table move to the node.
    Move,
}

/// Makes a node the preferred one for the pages of a memfd that do not exist yet. The preference belongs to
/// the memfd, and holds for every process.
///
/// # Errors
/// If the kernel refuses it: `EPERM` by a seccomp policy, `ENOSYS` without NUMA, `EINVAL` for a node that is
/// not online or not in the cpuset.
pub(crate) fn prefer_node(memfd: impl AsFd, len: usize, node: u32) -> io::Result<()> {
    // Unmapped again at the end: a memfd with a mapping of this kind cannot be sealed.
    Pages::map(memfd.as_fd(), len)?.prefer_node(node, ExistingPages::Stay)
}

impl Pages {
    /// Makes a node the preferred one for the pages of the mapped file. The kernel takes pages of another
    /// node where that one has no room, so this does not cause a lack of memory.
    ///
    /// # Errors
    /// As [`prefer_node`].
    #[cfg(target_os = "linux")]
    pub(crate) fn prefer_node(&self, node: u32, existing: ExistingPages) -> io::Result<()> {
        /// Nodes that the largest kernels support.
        const NODES: usize = 1024;
        const BITS: usize = libc::c_ulong::BITS as usize;
        /// Moves pages that no other mapping has: see mbind(2).
        const MPOL_MF_MOVE: libc::c_ulong = 1 << 1;

        let mut mask = [0 as libc::c_ulong; NODES / BITS];
        let word = mask.get_mut(node as usize / BITS).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (node as usize % BITS);
        let flags = match existing {
            ExistingPages::Stay => 0,
            ExistingPages::Move => MPOL_MF_MOVE,
        };
        let len = self.addresses().len();
        let start = self.within(0, len)?;
        // SAFETY: the range is a mapping that is alive, since `self` is. The kernel only reads the mask,
        // which has `NODES` bits: it takes one less than the number that it is given. The call decides on
        // which node pages are. Moving a page keeps its bytes; a concurrent reader waits for it, or reads
        // the old page.
        let placed = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                start,
                len,
                libc::c_long::from(libc::MPOL_PREFERRED),
                mask.as_ptr(),
                NODES + 1,
                flags,
            )
        };
        if placed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn prefer_node(&self, node: u32, existing: ExistingPages) -> io::Result<()> {
        let _ = (node, existing);
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{ExistingPages, prefer_node};
    use crate::os::sys::mapping::Mapping;
    use crate::os::sys::memfd::{create, seal};

    const LEN: usize = 1 << 20;

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn memfd_can_be_sealed_after_it_was_placed() {
        let fd = create("test", LEN as u64).unwrap();
        if let Err(error) = prefer_node(&fd, LEN, 0) {
            // A kernel without NUMA, or a policy of the machine.
            assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}");
            return;
        }
        assert_eq!(rustix::io::pwrite(&fd, &vec![7; LEN], 0), Ok(LEN));
        let map = Mapping::open(seal(fd).unwrap(), LEN).unwrap();
        assert!(map.as_ref().iter().all(|byte| *byte == 7));
        map.pages().prefer_node(0, ExistingPages::Move).unwrap();
        assert!(map.as_ref().iter().all(|byte| *byte == 7));
        for node in [1023, 1024, u32::MAX] {
            let error = map.pages().prefer_node(node, ExistingPages::Stay).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        }
    }
}
