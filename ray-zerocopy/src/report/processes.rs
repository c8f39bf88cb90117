//! Reads the figures of the processes that map an arena from `/proc`.

use super::replica::ReplicaReport;
use super::table::ProcessReport;
use super::table::Report;
use std::time::Duration;
use std::{fs, io};

use crate::arena::arena::Arena;
use crate::arena::memory::status::MemoryStatus;
use crate::arena::replicas::Replica;
use crate::engine::Engine;
use crate::engine::program::{Attached, Program};
use crate::error::call::Worker;
use crate::error::report::ReportError;
use crate::os::numa_maps::bytes_by_node;
use crate::os::procfs;
use crate::os::procfs::Map;
use crate::os::smaps::{Figures, field, figures};

/// Reports on this process and the workers of a wrapper.
pub(crate) fn report(program: &Program, engine: &dyn Engine) -> Result<Report, ReportError> {
    let arena = &program.arena;
    let files = Files::of(arena)?;
    let mut processes = vec![this_process(arena, &files)?];
    let attached = engine.attached(program.key);
    let mut hidden = 0;
    let own = std::process::id();
    let (threads, workers): (Vec<_>, Vec<_>) = engine.workers().into_iter().partition(|worker| worker.pid == own);
    if !threads.is_empty() {
        add_threads(&mut processes[0], threads.len(), &attached);
    }
    for worker in workers.into_iter().filter(|worker| engine.is_here(*worker)) {
        let Ok(mut row) = process(format!("worker {}", worker.index), worker, &files) else {
            // A worker that dies meanwhile is omitted. A later report contains its successor.
            hidden += usize::from(procfs::is_hidden(worker.pid));
            continue;
        };
        if let Some((_, attached)) = attached.iter().find(|(known, _)| *known == worker) {
            row.copied = attached.copied.iter().map(|copied| copied.bytes).sum();
            row.attach_micros = Some(attached.took.saturating_sub(attached.decoding).as_micros() as u64);
            row.decode_micros = Some(attached.decoding.as_micros() as u64);
            row.memory = attached.memory.clone();
            row.device = attached.device.clone();
            row.instructions = attached.instructions.clone();
        }
        processes.push(row);
    }
    count_device_memory(&mut processes);
    let replicas = replicas(arena, &processes, &attached)?;
    let pool = engine.pool().filter(|pool| pool.min < pool.max);
    let bases = arena.bases().collect();
    Ok(Report {
        arena: arena.size_bytes(),
        bases,
        processes,
        hidden,
        batches: Vec::new(),
        pool,
        generations: Vec::new(),
        replicas,
    })
}

/// Adds the memory of GPUs to the rows, if a process uses a GPU.
fn count_device_memory(processes: &mut [ProcessReport]) {
    if processes.iter().any(|process| process.device.is_some()) {
        let used = super::device_memory::by_process();
        for process in processes {
            process.device_used = used.get(&process.pid).copied();
        }
    }
}

/// Adds workers that are threads of this process to its row: the sum of their copies, and the
/// longest times.
fn add_threads(row: &mut ProcessReport, threads: usize, attached: &[(Worker, Attached)]) {
    row.name = format!("owner, {threads} threads");
    row.device = attached.iter().find_map(|(_, attached)| attached.device.clone());
    row.instructions = attached.iter().find_map(|(_, attached)| attached.instructions.clone());
    row.copied = attached.iter().flat_map(|(_, attached)| &attached.copied).map(|copied| copied.bytes).sum();
    let longest = |time: fn(&Attached) -> Duration| {
        attached.iter().map(|(_, attached)| time(attached)).max().map(|time| time.as_micros() as u64)
    };
    row.attach_micros = longest(|attached| attached.took.saturating_sub(attached.decoding));
    row.decode_micros = longest(|attached| attached.decoding);
}

/// Reports on every process of this user that maps an arena, and counts processes that may not be
/// inspected.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn report_all(arena: &Arena) -> Result<Report, ReportError> {
    let own = std::process::id();
    let files = Files::of(arena)?;
    let mut processes = vec![this_process(arena, &files)?];
    let none = |error: std::io::Error| ReportError::Proc { path: "/proc".to_owned(), reason: error.to_string() };
    let mut hidden = 0;
    for pid in procfs::processes().map_err(none)?.filter(|pid| *pid != own) {
        match fs::read_to_string(format!("/proc/{pid}/maps")) {
            Ok(maps) if maps.lines().filter_map(Map::parse).any(|map| files.have(&map)) => {
                match process("process".to_owned(), Worker { index: 0, pid }, &files) {
                    Ok(row) => processes.push(row),
                    Err(_) => hidden += usize::from(procfs::is_hidden(pid)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden += 1,
            // It does not map the arena, or has ended.
            _ => {}
        }
    }
    processes[1..].sort_by_key(|process| process.pid);
    let replicas = replicas(arena, &processes, &[])?;
    let bases = arena.bases().collect();
    Ok(Report {
        arena: arena.size_bytes(),
        bases,
        processes,
        hidden,
        batches: Vec::new(),
        pool: None,
        generations: Vec::new(),
        replicas,
    })
}

/// The copies of an arena on NUMA nodes, with the workers that have loaded them.
fn replicas(
    arena: &Arena,
    processes: &[ProcessReport],
    attached: &[(Worker, Attached)],
) -> Result<Vec<ReplicaReport>, ReportError> {
    let replicas = arena.replicas();
    if replicas.is_empty() {
        return Ok(Vec::new());
    }
    let maps = read("/proc/self/maps".to_owned())?;
    let report = |replica: Replica| {
        let Replica { node, arena, is_first, pages } = replica;
        let files = Files::at(&maps, &arena.addresses().collect::<Vec<_>>());
        let mapped = |row: &ProcessReport| {
            let maps = fs::read_to_string(format!("/proc/{}/maps", row.pid)).ok()?;
            let ours = maps.lines().filter_map(Map::parse).filter(|map| files.have(map));
            let ranges: Vec<_> = ours.map(|map| map.start..map.end).collect();
            bytes_by_node(&row.pid.to_string(), &ranges).ok()
        };
        let seen = pages.into_iter().chain(processes.iter().filter_map(mapped));
        // Of several that have mapped as much, the last one: the first is older.
        let pages = seen.max_by_key(|pages| pages.values().sum::<u64>()).unwrap_or_default();
        let why = |attached: &Attached| attached.memory.replicas.why().to_vec();
        // Without an obstacle, the pipeline was loaded without the policy.
        let reads = |attached: &Attached| match attached.memory.node {
            Some(own) => own == node,
            None => is_first && why(attached).is_empty(),
        };
        let is_without = |attached: &Attached| is_first && attached.memory.node.is_none() && !why(attached).is_empty();
        let without_own = attached.iter().filter(|(_, attached)| is_without(attached));
        let without_own = without_own.map(|(worker, attached)| (*worker, why(attached))).collect();
        let workers = attached.iter().filter(|(_, attached)| reads(attached)).map(|(worker, _)| *worker).collect();
        let pages = pages.into_iter().collect();
        ReplicaReport { node, is_first, bytes: arena.mapped_bytes(), pages, workers, without_own }
    };
    Ok(replicas.into_iter().map(report).collect())
}

/// The memfds and files of an arena and of its replicas, as device and inode. They are looked up in `/proc/self/maps`
/// by the addresses of their mappings, since `fstat` may return another device than
/// `/proc/<pid>/maps`.
struct Files {
    files: Vec<(String, u64)>,
    /// Whether the file is that of Ray's object store. Only its read-only and its private mappings are the
    /// arena: Ray maps the rest writable and shared.
    store: bool,
}

impl Files {
    fn of(arena: &Arena) -> Result<Self, ReportError> {
        let maps = read("/proc/self/maps".to_owned())?;
        let replicas = arena.replicas();
        let addresses = arena.addresses().chain(replicas.iter().flat_map(|replica| replica.arena.addresses()));
        Ok(Self { store: arena.fd().is_none(), ..Self::at(&maps, &addresses.collect::<Vec<_>>()) })
    }

    fn at(maps: &str, addresses: &[usize]) -> Self {
        let maps = maps.lines().filter_map(Map::parse);
        let ours = maps.filter(|map| addresses.iter().any(|address| (map.start..map.end).contains(address)));
        Self { files: ours.map(|map| (map.device.to_owned(), map.inode)).collect(), store: false }
    }

    /// Returns whether a mapping is one of the arena.
    fn have(&self, map: &Map<'_>) -> bool {
        let ours = || self.files.iter().any(|(device, inode)| (device.as_str(), *inode) == (map.device, map.inode));
        !(self.store && map.permissions.starts_with("rw-s")) && ours()
    }
}

fn this_process(arena: &Arena, files: &Files) -> Result<ProcessReport, ReportError> {
    let worker = Worker { index: 0, pid: std::process::id() };
    let row = process("owner".to_owned(), worker, files)?;
    Ok(ProcessReport { memory: arena.memory_status(), ..row })
}

fn process(name: String, worker: Worker, files: &Files) -> Result<ProcessReport, ReportError> {
    let Usage { arena, private, pss } = Usage::of(worker.pid, |map| files.have(map))?;
    Ok(ProcessReport {
        name,
        pid: worker.pid,
        shared: arena.rss,
        share: arena.pss,
        private,
        pss,
        copied: 0,
        attach_micros: None,
        decode_micros: None,
        device: None,
        device_used: None,
        huge: arena.huge,
        locked: arena.locked,
        memory: MemoryStatus::default(),
        instructions: None,
    })
}

/// Memory of a process in bytes, and the part that is an arena: see [`ProcessReport`].
pub(crate) struct Usage {
    pub(crate) arena: Figures,
    pub(crate) private: u64,
    pub(crate) pss: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32, ours: impl Fn(&Map<'_>) -> bool) -> Result<Self, ReportError> {
        let rollup = read(format!("/proc/{pid}/smaps_rollup"))?;
        let arena =
            figures(&read(format!("/proc/{pid}/smaps"))?, |line| Map::parse(line).is_some_and(|map| ours(&map)));
        Ok(Self { arena, private: field(&rollup, "Anonymous:"), pss: field(&rollup, "Pss:") })
    }
}

fn read(path: String) -> Result<String, ReportError> {
    fs::read_to_string(&path).map_err(|error| ReportError::Proc { path, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::Files;
    use crate::os::procfs::Map;

    const MAPS: &str = "\
7f0000000000-7f0000200000 r--s 00000000 00:01 4711                       /memfd:ray-zerocopy (deleted)
7f0000400000-7f0000600000 r--s 00000000 00:01 4712                       /memfd:ray-zerocopy (deleted)
7f0000800000-7f0000801000 rw-p 00000000 00:00 0
";

    #[test]
    fn only_the_arenas_own_mappings_count() {
        let at = |addresses: &[usize]| {
            let files = Files::at(MAPS, addresses);
            MAPS.lines().filter_map(Map::parse).filter(|map| files.have(map)).map(|map| map.inode).collect::<Vec<_>>()
        };
        assert_eq!(at(&[0x7f00_0000_0000]), [4711]);
        assert_eq!(at(&[0x7f00_0000_0000, 0x7f00_0040_0000]), [4711, 4712]);
        // Free addresses and anonymous memory do not belong to an arena.
        assert!(at(&[0x1000, 0x7f00_0080_0000]).is_empty());
    }
}
