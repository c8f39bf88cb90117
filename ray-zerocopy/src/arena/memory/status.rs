//! What came of a policy.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::os::byte_size::mib;

/// What came of a [`MemoryPolicy`](crate::memory::MemoryPolicy) policy in one process, by the kernel's own figures.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, share};
/// use ray_zerocopy::memory::{MemoryPolicy, PolicyStatus};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(256, 256).init(device) } } }
///
/// let arena = share(&Model::new(&Device::flex()))?;
/// let outcome = arena.apply_policy(MemoryPolicy::default().prefault(true));
/// match &outcome.prefault {
///     PolicyStatus::Applied { bytes } => assert_eq!(*bytes, arena.size_bytes()),
///     other => println!("prefault: {other}"),
/// }
/// assert_eq!(outcome.lock, PolicyStatus::NotAsked);
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryStatus {
    /// How much of the arena this process maps as huge pages (`ShmemPmdMapped` and `FilePmdMapped`). Only whole blocks
    /// of 2 MiB can be: what is left at the end of the arena is not counted.
    pub huge_pages: PolicyStatus,
    /// How much of the arena is mapped (`Rss`).
    pub prefault: PolicyStatus,
    /// How much of the arena is in memory and stays there (`Rss` of a mapping whose `VmFlags` have `lo`).
    ///
    /// The field `Locked` of the same file is another figure: what is locked, divided by the processes that map it.
    pub lock: PolicyStatus,
    /// How long it took; without what a thread does in the background.
    pub took: Duration,
}

/// What came of one part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PolicyStatus {
    /// It was not asked for.
    #[default]
    NotAsked,
    /// It is as it was asked.
    Applied {
        /// To how many bytes it applies: all that there are.
        bytes: u64,
    },
    /// It applies to a part of the arena.
    Partial {
        /// To how many bytes it applies.
        bytes: u64,
        /// To how many it could.
        of: u64,
        /// Why not to all.
        why: Vec<Obstacle>,
    },
    /// It applies to nothing.
    NotApplied {
        /// To how many bytes it could apply.
        of: u64,
        /// Why it does not.
        why: Vec<Obstacle>,
    },
    /// A thread of this process is about it.
    InProgress {
        /// To how many bytes it applies by now.
        bytes: u64,
        /// To how many it could.
        of: u64,
    },
    /// The kernel's figures cannot be read.
    Unknown {
        /// Why not.
        reason: String,
        /// What is known to have failed.
        why: Vec<Obstacle>,
    },
}

/// What keeps a policy from being applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Obstacle {
    /// The arena, or a part of it, is smaller than a huge page.
    Smaller {
        /// Its size.
        bytes: u64,
    },
    /// The mapping does not begin at a multiple of 2 MiB, because the address space has no room to choose.
    NotAligned,
    /// The kernel's huge pages are not those that arenas are laid out for.
    OtherSize {
        /// Their size.
        bytes: u64,
    },
    /// The kernel does not know the call.
    Unsupported {
        /// The call.
        call: String,
        /// The first version of Linux that has it.
        since: String,
    },
    /// The kernel refused.
    Refused {
        /// The call.
        call: String,
        /// The number of the error.
        errno: i32,
    },
    /// The process may not lock so much memory.
    MemlockLimit {
        /// The limit, in bytes.
        limit: u64,
        /// What the process has locked already.
        locked: u64,
        /// What would have to be locked besides.
        needed: u64,
    },
    /// The process that shared the arena makes the huge pages, and has not made all of them.
    LeftToOwner,
    /// The thread for the background could not work.
    NoThread {
        /// Why not.
        reason: String,
    },
    /// It was applied, and the kernel has unmapped pages since.
    Unmapped,
    /// The arena lies in Ray's object store, whose pages Ray maps.
    InStore,
}

impl MemoryStatus {
    /// Whether all that was asked for is as it was asked.
    pub fn is_applied(&self) -> bool {
        use PolicyStatus::{Applied, NotAsked};
        self.parts().iter().all(|(_, part)| matches!(part, NotAsked | Applied { .. }))
    }

    /// Whether anything was asked for.
    pub fn is_asked(&self) -> bool {
        self.parts().iter().any(|(_, part)| **part != PolicyStatus::NotAsked)
    }

    fn parts(&self) -> [(&'static str, &PolicyStatus); 3] {
        [("huge pages", &self.huge_pages), ("prefault", &self.prefault), ("lock", &self.lock)]
    }
}

impl PolicyStatus {
    /// By the kernel's figure and by what went wrong.
    pub(super) fn new(bytes: Result<u64, String>, of: u64, mut why: Vec<Obstacle>) -> Self {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(reason) => return Self::Unknown { reason, why },
        };
        if bytes >= of {
            return Self::Applied { bytes };
        }
        if why.is_empty() {
            why.push(Obstacle::Unmapped);
        }
        match bytes {
            0 => Self::NotApplied { of, why },
            bytes => Self::Partial { bytes, of, why },
        }
    }

    /// To how many bytes of the arena it applies in this process.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Applied { bytes } | Self::Partial { bytes, .. } | Self::InProgress { bytes, .. } => *bytes,
            Self::NotAsked | Self::NotApplied { .. } | Self::Unknown { .. } => 0,
        }
    }

    /// Why it does not apply to everything.
    pub fn why(&self) -> &[Obstacle] {
        match self {
            Self::Partial { why, .. } | Self::NotApplied { why, .. } | Self::Unknown { why, .. } => why,
            Self::NotAsked | Self::Applied { .. } | Self::InProgress { .. } => &[],
        }
    }
}

impl Obstacle {
    pub(super) fn refused(call: &str, error: &io::Error) -> Self {
        Self::Refused { call: call.to_owned(), errno: error.raw_os_error().unwrap_or_default() }
    }
}

impl fmt::Display for MemoryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.parts().into_iter().filter(|(_, part)| **part != PolicyStatus::NotAsked);
        let text: Vec<_> = asked.map(|(name, part)| format!("{name}: {part}")).collect();
        f.write_str(if text.is_empty() { "nothing asked" } else { "" })?;
        f.write_str(&text.join("; "))
    }
}

impl fmt::Display for PolicyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not asked"),
            Self::Applied { bytes } => write!(f, "applied to {0} of {0} MiB", mib(*bytes)),
            Self::Partial { bytes, of, why } => {
                write!(f, "partly, {} of {} MiB ({})", mib(*bytes), mib(*of), Reasons(why))
            }
            Self::NotApplied { why, .. } => write!(f, "not ({})", Reasons(why)),
            Self::InProgress { bytes, of } => write!(f, "under way, {} of {} MiB", mib(*bytes), mib(*of)),
            Self::Unknown { reason, why } if why.is_empty() => write!(f, "unknown ({reason})"),
            Self::Unknown { reason, why } => write!(f, "unknown ({reason}; {})", Reasons(why)),
        }
    }
}

struct Reasons<'a>(&'a [Obstacle]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smaller { bytes } => write!(f, "there are {bytes} bytes, and a huge page has 2 MiB"),
            Self::NotAligned => f.write_str(
                "the mapping does not begin at a multiple of 2 MiB, for which the address space had no room; \
                 see `ulimit -v`",
            ),
            Self::OtherSize { bytes } => {
                write!(f, "this kernel's huge pages have {} MiB, and arenas are laid out for 2", mib(*bytes))
            }
            Self::Unsupported { call, since } => {
                write!(f, "the kernel lacks {call}: it is before Linux {since}, or built without it")
            }
            Self::Refused { call, errno } => {
                write!(f, "{call}: {}{}", io::Error::from_raw_os_error(*errno), hint(call, *errno))
            }
            Self::MemlockLimit { limit, locked, needed } => write!(
                f,
                "the process may lock {} MiB, has {} locked, and needs {} more; raise `ulimit -l`, or LimitMEMLOCK= \
                 of the service",
                mib(*limit),
                mib(*locked),
                mib(*needed)
            ),
            Self::LeftToOwner => f.write_str("the process that shared the arena makes them; its outcome says how far"),
            Self::NoThread { reason } => write!(f, "no thread for the background: {reason}"),
            Self::Unmapped => f.write_str("the kernel has unmapped pages since; they come back when they are read"),
            Self::InStore => f.write_str("the arena lies in Ray's object store, whose pages Ray maps"),
        }
    }
}

/// What an error means here, and what to do.
fn hint(call: &str, errno: i32) -> &'static str {
    match (call, errno) {
        ("madvise(MADV_COLLAPSE)", libc::EINVAL) => {
            "; huge pages are not possible for this memory: see `deny` in \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled and PR_SET_THP_DISABLE; for a file, the kernel \
             (CONFIG_READ_ONLY_THP_FOR_FS) and the file system have to support them"
        }
        ("madvise(MADV_COLLAPSE)", libc::ENOMEM) => "; there was no free block of 2 MiB: memory is full or fragmented",
        ("madvise(MADV_COLLAPSE)", libc::EBUSY) => "; the cgroup has no memory left for it",
        ("madvise(MADV_COLLAPSE)", libc::EAGAIN) => "; pages were in use, try again",
        ("madvise(MADV_POPULATE_READ)", libc::ENOMEM) => "; there was not enough memory",
        ("madvise(MADV_POPULATE_READ)", libc::EFAULT) => "; the file is shorter than it was",
        ("madvise(MADV_COLLAPSE)" | "madvise(MADV_POPULATE_READ)", libc::EPERM) => {
            "; a policy of this machine refuses it: look at the seccomp profile of the container or service"
        }
        ("mlock", libc::EPERM) => "; the process may lock nothing, see `ulimit -l`",
        ("mlock", libc::EAGAIN | libc::ENOMEM) => "; there was not enough memory, or too many mappings",
        _ => "",
    }
}
