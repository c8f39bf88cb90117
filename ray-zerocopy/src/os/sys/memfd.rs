//! Anonymous memory that can be sealed against changes (memfd). Linux only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, ftruncate, memfd_create,
    open,
};

use rustix::io::Errno;

use crate::os::limits;

/// Number of times that sealing is tried again, and the pause before each. The kernel itself waits for 150 ms each time.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The seals that make a memfd immutable: no writes, no change of size, and no removal of the
/// seals.
pub(crate) const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// The seals of a memfd that may be written to, and whose size does not change.
const FIXED_SIZE: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The seals of a memfd that can only be written to through mappings that already exist, and whose size
/// does not change. Since Linux 5.1.
const ONE_WRITER: SealFlags = FIXED_SIZE.union(SealFlags::FUTURE_WRITE);

/// Creates a memfd of `len` zero bytes. The name only appears in `/proc/<pid>/maps`.
pub(crate) fn create(name: &str, len: u64) -> Result<OwnedFd, (&'static str, io::Error)> {
    limits::may_write(len).map_err(|error| ("ftruncate", error))?;
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| ("memfd_create", errno.into()))?;
    ftruncate(&fd, len).map_err(|errno| ("ftruncate", errno.into()))?;
    Ok(fd)
}

/// Seals the memfd and returns a descriptor that is open for reading only: see [`reader`]. Fails
/// while a writable mapping of the memfd exists in any process.
///
/// The kernel also refuses that as long as something in it holds a page: it cannot know whether a device writes to the
/// page. Work on memory in the background, such as compaction, holds pages for a short time. So sealing is tried again.
pub(crate) fn seal(fd: OwnedFd) -> io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match fcntl_add_seals(&fd, SEALS) {
            Err(Errno::BUSY) if tries < TRIES => {
                tries += 1;
                thread::sleep(PAUSE);
            }
            sealed => {
                sealed?;
                return Ok(reader(fd));
            }
        }
    }
}

/// Makes the size of a memfd permanent. It can still be written to.
pub(crate) fn fix_size(fd: impl AsFd) -> io::Result<()> {
    fcntl_add_seals(fd, FIXED_SIZE).map_err(Into::into)
}

/// Returns `true` if the size of a memfd is permanent.
pub(crate) fn has_fixed_size(fd: impl AsFd) -> io::Result<bool> {
    Ok(sealed(fd)?.contains(FIXED_SIZE))
}

/// Leaves the mappings that exist as the only way to write to a memfd, and makes its size permanent.
/// Returns a descriptor that is open for reading only: see [`reader`].
pub(crate) fn seal_for_one_writer(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl_add_seals(&fd, ONE_WRITER)?;
    Ok(reader(fd))
}

/// Returns `true` if a memfd can only be written to through mappings that were made before it was sealed,
/// and its size is permanent.
pub(crate) fn has_one_writer(fd: impl AsFd) -> io::Result<bool> {
    Ok(sealed(fd)?.contains(ONE_WRITER))
}

/// Returns the seals of a memfd, or an error if the file is not a memfd.
pub(crate) fn sealed(fd: impl AsFd) -> io::Result<SealFlags> {
    fcntl_get_seals(fd).map_err(Into::into)
}

/// Returns a descriptor of a sealed memfd that is open for reading only.
///
/// Before Linux 6.7 the kernel treats every shared mapping through a descriptor that is open for
/// writing as potentially writable, even if it is mapped read-only, and refuses it with EPERM once
/// `F_SEAL_WRITE` is set. Through a descriptor that is open for reading only it is allowed on every
/// kernel.
///
/// Returns the descriptor unchanged if it cannot be reopened, because `/proc` is not mounted or the
/// process has reached its limit of open files. The seals still hold, and the mapping falls back to
/// a private one: see `Map::new`.
pub(crate) fn reader(fd: OwnedFd) -> OwnedFd {
    reopened(fd.as_fd()).unwrap_or(fd)
}

/// Reopens a memfd for reading only. Returns `None` if it already is open for reading only, or
/// cannot be reopened.
pub(super) fn reopened(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    if fcntl_getfl(fd).ok()?.intersection(OFlags::RWMODE) == OFlags::RDONLY {
        return None;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let again = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
    // The file system mounted at /proc may belong to another pid namespace.
    let (own, found) = (fstat(fd).ok()?, fstat(&again).ok()?);
    ((own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)).then_some(again)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::thread;
    use std::time::Duration;

    use memmap2::MmapMut;

    use super::{SEALS, create, seal, sealed};

    #[test]
    fn sealing_waits_until_memory_can_be_sealed() {
        let fd = create("ray-zerocopy-test", 4096).unwrap();
        // SAFETY: the memory is only accessed through this mapping.
        let map = unsafe { MmapMut::map_mut(&fd) }.unwrap();
        let other = fd.try_clone().unwrap();
        let ends = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(map);
        });
        assert_eq!(sealed(seal(fd).unwrap()).unwrap(), SEALS);
        ends.join().unwrap();
        assert_eq!(sealed(other).unwrap(), SEALS);
    }

    #[test]
    fn memory_that_others_may_write_to_is_not_sealed() {
        let fd = create("ray-zerocopy-test", 4096).unwrap();
        // SAFETY: as above.
        let _map = unsafe { MmapMut::map_mut(&fd) }.unwrap();
        assert_eq!(seal(fd).unwrap_err().kind(), ErrorKind::ResourceBusy);
    }
}
