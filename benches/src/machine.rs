//! Description of the machine that a benchmark runs on, and figures from `/proc`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::Context;
use serde::Serialize;

/// The properties of the machine that affect figures.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Number of cores that this process may use.
    pub cores: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// Main memory, in MiB.
    pub memory_mib: u64,
    /// Load average of the preceding minute: figures of a busy machine are less reliable.
    pub load: String,
    /// `release`, or `dev` if the build has debug assertions.
    pub build: &'static str,
}

impl Machine {
    /// Describes this machine.
    pub fn this() -> Self {
        let unknown = || "unknown".to_owned();
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let word = |file: &str| {
            let text = fs::read_to_string(file).ok()?;
            text.split_whitespace().next().map(str::to_owned)
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kib = memory.as_deref().and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: word("/proc/sys/kernel/osrelease").unwrap_or_else(unknown),
            memory_mib: kib.unwrap_or_default() / 1024,
            load: word("/proc/loadavg").unwrap_or_else(unknown),
            build: if cfg!(debug_assertions) { "dev" } else { "release" },
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, memory_mib, load, build } = self;
        write!(f, "{cpu}, {cores} cores, {} GiB, Linux {kernel}, load {load}, {build} build", memory_mib / 1024)
    }
}

/// Reads a field of `/proc/<pid>/smaps_rollup`, such as `Pss` or `Anonymous`, in bytes.
///
/// # Errors
/// If the process has ended, or the field is missing.
pub fn rollup(pid: u32, name: &str) -> anyhow::Result<u64> {
    size(&format!("/proc/{pid}/smaps_rollup"), name)
}

/// The memory of some processes, in bytes: the arenas that they map, each once, and the PSS of all that is no arena.
///
/// This is the sum of their PSS, but does not depend on the moment at which each process is read: a page of an arena
/// that one process maps while another is read changes the share of both.
///
/// # Errors
/// If a process has ended.
pub fn memory_of(pids: impl IntoIterator<Item = u32>) -> anyhow::Result<u64> {
    let mut arenas = BTreeMap::new();
    let mut rest = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps");
        let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read; is the process gone?"))?;
        let mut arena = None;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(first) = words.next() else { continue };
            let kib = || line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).context("a size");
            match first {
                "Size:" => {
                    if let Some(inode) = &arena {
                        arenas.insert(String::clone(inode), kib()? * 1024);
                    }
                }
                "Pss:" if arena.is_none() => rest += kib()? * 1024,
                // The line that begins a mapping: its addresses, permissions, offset, device and inode.
                _ if !first.ends_with(':') => {
                    let inode = words.nth(3).context("a mapping has an inode")?;
                    arena = line.ends_with("/memfd:ray-zerocopy (deleted)").then(|| inode.to_owned());
                }
                _ => {}
            }
        }
    }
    Ok(rest + arenas.values().sum::<u64>())
}

/// Reads a field of `/proc/self/status`, such as `VmHWM`, in bytes.
///
/// # Errors
/// If the field is missing.
pub fn status(name: &str) -> anyhow::Result<u64> {
    size("/proc/self/status", name)
}

fn size(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("{path} cannot be read; is the process gone?"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).with_context(|| format!("{path} has no field `{name}`"))
}

/// Returns the CPU time of all live threads of a process, in milliseconds.
///
/// Other processes affect it much less than the elapsed time. Its resolution is the kernel's clock
/// tick, a few milliseconds.
///
/// # Errors
/// If the process has ended, or the kernel does not report it.
pub fn processor_ms_of(pid: u32) -> anyhow::Result<f64> {
    let mut nanos = 0_u64;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("{tasks} cannot be read; is the process gone?"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        nanos += first.with_context(|| format!("{} says {text:?}", path.display()))?;
    }
    Ok(nanos as f64 / 1e6)
}
