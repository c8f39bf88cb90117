//! Outcome of a memory policy: what was applied, and the obstacles to the rest.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::os::byte_size::mib;

/// How far a [`MemoryPolicy`](crate::memory::MemoryPolicy) is applied in one process, from the
/// kernel's figures.
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
    /// How much of the arena this process maps as huge pages (`ShmemPmdMapped` and
    /// `FilePmdMapped`). Only whole blocks of 2 MiB count. The rest at the end of the arena cannot
    /// be a huge page.
    pub huge_pages: PolicyStatus,
    /// How much of the arena is mapped (`Rss`).
    pub prefault: PolicyStatus,
    /// How much of the arena is locked in memory (`Rss` of a mapping whose `VmFlags` have `lo`).
    ///
    /// The field `Locked` of the same file is another figure: the locked bytes divided by the
    /// number of processes that map them.
    pub lock: PolicyStatus,
    /// How much of the replicas is on their NUMA nodes: for the process that makes them, of all of them. For a
    /// worker, the size of the one that it reads.
    #[serde(default)]
    pub replicas: PolicyStatus,
    /// The NUMA node of the replica that a worker reads. `None` if it reads the only copy, or the first one
    /// because of an obstacle, and for the process that makes them.
    #[serde(default)]
    pub node: Option<u32>,
    /// How long applying the policy took, without work in the background.
    pub took: Duration,
}

/// How far one part of a policy is applied.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PolicyStatus {
    /// The part was not requested.
    #[default]
    NotAsked,
    /// The part is applied to all bytes.
    Applied {
        /// The number of bytes.
        bytes: u64,
    },
    /// The part is applied to some of the bytes.
    Partial {
        /// The number of bytes that it is applied to.
        bytes: u64,
        /// The number of bytes that it could be applied to.
        of: u64,
        /// The obstacles for the others.
        why: Vec<Obstacle>,
    },
    /// The part is not applied.
    NotApplied {
        /// The number of bytes that it could be applied to.
        of: u64,
        /// The obstacles.
        why: Vec<Obstacle>,
    },
    /// A background thread of this process is applying the part.
    InProgress {
        /// The number of bytes that it is applied to so far.
        bytes: u64,
        /// The number of bytes that it could be applied to.
        of: u64,
    },
    /// The kernel's figures cannot be read.
    Unknown {
        /// Why they cannot be read.
        reason: String,
        /// The obstacles that were found.
        why: Vec<Obstacle>,
    },
}

/// A reason why a policy is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Obstacle {
    /// The arena, or a part of it, is smaller than a huge page.
    Smaller {
        /// Its size.
        bytes: u64,
    },
    /// The mapping does not begin at a multiple of 2 MiB, because the address space has no room to
    /// choose.
    NotAligned,
    /// The kernel's huge pages do not have the size that arenas are laid out for, 2 MiB.
    OtherSize {
        /// Their size.
        bytes: u64,
    },
    /// The kernel does not support the call.
    Unsupported {
        /// The call.
        call: String,
        /// The first version of Linux that has it.
        since: String,
    },
    /// The kernel refused the call.
    Refused {
        /// The call.
        call: String,
        /// The error number.
        errno: i32,
    },
    /// The limit of locked memory (`RLIMIT_MEMLOCK`) is too low.
    MemlockLimit {
        /// The limit, in bytes.
        limit: u64,
        /// The bytes that the process has already locked.
        locked: u64,
        /// The further bytes that would have to be locked.
        needed: u64,
    },
    /// The process that shared the arena creates the huge pages, and has not created all of them.
    LeftToOwner,
    /// The background thread could not be started, or panicked.
    NoThread {
        /// The reason.
        reason: String,
    },
    /// The policy was applied, but the kernel has unmapped pages since.
    Unmapped,
    /// The arena is in Ray's object store, whose pages Ray maps.
    InStore,
    /// There are no replicas because the workers run on one NUMA node.
    OneNode,
    /// No wrapper has made replicas of the arena yet: that needs workers.
    NoWorkers,
    /// Weights are borrowed from a file, which is not copied.
    InFile,
    /// The kernel's description of the NUMA nodes cannot be read.
    UnknownNodes {
        /// The reason.
        reason: String,
    },
    /// A NUMA node has no room for a replica.
    NoRoom {
        /// The node.
        node: u32,
        /// The size of the replica in bytes.
        needed: u64,
        /// The bytes of the node that are available.
        available: u64,
    },
    /// A replica could not be made.
    NotCopied {
        /// The NUMA node that it was to be on.
        node: u32,
        /// The reason.
        reason: String,
    },
    /// The kernel put pages of a copy on another NUMA node.
    OtherNode {
        /// The node of the copy.
        node: u32,
        /// The bytes that are elsewhere.
        bytes: u64,
    },
    /// The settings of the pool allow the worker to run on several NUMA nodes.
    SeveralNodes {
        /// The nodes.
        nodes: Vec<u32>,
    },
    /// The worker could not be bound to the cores of its NUMA node.
    NotBound {
        /// The reason.
        reason: String,
    },
}

impl MemoryStatus {
    /// Returns whether everything that was requested is applied.
    pub fn is_applied(&self) -> bool {
        use PolicyStatus::{Applied, NotAsked};
        self.parts().iter().all(|(_, part)| matches!(part, NotAsked | Applied { .. }))
    }

    /// Returns whether anything was requested.
    pub fn is_asked(&self) -> bool {
        self.parts().iter().any(|(_, part)| **part != PolicyStatus::NotAsked)
    }

    fn parts(&self) -> [(&'static str, &PolicyStatus); 4] {
        let Self { huge_pages, prefault, lock, replicas, .. } = self;
        [("huge pages", huge_pages), ("prefault", prefault), ("lock", lock), ("replicas", replicas)]
    }
}

impl PolicyStatus {
    /// Creates the status from the kernel's figure and the obstacles.
    pub(crate) fn new(bytes: Result<u64, String>, of: u64, mut why: Vec<Obstacle>) -> Self {
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

    /// The number of bytes of the arena that the part is applied to in this process.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Applied { bytes } | Self::Partial { bytes, .. } | Self::InProgress { bytes, .. } => *bytes,
            Self::NotAsked | Self::NotApplied { .. } | Self::Unknown { .. } => 0,
        }
    }

    /// The obstacles, if the part is not applied to all bytes.
    pub fn why(&self) -> &[Obstacle] {
        match self {
            Self::Partial { why, .. } | Self::NotApplied { why, .. } | Self::Unknown { why, .. } => why,
            Self::NotAsked | Self::Applied { .. } | Self::InProgress { .. } => &[],
        }
    }
}

impl Obstacle {
    pub(crate) fn refused(call: &str, error: &io::Error) -> Self {
        Self::Refused { call: call.to_owned(), errno: error.raw_os_error().unwrap_or_default() }
    }
}

impl fmt::Display for MemoryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.parts().into_iter().filter(|(_, part)| **part != PolicyStatus::NotAsked);
        let text: Vec<_> = asked.map(|(name, part)| format!("{name}: {part}")).collect();
        f.write_str(if text.is_empty() { "no policy requested" } else { "" })?;
        f.write_str(&text.join("; "))
    }
}

impl fmt::Display for PolicyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not requested"),
            Self::Applied { bytes } => write!(f, "applied to {0} of {0} MiB", mib(*bytes)),
            Self::Partial { bytes, of, why } => {
                write!(f, "partly applied, {} of {} MiB ({})", mib(*bytes), mib(*of), Reasons(why))
            }
            Self::NotApplied { why, .. } => write!(f, "not applied ({})", Reasons(why)),
            Self::InProgress { bytes, of } => write!(f, "in progress, {} of {} MiB", mib(*bytes), mib(*of)),
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
            Self::Smaller { bytes } => write!(f, "{bytes} bytes are less than a huge page of 2 MiB"),
            Self::NotAligned => f.write_str(
                "the mapping does not begin at a multiple of 2 MiB, since the address space is too small; \
                 see `ulimit -v`",
            ),
            Self::OtherSize { bytes } => {
                write!(f, "this kernel's huge pages have {} MiB, but arenas are laid out for 2 MiB", mib(*bytes))
            }
            Self::Unsupported { call, since } => {
                write!(f, "the kernel does not support {call}: it is older than Linux {since}, or built without it")
            }
            Self::Refused { call, errno } => {
                write!(f, "{call}: {}{}", io::Error::from_raw_os_error(*errno), hint(call, *errno))
            }
            Self::MemlockLimit { limit, locked, needed } => write!(
                f,
                "the process may lock {} MiB, has locked {} MiB, and needs {} MiB more; raise `ulimit -l`, or \
                 LimitMEMLOCK= of the service",
                mib(*limit),
                mib(*locked),
                mib(*needed)
            ),
            Self::LeftToOwner => f.write_str("the process that shared the arena creates them; see its status"),
            Self::NoThread { reason } => write!(f, "the background thread failed: {reason}"),
            Self::Unmapped => {
                f.write_str("the kernel has unmapped pages since; they are mapped again when they are read")
            }
            Self::InStore => f.write_str("the arena is in Ray's object store, whose pages Ray maps"),
            Self::OneNode => f.write_str("one NUMA node: one copy"),
            Self::NoWorkers => f.write_str("replicas are made when the workers of a wrapper start"),
            Self::InFile => f.write_str("weights are borrowed from a file, which is not copied"),
            Self::UnknownNodes { reason } => write!(f, "the NUMA nodes of this machine are not known: {reason}"),
            Self::NoRoom { node, needed, available } => write!(
                f,
                "NUMA node {node} has {} MiB available, and the copy needs {} MiB",
                mib(*available),
                mib(*needed)
            ),
            Self::NotCopied { node, reason } => write!(f, "the copy for NUMA node {node}: {reason}"),
            Self::OtherNode { node, bytes } => write!(
                f,
                "{} MiB of the copy of NUMA node {node} are on another node: that one had no room, or another process \
                 has mapped them, so that they do not move",
                mib(*bytes)
            ),
            Self::SeveralNodes { nodes } => write!(
                f,
                "the worker's cores belong to NUMA nodes {nodes:?}, so it reads the first copy; choose cores of one node"
            ),
            Self::NotBound { reason } => write!(f, "the worker is not bound to its NUMA node: {reason}"),
        }
    }
}

/// Returns what an error number of a call means, and what to do.
fn hint(call: &str, errno: i32) -> &'static str {
    match (call, errno) {
        ("madvise(MADV_COLLAPSE)", libc::EINVAL) => {
            "; this memory cannot have huge pages: see `deny` in \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled and PR_SET_THP_DISABLE; for a file, the kernel \
             (CONFIG_READ_ONLY_THP_FOR_FS) and the file system have to support them"
        }
        ("madvise(MADV_COLLAPSE)", libc::ENOMEM) => "; there was no free block of 2 MiB: memory is full or fragmented",
        ("madvise(MADV_COLLAPSE)", libc::EBUSY) => "; the memory limit of the cgroup is reached",
        ("madvise(MADV_COLLAPSE)", libc::EAGAIN) => "; pages were in use; try again",
        ("madvise(MADV_POPULATE_READ)", libc::ENOMEM) => "; there was not enough memory",
        ("madvise(MADV_POPULATE_READ)", libc::EFAULT) => "; the file is shorter than it was",
        ("madvise(MADV_COLLAPSE)" | "madvise(MADV_POPULATE_READ)", libc::EPERM) => {
            "; a policy of this machine refuses it: look at the seccomp profile of the container or service"
        }
        ("mbind", libc::EPERM) => {
            "; a policy of this machine refuses it: look at the seccomp profile of the container or service, or run it \
             with CAP_SYS_NICE"
        }
        ("mbind", libc::ENOSYS) => "; the kernel is built without NUMA",
        ("mlock", libc::EPERM) => "; the process may not lock memory; see `ulimit -l`",
        ("mlock", libc::EAGAIN | libc::ENOMEM) => "; there was not enough memory, or too many mappings",
        _ => "",
    }
}
