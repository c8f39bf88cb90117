//! Memory figures of processes from `/proc`, in bytes.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::ops::Range;

/// A field of `/proc/<pid>/smaps_rollup`, such as `Pss` or `Anonymous`.
pub fn rollup(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process exists");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {field} in smaps_rollup of {pid}")) * 1024
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The main thread is a zombie as soon as it has ended, while other threads may still be ending.
    // They keep the sockets and the memory of the process until then.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let corpse = matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X') | None);
    !corpse || threads > 1
}

/// Polls until `done` returns true, and panics with `what` after a minute. Tests use it in place of
/// a fixed delay.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it did not happen within a minute: {what}");
}

/// Whether the kernel is older than the version.
pub fn kernel_is_before(version: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("there is a /proc");
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) < version
}

/// The inodes of the arenas in sealed memory that a process maps.
pub fn arenas(pid: u32) -> BTreeSet<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process exists");
    let ours = text.lines().filter(|line| line.contains("/memfd:ray-zerocopy (deleted)"));
    ours.map(|line| line.split_whitespace().nth(4).and_then(|inode| inode.parse().ok()).expect("an inode")).collect()
}

/// A mapping of a process.
#[derive(Debug)]
pub struct Mapped {
    /// Its address range.
    pub addresses: Range<u64>,
    /// Its fields in `/proc/<pid>/smaps`, in bytes.
    pub figures: HashMap<String, u64>,
    /// Its `VmFlags`.
    pub flags: Vec<String>,
}

impl Mapped {
    /// A field of `/proc/<pid>/smaps`.
    pub fn figure(&self, field: &str) -> u64 {
        *self.figures.get(field).unwrap_or_else(|| panic!("no {field} in {self:?}"))
    }
}

/// The mappings that a process has of the file with this inode.
pub fn mapped(pid: u32, inode: u64) -> Vec<Mapped> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("the process exists");
    let mut found: Vec<(bool, Mapped)> = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (first, rest) = words.split_first().expect("no line is empty");
        if let (Some((start, end)), Some(node)) = (first.split_once('-'), words.get(4)) {
            let number = |text| u64::from_str_radix(text, 16).expect("an address");
            let addresses = number(start)..number(end);
            let mapped = Mapped { addresses, figures: HashMap::new(), flags: Vec::new() };
            found.push((node.parse() == Ok(inode), mapped));
        } else if let Some((_, last)) = found.last_mut() {
            match (first.trim_end_matches(':'), rest) {
                ("VmFlags", flags) => last.flags = flags.iter().map(ToString::to_string).collect(),
                (field, [kib, "kB"]) => {
                    last.figures.insert(field.to_owned(), kib.parse::<u64>().expect("a number") * 1024);
                }
                _ => {}
            }
        }
    }
    found.into_iter().filter_map(|(ours, mapped)| ours.then_some(mapped)).collect()
}
