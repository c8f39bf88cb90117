//! Stand-ins on systems other than Linux, with which the crate compiles there. Each call fails, and
//! names what is missing.

use std::io;

/// The error of a call that only Linux has.
fn needs_linux(what: &str) -> io::Error {
    let system = std::env::consts::OS;
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("{what} only exist on Linux, and this system is {system}; run this program on Linux"),
    )
}

pub(crate) mod image {
    use std::ops::Range;
    use std::path::PathBuf;

    /// The executable or shared library that contains an address. Never found.
    pub(crate) struct Image {
        pub(crate) library: Option<PathBuf>,
        pub(crate) wants_loader: bool,
    }

    impl Image {
        pub(crate) fn of(_address: usize) -> Option<Self> {
            None
        }

        pub(crate) fn has_code_at(&self, _address: usize) -> bool {
            false
        }

        pub(crate) fn constructors_behind(&self, _entry: usize) -> Range<usize> {
            0..0
        }
    }
}

pub(crate) mod memfd {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use super::needs_linux;

    /// The seals of a memfd: the complete set, which no file has here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct SealFlags;

    pub(crate) const SEALS: SealFlags = SealFlags;

    impl SealFlags {
        pub(crate) fn contains(self, _other: Self) -> bool {
            false
        }

        pub(crate) fn difference(self, _other: Self) -> Self {
            self
        }

        pub(crate) fn is_empty(self) -> bool {
            false
        }

        pub(crate) fn iter_names(self) -> impl Iterator<Item = (&'static str, Self)> {
            std::iter::once(("seals, which only exist on Linux", self))
        }
    }

    pub(crate) fn create(_name: &str, _len: u64) -> Result<OwnedFd, (&'static str, io::Error)> {
        Err(("memfd_create", needs_linux("memfds, the sealed memory of arenas,")))
    }

    pub(crate) fn seal(_fd: OwnedFd) -> io::Result<OwnedFd> {
        Err(needs_linux("seals"))
    }

    pub(crate) fn fix_size(_fd: impl AsFd) -> io::Result<()> {
        Err(needs_linux("seals"))
    }

    pub(crate) fn has_fixed_size(_fd: impl AsFd) -> io::Result<bool> {
        Err(needs_linux("seals"))
    }

    pub(crate) fn seal_for_one_writer(_fd: OwnedFd) -> io::Result<OwnedFd> {
        Err(needs_linux("seals"))
    }

    pub(crate) fn has_one_writer(_fd: impl AsFd) -> io::Result<bool> {
        Err(needs_linux("seals"))
    }

    pub(crate) fn sealed(_fd: impl AsFd) -> io::Result<SealFlags> {
        Err(needs_linux("seals"))
    }

    pub(crate) fn reader(fd: OwnedFd) -> OwnedFd {
        fd
    }

    pub(in crate::os::sys) fn reopened(_fd: BorrowedFd<'_>) -> Option<OwnedFd> {
        None
    }
}

pub(crate) mod peer {
    use std::io;
    use std::os::fd::AsFd;

    use super::needs_linux;

    /// A process and its user.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Peer {
        pub(crate) pid: i32,
        pub(crate) uid: u32,
    }

    pub(crate) fn peer(_socket: impl AsFd) -> io::Result<Peer> {
        Err(needs_linux("the credentials of the other end of a socket (SO_PEERCRED)"))
    }
}

pub(crate) mod pidfd {
    use std::os::fd::OwnedFd;

    use rustix::io::Errno;
    use rustix::process::{Pid, WaitId};

    pub(crate) fn open_process(_pid: Pid) -> Result<OwnedFd, Errno> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn kill(_pidfd: &OwnedFd) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }

    pub(crate) fn wait_id(_pidfd: &OwnedFd) -> Option<WaitId<'_>> {
        None
    }

    pub(crate) fn status_after_reaping(_pidfd: &OwnedFd) -> Option<i32> {
        None
    }
}
