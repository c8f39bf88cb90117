//! The kernel's figures of mappings, from `/proc/<pid>/smaps`, in bytes.

use std::fs;
use std::ops::Range;

/// What the kernel says of some mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Figures {
    /// `Rss`: what the process has in its map.
    pub rss: u64,
    /// `Pss`: the same, divided by who maps it.
    pub pss: u64,
    /// `ShmemPmdMapped` and `FilePmdMapped`: what is mapped as huge pages.
    pub huge: u64,
    /// `Rss` of the mappings that are locked. The kernel's own `Locked` is a part of `Pss`.
    pub locked: u64,
}

/// The sum over the mappings whose headline is `ours`.
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

/// The addresses of a mapping, if the line is its headline.
pub(crate) fn mapping_of(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

/// How much this process may lock, if there is a limit, and how much it has locked.
pub(crate) fn limit_of_locked() -> Option<(u64, u64)> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((limit, field(&status, "VmLck:")))
}

/// The size of the kernel's huge pages, if it has any.
pub(crate) fn huge_page() -> Option<u64> {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?.trim().parse().ok()
}

/// A field of a file of `/proc` whose lines are a name and KiB.
pub(crate) fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |rest| kib(rest.split_whitespace().next()))
}

fn kib(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
