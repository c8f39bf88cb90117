//! The machine a benchmark runs on: figures without it say nothing.

use std::fmt;
use std::fs;

use anyhow::Context;
use serde::Serialize;

/// What matters of the machine, as the kernel tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// How many cores this process may use.
    pub cores: usize,
    /// The version of the kernel.
    pub kernel: String,
    /// Main memory, in MiB.
    pub memory_mib: u64,
    /// How many processes wanted to run in the minute before: figures of a busy machine are worth less.
    pub load: String,
    /// `release`, or `dev` if the build has debug assertions.
    pub build: &'static str,
}

impl Machine {
    /// This machine, now.
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

/// A field of `/proc/<pid>/smaps_rollup`, `Pss` or `Anonymous`, in bytes.
///
/// # Errors
/// If the process is gone, or the kernel does not tell.
pub fn rollup(pid: u32, name: &str) -> anyhow::Result<u64> {
    size(&format!("/proc/{pid}/smaps_rollup"), name)
}

/// A field of this process's `/proc/self/status`, such as `VmHWM`, in bytes.
///
/// # Errors
/// If the kernel does not tell.
pub fn status(name: &str) -> anyhow::Result<u64> {
    size("/proc/self/status", name)
}

fn size(path: &str, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("{path} cannot be read; is the process gone?"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).with_context(|| format!("{path} has no field `{name}`"))
}

/// How long the threads of this process have run on a processor, in milliseconds: all that live.
///
/// Other processes lengthen what a clock shows much more than this. As exact as the kernel's clock ticks, some milliseconds.
///
/// # Errors
/// If the kernel does not tell.
pub fn processor_ms() -> anyhow::Result<f64> {
    processor_ms_of(std::process::id())
}

/// The same of another process.
///
/// # Errors
/// If the process is gone, or the kernel does not tell.
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
