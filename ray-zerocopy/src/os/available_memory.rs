//! Memory that new processes of this program may take: what the machine has available, and what the
//! limits of the cgroups leave.

use std::fs;
use std::path::{Path, PathBuf};

use super::byte_size::mib_rounded_up;
use super::smaps::field;

/// Available memory, and what limits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) bytes: u64,
    /// The file that the figure comes from.
    pub(crate) source: String,
}

/// Checks that there is memory for a worker that needs `needed` bytes, beside `others` that need as much
/// and are about to start, and `reserve` bytes. The error is the reason why there is not. Succeeds if
/// the kernel does not say what is available.
pub(crate) fn check(needed: u64, others: u64, reserve: u64) -> Result<(), String> {
    available().map_or(Ok(()), |available| available.check(needed, others, reserve))
}

/// Returns the available memory. Returns `None` without `/proc`.
pub(crate) fn available() -> Option<Available> {
    available_in(Path::new("/"))
}

impl Available {
    fn check(&self, needed: u64, others: u64, reserve: u64) -> Result<(), String> {
        if needed.saturating_mul(others.saturating_add(1)).saturating_add(reserve) <= self.bytes {
            return Ok(());
        }
        let [needed, available] = [needed, self.bytes].map(mib_rounded_up);
        let kept = match reserve {
            0 => String::new(),
            reserve => format!(" and {} MiB are kept free", mib_rounded_up(reserve)),
        };
        let beside = match others {
            0 => String::new(),
            others => format!(" beside {others} that are about to start"),
        };
        Err(format!(
            "a worker needs about {needed} MiB{beside}{kept}, and {available} MiB are available ({}); free memory, raise the limit, \
             or allow fewer workers",
            self.source
        ))
    }
}

/// As [`available`], with `root` as the root folder.
fn available_in(root: &Path) -> Option<Available> {
    let meminfo = root.join("proc/meminfo");
    let text = fs::read_to_string(&meminfo).ok().filter(|text| text.contains("MemAvailable:"));
    let machine = text.map(|text| Available {
        bytes: field(&text, "MemAvailable:"),
        source: "MemAvailable of /proc/meminfo".to_owned(),
    });
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = cgroups.lines().filter_map(Hierarchy::parse).flat_map(|hierarchy| hierarchy.limits(root));
    machine.into_iter().chain(limits).min_by_key(|available| available.bytes)
}

/// A hierarchy of cgroups that limits memory.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy<'a> {
    /// Folder of the hierarchy.
    mount: &'static str,
    /// Path of this process's cgroup.
    cgroup: &'a str,
    /// Files with the limit, the use, and the pages that the kernel can drop.
    files: [&'static str; 2],
    droppable: &'static str,
}

impl<'a> Hierarchy<'a> {
    /// Parses a line of `/proc/self/cgroup`: `ID:CONTROLLERS:PATH`. Version 2 has no controllers there.
    fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, cgroup) = rest.split_once(':')?;
        if controllers.is_empty() {
            let files = ["memory.max", "memory.current"];
            return Some(Self { mount: "sys/fs/cgroup", cgroup, files, droppable: "inactive_file " });
        }
        controllers.split(',').any(|controller| controller == "memory").then_some(Self {
            mount: "sys/fs/cgroup/memory",
            cgroup,
            files: ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            droppable: "total_inactive_file ",
        })
    }

    /// What the limits of the cgroup and of those above it leave. A container may see its own cgroup as
    /// the root of the hierarchy, and its path as it is outside. Folders that do not exist have no
    /// limit.
    fn limits(&self, root: &Path) -> Vec<Available> {
        let mount = root.join(self.mount);
        let own = mount.join(self.cgroup.trim_start_matches('/'));
        let folders = own.ancestors().take_while(|folder| folder.starts_with(&mount)).map(Path::to_owned);
        folders.filter_map(|folder| self.limit(root, &folder)).collect()
    }

    fn limit(&self, root: &Path, folder: &Path) -> Option<Available> {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // No limit is the word `max`, or a number that no machine has.
        let [limit, used] = self.files.map(number);
        let limit = limit?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let droppable = stat.lines().find_map(|line| line.strip_prefix(self.droppable)?.trim().parse::<u64>().ok());
        let used = used?.saturating_sub(droppable.unwrap_or_default());
        let file = folder.join(self.files[0]);
        let file = PathBuf::from("/").join(file.strip_prefix(root).unwrap_or(&file));
        Some(Available { bytes: limit.saturating_sub(used), source: format!("the limit in {}", file.display()) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Available, Hierarchy, available, available_in};

    const MIB: u64 = 1 << 20;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn smallest_limit_of_the_hierarchy_counts() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(available_in(root), None);
        write(root, &[("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:  4096 kB\n")]);
        let machine = available_in(root).unwrap();
        assert_eq!((machine.bytes, &*machine.source), (4 * MIB, "MemAvailable of /proc/meminfo"));

        write(
            root,
            &[
                ("proc/self/cgroup", "0::/pod/container\n"),
                ("sys/fs/cgroup/pod/memory.max", "3145728\n"),
                ("sys/fs/cgroup/pod/memory.current", "2097152\n"),
                ("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 1048576\n"),
                ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
                ("sys/fs/cgroup/pod/container/memory.current", "1\n"),
            ],
        );
        let pod = available_in(root).unwrap();
        assert_eq!((pod.bytes, &*pod.source), (2 * MIB, "the limit in /sys/fs/cgroup/pod/memory.max"));
        // More than the limit is in use.
        write(root, &[("sys/fs/cgroup/pod/memory.current", "99999999\n")]);
        assert_eq!(available_in(root).unwrap().bytes, 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn first_version_of_cgroups_is_read() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(
            root,
            &[
                ("proc/self/cgroup", "12:pids:/a\n4:cpu,memory:/a\n"),
                ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1048576"),
                ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "nonsense"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576"),
            ],
        );
        assert_eq!(available_in(root).unwrap().bytes, MIB);
    }

    #[test]
    fn other_lines_of_cgroups_are_ignored() {
        for line in ["", "nonsense", "1:cpu:/", "1:name=systemd:/", "0"] {
            assert_eq!(Hierarchy::parse(line), None, "{line}");
        }
        assert_eq!(Hierarchy::parse("0::/a:b").unwrap().cgroup, "/a:b");
    }

    #[test]
    fn lack_of_memory_is_named() {
        let available = Available { bytes: 10 * MIB, source: "the limit in /x".to_owned() };
        assert_eq!(available.check(5 * MIB, 1, 0), Ok(()));
        let reason = available.check(8 * MIB, 0, 4 * MIB).unwrap_err();
        let expected = "a worker needs about 8 MiB and 4 MiB are kept free, and 10 MiB are available (the limit in /x)";
        assert!(reason.starts_with(expected), "{reason}");
        assert!(available.check(1, 0, u64::MAX).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn this_machine_has_memory() {
        assert!(available().is_some_and(|available| available.bytes > 0));
    }
}
