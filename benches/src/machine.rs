//! Description of the machine that a benchmark runs on, and figures from `/proc`.

use std::collections::BTreeSet;
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

/// The arenas in sealed memory that a process maps, by their inodes.
///
/// # Errors
/// If the process has ended.
pub fn arenas(pid: u32) -> anyhow::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let ours = text.lines().filter(|line| line.contains("/memfd:ray-zerocopy (deleted)"));
    Ok(ours.filter_map(|line| line.split_whitespace().nth(4).map(str::to_owned)).collect())
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
