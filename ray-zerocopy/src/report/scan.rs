//! The arenas of this machine: which processes have one mapped, whoever started them.
//!
//! An arena has no name and is on no list. What there is to see is in `/proc`: memfds that are called as ours are, and
//! files that are arenas, among what processes have mapped.

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

/// How the kernel names a memfd that was created as `ray-zerocopy`. Messages have another name.
const MEMFD: &str = "/memfd:ray-zerocopy (deleted)";

/// The arenas that processes have mapped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Scan {
    /// Each arena, with the processes that map it. Those of most processes first.
    pub arenas: Vec<MappedArena>,
    /// How many processes could not be looked into: those of other users, and those that have protected themselves. Of processes
    /// that `/proc` does not show at all (`hidepid=2`) nothing is known.
    pub hidden: usize,
}

impl Scan {
    /// The processes that map an arena, each once, even if it maps several.
    fn processes(&self) -> impl Iterator<Item = &MappingProcess> {
        let mut seen = HashSet::new();
        self.arenas.iter().flat_map(|arena| &arena.processes).filter(move |process| seen.insert(process.pid))
    }

    /// The sum of what each process alone has.
    pub fn private(&self) -> u64 {
        self.processes().map(|process| process.private).sum()
    }

    /// The sum over all processes of their part of all that they map: what the machine has to have.
    pub fn pss(&self) -> u64 {
        self.processes().map(|process| process.pss).sum()
    }

    /// What it would cost more if every process had the part of each arena that it uses to itself.
    pub fn saved(&self) -> u64 {
        self.arenas.iter().map(MappedArena::saved).sum()
    }
}

/// An arena that processes have mapped.
#[derive(Debug)]
#[non_exhaustive]
pub struct MappedArena {
    /// The device as `/proc/<pid>/maps` has it, `00:01`.
    pub device: String,
    /// The inode: with the device, what tells this arena from others as long as the machine runs.
    pub inode: u64,
    /// The file, if it is not in sealed memory.
    pub path: Option<PathBuf>,
    /// What the arena says of itself, or why it could not be opened.
    pub contents: Result<ArenaFile, String>,
    /// The processes that map it: the owner, its workers by their numbers, others.
    pub processes: Vec<MappingProcess>,
}

impl MappedArena {
    /// What it would cost more if every process had the part of the arena that it uses to itself, less that one copy
    /// which has to be somewhere.
    pub fn saved(&self) -> u64 {
        self.processes.iter().map(MappingProcess::saved).sum()
    }
}

impl MappedArena {
    /// The files that its weights lie in beside its own memory, as `/proc/<pid>/maps` names them.
    fn beside(contents: &Result<ArenaFile, String>) -> Vec<PathBuf> {
        contents.iter().flat_map(ArenaFile::files).filter_map(|path| path.canonicalize().ok()).collect()
    }

    /// Whether another arena is a file that this one's weights lie in, and that nobody maps for anything else: it is counted
    /// here already.
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
    /// What it has to do with the arena.
    pub role: ProcessRole,
    /// The name of its program.
    pub program: String,
    /// The arena's pages that the process has in its map (`Rss` of the arena): what a copy of its own would cost it.
    pub shared: u64,
    /// The process's part of the arena's cost (`Pss` of the arena): its pages divided by who maps them.
    pub share: u64,
    /// Memory that the process alone has (`Anonymous`): heap, stacks, and every copy of a weight.
    pub private: u64,
    /// The process's part of all it maps (`Pss`).
    pub pss: u64,
}

impl MappingProcess {
    /// What the process would cost more if it had the arena to itself: `shared - share`.
    pub fn saved(&self) -> u64 {
        self.shared.saturating_sub(self.share)
    }
}

/// What a process has to do with an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ProcessRole {
    /// It has started workers that map the arena.
    Owner,
    /// It is the worker of this number.
    Worker(usize),
    /// It has the arena open: it has shared it and has no workers now, or has loaded it from a handle or a file.
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

/// Asks the kernel which processes map an arena: all of this user, or of everybody for root.
///
/// Arenas in files are found while a process maps them in place. A process that ends while this looks is left out.
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
/// If there is no `/proc`.
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
    Ok(Scan { arenas, hidden })
}

/// Device and inode.
type Key = (String, u64);

/// A file or memfd that may be an arena.
struct Found {
    name: String,
    /// None if it is a file, and none of ours.
    contents: Option<Result<ArenaFile, String>>,
    pids: BTreeSet<u32>,
}

/// Notes a mapping of a process, if it may be one of an arena.
fn note(mapped: &mut BTreeMap<Key, Found>, pid: u32, map: &Map<'_>) {
    let memfd = map.name == MEMFD;
    // Arenas are mapped read-only and shared.
    let file = map.permissions == "r--s" && map.name.starts_with('/') && !map.name.starts_with("/memfd:");
    if !memfd && !file {
        return;
    }
    let found = mapped.entry((map.device.to_owned(), map.inode)).or_insert_with(|| Found {
        name: map.name.to_owned(),
        contents: memfd.then(|| Err("no process that has it open may be looked into".to_owned())),
        pids: BTreeSet::new(),
    });
    let new = found.pids.insert(pid);
    if !new || matches!(found.contents, Some(Ok(_))) {
        return;
    }
    // What one process does not let us see another may.
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

/// Where the file of a mapping can be opened: through a descriptor of the process, through the mapping itself, which needs
/// privileges, or by its name.
fn places(pid: u32, map: &Map<'_>) -> impl Iterator<Item = PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = Path::new(map.name).to_owned();
    let descriptor = descriptors.filter(move |path| fs::read_link(path).is_ok_and(|name| name == wanted));
    let mapping = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", map.start, map.end));
    // A name that is gone, or a device, is nothing to open. Where inodes differ from those of `maps`, as in some file systems
    // that lie over others, the name alone has to do.
    let (inode, gone) = (map.inode, map.name.ends_with(" (deleted)"));
    let named = (!gone).then(|| PathBuf::from(map.name));
    let places = descriptor.chain([mapping]).chain(named);
    places.filter(move |path| fs::metadata(path).is_ok_and(|data| data.is_file() && (!gone || data.ino() == inode)))
}

fn arena((device, inode): Key, name: String, contents: Result<ArenaFile, String>, pids: BTreeSet<u32>) -> MappedArena {
    // Weights may lie in files beside the arena's memory: they are part of it.
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

/// What a process costs, if it is still there.
fn process(pid: u32, ours: impl Fn(&Map<'_>) -> bool) -> Option<MappingProcess> {
    let Usage { arena, private, pss } = Usage::of(pid, ours).ok()?;
    let title = procfs::argv0(pid)?;
    let (role, program) = match titled(&title) {
        Some((index, program)) => (ProcessRole::Worker(index), program.to_owned()),
        None => (ProcessRole::Other, Path::new(&title).file_name().unwrap_or_default().to_string_lossy().into_owned()),
    };
    Some(MappingProcess { pid, role, program, shared: arena.rss, share: arena.pss, private, pss })
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
    fn messages_and_what_is_mapped_privately_are_no_arenas() {
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
        // A memfd counts even if it cannot be opened, and if its map is private, where the kernel refused a shared one.
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
    fn what_only_has_the_name_of_an_arena_is_listed_with_the_reason() {
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
