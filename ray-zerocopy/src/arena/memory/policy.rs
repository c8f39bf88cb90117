//! What may be asked for an arena's memory.

use serde::{Deserialize, Serialize};

/// What to ask of the kernel for the memory of an arena. Nothing by default.
///
/// It is a wish: what the kernel refuses is no error, but is in the [`MemoryStatus`](crate::memory::MemoryStatus) with its
/// reason. No policy changes a byte of what is read.
///
/// | | what it brings | what it costs |
/// | --- | --- | --- |
/// | [`huge_pages`](Self::huge_pages) | fewer misses when weights are read in any order, and fewer faults | processor time, once; 2 MiB blocks of free memory |
/// | [`prefault`](Self::prefault) | the first calls wait for no page | time before the worker takes its first call |
/// | [`lock`](Self::lock) | weights are never swapped out | memory that nobody else can have, and a limit to raise |
///
/// ```
/// use ray_zerocopy::memory::{HugePages, MemoryPolicy};
///
/// let memory = MemoryPolicy::default().huge_pages(HugePages::Background).prefault(true);
/// assert!(!memory.lock);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryPolicy {
    /// Whether and when huge pages are made.
    pub huge_pages: HugePages,
    /// Whether every page is mapped at once.
    pub prefault: bool,
    /// Whether pages are kept in memory.
    pub lock: bool,
}

/// Whether and when the small pages of an arena are replaced by huge ones of 2 MiB.
///
/// It is done once, by the process that shared the pipeline, and every process that maps the arena has them from then
/// on: those that come later, and those that read at that very moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum HugePages {
    /// Not at all. The default.
    #[default]
    Off,
    /// By a thread, while everybody goes on. It ends with the arena.
    Background,
    /// Before anything else.
    Now,
}

impl MemoryPolicy {
    /// Whether and when huge pages are made. Default: [`HugePages::Off`].
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// Maps every page of the arena at once, instead of each when it is first read (`MADV_POPULATE_READ`, Linux 5.14).
    /// Default: no.
    #[must_use]
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Keeps the arena in memory, whatever else wants it (`mlock`). Needs a limit of locked memory (`ulimit -l`) as
    /// large as the arena, in every process. Default: no.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// The sum of two wishes: the later one says when huge pages are made.
    pub(super) fn and(self, later: Self) -> Self {
        let huge_pages = if later.huge_pages == HugePages::Off { self.huge_pages } else { later.huge_pages };
        Self { huge_pages, prefault: self.prefault || later.prefault, lock: self.lock || later.lock }
    }

    /// The part that is done once for all processes.
    pub(crate) fn once(self) -> Self {
        Self { prefault: false, lock: false, ..self }
    }
}
