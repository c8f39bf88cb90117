//! Parsers for the files of a process in `/proc`: `maps`, `stat` and `cmdline`.
//! Independent of arenas.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::smaps::mapping_of;

/// A line of `/proc/<pid>/maps` for a mapping of a file, or of memory that has a file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Map<'a> {
    pub start: usize,
    pub end: usize,
    /// Permissions, such as `r--s`.
    pub permissions: &'a str,
    /// Major and minor device number, such as `00:01`. Not always equal to those of `fstat`.
    pub device: &'a str,
    pub inode: u64,
    /// The path, or `/memfd:NAME (deleted)`.
    pub name: &'a str,
}

impl<'a> Map<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let Range { start, end } = mapping_of(line)?;
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after.trim_start();
            word
        };
        let (_, permissions, _, device, inode) = (word(), word(), word(), word(), word());
        let inode = inode.parse().ok().filter(|&inode| inode != 0)?;
        Some(Self { start, end, permissions, device, inode, name: rest })
    }
}

/// Iterates over the ids of all processes.
///
/// # Errors
/// If `/proc` is not mounted, or belongs to another pid namespace.
pub(crate) fn processes() -> io::Result<impl Iterator<Item = u32>> {
    // An unmounted `/proc` is usually an empty folder.
    fs::metadata("/proc/self")?;
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Returns `true` if the process exists but its memory map may not be read: it belongs to another
/// user, or is not dumpable.
pub(crate) fn is_hidden(pid: u32) -> bool {
    // The permission is checked when the file is opened, but the error may only appear when it is
    // read.
    matches!(fs::read(format!("/proc/{pid}/maps")), Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
}

/// A file that is mapped into a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappedFile {
    /// Address range of the mapping.
    pub addresses: Range<usize>,
    /// Offset of the mapping in the file, in bytes.
    pub offset: u64,
    pub path: PathBuf,
}

/// Finds the file that is mapped at an address, in the contents of `/proc/<pid>/maps`. These are
/// bytes because paths need not be UTF-8.
pub(crate) fn file_at(maps: &[u8], address: usize) -> Option<MappedFile> {
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        let slash = line.iter().position(|&byte| byte == b'/')?;
        let (columns, path) = line.split_at(slash);
        let columns = std::str::from_utf8(columns).ok()?;
        let addresses = mapping_of(columns).filter(|range| range.contains(&address))?;
        let offset = u64::from_str_radix(columns.split_whitespace().nth(2)?, 16).ok()?;
        Some(MappedFile { addresses, offset, path: PathBuf::from(OsStr::from_bytes(path)) })
    })
}

/// Returns the path of the file that is mapped at an address of this process.
#[cfg(feature = "ray")]
pub(crate) fn own_file_at(address: usize) -> Option<PathBuf> {
    Some(file_at(&fs::read("/proc/self/maps").ok()?, address)?.path)
}

/// Returns a field of `/proc/<pid>/stat`, counted from the field after the program name. `process` is
/// a process id or `self`.
fn stat(process: impl Display, field: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    // The program name is in parentheses, and may itself contain any characters, including
    // parentheses.
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(") ")?.1.split_whitespace().nth(field).map(str::to_owned)
}

/// Returns the state of a process as one letter, such as `R`, or `T` for one that a signal has
/// stopped.
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid, 0)?.chars().next()
}

/// Returns the id of a process's parent.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid, 1)?.parse().ok()
}

/// Returns the kernel's flags of this process (`PF_…` of `linux/sched.h`).
pub(crate) fn flags() -> Option<u64> {
    stat("self", 6)?.parse().ok()
}

/// Returns the first argument of a process's command line.
pub(crate) fn argv0(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(line.split(|&byte| byte == 0).next()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::smaps::{field, figures};
    use super::Map;
    use super::MappedFile;
    use super::argv0;
    use super::file_at;
    use super::parent;
    use super::processes;

    const SMAPS: &str = "\
7f0000000000-7f0000200000 r--s 00000000 00:01 4711                       /memfd:ray-zerocopy (deleted)
Size:               2048 kB
Rss:                1024 kB
Pss:                 256 kB
VmFlags: rd sh mr
7f0000400000-7f0000600000 r--s 00000000 fd:02 4712                       /models/two  spaces.bpk
Rss:                2048 kB
Pss:                2048 kB
7f0000800000-7f0000801000 rw-p 00000000 00:00 0
Rss:                   4 kB
";

    #[test]
    fn line_of_maps_is_parsed() {
        let maps: Vec<_> = SMAPS.lines().filter_map(Map::parse).collect();
        let expected = Map {
            start: 0x7f00_0040_0000,
            end: 0x7f00_0060_0000,
            permissions: "r--s",
            device: "fd:02",
            inode: 4712,
            name: "/models/two  spaces.bpk",
        };
        assert_eq!((maps.len(), maps[1]), (2, expected));
        assert_eq!(maps[0].name, "/memfd:ray-zerocopy (deleted)");
        for line in ["", "Rss: 4 kB", "x-y r--s 0 0 1 name", "1-2", "VmFlags: rd-sh mr"] {
            assert_eq!(Map::parse(line), None, "{line}");
        }
    }

    #[test]
    fn only_selected_mappings_are_counted() {
        let cost = |ours: fn(&Map<'_>) -> bool| {
            let found = figures(SMAPS, |line| Map::parse(line).is_some_and(|map| ours(&map)));
            (found.rss, found.pss)
        };
        assert_eq!(cost(|map| map.inode == 4711), (1024 * 1024, 256 * 1024));
        assert_eq!(cost(|_| true), (3 * 1024 * 1024, 2304 * 1024));
        assert_eq!(cost(|_| false), (0, 0));
        assert_eq!(field("Rss: 3 kB\nAnonymous:     12 kB\n", "Anonymous:"), 12 * 1024);
    }

    #[test]
    fn mapped_file_is_found_by_address() {
        let maps = b"55d0c8a00000-55d0c8a21000 r-xp 00021000 08:02 173521                     /usr/bin/my prog\n\
                     7ffd4a5f0000-7ffd4a611000 rw-p 00000000 00:00 0                          [stack]\n";
        let expected = MappedFile {
            addresses: 0x55d0_c8a0_0000..0x55d0_c8a2_1000,
            offset: 0x21000,
            path: "/usr/bin/my prog".into(),
        };
        assert_eq!(file_at(maps, 0x55d0_c8a0_0010), Some(expected));
        assert_eq!(file_at(maps, 0x7ffd_4a5f_0010), None);
        assert_eq!(file_at(maps, 16), None);
        assert_eq!(file_at(b"nonsense", 16), None);
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let own = file_at(&maps, file_at as fn(&[u8], usize) -> Option<MappedFile> as usize).unwrap();
        assert_eq!(own.path, std::fs::read_link("/proc/self/exe").unwrap());
    }

    #[test]
    fn this_process_has_a_parent_and_a_name() {
        let own = std::process::id();
        assert!(processes().unwrap().any(|pid| pid == own));
        assert_eq!(parent(own), Some(std::os::unix::process::parent_id()));
        assert_eq!(argv0(own), std::env::args().next());
        assert_eq!(parent(u32::MAX), None);
    }
}
