//! Finds all arenas of this machine, and the processes that map them.
//!
//! Arenas are not registered anywhere. They are found in `/proc/<pid>/maps`: memfds with the name
//! that arenas have, and mapped files that are arenas.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use super::processes::Usage;
use crate::arena::file::ArenaFile;
use crate::error::arena::ArenaError;
use crate::error::report::ReportError;
use crate::os::procfs;
use crate::os::procfs::Map;
use crate::os::title::titled;

/// Path in `/proc/<pid>/maps` of a memfd that was created as `ray-zerocopy`. The memfds of messages
/// have another name.
const MEMFD: &str = "/memfd:ray-zerocopy (deleted)";

/// The arenas that processes have mapped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Scan {
    /// Each arena, with the processes that map it. Arenas with the most processes come first.
    pub arenas: Vec<MappedArena>,
    /// The number of processes that could not be inspected: those of other users, and those that
    /// are not dumpable. Processes that `/proc` does not show at all (`hidepid=2`) are not counted.
    pub hidden: usize,
}

impl Scan {
    /// Returns the processes that map an arena, each once, even if it maps several.
    fn processes(&self) -> impl Iterator<Item = &MappingProcess> {
        let mut seen = HashSet::new();
        self.arenas.iter().flat_map(|arena| &arena.processes).filter(move |process| seen.insert(process.pid))
    }

    /// The sum of the private memory of all processes, in bytes.
    pub fn private(&self) -> u64 {
        self.processes().map(|process| process.private).sum()
    }

    /// The sum of the `Pss` of all processes, in bytes: the memory that they take of the machine.
    pub fn pss(&self) -> u64 {
        self.processes().map(|process| process.pss).sum()
    }

    /// The memory that sharing saves, in bytes: how much more the processes would take if each had
    /// its own copy of the pages that it maps, less the shared copy.
    pub fn saved(&self) -> u64 {
        self.arenas.iter().map(MappedArena::saved).sum()
    }
}

/// An arena that processes have mapped.
#[derive(Debug)]
#[non_exhaustive]
pub struct MappedArena {
    /// The device as in `/proc/<pid>/maps`, such as `00:01`.
    pub device: String,
    /// The inode. Together with the device it identifies the arena until the machine is rebooted.
    pub inode: u64,
    /// The file. `None` for an arena in sealed memory.
    pub path: Option<PathBuf>,
    /// The arena's table of contents, or the reason why it could not be read.
    pub contents: Result<ArenaFile, String>,
    /// The processes that map the arena: the owner, its workers by index, then others.
    pub processes: Vec<MappingProcess>,
}

impl MappedArena {
    /// The memory that sharing saves, in bytes: how much more the processes would take if each had
    /// its own copy of the pages that it maps, less the shared copy.
    pub fn saved(&self) -> u64 {
        self.processes.iter().map(MappingProcess::saved).sum()
    }
}

impl MappedArena {
    /// Returns the files that weights are borrowed from, by their names in `/proc/<pid>/maps`.
    fn beside(contents: &Result<ArenaFile, String>) -> Vec<PathBuf> {
        contents.iter().flat_map(ArenaFile::files).filter_map(|path| path.canonicalize().ok()).collect()
    }

    /// Returns whether `other` is a file that this arena borrows from, and that only processes of
    /// this arena map. Then it is already counted here.
    fn borrows(&self, other: &Self) -> bool {
        let Some(path) = &other.path else { return false };
        let known = |process: &MappingProcess| self.processes.iter().any(|own| own.pid == process.pid);
        Self::beside(&self.contents).contains(path) && other.processes.iter().all(known)
    }
}

/// A process that has an arena mapped. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappingProcess {
    /// The process id.
    pub pid: u32,
    /// Its role for the arena.
    pub role: ProcessRole,
    /// The name of its program.
    pub program: String,
    /// The arena's pages that the process has mapped (`Rss` of the arena): the cost of a copy of
    /// its own.
    pub shared: u64,
    /// The process's share of the arena (`Pss` of the arena): each page divided by the number of
    /// processes that map it.
    pub share: u64,
    /// Private memory of the process (`Anonymous`): heap, stacks, and every copy of a weight.
    pub private: u64,
    /// The process's share of everything that it maps (`Pss`).
    pub pss: u64,
    /// The memory of GPUs that the driver counts for the process: its context, and a copy of the
    /// weights if it has uploaded it. `None` without the feature `cuda`, and if the driver does not say.
    pub device_used: Option<u64>,
}

impl MappingProcess {
    /// The memory that sharing saves for this process: `shared - share`.
    pub fn saved(&self) -> u64 {
        self.shared.saturating_sub(self.share)
    }
}

/// Role of a process that maps an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProcessRole {
    /// The process has started workers that map the arena.
    Owner,
    /// The process is the worker of this index.
    Worker(usize),
    /// The process has the arena open without workers that map it: it has shared it, or has loaded
    /// it from a handle or a file.
    Other,
}

impl fmt::Display for ProcessRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner => f.write_str("owner"),
            Self::Worker(index) => write!(f, "worker {index}"),
            Self::Other => f.write_str("other"),
        }
    }
}

/// Finds the processes that map an arena: all of this user, or all processes if this user is root.
///
/// Arenas in files are found while a process maps them in place. A process that ends during the
/// scan is omitted.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, share};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// let arena = share(&Model::new(&Device::flex()))?;
/// let scan = ray_zerocopy::report::scan()?;
/// let ours = scan.arenas.iter().find(|found| found.contents.as_ref().is_ok_and(|file| file.id() == arena.id()));
/// assert!(ours.unwrap().processes.iter().any(|process| process.pid == std::process::id()));
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
///
/// # Errors
/// If `/proc` cannot be read.
pub fn scan() -> Result<Scan, ReportError> {
    let none = |error: std::io::Error| ReportError::Proc { path: "/proc".to_owned(), reason: error.to_string() };
    let mut hidden = 0;
    let mut mapped: BTreeMap<Key, Found> = BTreeMap::new();
    for pid in procfs::processes().map_err(none)? {
        match fs::read_to_string(format!("/proc/{pid}/maps")) {
            Ok(maps) => maps.lines().filter_map(Map::parse).for_each(|map| note(&mut mapped, pid, &map)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => hidden += 1,
            // It has ended.
            Err(_) => {}
        }
    }
    let found = mapped.into_iter().filter_map(|(key, found)| Some((key, found.name, found.contents?, found.pids)));
    let mut arenas: Vec<_> = found.map(|(key, name, contents, pids)| arena(key, name, contents, pids)).collect();
    arenas.retain(|arena| !arena.processes.is_empty());
    let parts: Vec<bool> = arenas.iter().map(|arena| arenas.iter().any(|whole| whole.borrows(arena))).collect();
    let mut parts = parts.into_iter();
    arenas.retain(|_| parts.next() == Some(false));
    arenas.sort_by_key(|arena| std::cmp::Reverse(arena.processes.len()));
    let used = super::device_memory::by_process();
    for process in arenas.iter_mut().flat_map(|arena| &mut arena.processes) {
        process.device_used = used.get(&process.pid).copied();
    }
    Ok(Scan { arenas, hidden })
}

/// Device and inode of a mapped file.
type Key = (String, u64);

/// A mapped file or memfd that may be an arena.
struct Found {
    name: String,
    /// `None` for a file that is not an arena.
    contents: Option<Result<ArenaFile, String>>,
    pids: BTreeSet<u32>,
}

/// Adds a mapping of a process to `mapped`, if it may be one of an arena.
fn note(mapped: &mut BTreeMap<Key, Found>, pid: u32, map: &Map<'_>) {
    let memfd = map.name == MEMFD;
    // Arenas are mapped read-only and shared.
    let file = map.permissions == "r--s" && map.name.starts_with('/') && !map.name.starts_with("/memfd:");
    if !memfd && !file {
        return;
    }
    let found = mapped.entry((map.device.to_owned(), map.inode)).or_insert_with(|| Found {
        name: map.name.to_owned(),
        contents: memfd.then(|| Err("no process that has it open may be inspected by this user".to_owned())),
        pids: BTreeSet::new(),
    });
    let new = found.pids.insert(pid);
    if !new || matches!(found.contents, Some(Ok(_))) {
        return;
    }
    // If it cannot be opened through one process, another one may allow it.
    for path in places(pid, map) {
        match ArenaFile::open(&path) {
            Ok(file) => found.contents = Some(Ok(file)),
            Err(ArenaError::File { .. }) => continue,
            Err(error) if memfd => found.contents = Some(Err(error.to_string())),
            Err(_) => {}
        }
        break;
    }
}

/// Returns the paths through which the file of a mapping may be opened: a descriptor of the
/// process, the mapping itself (`map_files`, which needs privileges), and its name.
fn places(pid: u32, map: &Map<'_>) -> impl Iterator<Item = PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = Path::new(map.name).to_owned();
    let descriptor = descriptors.filter(move |path| fs::read_link(path).is_ok_and(|name| name == wanted));
    let mapping = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end));
    // Deleted names and devices are not opened. The inode is only compared for deleted files: in
    // some stacked file systems it differs from that in `maps`.
    let (inode, gone) = (map.inode, map.name.ends_with(" (deleted)"));
    let named = (!gone).then(|| PathBuf::from(map.name));
    let places = descriptor.chain([mapping]).chain(named);
    places.filter(move |path| fs::metadata(path).is_ok_and(|data| data.is_file() && (!gone || data.ino() == inode)))
}

fn arena((device, inode): Key, name: String, contents: Result<ArenaFile, String>, pids: BTreeSet<u32>) -> MappedArena {
    // Files that weights are borrowed from are part of the arena.
    let beside = MappedArena::beside(&contents);
    let ours = |map: &Map<'_>| {
        (map.device == device && map.inode == inode) || beside.iter().any(|path| path.as_os_str() == map.name)
    };
    let mut processes: Vec<MappingProcess> = pids.iter().filter_map(|&pid| process(pid, ours)).collect();
    let workers = processes.iter().filter(|process| matches!(process.role, ProcessRole::Worker(_)));
    let owners: HashSet<u32> = workers.filter_map(|process| procfs::parent(process.pid)).collect();
    for process in processes.iter_mut().filter(|process| process.role == ProcessRole::Other) {
        if owners.contains(&process.pid) {
            process.role = ProcessRole::Owner;
        }
    }
    processes.sort_by_key(|process| (process.role, process.pid));
    let path = (name != MEMFD).then(|| PathBuf::from(name));
    MappedArena { device, inode, path, contents, processes }
}

/// Returns the memory figures of a process. Returns `None` if it has ended.
fn process(pid: u32, ours: impl Fn(&Map<'_>) -> bool) -> Option<MappingProcess> {
    let Usage { arena, private, pss } = Usage::of(pid, ours).ok()?;
    let title = procfs::argv0(pid)?;
    let (role, program) = match titled(&title) {
        Some((index, program)) => (ProcessRole::Worker(index), program.to_owned()),
        None => (ProcessRole::Other, Path::new(&title).file_name().unwrap_or_default().to_string_lossy().into_owned()),
    };
    Some(MappingProcess { pid, role, program, shared: arena.rss, share: arena.pss, private, pss, device_used: None })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Map;
    use super::note;
    use super::scan;
    use crate::os::sys::mapping::Mapping;
    use crate::os::sys::memfd::{create, seal};

    #[test]
    fn messages_and_private_maps_are_not_arenas() {
        let own = std::process::id();
        let mut mapped = BTreeMap::new();
        for line in [
            "7f0000000000-7f0000200000 r--s 00000000 00:01 1    /memfd:ray-zerocopy-message (deleted)",
            "7f0000000000-7f0000200000 r--p 00000000 00:01 2    /models/model.bpk",
            "7f0000000000-7f0000200000 rw-s 00000000 00:01 3    /models/model.bpk",
            "7f0000000000-7f0000200000 rw-p 00000000 00:00 0    [heap]",
        ] {
            Map::parse(line).iter().for_each(|map| note(&mut mapped, own, map));
        }
        assert!(mapped.is_empty());
        // A memfd counts even if it cannot be opened, and also if its mapping is private, which is
        // the fallback if the kernel refuses a shared one.
        for line in [
            "7f00-7f10 r--s 00000000 00:01 4  /memfd:ray-zerocopy (deleted)",
            "7f00-7f10 r--p 00000000 00:01 5  /memfd:ray-zerocopy (deleted)",
        ] {
            note(&mut mapped, u32::MAX, &Map::parse(line).unwrap());
        }
        assert!(mapped.values().all(|found| matches!(&found.contents, Some(Err(why)) if why.contains("no process"))));
        assert_eq!(mapped.len(), 2);
    }

    #[test]
    fn invalid_memfd_is_listed_with_a_reason() {
        let fd = seal(create("ray-zerocopy", 4096).unwrap()).unwrap();
        let map = Mapping::open(&fd, 4096).unwrap();
        let own = std::process::id();
        let scan = scan().unwrap();
        let reasons: Vec<_> = scan
            .arenas
            .iter()
            .filter(|arena| arena.processes.iter().any(|process| process.pid == own))
            .filter_map(|arena| arena.contents.as_ref().err())
            .collect();
        assert!(reasons.iter().any(|why| why.starts_with("not an arena")), "{reasons:?}");
        drop(map);
    }
}
