//! A report: rows of processes, which print as a table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::arena::memory::status::MemoryStatus;
use crate::os::byte_size::mib;

/// What one process maps and costs, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
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
    pub memory: MemoryStatus,
}

impl ProcessReport {
    /// What the process would cost more if it had the arena to itself: `shared - share`.
    pub fn saved(&self) -> u64 {
        self.shared.saturating_sub(self.share)
    }
}

/// What the processes of a wrapper map, cost and save. Prints as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
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

#[cfg(test)]
mod tests {
    use super::ProcessReport;
    use super::Report;
    use crate::arena::memory::status::MemoryStatus;

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
            memory: MemoryStatus::default(),
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
