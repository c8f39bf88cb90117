//! A report: a row for each process, formatted as a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::generation::GenerationReport;
use super::replica::ReplicaReport;
use crate::arena::manifest::ArenaId;
use crate::arena::memory::status::MemoryStatus;
use crate::engine::call::batch::stats::BatchReport;
use crate::engine::queue::report::PoolReport;
use crate::os::byte_size::mib;
use crate::tensor::copied::DeviceMemory;

/// Memory that one process maps and costs, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessReport {
    /// `owner`, or `worker` and its index. Other processes are called `process`. Workers that are
    /// threads of the owner are part of its row, which says how many they are.
    pub name: String,
    /// The process id.
    pub pid: u32,
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
    /// Bytes that the worker copied when it loaded, because they could not be borrowed on its
    /// device or with their dtype.
    pub copied: u64,
    /// Time in microseconds that the worker took to rebuild the pipeline and to borrow its weights;
    /// of several threads, the longest. `None` for other processes.
    pub attach_micros: Option<u64>,
    /// Time in microseconds that the worker took to decode its copies of the copied fields. `None`
    /// for other processes.
    pub decode_micros: Option<u64>,
    /// The weights in the memory of the worker's GPU, or why they were copied there for it alone.
    /// `None` on devices whose memory processes cannot share, and for other processes.
    #[serde(default)]
    pub device: Option<DeviceMemory>,
    /// The memory of GPUs that the driver counts for the process, in bytes: its context, and a copy
    /// of the weights if it has uploaded it. `None` if the driver does not say.
    #[serde(default)]
    pub device_used: Option<u64>,
    /// How much of `shared` is mapped as huge pages (`ShmemPmdMapped` and `FilePmdMapped` of the
    /// arena).
    pub huge: u64,
    /// How much of `shared` is locked, and stays in memory (`Rss` of the arena where its `VmFlags`
    /// have `lo`).
    pub locked: u64,
    /// The status of the memory policy: for the owner at this moment, for a worker when it had
    /// loaded the pipeline. For processes that this one has not started, it is not known, and is
    /// the default.
    pub memory: MemoryStatus,
    /// The instructions that compiled graphs use in the worker, such as `AVX-512 VNNI`, as
    /// [`instruction_set`](crate::jit::instruction_set) names them. `None` if it has loaded none, and for other
    /// processes.
    #[serde(default)]
    pub instructions: Option<String>,
}

impl ProcessReport {
    /// The memory that sharing saves for this process: `shared - share`.
    pub fn saved(&self) -> u64 {
        self.shared.saturating_sub(self.share)
    }
}

/// Memory that the processes of a wrapper map, cost and save. `Display` formats it as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The size of the arena in bytes.
    pub arena: u64,
    /// The arenas that this one borrows from, and the bytes that it borrows from each. They are part of
    /// `arena`, and of `shared` of a process, once.
    #[serde(default)]
    pub bases: Vec<(ArenaId, u64)>,
    /// The owner first, then the running workers.
    pub processes: Vec<ProcessReport>,
    /// The number of processes that may map the arena but could not be inspected: those of other
    /// users, and those that are not dumpable. Processes that `/proc` does not show at all
    /// (`hidepid=2`) are not counted.
    #[serde(default)]
    pub hidden: usize,
    /// The batches of each method, if the wrapper puts calls together.
    #[serde(default)]
    pub batches: Vec<BatchReport>,
    /// How the pool has grown and shrunk, if it has a range of workers.
    #[serde(default)]
    pub pool: Option<PoolReport>,
    /// The calls on each generation of weights that gets new ones: the current one, and the canary if there
    /// is one.
    #[serde(default)]
    pub generations: Vec<GenerationReport>,
    /// The copies of the arena on NUMA nodes, the first copy first. Empty if there is one copy. In the rows of
    /// the processes, each copy counts as the arena: one worker on each of two nodes saves nothing, and three
    /// save the memory of one copy.
    #[serde(default)]
    pub replicas: Vec<ReplicaReport>,
}

impl Report {
    /// The sum of the `Pss` of all processes, in bytes: the memory that they take of the machine.
    pub fn pss(&self) -> u64 {
        self.processes.iter().map(|process| process.pss).sum()
    }

    /// The sum of the private memory of all processes, in bytes.
    pub fn private(&self) -> u64 {
        self.processes.iter().map(|process| process.private).sum()
    }

    /// The memory that sharing saves, in bytes: how much more the processes would take if each had
    /// its own copy of the pages that it maps, less the shared copy.
    pub fn saved(&self) -> u64 {
        self.processes.iter().map(ProcessReport::saved).sum()
    }

    /// Writes a line for the copy on the GPU, one for each reason why there is none, and one for the
    /// memory that the driver counts for each process.
    fn devices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |is_wanted: &dyn Fn(&DeviceMemory) -> bool| -> Vec<&str> {
            let wanted = |process: &&ProcessReport| process.device.as_ref().is_some_and(is_wanted);
            self.processes.iter().filter(wanted).map(|process| process.name.as_str()).collect()
        };
        let known = self.processes.iter().filter_map(|process| process.device.as_ref());
        let gpus: BTreeSet<&str> = known.clone().filter_map(|memory| memory.gpu.as_deref()).collect();
        for gpu in &gpus {
            let is_there = |memory: &DeviceMemory| memory.gpu.as_deref() == Some(gpu);
            let bytes = known.clone().filter(|memory| is_there(memory)).map(|memory| memory.bytes).max().unwrap_or(0);
            let users = with(&is_there);
            let uploaders = with(&|memory| is_there(memory) && memory.is_uploaded);
            let place = if gpus.len() == 1 { "the GPU" } else { gpu };
            write!(f, "\non {place}: one copy of {} MiB, used by {}", mib(bytes), users.join(", "))?;
            if !uploaders.is_empty() {
                write!(f, "; uploaded by {}", uploaders.join(", "))?;
            }
        }
        let mut reasons: Vec<&str> = known.filter_map(|memory| memory.why_copied.as_deref()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let names = with(&|memory| memory.why_copied.as_deref() == Some(reason));
            write!(f, "\non the GPU: a copy for each of {}: {reason}", names.join(", "))?;
        }
        // The driver counts a copy for the process that has uploaded it.
        let used = |process: &ProcessReport| {
            let used = process.device_used?;
            let copy = process.device.as_ref().filter(|memory| memory.is_uploaded).map_or(0, |memory| memory.bytes);
            Some(format!("{} {}", process.name, mib(used.saturating_sub(copy))))
        };
        let used: Vec<String> = self.processes.iter().filter_map(used).collect();
        if !used.is_empty() {
            write!(
                f,
                "\nGPU memory beside the copy, MiB, as the driver counts it, of contexts and calls: {}",
                used.join(", ")
            )?;
        }
        Ok(())
    }

    /// Returns each set of instructions that compiled graphs use, with the processes that have it.
    fn instructions(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for process in &self.processes {
            if let Some(instructions) = &process.instructions {
                all.entry(instructions).or_default().push(&process.name);
            }
        }
        all
    }

    /// Returns each distinct status of the memory policy, with the processes that have it.
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
        let count = match self.processes.len() {
            1 => "1 process".to_owned(),
            count => format!("{count} processes"),
        };
        match self.replicas.len() {
            0 | 1 => writeln!(f, "one copy of the weights: {} MiB, mapped by {count}", mib(self.arena))?,
            copies => writeln!(f, "{copies} copies of the weights: {} MiB each, mapped by {count}", mib(self.arena))?,
        }
        for (id, bytes) in &self.bases {
            writeln!(f, "of these, {} MiB are borrowed from arena {id}", mib(*bytes))?;
        }
        // Two further columns if a memory policy was requested.
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
        self.devices(f)?;
        for (text, names) in self.outcomes() {
            write!(f, "\n{}: {text}", names.join(", "))?;
        }
        for (instructions, names) in self.instructions() {
            write!(f, "\n{}: compiled graphs with {instructions}", names.join(", "))?;
        }
        for replica in &self.replicas {
            write!(f, "\n{replica}")?;
        }
        for batches in &self.batches {
            write!(f, "\n{batches}")?;
        }
        if let Some(pool) = &self.pool {
            write!(f, "\n{pool}")?;
        }
        // A single one has all calls.
        for generation in self.generations.iter().filter(|_| self.generations.len() > 1) {
            write!(f, "\n{generation}")?;
        }
        if self.hidden > 0 {
            write!(f, "\nprocesses that this user may not inspect: {}", self.hidden)?;
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
    use crate::arena::manifest::ArenaId;
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
            device: None,
            device_used: None,
            huge: 0,
            locked: 0,
            memory: MemoryStatus::default(),
            instructions: name.starts_with("worker").then(|| "AVX2".to_owned()),
        };
        let report = Report {
            arena: 4 << 20,
            bases: vec![(ArenaId([0xab; 32]), 3 << 20)],
            processes: vec![row("owner", 0, 0), row("worker 0", 4 << 20, 2 << 20), row("worker 1", 4 << 20, 2 << 20)],
            hidden: 3,
            batches: Vec::new(),
            pool: None,
            generations: Vec::new(),
            replicas: Vec::new(),
        };
        assert_eq!((report.pss(), report.private(), report.saved()), (7 << 20, 3 << 20, 4 << 20));
        let text = report.to_string();
        assert!(text.contains("\nof these, 3.0 MiB are borrowed from arena abababababab\n"), "{text}");
        assert!(text.contains("worker 1    1     4.0      1.0  3.0    2.0     0.0"), "{text}");
        assert!(text.contains("sum                        3.0  7.0    4.0     0.0"), "{text}");
        assert!(text.contains("\nworker 0, worker 1: compiled graphs with AVX2\n"), "{text}");
        assert!(text.ends_with("processes that this user may not inspect: 3"), "{text}");
    }
}
