//! Memory usage of mappings from `/proc/<pid>/smaps`, in bytes.

use std::fs;
use std::ops::Range;

/// Memory usage of a set of mappings, as reported by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Figures {
    /// `Rss`: resident memory.
    pub rss: u64,
    /// `Pss`: resident memory, with each page divided by the number of processes that map it.
    pub pss: u64,
    /// `ShmemPmdMapped` and `FilePmdMapped`: memory mapped with huge pages.
    pub huge: u64,
    /// `Rss` of the locked mappings. The kernel's own `Locked` is a part of `Pss`.
    pub locked: u64,
}

/// Sums the figures of the mappings whose header line satisfies `ours`.
pub(crate) fn figures(smaps: &str, ours: impl Fn(&str) -> bool) -> Figures {
    let mut sum = Figures::default();
    let (mut rss, mut is_ours) = (0, false);
    for line in smaps.lines() {
        if mapping_of(line).is_some() {
            is_ours = ours(line);
            continue;
        }
        if !is_ours {
            continue;
        }
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            "Rss:" => {
                rss = kib(words.next());
                sum.rss += rss;
            }
            "Pss:" => sum.pss += kib(words.next()),
            "ShmemPmdMapped:" | "FilePmdMapped:" => sum.huge += kib(words.next()),
            // The last line of a mapping.
            "VmFlags:" if words.any(|flag| flag == "lo") => sum.locked += rss,
            _ => {}
        }
    }
    sum
}

/// Parses the address range of a mapping. Returns `None` if the line is not a mapping's header.
pub(crate) fn mapping_of(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// Returns the `RLIMIT_MEMLOCK` of this process and the bytes it has locked, or `None` if there is
/// no limit.
pub(crate) fn limit_of_locked() -> Option<(u64, u64)> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((limit, field(&status, "VmLck:")))
}

/// Returns the kernel's transparent huge page size, or `None` if it has none.
pub(crate) fn huge_page() -> Option<u64> {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?.trim().parse().ok()
}

/// Reads a field of a `/proc` file whose lines hold a name and a size in KiB. Returns 0 if it is
/// missing.
pub(crate) fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |rest| kib(rest.split_whitespace().next()))
}

fn kib(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
