//! The nodes of this machine, and the mappings of this process, from `/sys` and `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Parses a list such as `0-3,8`.
pub fn numbers(list: &str) -> BTreeSet<u32> {
    let ranges = list.trim().split(',').filter(|part| !part.is_empty()).map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// The cores that a thread may use: `self` for the main one, or `thread-self`.
pub fn cores(thread: &str) -> BTreeSet<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    numbers(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap())
}

/// The nodes of this machine that have cores which this process may use, with these cores.
pub fn nodes() -> BTreeMap<u32, BTreeSet<u32>> {
    let read = |path: &str| fs::read_to_string(format!("/sys/devices/system/node/{path}"));
    let allowed = cores("self");
    let online = read("has_memory").map(|list| numbers(&list)).unwrap_or_default();
    let own = |node: u32| &numbers(&read(&format!("node{node}/cpulist")).unwrap()) & &allowed;
    online.into_iter().map(|node| (node, own(node))).filter(|(_, cores)| !cores.is_empty()).collect()
}

/// Whether this machine has several nodes. The tests then need two.
pub fn has_several() -> bool {
    let several = nodes().len() > 1;
    eprintln!("{}", if several { "several NUMA nodes" } else { "one NUMA node" });
    several
}

/// The mapping of an address: its first address in hexadecimal, and the inode of its file.
pub fn mapping_of(address: usize) -> (String, u64) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let found = maps.lines().find_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let end = rest.split_once(' ')?.0;
        let [first, last] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
        let inode = line.split_whitespace().nth(4)?.parse().unwrap();
        (first..last).contains(&address).then(|| (start.to_owned(), inode))
    });
    found.expect("the address is mapped")
}

/// The bytes by node of the mapping that begins at an address.
pub fn pages(start: &str) -> BTreeMap<u32, u64> {
    // The kernel may be built without it.
    let text = fs::read_to_string("/proc/self/numa_maps").unwrap_or_default();
    let line = text.lines().find(|line| line.split(' ').next() == Some(start)).unwrap_or_default();
    let pages = line.split(' ').filter_map(|word| word.strip_prefix('N')?.split_once('='));
    pages.map(|(node, pages)| (node.parse().unwrap(), pages.parse::<u64>().unwrap() * 4096)).collect()
}

/// The arenas that this process has mapped, by inode.
pub fn mapped_arenas() -> Vec<u64> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let arenas = maps.lines().filter(|line| line.ends_with("/memfd:ray-zerocopy (deleted)"));
    arenas.map(|line| line.split_whitespace().nth(4).unwrap().parse().unwrap()).collect()
}

/// The arenas that this process has mapped or open, by inode.
pub fn held_arenas() -> BTreeSet<u64> {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| {
        let name = fs::read_link(entry.path()).ok()?;
        let is_arena = name.to_string_lossy().contains("/memfd:ray-zerocopy");
        is_arena.then(|| fs::metadata(entry.path()).ok().map(|data| data.ino())).flatten()
    });
    mapped_arenas().into_iter().chain(open).collect()
}
