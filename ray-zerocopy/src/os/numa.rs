//! The NUMA nodes of this machine: their cores, and how much memory each of them has available.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The folder with the kernel's description of the nodes.
const FOLDER: &str = "/sys/devices/system/node";
/// More nodes or cores than any kernel supports.
const MOST: u32 = 1 << 16;

/// A node with memory that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumaNode {
    pub(crate) id: u32,
    /// Its cores, and those of nodes without usable memory that are nearest to it. In ascending order.
    pub(crate) cores: Vec<usize>,
}

impl NumaNode {
    /// The memory of the node that is free, or that holds only cached files. `None` if the kernel does not
    /// say.
    pub(crate) fn available(&self) -> Option<u64> {
        available_in(&fs::read_to_string(node_file(Path::new(FOLDER), self.id, "meminfo")).ok()?)
    }
}

/// Returns the nodes with memory that this process may use. Returns none if the kernel does not support
/// NUMA. The error is the reason why they cannot be read.
pub(crate) fn nodes() -> Result<Vec<NumaNode>, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    nodes_in(Path::new(FOLDER), usable_of(&status).as_deref())
}

/// The nodes that the cpuset of a process allows, from `/proc/<pid>/status`. `None` if the kernel does not
/// say, or says something else.
fn usable_of(status: &str) -> Option<Vec<u32>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"))?;
    numbers(list).ok()
}

/// As [`nodes`], with the folder, and the nodes whose memory may be used if they are limited.
fn nodes_in(folder: &Path, usable: Option<&[u32]>) -> Result<Vec<NumaNode>, String> {
    let Some(online) = list(&folder.join("online"))? else { return Ok(Vec::new()) };
    let with_memory = list(&folder.join("has_memory"))?.unwrap_or_else(|| online.clone());
    let is_usable = |id: &u32| with_memory.contains(id) && usable.is_none_or(|usable| usable.contains(id));
    let mut nodes: Vec<_> =
        online.iter().copied().filter(is_usable).map(|id| NumaNode { id, cores: Vec::new() }).collect();
    if nodes.is_empty() {
        return Err(format!("no node in {} has memory that this process may use", folder.display()));
    }
    for &id in &online {
        let path = node_file(folder, id, "cpulist");
        let cores = list(&path)?.ok_or_else(|| format!("{} does not exist", path.display()))?;
        let home = if cores.is_empty() || nodes.iter().any(|node| node.id == id) {
            id
        } else {
            nearest(folder, id, &online, &nodes)?
        };
        if let Some(node) = nodes.iter_mut().find(|node| node.id == home) {
            node.cores.extend(cores.into_iter().map(|core| core as usize));
        }
    }
    nodes.iter_mut().for_each(|node| node.cores.sort_unstable());
    Ok(nodes)
}

/// Returns the node of `nodes` with the least distance from another one.
fn nearest(folder: &Path, from: u32, online: &[u32], nodes: &[NumaNode]) -> Result<u32, String> {
    let path = node_file(folder, from, "distance");
    let text = fs::read_to_string(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let distances: Option<Vec<u32>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
    // One for each node that is online, in their order.
    let distances = distances.filter(|found| found.len() == online.len()).ok_or_else(|| {
        format!("{} has `{}`, and not the distances of {} nodes", path.display(), text.trim(), online.len())
    })?;
    let found = online.iter().zip(distances).filter(|(id, _)| nodes.iter().any(|node| node.id == **id));
    let nearest = found.min_by_key(|(_, distance)| *distance).map(|(id, _)| *id);
    nearest.ok_or_else(|| format!("node {from} has no memory, and no other node has any"))
}

fn node_file(folder: &Path, id: u32, name: &str) -> PathBuf {
    folder.join(format!("node{id}")).join(name)
}

/// Reads a file with a list of numbers. Returns `None` if it does not exist.
fn list(path: &Path) -> Result<Option<Vec<u32>>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    numbers(&text).map(Some).map_err(|reason| format!("{} is not a list of numbers: {reason}", path.display()))
}

/// Parses a list of the kernel's, such as `0-3,8`. In ascending order, each number once.
fn numbers(text: &str) -> Result<Vec<u32>, String> {
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    let ranges: Result<Vec<_>, _> = parts.map(range).collect();
    let mut numbers: Vec<u32> = ranges?.into_iter().flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn range(part: &str) -> Result<RangeInclusive<u32>, String> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < MOST);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("`{part}`")),
    }
}

/// Parses the `meminfo` of a node, whose lines are `Node 0 MemFree: 1024 kB`.
fn available_in(meminfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let rest = meminfo.lines().find_map(|line| line.split_once(name).map(|(_, rest)| rest))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let cached = ["Active(file):", "Inactive(file):"].map(|name| field(&format!(" {name}")).unwrap_or_default());
    Some((field(" MemFree:")? + cached.iter().sum::<u64>()) * 1024)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{NumaNode, available_in, nodes, nodes_in, numbers, usable_of};

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn node(id: u32, cores: &[usize]) -> NumaNode {
        NumaNode { id, cores: cores.to_vec() }
    }

    const TWO: [(&str, &str); 4] =
        [("online", "0-1\n"), ("has_memory", "0-1\n"), ("node0/cpulist", "0-1,4\n"), ("node1/cpulist", "2-3\n")];

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn nodes_have_their_cores() {
        let folder = tree(&TWO);
        assert_eq!(nodes_in(folder.path(), None).unwrap(), [node(0, &[0, 1, 4]), node(1, &[2, 3])]);
        // Older kernels do not have this file.
        fs::remove_file(folder.path().join("has_memory")).unwrap();
        assert_eq!(nodes_in(folder.path(), None).unwrap().len(), 2);
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn cores_of_a_node_without_memory_belong_to_the_nearest_one() {
        let files = [
            ("online", "0,2-3"),
            ("has_memory", "0,3"),
            ("node0/cpulist", "0"),
            ("node2/cpulist", "1,5"),
            ("node2/distance", "40 10 21\n"),
            ("node3/cpulist", "2"),
        ];
        let folder = tree(&files);
        assert_eq!(nodes_in(folder.path(), None).unwrap(), [node(0, &[0]), node(3, &[1, 2, 5])]);
        // The cpuset leaves one node.
        fs::write(folder.path().join("node3/distance"), "21 12 10").unwrap();
        assert_eq!(nodes_in(folder.path(), Some(&[0])).unwrap(), [node(0, &[0, 1, 2, 5])]);
        // Memory without cores, such as that of an accelerator.
        fs::write(folder.path().join("node3/cpulist"), "\n").unwrap();
        assert_eq!(nodes_in(folder.path(), None).unwrap(), [node(0, &[0]), node(3, &[1, 5])]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn kernel_without_numa_has_no_nodes() {
        assert_eq!(nodes_in(Path::new("/nonexistent"), None), Ok(Vec::new()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn broken_trees_are_errors_that_name_the_file() {
        let broken = |name: &str, text: &str, reason: &str| {
            let folder = tree(&TWO);
            fs::write(folder.path().join(name), text).unwrap();
            let error = nodes_in(folder.path(), None).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        broken("online", "0-x", "online is not a list of numbers: `0-x`");
        broken("node1/cpulist", "3-2", "node1/cpulist is not a list of numbers: `3-2`");
        broken("node0/cpulist", "0-4294967295", "`0-4294967295`");
        broken("online", "0-2", "node2/cpulist does not exist");
        broken("has_memory", "", "no node in");
        broken("has_memory", "0", "node1/distance cannot be read");
        let folder = tree(&TWO);
        for (name, text) in [("has_memory", "0"), ("node1/distance", "20 10 30")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let error = nodes_in(folder.path(), None).unwrap_err();
        assert!(error.contains("node1/distance has `20 10 30`, and not the distances of 2 nodes"), "{error}");
        assert!(nodes_in(tree(&TWO).path(), Some(&[7])).is_err());
    }

    #[test]
    fn lists_are_parsed() {
        assert_eq!(numbers("\n"), Ok(Vec::new()));
        assert_eq!(numbers("8,0-2,1\n"), Ok(vec![0, 1, 2, 8]));
        for text in ["-1", "1-", "a", "1;2", "0-70000"] {
            assert!(numbers(text).is_err(), "{text}");
        }
        assert_eq!(usable_of("Name:\tx\nMems_allowed_list:\t0-1\n"), Some(vec![0, 1]));
        assert_eq!(usable_of("Name:\tx\n"), None);
    }

    #[test]
    fn available_memory_is_free_or_cached() {
        let text = "Node 0 MemTotal:  99 kB\nNode 0 MemFree:  10 kB\nNode 0 Active(file): 2 kB\n\
                    Node 0 Inactive(file): 3 kB\nNode 0 Active: 50 kB\n";
        assert_eq!(available_in(text), Some(15 * 1024));
        assert_eq!(available_in("Node 0 MemTotal: 99 kB\n"), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn cores_of_this_machine_are_on_its_nodes() {
        let nodes = nodes().unwrap();
        let allowed = crate::os::cpu_placement::allowed_cores();
        for core in allowed {
            assert!(nodes.is_empty() || nodes.iter().any(|node| node.cores.contains(&core)), "{core}: {nodes:?}");
        }
        assert!(nodes.iter().all(|node| node.available().is_some_and(|bytes| bytes > 0)), "{nodes:?}");
    }
}
