//! Who maps what, what it costs, and what it saves: from the kernel's own figures.

mod proc;
mod scan;

use std::fmt;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::arena::memory::{Figures, MemoryOutcome, field, figures};
use crate::engine::Worker;
use crate::wrapper::Caller;
use proc::Map;

pub use scan::{MappedArena, MappingProcess, ProcessRole, Scan, scan};

/// Why a report could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReportError {
    /// A file of `/proc` cannot be read.
    #[error("{path} cannot be read: {reason}; reports need Linux's /proc, and processes of the same user")]
    Proc {
        /// The file.
        path: String,
        /// What the kernel said.
        reason: String,
    },
}

/// What one process maps and costs, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// `owner`, or the worker's number.
    pub name: String,
    /// The process id.
    pub pid: u32,
    /// The arena's pages that the process has in its map (`Rss` of the arena): what a copy of its own would cost it.
    pub shared: u64,
    /// The process's part of the arena's cost (`Pss` of the arena): its pages divided by who maps them.
    pub share: u64,
    /// Memory that the process alone has (`Anonymous`): heap, stacks, and every copy of a weight.
    pub private: u64,
    /// The process's part of all it maps (`Pss`).
    pub pss: u64,
    /// What the worker copied when it loaded, because device or dtype cannot borrow.
    pub copied: u64,
    /// How long the worker took to rebuild the pipeline and to borrow its weights; none for the owner.
    pub attach_micros: Option<u64>,
    /// How long it took to make its own copies of the copied fields; none for the owner.
    pub decode_micros: Option<u64>,
    /// How much of `shared` is mapped as huge pages (`ShmemPmdMapped` and `FilePmdMapped` of the arena).
    pub huge: u64,
    /// How much of `shared` is locked, and stays in memory (`Rss` of the arena where its `VmFlags` have `lo`).
    pub locked: u64,
    /// What came of the memory policy: for the owner as of now, for a worker when it had loaded the pipeline. Processes
    /// that were not started by the one that asks have told nobody.
    pub memory: MemoryOutcome,
}

impl ProcessReport {
    /// What the process would cost more if it had the arena to itself: `shared - share`.
    pub fn saved(&self) -> u64 {
        self.shared.saturating_sub(self.share)
    }
}

/// What the processes of a wrapper map, cost and save. Prints as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The size of the arena.
    pub arena: u64,
    /// The owner first, then the workers that are up.
    pub processes: Vec<ProcessReport>,
    /// How many processes may map the arena, and could not be looked into: those of other users, and those that have protected
    /// themselves. Of processes that `/proc` does not show at all (`hidepid=2`) nothing is known.
    #[serde(default)]
    pub hidden: usize,
}

impl Report {
    /// The sum over all processes of their part of all that they map: what the machine has to have.
    pub fn pss(&self) -> u64 {
        self.processes.iter().map(|process| process.pss).sum()
    }

    /// The sum of what each process alone has.
    pub fn private(&self) -> u64 {
        self.processes.iter().map(|process| process.private).sum()
    }

    /// What it would cost more if every process had the part of the arena that it uses to itself, less that one copy
    /// which has to be somewhere.
    pub fn saved(&self) -> u64 {
        self.processes.iter().map(ProcessReport::saved).sum()
    }

    /// What came of the memory policy, and in which processes.
    fn outcomes(&self) -> Vec<(String, Vec<&str>)> {
        let mut outcomes: Vec<(String, Vec<&str>)> = Vec::new();
        for process in self.processes.iter().filter(|process| process.memory.is_asked()) {
            let text = process.memory.to_string();
            match outcomes.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) => names.push(&process.name),
                None => outcomes.push((text, vec![&process.name])),
            }
        }
        outcomes
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "one copy of the weights: {} MiB, mapped by {} processes", mib(self.arena), self.processes.len())?;
        // Two columns more if somebody has asked for what they show.
        let asked = self.processes.iter().any(|process| process.memory.is_asked());
        let columns = if asked { 9 } else { 7 };
        let header = ["process", "pid", "shared", "private", "PSS", "saved", "copied", "huge", "locked"];
        let header: Vec<_> = header.map(str::to_owned).into_iter().take(columns).collect();
        let row = |p: &ProcessReport| {
            let sizes = [p.shared, p.private, p.pss, p.saved(), p.copied, p.huge, p.locked].map(mib);
            [p.name.clone(), p.pid.to_string()].into_iter().chain(sizes).take(columns).collect::<Vec<_>>()
        };
        let rows: Vec<_> = self.processes.iter().map(row).collect();
        let copied = self.processes.iter().map(|process| process.copied).sum();
        let total = ["sum", "", "", &mib(self.private()), &mib(self.pss()), &mib(self.saved()), &mib(copied), "", ""];
        let total: Vec<_> = total.map(str::to_owned).into_iter().take(columns).collect();
        let mut widths: Vec<_> = header.iter().map(String::len).collect();
        for row in rows.iter().chain([&total]) {
            widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.len()));
        }
        line(f, &header, &widths)?;
        let rule: Vec<_> = widths.iter().map(|&width| "-".repeat(width)).collect();
        line(f, &rule, &widths)?;
        rows.iter().try_for_each(|row| line(f, row, &widths))?;
        line(f, &rule, &widths)?;
        line(f, &total, &widths)?;
        write!(
            f,
            "MiB, from /proc/<pid>/smaps: shared = the arena's Rss, private = Anonymous, saved = the arena's Rss - Pss"
        )?;
        if asked {
            write!(f, "\nhuge = the arena's ShmemPmdMapped + FilePmdMapped, locked = its Rss where VmFlags have `lo`")?;
        }
        for (text, names) in self.outcomes() {
            write!(f, "\n{}: {text}", names.join(", "))?;
        }
        if self.hidden > 0 {
            write!(f, "\nprocesses that this user may not look into: {}", self.hidden)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    let mut text = format!("{:<width$}", cells[0], width = widths[0]);
    cells.iter().zip(widths).skip(1).for_each(|(cell, &width)| text += &format!("  {cell:>width$}"));
    writeln!(f, "{}", text.trim_end())
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Asks the kernel about this process and the workers of a wrapper.
pub(crate) fn report(caller: &Caller) -> Result<Report, ReportError> {
    let arena = &caller.program.arena;
    let files = Files::of(arena)?;
    let mut processes = vec![this_process(arena, &files)?];
    let attached = caller.engine.attached(caller.program.key);
    let mut hidden = 0;
    for worker in caller.engine.workers().into_iter().filter(|worker| caller.engine.is_here(*worker)) {
        let Ok(mut row) = process(format!("worker {}", worker.index), worker, &files) else {
            // A worker that dies while it is looked at is not in the report; its successor will be.
            hidden += usize::from(proc::is_hidden(worker.pid));
            continue;
        };
        if let Some((_, attached)) = attached.iter().find(|(known, _)| *known == worker) {
            row.copied = attached.copied.iter().map(|copied| copied.bytes).sum();
            row.attach_micros = Some(attached.took.saturating_sub(attached.decoding).as_micros() as u64);
            row.decode_micros = Some(attached.decoding.as_micros() as u64);
            row.memory = attached.memory.clone();
        }
        processes.push(row);
    }
    Ok(Report { arena: arena.len(), processes, hidden })
}

/// Asks the kernel about every process of this user that maps an arena, and counts those that it says nothing about.
pub(crate) fn report_all(arena: &Arena) -> Result<Report, ReportError> {
    let own = std::process::id();
    let files = Files::of(arena)?;
    let mut processes = vec![this_process(arena, &files)?];
    let none = |error: std::io::Error| ReportError::Proc { path: "/proc".to_owned(), reason: error.to_string() };
    let mut hidden = 0;
    for pid in proc::processes().map_err(none)?.filter(|pid| *pid != own) {
        match fs::read_to_string(format!("/proc/{pid}/maps")) {
            Ok(maps) if maps.lines().filter_map(Map::parse).any(|map| files.have(&map)) => {
                match process("process".to_owned(), Worker { index: 0, pid }, &files) {
                    Ok(row) => processes.push(row),
                    Err(_) => hidden += usize::from(proc::is_hidden(pid)),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hidden += 1,
            // It does not map the arena, or has ended.
            _ => {}
        }
    }
    processes[1..].sort_by_key(|process| process.pid);
    Ok(Report { arena: arena.len(), processes, hidden })
}

/// The memfds and files of an arena, as device and inode: how `/proc/<pid>/maps` names them, which is not always how `fstat`
/// does, so they are looked up by where they are mapped.
struct Files {
    files: Vec<(String, u64)>,
    /// Whether they are Ray's store, where the arena is what is protected: Ray maps the rest writable.
    store: bool,
}

impl Files {
    fn of(arena: &Arena) -> Result<Self, ReportError> {
        let maps = read("/proc/self/maps".to_owned())?;
        Ok(Self { store: arena.fd().is_none(), ..Self::at(&maps, &arena.addresses().collect::<Vec<_>>()) })
    }

    fn at(maps: &str, addresses: &[usize]) -> Self {
        let maps = maps.lines().filter_map(Map::parse);
        let ours = maps.filter(|map| addresses.iter().any(|address| (map.start..map.end).contains(address)));
        Self { files: ours.map(|map| (map.device.to_owned(), map.inode)).collect(), store: false }
    }

    /// Whether a mapping is of one of them.
    fn have(&self, map: &Map<'_>) -> bool {
        let ours = || self.files.iter().any(|(device, inode)| (device.as_str(), *inode) == (map.device, map.inode));
        !(self.store && map.permissions.contains('w')) && ours()
    }
}

fn this_process(arena: &Arena, files: &Files) -> Result<ProcessReport, ReportError> {
    let worker = Worker { index: 0, pid: std::process::id() };
    let row = process("owner".to_owned(), worker, files)?;
    Ok(ProcessReport { memory: arena.memory(), ..row })
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
        huge: arena.huge,
        locked: arena.locked,
        memory: MemoryOutcome::default(),
    })
}

/// What a process maps of an arena, and what it costs, in bytes: see [`ProcessReport`].
struct Usage {
    arena: Figures,
    private: u64,
    pss: u64,
}

impl Usage {
    fn of(pid: u32, ours: impl Fn(&Map<'_>) -> bool) -> Result<Self, ReportError> {
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
    use super::{Files, Map, MemoryOutcome, ProcessReport, Report};

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
        // Neither free addresses nor anonymous memory are anybody's.
        assert!(at(&[0x1000, 0x7f00_0080_0000]).is_empty());
    }

    #[test]
    fn the_table_adds_up() {
        let row = |name: &str, shared, share| ProcessReport {
            name: name.to_owned(),
            pid: 1,
            shared,
            share,
            private: 1 << 20,
            pss: (1 << 20) + share,
            copied: 0,
            attach_micros: None,
            decode_micros: None,
            huge: 0,
            locked: 0,
            memory: MemoryOutcome::default(),
        };
        let report = Report {
            arena: 4 << 20,
            processes: vec![row("owner", 0, 0), row("worker 0", 4 << 20, 2 << 20), row("worker 1", 4 << 20, 2 << 20)],
            hidden: 3,
        };
        assert_eq!((report.pss(), report.private(), report.saved()), (7 << 20, 3 << 20, 4 << 20));
        let text = report.to_string();
        assert!(text.contains("worker 1    1     4.0      1.0  3.0    2.0     0.0"), "{text}");
        assert!(text.contains("sum                        3.0  7.0    4.0     0.0"), "{text}");
        assert!(text.ends_with("processes that this user may not look into: 3"), "{text}");
    }
}
