//! CPU affinity and niceness of processes and threads.

use rustix::io::Errno;
use rustix::process::{Pid, getpriority_process, setpriority_process};
#[cfg(target_os = "linux")]
use rustix::process::{Resource, getrlimit};
#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores and niceness of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CpuPlacement {
    /// The only cores that it runs on, if they are limited.
    pub(crate) cores: Option<Vec<usize>>,
    pub(crate) niceness: Option<i32>,
}

impl CpuPlacement {
    /// Applies it to the main thread of a process, or to the calling thread. Threads that are started
    /// afterwards inherit it. The error is the reason why it cannot be applied, with what to do.
    pub(crate) fn apply(&self, process: Option<Pid>) -> Result<(), String> {
        if let Some(cores) = &self.cores {
            set_affinity(process, cores)?;
        }
        self.niceness.map_or(Ok(()), |niceness| set_niceness(process, niceness))
    }
}

/// Sets the niceness: from -20, which is first, to 19, which is last.
fn set_niceness(process: Option<Pid>, niceness: i32) -> Result<(), String> {
    setpriority_process(process, niceness).map_err(|error| {
        let reason = match error {
            Errno::ACCESS | Errno::PERM => {
                let limit = least_niceness();
                let now = getpriority_process(None).unwrap_or_default();
                format!(
                    "this user may not go below {} (it is {now} now): raise the limit, see `ulimit -e`, or run with \
                     CAP_SYS_NICE",
                    limit.min(now.into())
                )
            }
            error => error.to_string(),
        };
        format!("niceness {niceness} cannot be set: {reason}")
    })
}

/// Lowers the priority of the calling thread, and of those that it starts, by 10 steps of niceness: to a tenth.
pub(crate) fn lower_priority() {
    const STEPS: i32 = 10;
    let lowered = getpriority_process(None).map(|niceness| (niceness + STEPS).min(19));
    // Every thread may have a lower priority.
    let _ = lowered.and_then(|niceness| setpriority_process(None, niceness));
}

/// Checks that this process may use cores. The kernel ignores those that it may not use, as long as one
/// is left. The error is the reason.
pub(crate) fn check(cores: &[usize]) -> Result<(), String> {
    let allowed = allowed_cores();
    let is_missing = |core: &usize| !allowed.contains(core);
    if cores.is_empty() || cores.iter().any(is_missing) {
        return Err(format!("the affinity to cores {cores:?} cannot be set: this process may use cores {allowed:?}"));
    }
    Ok(())
}

/// The least niceness that this user may set.
#[cfg(target_os = "linux")]
fn least_niceness() -> i64 {
    // The limit is 20 - niceness.
    getrlimit(Resource::Nice).current.map_or(-20, |limit| 20 - limit.min(40) as i64)
}

/// Other systems have no limit: only root may lower the niceness.
#[cfg(not(target_os = "linux"))]
fn least_niceness() -> i64 {
    i64::MAX
}

#[cfg(target_os = "linux")]
fn set_affinity(process: Option<Pid>, cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores.iter().filter(|&&core| core < CpuSet::MAX_CPU) {
        set.set(core);
    }
    sched_setaffinity(process, &set).map_err(|error| {
        let allowed = allowed_cores();
        format!("the affinity to cores {cores:?} cannot be set: {error}; this process may use cores {allowed:?}")
    })
}

#[cfg(not(target_os = "linux"))]
fn set_affinity(_process: Option<Pid>, cores: &[usize]) -> Result<(), String> {
    Err(format!("the affinity to cores {cores:?} cannot be set: that needs Linux"))
}

/// Limits all threads of this process to cores. Threads that are started afterwards inherit it. The error is
/// the reason why it cannot be done.
#[cfg(target_os = "linux")]
pub(crate) fn bind_process(cores: &[usize]) -> Result<(), String> {
    // A thread that has not been found yet may start another one.
    let mut bound = Vec::new();
    loop {
        let threads = std::fs::read_dir("/proc/self/task");
        let threads = threads.map_err(|error| format!("/proc/self/task cannot be read: {error}"))?;
        let ids = threads.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        let new: Vec<Pid> = ids.filter(|id| !bound.contains(id)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for id in new {
            set_affinity(Some(id), cores).or_else(|reason| if exists(id) { Err(reason) } else { Ok(()) })?;
            bound.push(id);
        }
    }
}

/// Whether a thread of this process has not ended.
#[cfg(target_os = "linux")]
fn exists(thread: Pid) -> bool {
    std::fs::exists(format!("/proc/self/task/{}", thread.as_raw_nonzero())).unwrap_or(true)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn bind_process(cores: &[usize]) -> Result<(), String> {
    set_affinity(None, cores)
}

/// Limits the calling thread to cores. Threads that it starts afterwards inherit it. The error is the
/// reason why it cannot be done.
pub(crate) fn bind_thread(cores: &[usize]) -> Result<(), String> {
    set_affinity(None, cores)
}

/// The cores that this process may use.
#[cfg(target_os = "linux")]
pub(crate) fn allowed_cores() -> Vec<usize> {
    sched_getaffinity(None)
        .map_or_else(|_| Vec::new(), |set| (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn allowed_cores() -> Vec<usize> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::{CpuPlacement, allowed_cores, check};

    #[test]
    #[cfg_attr(miri, ignore = "changes threads")]
    fn thread_is_placed_and_nothing_else() {
        let before = allowed_cores();
        let last = *before.last().unwrap();
        std::thread::spawn(move || {
            let placement = CpuPlacement { cores: Some(vec![last]), niceness: Some(7) };
            placement.apply(None).unwrap();
            assert_eq!(allowed_cores(), [last]);
            assert_eq!(rustix::process::getpriority_process(None), Ok(7));
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cores(), before);
    }

    #[test]
    #[cfg_attr(miri, ignore = "changes threads")]
    fn cores_that_may_not_be_used_are_found() {
        let first = allowed_cores()[0];
        assert_eq!(check(&[first]), Ok(()));
        for cores in [vec![], vec![first, 1023], vec![usize::MAX]] {
            let error = check(&cores).unwrap_err();
            assert!(error.contains("this process may use cores ["), "{error}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "changes threads")]
    fn cores_that_do_not_exist_are_refused() {
        for cores in [vec![], vec![1023], vec![usize::MAX]] {
            let placement = CpuPlacement { cores: Some(cores.clone()), niceness: None };
            let error = placement.apply(None).unwrap_err();
            assert!(error.starts_with(&format!("the affinity to cores {cores:?} cannot be set: ")), "{error}");
            assert!(error.contains("this process may use cores ["), "{error}");
        }
    }
}
